//! Texts by number, and columns of texts.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;
use barograph_core::{Error, Result};
use hashbrown::HashTable;

/// Texts, one after the other, by number; each once, unless they are kept apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    bytes: String,
    ends: Vec<usize>,
    index: HashTable<u32>,
}

fn hash(text: &str) -> u64 {
    barograph_core::hash::murmur3_x64_128(text.as_bytes(), 0).0
}

impl Texts {
    /// Texts that are not looked up, only read back.
    pub(crate) fn apart() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
        (self.ends.len() - 1) as u32
    }

    /// The number of a text, which is added if it is new.
    pub(crate) fn code(&mut self, text: &str) -> u32 {
        let known = self.index.find(hash(text), |code| self.get(*code) == text);
        if let Some(code) = known {
            return *code;
        }
        let code = self.push(text);
        let (bytes, ends) = (&self.bytes, &self.ends);
        self.index.insert_unique(hash(text), code, |code| hash(slice(bytes, ends, *code)));
        code
    }

    /// The text of a number.
    pub(crate) fn get(&self, code: u32) -> &str {
        slice(&self.bytes, &self.ends, code)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes they take, about.
    pub(crate) fn size(&self) -> usize {
        self.bytes.capacity() + 8 * self.ends.capacity() + self.index.allocation_size()
    }
}

fn slice<'a>(bytes: &'a str, ends: &[usize], code: u32) -> &'a str {
    let at = code as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &bytes[start..ends[at]]
}

/// The texts of a column; `None` for one that holds none.
pub(crate) fn strings(array: &dyn Array) -> Option<Vec<Option<&str>>> {
    if let Some(strings) = array.as_string_opt::<i32>() {
        Some(strings.iter().collect())
    } else if let Some(strings) = array.as_string_opt::<i64>() {
        Some(strings.iter().collect())
    } else if let Some(strings) = array.as_string_view_opt() {
        Some(strings.iter().collect())
    } else if let DataType::Dictionary(..) = array.data_type() {
        let dictionary = array.as_any_dictionary_opt()?;
        let values = strings(dictionary.values().as_ref())?;
        let keys = crate::frame::keys_of(dictionary);
        Some((0..array.len()).map(|row| if array.is_valid(row) { values.get(*keys.get(row)?).copied().flatten() } else { None }).collect())
    } else {
        None
    }
}

/// Row by row as words: texts, whole numbers and booleans.
///
/// # Errors
/// `InvalidArgument` for a column of anything else.
pub(crate) fn words(array: &dyn Array) -> Result<Vec<Option<String>>> {
    if let Some(strings) = strings(array) {
        return Ok(strings.into_iter().map(|text| text.map(str::to_owned)).collect());
    }
    if let Some(flags) = array.as_boolean_opt() {
        return Ok(flags.iter().map(|flag| flag.map(|flag| flag.to_string())).collect());
    }
    if array.data_type().is_integer() {
        let text = |row: usize| crate::labels::integer(array, row).map(|whole| whole.to_string());
        return Ok((0..array.len()).map(|row| if array.is_valid(row) { text(row) } else { None }).collect());
    }
    if array.data_type() == &DataType::Null {
        return Ok(vec![None; array.len()]);
    }
    Err(Error::invalid(format!("a column of names must hold texts, whole numbers or booleans, got {}", array.data_type())))
}
