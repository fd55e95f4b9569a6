//! Everything that reads bytes, chosen by the first one: whatever comes, an error or a value that is used a little.
#![no_main]

use barograph_core::codec::Reader;
use barograph_core::codec::SnapshotKind;
use barograph_core::detectors::{Adwin, Cusum, Ddm, Detect, Detector, Eddm, Ewma, HddmA, HddmW, Kswin, PageHinkley, Rank};
use barograph_core::estimates::{
    AsymptoticSequence, AucSequence, CalibrationAlarm, Cbpe, CbpeEstimate, MeanSequence, QuantileSequence, RiskAlarm,
};
use barograph_core::metrics::{BinaryMetrics, MulticlassMetrics, RankingMetrics, RegressionMetrics};
use barograph_core::sketches::{
    CoMoments, ExponentialHistogram, FrequentItems, Hll, Kll, MeanEmbedding, Moments, Sample, SlicedProjections, Theta,
};
use barograph_engine::{Monitor, Profile, Reference};
use libfuzzer_sys::fuzz_target;

fn detector<D: Detect>(bytes: &[u8]) {
    if let Ok(mut detector) = Detector::<D>::from_bytes(bytes) {
        let _ = detector.update_many(&[0.0, 1.0, 1.0, 0.0]);
        let again = Detector::<D>::from_bytes(&detector.to_bytes());
        assert!(again.is_ok());
    }
}

/// The bytes behind a header and a checksum that fit, so that the decoder itself is reached.
fn sealed(kind: SnapshotKind, bytes: &[u8]) -> Vec<u8> {
    let mut writer = barograph_core::codec::Writer::new();
    bytes.iter().for_each(|byte| writer.u8(*byte));
    writer.seal(kind)
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let mut reader = Reader::new(bytes);
    match choice % 34 {
        0 => drop(Profile::from_bytes(bytes)),
        1 => drop(Reference::from_bytes(bytes)),
        2 => {
            if let Ok(mut profile) = Profile::from_bytes(&sealed(SnapshotKind::Profile, bytes)) {
                let same = profile.clone();
                let _ = profile.merge(&same);
                assert!(Profile::from_bytes(&same.to_bytes()).is_ok_and(|read| read == same));
            }
        }
        3 => {
            if let Ok(reference) = Reference::from_bytes(&sealed(SnapshotKind::Reference, bytes)) {
                assert!(Reference::from_bytes(&reference.to_bytes()).is_ok());
            }
        }
        4 => {
            if let Ok(histogram) = ExponentialHistogram::decode(&mut reader) {
                let _ = (histogram.cells(), histogram.quantile(0.5));
            }
        }
        5 => drop(Moments::decode(&mut reader).map(|moments| (moments.mean(), moments.variance()))),
        6 => drop(Kll::from_bytes(bytes).map(|sketch| (sketch.quantile(0.5), Kll::from_bytes(&sketch.to_bytes())))),
        7 => drop(Hll::from_datasketches(bytes).map(|sketch| (sketch.estimate(), sketch.to_datasketches()))),
        8 => drop(Theta::from_datasketches(bytes, 12).map(|sketch| (sketch.estimate(), sketch.to_datasketches()))),
        9 => drop(FrequentItems::from_datasketches(bytes).map(|sketch| sketch.to_datasketches())),
        10 => drop(Sample::from_bytes(&sealed(SnapshotKind::Sample, bytes)).map(|sample| sample.inclusion())),
        11 => drop(BinaryMetrics::decode(&mut reader).map(|metrics| metrics.metrics(0.95))),
        12 => drop(MulticlassMetrics::decode(&mut reader).map(|metrics| metrics.metrics())),
        13 => drop(RegressionMetrics::decode(&mut reader).map(|metrics| metrics.metrics(0.95))),
        14 => drop(RankingMetrics::decode(&mut reader).map(|metrics| metrics.metrics(0.95))),
        15 => detector::<Adwin>(&sealed(SnapshotKind::Detector, bytes)),
        16 => detector::<PageHinkley>(&sealed(SnapshotKind::Detector, bytes)),
        17 => {
            detector::<Ddm>(&sealed(SnapshotKind::Detector, bytes));
            detector::<Eddm>(&sealed(SnapshotKind::Detector, bytes));
        }
        18 => {
            detector::<HddmA>(&sealed(SnapshotKind::Detector, bytes));
            detector::<HddmW>(&sealed(SnapshotKind::Detector, bytes));
        }
        19 => detector::<Kswin>(&sealed(SnapshotKind::Detector, bytes)),
        20 => {
            detector::<Cusum>(&sealed(SnapshotKind::Detector, bytes));
            detector::<Ewma>(&sealed(SnapshotKind::Detector, bytes));
        }
        21 => {
            drop(CoMoments::from_bytes(&sealed(SnapshotKind::CoMoments, bytes)).map(|sketch| (sketch.covariance(), sketch.correlation())))
        }
        22 => drop(MeanEmbedding::from_bytes(&sealed(SnapshotKind::MeanEmbedding, bytes)).map(|sketch| sketch.mmd(&sketch))),
        23 => drop(SlicedProjections::from_bytes(&sealed(SnapshotKind::SlicedProjections, bytes)).map(|p| p.sliced_wasserstein(&p))),
        24 => {
            if let Ok(mut monitor) = Monitor::from_bytes(&sealed(SnapshotKind::Monitor, bytes)) {
                let _ = monitor.tick(1 << 60);
                let _ = monitor.to_bytes();
            }
        }
        25 => detector::<Rank>(&sealed(SnapshotKind::Detector, bytes)),
        26 => drop(Cbpe::decode(&mut reader).map(|cbpe| cbpe.calibrated(&[0.0, 0.3, 1.0]))),
        27 => {
            if let Ok(mut estimate) = CbpeEstimate::decode(&mut reader) {
                let _ = (estimate.update_many(&[0.0, 0.3, 1.0], None), estimate.metrics(0.95));
            }
        }
        28 => drop(MeanSequence::decode(&mut reader).map(|mut sequence| (sequence.update_many(&[0.5]), sequence.interval()))),
        29 => drop(QuantileSequence::decode(&mut reader).map(|mut sequence| (sequence.update_many(&[0.5]), sequence.interval()))),
        30 => drop(AsymptoticSequence::decode(&mut reader).map(|mut sequence| (sequence.update_many(&[0.5]), sequence.interval()))),
        31 => drop(RiskAlarm::decode(&mut reader).map(|mut alarm| alarm.update_many(&[0.5]))),
        32 => drop(AucSequence::decode(&mut reader).map(|mut sequence| (sequence.update_many(&[1.0], &[0.5], None), sequence.interval()))),
        _ => drop(CalibrationAlarm::decode(&mut reader).map(|mut alarm| (alarm.update_many(&[1.0], &[0.5]), alarm.capital()))),
    }
});
