//! Columns that must not be kept as they are: dropped, hashed with a key, or put into buckets before anything reaches the disk.
//!
//! The rules are those of `barograph.Privacy` and give the same texts, so that a reference made in Python compares with what comes here.
//! Frames take [`Privacy::apply`] as they arrive, before roles are read; decoders of rows take [`Privacy::changed`] field by field. A
//! batch goes through one of the two, once: a hash of a hash compares with nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StringViewArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field};
use blake2::Blake2bMac;
use blake2::digest::consts::U8;
use blake2::digest::{FixedOutput, Update};
use serde::Deserialize;

use crate::problem::{Outcome, Problem};
use crate::rows::{Value, batch_of};
use crate::shape::Mark;

/// What names are called that are not common enough to be kept.
pub const RARE: &str = "(rare)";
/// Columns of a class's probabilities follow the rule of their role.
const CHANCES: &str = "_score.";
/// Text that views may show for each byte they hold, before they are refused.
const MOST_SHOWN: usize = 8;

/// What an owner states: `{ columns: { email = "hash", age = [18, 65], note = "drop", city = { names = ["Bonn"] } } }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    columns: BTreeMap<String, Stated>,
}

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"drop\", \"hash\", ascending edges such as [18, 65] or { names = [\"Bonn\"] }")]
enum Stated {
    Word(String),
    /// How often names have to come: known in Python only, where there is a frame to fit.
    Least(i64),
    Edges(Vec<Edge>),
    Names(Names),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    names: BTreeSet<String>,
}

/// An edge of buckets. Whole ones stay so, because `describe` shows them as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Edge {
    Whole(i64),
    Large(u64),
    Real(f64),
}

impl Edge {
    /// The same as a whole number, or else as the float it is.
    fn whole(self) -> Result<i128, f64> {
        match self {
            Self::Whole(whole) => Ok(whole.into()),
            Self::Large(whole) => Ok(whole.into()),
            Self::Real(real) => Err(real),
        }
    }

    fn real(self) -> f64 {
        self.whole().map_or_else(|real| real, |whole| whole as f64)
    }

    /// Whether the edge is less than a number that is not NaN, without rounding a whole edge.
    fn is_below(self, number: f64) -> bool {
        // The cast saturates far outside whatever an edge can be.
        self.whole().map_or_else(|real| real < number, |whole| whole < number.ceil() as i128)
    }

    fn is_less(self, other: Self) -> bool {
        match (self.whole(), other.whole()) {
            (Ok(a), Ok(b)) => a < b,
            (Err(a), Ok(b)) => (a.floor() as i128) < b,
            (_, Err(b)) => self.is_below(b),
        }
    }
}

type Mac = Blake2bMac<U8>;

/// What happens to a column.
#[derive(Clone)]
enum Rule {
    Drop,
    /// The hash, with the key in it.
    Hash(Arc<Mac>),
    Buckets(Arc<Buckets>),
    /// Names that are common enough.
    Names(Arc<BTreeSet<String>>),
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Drop, Self::Drop) => true,
            // Keys are not compared but by what they do.
            (Self::Hash(a), Self::Hash(b)) => digits(a, "") == digits(b, ""),
            (Self::Buckets(a), Self::Buckets(b)) => a == b,
            (Self::Names(a), Self::Names(b)) => a == b,
            _ => false,
        }
    }
}

/// Edges and the names of what lies between them, one more than there are edges.
#[derive(PartialEq)]
struct Buckets {
    edges: Vec<Edge>,
    names: Vec<String>,
}

/// A value as it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed<'a> {
    /// Nothing is left of it.
    Null,
    /// The name of a bucket, or a common one.
    Name(&'a str),
    /// Hexadecimal digits.
    Hash([u8; 16]),
}

impl Changed<'_> {
    /// Its text; `None` for null.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Name(name) => Some(name),
            Self::Hash(digits) => std::str::from_utf8(digits).ok(),
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// No rule is about it.
    Kept,
    /// It is as if it had not come.
    Dropped,
    /// It comes with this value instead.
    Changed(Changed<'a>),
}

/// What happens to columns before they are kept. Equal ones give equal texts.
#[derive(Clone, PartialEq)]
pub struct Privacy {
    /// The rules as they were stated, by column.
    stated: BTreeMap<String, Rule>,
    /// The rules by field: also those that stand for a role of which a rule is stated.
    fields: HashMap<String, Rule>,
}

impl fmt::Debug for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Privacy({})", self.describe())
    }
}

impl Privacy {
    /// The rules with their key: 16 to 64 bytes, needed where columns are hashed.
    ///
    /// # Errors
    /// `Problem` for a rule that cannot be, or a key that is missing or of another length.
    pub fn new(rules: Rules, key: Option<&[u8]>) -> Outcome<Self> {
        let mac =
            key.filter(|key| (16..=64).contains(&key.len())).and_then(|key| Mac::new_with_salt_and_personal(Some(key), &[], &[]).ok());
        let mac = mac.map(Arc::new);
        let mut stated = BTreeMap::new();
        for (name, rule) in rules.columns {
            let rule = match rule {
                Stated::Word(word) if word == "drop" => Rule::Drop,
                Stated::Word(word) if word == "hash" => Rule::Hash(mac.clone().ok_or_else(|| {
                    // The key itself must not stand in a message.
                    let got = key.map_or_else(|| "none".to_owned(), |key| format!("{} bytes", key.len()));
                    Problem::bad(format!("`key` must be 16 to 64 bytes where columns are hashed, got {got}"))
                        .hint("make one by `secrets.token_hex(32)`; in Python it is that text's `.encode()`")
                })?),
                Stated::Word(word) => {
                    return Err(Problem::bad(format!("the rule of {name:?} must be \"drop\", \"hash\", edges or names, got {word:?}")));
                }
                Stated::Least(least) => {
                    return Err(Problem::bad(format!("which names of {name:?} are common is not known, got the least count {least}"))
                        .hint("list them as { names = [...] }, or fit in Python: `privacy.fit(frame).describe()` gives them"));
                }
                Stated::Edges(edges) => Rule::Buckets(Arc::new(Buckets::new(&name, edges)?)),
                Stated::Names(names) => Rule::Names(Arc::new(names.names)),
            };
            fits(&name, Mark::of(&name).filter(|mark| mark.name() == name), &rule)?;
            stated.insert(name, rule);
        }
        let fields = stated.iter().map(|(name, rule)| (name.clone(), rule.clone())).collect();
        Ok(Self { stated, fields })
    }

    /// The same from a setting, see [`Rules`].
    ///
    /// # Errors
    /// As for [`new`](Self::new), and for a setting of another form.
    pub fn from_json(setting: &serde_json::Value, key: Option<&[u8]>) -> Outcome<Self> {
        let rules = serde_path_to_error::deserialize(setting)
            .map_err(|error| Problem::bad(format!("`privacy`, {}: {}", error.path(), error.inner())))?;
        Self::new(rules, key)
    }

    /// The same for a model whose roles have fields of other names (`marks`, see [`Shape`](crate::shape::Shape)): a rule of a role or of
    /// any of its fields is one of all of them.
    ///
    /// # Errors
    /// `Problem` for a rule that a role cannot have.
    pub fn with_roles(mut self, marks: &HashMap<String, Mark>) -> Outcome<Self> {
        for mark in Mark::ALL {
            let mut fields: Vec<&String> = marks.iter().filter(|(_, of)| **of == mark).map(|(field, _)| field).collect();
            fields.sort_by_key(|field| (field.as_str() != mark.name(), *field));
            let Some(rule) = fields.iter().find_map(|field| self.fields.get(*field)).cloned() else { continue };
            for field in fields {
                fits(field, Some(mark), self.fields.entry(field.clone()).or_insert_with(|| rule.clone()))?;
            }
        }
        Ok(self)
    }

    /// The rule about a field.
    fn rule(&self, field: &str) -> Option<&Rule> {
        self.fields.get(field).or_else(|| field.strip_prefix(CHANCES).and_then(|_| self.fields.get(Mark::Score.name())))
    }

    /// The batch as it may be kept: as it came, before ids become keys.
    ///
    /// # Errors
    /// `Problem` for a column that has a rule and holds neither numbers, booleans nor text.
    pub fn apply(&self, batch: &RecordBatch) -> Outcome<RecordBatch> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if self.rule(field.name()).is_none() {
                columns.push((field.as_ref().clone(), Arc::clone(array)));
            } else if let Some(array) = self.array(field.name(), array)? {
                columns.push((Field::new(field.name(), array.data_type().clone(), true), array));
            }
        }
        batch_of(columns, batch.num_rows())
    }

    /// A column as it may be kept, the same if no rule is about it; `None` if it is dropped.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn array(&self, field: &str, array: &ArrayRef) -> Outcome<Option<ArrayRef>> {
        match self.rule(field) {
            None => Ok(Some(Arc::clone(array))),
            Some(Rule::Drop) => Ok(None),
            Some(rule) => column(field, rule, array).map(Some),
        }
    }

    /// What becomes of the value of a field.
    ///
    /// # Errors
    /// Why the row cannot be taken: the field has a rule and is a list or an object.
    pub fn changed(&self, field: &str, value: &Value<'_>) -> Result<Fate<'_>, String> {
        Ok(match self.rule(field) {
            None => Fate::Kept,
            Some(Rule::Drop) => Fate::Dropped,
            Some(_) if matches!(value, Value::Many(_) | Value::Other) => {
                return Err(format!("field {field:?} can be dropped, not hashed, put into buckets or named: it is a list or an object"));
            }
            Some(rule) => Fate::Changed(rule.changed(value)),
        })
    }

    /// A text of a column as it may be kept, such as an id that is asked for: `None` if no rule is about it, `Some(None)` if nothing is left.
    pub fn text(&self, column: &str, value: &str) -> Option<Option<String>> {
        self.rule(column).map(|rule| rule.changed(&Value::Text(value)).text().map(str::to_owned))
    }

    /// The rules without the key, as JSON: to the letter what `Privacy.describe()` of Python gives.
    pub fn describe(&self) -> String {
        let rules = self.stated.iter().map(|(name, rule)| {
            let rule = match rule {
                Rule::Drop => "\"drop\"".to_owned(),
                Rule::Hash(_) => "\"hash\"".to_owned(),
                Rule::Buckets(buckets) => {
                    let edges = buckets.edges.iter().map(|edge| edge.whole().map_or_else(repr, |whole| whole.to_string()));
                    format!("[{}]", edges.collect::<Vec<_>>().join(", "))
                }
                Rule::Names(names) => {
                    format!("{{\"names\": [{}]}}", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
                }
            };
            format!("{}: {rule}", quoted(name))
        });
        format!("{{{}}}", rules.collect::<Vec<_>>().join(", "))
    }
}

/// Checks that a role can have the rule: where it holds a number, a time or a flag, a text is none.
fn fits(field: &str, mark: Option<Mark>, rule: &Rule) -> Outcome<()> {
    match mark {
        Some(Mark::Time | Mark::Score | Mark::Latency | Mark::Weight | Mark::Error) if !matches!(rule, Rule::Drop) => Err(Problem::bad(
            format!("the rule of {field:?} must be \"drop\": as text it would be no {} any more", &field.trim_start_matches('_')),
        )),
        _ => Ok(()),
    }
}

impl Rule {
    /// A value as it may be kept. Lists and objects are none.
    fn changed(&self, value: &Value<'_>) -> Changed<'_> {
        if matches!(value, Value::Null | Value::Many(_) | Value::Other) {
            return Changed::Null;
        }
        match self {
            Self::Drop => Changed::Null,
            Self::Buckets(buckets) => number_of(value).and_then(|number| buckets.name(number)).map_or(Changed::Null, Changed::Name),
            Self::Hash(mac) => Changed::Hash(match value {
                Value::Text(text) => digits(mac, text),
                _ => digits(mac, &text_of(value)),
            }),
            Self::Names(names) => Changed::Name(
                match value {
                    Value::Text(text) => names.get(*text),
                    _ => names.get(&text_of(value)),
                }
                .map_or(RARE, String::as_str),
            ),
        }
    }
}

impl Buckets {
    fn new(column: &str, edges: Vec<Edge>) -> Outcome<Self> {
        let fine = !edges.is_empty() && edges.iter().all(|edge| edge.real().is_finite());
        if !fine || !edges.is_sorted_by(|a, b| a.is_less(*b)) {
            let got: Vec<String> = edges.iter().map(|edge| repr(edge.real())).collect();
            return Err(Problem::bad(format!("the edges of {column:?} must be finite ascending numbers, got [{}]", got.join(", "))));
        }
        let texts: Vec<String> = edges.iter().map(|edge| general(edge.real())).collect();
        let low = std::iter::once("(-inf".to_owned()).chain(texts.iter().map(|text| format!("({text}")));
        let high = texts.iter().map(|text| format!("{text}]")).chain(std::iter::once("inf)".to_owned()));
        let names = low.zip(high).map(|(low, high)| format!("{low}, {high}")).collect();
        Ok(Self { edges, names })
    }

    /// The bucket of a number, edges in the one below; `None` for NaN.
    fn name(&self, number: f64) -> Option<&str> {
        if number.is_nan() {
            return None;
        }
        self.names.get(self.edges.partition_point(|edge| edge.is_below(number))).map(String::as_str)
    }
}

/// 16 hexadecimal digits of `BLAKE2b` with the key.
fn digits(mac: &Mac, text: &str) -> [u8; 16] {
    let mut mac = mac.clone();
    mac.update(text.as_bytes());
    let mut out = [0; 16];
    for (pair, byte) in out.chunks_exact_mut(2).zip(mac.finalize_fixed()) {
        for (digit, four) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if four < 10 { b'0' + four } else { b'a' + four - 10 };
        }
    }
    out
}

/// A column as it may be kept; a dictionary stays one.
fn column(name: &str, rule: &Rule, array: &ArrayRef) -> Outcome<ArrayRef> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        // Keys stay, whatever they point to: only what they stand for changes.
        return Ok(dictionary.with_values(Arc::new(plain_column(name, rule, dictionary.values())?)));
    }
    Ok(Arc::new(plain_column(name, rule, array)?))
}

fn plain_column(name: &str, rule: &Rule, array: &ArrayRef) -> Outcome<StringArray> {
    let refused = || {
        Problem::bad(format!("column {name:?} of type {} can be dropped, not hashed, put into buckets or named", array.data_type()))
            .hint("send numbers, booleans or text")
    };
    // Widened columns are as long as the narrow ones and at most eight times as large.
    let widened = |to: DataType| cast(array, &to).map_err(|_| refused());
    match array.data_type() {
        DataType::Null => Ok(StringArray::new_null(array.len())),
        DataType::Boolean => gathered(name, rule, array.as_boolean().iter().map(|flag| flag.map(|flag| (flag, Value::Flag(flag))))),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let wide = widened(DataType::Int64)?;
            let values = wide.as_primitive::<Int64Type>().iter();
            gathered(name, rule, values.map(|whole| whole.map(|whole| (whole, Value::Whole(whole.into())))))
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            let wide = widened(DataType::UInt64)?;
            let values = wide.as_primitive::<UInt64Type>().iter();
            gathered(name, rule, values.map(|whole| whole.map(|whole| (whole, Value::Whole(whole.into())))))
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let wide = widened(DataType::Float64)?;
            let values = wide.as_primitive::<Float64Type>().iter();
            gathered(name, rule, values.map(|real| real.map(|real| (real.to_bits(), Value::Number(real)))))
        }
        DataType::Utf8 => gathered(name, rule, array.as_string::<i32>().iter().map(|text| text.map(|text| (text, Value::Text(text))))),
        DataType::LargeUtf8 => gathered(name, rule, array.as_string::<i64>().iter().map(|text| text.map(|text| (text, Value::Text(text))))),
        DataType::Utf8View => {
            let texts = array.as_string_view();
            shown(name, texts)?;
            // The same view is the same text, and is found without reading it.
            let rows = texts.views().iter().zip(texts.iter());
            gathered(name, rule, rows.map(|(view, text)| text.map(|text| (*view, Value::Text(text)))))
        }
        _ => Err(refused()),
    }
}

/// Checks that views do not show the same bytes over and over: a small body would be a lot of work.
fn shown(name: &str, texts: &StringViewArray) -> Outcome<()> {
    let most = texts.get_buffer_memory_size().saturating_mul(MOST_SHOWN);
    let length = |view: &u128| *view as u32 as usize;
    if texts.views().iter().map(length).fold(0, usize::saturating_add) <= most {
        return Ok(());
    }
    let different: HashSet<&u128> = texts.views().iter().collect();
    if different.into_iter().map(length).fold(0, usize::saturating_add) <= most {
        return Ok(());
    }
    Err(Problem::bad(format!("the texts of column {name:?} overlap too much")).hint("send Utf8 instead of Utf8View"))
}

/// The column of these values as they may be kept, each different one computed once.
fn gathered<'v, K: Eq + Hash>(name: &str, rule: &Rule, rows: impl Iterator<Item = Option<(K, Value<'v>)>>) -> Outcome<StringArray> {
    let mut known: HashMap<K, Changed<'_>> = HashMap::new();
    let mut texts = StringBuilder::with_capacity(rows.size_hint().0, 0);
    let mut bytes = 0;
    for row in rows {
        let changed = match row {
            None => Changed::Null,
            // To find a number's bucket is less work than to look it up.
            Some((_, value)) if matches!((rule, &value), (Rule::Buckets(_), Value::Number(_) | Value::Whole(_))) => rule.changed(&value),
            Some((key, value)) => *known.entry(key).or_insert_with(|| rule.changed(&value)),
        };
        let text = changed.text();
        bytes += text.map_or(0, str::len);
        if bytes > i32::MAX as usize {
            return Err(Problem::too_large(format!("column {name:?} would hold more than 2 GB of text")).hint("send several bodies"));
        }
        texts.append_option(text);
    }
    Ok(texts.finish())
}

/// A value that is not null as text. A whole number is the same text in whatever type it comes.
fn text_of(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => (*text).to_owned(),
        Value::Whole(whole) => whole.to_string(),
        Value::Flag(flag) => flag.to_string(),
        // Not "-0".
        Value::Number(number) if *number == 0.0 => "0".to_owned(),
        // All digits, also of 1e300.
        Value::Number(number) if number.fract() == 0.0 => format!("{number:.0}"),
        Value::Number(number) => repr(*number),
        Value::Null | Value::Many(_) | Value::Other => String::new(),
    }
}

/// A value as a number, text included if it is one; as Python's `float`.
fn number_of(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Whole(whole) => Some(*whole as f64),
        Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
        Value::Text(text) => parsed(text),
        Value::Null | Value::Many(_) | Value::Other => None,
    }
}

/// The digits 0 of all scripts (Unicode 14, category Nd); 1 to 9 follow each.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090,
    0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
    0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950,
    0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// A text as Python's `float` reads it: spaces around it, digits of any script, underscores between digits.
fn parsed(text: &str) -> Option<f64> {
    // Four control characters that Python takes for spaces elsewhere are none here, nor in Rust.
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let mut plain = String::new();
    let mut letters = text.chars().map(ascii).peekable();
    while let Some(letter) = letters.next() {
        let letter = letter?;
        let inside = plain.ends_with(|last: char| last.is_ascii_digit()) && matches!(letters.peek(), Some(Some('0'..='9')));
        match letter {
            '_' if inside => {}
            '_' => return None,
            _ => plain.push(letter),
        }
    }
    plain.parse().ok()
}

/// The ASCII letter that stands for a letter in numbers.
fn ascii(letter: char) -> Option<char> {
    if letter.is_ascii() {
        return Some(letter);
    }
    let code = u32::from(letter);
    let zero = ZEROS.get(ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?)?;
    char::from_digit(code - zero, 10)
}

/// A number as Python's `repr` writes it: the fewest digits that give it back.
fn repr(number: f64) -> String {
    if number.is_finite() {
        let shortest = format!("{number:e}");
        // Of two shortest texts that are equally near, Python takes the even one, Rust the larger; so does C when it is told how many digits.
        let digits = shortest.bytes().take_while(|letter| *letter != b'e').filter(u8::is_ascii_digit).count();
        let places = digits.saturating_sub(1);
        let even = format!("{number:.places$e}");
        return laid_out(if even.parse() == Ok(number) { &even } else { &shortest }, 16, ".0");
    }
    if number.is_nan() { "nan".to_owned() } else { format!("{number}") }
}

/// A finite number as Python's `format(number, "g")` writes it: six significant digits without zeros at their end.
fn general(number: f64) -> String {
    laid_out(&format!("{number:.5e}"), 6, "")
}

/// Lays out digits and exponent as C does: with an exponent below 1e-4 and from 10 to the `most` on. `end` closes whole numbers.
fn laid_out(scientific: &str, most: i32, end: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let rest = rest.trim_end_matches('0');
    if exponent < -4 || exponent >= most {
        let point = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.unsigned_abs());
    }
    let places = exponent.unsigned_abs() as usize;
    match exponent.cmp(&0) {
        Ordering::Less => format!("{sign}0.{}{first}{rest}", "0".repeat(places - 1)),
        _ => match rest.split_at_checked(places) {
            Some((whole, part)) if !part.is_empty() => format!("{sign}{first}{whole}.{part}"),
            _ => format!("{sign}{first}{rest:0<places$}{end}"),
        },
    }
}

/// A text as Python's `json.dumps` writes it: ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(letter),
            _ => out.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::Int8Type;
    use arrow_array::{
        BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int64Array, LargeStringArray,
        NullArray, UInt64Array,
    };
    use serde_json::json;

    const KEY: &[u8] = b"sixteen bytes or more";

    fn privacy(columns: &serde_json::Value) -> Privacy {
        Privacy::from_json(&json!({ "columns": columns }), Some(KEY)).unwrap()
    }

    fn all() -> Privacy {
        privacy(&json!({"h": "hash", "b": [18, 65.5], "n": {"names": ["Bonn", "36", "true", "0.1", "nan", "1e-05"]}}))
    }

    fn refused(columns: &serde_json::Value, key: Option<&[u8]>) -> Problem {
        Privacy::from_json(&json!({ "columns": columns }), key).unwrap_err()
    }

    fn changed(privacy: &Privacy, field: &str, value: &Value<'_>) -> Option<String> {
        match privacy.changed(field, value).unwrap() {
            Fate::Changed(changed) => changed.text().map(str::to_owned),
            other => panic!("{other:?}"),
        }
    }

    fn applied(privacy: &Privacy, field: &str, array: ArrayRef) -> Vec<Option<String>> {
        let batch = RecordBatch::try_from_iter_with_nullable([(field, array, true)]).unwrap();
        let batch = privacy.apply(&batch).unwrap();
        assert_eq!(batch.schema_ref().field(0).data_type(), batch.column(0).data_type());
        let plain = cast(batch.column(0), &DataType::Utf8).unwrap();
        plain.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    // Python 3.11:
    // p = Privacy({"h": "hash", "b": [18, 65.5], "n": frozenset({"Bonn", "36", "true", "0.1", "nan", "1e-05"})}, b"sixteen bytes or more")
    // for v in [...]: print(p.row({"h": v, "b": v, "n": v}))
    fn golden() -> Vec<(Value<'static>, &'static str, Option<&'static str>, &'static str)> {
        let (low, middle, high) = (Some("(-inf, 18]"), Some("(18, 65.5]"), Some("(65.5, inf)"));
        vec![
            (Value::Text(""), "321341bc4b1f4b40", None, RARE),
            (Value::Text("Bonn"), "317c560624f65bde", None, "Bonn"),
            (Value::Text("Köln 😀"), "6bbcc754c07ed5e4", None, RARE),
            (Value::Text(LONG), "ac3a89ee45d1722a", None, RARE),
            (Value::Whole(36), "d45ee7f5a2f3051a", middle, "36"),
            (Value::Whole(-7), "1ca7025888c06705", low, RARE),
            (Value::Whole(9_007_199_254_740_993), "857dde19960ffa63", high, RARE),
            (Value::Whole(u64::MAX.into()), "a4dd9f45df4115d9", high, RARE),
            (Value::Whole(i64::MIN.into()), "f50bc987130943a2", low, RARE),
            (Value::Flag(true), "4092053a5dfbe698", low, "true"),
            (Value::Flag(false), "12e98685053a57a8", low, RARE),
            (Value::Number(36.0), "d45ee7f5a2f3051a", middle, "36"),
            (Value::Number(-0.0), "8e6162b6275f36c0", low, RARE),
            (Value::Number(0.1), "f6e29c2046b33d5e", low, "0.1"),
            (Value::Number(1e-5), "5ee8e1a7be497d54", low, "1e-05"),
            (Value::Number(1.5e-7), "a7be4180d7f95176", low, RARE),
            (Value::Number(1e16), "a9fb89bc70c2bf5d", high, RARE),
            (Value::Number(1e22), "3306e6889bf2b548", high, RARE),
            (Value::Number(1e300), "953955ba04f0466a", high, RARE),
            (Value::Number(2.5e15), "962af57a9ad5032a", high, RARE),
            (Value::Number(f64::NAN), "2ef4a7759f59f452", None, "nan"),
            (Value::Number(f64::INFINITY), "803dbed8f8edcf98", high, RARE),
            (Value::Number(f64::NEG_INFINITY), "25f52f7ba0ede153", low, RARE),
            (Value::Number(5e-324), "2601cdc4c199142c", low, RARE),
            (Value::Number(0.1f32.into()), "c14c16c00971acaa", low, RARE),
        ]
    }

    const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

    #[test]
    fn values_become_what_python_makes_of_them() {
        let privacy = all();
        for (value, hash, bucket, name) in golden() {
            assert_eq!(changed(&privacy, "h", &value).as_deref(), Some(hash), "{value:?}");
            assert_eq!(changed(&privacy, "b", &value).as_deref(), bucket, "{value:?}");
            assert_eq!(changed(&privacy, "n", &value).as_deref(), Some(name), "{value:?}");
        }
        for field in ["h", "b", "n"] {
            assert_eq!(changed(&privacy, field, &Value::Null), None);
        }
        assert_eq!(privacy.changed("other", &Value::Flag(true)), Ok(Fate::Kept));
    }

    fn of<'v, T: Copy + 'v>(values: &[Option<T>], make: impl Fn(T) -> Value<'v>) -> Vec<Value<'v>> {
        values.iter().map(|value| value.map_or(Value::Null, &make)).collect()
    }

    #[test]
    fn columns_become_what_their_values_become() {
        let privacy = all();
        let (texts, wholes, flags, numbers) =
            golden().into_iter().fold((vec![None], vec![None], vec![None], vec![None]), |mut all, (value, ..)| {
                match value {
                    Value::Text(text) => all.0.push(Some(text)),
                    Value::Whole(whole) => all.1.push(i64::try_from(whole).ok()),
                    Value::Flag(flag) => all.2.push(Some(flag)),
                    Value::Number(number) => all.3.push(Some(number)),
                    _ => {}
                }
                all
            });
        let texts: Vec<Option<&str>> = texts.iter().chain(&texts).copied().collect();
        let large: Vec<Option<u64>> = vec![Some(u64::MAX), None, Some(36)];
        let narrow = vec![Some(36i8), None, Some(-7)];
        let singles = vec![Some(0.1f32), None, Some(f32::NAN), Some(-0.0)];
        let dictionary: DictionaryArray<Int8Type> = texts.iter().copied().collect();
        let columns: Vec<(ArrayRef, Vec<Value<'_>>)> = vec![
            (Arc::new(StringArray::from(texts.clone())), of(&texts, Value::Text)),
            (Arc::new(LargeStringArray::from(texts.clone())), of(&texts, Value::Text)),
            (Arc::new(StringViewArray::from(texts.clone())), of(&texts, Value::Text)),
            (Arc::new(dictionary), of(&texts, Value::Text)),
            (Arc::new(Int64Array::from(wholes.clone())), of(&wholes, |whole| Value::Whole(whole.into()))),
            (Arc::new(Int8Array::from(narrow.clone())), of(&narrow, |whole| Value::Whole(whole.into()))),
            (Arc::new(UInt64Array::from(large.clone())), of(&large, |whole| Value::Whole(whole.into()))),
            (Arc::new(BooleanArray::from(flags.clone())), of(&flags, Value::Flag)),
            (Arc::new(Float64Array::from(numbers.clone())), of(&numbers, Value::Number)),
            (Arc::new(Float32Array::from(singles.clone())), of(&singles, |single| Value::Number(single.into()))),
            (Arc::new(NullArray::new(3)), vec![Value::Null, Value::Null, Value::Null]),
        ];
        for (array, values) in columns {
            for field in ["h", "b", "n"] {
                let wanted: Vec<Option<String>> = values.iter().map(|value| changed(&privacy, field, value)).collect();
                assert_eq!(applied(&privacy, field, Arc::clone(&array)), wanted, "{field} {}", array.data_type());
                assert_eq!(applied(&privacy, field, array.slice(1, 2)), wanted[1..3], "{field} {}", array.data_type());
            }
        }
    }

    // Python 3.11: p = Privacy({"b": edges}); [p.row({"b": x})["b"] for x in (-inf, *edges, inf)], p.describe()
    #[test]
    fn edges_are_named_and_described_as_in_python() {
        let golden = [
            (
                r#"{"b": [-0.0, 1e-05, 0.0001, 100000, 1000000.0, 1234567.5]}"#,
                "(-inf, -0]|(-inf, -0]|(-0, 1e-05]|(1e-05, 0.0001]|(0.0001, 100000]|(100000, 1e+06]|(1e+06, 1.23457e+06]|(1.23457e+06, inf)",
            ),
            (r#"{"b": [100000.5, 100001.5]}"#, "(-inf, 100000]|(-inf, 100000]|(100000, 100002]|(100002, inf)"),
            (
                r#"{"b": [9007199254740992, 9007199254740993]}"#,
                "(-inf, 9.0072e+15]|(-inf, 9.0072e+15]|(-inf, 9.0072e+15]|(9.0072e+15, inf)",
            ),
            (r#"{"b": [-2.5]}"#, "(-inf, -2.5]|(-inf, -2.5]|(-2.5, inf)"),
            (
                r#"{"b": [1e-07, 123456789012, 1e+22]}"#,
                "(-inf, 1e-07]|(-inf, 1e-07]|(1e-07, 1.23457e+11]|(1.23457e+11, 1e+22]|(1e+22, inf)",
            ),
        ];
        for (text, names) in golden {
            let columns: serde_json::Value = serde_json::from_str(text).unwrap();
            let privacy = privacy(&columns);
            assert_eq!(privacy.describe(), text);
            let edges = columns["b"].as_array().unwrap().iter().map(|edge| edge.as_f64().unwrap());
            let found: Vec<String> = std::iter::once(f64::NEG_INFINITY)
                .chain(edges)
                .chain([f64::INFINITY])
                .map(|number| changed(&privacy, "b", &Value::Number(number)).unwrap())
                .collect();
            assert_eq!(found.join("|"), names);
        }
        // A whole edge is not rounded: Privacy({"b": [2**53 + 1]}).row({"b": 2**53 + 2})
        let odd = privacy(&json!({"b": [9_007_199_254_740_993_i64]}));
        assert_eq!(changed(&odd, "b", &Value::Whole(9_007_199_254_740_994)).unwrap(), "(9.0072e+15, inf)");
    }

    // Python 3.11: float(text), "None" for a ValueError.
    #[test]
    fn texts_are_numbers_where_they_are_in_python() {
        let numbers = [
            ("\u{85}5", 5.0),
            ("\u{a0}5\u{3000}", 5.0),
            ("1_000", 1000.0),
            ("1e1_0", 1e10),
            ("٣٤", 34.0),
            ("٣.٥e١", 35.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("+5", 5.0),
            (" 5 ", 5.0),
            ("1.e3", 1000.0),
            (".5", 0.5),
            ("１", 1.0),
            ("1e400", f64::INFINITY),
            ("\u{2003}-7\n", -7.0),
        ];
        for (text, number) in numbers {
            assert_eq!(parsed(text), Some(number), "{text:?}");
        }
        assert!(parsed("+nan").unwrap().is_nan());
        let none = [
            "\u{1c}5", "5\u{1c}", "1__0", "_1", "1_", "1_.5", "1._5", "--5", "", "  ", "0x10", ".", "5\0", "infinit", "1\u{a0}2", "٣\u{1c}",
        ];
        for text in none {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    // Python 3.11: repr(number), format(number, "g")
    #[test]
    fn numbers_are_written_as_in_python() {
        let golden = [
            (0.0, "0.0", "0"),
            (-0.0, "-0.0", "-0"),
            (1e16, "1e+16", "1e+16"),
            (9_999_999_999_999_998.0, "9999999999999998.0", "1e+16"),
            (1e-5, "1e-05", "1e-05"),
            (0.0001, "0.0001", "0.0001"),
            (123_456.5, "123456.5", "123456"),
            (999_999.5, "999999.5", "1e+06"),
            (0.000_012_345_65, "1.234565e-05", "1.23456e-05"),
            (-1.5e-300, "-1.5e-300", "-1.5e-300"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308", "1.79769e+308"),
            (5e-324, "5e-324", "4.94066e-324"),
            (100_000.0, "100000.0", "100000"),
            // Halfway between two shortest texts, of which Rust writes the larger.
            (1_608_882_928_643_910.3, "1608882928643910.2", "1.60888e+15"),
        ];
        for (number, short, six) in golden {
            assert_eq!((repr(number).as_str(), general(number).as_str()), (short, six));
        }
        assert_eq!([repr(f64::NAN), repr(f64::INFINITY), repr(f64::NEG_INFINITY)], ["nan", "inf", "-inf"]);
    }

    // Python 3.11: Privacy({"é\"\\": "hash", "age": [18, 65], "note": "drop", "r": [0.1, 1e16],
    // "city": frozenset(["Ulm", "Bonn", "Kö\U0001F600ln\n\x7f\t\x01"]), "none": frozenset()}, key).describe()
    #[test]
    fn rules_are_described_as_in_python() {
        let privacy = privacy(&json!({
            "é\"\\": "hash", "age": [18, 65], "note": "drop", "r": [0.1, 1e16],
            "city": {"names": ["Ulm", "Bonn", "Kö\u{1F600}ln\n\u{7f}\t\u{1}"]}, "none": {"names": []},
        }));
        let wanted = r#"{"age": [18, 65], "city": {"names": ["Bonn", "K\u00f6\ud83d\ude00ln\n\u007f\t\u0001", "Ulm"]}, "none": {"names": []}, "note": "drop", "r": [0.1, 1e+16], "\u00e9\"\\": "hash"}"#;
        assert_eq!(privacy.describe(), wanted);
        assert_eq!(format!("{privacy:?}"), format!("Privacy({wanted})"));
    }

    #[test]
    fn dropped_columns_are_not_there_and_others_stay() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let names = ["note", "x", "_score.0", "_score"];
        let batch = RecordBatch::try_from_iter(names.map(|name| (name, Arc::clone(&column)))).unwrap();
        let dropping = privacy(&json!({"note": "drop", "_score": "drop", "absent": "hash"}));
        let kept = dropping.apply(&batch).unwrap();
        assert_eq!(kept, batch.project(&[1]).unwrap());
        assert_eq!(dropping.changed("note", &Value::Other), Ok(Fate::Dropped));
        let nothing = privacy(&json!({"note": "drop", "x": "drop", "_score": "drop"})).apply(&batch).unwrap();
        assert_eq!((nothing.num_rows(), nothing.num_columns()), (2, 0));
    }

    #[test]
    fn keys_of_a_dictionary_stay_even_those_that_point_nowhere() {
        let keys = Int8Array::new(vec![0, 77, 1, -5].into(), Some(vec![true, false, true, false].into()));
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("Bonn"), None]));
        let array: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        let batch = RecordBatch::try_from_iter_with_nullable([("n", array, true)]).unwrap();
        let batch = all().apply(&batch).unwrap();
        let dictionary = batch.column(0).as_dictionary::<Int8Type>();
        assert_eq!(dictionary.keys().values().as_ref(), &[0, 77, 1, -5]);
        assert_eq!(dictionary.downcast_dict::<StringArray>().unwrap().into_iter().collect::<Vec<_>>(), [Some("Bonn"), None, None, None]);
        let numbers: ArrayRef = Arc::new(DictionaryArray::new(Int8Array::from(vec![0, 0]), Arc::new(Float64Array::from(vec![f64::NAN]))));
        assert_eq!(applied(&all(), "b", numbers), [None, None]);
        let empty: ArrayRef = Arc::new(arrow_array::builder::StringDictionaryBuilder::<Int8Type>::new().finish());
        assert!(applied(&all(), "h", empty).is_empty());
    }

    #[test]
    fn what_is_neither_number_nor_text_is_refused() {
        let key: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([[7u8; 16]].into_iter()).unwrap());
        let inner: ArrayRef = Arc::new(DictionaryArray::new(Int8Array::from(vec![0]), Arc::clone(&key)));
        for array in [key, inner] {
            let batch = RecordBatch::try_from_iter([("_id", array)]).unwrap();
            let problem = privacy(&json!({"_id": "hash"})).apply(&batch).unwrap_err();
            assert!(problem.detail.starts_with("column \"_id\" of type FixedSizeBinary(16) can be dropped"), "{problem:?}");
            assert_eq!(privacy(&json!({"_id": "drop"})).apply(&batch).unwrap().num_columns(), 0);
        }
        assert!(all().changed("h", &Value::Many(vec![1.0])).unwrap_err().contains("field \"h\""));
        assert!(all().changed("b", &Value::Other).is_err());
    }

    #[test]
    fn views_that_overlap_without_end_are_refused() {
        let shared = arrow_buffer::Buffer::from(vec![b'x'; 1 << 16]);
        let view = |offset: u32| arrow_array::builder::make_view(&shared[offset as usize..], 0, offset);
        let array =
            |views: Vec<u128>| -> ArrayRef { Arc::new(StringViewArray::try_new(views.into(), vec![shared.clone()], None).unwrap()) };
        // The same text a thousand times is fine.
        assert_eq!(applied(&all(), "n", array(vec![view(0); 1000])), vec![Some(RARE.to_owned()); 1000]);
        let batch = RecordBatch::try_from_iter([("n", array((0..1000).map(view).collect()))]).unwrap();
        assert_eq!(all().apply(&batch).unwrap_err().detail, "the texts of column \"n\" overlap too much");
    }

    #[test]
    fn rules_that_cannot_be_are_refused_in_words() {
        let long = [1; 65];
        for (columns, key, wanted) in [
            (json!({"h": "hash"}), None, "`key` must be 16 to 64 bytes where columns are hashed, got none"),
            (json!({"h": "hash"}), Some(&KEY[..15]), "`key` must be 16 to 64 bytes where columns are hashed, got 15 bytes"),
            (json!({"h": "hash"}), Some(&long[..]), "`key` must be 16 to 64 bytes where columns are hashed, got 65 bytes"),
            (json!({"x": "hide"}), None, "the rule of \"x\" must be \"drop\", \"hash\", edges or names, got \"hide\""),
            (json!({"x": []}), None, "the edges of \"x\" must be finite ascending numbers, got []"),
            (json!({"x": [2, 1.5]}), None, "the edges of \"x\" must be finite ascending numbers, got [2.0, 1.5]"),
            (json!({"x": [1, 1.0]}), None, "the edges of \"x\" must be finite ascending numbers, got [1.0, 1.0]"),
            (json!({"x": 5}), None, "which names of \"x\" are common is not known, got the least count 5"),
            (json!({"_time": [1]}), None, "the rule of \"_time\" must be \"drop\": as text it would be no time any more"),
        ] {
            assert_eq!(refused(&columns, key).detail, wanted);
        }
        assert!(refused(&json!({"x": 5}), None).hint.unwrap().contains("describe()"));
        for odd in [json!({"x": true}), json!({"x": 1.5}), json!({"x": null}), json!({"x": ["a"]}), json!({"x": {"names": [], "least": 1}})]
        {
            let detail = refused(&odd, None).detail;
            assert!(detail.starts_with("`privacy`, columns.x: expected \"drop\""), "{detail}");
        }
        assert!(Privacy::from_json(&json!({"columns": {}, "key": "x"}), None).unwrap_err().detail.contains("unknown field"));
    }

    #[test]
    fn a_rule_of_a_role_is_one_of_its_fields() {
        let marks = HashMap::from([("_id".to_owned(), Mark::Id), ("transaction".to_owned(), Mark::Id), ("at".to_owned(), Mark::Time)]);
        for field in ["_id", "transaction"] {
            let privacy = privacy(&json!({field: "hash"})).with_roles(&marks).unwrap();
            assert_eq!(privacy.text("_id", "36"), Some(Some("d45ee7f5a2f3051a".to_owned())));
            assert_eq!(privacy.text("transaction", "36"), privacy.text("_id", "36"));
            assert_eq!(privacy.text("other", "36"), None);
            assert_eq!(privacy.describe(), format!("{{\"{field}\": \"hash\"}}"));
        }
        assert_eq!(privacy(&json!({"_id": "drop"})).text("_id", "36"), Some(None));
        assert!(privacy(&json!({"at": "hash"})).with_roles(&marks).unwrap_err().detail.contains("\"at\" must be \"drop\""));
    }

    #[test]
    fn privacies_are_equal_when_they_give_equal_texts() {
        let other = Privacy::from_json(&json!({"columns": {"h": "hash"}}), Some(b"another key of bytes")).unwrap();
        let one = privacy(&json!({"h": "hash"}));
        assert!(one == privacy(&json!({"h": "hash"})) && one != other && all() == all() && all() != one);
    }
}
