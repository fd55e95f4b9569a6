//! Latencies and counts that come as metrics, not as events, and whose they are.

use barograph_core::codec::{Reader, Writer};
use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};
use serde::Deserialize;

/// Cells per octave are 2^6, as everywhere: quantiles within 0.54 %.
pub const SCALE: u8 = 6;

/// What was measured of a model, summed up.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The model.
    pub model: String,
    /// When, in nanoseconds since the epoch; on arrival if it was not said.
    pub time: Option<i64>,
    /// Of calls, in seconds.
    pub latency: ExponentialHistogram,
    /// Requests that are counted here alone.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
}

impl Measurement {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(model: &str, time: Option<i64>) -> Result<Self> {
        Ok(Self { model: model.to_owned(), time, latency: ExponentialHistogram::new(SCALE)?, requests: 0, failures: 0 })
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.latency.count() == 0 && self.requests == 0 && self.failures == 0
    }

    /// Appends it to a record.
    pub fn encode(&self, writer: &mut Writer) {
        writer.str(&self.model);
        writer.bool(self.time.is_some());
        writer.i64(self.time.unwrap_or_default());
        self.latency.encode(writer);
        writer.u64(self.requests);
        writer.u64(self.failures);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let model = reader.str()?.to_owned();
        let timed = reader.bool()?;
        let time = Some(reader.i64()?).filter(|_| timed);
        let latency = ExponentialHistogram::decode(reader)?;
        if latency.scale() != SCALE {
            return Err(Error::decode("latencies of a measurement have another scale"));
        }
        Ok(Self { model, time, latency, requests: reader.count()?, failures: reader.count()? })
    }
}

/// What a metric measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measures {
    /// How long calls took.
    Latency,
    /// How many requests there were.
    Requests,
    /// How many of them failed.
    Failures,
}

/// In what a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    /// The unit of this word, as OpenTelemetry writes it.
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "s" => Self::S,
            "ms" => Self::Ms,
            "us" | "µs" => Self::Us,
            "ns" => Self::Ns,
            _ => return None,
        })
    }

    /// Seconds of one.
    pub fn seconds(self) -> f64 {
        match self {
            Self::S => 1.0,
            Self::Ms => 1e-3,
            Self::Us => 1e-6,
            Self::Ns => 1e-9,
        }
    }
}

/// Whose a metric is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// Its name; one star stands for anything.
    pub metric: String,
    /// What it measures.
    #[serde(default = "latency")]
    pub measures: Measures,
    /// The model, always the same.
    #[serde(default)]
    pub model: Option<String>,
    /// Or the tag, or attribute, that names it.
    #[serde(default)]
    pub model_tag: Option<String>,
    /// In what it is, where the protocol does not say.
    #[serde(default)]
    pub unit: Option<Unit>,
}

fn latency() -> Measures {
    Measures::Latency
}

impl Naming {
    /// What is known of metrics without being told.
    pub fn usual() -> Vec<Self> {
        let one = |metric: &str, measures, tag: &str| Self {
            metric: metric.into(),
            measures,
            model: None,
            model_tag: Some(tag.into()),
            unit: None,
        };
        let mut out = vec![
            one("barograph.requests", Measures::Requests, "model"),
            one("barograph.failures", Measures::Failures, "model"),
            one("barograph.latency", Measures::Latency, "model"),
            one("*latency*", Measures::Latency, "model"),
            one("*duration*", Measures::Latency, "model"),
        ];
        let calls =
            ["http.server.request.duration", "rpc.server.duration", "gen_ai.server.request.duration", "gen_ai.client.operation.duration"];
        for metric in calls {
            for attribute in ["barograph.model", "gen_ai.request.model", "service.name"] {
                out.push(one(metric, Measures::Latency, attribute));
            }
        }
        out
    }
}
