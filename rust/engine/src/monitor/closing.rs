//! Windows close: their rows, the verdicts of rules and drift, and what the alerts are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use barograph_core::Result;
use barograph_core::distributions::{binomial_lower, binomial_upper};

use super::{MODEL, Monitor, merged};
use crate::alert::{Judgement, Severity};
use crate::compare::compare_tested;
use crate::profile::Profile;
use crate::report::{Method, Report, Row, Verdict};
use crate::window::{self, Tile};

/// Empty windows that close at once after a long silence.
const MOST_EMPTY: i64 = 1000;
/// Rows of history kept.
const MOST_HISTORY: usize = 500_000;

impl Monitor {
    /// Closes every window that ends at or before `now` and judges it.
    ///
    /// # Errors
    /// None in practice.
    pub fn tick(&mut self, now: i64) -> Result<()> {
        while let Some(start) = self.next_window(now) {
            let end = start + self.config.window;
            self.burn(end);
            let tiles = self.tiles.between(start, end)?;
            match merged(&tiles, start, end)? {
                Some(tile) => self.close(&tile, &tiles, (start, end))?,
                None => self.close_rules(&[self.model_row(Method::Events, Some(0.0), 0, (start, end))], (start, end)),
            }
            self.closed = Some(end);
        }
        self.burn(now);
        self.closed.map_or(Ok(()), |closed| self.tiles.settle(closed))
    }

    /// The start of the next window to close, if it ends by `now`: the one after the last, or, where no rule asks about silence,
    /// the next that holds anything.
    fn next_window(&self, now: i64) -> Option<i64> {
        let length = self.config.window;
        let silence = self.config.rules.iter().any(|rule| rule.metric.as_deref() == Some("events"));
        let next = self.tiles.next(self.closed.unwrap_or(i64::MIN)).map(|start| window::start_of(start, length));
        let start = match (next, self.closed.filter(|_| silence)) {
            (Some(next), Some(closed)) => next.min(closed),
            (None, Some(closed)) => closed,
            (next, None) => next?,
        };
        // After a long silence the windows close that matter: the last ones.
        let start = if next.is_none() { start.max(window::start_of(now, length).saturating_sub(MOST_EMPTY * length)) } else { start };
        (start.saturating_add(length) <= now).then_some(start)
    }

    /// Judges the objectives up to a time.
    fn burn(&mut self, now: i64) {
        if self.config.rules.iter().all(|rule| rule.slo.is_none()) {
            return;
        }
        for end in self.pulse.due(now) {
            for at in 0..self.config.rules.len() {
                let rule = &self.config.rules[at];
                let name = rule.name();
                let Some((row, verdict, severity)) = rule.burn(&self.pulse, at, end, self.config.settings.confidence) else { continue };
                let row = Row { window_start: Some(end - window::HOUR), window_end: Some(end), ..row };
                let open = self.alerts.has(&name);
                let verdict = self.standings[at].after_cooldown(rule, verdict, open, end);
                if open || verdict >= Verdict::Warning {
                    self.judge(&Judgement { column: &name, verdict, severity, row: &row, cause: None }, (end - window::HOUR, end));
                }
            }
            self.pulse.judged = Some(end);
        }
    }

    fn model_row(&self, method: Method, value: Option<f64>, events: u64, window: (i64, i64)) -> Row {
        Row {
            value,
            n_reference: Some(self.reference.rows),
            n_current: Some(events),
            window_start: Some(window.0),
            window_end: Some(window.1),
            reference: Some(self.reference.id().to_owned()),
            ..Row::blank(MODEL, method)
        }
    }

    /// Judges the model's rows of a closed window by the rules, and keeps them.
    fn close_rules(&mut self, rows: &[Row], window: (i64, i64)) {
        let mut rows = rows.to_vec();
        for at in 0..self.config.rules.len() {
            let rule = &self.config.rules[at];
            let Some(row) = rule.method().and_then(|method| rows.iter_mut().find(|row| row.method == method)) else { continue };
            let verdict = rule.judge(row);
            let (name, severity) = (rule.name(), rule.severity);
            let verdict = self.standings[at].of_window(rule, verdict, self.alerts.has(&name), window.1);
            let row = row.clone();
            self.judge(&Judgement { column: &name, verdict, severity, row: &row, cause: None }, window);
        }
        self.history.extend(rows.into_iter().filter(|row| row.value.is_some()));
    }

    /// The share of events and calls that failed, with its one-sided Clopper-Pearson limits.
    fn error_rate(&self, row: &dyn Fn(Method, Option<f64>) -> Row, tile: &Tile) -> Row {
        let (failed, all) = (tile.errors as f64, (tile.profile.rows + tile.calls) as f64);
        if all == 0.0 {
            return row(Method::ErrorRate, None);
        }
        let alpha = self.config.settings.alpha();
        Row {
            lower: Some(binomial_lower(failed, all, alpha)),
            upper: Some(binomial_upper(failed, all, alpha)),
            interval: Some("confidence".into()),
            n_current: Some(tile.profile.rows + tile.calls),
            ..row(Method::ErrorRate, Some(failed / all))
        }
    }

    fn close(&mut self, tile: &Tile, tiles: &[(i64, Tile)], window: (i64, i64)) -> Result<()> {
        let summary = self.summarise(tile, compare_tested)?;
        let mut rows: Vec<Row> = summary.report.rows.iter().filter(|row| row.verdict.is_some()).cloned().collect();
        self.close_drift(&summary.report, &tile.profile, tiles, window, &mut rows);
        let of_events = |count: u64| (summary.events > 0).then(|| count as f64 / summary.events as f64);
        let row = |method: Method, value: Option<f64>| self.model_row(method, value, summary.events, window);
        let model = [
            row(Method::Events, Some(summary.events as f64)),
            row(Method::LatencyP50, summary.latency_p50),
            row(Method::LatencyP99, summary.latency_p99),
            self.error_rate(&row, tile),
            row(Method::MissingLabels, of_events(summary.events - summary.labelled.min(summary.events))),
        ]
        .into_iter()
        .chain(summary.metrics.iter().map(|(method, metric)| Row {
            lower: metric.limits.map(|limits| limits.0),
            upper: metric.limits.map(|limits| limits.1),
            interval: metric.limits.map(|_| "confidence".into()),
            ..row(*method, metric.value)
        }))
        .collect::<Vec<_>>();
        self.history.extend(rows);
        self.close_rules(&model, window);
        if self.history.len() > MOST_HISTORY {
            self.history.drain(..self.history.len() - MOST_HISTORY);
        }
        Ok(())
    }

    /// Drift of a closed window: the e-detectors step through its moments, the window's own test has its share of the budget.
    fn close_drift(&mut self, report: &Report, whole: &Profile, tiles: &[(i64, Tile)], window: (i64, i64), rows: &mut Vec<Row>) {
        let mut bets: BTreeMap<String, Row> = BTreeMap::new();
        let tiles = tiles.iter().map(|(start, tile)| (*start, &tile.profile));
        for (column, (start, end), outcome) in self.bets.close(window, whole, tiles) {
            let row = Row {
                value: Some(outcome.wealth),
                threshold: Some(1.0),
                n_reference: Some(self.reference.rows),
                n_current: Some(whole.rows),
                window_start: Some(start),
                window_end: Some(end),
                reference: Some(self.reference.id().to_owned()),
                reason: outcome.alarm,
                ..Row::blank(&column, Method::EDetector)
            };
            // Of the moments of a window the one that alarmed counts, else the last.
            if row.reason.is_some() || bets.get(&column).is_none_or(|before| before.reason.is_none()) {
                bets.insert(column, row);
            }
        }
        let tested = report.columns.iter().filter(|column| column.role.is_tested()).count().max(1) as f64;
        // Half of the budget is for tests of windows; where there are segments, they have half of that.
        let budget = 0.5 * (window.1 - window.0) as f64 / self.config.ticket_every as f64;
        let budget = if self.segments.is_empty() { budget } else { 0.5 * budget };
        let level = (budget / tested).min(self.config.settings.alpha());
        for column in report.columns.iter().filter(|column| column.role.is_tested()) {
            let own = || report.rows.iter().filter(|row| row.column == column.column && row.verdict.is_some());
            let Some(worst) = column.verdict.and_then(|verdict| own().find(|row| row.verdict == Some(verdict))) else { continue };
            let count = own().filter(|row| row.p_value.is_some()).count() as f64;
            let p = own().filter_map(|row| row.p_value).fold(1.0, f64::min) * count;
            let mut verdict = worst.verdict.unwrap_or(Verdict::Insufficient);
            if verdict >= Verdict::Warning && p > level {
                verdict = Verdict::Info;
            }
            let broken =
                verdict == Verdict::Critical && matches!(worst.method, Method::NullShare | Method::NonfiniteShare | Method::UnseenShare);
            let severity = if broken { Severity::Page } else { Severity::Ticket };
            let cause = || {
                let moved = column.moved.iter().take(3);
                let text: Vec<String> = moved
                    .map(|moved| format!("{} went from {:.1} % to {:.1} %", moved.bin, 100.0 * moved.reference, 100.0 * moved.current))
                    .collect();
                (!text.is_empty()).then(|| text.join("; "))
            };
            let alarm = bets.get(&column.column).filter(|row| row.reason.is_some());
            let column = column.column.as_str();
            match alarm {
                Some(row) if verdict < Verdict::Warning => {
                    let judgement = Judgement { column, verdict: Verdict::Warning, severity: Severity::Ticket, row, cause: cause() };
                    self.judge(&judgement, window);
                }
                // An alert of the e-detector alone does not end with one mild window.
                None if verdict < Verdict::Warning
                    && self.bets.is_open(column)
                    && self.alerts.rests_on(column) == Some(Method::EDetector) => {}
                _ => self.judge(&Judgement { column, verdict, severity, row: worst, cause: cause() }, window),
            }
        }
        rows.extend(bets.into_values());
        let reference = Arc::clone(&self.reference);
        for judged in self.segments.close(window, &reference, &self.config.settings, budget) {
            if judged.verdict >= Verdict::Warning || self.alerts.has(&judged.name) {
                let (column, verdict, row) = (judged.name.as_str(), judged.verdict, &judged.row);
                self.judge(&Judgement { column, verdict, severity: Severity::Ticket, row, cause: None }, window);
            }
            // What did not move is one row per segment: its events.
            if judged.verdict >= Verdict::Info || judged.row.method == Method::Events {
                rows.push(judged.row);
            }
        }
    }

    fn is_muted(&self, (start, end): (i64, i64)) -> bool {
        self.deploys.iter().any(|deploy| start < deploy.until && deploy.time < end)
    }

    /// Hands a verdict to the alerts, unless it would open one while they are muted.
    fn judge(&mut self, judgement: &Judgement<'_>, window: (i64, i64)) {
        if judgement.verdict >= Verdict::Warning && !self.alerts.has(judgement.column) && self.is_muted(window) {
            self.muted += 1;
        } else {
            self.alerts.judge(judgement, window);
        }
    }
}
