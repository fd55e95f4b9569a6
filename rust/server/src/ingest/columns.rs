//! Events as one JSON object of arrays, a column each: `{"x": [1, 2], "_id": ["a", "b"]}`.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::ndjson::Field;
use crate::problem::{Outcome, Problem};
use crate::rows::{Columns, Decoded};
use crate::shape::Shape;

/// Decodes a body whole, or not at all.
///
/// # Errors
/// `Problem` for a body that is no object of arrays of one length.
pub fn decode(body: &[u8], shape: Arc<Shape>) -> Outcome<Decoded> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut columns = Columns::new(shape);
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
