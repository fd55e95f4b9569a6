//! Quality without labels, and limits that hold at any time.

mod asymptotic_sequence;
mod auc_sequence;
mod calibration_alarm;
mod cbpe;
mod isotonic;
mod mean_sequence;
mod mixture;
mod quantile_sequence;
mod risk_alarm;

pub use asymptotic_sequence::AsymptoticSequence;
pub use auc_sequence::AucSequence;
pub use calibration_alarm::CalibrationAlarm;
pub use cbpe::{Cbpe, CbpeEstimate, Check};
pub use isotonic::Isotonic;
pub use mean_sequence::MeanSequence;
pub use quantile_sequence::QuantileSequence;
pub use risk_alarm::RiskAlarm;

use crate::error::{Error, Result};

/// `alpha` of a sequence or an alarm.
fn level(alpha: f64) -> Result<f64> {
    if alpha > 0.0 && alpha < 0.5 { Ok(alpha) } else { Err(Error::invalid(format!("`alpha` must be in (0, 0.5), got {alpha}"))) }
}

/// Values of one argument, all of them within limits.
fn within(name: &str, values: &[f64], low: f64, high: f64) -> Result<()> {
    // Counting has no early end, so it is done many values at a time; where is asked only if there is one.
    if values.iter().map(|value| u64::from(!(low..=high).contains(value))).sum::<u64>() == 0 {
        return Ok(());
    }
    let at = values.iter().position(|value| !(low..=high).contains(value)).unwrap_or(0);
    Err(Error::invalid(format!("`{name}` must be in [{low}, {high}], got {} at position {at}", values[at])))
}

#[cfg(test)]
mod tests {
    //! Limits that are looked at after every event miss the truth in at most `alpha` of runs: 0.05, and three standard errors of 1,000 runs,
    //! which a right one passes with probability 0.9987 each.

    use super::*;

    const RUNS: u64 = 1000;
    const EVENTS: usize = 3000;

    /// Splitmix64: uniform in (0, 1).
    struct Random(u64);

    impl Random {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    fn missed(mut misses: impl FnMut(&mut Random) -> bool) -> f64 {
        (0..RUNS).filter(|run| misses(&mut Random(*run << 32))).count() as f64 / RUNS as f64
    }

    const MOST: f64 = 0.05 + 3.0 * 0.0069;

    #[test]
    fn means_are_missed_as_rarely_as_stated() {
        type Law = (fn(&mut Random) -> f64, f64);
        let laws: [Law; 3] = [
            (|random| f64::from(u8::from(random.uniform() < 0.5)), 0.5),
            (|random| f64::from(u8::from(random.uniform() < 0.05)), 0.05),
            (|random| random.uniform().powi(3), 0.25),
        ];
        for (draw, mean) in laws {
            let share = missed(|random| {
                let mut sequence = MeanSequence::new(0.0, 1.0, 0.05).unwrap();
                (0..EVENTS).any(|_| sequence.misses(draw(random), mean))
            });
            assert!(share <= MOST, "{mean}: {share}");
        }
    }

    #[test]
    fn quantiles_are_missed_as_rarely_as_stated() {
        for q in [0.5, 0.95] {
            let share = missed(|random| {
                let sequence = QuantileSequence::new(q, 0.05).unwrap();
                let mut below = 0u64;
                (1..=EVENTS as u64).any(|n| {
                    below += u64::from(random.uniform() <= q);
                    sequence.excludes(below, n)
                })
            });
            assert!(share <= MOST, "{q}: {share}");
        }
    }

    #[test]
    fn asymptotic_limits_hold_from_the_500th_event_on() {
        let share = missed(|random| {
            let mut sequence = AsymptoticSequence::new(0.05).unwrap();
            (0..EVENTS).any(|at| {
                // Exponential values: skewed, without an upper bound.
                sequence.update_many(&[-libm::log(random.uniform())]).unwrap();
                at >= 500 && sequence.interval().is_some_and(|(low, high)| low > 1.0 || high < 1.0)
            })
        });
        assert!(share <= MOST, "{share}");
    }

    #[test]
    fn differences_of_areas_are_missed_as_rarely_as_stated() {
        let share = missed(|random| {
            let mut sequence = AucSequence::new(true, 0.05).unwrap();
            (0..EVENTS / 30).any(|_| {
                let events: Vec<(f64, f64, f64)> = (0..30)
                    .map(|_| {
                        let label = f64::from(u8::from(random.uniform() < 0.3));
                        (label, random.uniform() + label / 2.0, random.uniform() + label / 2.0)
                    })
                    .collect();
                let column = |of: fn(&(f64, f64, f64)) -> f64| events.iter().map(of).collect::<Vec<_>>();
                sequence.update_many(&column(|event| event.0), &column(|event| event.1), Some(&column(|event| event.2))).unwrap();
                let (low, high) = sequence.interval();
                low > 0.0 || high < 0.0
            })
        });
        assert!(share <= MOST, "{share}");
    }

    #[test]
    fn alarms_go_off_falsely_as_rarely_as_stated_and_soon_when_they_should() {
        let mut delays = Vec::new();
        let share = missed(|random| {
            let mut draw = |rate: f64, n: usize| (0..n).map(|_| f64::from(u8::from(random.uniform() < rate))).collect::<Vec<_>>();
            let mut alarm = RiskAlarm::new(&draw(0.1, 5000), 0.0, 0.05, (0.0, 1.0)).unwrap();
            let quiet = alarm.update_many(&draw(0.1, EVENTS)).unwrap().is_none();
            let mut alarm = RiskAlarm::new(&draw(0.1, 5000), 0.0, 0.05, (0.0, 1.0)).unwrap();
            delays.push(alarm.update_many(&draw(0.2, EVENTS)).unwrap().unwrap_or(EVENTS));
            !quiet
        });
        delays.sort_unstable();
        assert!(share <= MOST, "{share}");
        assert!(delays[delays.len() / 2] < 500, "{}", delays[delays.len() / 2]);
    }

    #[test]
    fn right_probabilities_raise_no_alarm() {
        let share = missed(|random| {
            let mut alarm = CalibrationAlarm::new(0.0, 0.05).unwrap();
            let probabilities: Vec<f64> = (0..1000).map(|_| random.uniform().powi(2)).collect();
            let labels: Vec<f64> = probabilities.iter().map(|p| f64::from(u8::from(random.uniform() < *p))).collect();
            alarm.update_many(&labels, &probabilities).unwrap().is_some()
        });
        assert!(share <= MOST, "{share}");
    }
}
