//! Wasserstein-1 distance (earth mover's distance) as a certified interval, from the cells of two histograms.

use super::{Interval, Score};
use crate::error::{Error, Result};
use crate::sketches::exponential_histogram::Cell;

/// One side: its cells in ascending order and its extremes.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Cells of a histogram; both sides have the same scale, so cells agree or do not overlap.
    pub cells: &'a [Cell],
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// A stretch of the line on which the distribution functions go from `f.0` and `g.0` to `f.1` and `g.1`.
pub(super) struct Stretch {
    pub(super) width: f64,
    pub(super) f: (f64, f64),
    pub(super) g: (f64, f64),
}

impl Stretch {
    /// The least and the largest possible distance of the two inside: they only rise.
    pub(super) fn distance(&self) -> (f64, f64) {
        ((self.f.0 - self.g.1).max(self.g.0 - self.f.1).max(0.0), (self.f.1 - self.g.0).max(self.g.1 - self.f.0))
    }
}

/// Cuts the line between the extremes of both sides, or inside `clip`, into cells and what lies between them.
///
/// # Errors
/// `InvalidArgument` if a side is empty.
pub(super) fn stretches(reference: Side<'_>, current: Side<'_>, clip: Option<(f64, f64)>, mut each: impl FnMut(Stretch)) -> Result<()> {
    let total = |side: Side<'_>| side.cells.iter().map(|cell| cell.count).sum::<u64>() as f64;
    let (n, m) = (total(reference), total(current));
    if n == 0.0 || m == 0.0 {
        return Err(Error::invalid(format!("`reference` and `current` need at least one finite value each, got {n} and {m}")));
    }
    let (start, end) = clip.unwrap_or((reference.min.min(current.min), reference.max.max(current.max)));
    let (mut a, mut b) = (reference.cells.iter().peekable(), current.cells.iter().peekable());
    let (mut f, mut g, mut at) = (0u64, 0u64, start);
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => {
                if x.lower <= y.lower {
                    **x
                } else {
                    **y
                }
            }
            (Some(x), None) => **x,
            (None, Some(y)) => **y,
            (None, None) => break,
        };
        let (low, high) = (next.lower.clamp(start, end), next.upper.clamp(start, end));
        let (low_f, low_g) = (f as f64 / n, g as f64 / m);
        each(Stretch { width: (low - at).max(0.0), f: (low_f, low_f), g: (low_g, low_g) });
        if let Some(cell) = a.next_if(|cell| cell.lower == next.lower && cell.upper == next.upper) {
            f += cell.count;
        }
        if let Some(cell) = b.next_if(|cell| cell.lower == next.lower && cell.upper == next.upper) {
            g += cell.count;
        }
        each(Stretch { width: (high - low.max(at)).max(0.0), f: (low_f, f as f64 / n), g: (low_g, g as f64 / m) });
        at = at.max(high);
    }
    Ok(())
}

/// `∫ |F - G|` in units of the data: between cells exact, inside a cell `[l, h]` bounded by
/// `max(0, F(l) - G(h), G(l) - F(h))` and `max(F(h) - G(l), G(h) - F(l))`.
///
/// With `clip` both sides' values are cut to that range first. The interval holds the exact distance of the two samples and
/// is no wider than twice the histogram's relative error times `E|X| + E|Y|`. Value: its middle. It is never tested: without
/// a clip one outlier of 1e6 in 50,000 rows adds 20 units.
///
/// # Errors
/// `InvalidArgument` if a side is empty or the distance does not fit a double.
pub fn wasserstein(reference: Side<'_>, current: Side<'_>, clip: Option<(f64, f64)>) -> Result<Score> {
    let (mut lower, mut upper) = (0.0f64, 0.0f64);
    stretches(reference, current, clip, |stretch| {
        let (least, most) = stretch.distance();
        lower += stretch.width * least;
        upper += stretch.width * most;
    })?;
    certain(lower, upper, None)
}

/// A score from sums that bound it.
pub(super) fn certain(lower: f64, upper: f64, value: Option<f64>) -> Result<Score> {
    if !upper.is_finite() {
        return Err(Error::invalid("the distance does not fit a double").hint("the values span more than 1e308"));
    }
    // Sums of rounded terms: a margin far above their rounding keeps the interval certain.
    let margin = 1e-12 * upper;
    let (lower, upper) = ((lower - margin).max(0.0), upper + margin);
    Ok(Score {
        value: value.unwrap_or(f64::midpoint(lower, upper)).clamp(lower, upper),
        lower: Some(lower),
        upper: Some(upper),
        interval: Some(Interval::Certain),
        p_value: None,
        contributions: Vec::new(),
    })
}
