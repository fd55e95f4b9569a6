//! Windows close: their rows, the verdicts of rules and drift, and what the alerts are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use barograph_core::Result;
use barograph_core::distributions::{binomial_lower, binomial_upper};

use super::{Monitor, merged};
use crate::alert::{Judgement, Severity};
use crate::compare::compare_tested;
use crate::profile::Profile;
use crate::report::{MODEL, Method, Report, Row, Verdict};
use crate::window::{self, Tile};

/// Empty windows that close at once after a long silence.
const MOST_EMPTY: i64 = 1000;
/// Bytes that a row of history takes, with its texts.
pub(super) const HISTORY_ROW: usize = 512;
/// Columns that a cause names.
const CAUSES: usize = 3;

/// The limits that a test of this level waits for, where a metric has any: two-sided, each side at the level.
fn limits(tile: &Tile, method: Method, level: f64) -> Option<(f64, f64)> {
    if method == Method::ErrorRate {
        let (failed, all) = failures(tile);
        return (all > 0.0).then(|| (binomial_lower(failed, all, level), binomial_upper(failed, all, level)));
    }
    let metrics = tile.quality.metrics(1.0 - 2.0 * level);
    metrics.into_iter().find(|(known, _)| *known == method)?.1.limits
}

/// Limits of the latency that a share `q` of all calls kept to, one-sided at `alpha`, where some were left out: the order statistics
/// that lie below and above it with that confidence, and the cells' error. Too few calls have no upper one.
fn latency_limits(tile: &Tile, q: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
    let worth = tile.latency.count() as f64 / tile.profile.thinning();
    if tile.profile.sampled().is_none() || worth < 1.0 {
        return (None, None);
    }
    let at = |rank: f64| tile.latency.quantile((rank / worth).clamp(0.0, 1.0)).ok().flatten();
    let error = tile.latency.relative_error();
    // The k-th of n calls lies above the quantile with the chance that fewer than k of them lie below it: where the limits that
    // Clopper and Pearson give a share reach q.
    let lower = rank(worth, |below| binomial_upper(below, worth, alpha) <= q, (q * worth, 0.0));
    let upper = rank(worth, |below| binomial_lower(below, worth, alpha) >= q, (q * worth, worth));
    (lower.and_then(at).map(|value| value * (1.0 - error)), upper.and_then(at).map(|value| value * (1.0 + error)))
}

/// Between `from` and `to`, where it has to hold, the rank nearest to `from` at which it does; `None` if it does nowhere.
fn rank(worth: f64, holds: impl Fn(f64) -> bool, (mut from, mut to): (f64, f64)) -> Option<f64> {
    if !holds(to) {
        return None;
    }
    // To a hundredth of a call, or as near as doubles are.
    for _ in 0..60 {
        if (from - to).abs() < 0.01_f64.max(1e-12 * worth) {
            break;
        }
        let middle = f64::midpoint(from, to);
        if holds(middle) {
            to = middle;
        } else {
            from = middle;
        }
    }
    Some(to)
}

/// A row with limits, if there are any.
fn between(row: Row, (lower, upper): (Option<f64>, Option<f64>)) -> Row {
    if row.value.is_none() || lower.is_none() && upper.is_none() {
        return row;
    }
    Row { lower, upper, interval: Some("confidence".into()), ..row }
}

/// All that is said, one after the other.
fn joined(parts: [Option<String>; 2]) -> Option<String> {
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// Events and calls that failed and all of them, as many as they are worth.
fn failures(tile: &Tile) -> (f64, f64) {
    let thinning = tile.profile.thinning();
    (tile.errors as f64 / thinning, (tile.profile.rows + tile.calls) as f64 / thinning)
}

impl Monitor {
    /// Closes every window that ends at or before `now` and judges it.
    ///
    /// # Errors
    /// None in practice.
    pub fn tick(&mut self, now: i64) -> Result<()> {
        self.settle_before(now)?;
        while let Some(start) = self.next_window(now) {
            let end = start + self.config.policy.window.0;
            self.burn(end);
            let tiles = self.tiles.between(start, end)?;
            match merged(&tiles, start, end)? {
                Some(tile) => self.close(&tile, &tiles, (start, end))?,
                None => self.close_rules(&[self.model_row(Method::Events, Some(0.0), 0, (start, end))], None, None, (start, end))?,
            }
            self.closed = Some(end);
        }
        self.burn(now);
        self.closed.map_or(Ok(()), |closed| self.tiles.settle(closed))
    }

    /// The start of the next window to close, if it ends by `now`: the one after the last, or, where no rule asks about silence,
    /// the next that holds anything.
    pub(super) fn next_window(&self, now: i64) -> Option<i64> {
        let length = self.config.policy.window.0;
        let silence = self.config.policy.rules.iter().any(|rule| rule.metric.as_deref() == Some("events"));
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
        if self.config.policy.rules.iter().all(|rule| rule.slo.is_none()) {
            return;
        }
        for end in self.pulse.due(now) {
            for at in 0..self.config.policy.rules.len() {
                let rule = &self.config.policy.rules[at];
                let name = rule.name();
                let Some((row, verdict, severity)) = rule.burn(&self.pulse, at, end, self.config.policy.settings.confidence) else {
                    continue;
                };
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
    fn close_rules(&mut self, rows: &[Row], tile: Option<&Tile>, cause: Option<&str>, window: (i64, i64)) -> Result<()> {
        let mut rows = rows.to_vec();
        let levels = self.config.policy.levels(1 + self.kinds().len());
        for at in 0..self.config.policy.rules.len() {
            let rule = &self.config.policy.rules[at];
            let Some(row) = rule.method().and_then(|method| rows.iter_mut().find(|row| row.method == method)) else { continue };
            let (name, severity, level) = (rule.name(), rule.severity, levels.rule(rule.severity));
            let verdict = match (self.watchers.get_mut(at), row.value) {
                (Some(Some(watcher)), Some(value)) => {
                    let changed = watcher.step(value)?;
                    if changed {
                        row.reason = Some(format!("{} saw a change of its course, now {value:.4}", rule.watching()));
                    }
                    if changed { Verdict::Warning } else { Verdict::Ok }
                }
                (Some(Some(_)), None) => Verdict::Insufficient,
                _ => rule.judge(row, tile.and_then(|tile| limits(tile, row.method, level)), level),
            };
            let verdict = self.standings[at].of_window(rule, verdict, self.alerts.has(&name), window.1);
            // What a rule says takes the place of what was said before.
            row.reason = joined([row.reason.take(), tile.and_then(|tile| tile.profile.sampled())]);
            let row = row.clone();
            self.judge(&Judgement { column: &name, verdict, severity, row: &row, cause: cause.map(str::to_owned) }, window);
        }
        self.history.extend(rows.into_iter().filter(|row| row.value.is_some()));
        Ok(())
    }

    /// The share of events and calls that failed, with its one-sided Clopper-Pearson limits.
    fn error_rate(&self, row: &dyn Fn(Method, Option<f64>) -> Row, tile: &Tile) -> Row {
        let (failed, all) = failures(tile);
        if all == 0.0 {
            return row(Method::ErrorRate, None);
        }
        let alpha = self.config.policy.settings.alpha();
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
        // Labels of events that were left out find nothing: they are asked of those that were kept.
        let kept = tile.profile.kept;
        let of_events = |count: u64| (kept > 0).then(|| count as f64 / kept as f64);
        let row = |method: Method, value: Option<f64>| self.model_row(method, value, summary.events, window);
        let alpha = self.config.policy.settings.alpha();
        let latency = |method: Method, value: Option<f64>, q: f64| between(row(method, value), latency_limits(tile, q, alpha));
        let model = [
            between(row(Method::Events, Some(summary.events as f64)), tile.profile.rows_between(alpha).unzip()),
            latency(Method::LatencyP50, summary.latency_p50, 0.5),
            latency(Method::LatencyP99, summary.latency_p99, 0.99),
            self.error_rate(&row, tile),
            row(Method::MissingLabels, of_events(kept - summary.labelled.min(kept))),
        ]
        .into_iter()
        .chain(summary.metrics.iter().map(|(method, metric)| Row {
            lower: metric.limits.map(|limits| limits.0),
            upper: metric.limits.map(|limits| limits.1),
            interval: metric.limits.map(|_| "confidence".into()),
            ..row(*method, metric.value)
        }))
        .map(|row| Row { reason: tile.profile.sampled(), ..row })
        .collect::<Vec<_>>();
        self.history.extend(rows);
        let cause = self.likely_cause(&summary.report);
        self.close_rules(&model, Some(tile), cause.as_deref(), window)?;
        let most = self.config.policy.allowance() / 4 / HISTORY_ROW;
        if self.history.len() > most {
            self.history.drain(..self.history.len() - most);
        }
        Ok(())
    }

    /// Drift of a closed window: the e-detectors step through its moments, the window's own test has its share of the budget.
    fn close_drift(&mut self, report: &Report, whole: &Profile, tiles: &[(i64, Tile)], window: (i64, i64), rows: &mut Vec<Row>) {
        let mut bets: BTreeMap<String, (Row, bool)> = BTreeMap::new();
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
                reason: joined([outcome.alarm.clone(), whole.sampled()]),
                ..Row::blank(&column, Method::EDetector)
            };
            // Of the moments of a window the one that alarmed counts, else the last.
            if outcome.alarm.is_some() || bets.get(&column).is_none_or(|(_, alarmed)| !alarmed) {
                bets.insert(column, (row, outcome.alarm.is_some()));
            }
        }
        let levels = self.config.policy.levels(1 + self.kinds().len());
        let alpha = self.config.policy.settings.alpha();
        let weights = self.weights.clone();
        let settings = &self.config.policy.settings;
        let judged = self.reference.season.as_ref().map(|season| season.judge(whole, &self.reference, window, settings, levels.drift));
        let seasons = judged.unwrap_or_default();
        for column in report.columns.iter().filter(|column| column.role.is_tested()) {
            let own = || report.rows.iter().filter(|row| row.column == column.column && row.verdict.is_some());
            let Some(worst) = column.verdict.and_then(|verdict| own().find(|row| row.verdict == Some(verdict))) else { continue };
            // Half of a column's part of the level is the same for all, half goes by importance.
            let part = 0.5 / weights.len() as f64 + 0.5 * weights.get(&column.column).copied().unwrap_or(0.0);
            let level = (levels.drift * part).min(alpha);
            let count = own().filter(|row| row.p_value.is_some()).count() as f64;
            let p = own().filter_map(|row| row.p_value).fold(1.0, f64::min) * count;
            let mut verdict = worst.verdict.unwrap_or(Verdict::Insufficient);
            if verdict >= Verdict::Warning && p > level {
                verdict = Verdict::Info;
            }
            let of_shares = matches!(worst.method, Method::NullShare | Method::NonfiniteShare | Method::UnseenShare);
            // A column of another type: that is no estimate, and its own alert.
            let unread = worst.method == Method::Schema && whole.column(&column.column).is_some_and(|now| now.unread.is_some());
            if unread {
                verdict = Verdict::Critical;
            }
            let broken = unread || verdict == Verdict::Critical && of_shares && p <= levels.broken / weights.len() as f64;
            let severity = if broken { Severity::Page } else { Severity::Ticket };
            let cause = || {
                let moved = column.moved.iter().take(3);
                let text: Vec<String> = moved
                    .map(|moved| format!("{} went from {:.1} % to {:.1} %", moved.bin, 100.0 * moved.reference, 100.0 * moved.current))
                    .collect();
                (!text.is_empty()).then(|| text.join("; "))
            };
            let alarm = bets.get(&column.column).filter(|(_, alarmed)| *alarmed).map(|(row, _)| row);
            let column = column.column.as_str();
            // Of the whole and the season the one that moved more.
            let (verdict, worst) = match seasons.get(column) {
                Some((row, seasonal)) if *seasonal > verdict => (*seasonal, row),
                _ => (verdict, worst),
            };
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
        rows.extend(bets.into_values().map(|(row, _)| row));
        rows.extend(seasons.into_values().map(|(row, _)| row));
        let reference = Arc::clone(&self.reference);
        for judged in self.segments.close(window, whole, &reference, &self.config.policy.settings, levels.drift) {
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

    /// The columns that moved most for what they matter, worst first.
    fn likely_cause(&self, report: &Report) -> Option<String> {
        let moved = report.rows.iter().filter(|row| row.verdict.is_some_and(|verdict| verdict >= Verdict::Info));
        let mut ranked: BTreeMap<&str, (f64, &Row)> = BTreeMap::new();
        for row in moved {
            let Some(weight) = self.weights.get(row.column.as_str()) else { continue };
            let rank = row.value.unwrap_or(0.0).abs() * weight;
            let known = ranked.entry(&row.column).or_insert((rank, row));
            if rank > known.0 {
                *known = (rank, row);
            }
        }
        let mut ranked: Vec<(f64, &Row)> = ranked.into_values().collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.column.cmp(&b.1.column)));
        let words = ranked.iter().take(CAUSES).map(|(_, row)| {
            let value = row.value.map_or_else(String::new, |value| format!(" {value:.3}"));
            format!("{} moved ({}{value})", row.column, row.method.word())
        });
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| words.join("; "))
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
