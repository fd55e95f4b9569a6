//! Base-2 exponential histogram: the OpenTelemetry / Prometheus bucket index by integer arithmetic alone.
//!
//! Cell `i` at scale `s` holds `(base^i, base^(i+1)]` with `base = 2^(2^-s)`. Cells are counters, so histograms add and
//! subtract exactly and do not depend on order. Source: OpenTelemetry data model, `ExponentialHistogram`; Prometheus
//! native histograms, schemas 0 to 8.

use std::sync::OnceLock;

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Mantissas of `floor(2^(52 + i/256))`, exact: `isqrt` applied eight times to `2^(52*256 + i)`.
#[rustfmt::skip]
#[allow(clippy::unreadable_literal)] // a table of mantissas
const BOUNDARIES: [u64; 256] = [
    0x0000000000000, 0x00b1afa5abcbe, 0x0163da9fb3335, 0x02168143b0280, 0x02c9a3e778060, 0x037d42e11bbcc,
    0x04315e86e7f84, 0x04e5f72f654b1, 0x059b0d3158574, 0x0650a0e3c1f88, 0x0706b29ddf6dd, 0x07bd42b72a836,
    0x0874518759bc8, 0x092bdf66607df, 0x09e3ecac6f383, 0x0a9c79b1f3919, 0x0b5586cf9890f, 0x0c0f145e46c85,
    0x0cc922b7247f7, 0x0d83b23395deb, 0x0e3ec32d3d1a2, 0x0efa55fdfa9c4, 0x0fb66affed31a, 0x1073028d7233e,
    0x11301d0125b50, 0x11edbab5e2ab5, 0x12abdc06c31cb, 0x136a814f204aa, 0x1429aaea92ddf, 0x14e95934f312d,
    0x15a98c8a58e51, 0x166a45471c3c2, 0x172b83c7d517a, 0x17ed48695bbc0, 0x18af9388c8de9, 0x1972658375d2f,
    0x1a35beb6fcb75, 0x1af99f8138a1c, 0x1bbe084045cd3, 0x1c82f95281c6b, 0x1d4873168b9aa, 0x1e0e75eb44026,
    0x1ed5022fcd91c, 0x1f9c18438ce4c, 0x2063b88628cd6, 0x212be3578a819, 0x21f49917ddc96, 0x22bdda27912d1,
    0x2387a6e756238, 0x2451ffb82140a, 0x251ce4fb2a63f, 0x25e85711ece75, 0x26b4565e27cdd, 0x2780e341ddf29,
    0x284dfe1f56380, 0x291ba7591bb6f, 0x29e9df51fdee1, 0x2ab8a66d10f12, 0x2b87fd0dad98f, 0x2c57e39771b2e,
    0x2d285a6e4030b, 0x2df961f641589, 0x2ecafa93e2f56, 0x2f9d24abd886a, 0x306fe0a31b715, 0x31432edeeb2fd,
    0x32170fc4cd831, 0x32eb83ba8ea31, 0x33c08b26416ff, 0x3496266e3fa2c, 0x356c55f929ff0, 0x36431a2de883a,
    0x371a7373aa9ca, 0x37f26231e7549, 0x38cae6d05d865, 0x39a401b7140ee, 0x3a7db34e59ff6, 0x3b57fbfec6cf4,
    0x3c32dc313a8e4, 0x3d0e544ede173, 0x3dea64c123422, 0x3ec70df1c5174, 0x3fa4504ac801b, 0x40822c367a024,
    0x4160a21f72e29, 0x423fb27094689, 0x431f5d950a896, 0x43ffa3f84b9d4, 0x44e086061892d, 0x45c2042a7d231,
    0x46a41ed1d0057, 0x4786d668b3236, 0x486a2b5c13cd0, 0x494e1e192aed1, 0x4a32af0d7d3de, 0x4b17dea6db7d6,
    0x4bfdad5362a27, 0x4ce41b817c114, 0x4dcb299fddd0d, 0x4eb2d81d8abfe, 0x4f9b2769d2ca6, 0x508417f4531ee,
    0x516daa2cf6641, 0x5257de83f4eee, 0x5342b569d4f81, 0x542e2f4f6ad27, 0x551a4ca5d920e, 0x56070dde910d1,
    0x56f4736b527da, 0x57e27dbe2c4ce, 0x58d12d497c7fd, 0x59c0827ff07cb, 0x5ab07dd485429, 0x5ba11fba87a02,
    0x5c9268a5946b7, 0x5d84590998b92, 0x5e76f15ad2148, 0x5f6a320dceb70, 0x605e1b976dc08, 0x6152ae6cdf6f4,
    0x6247eb03a5584, 0x633dd1d1929fd, 0x6434634ccc31f, 0x652b9febc8fb6, 0x6623882552224, 0x671c1c70833f5,
    0x68155d44ca973, 0x690f4b19e9538, 0x6a09e667f3bcc, 0x6b052fa75173e, 0x6c012750bdabe, 0x6cfdcddd47645,
    0x6dfb23c651a2e, 0x6ef9298593ae4, 0x6ff7df9519483, 0x70f7466f42e87, 0x71f75e8ec5f73, 0x72f8286ead089,
    0x73f9a48a58173, 0x74fbd35d7cbfd, 0x75feb564267c8, 0x77024b1ab6e09, 0x780694fde5d3f, 0x790b938ac1cf6,
    0x7a11473eb0186, 0x7b17b0976cfda, 0x7c1ed0130c132, 0x7d26a62ff86f0, 0x7e2f336cf4e62, 0x7f3878491c490,
    0x80427543e1a11, 0x814d2add106d9, 0x82589994cce12, 0x8364c1eb941f7, 0x8471a4623c7ac, 0x857f4179f5b20,
    0x868d99b4492ec, 0x879cad931a436, 0x88ac7d98a6699, 0x89bd0a478580f, 0x8ace5422aa0db, 0x8be05bad61778,
    0x8cf3216b5448b, 0x8e06a5e0866d8, 0x8f1ae99157736, 0x902fed0282c8a, 0x9145b0b91ffc5, 0x925c353aa2fe1,
    0x93737b0cdc5e4, 0x948b82b5f98e4, 0x95a44cbc8520e, 0x96bdd9a7670b2, 0x97d829fde4e4f, 0x98f33e47a22a2,
    0x9a0f170ca07b9, 0x9b2bb4d53fe0c, 0x9c49182a3f090, 0x9d674194bb8d4, 0x9e86319e32323, 0x9fa5e8d07f29d,
    0xa0c667b5de564, 0xa1e7aed8eb8bb, 0xa309bec4a2d33, 0xa42c980460ad7, 0xa5503b23e255c, 0xa674a8af46052,
    0xa799e1330b358, 0xa8bfe53c12e58, 0xa9e6b5579fdbf, 0xab0e521356eba, 0xac36bbfd3f379, 0xad5ff3a3c2774,
    0xae89f995ad3ad, 0xafb4ce622f2fe, 0xb0e07298db665, 0xb20ce6c9a8952, 0xb33a2b84f15fa, 0xb468415b749b0,
    0xb59728de55939, 0xb6c6e29f1c52a, 0xb7f76f2fb5e46, 0xb928cf22749e3, 0xba5b030a10649, 0xbb8e0b79a6f1e,
    0xbcc1e904bc1d2, 0xbdf69c3f3a206, 0xbf2c25bd71e08, 0xc06286141b33c, 0xc199bdd85529c, 0xc2d1cd9fa652b,
    0xc40ab5fffd07a, 0xc544778fafb22, 0xc67f12e57d14b, 0xc7ba88988c932, 0xc8f6d9406e7b5, 0xca3405751c4da,
    0xcb720dcef9069, 0xccb0f2e6d1674, 0xcdf0b555dc3f9, 0xcf3155b5bab73, 0xd072d4a07897b, 0xd1b532b08c968,
    0xd2f87080d89f1, 0xd43c8eacaa1d6, 0xd5818dcfba487, 0xd6c76e862e6d3, 0xd80e316c98397, 0xd955d71ff6075,
    0xda9e603db3285, 0xdbe7cd63a8314, 0xdd321f301b460, 0xde7d5641c0657, 0xdfc97337b9b5e, 0xe11676b197d16,
    0xe264614f5a128, 0xe3b333b16ee11, 0xe502ee78b3ff6, 0xe653924676d75, 0xe7a51fbc74c83, 0xe8f7977cdb73f,
    0xea4afa2a490d9, 0xeb9f4867cca6e, 0xecf482d8e67f0, 0xee4aaa2188510, 0xefa1bee615a27, 0xf0f9c1cb64129,
    0xf252b376bba97, 0xf3ac948dd7273, 0xf50765b6e4540, 0xf6632798844f8, 0xf7bfdad9cbe13, 0xf91d802243c88,
    0xfa7c1819e90d8, 0xfbdba3692d513, 0xfd3c22b8f71f1, 0xfe9d96b2a23d9,
];

const MANTISSA: u64 = (1 << 52) - 1;
/// Octaves run from 2^-1075 (below the smallest subnormal) to 2^1024.
const LOWEST_OCTAVE: i32 = -1075;
const OCTAVES: usize = 2100;
const ABSENT: u16 = u16::MAX;
/// The finest scale with exact boundaries here, and the finest that Prometheus knows.
pub const MAX_SCALE: u8 = 8;

/// In a snapshot, beside the scale: a shift follows.
const SHIFTED: u8 = 0x80;

/// Fewer values than this are not worth a direct map of the octaves.
const SMALL_BLOCK: usize = 256;

/// Where the cells of an octave end, for one scale.
#[derive(Debug)]
struct Tables {
    /// `edges[k + 1]` ends cell k.
    edges: [u64; 257],
    /// Per slice of the mantissa: the cell it begins in.
    first: [u8; 512],
    /// Per slice: the mantissa at which the next cell begins; at most one lies in a slice.
    bound: [u64; 512],
}

static TABLES: [OnceLock<Tables>; MAX_SCALE as usize + 1] = [const { OnceLock::new() }; MAX_SCALE as usize + 1];

impl Tables {
    fn of(scale: u8) -> &'static Self {
        TABLES[usize::from(scale)].get_or_init(|| {
            let cells = 1usize << scale;
            let step = 256 / cells;
            let mut edges = [1u64 << 52; 257];
            for (k, edge) in edges.iter_mut().take(cells).enumerate() {
                *edge = BOUNDARIES[k * step];
            }
            let (mut first, mut bound) = ([0u8; 512], [1u64 << 52; 512]);
            for at in 0..2 * cells {
                let start = (at as u64) << (51 - scale);
                let cell = edges[1..=cells].iter().filter(|edge| **edge <= start).count();
                (first[at], bound[at]) = (cell as u8, edges[cell + 1]);
            }
            Self { edges, first, bound }
        })
    }

    /// The cell of a mantissa.
    #[inline]
    fn cell(&self, mantissa: u64, scale: u8) -> usize {
        let slice = (mantissa >> (51 - scale)) as usize & 511;
        usize::from(self.first[slice]) + usize::from(mantissa >= self.bound[slice])
    }
}

/// A cell with its bounds: values in `(lower, upper]` (for negative values `[lower, upper)`; zero stands alone).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Values in it.
    pub count: u64,
}

impl Cell {
    /// The value whose relative distance to either bound is smallest, `2lh/(l+h)`; 0 for the zero cell.
    pub fn value(&self) -> f64 {
        if self.lower == self.upper {
            return self.lower;
        }
        // Written so that neither product nor sum overflows at the ends of the range.
        let (small, large) = if self.lower.abs() < self.upper.abs() { (self.lower, self.upper) } else { (self.upper, self.lower) };
        if small == 0.0 { large } else { small * (2.0 / (1.0 + small / large)) }
    }
}

/// Counts of values in exponentially growing cells, both signs, with a cell of its own for zero.
///
/// `quantile(q)` is the nearest-rank quantile within a relative error of `(base-1)/(base+1)`: 0.54 % at scale 6.
/// Memory: 8 bytes per cell of each octave that holds a value; time: one table look-up and one increment per value.
#[derive(Clone, Debug)]
pub struct ExponentialHistogram {
    scale: u8,
    tables: &'static Tables,
    zero: u64,
    /// Per sign (positive, negative): the first octave that has a page in `counts`, and the pages from there on.
    pages: [(i32, Vec<u16>); 2],
    counts: Vec<u64>,
    /// Where a page begins that counts nothing: batches send zeros there.
    waste: Option<usize>,
    shift: f64,
}

impl PartialEq for ExponentialHistogram {
    fn eq(&self, other: &Self) -> bool {
        (self.scale, self.shift) == (other.scale, other.shift)
            && self.zero == other.zero
            && (0..2).all(|sign| self.side(sign).eq(other.side(sign)))
    }
}

impl ExponentialHistogram {
    /// An empty histogram. `scale` in [0, 8]; 6 gives 64 cells per octave.
    ///
    /// # Errors
    /// `InvalidArgument` for a scale above 8.
    pub fn new(scale: u8) -> Result<Self> {
        if scale > MAX_SCALE {
            return Err(
                Error::invalid(format!("`scale` must be in [0, 8], got {scale}")).hint("6 keeps quantiles within 0.54 %, 8 within 0.14 %")
            );
        }
        let pages = [(0, Vec::new()), (0, Vec::new())];
        Ok(Self { scale, tables: Tables::of(scale), zero: 0, pages, counts: Vec::new(), waste: None, shift: 0.0 })
    }

    /// An empty histogram of distances from `shift`: the relative error is one of the distance, so that values that lie close
    /// together far from zero are told apart.
    ///
    /// # Errors
    /// `InvalidArgument` for a scale above 8 or a shift that is not finite.
    pub fn shifted(scale: u8, shift: f64) -> Result<Self> {
        if !shift.is_finite() {
            return Err(Error::invalid(format!("`shift` must be finite, got {shift}")));
        }
        // -0 would make unequal bytes of equal histograms.
        Ok(Self { shift: shift + 0.0, ..Self::new(scale)? })
    }

    /// What is taken from every value before it is counted.
    pub fn shift(&self) -> f64 {
        self.shift
    }

    fn width(&self) -> usize {
        1 << self.scale
    }

    /// Where the counters of an octave begin; made if they do not exist.
    fn page(&mut self, sign: usize, octave: i32) -> usize {
        let width = self.width();
        let (first, pages) = &mut self.pages[sign];
        if pages.is_empty() {
            *first = octave;
        }
        if octave < *first {
            pages.splice(0..0, std::iter::repeat_n(ABSENT, (*first - octave) as usize));
            *first = octave;
        }
        let at = (octave - *first) as usize;
        if at >= pages.len() {
            pages.resize(at + 1, ABSENT);
        }
        let page = &mut pages[at];
        if *page == ABSENT {
            *page = (self.counts.len() / width) as u16;
            self.counts.resize(self.counts.len() + width, 0);
        }
        usize::from(*page) * width
    }

    /// `(octave, counts)` of one sign in ascending order of magnitude, empty pages left out.
    fn side(&self, sign: usize) -> impl DoubleEndedIterator<Item = (i32, &[u64])> {
        let width = self.width();
        let (first, pages) = &self.pages[sign];
        pages.iter().enumerate().filter(|(_, page)| **page != ABSENT).filter_map(move |(at, page)| {
            let start = usize::from(*page) * width;
            let counts = self.counts.get(start..start + width)?;
            counts.iter().any(|c| *c > 0).then_some((at as i32 + first, counts))
        })
    }

    /// The scale given at the start.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// Largest relative distance of `quantile` from the nearest-rank quantile.
    pub fn relative_error(&self) -> f64 {
        let base = libm::exp2(1.0 / f64::from(1u32 << self.scale));
        (base - 1.0) / (base + 1.0)
    }

    /// `(octave, cell in it)` of a positive finite magnitude.
    fn locate(&self, magnitude: u64) -> (i32, usize) {
        // Upper bounds are inclusive: one step down in the bits makes them exclusive.
        let mut below = magnitude - 1;
        let mut shifted = 0;
        if below < 1 << 52 {
            // At or below the smallest normal number: scale up exactly, then take the octaves back.
            below = (f64::from_bits(magnitude) * 18_014_398_509_481_984.0).to_bits() - 1; // 2^54
            shifted = 54;
        }
        ((below >> 52) as i32 - 1023 - shifted, self.tables.cell(below & MANTISSA, self.scale))
    }

    /// Counts one value. NaN and infinities are left out: whoever needs them counts them apart.
    pub fn update(&mut self, value: f64) {
        self.update_counted(value, 1);
    }

    /// Counts values; NaN and infinities are left out.
    pub fn update_many(&mut self, values: &[f64]) {
        if self.shift == 0.0 {
            self.update_distances(values);
        } else {
            let mut block = [0.0; 1024];
            for values in values.chunks(block.len()) {
                block.iter_mut().zip(values).for_each(|(to, value)| *to = value - self.shift);
                self.update_distances(&block[..values.len()]);
            }
        }
    }

    fn update_distances(&mut self, values: &[f64]) {
        if values.len() < SMALL_BLOCK {
            for value in values {
                self.count_distance(*value, 1);
            }
            return;
        }
        // Sign and exponent in one look-up. What is absent (a new octave, subnormal, not finite) takes the slow way.
        let mut direct = [u32::MAX; 4096];
        let mut zeros = 0;
        let (scale, tables) = (self.scale, self.tables);
        for value in values {
            zeros += u64::from(*value == 0.0);
            let below = value.to_bits().wrapping_sub(1);
            let key = (below >> 52) as usize;
            let at = direct[key] as usize + tables.cell(below & MANTISSA, scale);
            if let Some(count) = self.counts.get_mut(at) {
                *count += 1;
            } else if *value == 0.0 {
                // Zeros share these keys with NaN alone: a page that counts nothing takes both.
                direct[key] = self.waste() as u32;
            } else if let Some((sign, octave)) = self.count_distance(*value, 1)
                // The last octave shares its key with infinity.
                && (-1022..1023).contains(&octave)
            {
                direct[key] = self.page(sign, octave) as u32;
            }
        }
        if zeros > 0 {
            self.zero += zeros;
            let (start, width) = (self.waste(), self.width());
            self.counts[start..start + width].fill(0);
        }
    }

    fn waste(&mut self) -> usize {
        let (end, width) = (self.counts.len(), self.width());
        *self.waste.get_or_insert_with(|| {
            self.counts.resize(end + width, 0);
            end
        })
    }

    /// Counts a value so many times; NaN and infinities are left out.
    pub fn update_counted(&mut self, value: f64, times: u64) {
        self.count_distance(value - self.shift, times);
    }

    /// Gives sign and octave of what it counted.
    #[cold]
    fn count_distance(&mut self, value: f64, times: u64) -> Option<(usize, i32)> {
        let bits = value.to_bits();
        let magnitude = bits & !(1 << 63);
        if magnitude == 0 {
            self.zero += times;
            return None;
        }
        if magnitude >= 0x7ff << 52 {
            return None;
        }
        let (octave, cell) = self.locate(magnitude);
        let sign = (bits >> 63) as usize;
        let start = self.page(sign, octave);
        self.counts[start + cell] += times;
        Some((sign, octave))
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.zero + self.counts.iter().sum::<u64>()
    }

    /// Values of 0.
    pub fn zero_count(&self) -> u64 {
        self.zero
    }

    /// Values below 0.
    pub fn negative_count(&self) -> u64 {
        self.side(1).map(|(_, counts)| counts.iter().sum::<u64>()).sum()
    }

    fn same_scale(&self, other: &Self) -> Result<()> {
        if self.scale != other.scale {
            return Err(Error::incompatible(format!("histograms must have the same scale, got {} and {}", self.scale, other.scale)));
        }
        if self.shift != other.shift {
            return Err(Error::incompatible(format!("histograms must have the same shift, got {:?} and {:?}", self.shift, other.shift)));
        }
        Ok(())
    }

    /// Adds another histogram's counts.
    ///
    /// # Errors
    /// `Incompatible` for another scale.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.same_scale(other)?;
        self.zero += other.zero;
        for sign in 0..2 {
            for (octave, counts) in other.side(sign) {
                let start = self.page(sign, octave);
                self.counts[start..].iter_mut().zip(counts).for_each(|(to, from)| *to += from);
            }
        }
        Ok(())
    }

    /// Every value counts `2^halvings` times.
    pub fn raise(&mut self, halvings: u32) {
        self.zero <<= halvings;
        self.counts.iter_mut().for_each(|count| *count <<= halvings);
    }

    /// Takes another histogram's counts away again.
    ///
    /// # Errors
    /// `Incompatible` for another scale or where it holds more than this one; nothing is changed then.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        self.same_scale(other)?;
        let mut out = self.clone();
        let more = || {
            Error::incompatible("the histogram to subtract holds values that are not in this one").hint("subtract what was merged before")
        };
        out.zero = out.zero.checked_sub(other.zero).ok_or_else(more)?;
        for sign in 0..2 {
            for (octave, counts) in other.side(sign) {
                let start = out.page(sign, octave);
                for (to, from) in out.counts[start..].iter_mut().zip(counts) {
                    *to = to.checked_sub(*from).ok_or_else(more)?;
                }
            }
        }
        *self = out;
        Ok(())
    }

    /// The same values in cells twice as wide for each step down: exact, because cells nest.
    ///
    /// # Errors
    /// `InvalidArgument` for a finer scale.
    pub fn downscale(&self, scale: u8) -> Result<Self> {
        if scale > self.scale {
            return Err(Error::invalid(format!("`scale` must be at most that of the histogram, {}, got {scale}", self.scale)));
        }
        let mut out = Self::shifted(scale, self.shift)?;
        out.zero = self.zero;
        for sign in 0..2 {
            for (octave, counts) in self.side(sign) {
                let start = out.page(sign, octave);
                for (k, count) in counts.iter().enumerate() {
                    out.counts[start + (k >> (self.scale - scale))] += count;
                }
            }
        }
        Ok(out)
    }

    /// `(index, count)` of one sign, ascending in the index: cell i holds magnitudes in `(base^i, base^(i+1)]`, as in OpenTelemetry.
    pub fn indexed(&self, negative: bool) -> Vec<(i32, u64)> {
        let side = self.side(usize::from(negative));
        let cells =
            side.flat_map(|(octave, counts)| counts.iter().enumerate().map(move |(k, count)| ((octave << self.scale) + k as i32, *count)));
        cells.filter(|(_, count)| *count > 0).collect()
    }

    /// Sign, octave, cell of the octave and count of the cells that hold values, ascending; zero comes as `None`.
    fn places(&self) -> impl Iterator<Item = (Option<(usize, i32, usize)>, u64)> {
        let below = self
            .side(1)
            .rev()
            .flat_map(|(octave, counts)| counts.iter().enumerate().rev().map(move |(k, count)| (Some((1, octave, k)), *count)));
        let above =
            self.side(0).flat_map(|(octave, counts)| counts.iter().enumerate().map(move |(k, count)| (Some((0, octave, k)), *count)));
        below.chain([(None, self.zero)]).chain(above).filter(|(_, count)| *count > 0)
    }

    fn cell_at(&self, place: Option<(usize, i32, usize)>, count: u64) -> Cell {
        match place {
            None => Cell { lower: 0.0, upper: 0.0, count },
            Some((0, octave, k)) => Cell { lower: self.bound(octave, k), upper: self.bound(octave, k + 1), count },
            Some((_, octave, k)) => Cell { lower: -self.bound(octave, k + 1), upper: -self.bound(octave, k), count },
        }
    }

    /// The cells that hold values, ascending.
    pub fn cells(&self) -> Vec<Cell> {
        let shifted = |cell: Cell| Cell { lower: cell.lower + self.shift, upper: cell.upper + self.shift, ..cell };
        self.places().map(|(place, count)| shifted(self.cell_at(place, count))).collect()
    }

    fn bound(&self, octave: i32, k: usize) -> f64 {
        let mantissa = self.tables.edges[k];
        // A mantissa of 2^52 ends the octave: it carries into the exponent.
        let bound = if octave >= -1022 {
            f64::from_bits((((octave + 1023) as u64) << 52) + mantissa)
        } else {
            libm::scalbn(1.0 + mantissa as f64 / (1u64 << 52) as f64, octave)
        };
        if bound.is_finite() { bound } else { f64::MAX }
    }

    /// The smallest value with rank at least `q * count`, within [`relative_error`](Self::relative_error); `None` when empty.
    ///
    /// # Errors
    /// `InvalidArgument` unless `q` is in [0, 1].
    pub fn quantile(&self, q: f64) -> Result<Option<f64>> {
        if !(0.0..=1.0).contains(&q) {
            let error = Error::invalid(format!("`q` must be in [0, 1], got {q:?}"));
            return Err(if q > 1.0 && q <= 100.0 {
                error.hint(format!("quantiles are fractions; did you mean {}?", q / 100.0))
            } else {
                error
            });
        }
        let total = self.count();
        let rank = (libm::ceil(q * total as f64) as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let found = self.places().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        Ok(found.map(|(place, count)| self.cell_at(place, count).value() + self.shift))
    }

    /// Appends the histogram to a snapshot; equal histograms give equal bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.scale | if self.shift == 0.0 { 0 } else { SHIFTED });
        if self.shift != 0.0 {
            writer.f64(self.shift);
        }
        writer.u64(self.zero);
        for sign in 0..2 {
            writer.len(self.side(sign).count());
            for (octave, counts) in self.side(sign) {
                writer.u64((octave - LOWEST_OCTAVE) as u64);
                writer.counts(counts);
            }
        }
    }

    /// Reads a histogram back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let scale = reader.u8()?;
        let shift = if scale & SHIFTED == 0 { 0.0 } else { reader.f64()? };
        let shortest = scale & SHIFTED == 0 || shift != 0.0;
        let mut out = Self::shifted(scale & !SHIFTED, shift).map_err(|error| Error::decode(error.message))?;
        if !shortest {
            return Err(Error::decode("a histogram in the snapshot names a shift of 0"));
        }
        let width = out.width();
        out.zero = reader.count()?;
        let mut total = out.zero;
        for sign in 0..2 {
            let pages = reader.len(2)?;
            out.counts.reserve(pages.min(OCTAVES) * width);
            let mut last = None;
            for _ in 0..pages {
                let at = reader.u64()?;
                if at >= OCTAVES as u64 || last.is_some_and(|before| before >= at) {
                    return Err(Error::decode(format!("octave {at} of a histogram is out of range or out of order")));
                }
                last = Some(at);
                let start = out.page(sign, at as i32 + LOWEST_OCTAVE);
                let page = reader.counts_into(&mut out.counts[start..start + width])?;
                total = total.checked_add(page).ok_or_else(|| Error::decode("the counts of a histogram do not fit 64 bits"))?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_single_values_agree_on_zeros_extremes_and_what_is_not_finite() {
        let odd = [0.0, -0.0, f64::MAX, -f64::MAX, 9e307, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, 5e-324, 2.3e-308, 1.0];
        let mut values: Vec<f64> = (0..600).map(|i| odd[i % odd.len()]).collect();
        values.push(f64::from_bits(u64::MAX));
        let (mut batch, mut single) = (ExponentialHistogram::new(6).unwrap(), ExponentialHistogram::new(6).unwrap());
        batch.update_many(&values);
        values.iter().for_each(|value| single.update(*value));
        assert!(batch == single && batch.zero_count() == 100 && batch.count() == 400, "{} {}", batch.count(), single.count());
    }

    #[test]
    fn a_shift_tells_narrow_values_apart() {
        let values: Vec<f64> = (0..2000).map(|i| 1e9 + f64::from(i % 100)).collect();
        let mut h = ExponentialHistogram::shifted(6, 1e9).unwrap();
        h.update_many(&values);
        let mut single = ExponentialHistogram::shifted(6, 1e9).unwrap();
        values.iter().for_each(|value| single.update(*value));
        assert_eq!(h, single);
        assert!((h.quantile(0.5).unwrap().unwrap() - (1e9 + 49.0)).abs() <= 49.0 * h.relative_error());
        assert!(h.cells().iter().all(|cell| cell.lower >= 1e9 && cell.upper <= 1e9 + 100.5));
        let mut w = Writer::new();
        h.encode(&mut w);
        assert_eq!(ExponentialHistogram::decode(&mut Reader::new(&w.into_payload())).unwrap(), h);
        assert!(h.merge(&ExponentialHistogram::new(6).unwrap()).unwrap_err().message.contains("same shift"));
        assert!(ExponentialHistogram::shifted(6, f64::NAN).is_err());
    }

    #[test]
    fn every_boundary_and_its_neighbours_fall_on_the_right_side() {
        for scale in 0..=8u8 {
            let h = ExponentialHistogram::new(scale).unwrap();
            for octave in [-1022, -3, 0, 7, 1023] {
                for k in 0..1usize << scale {
                    let bound = h.bound(octave, k);
                    let at = |x: f64| {
                        let (o, c) = h.locate(x.to_bits());
                        (i64::from(o) << scale) + c as i64
                    };
                    let index = (i64::from(octave) << scale) + k as i64;
                    assert_eq!(at(bound), index - 1, "{scale} {octave} {k}");
                    assert_eq!(at(bound.next_up()), index, "{scale} {octave} {k}");
                }
            }
        }
    }

    #[test]
    fn quantiles_stay_within_the_relative_error_for_all_magnitudes_and_signs() {
        let mut h = ExponentialHistogram::new(6).unwrap();
        let mut values: Vec<f64> =
            (0..5000).map(|i| libm::exp(f64::from(i) * 0.28 - 700.0) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        values.extend([0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX]);
        h.update_many(&values);
        values.sort_by(f64::total_cmp);
        for i in 0..=1000 {
            let q = f64::from(i) / 1000.0;
            let want = values[((q * values.len() as f64).ceil() as usize).max(1) - 1];
            let got = h.quantile(q).unwrap().unwrap();
            assert!((got - want).abs() <= want.abs() * (h.relative_error() + 1e-12) + 5e-324, "{q} {got} {want}");
        }
        let mut w = Writer::new();
        h.encode(&mut w);
        let bytes = w.into_payload();
        assert_eq!(ExponentialHistogram::decode(&mut Reader::new(&bytes)).unwrap(), h);
        for cut in (0..bytes.len()).step_by(bytes.len() / 50) {
            assert!(ExponentialHistogram::decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
}
