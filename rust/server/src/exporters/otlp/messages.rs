//! The messages of OTLP metrics that are written, read, or both: fields that nobody here asks for are left out, and skipped.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.10.0/opentelemetry/proto/metrics/v1/metrics.proto>, as JSON
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.10.0/docs/specification.md#json-protobuf-encoding>: keys in lowerCamelCase,
//! 64-bit integers as text or numbers, `NaN` and infinities as text.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// `AGGREGATION_TEMPORALITY_DELTA`.
pub const DELTA: i32 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
pub const CUMULATIVE: i32 = 2;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
pub const NO_RECORDED_VALUE: u32 = 1;

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExportMetricsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    #[prost(oneof = "Scalar", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<Scalar>,
}

/// What an attribute is. Lists and maps are not taken apart, so that no nesting is followed: they only have to be told from each other.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Scalar {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(bytes = "vec", tag = "5")]
    List(Vec<u8>),
    #[prost(bytes = "vec", tag = "6")]
    Map(Vec<u8>),
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct InstrumentationScope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(from = "MetricOfJson")]
pub struct Metric {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(string, tag = "3")]
    pub unit: String,
    #[prost(oneof = "Data", tags = "5, 7, 9, 10, 11")]
    pub data: Option<Data>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
    #[prost(message, tag = "10")]
    ExponentialHistogram(ExponentialHistogram),
    #[prost(message, tag = "11")]
    Summary(Summary),
}

/// JSON has the members of a oneof beside the other fields.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetricOfJson {
    name: String,
    unit: String,
    gauge: Option<Gauge>,
    sum: Option<Sum>,
    histogram: Option<Histogram>,
    exponential_histogram: Option<ExponentialHistogram>,
    summary: Option<Summary>,
}

impl From<MetricOfJson> for Metric {
    fn from(json: MetricOfJson) -> Self {
        let data = (json.gauge.map(Data::Gauge))
            .or(json.sum.map(Data::Sum))
            .or(json.histogram.map(Data::Histogram))
            .or(json.exponential_histogram.map(Data::ExponentialHistogram))
            .or(json.summary.map(Data::Summary));
        Self { name: json.name, description: String::new(), unit: json.unit, data }
    }
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gauge {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberDataPoint>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sum {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberDataPoint>,
    #[prost(int32, tag = "2")]
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NumberDataPoint {
    #[prost(fixed64, tag = "2")]
    #[serde(deserialize_with = "number")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[prost(double, optional, tag = "4")]
    #[serde(deserialize_with = "some_number")]
    pub as_double: Option<f64>,
    #[prost(sfixed64, optional, tag = "6")]
    #[serde(deserialize_with = "some_number")]
    pub as_int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "8")]
    #[serde(deserialize_with = "number")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Histogram {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<HistogramDataPoint>,
    #[prost(int32, tag = "2")]
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HistogramDataPoint {
    #[prost(fixed64, tag = "2")]
    #[serde(deserialize_with = "number")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    #[serde(deserialize_with = "number")]
    pub count: u64,
    #[prost(double, optional, tag = "5")]
    #[serde(deserialize_with = "some_number")]
    pub sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    #[serde(deserialize_with = "numbers")]
    pub bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    #[serde(deserialize_with = "numbers")]
    pub explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    #[serde(deserialize_with = "number")]
    pub flags: u32,
    #[prost(double, optional, tag = "11")]
    #[serde(deserialize_with = "some_number")]
    pub min: Option<f64>,
    #[prost(double, optional, tag = "12")]
    #[serde(deserialize_with = "some_number")]
    pub max: Option<f64>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialHistogram {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<ExponentialHistogramDataPoint>,
    #[prost(int32, tag = "2")]
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialHistogramDataPoint {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "2")]
    #[serde(deserialize_with = "number")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    #[serde(deserialize_with = "number")]
    pub count: u64,
    #[prost(double, optional, tag = "5")]
    #[serde(deserialize_with = "some_number")]
    pub sum: Option<f64>,
    #[prost(sint32, tag = "6")]
    #[serde(deserialize_with = "number")]
    pub scale: i32,
    #[prost(fixed64, tag = "7")]
    #[serde(deserialize_with = "number")]
    pub zero_count: u64,
    #[prost(message, optional, tag = "8")]
    pub positive: Option<Buckets>,
    #[prost(message, optional, tag = "9")]
    pub negative: Option<Buckets>,
    #[prost(uint32, tag = "10")]
    #[serde(deserialize_with = "number")]
    pub flags: u32,
    #[prost(double, optional, tag = "12")]
    #[serde(deserialize_with = "some_number")]
    pub min: Option<f64>,
    #[prost(double, optional, tag = "13")]
    #[serde(deserialize_with = "some_number")]
    pub max: Option<f64>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Buckets {
    #[prost(sint32, tag = "1")]
    #[serde(deserialize_with = "number")]
    pub offset: i32,
    #[prost(uint64, repeated, tag = "2")]
    #[serde(deserialize_with = "numbers")]
    pub bucket_counts: Vec<u64>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<SummaryDataPoint>,
}

/// Nothing can be counted of it: whose it would be is enough.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct SummaryDataPoint {
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "8")]
    #[serde(deserialize_with = "number")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportMetricsServiceResponse {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialSuccess {
    #[prost(int64, tag = "1")]
    #[serde(serialize_with = "as_text")]
    pub rejected_data_points: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref)] // serde has it so
fn as_text<S: serde::Serializer>(number: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}

/// A number as JSON may have it.
#[derive(Clone, Copy)]
enum Told {
    Whole(i128),
    Real(f64),
}

impl Told {
    fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(number) => Some(number),
            // Up to 2^63 or so: what is larger fits no field.
            Self::Real(number) => (number.fract() == 0.0 && number.abs() < 1e19).then_some(number as i128),
        }
    }
}

trait Number: Sized {
    const WORD: &str;
    fn of(told: Told) -> Option<Self>;
}

macro_rules! whole {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            const WORD: &str = stringify!($kind);
            fn of(told: Told) -> Option<Self> {
                told.whole()?.try_into().ok()
            }
        }
    )*};
}

whole!(u64 i64 u32 i32);

impl Number for f64 {
    const WORD: &str = "number";
    fn of(told: Told) -> Option<Self> {
        Some(match told {
            Told::Whole(number) => number as Self,
            Told::Real(number) => number,
        })
    }
}

/// One number, none for null.
struct One<T>(Option<T>);

impl<'de, T: Number> Deserialize<'de> for One<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<T: Number> Reader<T> {
            fn fitting<E: Error>(told: Told) -> Result<One<T>, E> {
                T::of(told).map(|number| One(Some(number))).ok_or_else(|| E::custom(format_args!("a number is no {}", T::WORD)))
            }
        }

        impl<T: Number> Visitor<'_> for Reader<T> {
            type Value = One<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a {}, as number or text", T::WORD)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<One<T>, E> {
                Self::fitting(Told::Whole(number.into()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<One<T>, E> {
                Self::fitting(Told::Whole(number.into()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<One<T>, E> {
                Self::fitting(Told::Real(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<One<T>, E> {
                let real = || text.parse().map(Told::Real);
                Self::fitting(text.parse().map(Told::Whole).or_else(|_| real()).map_err(|_| E::custom("a text is no number"))?)
            }

            fn visit_unit<E: Error>(self) -> Result<One<T>, E> {
                Ok(One(None))
            }
        }

        from.deserialize_any(Reader(PhantomData))
    }
}

fn number<'de, D: Deserializer<'de>, T: Number + Default>(from: D) -> Result<T, D::Error> {
    Ok(One::deserialize(from)?.0.unwrap_or_default())
}

fn some_number<'de, D: Deserializer<'de>, T: Number>(from: D) -> Result<Option<T>, D::Error> {
    Ok(One::deserialize(from)?.0)
}

fn numbers<'de, D: Deserializer<'de>, T: Number + Default>(from: D) -> Result<Vec<T>, D::Error> {
    struct Reader<T>(PhantomData<T>);

    impl<'de, T: Number + Default> Visitor<'de> for Reader<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of numbers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Vec<T>, A::Error> {
            let mut out = Vec::new();
            while let Some(One(number)) = all.next_element()? {
                out.push(number.unwrap_or_default());
            }
            Ok(out)
        }
    }

    from.deserialize_seq(Reader(PhantomData))
}

/// As a number; as its name too, which OTLP does not allow and senders do.
fn temporality<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = i32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an AggregationTemporality")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<i32, E> {
            // What is not known is told point by point.
            Ok(i32::try_from(number).unwrap_or(0))
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<i32, E> {
            Ok(0)
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<i32, E> {
            Ok(match name {
                "AGGREGATION_TEMPORALITY_DELTA" => DELTA,
                "AGGREGATION_TEMPORALITY_CUMULATIVE" => CUMULATIVE,
                _ => 0,
            })
        }
    }

    from.deserialize_any(Reader)
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = AnyValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AnyValue")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
                let mut value = None;
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    value = match &*key {
                        "stringValue" => map.next_value::<Option<String>>()?.map(Scalar::Text),
                        "boolValue" => map.next_value::<Option<bool>>()?.map(Scalar::Bool),
                        "intValue" => map.next_value::<One<i64>>()?.0.map(Scalar::Int),
                        "doubleValue" => map.next_value::<One<f64>>()?.0.map(Scalar::Double),
                        "arrayValue" => Some(Scalar::List(map.next_value::<Folded>()?.0)),
                        "kvlistValue" => Some(Scalar::Map(map.next_value::<Folded>()?.0)),
                        "bytesValue" => map.next_value::<Option<String>>()?.map(|text| Scalar::Bytes(text.into_bytes())),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                }
                Ok(AnyValue { value })
            }
        }

        from.deserialize_map(Reader)
    }
}

/// Any JSON as bytes that differ where it differs.
struct Folded(Vec<u8>);

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut out = Vec::new();
        serde::de::DeserializeSeed::deserialize(Fold(&mut out), from)?;
        Ok(Self(out))
    }
}

struct Fold<'a>(&'a mut Vec<u8>);

impl Fold<'_> {
    fn add(self, mark: u8, bytes: &[u8]) {
        self.0.push(mark);
        self.0.extend_from_slice(bytes);
        // No text has this byte.
        self.0.push(0xFF);
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Fold<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fold<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.add(b'b', &[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.add(b'u', &value.to_le_bytes());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.add(b'i', &value.to_le_bytes());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.add(b'f', &value.to_le_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.add(b's', value.as_bytes());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.add(b'0', &[]);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        while all.next_element_seed(Fold(self.0))?.is_some() {}
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        while map.next_key_seed(Fold(self.0))?.is_some() {
            map.next_value_seed(Fold(self.0))?;
        }
        self.0.push(b'}');
        Ok(())
    }
}
