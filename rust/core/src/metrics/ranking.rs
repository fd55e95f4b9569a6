//! Ranked lists against relevance: NDCG and the mean reciprocal rank.

use super::Metric;
use crate::codec::{Reader, Writer};
use crate::distributions::normal_quantile;
use crate::error::{Error, Result};
use crate::sketches::Moments;

/// Metrics of ranked lists, one list per query, over any number of queries. Sums are exact and rounded once.
///
/// NDCG with linear gains and discounts `1 / log2(1 + rank)` down to rank k; tied scores share the mean gain of their ranks
/// (Järvelin & Kekäläinen, TOIS 2002; `McSherry` & Najork, ECIR 2008, as scikit-learn). The reciprocal rank is that of the best
/// relevant item, tied items counting before it by half. A query without a relevant item scores 0 in both.
#[derive(Clone, Debug, PartialEq)]
pub struct RankingMetrics {
    /// Ranks that count; 0 for all.
    k: u64,
    ndcg: Moments,
    reciprocal: Moments,
}

impl RankingMetrics {
    /// No queries yet; `k` ranks count, 0 for all.
    pub fn new(k: u64) -> Self {
        Self { k, ndcg: Moments::new(), reciprocal: Moments::new() }
    }

    /// Adds queries: rows of `width` relevances (at least 0) and scores, higher first.
    ///
    /// # Errors
    /// `InvalidArgument` for different lengths, relevances below 0 or values that are not finite; nothing is added then.
    pub fn update_many(&mut self, relevance: &[f64], scores: &[f64], width: usize) -> Result<()> {
        if relevance.len() != scores.len() || width == 0 || !relevance.len().is_multiple_of(width) {
            return Err(Error::invalid(format!(
                "`y_true` and `y_score` must have the same shape, got {} and {} values in rows of {width}",
                relevance.len(),
                scores.len()
            )));
        }
        if let Some(at) = relevance.iter().position(|value| !(value.is_finite() && *value >= 0.0)) {
            return Err(Error::invalid(format!("`y_true` must be finite and at least 0, got {} in row {}", relevance[at], at / width)));
        }
        if let Some(at) = scores.iter().position(|value| !value.is_finite()) {
            return Err(Error::invalid(format!("`y_score` must be finite, got {} in row {}", scores[at], at / width)));
        }
        let k = if self.k == 0 { usize::MAX } else { usize::try_from(self.k).unwrap_or(usize::MAX) };
        let discounts: Vec<f64> = (0..width).map(|rank| if rank < k { 1.0 / libm::log2(rank as f64 + 2.0) } else { 0.0 }).collect();
        let mut order: Vec<usize> = (0..width).collect();
        let (mut ndcgs, mut ranks) = (Vec::new(), Vec::new());
        for (relevance, scores) in relevance.chunks_exact(width).zip(scores.chunks_exact(width)) {
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let (mut gain, mut rank, mut reciprocal) = (0.0, 0, 0.0);
            for ties in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
                let total: f64 = ties.iter().map(|item| relevance[*item]).sum();
                let discount: f64 = discounts[rank..rank + ties.len()].iter().sum();
                gain += total * discount / ties.len() as f64;
                if total > 0.0 && reciprocal == 0.0 {
                    reciprocal = 1.0 / (rank as f64 + f64::midpoint(ties.len() as f64, 1.0));
                }
                rank += ties.len();
            }
            let mut best = relevance.to_vec();
            best.sort_by(|a, b| b.total_cmp(a));
            let ideal: f64 = best.iter().zip(&discounts).map(|(gain, discount)| gain * discount).sum();
            ndcgs.push(if ideal > 0.0 { gain / ideal } else { 0.0 });
            ranks.push(reciprocal);
        }
        self.ndcg.update_many(&ndcgs);
        self.reciprocal.update_many(&ranks);
        Ok(())
    }

    /// Adds another's queries.
    ///
    /// # Errors
    /// `Incompatible` for another k.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.k != other.k {
            return Err(Error::incompatible(format!("metrics must have the same `k`, got {} and {}", self.k, other.k)));
        }
        self.ndcg.merge(&other.ndcg);
        self.reciprocal.merge(&other.reciprocal);
        Ok(())
    }

    /// Queries seen.
    pub fn queries(&self) -> u64 {
        self.ndcg.count()
    }

    /// All metrics; normal limits at `confidence`.
    pub fn metrics(&self, confidence: f64) -> Vec<Metric> {
        let z = normal_quantile(f64::midpoint(1.0, confidence));
        let mean = |name, moments: &Moments| {
            let limits = moments.mean().zip(moments.variance()).map(|(mean, variance)| {
                let reach = z * libm::sqrt(variance / moments.count() as f64);
                ((mean - reach).max(0.0), (mean + reach).min(1.0))
            });
            Metric::new(name, moments.mean()).within(limits)
        };
        vec![mean("ndcg", &self.ndcg), mean("mrr", &self.reciprocal)]
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.k);
        self.ndcg.encode(writer);
        self.reciprocal.encode(writer);
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let out = Self { k: reader.u64()?, ndcg: Moments::decode(reader)?, reciprocal: Moments::decode(reader)? };
        if out.ndcg.count() == out.reciprocal.count() {
            Ok(out)
        } else {
            Err(Error::decode("the counters of a metric contradict each other"))
        }
    }
}
