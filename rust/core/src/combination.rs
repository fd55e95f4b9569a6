//! Many p-values, one verdict: control of the false discovery rate.
//!
//! Sources: Benjamini & Hochberg, J. R. Stat. Soc. B 1995; Benjamini & Yekutieli, Ann. Stat. 2001.

/// Adjusted p-values in the order given: a hypothesis is rejected at level α if its adjusted p-value is at most α.
///
/// Benjamini-Hochberg: the false discovery rate stays below α under independence or positive dependence.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    step_up(p_values, 1.0)
}

/// Adjusted p-values under arbitrary dependence: Benjamini-Hochberg's times `1 + 1/2 + … + 1/n`.
pub fn benjamini_yekutieli(p_values: &[f64]) -> Vec<f64> {
    step_up(p_values, (1..=p_values.len()).map(|j| 1.0 / j as f64).sum())
}

fn step_up(p_values: &[f64], factor: f64) -> Vec<f64> {
    let n = p_values.len() as f64;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*b].total_cmp(&p_values[*a]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 1.0f64;
    for (at, index) in order.into_iter().enumerate() {
        let rank = n - at as f64;
        least = least.min(p_values[index] * n * factor / rank);
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.false_discovery_control, 1.17.1
        let p = [0.01, 0.02, 0.5, 0.001, 0.2];
        let want = [0.025, 0.033_333_333_333_333_33, 0.5, 0.005, 0.25];
        for (got, want) in benjamini_hochberg(&p).iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
