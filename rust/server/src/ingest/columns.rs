//! Events as one JSON object of arrays, a column each: `{"x": [1, 2], "_id": ["a", "b"]}`.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::ndjson::Field;
use super::plain::Plain;
use crate::problem::{Outcome, Problem};
use crate::rows::{Columns, Decoded};
use crate::shape::Shape;

/// Decodes a body whole, or not at all.
///
/// # Errors
/// `Problem` for a body that is no object of arrays of one length.
pub fn decode(body: &[u8], shape: Arc<Shape>) -> Outcome<Decoded> {
    match plain(body, Columns::new(Arc::clone(&shape))) {
        Some(columns) => columns.finish(),
        None => odd(body, Columns::new(shape)),
    }
}

/// Those of a body without oddities.
fn plain(body: &[u8], mut columns: Columns) -> Option<Columns> {
    Plain::new(body)?.whole_object(|name, json| {
        columns.begin(name).ok()?;
        json.array(|value| value.with(|value| columns.push(value)).ok())?;
        columns.end().ok()
    })?;
    Some(columns)
}

/// Those of any body; or what is wrong with it.
fn odd(body: &[u8], mut columns: Columns) -> Outcome<Decoded> {
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(All(&mut columns)).and_then(|()| json.end()).map_err(|error| {
        Problem::bad(format!("the body is no JSON object of arrays: {error}")).hint("rows are sent as an array of objects, or as lines")
    })?;
    columns.finish()
}

struct All<'a>(&'a mut Columns);

impl<'de> Visitor<'de> for All<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of arrays, one per column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.begin(&name).map_err(A::Error::custom)?;
            map.next_value_seed(Column(self.0))?;
            self.0.end().map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

struct Column<'a>(&'a mut Columns);

impl<'de> DeserializeSeed<'de> for Column<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Column<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element_seed(Field)? {
            value.with(|value| self.0.push(value)).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Float64Type;

    use super::*;
    use crate::ingest::ndjson;

    fn open() -> Arc<Shape> {
        Arc::new(Shape { open: true, ..Shape::new(&std::collections::BTreeMap::new(), &[], None) })
    }

    #[test]
    fn columns_are_the_same_as_rows() {
        let columns = br#"{"x":[1,2.5,null],"c":["a",null,"b"],"_id":[1,"two",null],"_error":[false,1,"why"],"_version":["v1",2,null]}"#;
        let rows = br#"{"x":1,"c":"a","_id":1,"_error":false,"_version":"v1"}
{"x":2.5,"c":null,"_id":"two","_error":1,"_version":2}
{"x":null,"c":"b","_id":null,"_error":"why","_version":null}"#;
        assert_eq!(decode(columns, open()).unwrap().batch, ndjson::lines(rows, open()).unwrap().batch);
    }

    #[test]
    fn a_body_is_the_same_however_it_is_read() {
        let numbers = "0 -0 7 -7 0.5 -0.0 1e5 1E+5 1e-5 -1.25e-3 18446744073709551615 18446744073709551616 -9223372036854775808 \
                       -9223372036854775809 -18446744073709551616 1e400 1e-400 5e-324 2.2250738585072011e-308 9007199254740993.0 \
                       0.1234567890123456789012345678901234567890 123456789012345678901234567890 01 -01 1. .5 1.e5 1e 1e+ - -- +1 00 0x1 NaN \
                       Infinity -Infinity 1_0 1,, true false null tru nul \"\" \"a\" \"\u{e9}\" \"\\u00e9\" \"\\n\" \"\n\" \"\u{7f}\" \"a [1] [1,[2]] {} {\"a\":1} \
                       [1 {";
        let spaced = |value: &str| format!(" {{\t\"x\" :\r[ {value}\n, {value} ] , \"y\":[1,2]}} ");
        let tight = |value: &str| format!("{{\"x\":[{value},{value}],\"y\":[1,2]}}");
        let mut plainly = 0;
        for value in numbers.split(' ') {
            for body in [spaced(value), tight(value), format!("{{\"x\":[{value}]"), format!("{{\"x\":[{value}]}},"), value.to_owned()] {
                let quick = plain(body.as_bytes(), Columns::new(open())).map(|columns| columns.finish().unwrap().batch);
                plainly += usize::from(quick.is_some());
                let slow = odd(body.as_bytes(), Columns::new(open())).map(|decoded| decoded.batch).ok();
                assert_eq!(quick, slow, "{body}");
            }
        }
        // Every bit of a number, of those that programs write at least.
        let mut bits = 0_u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f64::from_bits(bits.rotate_left(17));
            for text in [format!("{number:?}"), format!("{number:e}"), format!("{:.17}", number % 1e6)] {
                let body = format!("{{\"x\":[{text},0.0]}}");
                let Some(columns) = number.is_finite().then(|| plain(body.as_bytes(), Columns::new(open())).unwrap()) else { continue };
                let batch = columns.finish().unwrap().batch;
                assert_eq!(
                    batch.column(0).as_primitive::<Float64Type>().value(0).to_bits(),
                    text.parse::<f64>().unwrap().to_bits(),
                    "{text}"
                );
            }
        }
        // Of the values 34 are good, and one is a body.
        assert_eq!(plainly, 2 * 34 + 1);
        for body in [
            &b"{\"x\":[\"\xff\"]}"[..],
            b"{\"\xff\":[1]}",
            b"",
            b" ",
            b"{",
            b"{}",
            b"{},",
            b"{\"x\":[]}",
            b"{\"x\":[],}",
            b"{\"\\u0078\":[1]}",
        ] {
            let quick = plain(body, Columns::new(open())).map(|columns| columns.finish().unwrap().batch);
            let slow = odd(body, Columns::new(open())).map(|decoded| decoded.batch).ok();
            assert!(quick == slow || (quick.is_none() && body.contains(&b'\\')), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for body in [
            "{\"x\":[1,2],\"y\":[1]}",
            "{\"x\":1}",
            "[1]",
            "{\"x\":[1]",
            "{\"x\":[1],\"x\":[2]}",
            "{\"_id\":[true]}",
            "{\"_time\":[\"soon\"]}",
        ] {
            assert!(decode(body.as_bytes(), open()).is_err(), "{body}");
        }
        assert_eq!(decode(b"{}", open()).unwrap().batch.num_rows(), 0);
    }
}
