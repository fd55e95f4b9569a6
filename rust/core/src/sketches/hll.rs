//! `HyperLogLog`: how many different values, in `2^lg_k` registers of which each keeps a maximum.
//!
//! Hash, register and value are those of Apache DataSketches (seed 9001). The state is a function of the set of values
//! alone: small sets keep their coupons, large ones their registers. Estimator: Ertl, arXiv 1702.01284, section 4.

use std::collections::BTreeSet;

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::hash::{DATASKETCHES_SEED, murmur3_of_word, murmur3_x64_128};

const ADDRESS_BITS: u32 = 26;
const ADDRESS_MASK: u32 = (1 << ADDRESS_BITS) - 1;
const MAX_VALUE: u32 = 63;
/// Family and flags of the bytes of Apache `DataSketches`.
const HLL_FAMILY: u8 = 7;
const HLL_EMPTY: u8 = 4;
const OUT_OF_ORDER: u8 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// `value << 26 | address` of each value seen.
    Coupons(BTreeSet<u32>),
    /// The largest value per register.
    Registers(Vec<u8>),
}

/// Estimate of the number of distinct values; relative standard error `1.04 / sqrt(2^lg_k)`, near 0 for small counts.
///
/// Memory: at most `2^lg_k` bytes. Union of two equals the sketch of both streams to the byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hll {
    lg_k: u8,
    state: State,
}

impl Hll {
    /// An empty sketch with `2^lg_k` registers; `lg_k` in [4, 21], 12 gives 1.6 %.
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(lg_k: u8) -> Result<Self> {
        if !(4..=21).contains(&lg_k) {
            return Err(Error::invalid(format!("`lg_k` must be in [4, 21], got {lg_k}")).hint("12 gives a standard error of 1.6 % in 4 KB"));
        }
        Ok(Self { lg_k, state: State::Coupons(BTreeSet::new()) })
    }

    /// Adds a value by its bytes: UTF-8 for text, eight little-endian bytes for a number.
    pub fn update(&mut self, bytes: &[u8]) {
        self.add_hash(murmur3_x64_128(bytes, DATASKETCHES_SEED));
    }

    /// Adds numbers by their bits: integers as they are, floats made canonical by the caller.
    pub fn update_words(&mut self, words: impl Iterator<Item = u64>) {
        words.for_each(|word| self.add_hash(murmur3_of_word(word, DATASKETCHES_SEED)));
    }

    #[inline]
    fn add_hash(&mut self, (low, high): (u64, u64)) {
        let value = high.leading_zeros().min(MAX_VALUE - 1) + 1;
        self.add(value << ADDRESS_BITS | low as u32 & ADDRESS_MASK);
    }

    #[inline]
    fn add(&mut self, coupon: u32) {
        match &mut self.state {
            State::Coupons(coupons) => {
                coupons.insert(coupon);
                if coupons.len() > (1 << self.lg_k) / 16 {
                    let mut registers = vec![0; 1 << self.lg_k];
                    coupons.iter().for_each(|coupon| raise(&mut registers, *coupon));
                    self.state = State::Registers(registers);
                }
            }
            State::Registers(registers) => raise(registers, coupon),
        }
    }

    /// Adds another sketch's values.
    ///
    /// # Errors
    /// `Incompatible` for another `lg_k`.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.lg_k != other.lg_k {
            return Err(Error::incompatible(format!("sketches must have the same `lg_k`, got {} and {}", self.lg_k, other.lg_k)));
        }
        match (&mut self.state, &other.state) {
            (State::Registers(mine), State::Registers(theirs)) => {
                mine.iter_mut().zip(theirs).for_each(|(to, from)| *to = (*to).max(*from));
            }
            (_, State::Coupons(coupons)) => coupons.iter().for_each(|coupon| self.add(*coupon)),
            (State::Coupons(coupons), State::Registers(theirs)) => {
                let mut registers = theirs.clone();
                coupons.iter().for_each(|coupon| raise(&mut registers, *coupon));
                self.state = State::Registers(registers);
            }
        }
        Ok(())
    }

    /// The estimated number of distinct values; 0 when empty.
    pub fn estimate(&self) -> f64 {
        match &self.state {
            State::Coupons(coupons) => {
                // 2^26 addresses: collisions are one in a million here.
                let addresses = f64::from(1 << ADDRESS_BITS);
                -addresses * libm::log1p(-(coupons.len() as f64) / addresses)
            }
            State::Registers(registers) => {
                let m = registers.len() as f64;
                let mut histogram = [0u64; MAX_VALUE as usize + 1];
                registers.iter().for_each(|value| histogram[usize::from(*value & 63)] += 1);
                let mut z = m * tau(1.0 - histogram[MAX_VALUE as usize] as f64 / m);
                for count in histogram[1..MAX_VALUE as usize].iter().rev() {
                    z = 0.5 * (z + *count as f64);
                }
                z += m * sigma(histogram[0] as f64 / m);
                m * m / (2.0 * std::f64::consts::LN_2 * z)
            }
        }
    }

    /// The largest value per register.
    fn registers(&self) -> Vec<u8> {
        match &self.state {
            State::Registers(registers) => registers.clone(),
            State::Coupons(coupons) => {
                let mut registers = vec![0; 1 << self.lg_k];
                coupons.iter().for_each(|coupon| raise(&mut registers, *coupon));
                registers
            }
        }
    }

    /// Bytes that `hll_sketch` of Apache `DataSketches` reads: `HLL_8`, without the history that depends on order.
    pub fn to_datasketches(&self) -> Vec<u8> {
        let registers = self.registers();
        let sum = |wanted: fn(u8) -> bool| {
            registers.iter().filter(|value| wanted(**value)).map(|value| libm::exp2(-f64::from(*value))).sum::<f64>()
        };
        let zeros: u32 = registers.iter().map(|value| u32::from(*value == 0)).sum();
        let mut out = vec![
            10,
            1,
            HLL_FAMILY,
            self.lg_k,
            0,
            OUT_OF_ORDER | if zeros == registers.len() as u32 { HLL_EMPTY } else { 0 },
            0,
            2 | 2 << 2,
        ];
        for number in [self.estimate(), sum(|value| value < 32), sum(|value| value >= 32)] {
            out.extend(number.to_le_bytes());
        }
        out.extend(zeros.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(registers);
        out
    }

    /// Reads bytes that `hll_sketch` wrote: lists, sets, `HLL_4`, `HLL_6` and `HLL_8`.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with them.
    pub fn from_datasketches(bytes: &[u8]) -> Result<Self> {
        let cut = || Error::decode("the HLL bytes are cut short");
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word)).ok_or_else(cut);
        let [_, version, family, lg_k, lg_arr, flags, current, mode, ..] = *bytes else { return Err(cut()) };
        if family != HLL_FAMILY || version != 1 {
            return Err(Error::decode(format!("expected HLL bytes (family {HLL_FAMILY}), got family {family}, version {version}"))
                .hint("pass what an hll_sketch wrote"));
        }
        let mut out = Self::new(lg_k).map_err(|error| Error::decode(error.message))?;
        let coupons = |out: &mut Self, start: usize, most: usize| {
            for at in 0..most {
                let coupon = word(start + 4 * at)?;
                if coupon != 0 {
                    out.add(coupon);
                }
            }
            Ok::<(), Error>(())
        };
        match mode & 3 {
            _ if flags & HLL_EMPTY != 0 && mode & 3 != 2 => {}
            0 => coupons(&mut out, 8, usize::from(current))?,
            1 => {
                let compact = flags & 8 != 0;
                let count = if compact { word(8)? as usize } else { 1usize.checked_shl(u32::from(lg_arr)).unwrap_or(usize::MAX) };
                if count > bytes.len() / 4 {
                    return Err(cut());
                }
                coupons(&mut out, 12, count)?;
            }
            2 => {
                let k = 1usize << lg_k;
                let data = bytes.get(40..).ok_or_else(cut)?;
                let mut registers = vec![0u8; k];
                match mode >> 2 & 3 {
                    0 => {
                        let nibbles = data.get(..k / 2).ok_or_else(cut)?;
                        for (at, register) in registers.iter_mut().enumerate() {
                            let nibble = nibbles[at / 2] >> (4 * (at & 1)) & 15;
                            // 15 says that the value stands in the table of exceptions.
                            *register = if nibble == 15 { 0 } else { nibble.saturating_add(current) };
                        }
                        for exception in
                            data[k / 2..].chunks_exact(4).filter_map(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word))
                        {
                            if exception != 0 {
                                raise(&mut registers, exception);
                            }
                        }
                    }
                    1 => {
                        if data.len() < k * 6 / 8 {
                            return Err(cut());
                        }
                        for (at, register) in registers.iter_mut().enumerate() {
                            let bit = 6 * at;
                            let pair = u16::from(data[bit / 8]) | u16::from(data.get(bit / 8 + 1).copied().unwrap_or(0)) << 8;
                            *register = (pair >> (bit % 8) & 63) as u8;
                        }
                    }
                    2 => registers.copy_from_slice(data.get(..k).ok_or_else(cut)?),
                    other => return Err(Error::decode(format!("unknown HLL type {other}"))),
                }
                if registers.iter().any(|value| u32::from(*value) > MAX_VALUE) {
                    return Err(Error::decode("a register of a sketch is above 63"));
                }
                out.state = State::Registers(registers);
            }
            other => return Err(Error::decode(format!("unknown HLL mode {other}"))),
        }
        Ok(out)
    }

    /// Appends the sketch to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.lg_k);
        match &self.state {
            State::Coupons(coupons) => {
                writer.u8(0);
                writer.len(coupons.len());
                coupons.iter().for_each(|coupon| writer.u64(u64::from(*coupon)));
            }
            State::Registers(registers) => {
                writer.u8(1);
                registers.iter().for_each(|value| writer.u8(*value));
            }
        }
    }

    /// Reads a sketch back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self::new(reader.u8()?).map_err(|error| Error::decode(error.message))?;
        if reader.u8()? == 0 {
            for _ in 0..reader.len(1)? {
                let coupon = u32::try_from(reader.u64()?).map_err(|_| Error::decode("a coupon of a sketch does not fit 32 bits"))?;
                out.add(coupon);
            }
        } else {
            let registers = (0..1usize << out.lg_k).map(|_| reader.u8()).collect::<Result<Vec<u8>>>()?;
            if registers.iter().any(|value| u32::from(*value) > MAX_VALUE) {
                return Err(Error::decode("a register of a sketch is above 63"));
            }
            out.state = State::Registers(registers);
        }
        Ok(out)
    }
}

fn raise(registers: &mut [u8], coupon: u32) {
    let at = (coupon & ADDRESS_MASK) as usize & (registers.len() - 1);
    registers[at] = registers[at].max((coupon >> ADDRESS_BITS) as u8);
}

/// Ertl's σ: registers that are still 0.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Ertl's τ: registers at their ceiling.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = libm::sqrt(x);
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_stay_near_the_truth_and_unions_equal_one_stream() {
        let mut whole = Hll::new(12).unwrap();
        let mut parts = [Hll::new(12).unwrap(), Hll::new(12).unwrap()];
        for i in 0..200_000u64 {
            whole.update(&i.to_le_bytes());
            parts[usize::from(i < 100)].update(&i.to_le_bytes());
            if [10, 200, 5000, 200_000].contains(&(i + 1)) {
                let want = (i + 1) as f64;
                assert!((whole.estimate() / want - 1.0).abs() < 0.05, "{} {want}", whole.estimate());
            }
        }
        let [mut large, mut small] = parts;
        let copy = small.clone();
        small.merge(&large).unwrap();
        large.merge(&copy).unwrap();
        assert_eq!(large, whole);
        assert_eq!(small, whole);
        let mut writer = Writer::new();
        whole.encode(&mut writer);
        assert_eq!(Hll::decode(&mut Reader::new(&writer.into_payload())).unwrap(), whole);
    }
}
