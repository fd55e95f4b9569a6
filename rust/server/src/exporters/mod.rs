//! Where numbers go: one description of metrics, one file per format.
//!
//! | format | histograms | who reads it |
//! |---|---|---|
//! | [`prometheus`] | classic buckets | anything that scrapes |
//! | [`openmetrics`] | classic buckets | Prometheus since 2.5, by default |
//! | [`protobuf`] | native and classic buckets, no counter lost | Prometheus with native histograms |
//! | [`otlp`] | exponential, no counter lost | OpenTelemetry collectors, to which it is pushed |

pub mod openmetrics;
pub mod otlp;
pub mod prometheus;
pub mod protobuf;

use barograph_core::sketches::ExponentialHistogram;

/// Series that are exposed unless told otherwise: a scrape of about 1 MB.
pub const MOST_SERIES: usize = 10_000;

/// What a family's numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, and begin again at 0 after a restart.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are distributions that only grow.
    Histogram,
}

/// What a family's numbers are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share in [0, 1].
    Ratio,
}

impl Unit {
    /// As names end in it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }
}

/// A number, or a distribution.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any finite number.
    Number(f64),
    /// A distribution and the sum of its values. The histogram knows no sum: count one beside it, as
    /// [`Moments`](barograph_core::sketches::Moments) do.
    Histogram(ExponentialHistogram, f64),
}

impl Value {
    /// Whether the formats can say it: nothing is NaN or infinite, counters do not fall, and no format knows a histogram's shift.
    fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Count(_) => kind != Kind::Histogram,
            Self::Number(number) => number.is_finite() && (kind == Kind::Gauge || (kind == Kind::Counter && *number >= 0.0)),
            Self::Histogram(histogram, sum) => kind == Kind::Histogram && sum.is_finite() && histogram.shift() == 0.0,
        }
    }

    /// What it costs a scraper that reads text.
    fn series(&self, unit: Option<Unit>) -> usize {
        match self {
            Self::Histogram(..) => prometheus::powers(unit).count() + 3,
            Self::Count(_) | Self::Number(_) => 1,
        }
    }
}

/// One value of a family and what tells it from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Names are fixed by the code, values are any text.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// Series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    /// Whether its counts outlive the process.
    kept: bool,
    series: Vec<Series>,
}

impl Family {
    /// Without series. A counter's name ends in `_total`, and before that, as every name, in the unit.
    pub fn new(kind: Kind, name: &'static str, help: &'static str, unit: Option<Unit>) -> Self {
        let family = Self { name, help, kind, unit, kept: false, series: Vec::new() };
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        debug_assert!(unit.is_none_or(|unit| family.stem().ends_with(unit.word())), "{name}");
        family
    }

    /// Of counts that go on after a restart: they began at no moment that the process knows, and OTLP must not say that they began with
    /// it, or a receiver takes all that was ever counted for new.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// Adds a series; the labels of two series of a family differ.
    pub fn push(&mut self, labels: impl IntoIterator<Item = (&'static str, String)>, value: Value) {
        self.series.push(Series { labels: labels.into_iter().collect(), value });
    }

    /// The name without a counter's `_total`.
    fn stem(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}

/// What is shown at one moment, in any format: at most so many series.
///
/// A histogram counts as its lines in text (22 for seconds). Series that come when the limit is reached are left out, and
/// `barograph_dropped_series` counts them. So that no format needs a word for what is not known, numbers that are NaN or infinite are left
/// out too; these are no loss and are not counted.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The first one counts what was dropped.
    families: Vec<Family>,
    limit: usize,
    shown: usize,
    dropped: u64,
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new(MOST_SERIES)
    }
}

impl Exposition {
    /// Without families, for so many series.
    pub fn new(limit: usize) -> Self {
        let help = "Series left out of this answer, over the limit.";
        let mut dropped = Family::new(Kind::Gauge, "barograph_dropped_series", help, None);
        dropped.push([], Value::Count(0));
        Self { families: vec![dropped], limit, shown: 0, dropped: 0 }
    }

    /// Adds a family; its series join those of an earlier family of the same name, as the formats want each name once.
    pub fn add(&mut self, mut family: Family) {
        let incoming = std::mem::take(&mut family.series);
        let at = self.families.iter().position(|known| known.name == family.name).unwrap_or_else(|| {
            self.families.push(family);
            self.families.len() - 1
        });
        let Some(family) = self.families.get_mut(at) else { return };
        for series in incoming.into_iter().filter(|series| series.value.fits(family.kind)) {
            let cost = series.value.series(family.unit);
            // Once something was dropped nothing smaller slips in: which series stay must not flicker.
            if self.dropped > 0 || self.shown + cost > self.limit {
                self.dropped += cost as u64;
            } else {
                self.shown += cost;
                family.series.push(series);
            }
        }
        if let Some(count) = self.families.first_mut().and_then(|family| family.series.first_mut()) {
            count.value = Value::Count(self.dropped);
        }
    }

    /// Families that have series.
    fn families(&self) -> impl Iterator<Item = &Family> {
        self.families.iter().filter(|family| !family.series.is_empty())
    }
}

/// What `GET /metrics` can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// `MetricFamily` messages behind their lengths.
    Protobuf,
}

/// One of the formats that an Accept header names: Prometheus says what it prefers by weights. Of equal weights the first one counts, and
/// whoever takes none of the formats gets the text.
pub fn negotiate(accept: Option<&str>) -> Format {
    let mut best = (0.0, Format::Prometheus);
    for range in accept.unwrap_or_default().split(',') {
        if let Some((weight, format)) = accepted(range)
            && weight > best.0
        {
            best = (weight, format);
        }
    }
    best.1
}

/// The weight and the format of one media range, if it is one of ours.
fn accepted(range: &str) -> Option<(f32, Format)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut weight, mut version, mut proto, mut encoding) = (1.0, None, None, None);
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
            "version" => version = Some(value),
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            // `escaping` too: our names need none.
            _ => {}
        }
    }
    let format = match kind.as_str() {
        "application/vnd.google.protobuf" if proto == Some("io.prometheus.client.MetricFamily") && encoding == Some("delimited") => {
            Format::Protobuf
        }
        "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => Format::OpenMetrics,
        "text/plain" if matches!(version, None | Some("0.0.4")) => Format::Prometheus,
        "*/*" | "text/*" => Format::Prometheus,
        _ => return None,
    };
    Some((weight, format))
}

/// The content type and the body of an answer.
pub fn encode(format: Format, exposition: &Exposition) -> (&'static str, Vec<u8>) {
    match format {
        Format::Prometheus => (prometheus::CONTENT_TYPE, prometheus::encode(exposition)),
        Format::OpenMetrics => (openmetrics::CONTENT_TYPE, openmetrics::encode(exposition)),
        Format::Protobuf => (protobuf::CONTENT_TYPE, protobuf::encode(exposition)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HOSTILE: &str = "a\"b\\c\nd é 漢 \u{1f600}\\n\r\u{85}\u{2028}";

    /// One family of each kind, a label value that needs every escape, and a histogram with values on, between and beyond its bounds.
    pub(crate) fn example() -> Exposition {
        let mut events = Family::new(Kind::Counter, "barograph_events_total", "Events observed.", None);
        events.push([("model", HOSTILE.to_owned())], Value::Count(9_007_199_254_740_993));
        events.push([("model", "fraud".to_owned())], Value::Number(2.5));
        let mut score = Family::new(Kind::Gauge, "barograph_drift", "Tested \"scores\"\nof C:\\the last window.", None);
        score.push([("model", "fraud".to_owned()), ("column", String::new()), ("method", "psi".to_owned())], Value::Number(-1e-9));
        score.push([("model", "lost".to_owned())], Value::Number(f64::NAN));
        score.push([("model", "lost".to_owned())], Value::Number(f64::INFINITY));
        let mut end = Family::new(Kind::Gauge, "barograph_window_end_timestamp_seconds", "End of the last window.", Some(Unit::Seconds));
        end.push([], Value::Number(1.7e9));
        let mut calls = Family::new(Kind::Histogram, "barograph_call_seconds", "Seconds that calls took.", Some(Unit::Seconds));
        let values = [0.0, 1e-6, 0.25, 0.25_f64.next_up(), 0.3, 1.0, 1.0, 1.0, 64.0, 65.0];
        let mut histogram = ExponentialHistogram::new(6).unwrap();
        histogram.update_many(&values);
        calls.push([("model", "fraud".to_owned())], Value::Histogram(histogram, values.iter().sum()));
        calls.push([("model", "idle".to_owned())], Value::Histogram(ExponentialHistogram::new(6).unwrap(), 0.0));
        let mut shifted = ExponentialHistogram::shifted(6, 5.0).unwrap();
        shifted.update(1.0);
        calls.push([("model", "lost".to_owned())], Value::Histogram(shifted, 1.0));
        let mut exposition = Exposition::default();
        [events, score, end, calls].into_iter().for_each(|family| exposition.add(family));
        exposition
    }

    #[test]
    fn what_scrapers_send_is_answered_in_what_they_prefer() {
        // Read off the wire: Debian's Prometheus 2.42.0, with and without --enable-feature=native-histograms.
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let plain = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        // Put together as Prometheus 3 does (acceptHeader in scrape/scrape.go), with its default protocols and with protobuf first.
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let three_native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                            application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, format) in [
            (native, Format::Protobuf),
            (plain, Format::OpenMetrics),
            (three, Format::OpenMetrics),
            (three_native, Format::Protobuf),
            (browser, Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
            ("application/json", Format::Prometheus),
            ("text/plain;version=1.0.0, application/openmetrics-text; q=0.1", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Prometheus),
            ("application/openmetrics-text;q=0, text/plain;q=0.1", Format::Prometheus),
            ("text/plain;q=0.5, Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.9", Format::OpenMetrics),
            ("application/openmetrics-text;q=NaN,text/plain;q=0.1", Format::Prometheus),
            ("application/openmetrics-text;q=7,text/plain;q=0.1", Format::Prometheus),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format::Prometheus),
            ("application/vnd.google.protobuf;proto=other.Message;encoding=delimited", Format::Prometheus),
            (";;;,,,=;q", Format::Prometheus),
        ] {
            assert_eq!(negotiate(Some(accept)), format, "{accept}");
        }
        assert_eq!(negotiate(None), Format::Prometheus);
    }

    #[test]
    fn above_the_limit_the_rest_is_dropped_and_counted() {
        let mut exposition = Exposition::new(25);
        let mut verdicts = Family::new(Kind::Gauge, "barograph_verdict", "Verdicts.", None);
        for column in 0..4 {
            verdicts.push([("column", column.to_string())], Value::Count(1));
        }
        exposition.add(verdicts.clone());
        let mut calls = Family::new(Kind::Histogram, "barograph_call_seconds", "Calls.", Some(Unit::Seconds));
        calls.push([], Value::Histogram(ExponentialHistogram::new(6).unwrap(), 0.0));
        exposition.add(calls);
        // 4 and 22 are more than 25; what would still fit does not slip in either.
        exposition.add(verdicts);
        let text = String::from_utf8(encode(Format::Prometheus, &exposition).1).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[0], "barograph_dropped_series 26");
        assert_eq!(text.matches("# TYPE barograph_verdict").count(), 1);
        assert!(!text.contains("barograph_call_seconds"));
    }

    #[test]
    fn a_family_that_comes_in_parts_is_shown_in_one_piece() {
        let mut exposition = Exposition::default();
        for model in ["a", "b"] {
            for name in ["barograph_events_total", "barograph_alerts_total"] {
                let mut family = Family::new(Kind::Counter, name, "Counted.", None);
                family.push([("model", model.to_owned())], Value::Count(1));
                exposition.add(family);
            }
        }
        let text = String::from_utf8(encode(Format::OpenMetrics, &exposition).1).unwrap();
        let at = |line: &str| text.find(line).unwrap();
        assert!(at("barograph_events_total{model=\"b\"}") < at("# TYPE barograph_alerts counter"), "{text}");
    }

    #[test]
    fn what_is_not_known_or_does_not_fit_is_in_no_format() {
        let mut counter = Family::new(Kind::Counter, "barograph_events_total", "Events.", None);
        counter.push([("model", "lost".to_owned())], Value::Number(-1.0));
        counter.push([("model", "lost".to_owned())], Value::Histogram(ExponentialHistogram::new(6).unwrap(), 0.0));
        let mut calls = Family::new(Kind::Histogram, "barograph_call_seconds", "Calls.", None);
        calls.push([("model", "lost".to_owned())], Value::Count(1));
        calls.push([("model", "lost".to_owned())], Value::Histogram(ExponentialHistogram::new(6).unwrap(), f64::NAN));
        let mut exposition = example();
        exposition.add(counter);
        exposition.add(calls);
        for format in [Format::Prometheus, Format::OpenMetrics, Format::Protobuf] {
            let body = encode(format, &exposition).1;
            assert!(!body.windows(4).any(|part| part == b"lost"), "{format:?}");
        }
        assert!(!otlp::encode(&exposition, &[], 1, 2).windows(4).any(|part| part == b"lost"));
    }
}
