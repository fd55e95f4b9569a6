//! `DogStatsD` datagrams (<https://docs.datadoghq.com/developers/dogstatsd/datagram_shell>), and plain `StatsD`: lines such as
//! `model.latency:12.3:9.1|ms|@0.5|#model:fraud`.

use std::collections::HashMap;
use std::str;

use crate::access::matches;
use crate::config::is_name;
use crate::measurement::{Measurement, Measures, Naming, Unit};

/// Models that are kept apart between two takings.
const MOST_MODELS: usize = 1000;
/// Pairs of name and tag whose place is remembered.
const MOST_PLACES: usize = 10_000;
/// The largest weight of a line, by its sample rate.
const MOST_WEIGHT: f64 = 1e6;

/// Where a line goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    model: usize,
    measures: Measures,
    unit: Option<Unit>,
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that came.
    pub lines: u64,
    /// Lines that are none.
    pub bad: u64,
    /// Lines of no model.
    pub unmapped: u64,
}

/// Folds lines into a measurement per model.
#[derive(Debug)]
pub struct Aggregator {
    naming: Vec<Naming>,
    models: Vec<Measurement>,
    /// By name and tags as they stand: senders repeat them to the letter.
    places: HashMap<Vec<u8>, Option<Place>>,
    counts: Counts,
    key: Vec<u8>,
}

impl Aggregator {
    /// Nothing yet; what the operator says of metrics goes before what is usual.
    pub fn new(naming: &[Naming]) -> Self {
        let naming = naming.iter().cloned().chain(Naming::usual()).collect();
        Self { naming, models: Vec::new(), places: HashMap::new(), counts: Counts::default(), key: Vec::new() }
    }

    /// Takes a datagram. What cannot be read of it is counted.
    pub fn add(&mut self, datagram: &[u8]) {
        for line in datagram.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.counts.lines += 1;
            if self.line(line).is_none() {
                self.counts.bad += 1;
            }
        }
    }

    /// What became of lines so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was measured since the last time.
    pub fn take(&mut self) -> Vec<Measurement> {
        if self.places.len() > MOST_PLACES / 2 || self.models.len() > MOST_MODELS / 2 {
            self.places.clear();
            return std::mem::take(&mut self.models).into_iter().filter(|measured| !measured.is_empty()).collect();
        }
        let mut out = Vec::new();
        for measured in self.models.iter_mut().filter(|measured| !measured.is_empty()) {
            if let Ok(fresh) = Measurement::new(&measured.model, None) {
                out.push(std::mem::replace(measured, fresh));
            }
        }
        out
    }

    fn line(&mut self, line: &[u8]) -> Option<()> {
        let mut parts = line.split(|byte| *byte == b'|');
        let (name, values) = split(parts.next()?, b':')?;
        let kind = parts.next()?;
        let (mut rate, mut tags) = (1.0, &[][..]);
        for part in parts {
            match part.split_first()? {
                (b'@', text) => rate = number(text).filter(|rate| *rate > 0.0 && *rate <= 1.0)?,
                (b'#', text) => tags = text,
                // A container, or a time of its own: it was now.
                _ => {}
            }
        }
        let measured = match kind {
            b"ms" => Some(Unit::Ms),
            b"h" | b"d" | b"c" => None,
            // Gauges and sets say nothing that can be summed up.
            b"g" | b"s" => return Some(()),
            _ => return None,
        };
        let Some(place) = self.place(name, tags) else {
            self.counts.unmapped += 1;
            return Some(());
        };
        let model = self.models.get_mut(place.model)?;
        let weight = (1.0 / rate).round().clamp(1.0, MOST_WEIGHT);
        for value in values.split(|byte| *byte == b':') {
            let value = number(value)?;
            match place.measures {
                Measures::Latency if kind != b"c" => {
                    let seconds = value * place.unit.or(measured).unwrap_or(Unit::S).seconds();
                    if seconds >= 0.0 && seconds.is_finite() {
                        model.latency.update_counted(seconds, weight as u64);
                    }
                }
                Measures::Latency => {}
                Measures::Requests | Measures::Failures => {
                    let count = (value * weight).clamp(0.0, 1e12) as u64;
                    let to = if place.measures == Measures::Requests { &mut model.requests } else { &mut model.failures };
                    *to = to.saturating_add(count).min(1 << 52);
                }
            }
        }
        Some(())
    }

    /// Where lines of this name and these tags go.
    fn place(&mut self, name: &[u8], tags: &[u8]) -> Option<Place> {
        self.key.clear();
        self.key.extend_from_slice(name);
        self.key.push(b'|');
        self.key.extend_from_slice(tags);
        if let Some(place) = self.places.get(&self.key) {
            return *place;
        }
        let found = self.find(name, tags);
        if self.places.len() < MOST_PLACES && self.key.len() < 1000 {
            self.places.insert(self.key.clone(), found);
        }
        found
    }

    fn find(&mut self, name: &[u8], tags: &[u8]) -> Option<Place> {
        let (name, tags) = (str::from_utf8(name).ok()?, str::from_utf8(tags).ok()?);
        let tag = |wanted: &str| tags.split(',').take(100).find_map(|tag| tag.strip_prefix(wanted)?.strip_prefix(':'));
        let fits = |naming: &&Naming| matches_any(&naming.metric, name);
        let (naming, model) = self.naming.iter().filter(fits).find_map(|naming| {
            let model = naming.model.as_deref().or_else(|| tag(naming.model_tag.as_deref()?));
            Some((naming, model.filter(|model| is_name(model))?))
        })?;
        let (measures, unit) = (naming.measures, naming.unit);
        let model = match self.models.iter().position(|known| known.model == model) {
            Some(known) => known,
            None if self.models.len() < MOST_MODELS => {
                self.models.push(Measurement::new(model, None).ok()?);
                self.models.len() - 1
            }
            None => return None,
        };
        Some(Place { model, measures, unit })
    }
}

/// A pattern with stars at its ends, or one within.
pub(crate) fn matches_any(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*').and_then(|rest| rest.strip_suffix('*')) {
        Some(middle) if !middle.is_empty() => name.contains(middle),
        _ => matches(pattern, name),
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?)).filter(|(name, _)| !name.is_empty())
}

fn number(text: &[u8]) -> Option<f64> {
    str::from_utf8(text).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &str, naming: &[Naming]) -> (Vec<Measurement>, Counts) {
        let mut aggregator = Aggregator::new(naming);
        aggregator.add(lines.as_bytes());
        (aggregator.take(), aggregator.counts())
    }

    #[test]
    fn latencies_and_counts_find_their_model() {
        let lines = "app.latency:250|ms|#env:dev,model:fraud\nbarograph.latency:0.5:1.5|h|@0.5|#model:fraud\n\
                     barograph.requests:3|c|@0.1|#model:fraud\nbarograph.failures:2|c|#model:fraud|c:abc|T1700000000\nother.count:1|c";
        let (found, counts) = all(lines, &[]);
        assert_eq!(counts, Counts { lines: 5, bad: 0, unmapped: 1 });
        assert_eq!((found.len(), found[0].model.as_str()), (1, "fraud"));
        assert_eq!((found[0].latency.count(), found[0].requests, found[0].failures), (5, 30, 2));
        let low = found[0].latency.quantile(0.0).unwrap().unwrap();
        assert!((low - 0.25).abs() < 0.002, "{low}");
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut aggregator = Aggregator::new(&[]);
        aggregator.add(b"x.latency:1|ms|#model:a\nx.latency:1|ms|#model:b");
        assert_eq!(aggregator.take().len(), 2);
        assert!(aggregator.take().is_empty());
        aggregator.add(b"x.latency:1|ms|#model:b");
        let found = aggregator.take();
        assert_eq!((found.len(), found[0].model.as_str(), found[0].latency.count()), (1, "b", 1));
    }

    #[test]
    fn an_operator_says_whose_a_metric_is() {
        let naming = Naming {
            metric: "checkout.*".into(),
            measures: Measures::Latency,
            model: Some("pricing".into()),
            model_tag: None,
            unit: Some(Unit::Us),
        };
        let (found, _) = all("checkout.call:1500|h", &[naming]);
        assert_eq!(found[0].model, "pricing");
        assert!((found[0].latency.quantile(0.5).unwrap().unwrap() - 0.0015).abs() < 2e-5);
    }

    #[test]
    fn what_is_no_line_is_counted_and_does_no_harm() {
        for line in [
            "",
            "x",
            "x:",
            "x:1",
            "x:1|q",
            ":1|ms",
            "x.latency:nan|ms|#model:a",
            "x.latency:inf|ms|#model:a",
            "x.latency:1|ms|@0|#model:a",
            "x:1|ms|@x",
        ] {
            let (found, counts) = all(line, &[]);
            assert!(found.is_empty(), "{line}");
            assert_eq!(counts.bad, counts.lines, "{line}");
        }
        let (found, counts) = all(&format!("x.latency:1|ms|#{}", "model:../x,".repeat(10_000)), &[]);
        assert!(found.is_empty() && counts.unmapped == 1);
        let mut aggregator = Aggregator::new(&[]);
        for model in 0..3 * MOST_MODELS {
            aggregator.add(format!("x.latency:1|ms|#model:m{model}").as_bytes());
        }
        assert_eq!(aggregator.take().len(), MOST_MODELS);
        aggregator.add(&[0xFF, 0xFE, b':', b'1', b'|', b'm', b's']);
        assert!(aggregator.take().is_empty());
    }
}
