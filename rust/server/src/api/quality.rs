//! `GET …/quality`: labels and metrics as they are known now, and what metrics would be without labels.

use std::sync::Arc;

use barograph_core::estimates::{Cbpe, CbpeEstimate};
use barograph_core::metrics::Metric;
use barograph_engine::Monitor;
use barograph_engine::monitor::TileQuality;
use barograph_engine::report::Method;
use serde_json::{Value, json};

use super::Asked;
use super::read::{document, instant};
use crate::http::Answer;
use crate::problem::Outcome;

/// Tiles that are told: the last ones.
const MOST_TILES: i64 = 500;
/// Tiles that are looked through for labels to calibrate on.
pub(super) const CALIBRATION_TILES: usize = 100;
/// Labelled events that a calibration needs, and with how many it is content.
const LEAST_LABELLED: f64 = 500.0;
const ENOUGH_LABELLED: f64 = 5000.0;
/// Events of a tile that enter an estimate; of more, an even part: its limits get wider.
const MOST_EVENTS: u64 = 100_000;
/// Labelled events below which a metric without limits is not judged by.
const LEAST_JUDGED: u64 = 30;
/// The widest limits, of a metric between 0 and 1, that say anything.
const WIDEST: f64 = 0.5;
/// What is estimated, of what is realised.
const ESTIMATED: [&str; 4] = ["roc_auc", "average_precision", "log_loss", "brier"];

/// What scores mean, by the oldest labelled events that are kept, and where those end. What is estimated later has not seen them.
pub(super) fn calibration(tiles: &[TileQuality]) -> Option<(Arc<Cbpe>, i64)> {
    let (mut scores, mut labels, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let (mut total, mut until) = (0.0, None);
    for tile in tiles.iter().filter(|tile| !tile.labelled_scores.is_empty()) {
        // In the order of time, as calibrations are checked by leaving out one stretch after the other.
        for (score, negative, positive) in &tile.labelled_scores {
            for (label, weight) in [(0.0, *negative), (1.0, *positive)] {
                if weight > 0.0 {
                    scores.push(*score);
                    labels.push(label);
                    weights.push(weight);
                    total += weight;
                }
            }
        }
        until = Some(tile.end);
        if total >= ENOUGH_LABELLED {
            break;
        }
    }
    let both = labels.contains(&0.0) && labels.contains(&1.0);
    let fitted = (total >= LEAST_LABELLED && both).then(|| Cbpe::fit(&scores, &labels, Some(&weights)).ok())??;
    Some((Arc::new(fitted), until?))
}

/// The metrics that a tile's scores would give.
pub(super) fn estimated(calibration: &Arc<Cbpe>, tile: &TileQuality, confidence: f64) -> Vec<Metric> {
    let all: u64 = tile.scores.iter().map(|(_, count)| count).sum();
    let part = all.div_ceil(MOST_EVENTS).max(1);
    let (mut rows, mut carried) = (Vec::new(), 0);
    for (score, count) in tile.scores.iter().filter(|(score, _)| (0.0..=1.0).contains(score)) {
        carried += count;
        rows.extend(std::iter::repeat_n(*score, usize::try_from(carried / part).unwrap_or(0)));
        carried %= part;
    }
    let mut estimate = CbpeEstimate::new(Arc::clone(calibration));
    if rows.is_empty() || estimate.update_many(&rows, None).is_err() {
        return Vec::new();
    }
    estimate.metrics(confidence).into_iter().filter(|metric| ESTIMATED.contains(&metric.name) && metric.value.is_some()).collect()
}

/// A metric as it is told: what is not finite is not. `reason`: why it says next to nothing.
pub(super) fn measured(name: &Value, metric: &Metric, reason: Option<&str>) -> Option<Value> {
    let value = metric.value.filter(|value| value.is_finite())?;
    let (lower, upper) = metric.limits.filter(|(low, high)| low.is_finite() && high.is_finite()).unzip();
    Some(json!({"metric": name, "value": value, "lower": lower, "upper": upper, "reason": reason}))
}

/// Why a metric of so many labelled events says next to nothing about a model; `None` if it says something.
pub(super) fn unjudged(method: Method, limits: Option<(f64, f64)>, labelled: u64) -> Option<String> {
    use Method as M;
    let events = format!("{labelled} labelled event{}", if labelled == 1 { "" } else { "s" });
    let share =
        matches!(method, M::RocAuc | M::RocAucOvr | M::AveragePrecision | M::Accuracy | M::BalancedAccuracy | M::F1Macro | M::Brier);
    match limits {
        Some((lower, upper)) if share && upper - lower > WIDEST => {
            Some(format!("too few labels: by {events} it is anywhere between {lower:.2} and {upper:.2}"))
        }
        Some(_) if labelled > 1 => None,
        _ if labelled < LEAST_JUDGED => Some(format!("too few labels: {events}, {LEAST_JUDGED} are needed")),
        _ => None,
    }
}

/// `GET …/quality`: tile by tile what labels say now. History says what was known when a window closed; labels come later.
pub(super) async fn quality(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["since", "until", "points"])?;
    let (since, until) = (instant(asked, "since")?.unwrap_or(i64::MIN), instant(asked, "until")?.unwrap_or(i64::MAX));
    let most = asked.number("points", 100, 1..=MOST_TILES)? as usize;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let looked = asked.sidecar.models.look(&entry, move |model| {
        let labels = model.counts.labels;
        let Some(monitor) = model.monitor() else { return (labels, None) };
        let confidence = monitor.policy().settings.confidence;
        let oldest = if labels > 0 { monitor.qualities(i64::MIN, i64::MAX, CALIBRATION_TILES) } else { Ok(Vec::new()) };
        (labels, Some((oldest, monitor.qualities(since, until, most), confidence, monitor.counts(), delays(monitor))))
    });
    let (labels, found) = looked.await?;
    let Some((oldest, tiles, confidence, counts, delays)) = found else {
        return document(
            asked,
            &json!({"model": asked.model, "labels": labels, "counts": {}, "delays": [], "delays_within_seconds": null, "calibrated_until": null, "tiles": []}),
        );
    };
    let (oldest, tiles) = (oldest?, tiles?);
    let (calibrated, tiles) = tokio::task::block_in_place(|| {
        let calibration = calibration(&oldest);
        let told: Vec<Value> = tiles.iter().map(|tile| told(tile, calibration.as_ref(), confidence)).collect();
        (calibration.map(|(_, until)| until), told)
    });
    let counts: serde_json::Map<String, Value> = counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    let (delays, within) = delays;
    document(
        asked,
        &json!({
            "model": asked.model, "labels": labels, "counts": counts, "delays": delays, "delays_within_seconds": within,
            "calibrated_until": calibrated, "tiles": tiles,
        }),
    )
}

/// How many labels took how long, the shortest first, up to the longest that any took; and how exactly that is known, in seconds.
fn delays(monitor: &Monitor) -> (Vec<Value>, f64) {
    let (delays, tile) = monitor.delays();
    let mut counts: Vec<(Option<i64>, u64)> = delays.counts().collect();
    counts.truncate(counts.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1));
    let told =
        counts.into_iter().map(|(length, count)| json!({"up_to_seconds": length.map(|length| length / 1_000_000_000), "labels": count}));
    (told.collect(), tile as f64 / 2e9)
}

fn told(tile: &TileQuality, calibration: Option<&(Arc<Cbpe>, i64)>, confidence: f64) -> Value {
    let of =
        |(method, metric): &(Method, Metric)| measured(&json!(method), metric, unjudged(*method, metric.limits, tile.labelled).as_deref());
    let metrics: Vec<Value> = tile.metrics.iter().filter_map(of).collect();
    let later = calibration.filter(|(_, until)| tile.start >= *until);
    let estimated = later.map(|(cbpe, _)| estimated(cbpe, tile, confidence)).unwrap_or_default();
    let estimated: Vec<Value> = estimated.iter().filter_map(|metric| measured(&json!(metric.name), metric, None)).collect();
    json!({"start": tile.start, "end": tile.end, "events": tile.events, "labelled": tile.labelled, "metrics": metrics, "estimated": estimated})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(start: i64, scores: &[(f64, u64)], labelled: bool) -> TileQuality {
        // The truth: a score is half the chance it says.
        let truth = |(score, count): &(f64, u64)| (*score, *count as f64 * (1.0 - 0.5 * score), *count as f64 * 0.5 * score);
        let labelled_scores = if labelled { scores.iter().map(truth).collect() } else { Vec::new() };
        TileQuality { start, end: start + 1, events: 1, labelled: 1, metrics: Vec::new(), labelled_scores, scores: scores.to_vec() }
    }

    #[test]
    fn scores_are_calibrated_on_the_oldest_labels_and_estimated_after_them() {
        let scores: Vec<(f64, u64)> = (1..100).map(|at| (f64::from(at) / 100.0, 100)).collect();
        let tiles = [tile(0, &scores, true), tile(1, &scores, true), tile(2, &scores, false)];
        let (cbpe, until) = calibration(&tiles).unwrap();
        assert_eq!(until, 1);
        let found = estimated(&cbpe, &tiles[2], 0.99);
        let brier = found.iter().find(|metric| metric.name == "brier").unwrap();
        // Of the score s itself, as labels measure it: s² (1 - s/2) + (1 - s)² s/2 = s/2, whose mean is 1/4 for uniform s.
        assert!((brier.value.unwrap() - 0.25).abs() < 0.003, "{brier:?}");
        assert!(brier.limits.unwrap().0 < brier.value.unwrap());
        // Of more events than enter, an even part: the same value.
        let many: Vec<(f64, u64)> = scores.iter().map(|(score, count)| (*score, count * 1000)).collect();
        let again = estimated(&cbpe, &tile(3, &many, false), 0.99);
        let again = again.iter().find(|metric| metric.name == "brier").unwrap().value.unwrap();
        assert!((again - brier.value.unwrap()).abs() < 1e-3);
    }

    #[test]
    fn a_thin_window_is_not_judged_by() {
        let of = |limits, labelled| unjudged(Method::RocAuc, limits, labelled);
        assert_eq!(of(Some((0.0, 1.0)), 1).unwrap(), "too few labels: by 1 labelled event it is anywhere between 0.00 and 1.00");
        assert!(of(Some((0.2, 0.8)), 40).unwrap().contains("40 labelled events"));
        assert_eq!(of(Some((0.6, 0.8)), 40), None);
        assert!(unjudged(Method::Mae, None, 29).unwrap().contains("30 are needed"));
        assert_eq!(unjudged(Method::Mae, Some((1.0, 900.0)), 2), None);
        assert_eq!(unjudged(Method::AveragePrecision, None, 30), None);
    }

    #[test]
    fn without_labels_of_both_kinds_or_enough_of_them_nothing_is_estimated() {
        assert!(calibration(&[tile(0, &[(0.0, 10_000)], true)]).is_none());
        assert!(calibration(&[tile(0, &[(0.5, 100)], true)]).is_none());
        assert!(calibration(&[tile(0, &[(0.5, 100_000)], false)]).is_none());
    }
}
