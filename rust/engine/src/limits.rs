//! What monitoring may cost: a share of a core, bytes in memory, on disk and on the wire.

use std::fmt;

use barograph_core::{Error, Result};
use serde::de::{Deserializer, Error as _, IgnoredAny};
use serde::{Deserialize, Serialize};

/// A number or a text, as a file states it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(f64),
    Text(String),
    Other(IgnoredAny),
}

impl Amount {
    /// What stands there, and the unit behind a number.
    fn split(&self) -> Option<(f64, &str)> {
        match self {
            Self::Number(number) => Some((*number, "")),
            Self::Text(text) => {
                let text = text.trim();
                let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
                let (number, unit) = text.split_at(end);
                Some((number.parse().ok()?, unit.trim()))
            }
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Other(_) => f.write_str("something else"),
        }
    }
}

/// Bytes by unit; kB, MB and GB are powers of 1024.
const UNITS: [(&str, f64); 6] = [("", 1.0), ("B", 1.0), ("kB", 1024.0), ("KB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0)];

fn bytes(number: f64, unit: &str) -> Option<f64> {
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor).filter(|bytes| (1.0..=9e15).contains(bytes))
}

/// A number of bytes, at least 1; as text "64MB", "1GB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Amount", into = "u64")]
pub struct Size(pub usize);

impl TryFrom<Amount> for Size {
    type Error = String;

    fn try_from(amount: Amount) -> std::result::Result<Self, String> {
        let size = amount.split().and_then(|(number, unit)| bytes(number, unit));
        size.map(|size| Self(size as usize)).ok_or_else(|| format!("expected a size such as \"64MB\", got {amount}"))
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0 as Self
    }
}

/// A share of one core, above 0 and at most 1; as text "1%".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Amount", into = "f64")]
pub struct Share(pub f64);

impl TryFrom<Amount> for Share {
    type Error = String;

    fn try_from(amount: Amount) -> std::result::Result<Self, String> {
        let share = amount.split().and_then(|(number, unit)| match unit {
            "" => Some(number),
            "%" => Some(number / 100.0),
            _ => None,
        });
        // One in a million: less is below what a clock of processor time can tell.
        let share = share.filter(|share| (1e-6..=1.0).contains(share));
        share.map(Self).ok_or_else(|| format!("expected more than 0 and at most 100 % of one core, such as \"1%\" or 0.01, got {amount}"))
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// Bytes per second, at least 1; as text "10kB/s".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Amount", into = "f64")]
pub struct Rate(pub f64);

impl TryFrom<Amount> for Rate {
    type Error = String;

    fn try_from(amount: Amount) -> std::result::Result<Self, String> {
        let rate = amount.split().and_then(|(number, unit)| {
            let unit = if matches!(amount, Amount::Number(_)) { unit } else { unit.strip_suffix("/s")? };
            bytes(number, unit.trim())
        });
        rate.map(Self).ok_or_else(|| format!("expected a rate such as \"10kB/s\", got {amount}"))
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

fn read<'de, D: Deserializer<'de>, T: TryFrom<Amount, Error = String>>(from: D, key: &str) -> std::result::Result<Option<T>, D::Error> {
    let amount = Amount::deserialize(from)?;
    T::try_from(amount).map(Some).map_err(|error| D::Error::custom(format!("`{key}` of the budget: {error}")))
}

/// `cpu` as a field.
pub(crate) fn cpu<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Share>, D::Error> {
    read(from, "cpu")
}

/// `memory` as a field.
pub(crate) fn memory<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Size>, D::Error> {
    read(from, "memory")
}

/// `disk` as a field.
pub(crate) fn disk<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Size>, D::Error> {
    read(from, "disk")
}

/// `wire` as a field.
pub(crate) fn wire<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Rate>, D::Error> {
    read(from, "wire")
}

/// What monitoring may cost. What is not stated has no limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processor time per second, as a share of one core.
    #[serde(deserialize_with = "cpu")]
    pub cpu: Option<Share>,
    /// Bytes in memory.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<Size>,
    /// Bytes on disk.
    #[serde(deserialize_with = "disk")]
    pub disk: Option<Size>,
    /// Bytes per second on the wire.
    #[serde(deserialize_with = "wire")]
    pub wire: Option<Rate>,
    /// Whether events may be left out, with weights that keep every count unbiased, to keep to `cpu`.
    pub sampling: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: None, memory: None, disk: None, wire: None, sampling: true }
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none() && self.disk.is_none() && self.wire.is_none()
    }

    /// Refuses less memory than `least` bytes.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self, least: usize) -> Result<()> {
        match self.memory {
            Some(Size(size)) if size < least => {
                Err(Error::invalid(format!("`memory` of the budget must be at least {} MB, got {size} bytes", least >> 20)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> std::result::Result<Limits, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn limits_are_read_and_written() {
        let limits = of("cpu = \"1.5%\"\nmemory = \"64MB\"\ndisk = \"1GB\"\nwire = \"10kB/s\"\n").unwrap();
        assert_eq!((limits.cpu, limits.memory), (Some(Share(0.015)), Some(Size(64 << 20))));
        assert_eq!((limits.disk, limits.wire, limits.sampling), (Some(Size(1 << 30)), Some(Rate(10_240.0)), true));
        assert_eq!(serde_json::from_str::<Limits>(&serde_json::to_string(&limits).unwrap()).unwrap(), limits);
        assert!(of("").unwrap().is_empty() && of("sampling = false").unwrap().is_empty());
    }

    #[test]
    fn limits_that_cannot_be_are_refused_by_name() {
        for value in ["\"101%\"", "1.01", "0", "\"0%\"", "-0.01", "nan", "inf", "\"one\"", "\"\"", "true", "[1]", "\"1 core\"", "\"-1%\""] {
            let error = of(&format!("cpu = {value}")).unwrap_err();
            assert!(error.contains("`cpu` of the budget: expected more than 0 and at most 100 %"), "{value}: {error}");
        }
        for key in ["memory", "disk"] {
            for value in ["0", "-1", "nan", "\"0MB\"", "\"64 megabytes\"", "\"1e3\"", "\"99999999999GB\"", "false"] {
                let error = of(&format!("{key} = {value}")).unwrap_err();
                assert!(error.contains(&format!("`{key}` of the budget: expected a size")), "{value}: {error}");
            }
        }
        for value in ["0", "\"10kB\"", "\"0B/s\"", "nan", "\"fast\""] {
            assert!(of(&format!("wire = {value}")).unwrap_err().contains("`wire` of the budget: expected a rate"), "{value}");
        }
        assert!(of("cpus = 0.1").unwrap_err().contains("unknown field `cpus`"));
        assert!(of("memory = \"1MB\"").unwrap().check(64 << 20).unwrap_err().message.contains("at least 64 MB"));
    }
}
