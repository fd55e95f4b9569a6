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
const MAX_EDGES: usize = 1 << 16;
const GUIDE_CELLS: usize = 8192;
/// Edges of one guide cell that are compared at once, without a branch.
const STRIDE: usize = 4;

/// How a value finds the stretch of edges it can lie between. Any monotone map will do: an exact compare decides.
#[derive(Clone, Copy, Debug)]
enum Grid {
    /// Equal steps between the outer edges.
    Linear { start: f64, per_unit: f64 },
    /// Equal steps of the sortable bits: for data that spread over magnitudes.
    Bits { start: u64, shift: u32 },
}

/// The bits of a double in an order that agrees with `<`.
#[inline]
fn sortable(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
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
            Self::Bits { start, shift } => (sortable(value).saturating_sub(start) >> shift).min(GUIDE_CELLS as u64 - 1) as usize,
        }
    }
}

/// The edges of a reference's bins and the way to find a value's bin quickly.
#[derive(Clone, Debug)]
pub struct Bins {
    /// The edges, and [`STRIDE`] infinities behind them.
    padded: Vec<f64>,
    grid: Grid,
    /// `first[c]` edges lie in cells before c; one more at the end.
    first: Vec<u16>,
}

impl PartialEq for Bins {
    fn eq(&self, other: &Self) -> bool {
        self.padded == other.padded
    }
}

impl Bins {
    /// Bins from the reference's values in ascending order, finite, at least one.
    ///
    /// Bins are closed before they exceed `1/bins` of the values, so there may be up to twice as many.
    ///
    /// # Errors
    /// `InvalidArgument` without values or with fewer than 2 or more than 10,000 bins.
    pub fn from_sorted(values: &[f64], bins: usize) -> Result<Self> {
        let runs = values.chunk_by(|a, b| a == b).map(|run| (run[0] + 0.0, run[0] + 0.0, run.len() as u64));
        Self::from_runs(runs, values.len() as u64, bins)
    }

    /// Bins from the cells of a histogram, for a reference that is known only as a profile.
    ///
    /// # Errors
    /// As [`from_sorted`](Self::from_sorted).
    pub fn from_cells(cells: &[Cell], lowest: f64, highest: f64, bins: usize) -> Result<Self> {
        let total = cells.iter().map(|cell| cell.count).sum();
        // A negative cell is closed on its left: step down so that `(lower, upper]` holds it.
        let runs = cells.iter().map(|cell| {
            let (lower, upper) = if cell.upper <= 0.0 && cell.lower < 0.0 {
                (cell.lower, cell.upper.next_down())
            } else if cell.lower == cell.upper {
                (cell.lower, cell.upper)
            } else {
                (cell.lower.next_up(), cell.upper)
            };
            (lower.max(lowest), upper.min(highest), cell.count)
        });
        Self::from_runs(runs, total, bins)
    }

    fn from_runs(runs: impl Iterator<Item = (f64, f64, u64)>, total: u64, bins: usize) -> Result<Self> {
        if !(2..=10_000).contains(&bins) {
            return Err(Error::invalid(format!("`bins` must be in [2, 10000], got {bins}")));
        }
        let limit = total as f64 / bins as f64;
        let mut edges: Vec<f64> = Vec::with_capacity(bins + 2);
        let mut open = 0u64;
        let mut last = f64::NAN;
        for (lower, upper, count) in runs {
            if edges.is_empty() {
                edges.push(lower.next_down());
            }
            if open > 0 && (open + count) as f64 > limit {
                edges.push(last);
                open = 0;
            }
            if count as f64 > limit {
                // An atom: whatever lies between the last bin and it gets a bin of its own.
                if edges.last().is_some_and(|edge| *edge < lower.next_down()) {
                    edges.push(lower.next_down());
                }
                edges.push(upper);
            } else {
                open += count;
            }
            last = upper;
        }
        if open > 0 {
            edges.push(last);
        }
        Self::from_edges(edges)
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
        let (lowest, highest) = (edges[0].max(f64::MIN), edges[edges.len() - 1]);
        let per_unit = (GUIDE_CELLS - 1) as f64 / (highest - lowest);
        let span = sortable(highest) - sortable(lowest);
        let shift = (64 - (span / (GUIDE_CELLS as u64 - 1)).leading_zeros()).min(63);
        let grids = [Grid::Linear { start: lowest, per_unit }, Grid::Bits { start: sortable(lowest), shift }];
        let best = grids
            .into_iter()
            .filter(|grid| !matches!(grid, Grid::Linear { per_unit, .. } if !per_unit.is_finite() || *per_unit <= 0.0))
            .map(|grid| {
                let mut first = vec![0u16; GUIDE_CELLS + 1];
                edges.iter().for_each(|edge| first[grid.cell(*edge) + 1] += 1);
                // Edges that share a cell cost compares: the sum of squares is what a value of the reference pays.
                let cost: u64 = first.iter().map(|c| u64::from(*c).pow(2)).sum();
                for at in 1..first.len() {
                    first[at] += first[at - 1];
                }
                (cost, grid, first)
            })
            .min_by_key(|(cost, ..)| *cost);
        let Some((_, grid, first)) = best else { return Err(Error::invalid("bins need edges that differ")) };
        let mut padded = edges;
        padded.extend([f64::INFINITY; STRIDE]);
        Ok(Self { padded, grid, first })
    }

    /// The edges: bin `i` of `1..edges.len()` is `(edges[i-1], edges[i]]`; 0 lies below, `edges.len()` above.
    pub fn edges(&self) -> &[f64] {
        &self.padded[..self.padded.len() - STRIDE]
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
        self.index_in(self.grid.cell(value), value)
    }

    #[inline]
    fn index_in(&self, cell: usize, value: f64) -> usize {
        let (at, end) = (usize::from(self.first[cell]), usize::from(self.first[cell + 1]));
        if end - at > STRIDE {
            return at + self.padded[at..end].partition_point(|edge| *edge < value);
        }
        // Edges of later cells are not below the value: comparing past the end of the cell changes nothing.
        let window = &self.padded[at..at + STRIDE];
        at + window.iter().map(|edge| usize::from(*edge < value)).sum::<usize>()
    }

    /// Counts finite values into `counts`, which has [`len`](Self::len) entries.
    pub fn count(&self, values: &[f64], counts: &mut [u64]) {
        // One loop per grid, so that the choice is made once and not per value.
        match self.grid {
            Grid::Linear { start, per_unit } => self.count_in(values, counts, |value| Grid::Linear { start, per_unit }.cell(value)),
            Grid::Bits { start, shift } => self.count_in(values, counts, |value| Grid::Bits { start, shift }.cell(value)),
        }
    }

    fn count_in(&self, values: &[f64], counts: &mut [u64], cell: impl Fn(f64) -> usize) {
        for value in values {
            if let Some(count) = counts.get_mut(self.index_in(cell(*value), *value)) {
                *count += 1;
            }
        }
    }

    /// Unions of neighbouring bins with about equal reference counts: for each counter the union it joins.
    ///
    /// Below joins the first, above the last union. A union with fewer than `minimum` reference rows joins its neighbour.
    pub fn unions(&self, reference: &[u64], unions: usize, minimum: u64) -> Vec<usize> {
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
        let bins = Bins::from_sorted(&values, 1000).unwrap();
        for value in values.iter().copied().chain([f64::MIN, f64::MAX, -1e-320, 1e-320, 0.5]) {
            assert_eq!(bins.index(value), bins.edges().partition_point(|edge| *edge < value), "{value}");
        }
    }

    #[test]
    fn no_bin_but_an_atom_holds_more_than_its_share() {
        let values = mixed();
        let bins = Bins::from_sorted(&values, 1000).unwrap();
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
        let bins = Bins::from_sorted(&values, 1000).unwrap();
        let mut counts = vec![0; bins.len()];
        bins.count(&values, &mut counts);
        let unions = bins.unions(&counts, 10, 5);
        assert!(unions.is_sorted());
        let mut sizes = vec![0; unions[unions.len() - 1] + 1];
        unions.iter().zip(&counts).for_each(|(u, c)| sizes[*u] += c);
        assert!(sizes.len() == 10 && sizes.iter().all(|size| *size >= 400), "{sizes:?}");
    }
}
