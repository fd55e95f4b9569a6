//! The natural logarithm of probabilities, the same on every machine and without a call.

use std::sync::OnceLock;

const CELLS: usize = 256;

/// Per cell of the mantissa: the inverse of its middle and the logarithm of its middle.
static TABLE: OnceLock<[(f64, f64); CELLS]> = OnceLock::new();

/// The table to pass to [`log`], so that it is looked up once per batch.
pub(super) fn table() -> &'static [(f64, f64); CELLS] {
    TABLE.get_or_init(|| {
        std::array::from_fn(|at| {
            let middle = 1.0 + (at as f64 + 0.5) / CELLS as f64;
            (1.0 / middle, -libm::log(1.0 / middle))
        })
    })
}

/// `ln x` for normal x in (0, 1], within 6e-16 of its size or of 1.
#[inline]
pub(super) fn log(x: f64, table: &[(f64, f64); CELLS]) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let (inverse, logarithm) = table[(bits >> 44) as usize & (CELLS - 1)];
    // |r| < 2^-9: six terms of the series leave 2^-63.
    let r = mantissa * inverse - 1.0;
    let series = r * (1.0 + r * (-0.5 + r * (1.0 / 3.0 + r * (-0.25 + r * (0.2 + r * (-1.0 / 6.0))))));
    f64::from(exponent) * std::f64::consts::LN_2 + (logarithm + series)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_agrees_with_the_library() {
        let table = super::table();
        for i in 1..200_000u32 {
            for x in [f64::from(i) / 200_000.0, libm::exp(-f64::from(i) / 5000.0), 1.0 - f64::from(i) * 1e-12] {
                let (got, want) = (super::log(x, table), libm::log(x));
                assert!((got - want).abs() <= 6e-16 * want.abs().max(1.0), "{x} {got} {want}");
            }
        }
        assert!(super::log(1.0, table).abs() < 1e-15);
    }
}
