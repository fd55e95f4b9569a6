//! What a column is (kind) and what it is for (role): inferred from the first rows, overridable per column.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::frame;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Integers, floats, decimals, durations (in seconds).
    Number,
    /// Names.
    Category,
    /// True and false.
    Boolean,
    /// Dates, times, timestamps.
    Time,
    /// Sentences: counted, not compared.
    Text,
    /// Vectors: counted, not compared yet.
    Embedding,
    /// Nested and binary data: a row in the report says so.
    Unsupported,
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the model sees.
    Feature,
    /// What the model said.
    Prediction,
    /// How sure it was.
    Score,
    /// The truth.
    Label,
    /// Names one event.
    Id,
    /// When the event was.
    Time,
    /// How long the call took.
    Latency,
    /// A group that is watched apart.
    Segment,
    /// How much a row counts.
    Weight,
    /// Which model answered.
    Version,
    /// What went wrong.
    Error,
}

impl Role {
    /// Whether columns of this role enter the drift verdict.
    pub fn is_tested(self) -> bool {
        matches!(self, Self::Feature | Self::Segment | Self::Prediction | Self::Score)
    }
}

macro_rules! words {
    ($type:ident: $($variant:ident = $word:literal),+) => {
        impl $type {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its word in schemas and reports.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(word: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|one| one.word()).collect();
                    Error::invalid(format!("`{}` must be one of {}, got {word:?}", stringify!($type).to_lowercase(), known.join(", ")))
                })
            }
        }
    };
}

words!(Kind: Number = "number", Category = "category", Boolean = "boolean", Time = "time", Text = "text", Embedding = "embedding", Unsupported = "unsupported");
words!(Role: Feature = "feature", Prediction = "prediction", Score = "score", Label = "label", Id = "id", Time = "time", Latency = "latency",
    Segment = "segment", Weight = "weight", Version = "version", Error = "error");

/// One column of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name in the frame.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// What it is for.
    pub role: Role,
}

/// The columns of a frame, in order, names unique.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The columns.
    pub columns: Vec<Column>,
}

/// Rows looked at to tell ids and text from categories.
pub const SAMPLE_ROWS: usize = 10_000;
/// Fewer rows than this say nothing about distinct shares.
const LEAST_ROWS: usize = 50;

impl Schema {
    /// Kinds and roles from names, types and the first rows of a batch.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that comes twice.
    pub fn infer(batch: &RecordBatch) -> Result<Self> {
        let head = batch.slice(0, batch.num_rows().min(SAMPLE_ROWS));
        let schema = head.schema();
        let columns = schema.fields().iter().zip(head.columns()).map(|(field, array)| {
            let (kind, role) = infer_column(field.name(), array.as_ref());
            Column { name: field.name().clone(), kind, role }
        });
        Self { columns: columns.collect() }.checked()
    }

    /// Refuses names that come twice.
    ///
    /// # Errors
    /// `InvalidArgument` naming the column.
    pub fn checked(self) -> Result<Self> {
        let mut seen = HashSet::new();
        match self.columns.iter().find(|column| !seen.insert(column.name.as_str())) {
            Some(twice) => {
                Err(Error::invalid(format!("column names must be unique, got {:?} twice", twice.name)).hint("rename one of the two"))
            }
            None => Ok(self),
        }
    }

    /// The column of this name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// The kind a type stands for, before any look at the values.
pub fn kind_of(data_type: &DataType) -> Kind {
    use DataType as T;
    match data_type {
        T::Boolean => Kind::Boolean,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => Kind::Category,
        T::Dictionary(_, values) => kind_of(values),
        T::Date32 | T::Date64 | T::Timestamp(..) | T::Time32(_) | T::Time64(_) => Kind::Time,
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) if item.data_type().is_floating() => Kind::Embedding,
        other if other.is_numeric() || matches!(other, T::Duration(_)) => Kind::Number,
        _ => Kind::Unsupported,
    }
}

fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() && before_lower {
            words.push(String::new());
        }
        before_lower = c.is_lowercase();
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn role_by_name(name: &str, kind: Kind) -> Option<Role> {
    let words = words_of(name);
    let joined = words.join("_");
    let (first, last) = (words.first().map_or("", String::as_str), words.last().map_or("", String::as_str));
    let role = match joined.as_str() {
        "y_true" | "label" | "labels" | "target" | "ground_truth" | "actual" => Role::Label,
        "y_pred" | "prediction" | "predictions" | "pred" | "predicted" => Role::Prediction,
        "y_score" | "score" | "proba" | "probability" | "y_pred_proba" | "y_prob" | "y_proba" | "confidence" => Role::Score,
        "weight" | "sample_weight" => Role::Weight,
        "version" | "model_version" => Role::Version,
        "error" | "error_message" | "exception" => Role::Error,
        _ if first == "latency" || last == "latency" || joined.ends_with("latency_ms") || joined.ends_with("latency_seconds") => {
            Role::Latency
        }
        _ => return None,
    };
    // "latency" as text is no latency, "score" as text is a feature.
    let number = matches!(kind, Kind::Number);
    (number || !matches!(role, Role::Score | Role::Weight | Role::Latency)).then_some(role)
}

fn infer_column(name: &str, array: &dyn Array) -> (Kind, Role) {
    let kind = kind_of(array.data_type());
    if kind == Kind::Time {
        return (kind, Role::Time);
    }
    if let Some(role) = role_by_name(name, kind) {
        return (kind, role);
    }
    let words = words_of(name);
    let named_id = words.iter().any(|word| matches!(word.as_str(), "id" | "uuid" | "guid" | "key")) || words.join("") == "rowid";
    match kind {
        Kind::Number if array.data_type().is_integer() => {
            let mut values = Vec::new();
            frame::numbers(array, &mut |block| values.extend_from_slice(block));
            let distinct = values.iter().map(|v| v.to_bits()).collect::<HashSet<_>>().len();
            let unique = distinct == values.len();
            let ordered = values.windows(2).all(|w| w[0] < w[1]) || values.windows(2).all(|w| w[0] > w[1]);
            let enough = values.len() >= LEAST_ROWS;
            let id = enough && (unique && ordered || named_id && distinct * 2 > values.len()) || !enough && named_id;
            (kind, if id { Role::Id } else { Role::Feature })
        }
        Kind::Category => {
            let (mut names, mut rows, mut spaced, mut bytes) = (HashSet::new(), 0usize, 0usize, 0usize);
            frame::names(array, &mut |text, count| {
                let count = count as usize;
                rows += count;
                bytes += text.len() * count;
                spaced += count * usize::from(text.trim().matches(char::is_whitespace).count() >= 3);
                names.insert(text.to_owned());
            });
            let share = names.len() as f64 / rows.max(1) as f64;
            if rows >= LEAST_ROWS && spaced * 2 > rows && bytes > 30 * rows && share > 0.5 {
                return (Kind::Text, Role::Feature);
            }
            let id = rows >= LEAST_ROWS && (share > 0.98 || named_id && share > 0.5);
            (kind, if id { Role::Id } else { Role::Feature })
        }
        _ => (kind, Role::Feature),
    }
}

/// Whether an array can be read as `kind`; an array of nulls can be read as anything.
pub fn reads_as(array: &dyn Array, kind: Kind) -> bool {
    let own = kind_of(array.data_type());
    own == kind || array.data_type() == &DataType::Null || (own == Kind::Category && kind == Kind::Text) || dictionary_is_empty(array)
}

fn dictionary_is_empty(array: &dyn Array) -> bool {
    array.as_any_dictionary_opt().is_some_and(|dictionary| dictionary.values().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_apart_into_words() {
        assert_eq!(words_of("flightId"), ["flight", "id"]);
        assert_eq!(words_of("user_id.key-2"), ["user", "id", "key", "2"]);
        assert_eq!(role_by_name("latency_ms", Kind::Number), Some(Role::Latency));
        assert_eq!(role_by_name("score", Kind::Category), None);
        assert_eq!(role_by_name("width", Kind::Number), None);
    }
}
