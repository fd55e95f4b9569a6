//! Where alerts go: one file per kind. What is shared stands here: what an operator states about a sink, what a sink is given, and how it
//! fails. [`deliveries`] brings the alerts there.

pub mod alertmanager;
pub mod cloudevents;
pub mod deliveries;
pub mod email;
pub mod log;
pub mod pagerduty;
pub mod post;
pub mod slack;
pub mod webhook;

use std::time::Duration;

use barograph_engine::alert::{Alert, Severity, State};
use barograph_engine::policy::Length;
use barograph_engine::report::Verdict;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

pub use deliveries::{Deliveries, Pace};

use crate::config::{NAMES, is_name};
use crate::shard::clock;

const SECOND: i64 = 1_000_000_000;

/// A change of an alert as a sink is given it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The model it is about.
    pub model: String,
    /// Which of the models that had this name.
    pub generation: String,
    /// How many changes the model had before; none for what a person said about the alert.
    pub change: Option<u64>,
    /// The change.
    pub alert: Alert,
    /// Who acknowledged the alert, if this is what is told.
    #[serde(default)]
    pub acknowledged_by: Option<String>,
    /// When it is sent, in nanoseconds since 1970.
    #[serde(skip)]
    pub sent_at: i64,
    /// Where people reach the sidecar's page.
    #[serde(skip)]
    pub page_url: Option<String>,
}

impl Notice {
    /// The alert, the same for all its changes and no other.
    pub fn alert_id(&self) -> String {
        format!("{}-{}-{}", self.model, self.generation, self.alert.id)
    }

    /// The change: a receiver that knows it already has it twice.
    pub fn key(&self) -> String {
        match self.change {
            Some(change) => format!("{}-{}-{change}", self.model, self.generation),
            None => format!("{}-acknowledged", self.alert_id()),
        }
    }

    /// What it says in one line, as Python's `AlertLog` does. A name from outside must not begin a line of its own.
    pub fn sentence(&self) -> String {
        let alert = &self.alert;
        let mut out = format!("{}: {} {}, {}", self.model, severity(alert.severity), state(alert.state), alert.column);
        for part in [&alert.reason, &alert.cause].into_iter().flatten().filter(|part| !part.is_empty()) {
            out.push_str(": ");
            out.push_str(part);
        }
        one_line(&out)
    }

    /// The model and the change, as Python's `on_alert` gives them.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<String, Failure> {
        #[derive(Serialize)]
        struct Told<'a> {
            model: &'a str,
            #[serde(flatten)]
            alert: &'a Alert,
        }
        serde_json::to_string(&Told { model: &self.model, alert: &self.alert }).map_err(|error| unwritten(&error))
    }

    /// What it is about, named, for people: value, interval, tolerance and time.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let alert = &self.alert;
        let number = |value: Option<f64>| value.map(|value| format!("{value:.4}"));
        let interval = alert.lower.zip(alert.upper).map(|(lower, upper)| format!("{lower:.4} to {upper:.4}"));
        let facts = [
            ("model", Some(self.model.clone())),
            ("column", Some(alert.column.clone())),
            ("severity", Some(severity(alert.severity).to_owned())),
            ("verdict", Some(alert.verdict.word().to_owned())),
            ("method", alert.method.map(barograph_engine::report::Method::word)),
            ("value", number(alert.value)),
            ("interval", interval),
            ("threshold", number(alert.threshold)),
            ("window", Some(format!("{} to {}", instant(alert.window_start), instant(alert.time)))),
            ("reason", alert.reason.clone()),
            ("cause", alert.cause.clone()),
        ];
        facts.into_iter().filter_map(|(name, value)| Some((name, one_line(&value?)))).filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// Why a notice was not taken. The words name no secret: of addresses they show scheme and host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Later it may be.
    Retry {
        /// How long the receiver wants to be left alone.
        after: Option<Duration>,
        /// For people.
        why: String,
    },
    /// It never will be.
    Permanent {
        /// For people.
        why: String,
    },
}

impl Failure {
    pub(crate) fn retry(why: impl Into<String>) -> Self {
        Self::Retry { after: None, why: why.into() }
    }

    pub(crate) fn permanent(why: impl Into<String>) -> Self {
        Self::Permanent { why: why.into() }
    }

    /// For people.
    pub fn why(&self) -> &str {
        let (Self::Retry { why, .. } | Self::Permanent { why }) = self;
        why
    }
}

/// Where alerts go.
pub trait Sink: Send {
    /// Hands one change on. It returns in bounded time, and may be called again with the same notice.
    ///
    /// # Errors
    /// `Failure` saying whether to try again.
    fn send(&self, notice: &Notice) -> Result<(), Failure>;

    /// How often the receiver has to be told that an alert is still open.
    fn repeats(&self) -> Option<Duration> {
        None
    }
}

/// Whose changes a sink wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severities {
    /// Those that disturb somebody now.
    Page,
    /// The others.
    Ticket,
    /// All.
    #[default]
    Any,
}

/// What kind of sink, and what it needs.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Log,
    Webhook(webhook::Settings),
    Slack(slack::Settings),
    Pagerduty(pagerduty::Settings),
    Alertmanager(alertmanager::Settings),
    Email(email::Settings),
    Cloudevents(cloudevents::Settings),
}

const KINDS: &str = "log, webhook, slack, pagerduty, alertmanager, email, cloudevents";

/// What an operator states about a sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// What it is called in messages and metrics; its kind unless it is stated.
    pub name: String,
    /// Models whose alerts it wants, `*` and `?` standing for any letters and any one; all unless stated.
    pub models: Vec<String>,
    /// Whose changes it wants. An alert that it was told of ends there too.
    pub severities: Severities,
    /// Of an attempt as a whole; 10 s unless stated.
    pub timeout: Duration,
    /// Where people reach the sidecar's page, for a link.
    pub page_url: Option<String>,
    /// What kind, and what it needs.
    pub kind: Kind,
}

/// What every kind may state.
#[derive(Deserialize)]
struct Common {
    kind: String,
    name: Option<String>,
    models: Option<Vec<String>>,
    #[serde(default)]
    severities: Severities,
    timeout: Option<Length>,
    page_url: Option<String>,
}

const COMMON: [&str; 6] = ["kind", "name", "models", "severities", "timeout", "page_url"];

impl<'de> Deserialize<'de> for SinkConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // In two steps: serde cannot refuse unknown keys of a kind beside keys of all.
        let mut own = toml::Table::deserialize(from)?;
        let common = COMMON.iter().filter_map(|key| Some(((*key).to_owned(), own.remove(*key)?))).collect();
        let common: Common = settings(common).map_err(D::Error::custom)?;
        let name = common.name.unwrap_or_else(|| common.kind.clone());
        let wrong = |why: String| D::Error::custom(format!("sink {name:?}: {why}"));
        let kind = match common.kind.as_str() {
            "log" => settings::<Nothing>(own).map(|Nothing {}| Kind::Log),
            "webhook" => settings(own).map(Kind::Webhook),
            "slack" => settings(own).map(Kind::Slack),
            "pagerduty" => settings(own).map(Kind::Pagerduty),
            "alertmanager" => settings(own).map(Kind::Alertmanager),
            "email" => settings(own).map(Kind::Email),
            "cloudevents" => settings(own).map(Kind::Cloudevents),
            other => Err(format!("`kind` must be one of {KINDS}, got {other:?}")),
        };
        let kind = kind.map_err(wrong)?;
        if !is_name(&name) {
            return Err(wrong(format!("`name` must be a name\nhint: {NAMES}")));
        }
        let timeout = common.timeout.unwrap_or(Length(10 * SECOND));
        if !(SECOND..=60 * SECOND).contains(&timeout.0) {
            return Err(wrong(format!("`timeout` must be in [1s, 1m], got {timeout}")));
        }
        if let Some(url) = &common.page_url
            && (!["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) || !url.bytes().all(is_plain))
        {
            return Err(wrong(format!("`page_url` must be an http or https URL, got {url:?}")));
        }
        let config = Self {
            models: common.models.unwrap_or_else(|| vec!["*".to_owned()]),
            severities: common.severities,
            timeout: Duration::from_nanos(timeout.0.unsigned_abs()),
            page_url: common.page_url,
            kind,
            name: name.clone(),
        };
        config.sink().map(|_| config).map_err(wrong)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn settings<T: DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    T::deserialize(table).map_err(|error| error.message().to_owned())
}

/// What may stand in an address that is shown as a link.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"<>|\"'`\\".contains(&byte)
}

impl SinkConfig {
    /// The sink.
    ///
    /// # Errors
    /// What about it cannot be.
    pub fn sink(&self) -> Result<Box<dyn Sink>, String> {
        Ok(match &self.kind {
            Kind::Log => Box::new(log::Log),
            Kind::Webhook(settings) => Box::new(settings.sink(self.timeout)?),
            Kind::Slack(settings) => Box::new(settings.sink(self.timeout)),
            Kind::Pagerduty(settings) => Box::new(settings.sink(self.timeout)?),
            Kind::Alertmanager(settings) => Box::new(settings.sink(self.timeout)?),
            Kind::Email(settings) => Box::new(settings.sink(self.timeout)?),
            Kind::Cloudevents(settings) => Box::new(settings.sink(self.timeout)),
        })
    }

    /// Whether it wants to know of a model at all.
    pub fn watches(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| matches(pattern, model))
    }

    /// Whether changes of such an alert are for it.
    pub fn wants(&self, severity: Severity) -> bool {
        matches!(
            (self.severities, severity),
            (Severities::Any, _) | (Severities::Page, Severity::Page) | (Severities::Ticket, Severity::Ticket)
        )
    }

    /// Whether it can say that somebody looks after an alert.
    fn hears_people(&self) -> bool {
        matches!(self.kind, Kind::Pagerduty(_))
    }
}

/// Refuses names that two sinks have: what is on its way to one would go to the other.
///
/// # Errors
/// What to change.
pub fn check(configs: &[SinkConfig]) -> Result<(), String> {
    for (at, config) in configs.iter().enumerate() {
        if configs.iter().take(at).any(|other| other.name == config.name) {
            return Err(format!("two sinks are called {:?}\nhint: give each a `name` of its own", config.name));
        }
    }
    Ok(())
}

/// Sends an alert that is none to every sink, and says what became of it.
pub fn test_alert(configs: &[SinkConfig]) -> Vec<(String, Result<(), String>)> {
    let now = clock();
    let alert = |state, verdict| Alert {
        id: 0,
        incident: 0,
        column: "test".to_owned(),
        state,
        severity: Severity::Ticket,
        verdict,
        method: None,
        value: None,
        lower: None,
        upper: None,
        threshold: None,
        time: now,
        window_start: now.saturating_sub(3600 * SECOND),
        reason: Some("a test of the way that alerts take: nothing is wrong".to_owned()),
        cause: None,
        n_reference: None,
        n_current: None,
    };
    let test = |config: &SinkConfig| {
        let sink = config.sink()?;
        let notice = |change, alert| Notice {
            model: "test".to_owned(),
            generation: now.to_string(),
            change: Some(change),
            alert,
            acknowledged_by: None,
            sent_at: now,
            page_url: config.page_url.clone(),
        };
        sink.send(&notice(0, alert(State::Opened, Verdict::Warning))).map_err(|failure| failure.why().to_owned())?;
        // Where alerts are open until they are ended, this one must not stay.
        if matches!(config.kind, Kind::Pagerduty(_) | Kind::Alertmanager(_)) {
            sink.send(&notice(1, alert(State::Resolved, Verdict::Ok))).map_err(|failure| failure.why().to_owned())?;
        }
        Ok(())
    };
    configs.iter().map(|config| (config.name.clone(), test(config))).collect()
}

/// Whether a text is such as the pattern says: `*` stands for any letters, `?` for any one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where to go on when a letter does not fit: after the last star, one letter further. So no pattern takes more than n·m steps.
    let (mut at, mut here, mut star) = (0, 0, None);
    while let Some(letter) = text.get(here) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == letter => (at, here) = (at + 1, here + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (at, here) = (after + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|letter| *letter == '*')
}

pub(crate) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Ticket => "ticket",
        Severity::Page => "page",
    }
}

pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Opened => "opened",
        State::Escalated => "escalated",
        State::Eased => "eased",
        State::Resolved => "resolved",
    }
}

/// A text without line ends and other letters that steer; what turns the direction of reading is one of them.
pub(crate) fn one_line(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|letter| if steers(letter) { ' ' } else { letter }).collect()
}

/// The first so many letters; the last of them says that there were more.
pub(crate) fn at_most(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(letters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// RFC 3339, UTC.
pub(crate) fn instant(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).map(|time| time.to_string()).unwrap_or_default()
}

pub(crate) fn unwritten(error: &serde_json::Error) -> Failure {
    Failure::permanent(format!("the alert could not be written as JSON: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A change with hostile names in it.
    pub(crate) fn notice(state: State, severity: Severity) -> Notice {
        let verdict = if state == State::Resolved { Verdict::Ok } else { Verdict::Critical };
        let alert = Alert {
            id: 7,
            incident: 7,
            column: "amount <!channel> & \"co\"\r\nBcc: eve@example.com".to_owned(),
            state,
            severity,
            verdict,
            method: Some(barograph_engine::report::Method::Psi),
            value: Some(0.5),
            lower: Some(0.25),
            upper: Some(0.75),
            threshold: Some(0.2),
            time: 1_767_225_600 * SECOND,
            window_start: 1_767_222_000 * SECOND,
            reason: Some("psi above its tolerance".to_owned()),
            cause: Some("*share* of [12, 15) grew".to_owned()),
            n_reference: Some(1000),
            n_current: Some(900),
        };
        Notice {
            model: "fraud".to_owned(),
            generation: "5".to_owned(),
            change: Some(3),
            alert,
            acknowledged_by: None,
            sent_at: 1_767_225_601 * SECOND,
            page_url: Some("https://watch.example/".to_owned()),
        }
    }

    pub(crate) fn config(text: &str) -> SinkConfig {
        toml::from_str(text).unwrap()
    }

    /// What a receiver got: the head in lower case, and the body.
    pub(crate) type Got = (String, Vec<u8>);

    /// A receiver that gives these answers in turn, the last one again and again, each on a connection of its own.
    pub(crate) struct Receiver {
        pub(crate) url: String,
        got: Arc<Mutex<Vec<Got>>>,
    }

    pub(crate) fn read_request(stream: &TcpStream) -> Option<Got> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.to_lowercase().split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some((head.to_lowercase(), body))
    }

    impl Receiver {
        pub(crate) fn with(answers: &[&str]) -> Self {
            let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
            Self::acting(move |number, mut stream| {
                let answer = answers.get(number).or(answers.last()).unwrap();
                let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
            })
        }

        /// Does something with each connection after its request was read.
        pub(crate) fn acting(act: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let got: Arc<Mutex<Vec<Got>>> = Arc::default();
            let (kept, act) = (Arc::clone(&got), Arc::new(act));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (kept, act) = (Arc::clone(&kept), Arc::clone(&act));
                    std::thread::spawn(move || {
                        let Some(request) = read_request(&stream) else { return };
                        let mut all = kept.lock().unwrap();
                        all.push(request);
                        let number = all.len() - 1;
                        drop(all);
                        act(number, stream);
                    });
                }
            });
            Self { url, got }
        }

        pub(crate) fn got(&self) -> Vec<Got> {
            self.got.lock().unwrap().clone()
        }

        pub(crate) fn json(&self, number: usize) -> serde_json::Value {
            serde_json::from_slice(&self.got()[number].1).unwrap()
        }
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("fraud", "fraud", true),
            ("fraud", "fraud2", false),
            ("fr*d", "fraud", true),
            ("fr*d", "frauds", false),
            ("*a*b", "xaxbxab", true),
            ("f?aud", "fraud", true),
            ("f?aud", "faud", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(50), &"b".repeat(10_000)));
    }

    #[test]
    fn what_is_stated_wrong_is_refused_without_its_secrets() {
        for (text, says) in [
            ("name = \"x\"", "missing field `kind`"),
            ("kind = \"smoke\"", "`kind` must be one of log, webhook, slack, pagerduty, alertmanager, email, cloudevents, got \"smoke\""),
            ("kind = \"log\"\ncolour = 1", "sink \"log\": unknown field `colour`"),
            ("kind = \"slack\"", "missing field `url`"),
            ("kind = \"slack\"\nurl = \"hooks.slack.com/hush\"", "expected an http or https URL"),
            ("kind = \"slack\"\nurl = \"https://eve:hush@slack.com/\"", "no user or password"),
            ("kind = \"slack\"\nurl = 4711\n", "got a number"),
            ("kind = \"webhook\"\nurl = \"http://h/hush\"\nsecret = { value = \"hush\" }", "a table of something else"),
            ("kind = \"webhook\"\nurl = \"http://h\"\nheaders = { \"a b\" = \"hush\" }", "name that HTTP does not allow"),
            ("kind = \"webhook\"\nurl = \"http://h\"\nheaders = { a = \"hush\\nx\" }", "letters that HTTP does not allow"),
            ("kind = \"webhook\"\nurl = \"http://h\"\nheaders = { Host = \"hush\" }", "must not hold \"host\""),
            ("kind = \"log\"\nname = \"a b\"", "`name` must be a name"),
            ("kind = \"log\"\ntimeout = \"2m\"", "`timeout` must be in [1s, 1m], got 2m"),
            ("kind = \"log\"\nseverities = \"all\"", "expected one of `page`, `ticket`, `any`"),
            ("kind = \"log\"\npage_url = \"https://x/|y\"", "`page_url` must be an http or https URL"),
            ("kind = \"email\"\nhost = \"h\"\nfrom = \"a@b\"\nto = []", "`to` must name at least one"),
            ("kind = \"email\"\nhost = \"h\"\nfrom = \"nobody\"\nto = [\"a@b.example\"]", "`from` must be an address"),
            (
                "kind = \"email\"\nhost = \"h\"\ntls = \"none\"\nusername = \"u\"\npassword = \"hush\"\nfrom = \"a@b\"\nto = [\"a@b\"]",
                "would send the password in the clear",
            ),
        ] {
            let error = toml::from_str::<SinkConfig>(text).unwrap_err();
            assert!(error.message().contains(says), "{text}: {}", error.message());
            assert!(!error.message().contains("hush") && !error.message().contains("4711"), "{}", error.message());
        }
    }

    #[test]
    fn what_is_stated_can_be_shown() {
        let text = "kind = \"webhook\"\nurl = \"https://h.example/hush?key=hush\"\nsecret = \"hush\"\nheaders = { a = \"hush\" }\nmodels = [\"fr*\"]";
        let config = config(text);
        assert!(!format!("{config:?}").contains("hush"), "{config:?}");
        assert!(config.watches("fraud") && !config.watches("churn"));
        assert!(config.wants(Severity::Page) && config.wants(Severity::Ticket));
        assert!(check(std::slice::from_ref(&config)).is_ok());
        assert!(check(&[config.clone(), config]).unwrap_err().contains("two sinks are called \"webhook\""));
    }

    #[test]
    fn a_notice_comes_back_as_it_was() {
        let notice = Notice { sent_at: 0, page_url: None, ..notice(State::Opened, Severity::Page) };
        let text = serde_json::to_string(&notice).unwrap();
        assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), notice);
        assert_eq!(
            notice.sentence(),
            "fraud: page opened, amount <!channel> & \"co\"  Bcc: eve@example.com: psi above its tolerance: *share* of [12, 15) grew"
        );
    }

    #[test]
    fn a_test_alert_says_what_became_of_it() {
        let receiver = Receiver::with(&["202 Accepted"]);
        let configs = [
            config(&format!("kind = \"pagerduty\"\nrouting_key = \"hush\"\nurl = \"{}\"", receiver.url)),
            config("kind = \"slack\"\nurl = \"http://127.0.0.1:1/hush\""),
        ];
        let found = test_alert(&configs);
        assert_eq!(found[0], ("pagerduty".to_owned(), Ok(())));
        let why = found[1].1.as_ref().unwrap_err();
        assert!(why.starts_with("http://127.0.0.1:1 could not be reached") && !why.contains("hush"), "{why}");
        assert_eq!(
            (receiver.json(0)["event_action"].as_str(), receiver.json(1)["event_action"].as_str()),
            (Some("trigger"), Some("resolve"))
        );
    }
}
