//! JSON (RFC 8259) as programs write it, read in less time: numbers and texts without escapes are read here, by their bytes, and all else
//! by `serde_json`. Where something is wrong or odd there is no value: then `serde_json` reads the body, and says what it is.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, IgnoredAny};

use super::ndjson::{Field, Read};
use crate::rows::Value;

/// The bytes of a body, and how far they are read.
pub(super) struct Plain<'a> {
    body: &'a str,
    at: usize,
}

/// Digits that every integer of 64 bits may have.
const MOST_DIGITS: usize = 19;

impl<'a> Plain<'a> {
    /// At the start of a body that is text.
    pub(super) fn new(body: &'a [u8]) -> Option<Self> {
        Some(Self { body: std::str::from_utf8(body).ok()?, at: 0 })
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.body.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes this byte if it comes next.
    fn takes(&mut self, byte: u8) -> bool {
        let comes = self.next() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    /// What stands between two bytes, with commas between its parts.
    fn parts(&mut self, start: u8, end: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let mut follows = self.takes(start).then(|| !self.takes(end))?;
        while follows {
            each(self)?;
            follows = self.takes(b',') || self.takes(end).then_some(false)?;
        }
        Some(())
    }

    /// An object, and nothing but spaces after it: `each` takes a name and reads what it stands for.
    pub(super) fn whole_object(mut self, mut each: impl FnMut(&'a str, &mut Self) -> Option<()>) -> Option<()> {
        self.parts(b'{', b'}', |json| {
            let name = json.text()?;
            json.takes(b':').then(|| each(name, json))?
        })?;
        self.next().is_none().then_some(())
    }

    /// An array: `each` takes a value.
    pub(super) fn array(&mut self, mut each: impl FnMut(Read<'a>) -> Option<()>) -> Option<()> {
        self.parts(b'[', b']', |json| each(json.value()?))
    }

    /// A text without escapes.
    fn text(&mut self) -> Option<&'a str> {
        if self.next()? != b'"' {
            return None;
        }
        let rest = self.body.get(self.at + 1..)?;
        let length = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
        let text = rest.get(..length).filter(|_| rest.as_bytes().get(length) == Some(&b'"'))?;
        self.at += length + 2;
        Some(text)
    }

    /// A value of any kind.
    pub(super) fn value(&mut self) -> Option<Read<'a>> {
        match self.next()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => match self.text() {
                Some(text) => Some(Read::Text(Cow::Borrowed(text))),
                None => self.other(),
            },
            _ => self.other(),
        }
    }

    fn other(&mut self) -> Option<Read<'a>> {
        let mut json = serde_json::Deserializer::from_str(self.body.get(self.at..)?);
        let value = Field.deserialize(&mut json).ok()?;
        self.at += json.into_iter::<IgnoredAny>().byte_offset();
        Some(value)
    }

    fn number(&mut self) -> Option<Read<'a>> {
        let rest = self.body.as_bytes().get(self.at..)?;
        let sign = usize::from(rest.first() == Some(&b'-'));
        let (mut whole, mut length) = (0_u64, sign);
        while let Some(digit) = digit(rest, length) {
            whole = whole.wrapping_mul(10).wrapping_add(u64::from(digit));
            length += 1;
        }
        let digits = length - sign;
        // One digit at least, and no zero before others.
        if digits == 0 || (digits > 1 && rest.get(sign) == Some(&b'0')) {
            return None;
        }
        let value = match rest.get(length) {
            Some(b'.' | b'e' | b'E') => {
                if rest.get(length) == Some(&b'.') && digit(rest, length + 1).is_none() {
                    return None;
                }
                let (number, read) = lexical_core::parse_partial::<f64>(rest).ok().filter(|(number, _)| number.is_finite())?;
                length = read;
                Value::Number(number)
            }
            // More may not fit.
            _ if digits > MOST_DIGITS => return self.other(),
            // As `serde_json` has them: -0 has its sign, and what no integer of 64 bits holds is a number with a fraction.
            _ if sign == 0 => Value::Whole(whole.into()),
            _ if (1..=1 << 63).contains(&whole) => Value::Whole(-i128::from(whole)),
            _ => Value::Number(-(whole as f64)),
        };
        self.at += length;
        Some(Read::Other(value))
    }
}

fn digit(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
}
