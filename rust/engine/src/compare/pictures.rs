//! What a page shows of a column: its two histograms and its summary.

use serde_json::{Value, json};

use crate::profile::{ColumnProfile, Content, Numbers};
use crate::report::Bars;

/// Bars of a histogram of numbers.
const BARS: usize = 40;
const MOST_NAMES: usize = 20;

/// A number in four significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = if size == 0.0 { 0 } else { (3 - libm::floor(libm::log10(size)) as i32).clamp(0, 8) };
    let text = format!("{value:.*}", digits as usize);
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// Both histograms on equal steps between the reference's 0.5 % and 99.5 % quantile; the outer bars hold the rest.
pub(super) fn number_bars(was: &Numbers, edges: &[f64], reference: &[u64], current: &[u64]) -> Option<Bars> {
    let quantile = |q: f64| was.quantile(q).ok().flatten();
    let (mut low, mut high) = (quantile(0.005)?, quantile(0.995)?);
    if low >= high || !(high - low).is_finite() {
        (low, high) = (edges[0], edges[edges.len() - 1]);
    }
    let step = (high - low) / BARS as f64;
    if !(step > 0.0 && step.is_finite()) || low + step == low {
        return None;
    }
    let bar = |x: f64| (((x - low) / step).clamp(0.0, BARS as f64)).min(BARS as f64);
    let spread = |counts: &[u64]| {
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let mut out = vec![0.0; BARS];
        for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let share = *count as f64 / total;
            let start = if at == 0 { 0.0 } else { bar(edges[at - 1]) };
            let end = if at == 0 { 0.0 } else { edges.get(at).map_or(BARS as f64, |edge| bar(*edge)) };
            let width = end - start;
            if width < 1e-9 || at == counts.len() - 1 || at == 0 {
                // A single value, or what lies outside: one bar.
                out[(libm::ceil(end) as usize).clamp(1, BARS) - 1] += share;
                continue;
            }
            for (cell, sum) in out.iter_mut().enumerate().take(libm::ceil(end) as usize).skip(start as usize) {
                let overlap = end.min((cell + 1) as f64) - start.max(cell as f64);
                *sum += share * overlap.max(0.0) / width;
            }
        }
        out
    };
    let positions: Vec<f64> = (0..=BARS).map(|at| low + step * at as f64).collect();
    let labels = positions.windows(2).map(|pair| format!("{} to {}", short(pair[0]), short(pair[1]))).collect();
    Some(Bars { labels, reference: spread(reference), current: spread(current), edges: Some(positions) })
}

/// Shares per name, most frequent in the reference first.
pub(super) fn name_bars(bins: &[(String, u64, u64)], n: u64, m: u64) -> Option<Bars> {
    if n == 0 {
        return None;
    }
    let tail = bins.len().saturating_sub(2);
    let head = &bins[..tail.min(MOST_NAMES)];
    let (mut other, unseen) = (bins[tail].clone(), bins[tail + 1].clone());
    for (_, p, q) in &bins[head.len()..tail] {
        other.1 += p;
        other.2 += q;
    }
    let shown: Vec<&(String, u64, u64)> = head.iter().chain([&other, &unseen].into_iter().filter(|bin| bin.1 + bin.2 > 0)).collect();
    Some(Bars {
        labels: shown.iter().map(|bin| bin.0.clone()).collect(),
        reference: shown.iter().map(|bin| bin.1 as f64 / n as f64).collect(),
        current: shown.iter().map(|bin| bin.2 as f64 / m.max(1) as f64).collect(),
        edges: None,
    })
}

/// What one side of a column looks like; absent numbers are null.
pub(super) fn summary(column: &ColumnProfile) -> Value {
    match &column.content {
        Content::Numbers(numbers) => {
            let quantile = |q: f64| numbers.quantile(q).ok().flatten();
            json!({
                "count": column.count, "null_count": column.nulls, "mean": numbers.moments.mean().filter(|x| x.is_finite()),
                "std": numbers.moments.variance().map(libm::sqrt).filter(|x| x.is_finite()),
                "min": numbers.min(), "max": numbers.max(), "median": quantile(0.5), "p99": quantile(0.99),
            })
        }
        Content::Names(names) => {
            let top = names.ranked().first().map(|(name, _)| (*name).to_owned());
            json!({"count": column.count, "null_count": column.nulls, "distinct": libm::round(names.distinct()), "top": top})
        }
        _ => json!({"count": column.count, "null_count": column.nulls}),
    }
}
