//! Bins fixed by a reference and counted exactly.
//!
//! A bin is the set of doubles in `(edge, next edge]`. About 1,000 of them hold equal shares of the reference; a value
//! that alone holds more than one share (an atom: 0, -1, 99999) stands in a bin of its own. Two more count what lies
//! below and above everything the reference saw.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::sketches::exponential_histogram::Cell;

/// Bins made of a reference by default: deciles and ventiles are unions of them.
pub const DEFAULT_BINS: usize = 1000;
/// Most edges of a column.
pub const MAX_EDGES: usize = 1 << 16;
const GUIDE_CELLS: usize = 8192;
/// Marks a guide cell with more edges than are compared at once; the rest of the number is how many edges lie before the cell.
const CROWDED: u32 = 1 << 31;
/// Edges of a cell that are compared at once, at most.
const MOST_COMPARES: usize = 2;

/// Buckets that values are dealt into when edges are looked for, and the values that are sorted to find them.
const BUCKETS: usize = 4096;
const BUCKET_SAMPLE: usize = 16_384;

/// How a value finds the stretch of edges it can lie between. Any monotone map will do: an exact compare decides.
#[derive(Clone, Copy, Debug)]
enum Grid {
    /// Equal steps between the outer edges.
    Linear { start: f64, per_unit: f64 },
    /// Equal steps of the sortable bits: for data that spread over magnitudes.
    Bits { start: i32, end: i32, shift: u32 },
}

/// The upper half of a double's bits in an order that agrees with `<`.
#[inline]
fn sortable(value: f64) -> i32 {
    let upper = (value.to_bits() >> 32) as i32;
    upper ^ (upper >> 31 & i32::MAX)
}

impl Grid {
    #[inline]
    fn cell(self, value: f64) -> usize {
        match self {
            // Adding 2^52 leaves the rounded number in the low bits; the mask only tells the compiler so.
            Self::Linear { start, per_unit } => {
                let at = ((value - start) * per_unit).clamp(0.0, (GUIDE_CELLS - 1) as f64);
                (at + 4_503_599_627_370_496.0).to_bits() as usize & (GUIDE_CELLS - 1)
            }
            Self::Bits { start, end, shift } => (sortable(value).clamp(start, end).wrapping_sub(start) as u32 >> shift) as usize,
        }
    }
}

/// The edges of a reference's bins and the way to find a value's bin quickly.
#[derive(Clone, Debug)]
pub struct Bins {
    /// The edges, and [`MOST_COMPARES`] infinities after them.
    padded: Vec<f64>,
    grid: Grid,
    /// Edges that are compared at once: 1, or 2 where atoms or crowds would make one too few.
    compares: u32,
    /// Edges before each cell, marked where it holds several; one more at the end.
    guide: Vec<u32>,
}

/// Closes bins while runs of values go by in ascending order.
struct Walk {
    limit: f64,
    edges: Vec<f64>,
    open: u64,
    last: f64,
}

impl Walk {
    fn new(total: u64, bins: usize) -> Result<Self> {
        if !(2..=10_000).contains(&bins) {
            return Err(Error::invalid(format!("`bins` must be in [2, 10000], got {bins}")));
        }
        Ok(Self { limit: total as f64 / bins as f64, edges: Vec::with_capacity(bins + 2), open: 0, last: f64::NAN })
    }

    /// The edges from values in any order.
    fn over(values: &[f64], bins: usize) -> Result<Vec<f64>> {
        let mut walk = Self::new(values.len() as u64, bins)?;
        walk.all(&mut values.to_vec());
        Ok(walk.finish())
    }

    /// `count` values within `[lower, upper]` that no edge may part.
    fn run(&mut self, lower: f64, upper: f64, count: u64) {
        if self.edges.is_empty() {
            self.edges.push(lower.next_down());
        }
        if self.open > 0 && (self.open + count) as f64 > self.limit {
            self.edges.push(self.last);
            self.open = 0;
        }
        if count as f64 > self.limit {
            // An atom: whatever lies between the last bin and it gets a bin of its own.
            if self.edges.last().is_some_and(|edge| *edge < lower.next_down()) {
                self.edges.push(lower.next_down());
            }
            self.edges.push(upper);
        } else {
            self.open += count;
        }
        self.last = upper;
    }

    /// Values in any order, all above those that went by. Where few bins end among them, selection is cheaper than sorting.
    fn all(&mut self, mut values: &mut [f64]) {
        if values.len() as f64 > 8.0 * self.limit {
            values.sort_unstable_by(f64::total_cmp);
            values.chunk_by(|a, b| a == b).for_each(|run| self.run(run[0] + 0.0, run[0] + 0.0, run.len() as u64));
            return;
        }
        while (self.open + values.len() as u64) as f64 > self.limit {
            // What is below the first value that the open bin has no room for fits as a whole.
            let room = ((self.limit - self.open as f64) as usize).min(values.len() - 1);
            let (below, first, above) = values.select_nth_unstable_by(room, f64::total_cmp);
            let first = *first;
            let smaller = below.iter().filter(|value| **value < first);
            let count = smaller.clone().count();
            self.whole(smaller.copied(), count);
            let mut same = 1 + below.len() - count;
            let mut kept = 0;
            for at in 0..above.len() {
                if above[at] == first {
                    same += 1;
                } else {
                    above[kept] = above[at];
                    kept += 1;
                }
            }
            self.run(first + 0.0, first + 0.0, same as u64);
            values = &mut above[..kept];
        }
        self.whole(values.iter().copied(), values.len());
    }

    /// Values in any order that the open bin has room for.
    fn whole(&mut self, values: impl Iterator<Item = f64>, count: usize) {
        if count > 0 {
            let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
            self.run(least + 0.0, most + 0.0, count as u64);
        }
    }

    fn finish(mut self) -> Vec<f64> {
        if self.open > 0 {
            self.edges.push(self.last);
        }
        self.edges
    }
}

impl PartialEq for Bins {
    fn eq(&self, other: &Self) -> bool {
        self.padded == other.padded
    }
}

impl Bins {
    /// Bins from the reference's values, finite, at least one, in any order.
    ///
    /// Bins are closed before they exceed `1/bins` of the values, so there may be up to twice as many. About 14 ns per value:
    /// values are dealt into buckets by a sample of them, and the ends of bins are selected inside them.
    ///
    /// # Errors
    /// `InvalidArgument` without values or with fewer than 2 or more than 10,000 bins.
    pub fn from_values(values: &[f64], bins: usize) -> Result<Self> {
        if values.len() < 4 * BUCKET_SAMPLE {
            return Self::from_edges(Walk::over(values, bins)?);
        }
        let sample: Vec<f64> = values.iter().step_by(values.len() / BUCKET_SAMPLE).copied().collect();
        let splitters = Self::from_edges(Walk::over(&sample, BUCKETS)?)?;
        let mut ends = vec![0u64; splitters.len()];
        splitters.count(values, &mut ends);
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut dealt = values.to_vec();
        for value in values {
            let end = &mut ends[splitters.index(*value)];
            dealt[*end as usize] = *value;
            *end += 1;
        }
        let mut walk = Walk::new(values.len() as u64, bins)?;
        let mut rest = dealt.as_mut_slice();
        let mut start = 0;
        for end in ends {
            let (bucket, later) = rest.split_at_mut((end - start) as usize);
            (rest, start) = (later, end);
            walk.all(bucket);
        }
        Self::from_edges(walk.finish())
    }

    /// Bins from the cells of a histogram, for a reference that is known only as a profile.
    ///
    /// # Errors
    /// As [`from_values`](Self::from_values).
    pub fn from_cells(cells: &[Cell], lowest: f64, highest: f64, bins: usize) -> Result<Self> {
        let mut walk = Walk::new(cells.iter().map(|cell| cell.count).sum(), bins)?;
        for cell in cells {
            // A negative cell is closed on its left: step down so that `(lower, upper]` holds it.
            let (lower, upper) = if cell.upper <= 0.0 && cell.lower < 0.0 {
                (cell.lower, cell.upper.next_down())
            } else if cell.lower == cell.upper {
                (cell.lower, cell.upper)
            } else {
                (cell.lower.next_up(), cell.upper)
            };
            walk.run(lower.max(lowest), upper.min(highest), cell.count);
        }
        Self::from_edges(walk.finish())
    }

    /// Bins between given edges, at least two, strictly ascending, finite but for a first one of -inf.
    ///
    /// # Errors
    /// `InvalidArgument` otherwise.
    pub fn from_edges(edges: Vec<f64>) -> Result<Self> {
        let finite = edges.iter().skip(1).all(|edge| edge.is_finite()) && edges.first().is_some_and(|edge| *edge < f64::INFINITY);
        if edges.len() < 2 || edges.len() > MAX_EDGES || !finite || !edges.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!("bins need at least two finite ascending edges, got {} edges", edges.len())));
        }
        // The guide covers all edges or leaves out a few at both ends, where heavy tails would take most of its cells.
        let grids = [0, 1, 4, 16].into_iter().filter(|trim| 2 * trim + 1 < edges.len()).flat_map(|trim| {
            let (lowest, highest) = (edges[trim].max(f64::MIN), edges[edges.len() - 1 - trim]);
            let per_unit = (GUIDE_CELLS - 1) as f64 / (highest - lowest);
            let (start, end) = (sortable(lowest), sortable(highest));
            let shift = 32 - (end.wrapping_sub(start) as u32 / GUIDE_CELLS as u32).leading_zeros();
            [Grid::Linear { start: lowest, per_unit }, Grid::Bits { start, end, shift }]
        });
        let best = grids
            .filter(|grid| !matches!(grid, Grid::Linear { per_unit, .. } if !per_unit.is_finite() || *per_unit <= 0.0))
            .map(|grid| {
                let mut guide = vec![0u32; GUIDE_CELLS + 1];
                edges.iter().for_each(|edge| guide[grid.cell(*edge) + 1] += 1);
                // Edges that share a cell cost a search: the sum of squares is what a value of the reference pays.
                let cost: u64 = guide.iter().map(|c| u64::from(*c).pow(2)).sum();
                (cost, grid, guide)
            })
            .min_by_key(|(cost, ..)| *cost);
        let Some((_, grid, mut guide)) = best else { return Err(Error::invalid("bins need edges that differ")) };
        let in_pairs = guide.iter().filter(|count| **count > 1).count();
        let atoms = edges.windows(2).any(|pair| pair[0].next_up() == pair[1]);
        let compares = if atoms || in_pairs * 50 > edges.len() { 2 } else { 1 };
        let mut before = 0;
        for at in 0..GUIDE_CELLS {
            before += guide[at];
            guide[at] = before | if guide[at + 1] > compares { CROWDED } else { 0 };
        }
        guide[GUIDE_CELLS] += before;
        let mut padded = edges;
        padded.extend([f64::INFINITY; MOST_COMPARES]);
        Ok(Self { padded, grid, compares, guide })
    }

    /// The edges: bin `i` of `1..edges.len()` is `(edges[i-1], edges[i]]`; 0 lies below, `edges.len()` above.
    pub fn edges(&self) -> &[f64] {
        &self.padded[..self.padded.len() - MOST_COMPARES]
    }

    /// Counters, the ones for below and above included.
    pub fn len(&self) -> usize {
        self.edges().len() + 1
    }

    /// Never: there is at least one bin.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The counter of a finite value: the number of edges below it.
    pub fn index(&self, value: f64) -> usize {
        self.index_in::<MOST_COMPARES>(self.grid.cell(value), value)
    }

    #[inline]
    fn index_in<const COMPARES: usize>(&self, cell: usize, value: f64) -> usize {
        let before = self.guide[cell & (GUIDE_CELLS - 1)];
        if before & CROWDED != 0 {
            let (at, end) = ((before & !CROWDED) as usize, (self.guide[cell + 1] & !CROWDED) as usize);
            return at + self.padded[at..end].partition_point(|edge| *edge < value);
        }
        // Edges of later cells are not below the value, so that comparing with one of them is harmless.
        let edges = &self.padded[before as usize..][..COMPARES];
        before as usize + edges.iter().map(|edge| usize::from(*edge < value)).sum::<usize>()
    }

    /// Counts finite values into `counts`, which has [`len`](Self::len) entries.
    pub fn count(&self, values: &[f64], counts: &mut [u64]) {
        // One loop per grid and number of compares, so that the choice is made once and not per value.
        match (self.grid, self.compares) {
            (Grid::Linear { start, per_unit }, 1) => {
                self.count_in::<1>(values, counts, |value| Grid::Linear { start, per_unit }.cell(value));
            }
            (Grid::Linear { start, per_unit }, _) => {
                self.count_in::<2>(values, counts, |value| Grid::Linear { start, per_unit }.cell(value));
            }
            (Grid::Bits { start, end, shift }, 1) => {
                self.count_in::<1>(values, counts, |value| Grid::Bits { start, end, shift }.cell(value));
            }
            (Grid::Bits { start, end, shift }, _) => {
                self.count_in::<2>(values, counts, |value| Grid::Bits { start, end, shift }.cell(value));
            }
        }
    }

    fn count_in<const COMPARES: usize>(&self, values: &[f64], counts: &mut [u64], cell: impl Fn(f64) -> usize) {
        // Cells first: that loop has no look-up in it and becomes vector code.
        let mut cells = [0; 128];
        for block in values.chunks(cells.len()) {
            cells.iter_mut().zip(block).for_each(|(to, value)| *to = cell(*value));
            for (value, cell) in block.iter().zip(&cells) {
                if let Some(count) = counts.get_mut(self.index_in::<COMPARES>(*cell, *value)) {
                    *count += 1;
                }
            }
        }
    }

    /// Unions of neighbouring bins with about equal reference counts: for each counter the union it joins.
    ///
    /// Below joins the first, above the last union. A union with fewer than `minimum` reference rows joins its neighbour.
    pub fn unions(reference: &[u64], unions: usize, minimum: u64) -> Vec<usize> {
        let total: u64 = reference.iter().sum();
        let mut groups = Vec::with_capacity(reference.len());
        let (mut group, mut seen, mut inside) = (0usize, 0u64, 0u64);
        for (at, count) in reference.iter().enumerate() {
            // A bin goes where its middle lies, so that an atom does not drag its neighbours along.
            let middle = seen as f64 + *count as f64 / 2.0;
            let want = ((middle / total.max(1) as f64 * unions as f64) as usize).min(unions - 1);
            if at > 0 && *count > 0 && want > group && inside >= minimum.max(1) {
                group = want;
                inside = 0;
            }
            groups.push(group);
            seen += count;
            inside += count;
        }
        if inside < minimum.max(1) {
            // What is left over at the end is too small: it joins the union before.
            if let Some(before) = groups.iter().rev().find(|g| **g != group).copied() {
                groups.iter_mut().filter(|g| **g == group).for_each(|g| *g = before);
            }
        }
        let mut names: Vec<usize> = groups.clone();
        names.dedup();
        groups.iter().map(|g| names.iter().position(|n| n == g).unwrap_or(0)).collect()
    }

    /// Appends the edges to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.len(self.edges().len());
        self.edges().iter().for_each(|edge| writer.f64(*edge));
    }

    /// Reads bins back.
    ///
    /// # Errors
    /// `Decode` for edges that are not ascending.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let n = reader.len(8)?;
        let edges = (0..n).map(|_| reader.f64()).collect::<Result<Vec<f64>>>()?;
        Self::from_edges(edges).map_err(|error| Error::decode(error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_do_not_depend_on_how_they_are_found() {
        let mut values: Vec<f64> = (0..300_000).map(|i| libm::sin(f64::from(i) * 0.7) * libm::exp(f64::from(i % 4001) / 400.0)).collect();
        values.extend((0..50_000).flat_map(|i| [f64::from(i % 7), -0.0]));
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        for bins in [2, 10, 1000, 10_000] {
            assert_eq!(Bins::from_values(&values, bins).unwrap().edges(), Walk::over(&sorted, bins).unwrap(), "{bins}");
        }
        assert!(Bins::from_values(&vec![3.0; 100_000], 1000).unwrap().len() == 3);
    }

    fn mixed() -> Vec<f64> {
        let mut values: Vec<f64> = (0..20_000).map(|i| libm::exp(f64::from(i * 7919 % 20_011) / 2000.0 - 5.0)).collect();
        values.extend(std::iter::repeat_n(0.0, 5000));
        values.extend((0..500).map(|i| -f64::from(i) * 1e200));
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn every_value_lies_between_the_edges_of_its_bin() {
        let values = mixed();
        let bins = Bins::from_values(&values, 1000).unwrap();
        for value in values.iter().copied().chain([f64::MIN, f64::MAX, -1e-320, 1e-320, 0.5]) {
            assert_eq!(bins.index(value), bins.edges().partition_point(|edge| *edge < value), "{value}");
        }
    }

    #[test]
    fn no_bin_but_an_atom_holds_more_than_its_share() {
        let values = mixed();
        let bins = Bins::from_values(&values, 1000).unwrap();
        let mut counts = vec![0; bins.len()];
        bins.count(&values, &mut counts);
        assert_eq!((counts[0], counts[bins.len() - 1]), (0, 0));
        for (at, pair) in bins.edges().windows(2).enumerate() {
            assert!(counts[at + 1] as f64 <= values.len() as f64 / 1000.0 || pair[0].next_up() == pair[1], "{pair:?} {}", counts[at + 1]);
        }
    }

    #[test]
    fn unions_are_about_equal_and_none_is_thin() {
        let values = mixed();
        let bins = Bins::from_values(&values, 1000).unwrap();
        let mut counts = vec![0; bins.len()];
        bins.count(&values, &mut counts);
        let unions = Bins::unions(&counts, 10, 5);
        assert!(unions.is_sorted());
        let mut sizes = vec![0; unions[unions.len() - 1] + 1];
        unions.iter().zip(&counts).for_each(|(u, c)| sizes[*u] += c);
        assert!(sizes.len() == 10 && sizes.iter().all(|size| *size >= 400), "{sizes:?}");
    }
}
