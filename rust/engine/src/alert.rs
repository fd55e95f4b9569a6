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
    /// From warning to critical, or from a ticket to a page.
    Escalated,
    /// The way back.
    Eased,
    /// Back inside the info tolerance.
    Resolved,
}

/// Who should be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub incident: u64,
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
    /// By column.
    open: BTreeMap<String, Open>,
    opened: u64,
}

/// An open alert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    id: u64,
    /// The alert that opened first of those that moved together.
    incident: u64,
    /// The end of the window that opened it.
    since: i64,
    verdict: Verdict,
    severity: Severity,
    /// What it rests on.
    method: Method,
}

impl Alerts {
    /// Takes the verdict of a closed window. What could not be judged changes nothing.
    pub fn judge(&mut self, judgement: &Judgement<'_>, window: (i64, i64)) {
        let (verdict, severity) = (judgement.verdict, judgement.severity);
        if matches!(verdict, Verdict::Insufficient | Verdict::Invalid) {
            return;
        }
        let before = self.open.get(judgement.column).copied();
        let (open, state) = match before {
            None if verdict >= Verdict::Warning => {
                self.opened += 1;
                // What opens in the window of an alert or in the next belongs to its incident.
                let together = self.open.values().filter(|open| window.0 <= open.since).map(|open| open.incident).min();
                let incident = together.unwrap_or(self.opened);
                (Open { id: self.opened, incident, since: window.1, verdict, severity, method: judgement.row.method }, State::Opened)
            }
            // Lower to close than to open: a change that is still there, though small, does not end an alert.
            Some(_) if verdict == Verdict::Info => return,
            Some(open) if verdict < Verdict::Info => (open, State::Resolved),
            Some(open) if (severity, verdict) > (open.severity, open.verdict) => (open, State::Escalated),
            Some(open) if (severity, verdict) < (open.severity, open.verdict) => (open, State::Eased),
            Some(open) => {
                self.open.insert(judgement.column.to_owned(), Open { method: judgement.row.method, ..open });
                return;
            }
            None => return,
        };
        if state == State::Resolved {
            self.open.remove(judgement.column);
        } else {
            self.open.insert(judgement.column.to_owned(), Open { verdict, severity, method: judgement.row.method, ..open });
        }
        let row = judgement.row;
        self.changes.push(Alert {
            id: open.id,
            incident: open.incident,
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
        self.open.get(column).map(|open| open.method)
    }

    /// What the open alerts are called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(String::as_str)
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

    #[test]
    fn alerts_that_open_together_are_one_incident() {
        let mut alerts = Alerts::default();
        let mut judge = |column: &str, verdict: Verdict, at: i64| {
            let row = Row::blank(column, Method::Psi);
            let judgement = Judgement { column, verdict, severity: Severity::Ticket, row: &row, cause: None };
            alerts.judge(&judgement, (10 * at, 10 * at + 10));
        };
        judge("a", Verdict::Warning, 0);
        judge("b", Verdict::Critical, 0);
        judge("c", Verdict::Warning, 1);
        judge("d", Verdict::Warning, 9);
        judge("a", Verdict::Ok, 10);
        let found: Vec<(u64, u64)> = alerts.changes.iter().map(|alert| (alert.id, alert.incident)).collect();
        assert_eq!(found, [(1, 1), (2, 1), (3, 1), (4, 4), (1, 1)]);
    }
}
