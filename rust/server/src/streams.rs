//! Numbered streams: of everything that comes under a stream's name each number counts once, for good.
//!
//! What was seen of a stream is kept as ranges. They are bounded: beyond the bound the lowest gap closes, and a number in it is taken for
//! one that came before. So are the streams: beyond the bound the one that was used least recently goes, and is counted. It all depends on
//! nothing but what was taken, in its order, and so comes out the same in every replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};

use crate::problem::{Outcome, Problem};

/// The header that names a stream and a number.
pub const HEADER: &str = "barograph-sequence";
/// Streams of a model that are remembered.
pub const MOST_STREAMS: usize = 4096;
/// Ranges of a stream that are remembered: a sender has far fewer bodies on their way.
pub const MOST_RANGES: usize = 256;
/// Characters of a stream's name.
pub const MOST_NAME: usize = 200;

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The number.
    pub number: u64,
}

impl Numbered {
    /// What a header says: `STREAM/NUMBER`.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn parse(value: &[u8]) -> Outcome<Self> {
        let wrong = |got: &str| {
            Problem::bad(format!(
                "`Barograph-Sequence` must be STREAM/NUMBER, 1 to {MOST_NAME} visible characters and a whole number below 2^64, got {got}"
            ))
            .hint("such as orders-3/17")
        };
        let text = std::str::from_utf8(value).map_err(|_| wrong("bytes that are no text"))?;
        let shown = || format!("{:?}", text.chars().take(MOST_NAME + 22).collect::<String>());
        let (stream, number) = text.rsplit_once('/').ok_or_else(|| wrong(&shown()))?;
        let fine = is_name(stream) && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let number = number.parse().ok().filter(|_| fine).ok_or_else(|| wrong(&shown()))?;
        Ok(Self { stream: stream.into(), number })
    }

    /// The same place for a later part of the same body: parts are counted apart, under names that no header can say.
    #[must_use]
    pub fn part(&self, part: usize) -> Self {
        if part == 0 { self.clone() } else { Self { stream: format!("{} {part}", self.stream).into(), number: self.number } }
    }

    /// Appends it to a record.
    pub fn encode(&self, writer: &mut Writer) {
        writer.str(&self.stream);
        writer.u64(self.number);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let stream = reader.str()?;
        if stream.is_empty() || stream.len() > MOST_NAME + 21 {
            return Err(Error::decode("the name of a stream is out of range"));
        }
        Ok(Self { stream: stream.into(), number: reader.u64()? })
    }
}

/// Whether a stream may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=MOST_NAME).contains(&name.len()) && name.bytes().all(|letter| letter.is_ascii_graphic())
}

/// What was seen of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Every number below counts as seen.
    floor: u64,
    /// First and last numbers of what was seen beyond, with gaps between, in order.
    ranges: Vec<(u64, u64)>,
    /// When it was used last, in nanoseconds since the epoch, and after how many others.
    pub seen: i64,
    turn: u64,
    /// Numbers that were taken.
    pub taken: u64,
}

impl Stream {
    fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        number < self.floor || self.ranges.get(at).is_some_and(|(first, _)| *first <= number)
    }

    fn insert(&mut self, number: u64) {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        let follows =
            at.checked_sub(1).and_then(|before| self.ranges.get(before)).is_some_and(|(_, last)| last.checked_add(1) == Some(number));
        let precedes = self.ranges.get(at).is_some_and(|(first, _)| number.checked_add(1) == Some(*first));
        match (follows, precedes) {
            (true, true) => {
                let (_, last) = self.ranges.remove(at);
                if let Some(before) = self.ranges.get_mut(at - 1) {
                    before.1 = last;
                }
            }
            (true, false) => {
                if let Some(before) = self.ranges.get_mut(at - 1) {
                    before.1 = number;
                }
            }
            (false, true) => {
                if let Some(after) = self.ranges.get_mut(at) {
                    after.0 = number;
                }
            }
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        while self.ranges.len() > MOST_RANGES || self.ranges.first().is_some_and(|(first, last)| *first <= self.floor && *last < u64::MAX) {
            let (_, last) = self.ranges.remove(0);
            self.floor = self.floor.max(last.saturating_add(1));
        }
    }

    fn is_crowded(&self, number: u64) -> bool {
        let seen =
            |stream: &Self| stream.ranges.iter().fold(u128::from(stream.floor), |sum, (first, last)| sum + u128::from(last - first) + 1);
        let mut after = self.clone();
        after.insert(number);
        seen(&after) > seen(self) + 1
    }

    /// The largest number that was taken, if any was.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|(_, last)| *last).or_else(|| self.floor.checked_sub(1))
    }

    /// Numbers below the largest that did not come yet, from the first that did.
    pub fn missing(&self) -> u64 {
        let gaps = self.ranges.windows(2).map(|pair| match pair {
            [(_, last), (first, _)] => first - last - 1,
            _ => 0,
        });
        // Streams begin anywhere: what lies before the first number may never have been.
        let before = self.ranges.first().filter(|_| self.floor > 0).map_or(0, |(first, _)| first - self.floor);
        gaps.fold(before, u64::saturating_add)
    }
}

/// The streams of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    known: BTreeMap<Arc<str>, Stream>,
    turn: u64,
    /// Streams that were forgotten because there were too many.
    pub forgotten: u64,
}

impl Streams {
    /// Whether the number came before, or lies below what is remembered.
    pub fn contains(&self, numbered: &Numbered) -> bool {
        self.known.get(&numbered.stream).is_some_and(|stream| stream.contains(numbered.number))
    }

    /// The number is taken.
    pub fn insert(&mut self, numbered: &Numbered, now: i64) {
        if !self.known.contains_key(&numbered.stream) && self.known.len() >= MOST_STREAMS {
            self.oldest().map(|name| self.known.remove(&name));
            self.forgotten += 1;
        }
        self.turn += 1;
        let stream = self.known.entry(Arc::clone(&numbered.stream)).or_default();
        stream.insert(numbered.number);
        stream.taken = stream.taken.saturating_add(1);
        (stream.seen, stream.turn) = (now, self.turn);
    }

    /// Whether the number can be taken only if a gap closes whose numbers would never count then.
    pub fn is_crowded(&self, numbered: &Numbered) -> bool {
        self.known.get(&numbered.stream).is_some_and(|stream| stream.is_crowded(numbered.number))
    }

    /// The stream that will be forgotten when this number is taken.
    pub fn would_forget(&self, numbered: &Numbered) -> Option<Arc<str>> {
        if self.known.contains_key(&numbered.stream) || self.known.len() < MOST_STREAMS { None } else { self.oldest() }
    }

    fn oldest(&self) -> Option<Arc<str>> {
        self.known.iter().min_by_key(|(_, stream)| stream.turn).map(|(name, _)| Arc::clone(name))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stream)> {
        self.known.iter().map(|(name, stream)| (name.as_ref(), stream))
    }

    /// Appends them to a state, the least recently used first.
    pub fn encode(&self, writer: &mut Writer) {
        let mut order: Vec<_> = self.known.iter().collect();
        order.sort_unstable_by_key(|(_, stream)| stream.turn);
        writer.u64(self.forgotten);
        writer.len(order.len());
        for (name, stream) in order {
            writer.str(name);
            [stream.floor, stream.taken].into_iter().for_each(|number| writer.u64(number));
            writer.i64(stream.seen);
            writer.len(stream.ranges.len());
            for (first, last) in &stream.ranges {
                writer.u64(*first);
                writer.u64(last - first);
            }
        }
    }

    /// Reads them back.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self { forgotten: reader.u64()?, ..Self::default() };
        let wrong = || Error::decode("the numbers of a stream are out of order");
        for _ in 0..reader.len(5)? {
            let name: Arc<str> = reader.str()?.into();
            let mut stream = Stream { floor: reader.u64()?, taken: reader.u64()?, seen: reader.i64()?, ..Stream::default() };
            for _ in 0..reader.len(2)? {
                let first = reader.u64()?;
                let last = first.checked_add(reader.u64()?).ok_or_else(wrong)?;
                let above = stream.ranges.last().map_or(Some(stream.floor), |(_, last)| last.checked_add(2));
                if above.is_none_or(|above| first < above) {
                    return Err(wrong());
                }
                stream.ranges.push((first, last));
            }
            out.turn += 1;
            stream.turn = out.turn;
            if stream.ranges.len() > MOST_RANGES || out.known.len() >= MOST_STREAMS || out.known.insert(name, stream).is_some() {
                return Err(Error::decode("there are more streams, or numbers of one, than are kept"));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use barograph_core::hash::murmur3_of_word;

    use super::*;

    fn at(stream: &str, number: u64) -> Numbered {
        Numbered { stream: stream.into(), number }
    }

    fn again(streams: &Streams) -> Streams {
        let mut writer = Writer::new();
        streams.encode(&mut writer);
        Streams::decode(&mut Reader::new(&writer.into_payload())).unwrap()
    }

    #[test]
    fn a_header_is_taken_apart_or_refused() {
        let longest = format!("{}/18446744073709551615", "s".repeat(MOST_NAME));
        for (text, stream, number) in [("a/1", "a", 1), ("a/b/007", "a/b", 7), (longest.as_str(), &longest[..MOST_NAME], u64::MAX)] {
            let numbered = Numbered::parse(text.as_bytes()).unwrap();
            assert_eq!((&*numbered.stream, numbered.number), (stream, number));
        }
        let long = format!("{}/1", "s".repeat(MOST_NAME + 1));
        for text in ["", "/", "a", "a/", "/1", "a b/1", "a/+1", "a/-1", "a/1 ", "a/18446744073709551616", "\u{e9}/1", "a\u{7f}/1", &long] {
            let problem = Numbered::parse(text.as_bytes()).unwrap_err();
            assert!(problem.status == 400 && problem.detail.contains("STREAM/NUMBER"), "{text}");
        }
        assert!(Numbered::parse(b"\xff/1").is_err());
        assert!(!is_name(&at("a", 1).part(1).stream), "no header says the name of a part");
    }

    #[test]
    fn numbers_count_once_in_any_order_and_after_a_state() {
        let (mut streams, mut known) = (Streams::default(), BTreeSet::new());
        for turn in 0..5000 {
            // Out of order by less than what is remembered.
            let number = (turn / 2).max(20) - murmur3_of_word(turn, 1).0 % 20;
            let numbered = at("s", number);
            assert_eq!(streams.contains(&numbered), !known.insert(number), "{number}");
            if !streams.contains(&numbered) {
                streams.insert(&numbered, turn as i64);
            }
            if turn % 500 == 0 {
                streams = again(&streams);
            }
        }
        let (_, stream) = streams.iter().next().unwrap();
        assert_eq!((stream.taken as usize, stream.last()), (known.len(), known.last().copied()));
    }

    #[test]
    fn jumps_and_the_ends_of_all_numbers_are_numbers() {
        let mut streams = Streams::default();
        for number in [u64::MAX, 0, u64::MAX - 1, 5, 1] {
            assert!(!streams.contains(&at("s", number)));
            streams.insert(&at("s", number), 0);
            assert!(streams.contains(&at("s", number)) && !streams.contains(&at("s", 4)) && !streams.contains(&at("t", number)));
        }
        let stream = streams.iter().next().unwrap().1.clone();
        assert_eq!((stream.floor, stream.missing()), (2, u64::MAX - 4));
        assert_eq!(stream.ranges, [(5, 5), (u64::MAX - 1, u64::MAX)]);
    }

    #[test]
    fn below_what_is_remembered_a_number_counts_as_repeated() {
        let mut streams = Streams::default();
        for number in (1000..).step_by(2).take(MOST_RANGES + 1) {
            assert!(!streams.contains(&at("s", number)));
            streams.insert(&at("s", number), 0);
        }
        assert!(streams.contains(&at("s", 3)) && streams.contains(&at("s", 1000)) && !streams.contains(&at("s", 1001)));
        assert_eq!(again(&streams).known.values().next().unwrap().ranges.len(), MOST_RANGES);
    }

    #[test]
    fn a_number_that_would_close_a_gap_is_told_from_those_that_do_not() {
        let mut streams = Streams::default();
        for number in (1000..).step_by(2).take(MOST_RANGES) {
            assert!(!streams.is_crowded(&at("s", number)), "{number}");
            streams.insert(&at("s", number), 0);
        }
        let last = 1000 + 2 * (MOST_RANGES as u64 - 1);
        // In the first gap, at the end of the last range, beyond it.
        let crowded = [1001, last + 1, last + 5].map(|number| streams.is_crowded(&at("s", number)));
        assert_eq!(crowded, [false, false, true]);
        assert!(!streams.is_crowded(&at("t", 5)));
        streams.insert(&at("s", 1001), 0);
        assert!(!streams.is_crowded(&at("s", last + 5)), "there is room again");
    }

    #[test]
    fn the_stream_that_was_not_used_longest_goes_and_is_counted() {
        let mut streams = Streams::default();
        for stream in 0..MOST_STREAMS {
            streams.insert(&at(&stream.to_string(), 1), 0);
        }
        streams.insert(&at("0", 2), 0);
        assert_eq!(streams.would_forget(&at("0", 3)), None);
        assert_eq!(streams.would_forget(&at("one more", 1)).as_deref(), Some("1"));
        streams.insert(&at("one more", 1), 0);
        streams = again(&streams);
        streams.insert(&at("and another", 1), 0);
        assert_eq!((streams.known.len(), streams.forgotten), (MOST_STREAMS, 2));
        assert!(streams.contains(&at("0", 1)) && !streams.contains(&at("1", 1)) && !streams.contains(&at("2", 1)));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let mut streams = Streams::default();
        [3, 9, u64::MAX].into_iter().for_each(|number| streams.insert(&at("s", number), 7));
        let mut writer = Writer::new();
        streams.encode(&mut writer);
        let whole = writer.into_payload();
        for place in 0..whole.len() {
            let _ = Streams::decode(&mut Reader::new(&whole[..place]));
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = byte;
                if let Ok(mut read) = Streams::decode(&mut Reader::new(&bytes)) {
                    (0..20).for_each(|number| read.insert(&at("s", number), 0));
                }
            }
        }
    }
}
