//! Detectors that watch a metric from one closed window to the next.

use barograph_core::Result;
use barograph_core::codec::{Reader, Writer};
use barograph_core::detectors::{Adwin, Cusum, Detector, Ewma};
use serde::{Deserialize, Serialize};

/// Windows that CUSUM and EWMA learn mean and spread from.
const WARM_UP: f64 = 50.0;

/// Which detector watches a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watching {
    /// Two parts of a window that grows, compared after each value.
    Adwin,
    /// Two cumulative sums of standardised deviations.
    Cusum,
    /// An exponentially weighted mean against its control limits.
    Ewma,
}

/// A detector of a rule, in mid-stream.
#[derive(Clone, Debug)]
pub(crate) enum Watcher {
    Adwin(Box<Detector<Adwin>>),
    Cusum(Detector<Cusum>),
    Ewma(Detector<Ewma>),
}

impl Watcher {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn new(watching: Watching) -> Result<Self> {
        Ok(match watching {
            // Values come once a window, so it looks at each; the rest are river's defaults.
            Watching::Adwin => Self::Adwin(Box::new(Detector::new(Adwin::new(0.002, 1.0, 5.0, 5.0, 10.0)?))),
            Watching::Cusum => Self::Cusum(Detector::new(Cusum::new(0.5, 8.0, WARM_UP)?)),
            Watching::Ewma => Self::Ewma(Detector::new(Ewma::new(0.05, 4.0, WARM_UP)?)),
        })
    }

    /// Takes the value of a window; true if the metric changed here.
    ///
    /// # Errors
    /// None for finite values.
    pub(crate) fn step(&mut self, value: f64) -> Result<bool> {
        match self {
            Self::Adwin(detector) => detector.update(value),
            Self::Cusum(detector) => detector.update(value),
            Self::Ewma(detector) => detector.update(value),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.bytes(&match self {
            Self::Adwin(detector) => detector.to_bytes(),
            Self::Cusum(detector) => detector.to_bytes(),
            Self::Ewma(detector) => detector.to_bytes(),
        });
    }

    /// Takes its state back.
    ///
    /// # Errors
    /// `Decode` for bytes that no detector of this kind wrote.
    pub(crate) fn restore(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let bytes = reader.bytes()?;
        match self {
            Self::Adwin(detector) => **detector = Detector::from_bytes(bytes)?,
            Self::Cusum(detector) => *detector = Detector::from_bytes(bytes)?,
            Self::Ewma(detector) => *detector = Detector::from_bytes(bytes)?,
        }
        Ok(())
    }
}
