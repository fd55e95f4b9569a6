//! Seasons: a window compared with the same hour of the day or the week, day of the week, month of the year of the reference.
//!
//! A reference keeps coarse counts (ten groups, nulls, rows) of each calendar bucket, and how much its windows of one bucket
//! scatter about that bucket: far less than they scatter about the whole, where the stream has a daily or weekly rhythm. A
//! bucket with few rows is shrunk to the whole.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};

use crate::coarse::{Grouping, Groups, Plan};
use crate::frame;
use crate::profile::{ColumnProfile, Content, Profile};
use crate::reference::{Reference, ReferenceColumn};
use crate::report::{Method, Row, Verdict};
use crate::segments::{nulls, psi};
use crate::settings::Settings;
use crate::window::{DAY, HOUR};

/// Independent rows from which on a bucket stands for itself; below, the whole fills it up to so many.
const ENOUGH: f64 = 200.0;
/// Degrees of freedom from which on windows tell how they scatter: about seven windows after the first ones of their buckets.
const LEAST_FREEDOM: f64 = 60.0;
/// Counters kept while a reference is made: of more windows than fit the first ones tell how windows scatter.
const MOST_COUNTERS: usize = 1 << 25;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What recurs, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Calendar {
    HourOfDay,
    HourOfWeek,
    DayOfWeek,
    MonthOfYear,
}

impl Calendar {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HourOfDay, Self::HourOfWeek, Self::DayOfWeek, Self::MonthOfYear];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::HourOfDay => "hour_of_day",
            Self::HourOfWeek => "hour_of_week",
            Self::DayOfWeek => "day_of_week",
            Self::MonthOfYear => "month_of_year",
        }
    }

    /// The calendar of a word.
    ///
    /// # Errors
    /// `InvalidArgument` for another word.
    pub fn of(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|calendar| calendar.word() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::word).join(", ");
            Error::invalid(format!("`season` must be one of {words}, got {word:?}"))
        })
    }

    fn buckets(self) -> usize {
        match self {
            Self::HourOfDay => 24,
            Self::HourOfWeek => 168,
            Self::DayOfWeek => 7,
            Self::MonthOfYear => 12,
        }
    }

    /// The longest window that lies in one bucket.
    pub(crate) fn unit(self) -> i64 {
        if matches!(self, Self::HourOfDay | Self::HourOfWeek) { HOUR } else { DAY }
    }

    fn bucket(self, time: i64) -> usize {
        // The epoch was a Thursday.
        let (day, hour) = (time.div_euclid(DAY), time.rem_euclid(DAY) / HOUR);
        let weekday = (day + 3).rem_euclid(7);
        (match self {
            Self::HourOfDay => hour,
            Self::HourOfWeek => weekday * 24 + hour,
            Self::DayOfWeek => weekday,
            Self::MonthOfYear => i64::from(month_of(day)),
        }) as usize
    }

    fn label(self, bucket: usize) -> String {
        match self {
            Self::HourOfDay => format!("{bucket:02}:00"),
            Self::HourOfWeek => format!("{} {:02}:00", DAYS[bucket / 24 % 7], bucket % 24),
            Self::DayOfWeek => DAYS[bucket % 7].to_owned(),
            Self::MonthOfYear => MONTHS[bucket % 12].to_owned(),
        }
    }
}

/// The month of a day since the epoch, from 0: Hinnant's algorithm, whose year begins in March.
fn month_of(day: i64) -> u8 {
    let of_era = (day + 719_468).rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    ((5 * of_year + 2) / 153 + 2).rem_euclid(12) as u8
}

/// Coarse counts of the reference by calendar bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Season {
    /// What recurs.
    pub calendar: Calendar,
    /// Per bucket and tested column the counters of its groups.
    counts: Vec<Vec<Vec<u64>>>,
    /// Per column how much windows of one bucket scatter about it, at least 1; 0 where too few windows tell.
    factors: Vec<f64>,
}

impl Season {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(Calendar::ALL.iter().position(|calendar| *calendar == self.calendar).unwrap_or(0) as u8);
        self.factors.iter().for_each(|factor| writer.f64(*factor));
        self.counts.iter().flatten().flatten().for_each(|count| writer.u64(*count));
    }

    /// Reads counts back, of columns with so many counters.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub(crate) fn decode(reader: &mut Reader<'_>, sizes: &[usize]) -> Result<Self> {
        let calendar = *Calendar::ALL.get(usize::from(reader.u8()?)).ok_or_else(|| Error::decode("seasons of an unknown calendar"))?;
        let factors = sizes.iter().map(|_| reader.f64()).collect::<Result<Vec<_>>>()?;
        if !factors.iter().all(|factor| *factor == 0.0 || (1.0..=1e15).contains(factor)) {
            return Err(Error::decode("a factor of the seasons is out of range"));
        }
        let column = |reader: &mut Reader<'_>, size: usize| (0..size).map(|_| reader.u64()).collect::<Result<Vec<_>>>();
        let bucket = |reader: &mut Reader<'_>| sizes.iter().map(|size| column(reader, *size)).collect::<Result<Vec<_>>>();
        let counts = (0..calendar.buckets()).map(|_| bucket(reader)).collect::<Result<Vec<_>>>()?;
        Ok(Self { calendar, counts, factors })
    }

    /// Tests the columns of a window against their bucket of the reference, each at a part of this level.
    pub(crate) fn judge(
        &self,
        whole: &Profile,
        reference: &Reference,
        (start, end): (i64, i64),
        settings: &Settings,
        level: f64,
    ) -> BTreeMap<String, (Row, Verdict)> {
        let plan = reference.plan("");
        let bucket = self.calendar.bucket(start);
        let segment = format!("{}={}", self.calendar.word(), self.calendar.label(bucket));
        let level = (level / (2 * plan.len()).max(1) as f64).min(settings.alpha());
        let mut out = BTreeMap::new();
        let columns = plan.iter().zip(self.counts.get(bucket).into_iter().flatten()).zip(&self.factors);
        for (((name, groups), was), seasonal) in columns.filter(|(_, seasonal)| **seasonal > 0.0) {
            let (Some(fixed), Some(now)) = (reference.column(name), whole.column(name)) else { continue };
            let is = counted(now, groups);
            let row = |method: Method| Row {
                window_start: Some(start),
                window_end: Some(end),
                segment: Some(segment.clone()),
                reference: Some(reference.id().to_owned()),
                ..Row::blank(name, method)
            };
            let overall = fixed.dependence_over(end - start).map_or(*seasonal, |known| known.values);
            // How shorter windows scatter within their bucket is not known: at most as they do about the whole.
            let seasonal = if end - start < self.calendar.unit() { seasonal.max(overall) } else { *seasonal };
            let (was, factor) = shrunk(was, &counted(&fixed.profile, groups), groups.len, seasonal, overall);
            let factor = if settings.dependence { factor } else { 1.0 };
            let thinning = whole.thinning();
            let moved = psi(&was, &is, groups.len, (factor, factor * thinning), settings, level, row(Method::Psi));
            let missing = nulls(&was, &is, groups.len, thinning, settings, level, row(Method::NullShare));
            if let Some((mut row, verdict)) = [moved, missing].into_iter().flatten().max_by_key(|(_, verdict)| *verdict) {
                let against = (verdict >= Verdict::Warning).then(|| format!("against {} of the reference", segment.replace('=', " ")));
                let said: Vec<String> = against.into_iter().chain(whole.sampled()).collect();
                row.reason = (!said.is_empty()).then(|| said.join("; "));
                out.insert(name.clone(), (row, verdict));
            }
        }
        out
    }
}

/// A bucket's counts filled up by the whole's shares to enough independent rows, and its factor between its own and the whole's.
fn shrunk(bucket: &[u64], whole: &[u64], groups: usize, seasonal: f64, overall: f64) -> (Vec<u64>, f64) {
    let own = (bucket[groups] as f64 / seasonal / ENOUGH).min(1.0);
    let factor = own * seasonal + (1.0 - own) * overall.max(seasonal);
    let missing = (ENOUGH * factor - bucket[groups] as f64).max(0.0);
    let part = missing / (whole[groups].max(1)) as f64;
    let filled = bucket.iter().zip(whole).map(|(own, all)| own + libm::round(part * *all as f64) as u64);
    (filled.collect(), factor)
}

/// The counters of a column's groups, from its profile on the reference's bins.
fn counted(profile: &ColumnProfile, groups: &Groups) -> Vec<u64> {
    let mut counts = vec![0; groups.counters()];
    match (&profile.content, &groups.grouping) {
        (Content::Numbers(numbers), Grouping::Unions(unions)) => {
            let fine = numbers.bins.iter().flatten();
            unions.iter().zip(fine).for_each(|(union, count)| counts[*union] += count);
            counts[groups.len] = numbers.finite();
        }
        (Content::Names(names), Grouping::Names(known)) => {
            known.iter().for_each(|(name, at)| counts[*at] = names.count(name));
            counts[groups.len] = names.total();
        }
        _ => {}
    }
    counts[groups.len + 1] = profile.nulls;
    counts[groups.len + 2] = profile.count;
    counts
}

/// Counts the rows of a reference by the windows of a calendar.
#[derive(Debug)]
pub(crate) struct SeasonCounter {
    calendar: Calendar,
    time: String,
    /// Per window and column.
    windows: BTreeMap<i64, Vec<Vec<u32>>>,
    /// The buckets of windows that were too many to be kept apart.
    rest: BTreeMap<usize, Vec<Vec<u64>>>,
}

impl SeasonCounter {
    pub(crate) fn new(calendar: Calendar, time: &str) -> Self {
        Self { calendar, time: time.to_owned(), windows: BTreeMap::new(), rest: BTreeMap::new() }
    }

    /// Counts the rows that have a time.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn count(&mut self, batch: &RecordBatch, plan: &Plan, columns: &[ReferenceColumn]) -> Result<()> {
        let Some(times) = batch.column_by_name(&self.time).and_then(|array| frame::nanoseconds(array.as_ref())) else { return Ok(()) };
        let counters: usize = plan.iter().map(|(_, groups)| groups.counters()).sum();
        for (window, rows) in frame::by_tile(batch, &times, self.calendar.unit())? {
            let mut counts: Vec<Vec<u64>> = plan.iter().map(|(_, groups)| vec![0; groups.counters()]).collect();
            for ((name, groups), counts) in plan.iter().zip(&mut counts) {
                let bins = columns.iter().find(|column| column.profile.column.name == *name).and_then(|column| column.bins.as_ref());
                if let Some(array) = rows.column_by_name(name) {
                    groups.count(array.as_ref(), bins, counts);
                }
            }
            if self.windows.contains_key(&window) || (self.windows.len() + 1) * counters <= MOST_COUNTERS {
                let kept = self.windows.entry(window).or_insert_with(|| counts.iter().map(|one| vec![0; one.len()]).collect());
                let pairs = kept.iter_mut().flatten().zip(counts.iter().flatten());
                pairs.for_each(|(to, from)| *to = u32::try_from(u64::from(*to) + from).unwrap_or(u32::MAX));
            } else {
                let kept = self.rest.entry(self.calendar.bucket(window)).or_insert_with(|| counts.clone());
                kept.iter_mut().flatten().zip(counts.iter().flatten()).for_each(|(to, from)| *to += from);
            }
        }
        Ok(())
    }

    /// The seasons: counts of every bucket, and how much windows of one bucket scatter about it.
    pub(crate) fn finish(&self, plan: &Plan) -> Season {
        let empty: Vec<Vec<u64>> = plan.iter().map(|(_, groups)| vec![0; groups.counters()]).collect();
        let mut counts = vec![empty; self.calendar.buckets()];
        for (bucket, rest) in &self.rest {
            counts[*bucket].iter_mut().flatten().zip(rest.iter().flatten()).for_each(|(to, from)| *to += from);
        }
        for (window, own) in &self.windows {
            let to = counts[self.calendar.bucket(*window)].iter_mut().flatten();
            to.zip(own.iter().flatten()).for_each(|(to, from)| *to += u64::from(*from));
        }
        let factors = plan.iter().enumerate().map(|(at, (_, groups))| self.factor(at, groups.len, &counts)).collect();
        Season { calendar: self.calendar, counts, factors }
    }

    /// Pearson's dispersion of the windows' counts about their bucket's shares.
    fn factor(&self, column: usize, groups: usize, counts: &[Vec<Vec<u64>>]) -> f64 {
        let (mut chi, mut freedom) = (0.0, 0.0);
        let mut seen = vec![0.0; self.calendar.buckets()];
        for (window, own) in &self.windows {
            let bucket = self.calendar.bucket(*window);
            let (own, all) = (&own[column], &counts[bucket][column]);
            let (n, whole) = (f64::from(own[groups]), all[groups] as f64);
            if n == 0.0 {
                continue;
            }
            let told = all[..groups].iter().filter(|count| **count > 0).count() as f64;
            for (count, all) in own[..groups].iter().zip(&all[..groups]).filter(|(_, all)| **all > 0) {
                let expected = n * *all as f64 / whole;
                chi += (f64::from(*count) - expected) * (f64::from(*count) - expected) / expected;
            }
            // The first window of a bucket pays for the bucket's own shares.
            freedom += if seen[bucket] == 0.0 { 0.0 } else { told - 1.0 };
            seen[bucket] += 1.0;
        }
        if freedom < LEAST_FREEDOM { 0.0 } else { (chi / freedom).clamp(1.0, 1e15) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_known_days() {
        // 1970-01-01 was a Thursday; 2024-02-29 a Thursday too; 2026-11-23 a Monday.
        let day = |days: i64| days * DAY;
        assert_eq!(Calendar::HourOfWeek.label(Calendar::HourOfWeek.bucket(5 * HOUR)), "Thu 05:00");
        for (days, label) in [(0, "Jan"), (58, "Feb"), (59, "Mar"), (19_782, "Feb"), (19_783, "Mar"), (20_780, "Nov"), (-1, "Dec")] {
            assert_eq!(Calendar::MonthOfYear.label(Calendar::MonthOfYear.bucket(day(days))), label, "{days}");
        }
        assert_eq!(Calendar::DayOfWeek.label(Calendar::DayOfWeek.bucket(day(20_780))), "Mon");
        assert_eq!(Calendar::HourOfDay.bucket(-1), 23);
    }

    #[test]
    fn a_thin_bucket_is_filled_up_and_a_full_one_is_itself() {
        let whole = [500, 500, 1000, 0, 1000];
        let (filled, factor) = shrunk(&[90, 10, 100, 0, 100], &whole, 2, 1.0, 3.0);
        assert!((factor - 2.0).abs() < 1e-9);
        assert_eq!(filled, [240, 160, 400, 0, 400]);
        assert_eq!(shrunk(&[900, 100, 1000, 0, 1000], &whole, 2, 2.0, 3.0), (vec![900, 100, 1000, 0, 1000], 2.0));
    }
}
