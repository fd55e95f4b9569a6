//! A profile: the sketches of all columns over some rows, bounded in size, mergeable, without a raw row in it.

use arrow_array::{Array, RecordBatch};
use barograph_core::bins::{Bins, MAX_EDGES};
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::distributions::normal_quantile;
use barograph_core::sketches::{Categories, ExponentialHistogram, Moments};
use barograph_core::{Error, Result};

use crate::frame;
use crate::reference::Reference;
use crate::schema::{self, Column, Kind, Role, Schema};
use crate::spread::{self, Spread};

/// Cells per octave are 2^6, unless a reference has fewer: quantiles within 0.54 %.
pub(crate) const SCALE: u8 = 6;

/// The values of a column of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// NaN values (pandas' NaN arrive as nulls).
    pub nan: u64,
    /// Values of +inf.
    pub positive_infinity: u64,
    /// Values of -inf.
    pub negative_infinity: u64,
    min: f64,
    max: f64,
    /// Sum and sum of squares of the finite values, exact.
    pub moments: Moments,
    /// The finite values in base-2 cells.
    pub histogram: ExponentialHistogram,
    /// Counts in the reference's bins, below and above included, if the profile was made with a reference.
    pub bins: Option<Vec<u64>>,
}

impl Numbers {
    fn new(bins: Option<&Bins>, scale: u8) -> Result<Self> {
        Ok(Self {
            nan: 0,
            positive_infinity: 0,
            negative_infinity: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            moments: Moments::new(),
            histogram: ExponentialHistogram::new(scale)?,
            bins: bins.map(|bins| vec![0; bins.len()]),
        })
    }

    /// Finite values.
    pub fn finite(&self) -> u64 {
        self.moments.count()
    }

    /// NaN and infinities.
    pub fn non_finite(&self) -> u64 {
        self.nan + self.positive_infinity + self.negative_infinity
    }

    /// Smallest finite value.
    pub fn min(&self) -> Option<f64> {
        self.min.is_finite().then_some(self.min)
    }

    /// Largest finite value.
    pub fn max(&self) -> Option<f64> {
        self.max.is_finite().then_some(self.max)
    }

    /// The smallest value with rank at least `q` times the finite values, within the histogram's relative error (0.54 % at scale 6) and never outside the extremes.
    ///
    /// # Errors
    /// `InvalidArgument` unless `q` is in [0, 1].
    pub fn quantile(&self, q: f64) -> Result<Option<f64>> {
        let found = self.histogram.quantile(q)?;
        Ok(found.map(|value| if self.min <= self.max { value.clamp(self.min, self.max) } else { value }))
    }

    fn update(&mut self, block: &[f64], bins: Option<&Bins>, scratch: &mut Vec<f64>) {
        let mut values = block;
        let (mut min, mut max, all_finite) = extremes(block);
        if !all_finite {
            for value in block.iter().filter(|v| !v.is_finite()) {
                self.nan += u64::from(value.is_nan());
                self.positive_infinity += u64::from(*value == f64::INFINITY);
                self.negative_infinity += u64::from(*value == f64::NEG_INFINITY);
            }
            scratch.clear();
            scratch.extend(block.iter().filter(|v| v.is_finite()));
            values = scratch;
            (min, max, _) = extremes(values);
        }
        // -0 and 0 are one value: which came first must not show.
        (self.min, self.max) = (self.min.min(min) + 0.0, self.max.max(max) + 0.0);
        self.moments.update_many(values);
        self.histogram.update_many(values);
        if let (Some(bins), Some(counts)) = (bins, &mut self.bins) {
            bins.count(values, counts);
        }
    }

    /// A finite value that came so many times.
    fn update_counted(&mut self, value: f64, times: u64, bins: Option<&Bins>) {
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
        self.moments.update_counted(value, times);
        self.histogram.update_counted(value, times);
        if let (Some(bins), Some(counts)) = (bins, &mut self.bins) {
            counts[bins.index(value)] += times;
        }
    }

    fn raise(&mut self, halvings: u32) {
        for count in [&mut self.nan, &mut self.positive_infinity, &mut self.negative_infinity] {
            *count <<= halvings;
        }
        self.moments.raise(halvings);
        self.histogram.raise(halvings);
        self.bins.iter_mut().flatten().for_each(|count| *count <<= halvings);
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.nan += other.nan;
        self.positive_infinity += other.positive_infinity;
        self.negative_infinity += other.negative_infinity;
        self.min = self.min.min(other.min) + 0.0;
        self.max = self.max.max(other.max) + 0.0;
        self.moments.merge(&other.moments);
        self.histogram.merge(&other.histogram)?;
        if let (Some(mine), Some(theirs)) = (&mut self.bins, &other.bins) {
            mine.iter_mut().zip(theirs).for_each(|(to, from)| *to += from);
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer) {
        for count in [self.nan, self.positive_infinity, self.negative_infinity] {
            writer.u64(count);
        }
        writer.option_f64(self.min());
        writer.option_f64(self.max());
        self.moments.encode(writer);
        self.histogram.encode(writer);
        writer.bool(self.bins.is_some());
        if let Some(bins) = &self.bins {
            writer.len(bins.len());
            writer.counts(bins);
        }
    }

    /// Reads them back; with so many bins, if that is known.
    fn decode(reader: &mut Reader<'_>, expected: Option<usize>) -> Result<Self> {
        let mut out = Self {
            nan: reader.count()?,
            positive_infinity: reader.count()?,
            negative_infinity: reader.count()?,
            min: reader.option_finite()?.unwrap_or(f64::INFINITY),
            max: reader.option_finite()?.unwrap_or(f64::NEG_INFINITY),
            moments: Moments::decode(reader)?,
            histogram: ExponentialHistogram::decode(reader)?,
            bins: None,
        };
        let counted = if reader.bool()? {
            let (bins, counted) = bin_counts(reader, expected)?;
            out.bins = Some(bins);
            Some(counted)
        } else {
            None
        };
        let sum = |counts: &[u64]| counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let finite = out.finite();
        let consistent = out.histogram.scale() <= SCALE
            && out.histogram.count() == finite
            && counted.is_none_or(|counted| counted == finite)
            && (out.min <= out.max) == (finite > 0)
            && sum(&[finite, out.nan, out.positive_infinity, out.negative_infinity]).is_some();
        if consistent { Ok(out) } else { Err(Error::decode("the counters of a column contradict each other")) }
    }
}

/// As many counters as a reference can have bins, and their sum.
fn bin_counts(reader: &mut Reader<'_>, expected: Option<usize>) -> Result<(Vec<u64>, u64)> {
    let number = reader.u64()?;
    if expected.is_some_and(|expected| expected as u64 != number) {
        return Err(Error::decode("a column of the snapshot counts other bins than those of its reference"));
    }
    if number > MAX_EDGES as u64 + 1 {
        return Err(Error::decode(format!("a reference has at most {} bins, the snapshot says {number}", MAX_EDGES + 1)));
    }
    let mut out = vec![0; number as usize];
    let counted = reader.counts_into(&mut out)?;
    Ok((out, counted))
}

/// Smallest and largest value and whether all are finite (if not, the first two mean nothing), in lanes for vector code.
fn extremes(values: &[f64]) -> (f64, f64, bool) {
    let (mut low, mut high, mut odd) = ([f64::INFINITY; 4], [f64::NEG_INFINITY; 4], [0.0; 4]);
    let (chunks, rest) = values.as_chunks::<4>();
    // One loop per sketch of the lanes: each becomes two vector instructions.
    for chunk in chunks {
        for (low, value) in low.iter_mut().zip(chunk) {
            *low = if *value < *low { *value } else { *low };
        }
        for (high, value) in high.iter_mut().zip(chunk) {
            *high = if *value > *high { *value } else { *high };
        }
        for (odd, value) in odd.iter_mut().zip(chunk) {
            // 0 for what is finite, NaN for the rest; once NaN it stays so.
            *odd += *value * 0.0;
        }
    }
    for value in rest {
        low[0] = low[0].min(*value);
        high[0] = high[0].max(*value);
        odd[0] += *value * 0.0;
    }
    let finite = odd.iter().all(|lane| !lane.is_nan());
    (low.into_iter().fold(f64::INFINITY, f64::min), high.into_iter().fold(f64::NEG_INFINITY, f64::max), finite)
}

/// What a column's values were summarised into.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Numbers.
    Numbers(Box<Numbers>),
    /// Names: categories and booleans.
    Names(Box<Categories>),
    /// First and last instant, in nanoseconds since the epoch.
    Times(Option<(i64, i64)>),
    /// Counted only: text, ids that are names, what is not supported.
    Counted,
}

/// The summary of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnProfile {
    /// Name, kind and role.
    pub column: Column,
    /// Rows, nulls included.
    pub count: u64,
    /// Null rows.
    pub nulls: u64,
    /// The values.
    pub content: Content,
    /// Why the values were not read, if they were not.
    pub unread: Option<String>,
}

fn content_for(column: &Column, bins: Option<&Bins>, scale: u8) -> Result<Content> {
    Ok(match column.kind {
        Kind::Number => Content::Numbers(Box::new(Numbers::new(bins, scale)?)),
        Kind::Category if column.role == Role::Id => Content::Counted,
        Kind::Category | Kind::Boolean => Content::Names(Box::new(Categories::new()?)),
        Kind::Time => Content::Times(None),
        Kind::Text | Kind::Embedding | Kind::Unsupported => Content::Counted,
    })
}

impl ColumnProfile {
    fn new(column: Column, reference: Option<&Reference>) -> Result<Self> {
        let fixed = reference.and_then(|reference| reference.column(&column.name)).filter(|fixed| fixed.profile.column.kind == column.kind);
        let scale = fixed.and_then(|fixed| fixed.profile.numbers()).map_or(SCALE, |numbers| numbers.histogram.scale());
        let mut content = content_for(&column, fixed.and_then(|fixed| fixed.bins.as_ref()), scale)?;
        if let (Content::Names(names), Some(Content::Names(known))) = (&mut content, fixed.map(|fixed| &fixed.profile.content)) {
            names.pin(known.ranked().into_iter().map(|(name, _)| name));
        }
        Ok(Self { column, count: 0, nulls: 0, content, unread: None })
    }

    /// The numbers, if it holds numbers.
    pub fn numbers(&self) -> Option<&Numbers> {
        match &self.content {
            Content::Numbers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// The names, if it holds names.
    pub fn names(&self) -> Option<&Categories> {
        match &self.content {
            Content::Names(names) => Some(names),
            _ => None,
        }
    }

    fn update(&mut self, array: &dyn Array, bins: Option<&Bins>, scratch: &mut Vec<f64>) {
        self.count += array.len() as u64;
        self.nulls += frame::null_count(array);
        if !schema::reads_as(array, self.column.kind) {
            self.unread = Some(format!("expected {}, got {}", self.column.kind.word(), array.data_type()));
            return;
        }
        match &mut self.content {
            Content::Numbers(numbers) => {
                let mut counts = Vec::new();
                let mut sink = |block: &[f64]| numbers.update(block, bins, scratch);
                if frame::counted_integers(array, &mut |value, times| counts.push((value, times)), &mut sink) {
                    counts.into_iter().for_each(|(value, times)| numbers.update_counted(value, times, bins));
                } else {
                    frame::numbers(array, &mut sink);
                }
            }
            Content::Names(names) => {
                frame::names(array, &mut |name, count| names.update(name, count));
            }
            Content::Times(range) => {
                for time in frame::nanoseconds(array).into_iter().flatten().flatten() {
                    let (first, last) = range.unwrap_or((time, time));
                    *range = Some((first.min(time), last.max(time)));
                }
            }
            Content::Counted => {
                if matches!(self.column.kind, Kind::Embedding | Kind::Unsupported) {
                    self.unread = Some(format!("{} is not supported", array.data_type()));
                }
            }
        }
    }

    /// Refuses what [`merge`](Self::merge) could not add.
    fn fits(&self, other: &Self) -> Result<()> {
        let texts = |kind: Kind| matches!(kind, Kind::Category | Kind::Text);
        if self.column.kind != other.column.kind && !(texts(self.column.kind) && texts(other.column.kind)) {
            return Err(Error::incompatible(format!(
                "column {:?} is {} in one profile and {} in the other",
                self.column.name,
                self.column.kind.word(),
                other.column.kind.word()
            ))
            .hint("give both the same `schema`"));
        }
        match (self.numbers().and_then(|mine| mine.bins.as_ref()), other.numbers().and_then(|theirs| theirs.bins.as_ref())) {
            (Some(mine), Some(theirs)) if mine.len() != theirs.len() => {
                Err(Error::incompatible("profiles count different bins").hint("make both with the same reference"))
            }
            _ => Ok(()),
        }
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.column.kind = self.column.kind.max(other.column.kind);
        // A short part may not show what its column is for: what one part saw stands.
        self.column.role = self.column.role.max(other.column.role);
        self.count += other.count;
        self.nulls += other.nulls;
        match (&mut self.content, &other.content) {
            (Content::Numbers(mine), Content::Numbers(theirs)) => mine.merge(theirs)?,
            (Content::Names(mine), Content::Names(theirs)) => mine.merge(theirs)?,
            (Content::Times(mine), Content::Times(Some(theirs))) => {
                let (first, last) = mine.unwrap_or(*theirs);
                *mine = Some((first.min(theirs.0), last.max(theirs.1)));
            }
            (Content::Times(_), Content::Times(None)) => {}
            (mine, _) => *mine = Content::Counted,
        }
        self.unread = [self.unread.take(), other.unread.clone()].into_iter().flatten().min();
        Ok(())
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.str(&self.column.name);
        writer.str(self.column.kind.word());
        writer.str(self.column.role.word());
        writer.u64(self.count);
        writer.u64(self.nulls);
        writer.str(self.unread.as_deref().unwrap_or(""));
        match &self.content {
            Content::Numbers(numbers) => {
                writer.u8(1);
                numbers.encode(writer);
            }
            Content::Names(names) => {
                writer.u8(2);
                names.encode(writer);
            }
            Content::Times(range) => {
                writer.u8(3);
                writer.bool(range.is_some());
                if let Some((first, last)) = range {
                    writer.i64(*first);
                    writer.i64(*last);
                }
            }
            Content::Counted => writer.u8(4),
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Self::read(reader, None)
    }

    /// Reads a column; with a reference only one of its columns, on its bins.
    fn read(reader: &mut Reader<'_>, reference: Option<&Reference>) -> Result<Self> {
        let wrong = |error: Error| Error::decode(error.message);
        let column = Column {
            name: reader.str()?.to_owned(),
            kind: reader.str()?.parse().map_err(wrong)?,
            role: reader.str()?.parse().map_err(wrong)?,
        };
        let (count, nulls) = (reader.count()?, reader.count()?);
        let unread = Some(reader.str()?.to_owned()).filter(|text| !text.is_empty());
        let fixed = reference.map(|reference| reference.column(&column.name));
        if fixed.is_some_and(|fixed| fixed.is_none_or(|fixed| fixed.profile.column != column)) {
            return Err(Error::decode(format!("column {:?} of the snapshot is none of its reference", column.name)));
        }
        let expected = fixed.flatten().map(|fixed| fixed.bins.as_ref().map_or(0, Bins::len));
        let content = match reader.u8()? {
            1 => Content::Numbers(Box::new(Numbers::decode(reader, expected)?)),
            2 => Content::Names(Box::new(Categories::decode(reader)?)),
            3 => Content::Times(if reader.bool()? { Some((reader.i64()?, reader.i64()?)) } else { None }),
            4 => Content::Counted,
            other => return Err(Error::decode(format!("unknown column content {other} in the snapshot"))),
        };
        if let (Some(expected), Content::Numbers(numbers)) = (expected, &content)
            && expected != numbers.bins.as_ref().map_or(0, Vec::len)
        {
            return Err(Error::decode(format!("column {:?} of the snapshot lacks the bins of its reference", column.name)));
        }
        let values = match &content {
            Content::Numbers(numbers) => numbers.finite() + numbers.non_finite(),
            Content::Names(names) => names.total(),
            _ => 0,
        };
        let fits = match (column.kind, &content) {
            (Kind::Number, Content::Numbers(_)) | (Kind::Category | Kind::Boolean, Content::Names(_)) | (Kind::Time, Content::Times(_)) => {
                true
            }
            (kind, Content::Counted) => kind != Kind::Number,
            _ => false,
        };
        if !fits || values.checked_add(nulls).is_none_or(|sum| sum > count) {
            return Err(Error::decode(format!("the counters of column {:?} contradict each other", column.name)));
        }
        Ok(Self { column, count, nulls, content, unread })
    }
}

/// The summary of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Rows seen; where they were sampled, the rows that those kept stand for: every counter is of these.
    pub rows: u64,
    /// Rows that were kept; as many as `rows` unless they were sampled.
    pub kept: u64,
    /// Sum of the squares of what each row that was kept stands for.
    squares: u64,
    /// Columns in the order of the schema.
    pub columns: Vec<ColumnProfile>,
    /// Identity of the reference whose bins are counted.
    pub reference: Option<String>,
    /// `[start, end)` in nanoseconds since the epoch, if it stands for a window.
    pub window: Option<(i64, i64)>,
}

impl Profile {
    /// An empty profile of these columns, counting the reference's bins if there is one.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(schema: &Schema, reference: Option<&Reference>) -> Result<Self> {
        let columns = schema.columns.iter().map(|column| ColumnProfile::new(column.clone(), reference)).collect::<Result<_>>()?;
        Ok(Self { rows: 0, kept: 0, squares: 0, columns, reference: reference.map(|reference| reference.id().to_owned()), window: None })
    }

    /// The profile that a reference holds of its own rows.
    pub fn whole(rows: u64, columns: Vec<ColumnProfile>, reference: &str) -> Self {
        Self { rows, kept: rows, squares: rows, columns, reference: Some(reference.to_owned()), window: None }
    }

    /// Adds the rows of a batch; columns are found by name. A column the batch lacks counts as null in all its rows.
    /// `reference` must be the one the profile was made with.
    ///
    /// # Errors
    /// `Incompatible` for another reference.
    pub fn update(&mut self, batch: &RecordBatch, reference: Option<&Reference>) -> Result<()> {
        self.update_on(spread::of_monitors(), batch, reference)
    }

    /// As [`update`](Self::update), with columns done as `how` does them.
    ///
    /// # Errors
    /// `Incompatible` for another reference.
    pub fn update_on(&mut self, how: Spread, batch: &RecordBatch, reference: Option<&Reference>) -> Result<()> {
        if self.reference.as_deref() != reference.map(Reference::id) {
            return Err(Error::incompatible("the profile was made with another reference"));
        }
        self.rows += batch.num_rows() as u64;
        self.kept += batch.num_rows() as u64;
        self.squares = self.squares.saturating_add(batch.num_rows() as u64);
        spread::on_each(how, batch.num_rows(), &mut self.columns, |column| {
            let bins = reference.and_then(|reference| reference.column(&column.column.name)).and_then(|fixed| fixed.bins.as_ref());
            if let Some(array) = batch.column_by_name(&column.column.name) {
                column.update(array.as_ref(), bins, &mut Vec::new());
            } else {
                column.count += batch.num_rows() as u64;
                column.nulls += batch.num_rows() as u64;
            }
        });
        Ok(())
    }

    /// Adds rows each of which stands for `2^halvings`, the others having been left out by fair coins: counters estimate those of all rows
    /// without bias (Horvitz & Thompson, JASA 1952).
    ///
    /// # Errors
    /// `Incompatible` for another reference.
    pub fn update_sampled(&mut self, batch: &RecordBatch, reference: Option<&Reference>, halvings: u32) -> Result<()> {
        if halvings == 0 {
            return self.update(batch, reference);
        }
        let mut part = Self::new(&self.schema(), reference)?;
        part.update(batch, reference)?;
        part.raise(halvings);
        part.window = self.window;
        self.merge(&part)
    }

    /// Every row stands for `2^halvings` times as many.
    fn raise(&mut self, halvings: u32) {
        self.rows <<= halvings;
        self.squares = self.squares.saturating_mul(1 << (2 * halvings));
        for column in &mut self.columns {
            column.count <<= halvings;
            column.nulls <<= halvings;
            match &mut column.content {
                Content::Numbers(numbers) => numbers.raise(halvings),
                Content::Names(names) => names.raise(halvings),
                Content::Times(_) | Content::Counted => {}
            }
        }
    }

    /// How many rows count as one independent row because they were sampled: at least 1, and 1 where none was left out (Kish, Survey
    /// Sampling, 1965: the effective size is the square of the summed weights over the sum of their squares).
    pub fn thinning(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { (self.squares as f64 / self.rows as f64).max(1.0) }
    }

    /// What was sampled, in words; `None` if nothing was left out.
    pub fn sampled(&self) -> Option<String> {
        let worth = self.rows as f64 / self.thinning();
        (self.kept < self.rows).then(|| {
            let inclusion = self.kept as f64 / self.rows as f64;
            format!(
                "sampled: {} of {} rows were kept, worth {worth:.0} independent ones; inclusion probability {inclusion:.4}",
                self.kept, self.rows
            )
        })
    }

    /// Where rows were left out, limits of how many there were, one-sided at `alpha`: those kept were each kept by coins of their own.
    pub fn rows_between(&self, alpha: f64) -> Option<(f64, f64)> {
        // Each row kept stands for w of which w² - w is the variance it tells of.
        let spread = libm::sqrt((self.squares.saturating_sub(self.rows)) as f64) * normal_quantile(1.0 - alpha);
        let rows = self.rows as f64;
        (self.kept < self.rows).then(|| ((rows - spread).max(self.kept as f64), rows + spread))
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ColumnProfile> {
        self.columns.iter().find(|column| column.column.name == name)
    }

    /// The length of its window, else of what its column of times spans, in nanoseconds; `None` if it knows no time.
    pub fn span(&self) -> Option<i64> {
        let times = self.columns.iter().find(|column| column.column.role == Role::Time);
        self.window
            .or(match times.map(|column| &column.content) {
                Some(Content::Times(Some((first, last)))) => Some((*first, *last)),
                _ => None,
            })
            .map(|(start, end)| end.saturating_sub(start).max(1))
    }

    /// Kinds and roles of its columns.
    pub fn schema(&self) -> Schema {
        Schema { columns: self.columns.iter().map(|column| column.column.clone()).collect() }
    }

    /// Adds another profile's rows. A column that one of them lacks is null there.
    ///
    /// # Errors
    /// `Incompatible` for another reference or a column of another kind; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.reference != other.reference {
            return Err(Error::incompatible("one profile counts the bins of another reference than the other")
                .hint("make both with the same `reference`, or both without"));
        }
        for (mine, theirs) in self.columns.iter().filter_map(|mine| Some((mine, other.column(&mine.column.name)?))) {
            mine.fits(theirs)?;
        }
        for column in &mut self.columns {
            if let Some(theirs) = other.column(&column.column.name) {
                column.merge(theirs)?;
            } else {
                column.count += other.rows;
                column.nulls += other.rows;
            }
        }
        for theirs in &other.columns {
            if self.column(&theirs.column.name).is_none() {
                let mut column = theirs.clone();
                column.count += self.rows;
                column.nulls += self.rows;
                self.columns.push(column);
            }
        }
        self.rows += other.rows;
        self.kept += other.kept;
        self.squares = self.squares.saturating_add(other.squares);
        self.window = match (self.window, other.window) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            _ => None,
        };
        Ok(())
    }

    /// Appends the profile to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        [self.rows, self.kept, self.squares].into_iter().for_each(|count| writer.u64(count));
        writer.str(self.reference.as_deref().unwrap_or(""));
        writer.bool(self.window.is_some());
        if let Some((start, end)) = self.window {
            writer.i64(start);
            writer.i64(end);
        }
        writer.len(self.columns.len());
        self.columns.iter().for_each(|column| column.encode(writer));
    }

    /// Reads a profile back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Self::read(reader, None)
    }

    /// Reads a profile that was made with this reference. It is checked column by column: no more memory is taken than such a profile has.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote, and for a profile of another reference.
    pub fn decode_of(reader: &mut Reader<'_>, reference: &Reference) -> Result<Self> {
        Self::read(reader, Some(reference))
    }

    fn read(reader: &mut Reader<'_>, of: Option<&Reference>) -> Result<Self> {
        let (rows, kept, squares) = (reader.count()?, reader.count()?, reader.u64()?);
        let reference = Some(reader.str()?.to_owned()).filter(|id| !id.is_empty());
        let window = if reader.bool()? { Some((reader.i64()?, reader.i64()?)) } else { None };
        let number = reader.len(8)?;
        if of.is_some_and(|of| reference.as_deref() != Some(of.id()) || number > of.columns.len()) {
            return Err(Error::decode("a profile of the snapshot belongs to another reference"));
        }
        let columns = (0..number).map(|_| ColumnProfile::read(reader, of)).collect::<Result<Vec<_>>>()?;
        if kept > rows || squares < rows || (kept == rows && squares != rows) || (kept == 0 && rows > 0) {
            return Err(Error::decode("the rows of the snapshot and those that were kept of them contradict each other"));
        }
        let out = Self { rows, kept, squares, columns, reference, window };
        out.schema().checked().map_err(|error| Error::decode(error.message))?;
        if out.columns.iter().any(|column| column.count != rows) {
            return Err(Error::decode("a column of the snapshot has another number of rows than the profile"));
        }
        Ok(out)
    }

    /// The profile as a snapshot; equal profiles give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::dense();
        self.encode(&mut writer);
        writer.seal(SnapshotKind::Profile)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::Profile)?;
        let out = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Float64Array;
    use barograph_core::hash::murmur3_of_word;

    use super::*;
    use crate::compare::compare_tested;
    use crate::report::{Method, Verdict};
    use crate::settings::Settings;

    /// Uniform values of which a tenth is null; of each 2^halvings rows one is kept, by coins.
    fn uniform(rows: u64, seed: u64, halvings: u32) -> RecordBatch {
        let draws = (0..rows).map(|row| murmur3_of_word(row, seed)).filter(|(_, coins)| coins.trailing_zeros() >= halvings);
        let values: Float64Array = draws.map(|(draw, _)| (draw % 10 != 0).then(|| (draw >> 11) as f64 / (1u64 << 53) as f64)).collect();
        RecordBatch::try_from_iter([("x", Arc::new(values) as arrow_array::ArrayRef)]).unwrap()
    }

    fn reference() -> Reference {
        let rows = uniform(20_000, 0, 0);
        let mut profile = Profile::new(&Schema::infer(&rows).unwrap(), None).unwrap();
        profile.update(&rows, None).unwrap();
        Reference::from_profile(&profile, 20, None).unwrap()
    }

    #[test]
    fn columns_done_side_by_side_are_as_those_done_in_turn() {
        let columns = (0..9).map(|at| (format!("x{at}"), Arc::clone(uniform(3000, at, 0).column(0))));
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut made =
            [Profile::new(&Schema::infer(&rows).unwrap(), None).unwrap(), Profile::new(&Schema::infer(&rows).unwrap(), None).unwrap()];
        made[0].update_on(|_, _, work| work(), &rows, None).unwrap();
        let together: Spread = |_, _, work| std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        made[1].update_on(together, &rows, None).unwrap();
        assert_eq!(made[0], made[1]);
        assert!(made[1].columns.iter().all(|column| column.count == 3000 && column.nulls > 0));
    }

    #[test]
    fn a_sampled_row_counts_as_often_as_it_stands_for() {
        let (reference, rows) = (reference(), uniform(1000, 1, 0));
        let empty = || Profile::new(&reference.schema(), Some(&reference)).unwrap();
        let (mut repeated, mut sampled) = (empty(), empty());
        for _ in 0..8 {
            repeated.update(&rows, Some(&reference)).unwrap();
        }
        sampled.update_sampled(&rows, Some(&reference), 3).unwrap();
        assert_eq!((sampled.rows, sampled.kept, sampled.thinning(), repeated.sampled()), (8000, 1000, 8.0, None));
        assert_eq!((sampled.columns[0].count, sampled.columns[0].nulls), (repeated.columns[0].count, repeated.columns[0].nulls));
        let bins = |profile: &Profile| match &profile.columns[0].content {
            Content::Numbers(numbers) => numbers.bins.clone(),
            _ => None,
        };
        assert!(bins(&sampled).is_some_and(|counts| counts == bins(&repeated).unwrap()));
        // Rows that all came and rows that were sampled: Kish's effective size is (1000 + 8000)² / (1000 + 8 · 8000).
        sampled.update(&rows, Some(&reference)).unwrap();
        assert!((sampled.rows as f64 / sampled.thinning() - 81e6 / 65e3).abs() < 1e-6);
        let mut writer = Writer::new();
        sampled.encode(&mut writer);
        assert_eq!(Profile::decode(&mut Reader::new(&writer.into_payload())).unwrap(), sampled);
        assert!(sampled.sampled().unwrap().starts_with("sampled: 2000 of 9000 rows were kept, worth 1246 "));
        assert!(Reference::from_profile(&sampled, 20, None).unwrap_err().message.contains("sampled"));
    }

    #[test]
    fn intervals_of_sampled_rows_hold_what_they_promise() {
        let reference = reference();
        let settings = Settings { confidence: 0.975, ..Settings::default() };
        let truth = 0.1 - reference.columns[0].profile.nulls as f64 / 20_000.0;
        let (mut covered, mut alarms, mut naive, mut sum) = (0, 0, 0, 0.0);
        for seed in 1..=400 {
            let mut current = Profile::new(&reference.schema(), Some(&reference)).unwrap();
            current.update_sampled(&uniform(8000, seed, 3), Some(&reference), 3).unwrap();
            sum += current.rows as f64;
            let within = |profile: &Profile| {
                let report = compare_tested(&reference, profile, &settings).unwrap();
                let alarm = report.rows.iter().any(|row| row.verdict.is_some_and(|verdict| verdict >= Verdict::Warning));
                let row = report.rows.into_iter().find(|row| row.method == Method::NullShare).unwrap();
                let told = row.reason.is_some_and(|reason| reason.contains("rows were kept"));
                assert_eq!(told, profile.kept < profile.rows);
                ((row.lower.unwrap()..=row.upper.unwrap()).contains(&truth), alarm)
            };
            let (held, alarm) = within(&current);
            covered += usize::from(held);
            alarms += usize::from(alarm);
            // As if nothing had been left out.
            (current.kept, current.squares) = (current.rows, current.rows);
            naive += usize::from(within(&current).0);
        }
        assert!((sum / 400.0 - 8000.0).abs() < 4.0 * 8000.0 / (1000.0f64 * 400.0).sqrt(), "{sum}");
        assert!(covered >= 372 && naive < 280 && alarms <= 10, "{covered} and {naive} of 400, {alarms}");
    }
}
