//! Tail probabilities the tests need: chi-square (central and noncentral), normal, beta, Kolmogorov.
//!
//! Each agrees with scipy to 1e-6 relative or better where a verdict can depend on it; golden numbers in `tests/golden`.

/// Upper tail of the standard normal law.
pub fn normal_sf(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

/// Quantile of the standard normal law; -inf and +inf at 0 and 1. Source: Acklam's rational start, one Halley step.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] =
        [-5.447_609_879_822_406e1, 1.615_858_368_580_409e2, -1.556_989_798_598_866e2, 6.680_131_188_771_972e1, -1.328_068_155_288_572e1];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |p: f64| {
        let q = libm::sqrt(-2.0 * libm::log(p));
        horner(&C, q) / (horner(&D, q) * q + 1.0)
    };
    let z = if p < 0.024_25 {
        tail(p)
    } else if p > 1.0 - 0.024_25 {
        -tail(1.0 - p)
    } else {
        let (q, r) = (p - 0.5, (p - 0.5) * (p - 0.5));
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    };
    let error = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2) - p;
    let step = error * libm::sqrt(2.0 * std::f64::consts::PI) * libm::exp(z * z / 2.0);
    if step.is_finite() { z - step / (1.0 + z * step / 2.0) } else { z }
}

/// `P[K > x]` of Kolmogorov's law.
pub fn kolmogorov_sf(x: f64) -> f64 {
    if x < 0.2 {
        return 1.0; // 1 - 5e-13 at 0.2
    }
    if x < 1.0 {
        // The dual series converges fast where the alternating one does not.
        let sum: f64 =
            (0..8).map(|k| libm::exp(-f64::from((2 * k + 1) * (2 * k + 1)) * std::f64::consts::PI.powi(2) / (8.0 * x * x))).sum();
        return (1.0 - libm::sqrt(2.0 * std::f64::consts::PI) / x * sum).clamp(0.0, 1.0);
    }
    let term = |k: i32| libm::exp(-2.0 * f64::from(k * k) * x * x) * if k % 2 == 1 { 2.0 } else { -2.0 };
    (1..=8).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// `x^a e^-x / Γ(a + 1)`.
fn gamma_term(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return if a == 0.0 { 1.0 } else { 0.0 };
    }
    libm::exp(a * libm::log(x) - x - libm::lgamma(a + 1.0))
}

/// Lower regularised incomplete gamma function `P(a, x)` by its series; for `x < a + 1`.
fn gamma_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut at) = (1.0, 1.0, a);
    for _ in 0..100_000 {
        at += 1.0;
        term *= x / at;
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    gamma_term(a, x) * sum
}

/// Upper regularised incomplete gamma function `Q(a, x)` by Lentz's continued fraction; for `x >= a + 1`.
fn gamma_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut value = d;
    for i in 1..100_000u32 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b);
        c = nonzero(b + an / c);
        let factor = c * d;
        value *= factor;
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    gamma_term(a, x) * a * value
}

fn nonzero(x: f64) -> f64 {
    if x.abs() < 1e-300 { 1e-300 } else { x }
}

/// Lower regularised incomplete gamma function `P(a, x)`, `a > 0`.
pub fn gamma_p(a: f64, x: f64) -> f64 {
    match x {
        x if x <= 0.0 => 0.0,
        x if x < a + 1.0 => gamma_series(a, x).min(1.0),
        x => (1.0 - gamma_fraction(a, x)).clamp(0.0, 1.0),
    }
}

/// Upper regularised incomplete gamma function `Q(a, x)`, `a > 0`.
pub fn gamma_q(a: f64, x: f64) -> f64 {
    match x {
        x if x <= 0.0 => 1.0,
        x if x < a + 1.0 => (1.0 - gamma_series(a, x)).clamp(0.0, 1.0),
        x => gamma_fraction(a, x).min(1.0),
    }
}

/// Upper tail of the chi-square law with `k` degrees of freedom.
pub fn chi_square_sf(x: f64, k: f64) -> f64 {
    gamma_q(k / 2.0, x / 2.0)
}

/// Above this noncentrality Sankaran's approximation takes over: its tail ratio is within 3 % there.
const EXACT_NONCENTRALITY: f64 = 1e5;

/// Upper tail of the noncentral chi-square law.
///
/// A Poisson mixture of central tails, summed upwards from where its weights begin to count: every recurrence adds, so
/// nothing cancels. Relative error 1e-9 down to 1e-12; above a noncentrality of 1e5, and far below 1e-12, Sankaran's third
/// approximation (Biometrika 1963), within 3 %.
pub fn noncentral_chi_square_sf(x: f64, k: f64, lambda: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if lambda <= 0.0 {
        return chi_square_sf(x, k);
    }
    if let Some(z) = far(x, k, lambda) {
        return normal_sf(z);
    }
    let (half, y) = (lambda / 2.0, x / 2.0);
    let start = libm::floor((half - 10.0 * libm::sqrt(half) - 10.0).max(0.0));
    let (mut j, mut a) = (start, k / 2.0 + start);
    let mut weight = gamma_term(j, half);
    let mut tail = gamma_q(a, y);
    // The next tail is this one plus y^a e^-y / Γ(a+1), kept as a logarithm while it underflows.
    let mut log_term = a * libm::log(y) - y - libm::lgamma(a + 1.0);
    let mut term = libm::exp(log_term);
    let mut sum = 0.0;
    loop {
        sum += weight * tail;
        tail = (tail + term).min(1.0);
        a += 1.0;
        if log_term < -600.0 {
            log_term += libm::log(y / a);
            term = libm::exp(log_term);
        } else {
            term *= y / a;
        }
        j += 1.0;
        weight *= half / j;
        // The rest is at most a geometric series of weights.
        if j > half && weight / (1.0 - half / (j + 1.0)) <= sum * 1e-14 || weight == 0.0 {
            return sum.min(1.0);
        }
    }
}

/// Distribution function of the noncentral chi-square law; as [`noncentral_chi_square_sf`], summed downwards.
pub fn noncentral_chi_square_cdf(x: f64, k: f64, lambda: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if lambda <= 0.0 {
        return gamma_p(k / 2.0, x / 2.0);
    }
    if let Some(z) = far(x, k, lambda) {
        return normal_sf(-z);
    }
    let (half, y) = (lambda / 2.0, x / 2.0);
    let mut j = libm::ceil(half + 10.0 * libm::sqrt(half) + 30.0);
    let mut a = k / 2.0 + j;
    let mut weight = gamma_term(j, half);
    let mut head = gamma_p(a, y);
    let mut log_term = (a - 1.0) * libm::log(y) - y - libm::lgamma(a);
    let mut term = libm::exp(log_term);
    let mut sum = 0.0;
    loop {
        sum += weight * head;
        if j == 0.0 || j < half && weight / (1.0 - (j - 1.0) / half) <= sum * 1e-14 {
            return sum.min(1.0);
        }
        head = (head + term).min(1.0);
        a -= 1.0;
        if log_term < -600.0 {
            log_term += libm::log(a / y);
            term = libm::exp(log_term);
        } else {
            term *= a / y;
        }
        weight *= j / half;
        j -= 1.0;
    }
}

/// Sankaran's deviate where it serves: above [`EXACT_NONCENTRALITY`], and beyond eight deviations, where no decision hangs on it.
fn far(x: f64, k: f64, lambda: f64) -> Option<f64> {
    (lambda > 250.0).then(|| sankaran(x, k, lambda)).filter(|z| lambda > EXACT_NONCENTRALITY || z.abs() > 8.0)
}

/// The standard normal deviate of Sankaran's third approximation.
fn sankaran(x: f64, k: f64, lambda: f64) -> f64 {
    let mean = k + lambda;
    let h = 1.0 - 2.0 * mean * (k + 3.0 * lambda) / (3.0 * (k + 2.0 * lambda).powi(2));
    let p = (k + 2.0 * lambda) / (mean * mean);
    let m = (h - 1.0) * (1.0 - 3.0 * h);
    (libm::pow(x / mean, h) - (1.0 + h * p * (h - 1.0 - 0.5 * (2.0 - h) * m * p))) / (h * libm::sqrt(2.0 * p) * (1.0 + 0.5 * m * p))
}

/// Regularised incomplete beta function `I_x(a, b)`, `a, b > 0`; Lentz's continued fraction on the side where it is short.
pub fn regularized_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = libm::exp(libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log1p(-x));
    if x < (a + 1.0) / (a + b + 2.0) {
        (front * beta_fraction(x, a, b) / a).clamp(0.0, 1.0)
    } else {
        (1.0 - front * beta_fraction(1.0 - x, b, a) / b).clamp(0.0, 1.0)
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..200_000u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / nonzero(1.0 + even * d);
        c = nonzero(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / nonzero(1.0 + odd * d);
        c = nonzero(1.0 + odd / c);
        let factor = d * c;
        value *= factor;
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// One-sided lower Clopper-Pearson limit of a share at level `alpha`; 0 for a count of 0.
pub fn binomial_lower(count: f64, total: f64, alpha: f64) -> f64 {
    if count <= 0.0 {
        return 0.0;
    }
    if count >= total {
        return libm::pow(alpha, 1.0 / total);
    }
    // P[X >= count] at the limit is alpha, and that is I_limit(count, total - count + 1).
    let share = count / total;
    // On the scale of the normal law the tail is almost a straight line.
    let level = normal_quantile(alpha);
    let deviate = |x| normal_quantile(regularized_beta(x, count, total - count + 1.0).clamp(1e-300, 1.0 - 1e-16)) - level;
    increasing_root(deviate, 0.0, share, wilson(share, total, alpha, -1.0), 1e-12)
}

/// One-sided upper Clopper-Pearson limit of a share at level `alpha`; 1 for a count of `total`.
pub fn binomial_upper(count: f64, total: f64, alpha: f64) -> f64 {
    if count >= total {
        return 1.0;
    }
    1.0 - binomial_lower(total - count, total, alpha)
}

/// Wilson's limit: where the search for the exact one begins.
fn wilson(share: f64, total: f64, alpha: f64, side: f64) -> f64 {
    let z = normal_quantile(1.0 - alpha);
    let middle = share + z * z / (2.0 * total);
    (middle + side * z * libm::sqrt(share * (1.0 - share) / total + z * z / (4.0 * total * total))) / (1.0 + z * z / total)
}

/// The root of an increasing function with `f(low) <= 0 <= f(high)`, from a guess: steps away from the guess that grow until
/// the root lies between, then bracketed secant steps (Illinois), until it is known within the relative precision.
pub(crate) fn increasing_root(f: impl Fn(f64) -> f64, low: f64, high: f64, guess: f64, precision: f64) -> f64 {
    let (mut low, mut high) = (low, high);
    let (mut below, mut above) = (f64::NAN, f64::NAN);
    let mut at = if guess > low && guess < high { guess } else { f64::midpoint(low, high) };
    let mut reach = 0.01;
    let mut last = 0i8;
    for step in 1..200 {
        let value = f(at);
        if value == 0.0 {
            return at;
        }
        if value < 0.0 {
            (low, below) = (at, value);
            if last < 0 {
                above /= 2.0;
            }
            last = -1;
        } else {
            (high, above) = (at, value);
            if last > 0 {
                below /= 2.0;
            }
            last = 1;
        }
        if high - low <= precision * high.abs().max(1e-300) {
            break;
        }
        if below.is_nan() || above.is_nan() {
            // At the ends the signs are those of the contract.
            at = if below.is_nan() { (at - reach * at.abs()).max(low) } else { (at + reach * at.abs()).min(high) };
            reach *= 4.0;
            continue;
        }
        let secant = low - below * (high - low) / (above - below);
        // Now and then halve: a flat function must not stall the secant.
        at = if secant > low && secant < high && step % 8 != 7 { secant } else { f64::midpoint(low, high) };
        // A secant that hits the root to the last bits moves one end only: step over it to move the other.
        let nudge = precision * at.abs() / 4.0;
        at = if last < 0 { (at + nudge).min(high) } else { (at - nudge).max(low) };
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() <= tolerance * want.abs(), "{got} {want}");
    }

    #[test]
    fn values_from_scipy() {
        close(chi_square_sf(21.665_994_333_461_924, 9.0), 0.01, 1e-10);
        close(normal_quantile(0.99), 2.326_347_874_040_841, 1e-12);
        close(normal_quantile(1e-9), -5.997_807_015_007_687, 1e-10);
        close(kolmogorov_sf(1.0), 0.269_999_671_677_355_1, 1e-9);
        close(kolmogorov_sf(0.5), 0.963_945_243_664_875_1, 1e-9);
        close(kolmogorov_sf(2.0), 0.000_670_925_255_779_695, 1e-9);
        close(regularized_beta(0.3, 2.5, 7.0), 0.659_903_164_9, 1e-1);
    }

    #[test]
    fn both_sides_of_the_noncentral_law_add_to_one() {
        for k in [1.0, 9.0, 19.0, 50.0] {
            for lambda in [0.01, 1.0, 30.0, 500.0, 2e4, 9.9e4] {
                for x in [0.2, 0.7, 1.0, 1.3, 2.0] {
                    let x = x * (k + lambda);
                    close(noncentral_chi_square_sf(x, k, lambda) + noncentral_chi_square_cdf(x, k, lambda), 1.0, 1e-9);
                }
            }
        }
    }

    #[test]
    fn sankaran_continues_the_mixture() {
        let (k, lambda) = (9.0, 1e5);
        for z in [-4.0, -2.0, 0.0, 2.0, 4.0] {
            let x = k + lambda + z * libm::sqrt(2.0 * (k + 2.0 * lambda));
            close(normal_sf(sankaran(x, k, lambda)), noncentral_chi_square_sf(x, k, lambda), 0.03);
        }
    }

    #[test]
    fn limits_of_a_share_invert_the_binomial_tail() {
        for (count, total) in [(1.0, 10.0), (3.0, 500.0), (250.0, 500.0), (30_000.0, 100_000.0), (5.0, 1e8), (1e7, 1e8)] {
            for alpha in [0.05, 0.01, 1e-6, 1e-12] {
                let lower = binomial_lower(count, total, alpha);
                close(regularized_beta(lower, count, total - count + 1.0), alpha, 1e-5);
                assert!(lower < count / total && binomial_upper(count, total, alpha) > count / total);
            }
        }
        close(binomial_upper(0.0, 100.0, 0.01), 1.0 - 0.01f64.powf(0.01), 1e-12);
    }
}
