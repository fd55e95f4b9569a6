//! What a body will take once it is read: two bytes can stand for a message of a hundred.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::exporters::otlp::messages as m;
use crate::problem::{Outcome, Problem};

/// Bytes of memory for each byte of a body; what SDKs send takes 3 to 12.
const MOST_RATIO: usize = 32;
/// Beside that, for bodies of a few bytes.
const SPARE: usize = 64 << 10;

/// A kind of message: what one takes in memory, and where other messages and packed numbers lie in it.
struct Kind {
    size: usize,
    messages: &'static [(u32, &'static Kind)],
    /// Of varints: a byte can be a number of eight.
    packed: u32,
}

const fn kind<T>(messages: &'static [(u32, &'static Kind)]) -> Kind {
    // Lists grow by doubling.
    Kind { size: 2 * size_of::<T>(), messages, packed: 0 }
}

static ATTRIBUTE: Kind = kind::<m::KeyValue>(&[]);
static NUMBER: Kind = kind::<m::NumberDataPoint>(&[(7, &ATTRIBUTE)]);
static EXPLICIT: Kind = kind::<m::HistogramDataPoint>(&[(9, &ATTRIBUTE)]);
static BUCKETS: Kind = Kind { packed: 2, ..kind::<m::Buckets>(&[]) };
static EXPONENTIAL: Kind = kind::<m::ExponentialHistogramDataPoint>(&[(1, &ATTRIBUTE), (8, &BUCKETS), (9, &BUCKETS)]);
static SUMMARY: Kind = kind::<m::SummaryDataPoint>(&[(7, &ATTRIBUTE)]);
static NUMBERS: Kind = kind::<m::Sum>(&[(1, &NUMBER)]);
static HISTOGRAM: Kind = kind::<m::Histogram>(&[(1, &EXPLICIT)]);
static EXPONENTIALS: Kind = kind::<m::ExponentialHistogram>(&[(1, &EXPONENTIAL)]);
static SUMMARIES: Kind = kind::<m::Summary>(&[(1, &SUMMARY)]);
static METRIC: Kind = kind::<m::Metric>(&[(5, &NUMBERS), (7, &NUMBERS), (9, &HISTOGRAM), (10, &EXPONENTIALS), (11, &SUMMARIES)]);
static SCOPE: Kind = kind::<m::InstrumentationScope>(&[(3, &ATTRIBUTE)]);
static OF_SCOPE: Kind = kind::<m::ScopeMetrics>(&[(1, &SCOPE), (2, &METRIC)]);
static RESOURCE: Kind = kind::<m::Resource>(&[(1, &ATTRIBUTE)]);
static OF_RESOURCE: Kind = kind::<m::ResourceMetrics>(&[(1, &RESOURCE), (2, &OF_SCOPE)]);
static REQUEST: Kind = kind::<m::ExportMetricsServiceRequest>(&[(1, &OF_RESOURCE)]);

impl Kind {
    fn weigh(&self, mut bytes: &[u8]) -> Result<usize, String> {
        let wrong = |error: prost::DecodeError| error.to_string();
        let mut out = self.size;
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).map_err(wrong)?;
            let inner = self.messages.iter().find(|(known, _)| *known == tag && wire == WireType::LengthDelimited);
            let Some((_, inner)) = inner else {
                let before = bytes.len();
                skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(wrong)?;
                out += if tag == self.packed { 16 * (before - bytes.len()) } else { 0 };
                continue;
            };
            let length = usize::try_from(decode_varint(&mut bytes).map_err(wrong)?).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at_checked(length).ok_or("a message claims more bytes than there are")?;
            out += inner.weigh(part)?;
            bytes = rest;
        }
        Ok(out)
    }
}

/// About the bytes that it takes to read this body and count it.
///
/// # Errors
/// 400 for bytes that are no protobuf, 413 for a body of little but empty parts.
pub fn weight(body: &[u8], json: bool) -> Outcome<usize> {
    let parts = if json {
        // An object is one of these messages at most, and most of them are attributes and their values.
        let part = |byte: &u8| match byte {
            b'{' => 160,
            b',' => 16,
            _ => 0,
        };
        body.iter().map(part).sum()
    } else {
        REQUEST.weigh(body).map_err(|error| Problem::bad(format!("the body is no ExportMetricsServiceRequest: {error}")))?
    };
    let all = parts + 2 * body.len();
    if all > MOST_RATIO * body.len() + SPARE {
        let detail = format!("a body of {} bytes would take {all} bytes of memory: it has little but empty parts", body.len());
        return Err(Problem::too_large(detail).hint("send data points that say something"));
    }
    Ok(all)
}
