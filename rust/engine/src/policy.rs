//! What a user states about watching a model: one text for the monitor, the sidecar and the command line.

use std::collections::BTreeMap;
use std::fmt;

use barograph_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::alert::Severity;
use crate::ledger::Choice;
use crate::limits::{self, Limits, Rate, Share, Size};
use crate::nearest::nearest;
use crate::quality::Task;
use crate::rules::{self, Rule};
use crate::settings::Settings;
use crate::window::{self, DAY, HOUR};

/// Classes of a model that a monitor judges: every window keeps a square of them.
const MOST_CLASSES: usize = 100;
/// Units of a length, in nanoseconds, longest first.
const UNITS: [(&str, i64); 6] = [("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", HOUR / 60), ("s", HOUR / 3600), ("ns", 1)];

/// A stretch of time in nanoseconds; as text `30m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Length(pub i64);

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, unit)| *unit);
        let length = unit.and_then(|unit| number.parse::<i64>().ok()?.checked_mul(unit));
        length.map(Self).ok_or_else(|| format!("expected a length such as \"30m\", \"1h\" or \"7d\", got {text:?}"))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In days rather than weeks: budgets are said so.
        let fits = UNITS[1..].iter().find(|(name, unit)| self.0 % unit == 0 && (self.0 != 0 || *name == "s"));
        let (name, unit) = fits.unwrap_or(&("ns", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl From<Length> for String {
    fn from(length: Length) -> Self {
        length.to_string()
    }
}

/// What monitoring may cost: false alerts, at most one of a severity in so long, in expectation; processor time and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tickets.
    pub ticket: Length,
    /// Pages.
    pub page: Length,
    /// Processor time, as a share of one core.
    #[serde(deserialize_with = "limits::cpu", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Share>,
    /// Bytes that the monitor may take.
    #[serde(deserialize_with = "limits::memory", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Bytes of what it saves of itself.
    #[serde(deserialize_with = "limits::disk", skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// Bytes per second of the snapshots that it hands out.
    #[serde(deserialize_with = "limits::wire", skip_serializing_if = "Option::is_none")]
    pub wire: Option<Rate>,
    /// Whether events may be left out to keep to `cpu`.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub sampling: bool,
}

impl Budget {
    /// What it says besides false alerts.
    pub fn limits(&self) -> Limits {
        Limits { cpu: self.cpu, memory: self.memory, disk: self.disk, wire: self.wire, sampling: self.sampling }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { ticket: Length(7 * DAY), page: Length(30 * DAY), cpu: None, memory: None, disk: None, wire: None, sampling: true }
    }
}

/// What a user states about watching a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How long a window is.
    pub window: Length,
    /// What the model predicts.
    pub task: Task,
    /// Of several classes their names, in the order of probabilities.
    pub classes: Vec<String>,
    /// Level, tolerances and bins of the comparison with the reference.
    pub settings: Settings,
    /// False alerts that are allowed, processor time and bytes.
    pub budget: Budget,
    /// Events of windows that closed longer ago are counted, and nothing else.
    pub lateness: Length,
    /// Bytes that tiles and history may take; beyond them the oldest are given up.
    pub memory: usize,
    /// Which label of several counts.
    pub labels: Choice,
    /// How much a column matters to the model: half of the budget goes to columns by it, and causes are ranked by it.
    pub importance: BTreeMap<String, f64>,
    /// Rules besides drift.
    pub rules: Vec<Rule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            window: Length(HOUR),
            task: Task::default(),
            classes: Vec::new(),
            settings: Settings::default(),
            budget: Budget::default(),
            lateness: Length(30 * DAY),
            memory: 256 << 20,
            labels: Choice::Last,
            importance: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

/// The level that each test of one window has, so that a severity keeps its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Levels {
    /// All tests of columns together, of segments, of seasons: tickets.
    pub(crate) drift: f64,
    /// Each rule that is a test: tickets, pages.
    rules: [f64; 2],
    /// All tests of broken data together, pages.
    pub(crate) broken: f64,
}

impl Levels {
    /// The level of one rule.
    pub(crate) fn rule(&self, severity: Severity) -> f64 {
        self.rules[usize::from(severity == Severity::Page)]
    }
}

impl Policy {
    /// A policy of JSON.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown key, with the nearest name, or a value of the wrong type.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, text) = (error.path().to_string(), error.inner().to_string());
            let path = if path == "." { String::new() } else { format!("`{path}`: ") };
            wrong(&path, text.split(" at line ").next().unwrap_or_default())
        })
    }

    /// The policy of a model in a TOML file that `source` names: its table in `[models]`, or, without such tables, the whole file.
    ///
    /// # Errors
    /// `InvalidArgument` with file and line for what is no TOML, an unknown key (with the nearest name) or a value that cannot be;
    /// `NotFound` for a model that the file has not.
    pub fn from_toml(text: &str, model: &str, source: &str) -> Result<Self> {
        let mut all = Self::all_from_toml(text, source)?;
        let Some(policy) = all.remove("").or_else(|| all.remove(model)) else {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("{source} has no model {model:?}")).hint(hint(model, &known)));
        };
        Ok(policy)
    }

    /// The policies of all models in a TOML file; without tables of models that of the whole file, by an empty name.
    ///
    /// # Errors
    /// `InvalidArgument` as for one.
    pub fn all_from_toml(text: &str, source: &str) -> Result<BTreeMap<String, Self>> {
        #[derive(Deserialize)]
        struct File {
            models: BTreeMap<String, Policy>,
        }
        let failed = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            wrong(&format!("{source}:{}: ", before.matches('\n').count() + 1), error.message())
        };
        let table: toml::Table = toml::from_str(text).map_err(failed)?;
        let all = if table.contains_key("models") {
            toml::from_str::<File>(text).map_err(failed)?.models
        } else {
            BTreeMap::from([(String::new(), toml::from_str(text).map_err(failed)?)])
        };
        for (model, policy) in &all {
            let place = if model.is_empty() { source.to_owned() } else { format!("{source}, model {model}") };
            policy.check().map_err(|error| Error { message: format!("{place}: {}", error.message), ..error })?;
        }
        Ok(all)
    }

    /// Refuses what cannot be, or contradicts itself.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self) -> Result<()> {
        window::tile_of(self.window.0)?;
        self.settings.check()?;
        rules::check(&self.rules, self.task)?;
        let unique: std::collections::BTreeSet<&String> = self.classes.iter().collect();
        if self.task == Task::Multiclass && !(2..=MOST_CLASSES).contains(&self.classes.len()) {
            return Err(Error::invalid(format!(
                "`classes` must name 2 to {MOST_CLASSES} classes of a multiclass model, got {}",
                self.classes.len()
            )));
        }
        if unique.len() < self.classes.len() || (self.task != Task::Multiclass && !self.classes.is_empty()) {
            return Err(Error::invalid("`classes` must be unique, and belong to a multiclass model"));
        }
        for (severity, length) in [("ticket", self.budget.ticket), ("page", self.budget.page)] {
            if length.0 < HOUR {
                return Err(Error::invalid(format!("`budget` of a {severity} must be at least an hour, got {length}")));
            }
        }
        if self.memory < 1 << 20 {
            return Err(Error::invalid(format!("`memory` must be at least 1 MB, got {} bytes", self.memory)));
        }
        self.budget.limits().check(1 << 20)?;
        if let Some((name, weight)) = self.importance.iter().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(Error::invalid(format!("`importance` of {name:?} must be a number of at least 0, got {weight}")));
        }
        Ok(())
    }

    /// Bytes that tiles and history may take: those stated, or those of the budget if they are less.
    pub fn allowance(&self) -> usize {
        self.budget.memory.map_or(self.memory, |size| size.0.min(self.memory))
    }

    /// Parts of the whole that columns have by their importance. One that is not named weighs as the mean of the others.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no column.
    pub(crate) fn weights(&self, columns: &[&str]) -> Result<BTreeMap<String, f64>> {
        if let Some(unknown) = self.importance.keys().find(|name| !columns.contains(&name.as_str())) {
            let error = Error::invalid(format!("`importance` names column {unknown:?}, which the reference does not test"));
            return Err(error.hint(hint(unknown, columns)));
        }
        let mean = self.importance.values().sum::<f64>() / self.importance.len().max(1) as f64;
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let weight = |name: &str| self.importance.get(name).copied().unwrap_or(mean);
        let all = columns.iter().map(|name| weight(name)).sum::<f64>().max(f64::MIN_POSITIVE);
        Ok(columns.iter().map(|name| ((*name).to_owned(), weight(name) / all)).collect())
    }

    /// What it promises about false alerts, in words.
    pub fn promise(&self, kinds: &[&str]) -> String {
        let days = |length: Length| length.0 as f64 / DAY as f64;
        format!(
            "At most one false ticket in {} days and one false page in {} days, in expectation and over all columns together, whatever the \
             dependence between them, while no column moves farther from its reference than {} in Kolmogorov-Smirnov distance (plus what \
             the reference's own windows of this length reached), no share of nulls moves by more than 0.02, and metrics keep to their \
             limits. Of the tickets half is for the e-detectors, which bet once per closed minute or tile, half for the tests of whole \
             windows{} and of metrics; pages are for broken data and metrics. Objectives, limits on latency, silence and missing labels, \
             detectors on metrics and columns of a wrong type report what happened and lie outside it.",
            days(self.budget.ticket),
            days(self.budget.page),
            crate::bets::TOLERANCE,
            kinds.iter().flat_map(|kind| [", of ", kind]).collect::<String>()
        )
    }

    /// Levels of the tests of one window, of so many kinds (columns; segments, seasons). Tickets: half of the budget is for the
    /// e-detectors, the other half in equal parts for the kinds and for rules. Pages: in equal parts for broken data and rules.
    pub(crate) fn levels(&self, kinds: usize) -> Levels {
        let tested = |severity: Severity| self.rules.iter().filter(|rule| rule.is_tested() && rule.severity == severity).count();
        let (tickets, pages) = (tested(Severity::Ticket), tested(Severity::Page));
        let alpha = self.settings.alpha();
        let budget = |horizon: Length| self.window.0 as f64 / horizon.0 as f64;
        let ticket = 0.5 * budget(self.budget.ticket) / (kinds.max(1) + usize::from(tickets > 0)) as f64;
        let page = budget(self.budget.page) / (1.0 + f64::from(u8::from(pages > 0)));
        // Two-sided limits at the confidence that rows show are the widest that count.
        let each = |share: f64, count: usize| (share / count.max(1) as f64).min(0.5 * alpha);
        Levels { drift: ticket, rules: [each(ticket, tickets), each(page, pages)], broken: page }
    }
}

/// An error of what stands in a policy, in our words.
fn wrong(place: &str, message: &str) -> Error {
    // Serde names the key and those it knows between backticks.
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(key) = quoted.next()
    {
        let known: Vec<&str> = quoted.collect();
        return Error::invalid(format!("{place}unknown key {key:?}")).hint(hint(key, &known));
    }
    Error::invalid(format!("{place}{message}"))
}

/// A hint at the known name that was meant, or at all of them.
fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written() {
        for text in ["30m", "1h", "7d", "2w", "90s", "1500ns", "0s"] {
            let length = Length::try_from(text.to_owned()).unwrap();
            assert_eq!(Length::try_from(length.to_string()).unwrap(), length, "{text}");
        }
        assert_eq!(Length(90 * 60 * 1_000_000_000).to_string(), "90m");
        for text in ["", "h", "1", "1y", "-1h", "1 h", "99999999999999999999d", "9999999999w"] {
            assert!(Length::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_of_a_model_or_of_a_whole_file() {
        let whole = "window = \"1d\"\n[budget]\npage = \"60d\"\n[[rules]]\nmetric = \"roc_auc\"\nbelow = 0.7\ncooldown = \"6h\"\n";
        let policy = Policy::from_toml(whole, "any", "p.toml").unwrap();
        assert_eq!((policy.window, policy.budget.page, policy.budget.ticket), (Length(DAY), Length(60 * DAY), Length(7 * DAY)));
        assert_eq!(policy.rules[0].cooldown, Length(6 * HOUR));
        let models = "listen = \"x\"\n[models.fraud]\nwindow = \"1d\"\n";
        assert_eq!(Policy::from_toml(models, "fraud", "p.toml").unwrap().window, Length(DAY));
        let error = Policy::from_toml(models, "frode", "p.toml").unwrap_err();
        assert!(error.message.contains("no model") && error.hint.unwrap().contains("fraud"));
        assert_eq!(Policy::from_json(&serde_json::to_string(&policy).unwrap()).unwrap(), policy);
    }

    #[test]
    fn errors_name_file_line_and_nearest_key() {
        let cases = [
            ("# c\nwindo = \"1h\"\n", "p.toml:2: unknown key \"windo\"", "window"),
            ("[[rules]]\nmetric = \"mae\"\nabov = 1.0\n", "p.toml:3: unknown key \"abov\"", "above"),
            ("\n\n[models.m.budget]\nticket = \"1d\"\npages = \"1d\"\n", "p.toml:5: unknown key \"pages\"", "page"),
            ("window = \"1h\"\nlateness = \"soon\"\n", "p.toml:2: expected a length", ""),
            ("window = \n", "p.toml:1: ", ""),
        ];
        for (text, message, hint) in cases {
            let error = Policy::from_toml(text, "m", "p.toml").unwrap_err();
            assert!(error.message.starts_with(message), "{error}");
            assert!(error.hint.unwrap_or_default().contains(hint));
        }
    }

    #[test]
    fn shares_never_exceed_the_budget() {
        let rule = |severity: &str| format!("{{\"metric\":\"roc_auc\",\"below\":0.5,\"severity\":\"{severity}\"}}");
        for rules in [String::new(), rule("page"), rule("ticket"), [rule("page"), rule("ticket")].join(",")] {
            let policy = Policy::from_json(&format!("{{\"rules\":[{rules}]}}")).unwrap();
            for kinds in 1..4 {
                let levels = policy.levels(kinds);
                let of = |severity| policy.rules.iter().filter(|rule| rule.severity == severity).count() as f64 * levels.rule(severity);
                let ticket = kinds as f64 * levels.drift + of(Severity::Ticket);
                assert!(ticket <= 0.5 / 168.0 + 1e-12 && levels.broken + of(Severity::Page) <= 1.0 / 720.0 + 1e-12);
            }
        }
    }
}
