//! Rules on the model as a whole: a metric of each closed window against a limit, and the burn of an objective minute by minute.

use std::collections::VecDeque;

use barograph_core::distributions::binomial_lower;
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::alert::Severity;
use crate::policy::Length;
use crate::pulse::{Pulse, Total};
use crate::quality::Task;
use crate::report::{MODEL, Method, Row, Verdict};
use crate::watching::Watching;
use crate::window::{DAY, HOUR, MINUTE};

/// Metrics of a window that a rule can limit.
const METRICS: [(&str, Method); 5] = [
    ("latency_p50", Method::LatencyP50),
    ("latency_p99", Method::LatencyP99),
    ("error_rate", Method::ErrorRate),
    ("missing_labels", Method::MissingLabels),
    ("events", Method::Events),
];
/// How fast the budget of an objective burns, over a long and a short window, before somebody is disturbed: the three pairs of
/// the Site Reliability Workbook, chapter 5.
const BURNS: [(f64, i64, i64, Severity); 3] =
    [(14.4, HOUR, 5 * MINUTE, Severity::Page), (6.0, 6 * HOUR, 30 * MINUTE, Severity::Page), (1.0, 3 * DAY, 6 * HOUR, Severity::Ticket)];
/// The longest window of a burn.
pub(crate) const LONGEST_BURN: i64 = 3 * DAY;

/// A metric with a limit, or an objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A metric of the task (`roc_auc`, `average_precision`, `log_loss`, `brier`; `accuracy`, `balanced_accuracy`, `f1_macro`, `roc_auc_ovr`; `mae`, `rmse`, `r2`, `bias`), `latency_p50`, `latency_p99` (seconds), `error_rate`, `missing_labels` (shares) or `events` (of a window).
    #[serde(default)]
    pub metric: Option<String>,
    /// A warning when the metric is below this, all of its interval if it has one.
    #[serde(default)]
    pub below: Option<f64>,
    /// A warning when the metric is above this, all of its interval if it has one.
    #[serde(default)]
    pub above: Option<f64>,
    /// `latency` or `errors`: an alert when the budget of an objective burns too fast.
    #[serde(default)]
    pub slo: Option<String>,
    /// Share of calls that have to be good, in (0, 1).
    #[serde(default)]
    pub objective: Option<f64>,
    /// Seconds a good call takes at most, for an objective of latency.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// Who is disturbed by a limit: page or ticket. Objectives have their own.
    #[serde(default = "page")]
    pub severity: Severity,
    /// Windows that must be beyond the limit, of the last `of`, before an alert opens.
    #[serde(default = "one")]
    pub k: usize,
    /// See `k`.
    #[serde(default = "one")]
    pub of: usize,
    /// After an alert's end none opens again for so long.
    #[serde(default)]
    pub cooldown: Length,
    /// Instead of a limit: a detector that watches the metric from window to window.
    #[serde(default)]
    pub detector: Option<Watching>,
}

fn page() -> Severity {
    Severity::Page
}

fn one() -> usize {
    1
}

impl Rule {
    /// The method whose row it judges; `None` for an objective.
    pub(crate) fn method(&self) -> Option<Method> {
        let metric = self.metric.as_deref()?;
        let known = METRICS.iter().chain(Task::Binary.metrics()).chain(Task::Multiclass.metrics()).chain(Task::Regression.metrics());
        known.into_iter().find(|(name, _)| *name == metric).map(|(_, method)| *method)
    }

    /// Whether it is a test, with a share of the budget: it waits until an interval of the metric is beyond the limit.
    pub(crate) fn is_tested(&self) -> bool {
        let without = [Method::LatencyP50, Method::LatencyP99, Method::MissingLabels, Method::Events];
        self.detector.is_none() && self.method().is_some_and(|method| !without.contains(&method))
    }

    /// The word for its detector.
    pub(crate) fn watching(&self) -> &'static str {
        match self.detector {
            Some(Watching::Adwin) => "adwin",
            Some(Watching::Cusum) => "cusum",
            Some(Watching::Ewma) => "ewma",
            None => "no detector",
        }
    }

    /// What its alerts are called.
    pub(crate) fn name(&self) -> String {
        match (&self.metric, &self.slo) {
            (Some(metric), _) if self.detector.is_some() => format!("{metric}:change"),
            (Some(metric), _) => metric.clone(),
            (None, Some(slo)) => format!("slo:{slo}"),
            (None, None) => String::new(),
        }
    }

    fn check(&self, task: Task) -> Result<()> {
        let wrong = |what: String| Err(Error::invalid(format!("`rules`: {what}")));
        match (&self.metric, &self.slo) {
            (Some(metric), None) => {
                let known = || task.metrics().iter().chain(&METRICS).map(|(name, _)| *name);
                if !known().any(|name| name == metric) {
                    let names: Vec<&str> = known().collect();
                    return wrong(format!("`metric` must be one of {}, got {metric:?}", names.join(", ")));
                }
                if self.detector.is_some() {
                    if self.below.is_some() || self.above.is_some() {
                        return wrong(format!("{metric} has a limit or a detector, not both: make two rules"));
                    }
                } else if self.below.is_some() == self.above.is_some() {
                    return wrong(format!("{metric} needs one of `below` and `above`, or a `detector`"));
                }
                if self.objective.is_some() || self.threshold.is_some() {
                    return wrong(format!("{metric} has a limit, `objective` and `threshold` belong to an `slo`"));
                }
                if ![self.below, self.above].into_iter().flatten().all(f64::is_finite) {
                    return wrong(format!("the limit of {metric} must be finite"));
                }
            }
            (None, Some(slo)) => {
                let latency = match slo.as_str() {
                    "latency" => true,
                    "errors" => false,
                    _ => return wrong(format!("`slo` must be latency or errors, got {slo:?}")),
                };
                if !self.objective.is_some_and(|share| 0.0 < share && share < 1.0) {
                    return wrong(format!("the objective of {slo} must be in (0, 1), got {:?}", self.objective));
                }
                if latency != self.threshold.is_some_and(|seconds| seconds > 0.0 && seconds.is_finite()) {
                    return wrong(if latency {
                        format!("an objective of latency needs a `threshold` in seconds, got {:?}", self.threshold)
                    } else {
                        "an objective of errors has no `threshold`".to_owned()
                    });
                }
                if self.below.is_some() || self.above.is_some() || self.detector.is_some() {
                    return wrong(format!("an objective of {slo} has no `below`, `above` and `detector`"));
                }
            }
            _ => return wrong("each must have one of `metric` and `slo`".to_owned()),
        }
        if !(1..=self.of).contains(&self.k) || self.of > 100 {
            return wrong(format!("`k` must be in [1, of] and `of` at most 100, got {} of {}", self.k, self.of));
        }
        Ok(())
    }

    /// Judges a metric's row and writes verdict and reason into it; a test of its interval has this level.
    pub(crate) fn judge(&self, row: &mut Row, limits: Option<(f64, f64)>, level: f64) -> Verdict {
        let threshold = self.below.or(self.above);
        row.threshold = threshold;
        // With an interval the rule waits until the whole of it is beyond.
        let beyond = |lower: Option<f64>, upper: Option<f64>| match (self.below, self.above) {
            (Some(below), _) => upper.or(row.value).map(|value| value < below),
            (_, Some(above)) => lower.or(row.value).map(|value| value > above),
            _ => None,
        };
        let tested = limits.map_or((row.lower, row.upper), |(lower, upper)| (Some(lower), Some(upper)));
        let verdict = match (beyond(tested.0, tested.1), beyond(row.lower, row.upper)) {
            (Some(true), _) => Verdict::Warning,
            (Some(false), Some(true)) => Verdict::Info,
            (Some(false), _) => Verdict::Ok,
            (None, _) => Verdict::Insufficient,
        };
        row.verdict = Some(verdict);
        let side = if self.below.is_some() { "below" } else { "above" };
        let number = threshold.unwrap_or(0.0);
        row.reason = match (verdict, tested, row.value) {
            (Verdict::Insufficient, ..) => Some("nothing to judge yet".to_owned()),
            (Verdict::Warning, (Some(lower), Some(upper)), _) => {
                Some(format!("{lower:.3} to {upper:.3} (confidence {:.3} %) is {side} {number}", 100.0 * (1.0 - 2.0 * level)))
            }
            (Verdict::Warning, _, Some(value)) => Some(format!("{value:.4} is {side} {number}")),
            (Verdict::Info, ..) => Some(format!("{side} {number}, but not at the level {level:.2e} that the budget allows")),
            _ => None,
        };
        verdict
    }

    /// Judges how fast an objective's budget burns at the end of a minute; `None` if nothing happened in the windows.
    pub(crate) fn burn(&self, pulse: &Pulse, at: usize, end: i64, confidence: f64) -> Option<(Row, Verdict, Severity)> {
        let allowed = 1.0 - self.objective?;
        let part = |total: Total| {
            let (events, calls) = total.thinning();
            if self.slo.as_deref() == Some("errors") { (total.errors, total.events, events) } else { (total.slow(at), total.calls, calls) }
        };
        let mut judged = None;
        for (burn, long, short, severity) in BURNS {
            let (bad, all, thinning) = part(pulse.total(end - long, end));
            let (recent, recently, _) = part(pulse.total(end - short, end));
            if all == 0 {
                continue;
            }
            let (rate, now) = (bad as f64 / all as f64, recent as f64 / recently.max(1) as f64);
            let lower = binomial_lower(bad as f64 / thinning, all as f64 / thinning, 1.0 - confidence);
            let limit = burn * allowed;
            let fires = lower > limit && now > limit;
            let hours = |length: i64| length as f64 / HOUR as f64;
            let row = Row {
                value: Some(rate),
                lower: Some(lower),
                threshold: Some(limit),
                n_current: Some(all),
                reason: fires.then(|| {
                    format!(
                        "{:.2} % of {all} calls in {} h and {:.2} % in the last {:.2} h were bad: the budget of {:.3} % burns {burn} times too fast",
                        100.0 * rate,
                        hours(long),
                        100.0 * now,
                        hours(short),
                        100.0 * allowed
                    )
                }),
                ..Row::blank(MODEL, Method::BurnRate)
            };
            if fires {
                return Some((row, if severity == Severity::Page { Verdict::Critical } else { Verdict::Warning }, severity));
            }
            judged.get_or_insert((row, Verdict::Ok, severity));
        }
        judged
    }
}

/// Refuses rules that cannot be, or that contradict each other.
///
/// # Errors
/// `InvalidArgument`, naming the rule and what is wrong.
pub(crate) fn check(rules: &[Rule], task: Task) -> Result<()> {
    for (at, rule) in rules.iter().enumerate() {
        rule.check(task)?;
        if let Some(other) = rules[..at].iter().find(|other| other.name() == rule.name()) {
            let sides = |rule: &Rule| (rule.below, rule.above);
            return Err(Error::invalid(format!("`rules`: two rules on {}, {:?} and {:?}", rule.name(), sides(other), sides(rule)))
                .hint("one rule per metric and objective: its alert has one name"));
        }
    }
    Ok(())
}

/// What a rule remembers of past windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Whether the last windows were beyond, newest last.
    recent: VecDeque<bool>,
    /// The end of the window that closed its last alert.
    ended: Option<i64>,
}

impl Standing {
    /// The verdict for the alert, by that of the window.
    pub(crate) fn of_window(&mut self, rule: &Rule, verdict: Verdict, is_open: bool, end: i64) -> Verdict {
        if matches!(verdict, Verdict::Insufficient | Verdict::Invalid) {
            return verdict;
        }
        self.recent.push_back(verdict >= Verdict::Warning);
        while self.recent.len() > rule.of {
            self.recent.pop_front();
        }
        let beyond = self.recent.iter().filter(|beyond| **beyond).count();
        let verdict = if beyond >= rule.k { verdict.max(Verdict::Warning) } else { Verdict::Ok };
        self.after_cooldown(rule, verdict, is_open, end)
    }

    /// The verdict unless an alert would open too soon after the last one.
    pub(crate) fn after_cooldown(&mut self, rule: &Rule, verdict: Verdict, is_open: bool, end: i64) -> Verdict {
        if is_open && verdict < Verdict::Info {
            self.ended = Some(end);
        }
        let cooling = self.ended.is_some_and(|ended| end < ended.saturating_add(rule.cooldown.0));
        if !is_open && cooling && verdict >= Verdict::Warning { Verdict::Info } else { verdict }
    }
}
