//! Tensors of the Open Inference Protocol as columns: their JSON, and the bytes behind it.
//!
//! What a shape announces is compared with the data that are there before anything of its size is made.

use std::fmt;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, ArrowPrimitiveType, BooleanArray, Float64Array, Int64Array, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::super::arrow::MOST_ROWS;
use crate::problem::{Outcome, Problem};
use crate::shape::MOST_COLUMNS;

/// A tensor as its JSON has it.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    name: String,
    pub(super) shape: Option<Vec<u64>>,
    datatype: Option<String>,
    parameters: Option<Parameters>,
    pub(super) data: Option<Data>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<u64>,
    #[serde(alias = "column_names", alias = "feature_names")]
    names: Option<Names>,
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    Listed(Vec<String>),
    Other(IgnoredAny),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    const ALL: [(&'static str, Self); 14] = [
        ("BOOL", Self::Bool),
        ("INT8", Self::Int8),
        ("INT16", Self::Int16),
        ("INT32", Self::Int32),
        ("INT64", Self::Int64),
        ("UINT8", Self::Uint8),
        ("UINT16", Self::Uint16),
        ("UINT32", Self::Uint32),
        ("UINT64", Self::Uint64),
        ("FP16", Self::Fp16),
        ("BF16", Self::Bf16),
        ("FP32", Self::Fp32),
        ("FP64", Self::Fp64),
        ("BYTES", Self::Bytes),
    ];

    /// Bytes of an element; `None` where they differ.
    fn width(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Int32 | Self::Uint32 | Self::Fp32 => 4,
            Self::Int64 | Self::Uint64 | Self::Fp64 => 8,
            Self::Bytes => return None,
        })
    }

    fn is_floating(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64)
    }
}

/// A column on its way.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) array: ArrayRef,
    /// Whole numbers of JSON are numbers like all others, but for ids.
    pub(super) json: bool,
}

/// A tensor as columns.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) floating: bool,
    pub(super) columns: Vec<Part>,
}

/// The tensors of a side.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tensors: Vec<Tensor>,
    pub(super) rows: usize,
    /// Rows of tensors that are no columns.
    pub(super) left_out: u64,
    pub(super) mistyped: u64,
}

impl Found {
    /// Tensors of their heads, in whose order the binary ones follow the JSON.
    pub(super) fn of(heads: Vec<Head>, rest: &mut &[u8]) -> Outcome<Self> {
        let mut out = Self::default();
        let mut first: Option<(String, usize)> = None;
        let mut width = 0;
        for head in heads {
            let sizes = Sizes::of(&head)?;
            match &first {
                Some((name, rows)) if *rows != sizes.rows => {
                    return Err(Problem::bad(format!(
                        "all tensors must have the same number of rows, {name:?} has {rows} and {:?} {}",
                        head.name, sizes.rows
                    ))
                    .hint("the first number of a shape is that of rows"));
                }
                Some(_) => {}
                None => first = Some((head.name.clone(), sizes.rows)),
            }
            out.rows = sizes.rows;
            let wide = sizes.columns > MOST_COLUMNS;
            width += if wide { 0 } else { sizes.columns };
            if width > MOST_COLUMNS {
                return Err(Problem::bad(format!("an event has at most {MOST_COLUMNS} fields")));
            }
            match out.columns(&head, sizes, rest)? {
                Some(arrays) if !wide => out.tensors.push(named(head, arrays)),
                _ => out.left_out += sizes.rows as u64,
            }
        }
        Ok(out)
    }

    /// The columns of a tensor; `None` if its data lie elsewhere, or are too wide to be columns.
    fn columns(&mut self, head: &Head, sizes: Sizes, rest: &mut &[u8]) -> Outcome<Option<Vec<ArrayRef>>> {
        let Sizes { rows, columns, datatype } = sizes;
        let elements = rows * columns;
        let bad = |what: String| Problem::bad(format!("tensor {:?} {what}", head.name));
        if let Some(data) = &head.data {
            if data.length != elements {
                return Err(bad(format!("must have {elements} elements by its shape, got {}", data.length)));
            }
            return Ok((columns <= MOST_COLUMNS).then(|| data.columns(rows, columns, datatype)));
        }
        let parameters = head.parameters.as_ref();
        if parameters.is_some_and(|parameters| parameters.shared_memory_region.is_some()) {
            return Ok(None);
        }
        let Some(datatype) = datatype else { return Err(bad("has no `datatype`".to_owned())) };
        let fixed = datatype.width().map(|width| elements.checked_mul(width).ok_or_else(|| bad("is too large".to_owned()))).transpose()?;
        let stated = parameters.and_then(|parameters| parameters.binary_data_size).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let size = match (stated, fixed) {
            (Some(stated), Some(fixed)) if stated != fixed => {
                return Err(bad(format!("must have {fixed} bytes by its shape and datatype, `binary_data_size` is {stated}")));
            }
            (Some(size), _) | (None, Some(size)) => size,
            (None, None) => return Err(bad("has neither `data` nor `binary_data_size`".to_owned())),
        };
        let (bytes, after) =
            rest.split_at_checked(size).ok_or_else(|| bad(format!("must have {size} bytes behind the JSON, {} are left", rest.len())))?;
        *rest = after;
        if columns > MOST_COLUMNS {
            return Ok(None);
        }
        if datatype == Datatype::Bytes {
            let (arrays, odd) =
                texts(bytes, rows, columns).ok_or_else(|| bad(format!("must be {elements} texts, each behind its length")))?;
            self.mistyped += odd;
            return Ok(Some(arrays));
        }
        Ok(Some(numbers(bytes, columns, datatype)))
    }
}

/// What a tensor's shape and datatype say.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    rows: usize,
    columns: usize,
    datatype: Option<Datatype>,
}

impl Sizes {
    fn of(head: &Head) -> Outcome<Self> {
        let bad = |what: String| Problem::bad(format!("tensor {:?} {what}", head.name));
        let datatype = match &head.datatype {
            Some(name) => Some(Datatype::ALL.iter().find(|(known, _)| known == name).map(|(_, datatype)| *datatype).ok_or_else(|| {
                let known: Vec<&str> = Datatype::ALL.iter().map(|(name, _)| *name).collect();
                bad(format!("must have one of the datatypes {}, got {name:?}", known.join(", ")))
            })?),
            None => None,
        };
        let Some(shape) = &head.shape else { return Err(bad("has no `shape`".to_owned())) };
        let (rows, each) = shape.split_first().map_or((1, &[][..]), |(rows, each)| (*rows, each));
        let columns =
            each.iter().try_fold(1u64, |product, size| product.checked_mul(*size)).and_then(|columns| usize::try_from(columns).ok());
        let rows = usize::try_from(rows).ok().filter(|rows| *rows <= MOST_ROWS);
        match rows.zip(columns) {
            Some((rows, columns)) if columns > 0 && rows.checked_mul(columns).is_some() => Ok(Self { rows, columns, datatype }),
            Some((_, 0)) => Err(bad("has rows without elements by its shape".to_owned())),
            _ => Err(bad(format!("has a shape of more than {MOST_ROWS} rows, or more elements than any body"))),
        }
    }
}

/// A tensor's columns under their names.
fn named(head: Head, arrays: Vec<ArrayRef>) -> Tensor {
    let listed = match head.parameters.and_then(|parameters| parameters.names) {
        Some(Names::Listed(names)) if names.len() == arrays.len() => Some(names),
        _ => None,
    };
    let json = head.data.is_some();
    let floating = Datatype::ALL.iter().any(|(name, datatype)| datatype.is_floating() && head.datatype.as_deref() == Some(name));
    let single = arrays.len() == 1;
    let name = |at: usize| match listed.as_ref().and_then(|names| names.get(at)) {
        Some(name) => name.clone(),
        None if single => head.name.clone(),
        None => format!("{}.{at}", head.name),
    };
    let columns = arrays.into_iter().enumerate().map(|(at, array)| Part { name: name(at), array, json }).collect();
    Tensor { name: head.name, floating, columns }
}

fn fixed<T: ArrowPrimitiveType, const WIDTH: usize>(bytes: &[u8], columns: usize, read: fn([u8; WIDTH]) -> T::Native) -> Vec<ArrayRef> {
    let (cells, _) = bytes.as_chunks::<WIDTH>();
    let column = |at| cells.iter().skip(at).step_by(columns).map(|cell| read(*cell));
    (0..columns).map(|at| Arc::new(PrimitiveArray::<T>::from_iter_values(column(at))) as ArrayRef).collect()
}

/// The columns of numbers that lie row by row in little-endian bytes.
fn numbers(bytes: &[u8], columns: usize, datatype: Datatype) -> Vec<ArrayRef> {
    match datatype {
        Datatype::Int8 => fixed::<Int8Type, 1>(bytes, columns, i8::from_le_bytes),
        Datatype::Int16 => fixed::<Int16Type, 2>(bytes, columns, i16::from_le_bytes),
        Datatype::Int32 => fixed::<Int32Type, 4>(bytes, columns, i32::from_le_bytes),
        Datatype::Int64 => fixed::<Int64Type, 8>(bytes, columns, i64::from_le_bytes),
        Datatype::Uint8 => fixed::<UInt8Type, 1>(bytes, columns, u8::from_le_bytes),
        Datatype::Uint16 => fixed::<UInt16Type, 2>(bytes, columns, u16::from_le_bytes),
        Datatype::Uint32 => fixed::<UInt32Type, 4>(bytes, columns, u32::from_le_bytes),
        Datatype::Uint64 => fixed::<UInt64Type, 8>(bytes, columns, u64::from_le_bytes),
        Datatype::Fp16 => fixed::<Float32Type, 2>(bytes, columns, |half| widened(u16::from_le_bytes(half))),
        Datatype::Bf16 => fixed::<Float32Type, 2>(bytes, columns, |half| f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)),
        Datatype::Fp32 => fixed::<Float32Type, 4>(bytes, columns, f32::from_le_bytes),
        Datatype::Fp64 => fixed::<Float64Type, 8>(bytes, columns, f64::from_le_bytes),
        Datatype::Bool | Datatype::Bytes => {
            let column = |at| bytes.iter().skip(at).step_by(columns).map(|flag| Some(*flag != 0)).collect::<BooleanArray>();
            (0..columns).map(|at| Arc::new(column(at)) as ArrayRef).collect()
        }
    }
}

/// A half-precision number (IEEE 754 binary16).
fn widened(half: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(half >> 15) << 31, u32::from(half >> 10 & 31), u32::from(half & 1023));
    match exponent {
        // Zero and subnormal numbers: the fraction counts steps of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7F80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The columns of texts, each behind its length, that lie row by row; and how many are no UTF-8, which are null.
fn texts(mut bytes: &[u8], rows: usize, columns: usize) -> Option<(Vec<ArrayRef>, u64)> {
    if rows.checked_mul(columns)? > bytes.len() / 4 {
        return None;
    }
    let mut builders: Vec<StringBuilder> = (0..columns).map(|_| StringBuilder::new()).collect();
    let mut odd = 0;
    for _ in 0..rows {
        for builder in &mut builders {
            let (length, after) = bytes.split_first_chunk::<4>()?;
            let (content, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            bytes = after;
            let text = std::str::from_utf8(content).ok();
            odd += u64::from(text.is_none());
            builder.append_option(text);
        }
    }
    let arrays = builders.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
    bytes.is_empty().then_some((arrays, odd))
}

/// The elements of a tensor in JSON, flat.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) elements: Elements,
    pub(super) length: usize,
    /// Places of nulls.
    nulls: Vec<usize>,
}

#[derive(Debug, Default)]
pub(super) enum Elements {
    #[default]
    Unknown,
    Whole(Vec<i64>),
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
    Texts {
        ends: Vec<usize>,
        bytes: String,
    },
}

const MIXED: &str = "the elements of a tensor must be of one kind: numbers, booleans or texts";

impl Data {
    fn null(&mut self) {
        self.nulls.push(self.length);
        match &mut self.elements {
            Elements::Unknown => {}
            Elements::Whole(values) => values.push(0),
            Elements::Numbers(values) => values.push(0.0),
            Elements::Flags(values) => values.push(false),
            Elements::Texts { ends, bytes } => ends.push(bytes.len()),
        }
        self.length += 1;
    }

    fn whole(&mut self, value: i64) -> Result<(), &'static str> {
        match &mut self.elements {
            Elements::Unknown => {
                let mut values = vec![0; self.length];
                values.push(value);
                self.elements = Elements::Whole(values);
            }
            Elements::Whole(values) => values.push(value),
            Elements::Numbers(values) => values.push(value as f64),
            _ => return Err(MIXED),
        }
        self.length += 1;
        Ok(())
    }

    fn number(&mut self, value: f64) -> Result<(), &'static str> {
        let mut before = match &mut self.elements {
            Elements::Numbers(values) => {
                values.push(value);
                self.length += 1;
                return Ok(());
            }
            Elements::Unknown => vec![0.0; self.length],
            Elements::Whole(values) => values.iter().map(|whole| *whole as f64).collect(),
            _ => return Err(MIXED),
        };
        before.push(value);
        self.elements = Elements::Numbers(before);
        self.length += 1;
        Ok(())
    }

    fn flag(&mut self, value: bool) -> Result<(), &'static str> {
        if matches!(self.elements, Elements::Unknown) {
            self.elements = Elements::Flags(vec![false; self.length]);
        }
        let Elements::Flags(values) = &mut self.elements else { return Err(MIXED) };
        values.push(value);
        self.length += 1;
        Ok(())
    }

    fn text(&mut self, value: &str) -> Result<(), &'static str> {
        if matches!(self.elements, Elements::Unknown) {
            self.elements = Elements::Texts { ends: vec![0; self.length], bytes: String::new() };
        }
        let Elements::Texts { ends, bytes } = &mut self.elements else { return Err(MIXED) };
        bytes.push_str(value);
        ends.push(bytes.len());
        self.length += 1;
        Ok(())
    }

    /// As columns of `rows`; their product is the length.
    pub(super) fn columns(&self, rows: usize, columns: usize, datatype: Option<Datatype>) -> Vec<ArrayRef> {
        let valid: Option<Vec<bool>> = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; self.length];
            self.nulls.iter().for_each(|at| valid.iter_mut().skip(*at).take(1).for_each(|valid| *valid = false));
            valid
        });
        (0..columns)
            .map(|column| {
                let nulls = valid.as_ref().map(|valid| valid.iter().skip(column).step_by(columns).copied().collect::<NullBuffer>());
                self.column(rows, column, columns, datatype, nulls)
            })
            .collect()
    }

    fn column(&self, rows: usize, column: usize, columns: usize, datatype: Option<Datatype>, nulls: Option<NullBuffer>) -> ArrayRef {
        fn of<T: Copy, U>(values: &[T], column: usize, columns: usize, read: impl Fn(T) -> U) -> Vec<U> {
            values.iter().skip(column).step_by(columns).map(|value| read(*value)).collect()
        }
        let boolean = datatype == Some(Datatype::Bool);
        match &self.elements {
            Elements::Unknown => match datatype {
                Some(Datatype::Bytes) => Arc::new(StringArray::new_null(rows)),
                Some(Datatype::Bool) => Arc::new(BooleanArray::new_null(rows)),
                _ => Arc::new(Float64Array::new_null(rows)),
            },
            Elements::Whole(values) if boolean => {
                Arc::new(BooleanArray::new(of(values, column, columns, |value| value != 0).into(), nulls))
            }
            Elements::Whole(values) if datatype.is_some_and(Datatype::is_floating) => {
                Arc::new(Float64Array::new(of(values, column, columns, |value| value as f64).into(), nulls))
            }
            Elements::Whole(values) => Arc::new(Int64Array::new(of(values, column, columns, |value| value).into(), nulls)),
            Elements::Numbers(values) => Arc::new(Float64Array::new(of(values, column, columns, |value| value).into(), nulls)),
            Elements::Flags(values) if boolean || datatype.is_none() => {
                Arc::new(BooleanArray::new(of(values, column, columns, |value| value).into(), nulls))
            }
            Elements::Flags(values) => {
                Arc::new(Float64Array::new(of(values, column, columns, |value| f64::from(u8::from(value))).into(), nulls))
            }
            Elements::Texts { ends, bytes } => {
                let text = |at: usize| {
                    let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default();
                    ends.get(at).and_then(|end| bytes.get(start..*end)).unwrap_or_default()
                };
                let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                Arc::new((0..rows).map(|row| valid(row).then(|| text(row * columns + column))).collect::<StringArray>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut out = Self::default();
        Push(&mut out).deserialize(deserializer)?;
        Ok(out)
    }
}

/// Elements, nested or flat.
pub(super) struct Push<'a>(pub(super) &'a mut Data);

impl<'de> DeserializeSeed<'de> for Push<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Push<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, booleans or texts")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.null();
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.0.flag(flag).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.0.whole(value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let pushed = match i64::try_from(value) {
            Ok(whole) => self.0.whole(whole),
            Err(_) => self.0.number(value as f64),
        };
        pushed.map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.0.number(value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.text(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Push(self.0))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_widen() {
        // IEEE 754-2019, binary16: one, the largest, the smallest normal and subnormal, zeros, infinities.
        let known = [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x03FF, 6.097_555e-5),
            (0x0001, 5.960_464_5e-8),
            (0x8001, -5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x0000, 0.0),
            (0x7C00, f32::INFINITY),
            (0xFC00, f32::NEG_INFINITY),
        ];
        for (half, wide) in known {
            assert_eq!(widened(half), wide, "{half:04x}");
        }
        assert!(widened(0x7E00).is_nan() && widened(0x8000).is_sign_negative());
    }
}
