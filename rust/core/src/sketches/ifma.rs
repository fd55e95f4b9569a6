//! Exact sums of a block of doubles in 104-bit fixed point, eight at a time, on processors with AVX-512 IFMA.
//!
//! With the block's largest exponent E every value is `X * 2^(E - 1126)`, where the integer X has at most 104 bits and is split
//! into halves of 52. Halves and their products are summed in 64-bit lanes that cannot overflow. A block whose exponents lie
//! more than 51 apart, or so low that squares leave the range of the sums, is left to the general way.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpneq_epi64_mask, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_add_epi64, _mm512_mask_max_epu64, _mm512_mask_min_epu64, _mm512_movepi64_mask, _mm512_or_si512, _mm512_reduce_add_epi64,
    _mm512_reduce_max_epu64, _mm512_reduce_min_epu64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi64,
    _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_sub_epi64,
};

/// Values per block: each lane adds an eighth of them, 52 bits each, in 64 bits.
pub(super) const BLOCK: usize = 16_384;

const MANTISSA: i64 = (1 << 52) - 1;

/// Sums of a block; a term is `(sum, power of two it is to be multiplied with)`, powers counted from 2^-1074 and 2^-2148.
pub(super) struct Terms {
    pub(super) positive: [(u128, usize); 2],
    pub(super) negative: [(u128, usize); 2],
    pub(super) squares: [(u128, usize); 6],
}

/// Whether this processor has what [`sums`] is compiled for.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512ifma") && is_x86_feature_detected!("avx512dq")
}

/// The sums of a block of at most [`BLOCK`] values, a multiple of eight; `None` where this processor or these values will not do.
pub(super) fn sums(values: &[f64]) -> Option<Terms> {
    if values.len() > BLOCK || !values.len().is_multiple_of(8) || !available() {
        return None;
    }
    // SAFETY: the processor has just been asked for the two extensions the function is compiled for; 512-bit registers come with them.
    #[allow(unsafe_code)]
    unsafe {
        sums_here(values)
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn load(eight: &[f64; 8]) -> __m512i {
    let bits = eight.map(|value| value.to_bits() as i64);
    _mm512_set_epi64(bits[7], bits[6], bits[5], bits[4], bits[3], bits[2], bits[1], bits[0])
}

/// The eight lanes added without overflow.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn total(lanes: __m512i) -> u128 {
    let low = _mm512_reduce_add_epi64(_mm512_and_si512(lanes, _mm512_set1_epi64(0xffff_ffff))) as u64;
    let high = _mm512_reduce_add_epi64(_mm512_srli_epi64::<32>(lanes)) as u64;
    u128::from(low) + (u128::from(high) << 32)
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sums_here(values: &[f64]) -> Option<Terms> {
    let (eights, _) = values.as_chunks::<8>();
    let magnitude = _mm512_set1_epi64(i64::MAX);
    let (mut least, mut most) = (_mm512_set1_epi64(i64::MAX), _mm512_setzero_si512());
    for eight in eights {
        let bits = _mm512_and_si512(load(eight), magnitude);
        let some = _mm512_cmpneq_epi64_mask(bits, _mm512_setzero_si512());
        least = _mm512_mask_min_epu64(least, some, least, bits);
        most = _mm512_mask_max_epu64(most, some, most, bits);
    }
    let (lowest, highest) = (_mm512_reduce_min_epu64(least) >> 52, _mm512_reduce_max_epu64(most) >> 52);
    // Above 2046 a value is not finite, at 0 it is subnormal (or all of them are zero, and there is nothing to gain).
    if !(52..=2046).contains(&highest) || lowest == 0 || highest - lowest > 51 {
        return None;
    }
    let zero = _mm512_setzero_si512();
    let (mantissa, one) = (_mm512_set1_epi64(MANTISSA), _mm512_set1_epi64(1 << 52));
    let (top, left) = (_mm512_set1_epi64(highest as i64 + 1), _mm512_set1_epi64(51 - highest as i64));
    let [mut high, mut low, mut high_negative, mut low_negative] = [zero; 4];
    let [mut hh_low, mut hh_high, mut hl_low, mut hl_high, mut ll_low, mut ll_high] = [zero; 6];
    for eight in eights {
        let bits = load(eight);
        let exponent = _mm512_srli_epi64::<52>(_mm512_and_si512(bits, magnitude));
        // A zero has exponent 0: the right shift is then at least 53 and the left one beyond 63, so that both halves are 0.
        let whole = _mm512_or_si512(_mm512_and_si512(bits, mantissa), one);
        let h = _mm512_srlv_epi64(whole, _mm512_sub_epi64(top, exponent));
        let l = _mm512_and_si512(_mm512_sllv_epi64(whole, _mm512_add_epi64(left, exponent)), mantissa);
        let negative = _mm512_movepi64_mask(bits);
        high = _mm512_add_epi64(high, h);
        low = _mm512_add_epi64(low, l);
        high_negative = _mm512_mask_add_epi64(high_negative, negative, high_negative, h);
        low_negative = _mm512_mask_add_epi64(low_negative, negative, low_negative, l);
        hh_low = _mm512_madd52lo_epu64(hh_low, h, h);
        hh_high = _mm512_madd52hi_epu64(hh_high, h, h);
        hl_low = _mm512_madd52lo_epu64(hl_low, h, l);
        hl_high = _mm512_madd52hi_epu64(hl_high, h, l);
        ll_low = _mm512_madd52lo_epu64(ll_low, l, l);
        ll_high = _mm512_madd52hi_epu64(ll_high, l, l);
    }
    let shift = highest as usize - 52;
    let (high, low, high_negative, low_negative) = (total(high), total(low), total(high_negative), total(low_negative));
    let square = 2 * shift;
    Some(Terms {
        positive: [(high - high_negative, shift + 52), (low - low_negative, shift)],
        negative: [(high_negative, shift + 52), (low_negative, shift)],
        squares: [
            (total(ll_low), square),
            (total(ll_high), square + 52),
            (total(hl_low), square + 53),
            (total(hl_high), square + 105),
            (total(hh_low), square + 104),
            (total(hh_high), square + 156),
        ],
    })
}
