//! `MurmurHash3` x64 128: the hash that Apache DataSketches fixes, so that our sketches and theirs agree.

/// The seed DataSketches uses unless told otherwise.
pub const DATASKETCHES_SEED: u64 = 9001;

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn mix1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The hash of the eight little-endian bytes of a number.
#[inline]
pub fn murmur3_of_word(word: u64, seed: u64) -> (u64, u64) {
    avalanche(seed ^ mix1(word), seed, 8)
}

#[inline]
fn avalanche(h1: u64, h2: u64, length: u64) -> (u64, u64) {
    let h1 = h1 ^ length;
    let h2 = h2 ^ length;
    let h1 = h1.wrapping_add(h2);
    let h2 = h2.wrapping_add(h1);
    let (h1, h2) = (finish(h1), finish(h2));
    let h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

/// Both halves of the 128-bit hash.
pub fn murmur3_x64_128(bytes: &[u8], seed: u64) -> (u64, u64) {
    let (mut h1, mut h2) = (seed, seed);
    let blocks = bytes.chunks_exact(16);
    let tail = blocks.remainder();
    for block in blocks {
        h1 ^= mix1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    if tail.len() > 8 {
        h2 ^= mix2(word(&tail[8..]));
    }
    if !tail.is_empty() {
        h1 ^= mix1(word(&tail[..tail.len().min(8)]));
    }
    avalanche(h1, h2, bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_implementation() {
        // Test vectors of Apache DataSketches (MurmurHash3Test) with seed 0.
        let text = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(murmur3_x64_128(text, 0), (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
        assert_eq!(murmur3_x64_128(b"", 0), (0, 0));
        assert_eq!(murmur3_of_word(0x1234_5678_9abc_def0, 9001), murmur3_x64_128(&0x1234_5678_9abc_def0_u64.to_le_bytes(), 9001));
    }
}
