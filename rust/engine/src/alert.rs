//! Verdicts over time: an alert is opened, escalated, eased or resolved when a window closes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{Method, Row, Verdict};

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// First window beyond the warning tolerance.
    Opened,
    /// From warning to critical.
    Escalated,
    /// From critical back to warning.
    Eased,
    /// Back inside the info tolerance.
    Resolved,
}

/// Who should be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody, this week: inputs drifted.
    Ticket,
    /// Somebody, now: performance is lost, latency is beyond its rule, or data are broken.
    Page,
}

/// One change of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // named in docs/reference/report.md
pub struct Alert {
    pub id: u64,
    pub column: String,
    pub state: State,
    pub severity: Severity,
    pub verdict: Verdict,
    pub method: Option<Method>,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub threshold: Option<f64>,
    pub time: i64,
    pub window_start: i64,
    pub reason: Option<String>,
    pub cause: Option<String>,
    pub n_reference: Option<u64>,
    pub n_current: Option<u64>,
}

/// A verdict on its way to the alerts: the row it rests on, and what moved.
#[derive(Clone, Debug)]
pub struct Judgement<'a> {
    /// What the alert is called.
    pub column: &'a str,
    /// The verdict, which may be milder than the row's.
    pub verdict: Verdict,
    /// Who should be disturbed.
    pub severity: Severity,
    /// Value, interval, threshold, rows of both sides, reason.
    pub row: &'a Row,
    /// The bins or names that moved.
    pub cause: Option<String>,
}

/// All alerts so far and which of them are open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alerts {
    /// Every change, oldest first.
    pub changes: Vec<Alert>,
    /// By column: number, verdict, and what it rests on.
    open: BTreeMap<String, (u64, Verdict, Method)>,
    opened: u64,
}

impl Alerts {
    /// Takes the verdict of a closed window. What could not be judged changes nothing.
    pub fn judge(&mut self, judgement: &Judgement<'_>, window: (i64, i64)) {
        let verdict = judgement.verdict;
        if matches!(verdict, Verdict::Insufficient | Verdict::Invalid) {
            return;
        }
        let before = self.open.get(judgement.column).copied();
        let (id, state) = match before {
            None if verdict >= Verdict::Warning => {
                self.opened += 1;
                (self.opened, State::Opened)
            }
            // Lower to close than to open: a change that is still there, though small, does not end an alert.
            Some(_) if verdict == Verdict::Info => return,
            Some((id, ..)) if verdict < Verdict::Info => (id, State::Resolved),
            Some((id, was, _)) if verdict > was => (id, State::Escalated),
            Some((id, was, _)) if verdict < was => (id, State::Eased),
            Some((id, ..)) => {
                self.open.insert(judgement.column.to_owned(), (id, verdict, judgement.row.method));
                return;
            }
            None => return,
        };
        if state == State::Resolved {
            self.open.remove(judgement.column);
        } else {
            self.open.insert(judgement.column.to_owned(), (id, verdict, judgement.row.method));
        }
        let row = judgement.row;
        self.changes.push(Alert {
            id,
            column: judgement.column.to_owned(),
            state,
            severity: judgement.severity,
            verdict,
            method: Some(row.method),
            value: row.value,
            lower: row.lower,
            upper: row.upper,
            threshold: row.threshold,
            time: window.1,
            window_start: window.0,
            reason: row.reason.clone(),
            cause: judgement.cause.clone().filter(|_| verdict >= Verdict::Warning),
            n_reference: row.n_reference,
            n_current: row.n_current,
        });
    }

    /// Whether an alert of this name is open.
    pub fn has(&self, column: &str) -> bool {
        self.open.contains_key(column)
    }

    /// What an open alert rests on.
    pub fn rests_on(&self, column: &str) -> Option<Method> {
        self.open.get(column).map(|(_, _, method)| *method)
    }

    /// Open alerts.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_opens_once_escalates_eases_and_resolves() {
        let mut alerts = Alerts::default();
        let verdicts = [
            Verdict::Ok,
            Verdict::Warning,
            Verdict::Warning,
            Verdict::Insufficient,
            Verdict::Critical,
            Verdict::Warning,
            Verdict::Info,
            Verdict::Ok,
        ];
        for (at, verdict) in verdicts.into_iter().enumerate() {
            let row = Row::blank("x", Method::Psi);
            let judgement = Judgement { column: "x", verdict, severity: Severity::Ticket, row: &row, cause: None };
            alerts.judge(&judgement, (at as i64, at as i64 + 1));
        }
        let states: Vec<State> = alerts.changes.iter().map(|alert| alert.state).collect();
        assert_eq!(states, [State::Opened, State::Escalated, State::Eased, State::Resolved]);
        assert_eq!(alerts.open(), 0);
    }
}
