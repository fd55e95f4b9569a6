//! A reference: a frozen profile and the bins it fixes.

use arrow_array::RecordBatch;
use barograph_core::bins::{Bins, DEFAULT_BINS};
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::hash::murmur3_x64_128;
use barograph_core::{Error, Result};

use crate::coarse::{self, Plan, SegmentCounts};
use crate::dependence::{Collector, Dependence};
use crate::frame;
use crate::profile::{ColumnProfile, Profile};
use crate::schema::{Kind, Role, Schema};
use crate::seasons::{Calendar, Season, SeasonCounter};

/// Values per column kept in memory while edges are found; beyond it every 2^j-th value stands for its neighbours.
const EDGE_VALUES: usize = 1 << 20;

/// One column of a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceColumn {
    /// The profile; its `bins` are counted on the edges below.
    pub profile: ColumnProfile,
    /// The edges, for columns of numbers with at least one finite value.
    pub bins: Option<Bins>,
    /// How much rows of one window resemble each other, for a few lengths in ascending order; empty without times.
    pub dependence: Vec<Dependence>,
}

impl ReferenceColumn {
    /// The dependence factors for a window of this length: of the next longer one that is known, else of the longest.
    pub fn dependence_over(&self, length: i64) -> Option<&Dependence> {
        self.dependence.iter().find(|factor| factor.length >= length).or(self.dependence.last())
    }
}

/// A frozen profile plus the bins it fixes: what current rows are compared with. No raw rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    id: String,
    /// Rows it was made of.
    pub rows: u64,
    /// The columns.
    pub columns: Vec<ReferenceColumn>,
    /// When it was made, in nanoseconds since the epoch; not part of its identity.
    pub created: Option<i64>,
    /// Coarse counts by the values of the columns of role segment.
    pub segments: Vec<SegmentCounts>,
    /// Coarse counts by calendar bucket, if it was made with a season.
    pub season: Option<Season>,
    /// Whether the counts are of whole values (rows were read) or of histogram cells (made from a profile).
    pub from_rows: bool,
}

impl Reference {
    fn new(
        rows: u64,
        columns: Vec<ReferenceColumn>,
        segments: Vec<SegmentCounts>,
        season: Option<Season>,
        created: Option<i64>,
        from_rows: bool,
    ) -> Self {
        let mut out = Self { id: String::new(), rows, columns, segments, season, created, from_rows };
        let mut writer = Writer::new();
        out.encode_content(&mut writer);
        let (high, low) = murmur3_x64_128(&writer.into_payload(), 0);
        out.id = format!("{high:016x}{low:016x}");
        out
    }

    /// A reference from a profile: its bins follow the cells of the histograms.
    ///
    /// # Errors
    /// `InvalidArgument` for a number of bins outside [2, 10000], and for a profile of sampled rows, which are worth fewer than they count.
    pub fn from_profile(profile: &Profile, bins: usize, created: Option<i64>) -> Result<Self> {
        if let Some(sampled) = profile.sampled() {
            return Err(Error::invalid(format!("`profile` cannot become a reference ({sampled})")).hint("use a window without sampling"));
        }
        let mut columns = Vec::with_capacity(profile.columns.len());
        for column in &profile.columns {
            let mut column = column.clone();
            let mut edges = None;
            if let crate::profile::Content::Numbers(numbers) = &mut column.content {
                numbers.bins = None;
                if numbers.finite() > 0 {
                    let cells = numbers.histogram.cells();
                    let fixed = Bins::from_cells(&cells, f64::MIN, f64::MAX, bins)?;
                    let mut counts = vec![0; fixed.len()];
                    cells.iter().for_each(|cell| counts[fixed.index(cell.value())] += cell.count);
                    numbers.bins = Some(counts);
                    edges = Some(fixed);
                }
            }
            columns.push(ReferenceColumn { profile: column, bins: edges, dependence: Vec::new() });
        }
        Ok(Self::new(profile.rows, columns, Vec::new(), None, created, false))
    }

    /// The same with histograms of `2^scale` cells per octave, at most 2^6: profiles made with it take less memory, and their quantiles
    /// are less exact. Bins and tests stay.
    ///
    /// # Errors
    /// `InvalidArgument` for a scale above the one it has.
    pub fn coarsened(&self, scale: u8) -> Result<Self> {
        let mut columns = self.columns.clone();
        for column in &mut columns {
            if let crate::profile::Content::Numbers(numbers) = &mut column.profile.content {
                numbers.histogram = numbers.histogram.downscale(scale)?;
            }
        }
        Ok(Self::new(self.rows, columns, self.segments.clone(), self.season.clone(), self.created, self.from_rows))
    }

    /// Identity: a hash of its content, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ReferenceColumn> {
        self.columns.iter().find(|column| column.profile.column.name == name)
    }

    /// Kinds and roles of its columns.
    pub fn schema(&self) -> Schema {
        Schema { columns: self.columns.iter().map(|column| column.profile.column.clone()).collect() }
    }

    /// The columns that are tested for drift.
    pub(crate) fn tested(&self) -> Vec<&str> {
        let tested = self.columns.iter().map(|column| &column.profile.column).filter(|column| column.role.is_tested());
        tested.map(|column| column.name.as_str()).collect()
    }

    fn encode_content(&self, writer: &mut Writer) {
        writer.u64(self.rows);
        writer.bool(self.from_rows);
        writer.len(self.columns.len());
        for column in &self.columns {
            column.profile.encode(writer);
            writer.bool(column.bins.is_some());
            if let Some(bins) = &column.bins {
                bins.encode(writer);
            }
            writer.len(column.dependence.len());
            column.dependence.iter().for_each(|factor| factor.encode(writer));
        }
        writer.len(self.segments.len());
        self.segments.iter().for_each(|segments| segments.encode(writer));
        writer.bool(self.season.is_some());
        if let Some(season) = &self.season {
            season.encode(writer);
        }
    }

    /// The columns that segments of this one are counted by.
    pub(crate) fn plan(&self, segment: &str) -> Plan {
        coarse::plan(self.columns.iter().map(|column| &column.profile), segment)
    }

    /// The reference as a snapshot.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.i64(self.created.unwrap_or(i64::MIN));
        self.encode_content(&mut writer);
        writer.seal(SnapshotKind::Reference)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::Reference)?;
        let created = Some(reader.i64()?).filter(|created| *created != i64::MIN);
        let (rows, from_rows) = (reader.u64()?, reader.bool()?);
        let mut columns = Vec::new();
        for _ in 0..reader.len(8)? {
            let profile = ColumnProfile::decode(&mut reader)?;
            let bins = if reader.bool()? { Some(Bins::decode(&mut reader)?) } else { None };
            let counted = profile.numbers().and_then(|numbers| numbers.bins.as_ref()).map(Vec::len);
            if counted != bins.as_ref().map(Bins::len) || profile.count != rows {
                return Err(Error::decode(format!("the bins of column {:?} contradict its counters", profile.column.name)));
            }
            let dependence = (0..reader.len(34)?).map(|_| Dependence::decode(&mut reader)).collect::<Result<Vec<_>>>()?;
            if !dependence.is_sorted_by(|a, b| a.length < b.length) {
                return Err(Error::decode(format!("the dependence factors of column {:?} are out of order", profile.column.name)));
            }
            columns.push(ReferenceColumn { profile, bins, dependence });
        }
        let sizes = |segment: &str| -> Vec<usize> {
            let columns = columns.iter().map(|column: &ReferenceColumn| &column.profile);
            coarse::plan(columns, segment).iter().map(|(_, groups)| groups.counters()).collect()
        };
        let segments = (0..reader.len(2)?).map(|_| SegmentCounts::decode(&mut reader, sizes)).collect::<Result<Vec<_>>>()?;
        let season = if reader.bool()? { Some(Season::decode(&mut reader, &sizes(""))?) } else { None };
        reader.finish()?;
        let of_segments = columns.iter().filter(|column| coarse::is_segment(&column.profile)).map(|column| &column.profile.column.name);
        if !segments.is_empty() && !of_segments.eq(segments.iter().map(|segments| &segments.column)) {
            return Err(Error::decode("the segments of a reference are not those of its columns"));
        }
        let out = Self::new(rows, columns, segments, season, created, from_rows);
        out.schema().checked().map_err(|error| Error::decode(error.message))?;
        Ok(out)
    }
}

/// Every 2^j-th value of a column, at most [`EDGE_VALUES`] of them.
#[derive(Debug, Default)]
struct EdgeSample {
    values: Vec<f64>,
    stride: u32,
    seen: u64,
}

impl EdgeSample {
    fn extend(&mut self, block: &[f64]) {
        for value in block.iter().filter(|v| v.is_finite()) {
            if self.seen & ((1 << self.stride) - 1) == 0 {
                if self.values.len() == EDGE_VALUES {
                    let mut at = 0usize;
                    self.values.retain(|_| {
                        at += 1;
                        at % 2 == 1
                    });
                    self.stride += 1;
                }
                if self.seen & ((1 << self.stride) - 1) == 0 {
                    self.values.push(*value);
                }
            }
            self.seen += 1;
        }
    }
}

/// What the next pass over the frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Profiles, and values to take the edges from.
    Edges,
    /// The counters of columns whose values were thinned.
    Counters,
    /// Segments and seasons, whose groups follow from the counters.
    Groups,
}

/// Makes a reference from rows: one pass over the frame, one more where it holds more than a million rows, one more for segments and
/// seasons.
#[derive(Debug)]
pub struct ReferenceBuilder {
    profile: Profile,
    samples: Vec<EdgeSample>,
    pass: Pass,
    counted: Option<Vec<ReferenceColumn>>,
    segments: Vec<SegmentCounts>,
    season: Option<SeasonCounter>,
    /// Present if some column holds the time of the rows.
    windows: Option<Collector>,
    bins: usize,
}

impl ReferenceBuilder {
    /// A builder for these columns with about `bins` bins per column of numbers.
    ///
    /// # Errors
    /// `InvalidArgument` for a number of bins outside [2, 10000], or a season without a column of times.
    pub fn new(schema: &Schema, bins: Option<usize>, season: Option<Calendar>) -> Result<Self> {
        let bins = bins.unwrap_or(DEFAULT_BINS);
        if !(2..=10_000).contains(&bins) {
            return Err(Error::invalid(format!("`bins` must be in [2, 10000], got {bins}")));
        }
        let samples = schema.columns.iter().map(|_| EdgeSample::default()).collect();
        let time = schema.columns.iter().find(|column| column.role == Role::Time && column.kind == Kind::Time);
        if season.is_some() && time.is_none() {
            let hint = "give one the role time: `Schema.infer(frame).with_roles(at=\"time\")`";
            return Err(Error::invalid("`season` needs a column of role time, the frame has none").hint(hint));
        }
        let season = season.zip(time).map(|(calendar, time)| SeasonCounter::new(calendar, &time.name));
        let windows = time.map(|time| Collector::new(&time.name, schema.columns.len()));
        Ok(Self {
            profile: Profile::new(schema, None)?,
            samples,
            pass: Pass::Edges,
            counted: None,
            segments: Vec::new(),
            season,
            windows,
            bins,
        })
    }

    /// First pass over the rows.
    ///
    /// # Errors
    /// None in practice.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.profile.update(batch, None)?;
        for (column, sample) in self.profile.columns.iter().zip(&mut self.samples) {
            if let (Kind::Number, Some(array)) = (column.column.kind, batch.column_by_name(&column.column.name)) {
                frame::numbers(array.as_ref(), &mut |block| sample.extend(block));
            }
        }
        if let Some(windows) = &mut self.windows {
            let columns: Vec<_> = self.profile.columns.iter().map(|column| &column.column).collect();
            windows.update(batch, &columns)?;
        }
        Ok(())
    }

    /// Ends a pass. True if another one has to follow: call [`count`](Self::count) with every batch again, and this.
    ///
    /// # Errors
    /// None in practice.
    pub fn fix(&mut self) -> Result<bool> {
        let thinned = match self.pass {
            Pass::Edges => self.edges()?,
            Pass::Counters => false,
            Pass::Groups => return Ok(false),
        };
        if thinned {
            self.pass = Pass::Counters;
            return Ok(true);
        }
        self.pass = Pass::Groups;
        let columns = self.counted.as_deref().unwrap_or_default();
        let of_segments = columns.iter().map(|column| &column.profile).filter(|profile| coarse::is_segment(profile));
        let plan = |segment: &str| coarse::plan(columns.iter().map(|column| &column.profile), segment);
        self.segments = of_segments.map(|profile| SegmentCounts::new(profile, &plan(&profile.column.name))).collect();
        Ok(!self.segments.is_empty() || self.season.is_some())
    }

    /// Fixes the edges; true if values were thinned, so that they have to be counted anew.
    fn edges(&mut self) -> Result<bool> {
        let mut columns = Vec::with_capacity(self.samples.len());
        let mut again = false;
        for (at, (column, sample)) in self.profile.columns.iter().zip(&mut self.samples).enumerate() {
            let mut profile = column.clone();
            let (mut edges, mut dependence) = (None, Vec::new());
            if let (crate::profile::Content::Numbers(numbers), false) = (&mut profile.content, sample.values.is_empty()) {
                let values = std::mem::take(&mut sample.values);
                let thinned = sample.stride > 0;
                let mut bins = Bins::from_values(&values, self.bins)?;
                if let (true, Some(min), Some(max)) = (thinned, numbers.min(), numbers.max()) {
                    // The sample missed the extremes: the outer bins reach out to them.
                    let mut stretched = bins.edges().to_vec();
                    let last = stretched.len() - 1;
                    stretched[0] = stretched[0].min(min.next_down());
                    stretched[last] = stretched[last].max(max);
                    bins = Bins::from_edges(stretched)?;
                }
                let mut counts = vec![0; bins.len()];
                bins.count(&values, &mut counts);
                let windows = self.windows.as_ref();
                dependence = windows.map_or_else(Vec::new, |windows| windows.factors(at, Some((&bins, &counts))));
                if thinned {
                    again = true;
                    counts.fill(0);
                }
                numbers.bins = Some(counts);
                edges = Some(bins);
            } else if let (crate::profile::Content::Names(_), Some(windows)) = (&profile.content, &self.windows) {
                dependence = windows.factors(at, None);
            }
            columns.push(ReferenceColumn { profile, bins: edges, dependence });
        }
        self.counted = Some(columns);
        Ok(again)
    }

    /// Another pass over the rows.
    ///
    /// # Errors
    /// None in practice.
    pub fn count(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.pass == Pass::Groups {
            let columns = self.counted.as_deref().unwrap_or_default();
            let plan = |segment: &str| coarse::plan(columns.iter().map(|column| &column.profile), segment);
            for segments in &mut self.segments {
                let bins = |name: &str| columns.iter().find(|column| column.profile.column.name == name)?.bins.as_ref();
                segments.count(batch, &plan(&segments.column), &bins)?;
            }
            return self.season.as_mut().map_or(Ok(()), |season| season.count(batch, &plan(""), columns));
        }
        for (column, _) in self.counted.iter_mut().flatten().zip(&self.samples).filter(|(_, sample)| sample.stride > 0) {
            let Some(array) = batch.column_by_name(&column.profile.column.name) else { continue };
            let (Some(bins), crate::profile::Content::Numbers(numbers)) = (&column.bins, &mut column.profile.content) else { continue };
            let Some(counts) = &mut numbers.bins else { continue };
            let mut finite = Vec::new();
            frame::numbers(array.as_ref(), &mut |block| {
                finite.clear();
                finite.extend(block.iter().filter(|v| v.is_finite()));
                bins.count(&finite, counts);
            });
        }
        Ok(())
    }

    /// The reference.
    ///
    /// # Errors
    /// `InvalidArgument` if the second pass saw other rows than the first.
    pub fn finish(mut self, created: Option<i64>) -> Result<Reference> {
        if self.counted.is_none() {
            self.edges()?;
        }
        let columns = self.counted.take().unwrap_or_default();
        for column in &columns {
            if let Some(numbers) = column.profile.numbers()
                && let Some(counts) = &numbers.bins
                && counts.iter().sum::<u64>() != numbers.finite()
            {
                return Err(Error::invalid(format!(
                    "column {:?} changed between two passes over the reference",
                    column.profile.column.name
                ))
                .hint("pass a frame or files that do not change while they are read"));
            }
        }
        let plan = coarse::plan(columns.iter().map(|column| &column.profile), "");
        let season = self.season.map(|season| season.finish(&plan));
        Ok(Reference::new(self.profile.rows, columns, self.segments, season, created, true))
    }
}
