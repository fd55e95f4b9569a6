//! What decoders know about a model: which fields are roles, and what kind its columns are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use barograph_engine::Reference;
use barograph_engine::labels::{key_of_integer, key_of_name};
use barograph_engine::schema::{Kind, Role};
use serde_json::Value;

use crate::examples::Wanted;
use crate::privacy::Privacy;
use crate::problem::{Outcome, Problem};

/// What belongs to an event beside its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Mark {
    Id,
    Time,
    Prediction,
    Score,
    Latency,
    Label,
    Version,
    Error,
    Weight,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Id, Self::Time, Self::Prediction, Self::Score, Self::Latency, Self::Label, Self::Version, Self::Error, Self::Weight];

    /// The name of its field and column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "_id",
            Self::Time => "_time",
            Self::Prediction => "_prediction",
            Self::Score => "_score",
            Self::Latency => "_latency_seconds",
            Self::Label => "_label",
            Self::Version => "_version",
            Self::Error => "_error",
            Self::Weight => "_weight",
        }
    }

    /// The role of this name, with or without the underscore.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.name() == name || &mark.name()[1..] == name)
    }
}

/// Columns that a model may have.
pub const MOST_COLUMNS: usize = 2000;

/// What decoders know about a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Fields that are roles: the names with an underscore, and those the model's owner gave.
    pub marks: HashMap<String, Mark>,
    /// Kinds of features by name. Fields that are not in here are dropped and counted, unless the shape is `open`.
    pub kinds: HashMap<String, Kind>,
    /// Columns of the reference that come under the name of their role: what the model said.
    pub said: HashMap<String, Mark>,
    /// Whether features that are not known become columns: the model is learning what it has.
    pub open: bool,
    /// What happens to fields before anything else does.
    pub privacy: Option<Arc<Privacy>>,
    /// Names that labels have to be among, and predictions are; empty for models without classes.
    pub classes: Vec<String>,
    /// Whether ids that are text are handed on beside their keys, for examples of events.
    pub examples: Option<Wanted>,
}

impl Shape {
    /// The key under which an event of this id is kept: a whole number or text, after the privacy rules.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn key_of(&self, id: &Value) -> Outcome<u128> {
        let kept = |text: &str| self.privacy.as_ref().and_then(|privacy| privacy.text(Mark::Id.name(), text)).flatten();
        let wrong = || Problem::bad("`id` must be a whole number or text");
        match id {
            Value::String(text) => Ok(key_of_name(kept(text).as_deref().unwrap_or(text))),
            Value::Number(number) => {
                if let Some(text) = kept(&number.to_string()) {
                    return Ok(key_of_name(&text));
                }
                let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
                Ok(key_of_integer(whole.ok_or_else(wrong)?))
            }
            _ => Err(wrong()),
        }
    }

    /// The shape of a model: `roles` maps roles ("id", "time") to the fields that stand for them.
    pub fn new(roles: &BTreeMap<String, String>, classes: &[String], reference: Option<&Reference>) -> Self {
        let own = Mark::ALL.into_iter().map(|mark| (mark.name().to_owned(), mark));
        let given = roles.iter().filter_map(|(role, field)| Some((field.clone(), Mark::of(role)?)));
        let columns = reference.map(|reference| reference.schema().columns).unwrap_or_default();
        let kinds = columns.iter().map(|column| (column.name.clone(), column.kind));
        // What a model said is a column of its reference too, under a name of its own.
        let marks: HashMap<String, Mark> = own.chain(given).collect();
        let (mut kinds, mut said): (HashMap<String, Kind>, HashMap<String, Mark>) = (kinds.collect(), HashMap::new());
        for (role, mark) in [(Role::Prediction, Mark::Prediction), (Role::Score, Mark::Score)] {
            if let Some(column) = columns.iter().find(|column| column.role == role) {
                kinds.insert(mark.name().to_owned(), column.kind);
                said.insert(column.name.clone(), mark);
            }
        }
        Self { marks, kinds, said, open: reference.is_none(), privacy: None, classes: classes.to_vec(), examples: None }
    }
}
