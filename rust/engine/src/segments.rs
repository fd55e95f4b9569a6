//! Segments of a closed window against the same segments of the reference.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use barograph_core::Result;
use barograph_core::bins::Bins;
use barograph_core::codec::{Reader, Writer};
use barograph_core::scores::Score;
use barograph_core::scores::psi::PsiTest;
use barograph_core::scores::share::ShareTest;

use crate::coarse::{Counters, Plan, SegmentCounts};
use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::{MODEL, Method, Row, Verdict};
use crate::settings::Settings;

/// A group of a segment's test needs this many rows of the reference.
const LEAST_IN_GROUP: u64 = 5;

/// Coarse counts of every segment, tile by tile, until their window closes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// Per segment column its values, nothing counted, and the columns it counts.
    columns: Vec<(SegmentCounts, Plan)>,
    tiles: BTreeMap<i64, Vec<SegmentCounts>>,
    memory: usize,
    most: usize,
    /// Segments of a column that are counted apart.
    kept: usize,
    /// Tiles that were given up because there were too many.
    pub(crate) forgotten: u64,
}

/// A segment's column, judged.
pub(crate) struct Judged {
    pub(crate) row: Row,
    pub(crate) verdict: Verdict,
    /// What an alert about it is called.
    pub(crate) name: String,
}

impl Segments {
    /// The segments of a reference, with so many bytes for tiles that are not closed.
    pub(crate) fn of(reference: &Reference, memory: usize) -> Self {
        let columns: Vec<(SegmentCounts, Plan)> =
            reference.segments.iter().map(|counts| (counts.cleared(), reference.plan(&counts.column))).collect();
        let mut out = Self { columns, tiles: BTreeMap::new(), memory, most: 0, kept: 0, forgotten: 0 };
        out.keep(usize::MAX);
        out
    }

    /// Counts so many segments of each column apart from now on, those that were largest in the reference; the others are pooled, in
    /// tiles that are not closed too. More than before are told apart in tiles that are still to come.
    pub(crate) fn keep(&mut self, segments: usize) {
        self.kept = segments;
        self.tiles.values_mut().flatten().for_each(|counts| counts.pool(segments));
        let counters: usize = self.columns.iter().map(|(counts, _)| counts.counters_of(segments)).sum();
        self.most = (self.memory / (8 * counters.max(1))).max(2);
    }

    /// Bytes of the tiles that are not closed.
    pub(crate) fn bytes(&self) -> usize {
        self.tiles.values().flatten().map(|counts| 8 * counts.counters()).sum()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Counts the rows of a tile, each of which stands for `2^halvings`.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn count(&mut self, start: i64, batch: &RecordBatch, reference: &Reference, halvings: u32) -> Result<()> {
        let (columns, kept) = (&self.columns, self.kept);
        let empty = || columns.iter().map(|(counts, _)| counts.pooled(kept)).collect();
        let tile = self.tiles.entry(start).or_insert_with(empty);
        let bins = |name: &str| reference.column(name).and_then(|fixed| fixed.bins.as_ref());
        for (counts, (_, plan)) in tile.iter_mut().zip(columns) {
            if halvings == 0 {
                counts.count(batch, plan, &bins)?;
                continue;
            }
            let mut part = counts.cleared();
            part.count(batch, plan, &bins)?;
            for _ in 0..halvings {
                part.merge(&part.clone());
            }
            counts.merge(&part);
        }
        self.keep_within();
        Ok(())
    }

    /// Counters of a tile: for each segment column, value by value, how many each of the tested columns has.
    pub(crate) fn sizes(&self) -> Vec<Vec<usize>> {
        let of_value = |plan: &Plan| plan.iter().map(|(_, groups)| groups.counters()).collect::<Vec<_>>();
        self.columns.iter().map(|(counts, plan)| of_value(plan).repeat(counts.names.len() + 1)).collect()
    }

    /// Takes the counts out, all values side by side, and of tiles in which some were pooled how many were not.
    pub(crate) fn take(&mut self) -> (Counters, BTreeMap<i64, Vec<usize>>) {
        let (mut counts, mut pooled) = (BTreeMap::new(), BTreeMap::new());
        for (start, tile) in std::mem::take(&mut self.tiles) {
            if tile.iter().zip(&self.columns).any(|(tile, (all, _))| tile.names.len() < all.names.len()) {
                pooled.insert(start, tile.iter().map(|counts| counts.names.len()).collect());
            }
            counts.insert(start, tile.iter().zip(&self.columns).map(|(tile, (all, _))| tile.flat(all.names.len())).collect());
        }
        (counts, pooled)
    }

    /// Adds counts of the same segments, of tiles that begin at or after `closed`.
    pub(crate) fn add(&mut self, tiles: &Counters, pooled: &BTreeMap<i64, Vec<usize>>, closed: i64) {
        let (columns, kept) = (&self.columns, self.kept);
        for (start, theirs) in tiles.range(closed..) {
            let empty = || columns.iter().map(|(counts, _)| counts.pooled(kept)).collect();
            let tile = self.tiles.entry(*start).or_insert_with(empty);
            for (at, ((mine, theirs), (all, _))) in tile.iter_mut().zip(theirs).zip(columns).enumerate() {
                let told = pooled.get(start).and_then(|told| told.get(at)).copied().unwrap_or(usize::MAX);
                if mine.names.len().min(told) >= all.names.len() {
                    mine.add(theirs);
                    continue;
                }
                let mut counts = all.clone();
                counts.add(theirs);
                mine.merge_pooled(&counts.pooled(told));
            }
        }
        self.keep_within();
    }

    fn keep_within(&mut self) {
        while self.tiles.len() > self.most {
            self.tiles.pop_first();
            self.forgotten += 1;
        }
    }

    /// Adds another's counts of the same segments, of tiles that begin at or after `closed`.
    pub(crate) fn merge(&mut self, other: &Self, closed: i64) {
        for (start, theirs) in other.tiles.range(closed..) {
            match self.tiles.get_mut(start) {
                Some(mine) => mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.merge_pooled(theirs)),
                None => drop(self.tiles.insert(*start, theirs.clone())),
            }
        }
        self.forgotten += other.forgotten;
        self.keep_within();
    }

    /// Judges the segments of a closed window, sampled as it says, and forgets their counts; the tests share this level.
    pub(crate) fn close(
        &mut self,
        (start, end): (i64, i64),
        whole: &Profile,
        reference: &Reference,
        settings: &Settings,
        share: f64,
    ) -> Vec<Judged> {
        let later = self.tiles.split_off(&end);
        let tiles = std::mem::replace(&mut self.tiles, later);
        let mut out = Vec::new();
        let kept = |at: usize| {
            let told = tiles.range(start..).filter_map(|(_, tile)| Some(tile.get(at)?.names.len()));
            told.min().unwrap_or(usize::MAX)
        };
        let tests: usize =
            self.columns.iter().enumerate().map(|(at, (counts, plan))| 2 * (counts.names.len().min(kept(at)) + 1) * plan.len()).sum();
        let level = (share / tests.max(1) as f64).min(settings.alpha());
        for (at, (empty, plan)) in self.columns.iter().enumerate() {
            let kept = kept(at);
            let mut counts = empty.pooled(kept);
            tiles.range(start..).filter_map(|(_, tile)| tile.get(at)).for_each(|tile| counts.merge(&tile.pooled(kept)));
            let Some(fixed) = reference.segments.get(at).map(|fixed| fixed.pooled(kept)) else { continue };
            for ((name, was), (_, is)) in fixed.segments().zip(counts.segments()) {
                let segment = format!("{}={name}", empty.column);
                let row = |column: &str, method: Method| Row {
                    window_start: Some(start),
                    window_end: Some(end),
                    segment: Some(segment.clone()),
                    reference: Some(reference.id().to_owned()),
                    reason: whole.sampled(),
                    ..Row::blank(column, method)
                };
                let rows = is.first().and_then(|counts| counts.last()).copied().unwrap_or(0);
                if rows == 0 {
                    continue;
                }
                let events = Row { value: Some(rows as f64), n_current: Some(rows), ..row(MODEL, Method::Events) };
                out.push(Judged { row: events, verdict: Verdict::Ok, name: String::new() });
                for (((column, groups), was), is) in plan.iter().zip(was).zip(is) {
                    let factor = reference.column(column).and_then(|fixed| fixed.dependence_over(end - start));
                    let factor = if settings.dependence { factor.map_or(1.0, |known| known.values) } else { 1.0 };
                    let factors = (factor, factor * whole.thinning());
                    let psi = psi(was, is, groups.len, factors, settings, level, row(column, Method::Psi));
                    let nulls = nulls(was, is, groups.len, whole.thinning(), settings, level, row(column, Method::NullShare));
                    let name = format!("{column} [{segment}]");
                    let worst = [psi, nulls].into_iter().flatten().max_by_key(|(_, verdict)| *verdict);
                    out.extend(worst.map(|(row, verdict)| Judged { row, verdict, name }));
                }
            }
        }
        out
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.tiles.len());
        for (start, tile) in &self.tiles {
            writer.i64(*start);
            tile.iter().for_each(|counts| counts.encode(writer));
        }
    }

    /// Reads the counts of open windows back.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub(crate) fn restore(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        for _ in 0..reader.len(1)? {
            let start = reader.i64()?;
            let mut tile = Vec::new();
            for (known, plan) in &self.columns {
                let counts = SegmentCounts::decode(reader, |_| plan.iter().map(|(_, groups)| groups.counters()).collect())?;
                if counts.column != known.column || !known.names.starts_with(&counts.names) {
                    return Err(barograph_core::Error::decode("the segments of a monitor are not those of its reference"));
                }
                tile.push(counts);
            }
            self.tiles.insert(start, tile);
        }
        Ok(())
    }
}

/// PSI of the groups, and what is in none, as a group of its own; counts of both sides are divided by their factors.
pub(crate) fn psi(
    was: &[u64],
    is: &[u64],
    groups: usize,
    factors: (f64, f64),
    settings: &Settings,
    level: f64,
    row: Row,
) -> Option<(Row, Verdict)> {
    let counts = |side: &[u64]| -> Vec<u64> {
        let known = &side[..groups];
        let rest = side[groups].saturating_sub(known.iter().sum());
        known.iter().copied().chain((rest > 0).then_some(rest)).collect()
    };
    let (mut p, mut q) = (counts(was), counts(is));
    let len = p.len().max(q.len());
    p.resize(len, 0);
    q.resize(len, 0);
    let unions = Bins::unions(&p, len, LEAST_IN_GROUP);
    let united = |counts: &[u64], factor: f64| {
        let mut out = vec![0.0; unions.last().map_or(0, |last| last + 1)];
        unions.iter().zip(counts).for_each(|(union, count)| out[*union] += *count as f64 / factor);
        out
    };
    let (p, q) = (united(&p, factors.0), united(&q, factors.1));
    let (n, m) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    if p.len() < 2 || n.min(m) < 10.0 * p.len() as f64 {
        return None;
    }
    let test = PsiTest::new(&p, &q, settings.smoothing).ok()?;
    let score = test.score(settings.psi_tolerances[1], settings.confidence);
    let p_values = settings.psi_tolerances.map(|tolerance| test.p_value(tolerance));
    let row = Row { threshold: Some(settings.psi_tolerances[1]), n_reference: Some(was[groups]), n_current: Some(is[groups]), ..row };
    Some(tested(row, &score, p_values, level, settings.alpha()))
}

/// The share of nulls; counts of the current side are divided by their thinning.
pub(crate) fn nulls(
    was: &[u64],
    is: &[u64],
    groups: usize,
    thinning: f64,
    settings: &Settings,
    level: f64,
    row: Row,
) -> Option<(Row, Verdict)> {
    let of = |side: &[u64]| (side[groups + 1] as f64, side[groups + 2] as f64);
    let ((p, n), (q, m)) = (of(was), of(is));
    let test = ShareTest::new(p, n, q / thinning, m / thinning).ok()?;
    let score = test.score(settings.share_tolerances[1], settings.confidence);
    let p_values = settings.share_tolerances.map(|tolerance| test.p_value(tolerance));
    let row = Row { threshold: Some(settings.share_tolerances[1]), n_reference: Some(n as u64), n_current: Some(m as u64), ..row };
    Some(tested(row, &score, p_values, level, settings.alpha()))
}

/// The row of a test with its verdict: the largest tolerance rejected at this level, `info` at `alpha`.
fn tested(row: Row, score: &Score, p: [f64; 3], level: f64, alpha: f64) -> (Row, Verdict) {
    let verdict = match p {
        [_, _, critical] if critical <= level => Verdict::Critical,
        [_, warning, _] if warning <= level => Verdict::Warning,
        [info, ..] if info <= alpha => Verdict::Info,
        _ => Verdict::Ok,
    };
    let row = Row {
        value: Some(score.value),
        lower: score.lower,
        upper: score.upper,
        interval: Some("confidence".into()),
        p_value: Some(p[1]),
        verdict: Some(verdict),
        ..row
    };
    (row, verdict)
}
