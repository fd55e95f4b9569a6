//! Throughput of the hot path and cost of a test. `cargo bench -p barograph-core`.
#![allow(missing_docs, clippy::unwrap_used)]

use barograph_core::bins::Bins;
use barograph_core::scores::psi::PsiTest;
use barograph_core::scores::share::ShareTest;
use barograph_core::sketches::{Categories, ExponentialHistogram, Hll, Moments};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const N: usize = 1 << 16;

fn main() {
    divan::main();
}

/// Values of a law in an order no branch predictor learns (splitmix64).
fn values(law: &str) -> Vec<f64> {
    let mut state = 7u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    };
    let law: fn(f64) -> f64 = match law {
        "five values" => |u| (u * 5.0).floor(),
        "zipf" => |u| (1.0 / u).floor().min(1000.0),
        "pareto" => |u| u.powf(-1.0 / 1.5),
        "normal" => barograph_core::distributions::normal_quantile,
        _ => |u| barograph_core::distributions::normal_quantile(u).exp(),
    };
    (0..N).map(|_| law(uniform())).collect()
}

#[divan::bench(args = ["normal", "lognormal"])]
fn moments(bencher: Bencher<'_, '_>, law: &str) {
    let values = values(law);
    bencher.counter(ItemsCount::new(N)).bench_local(|| {
        let mut moments = Moments::new();
        moments.update_many(black_box(&values));
        moments
    });
}

#[divan::bench(args = ["lognormal", "zipf", "five values"])]
fn exponential_histogram(bencher: Bencher<'_, '_>, law: &str) {
    let values = values(law);
    let mut histogram = ExponentialHistogram::new(6).unwrap();
    bencher.counter(ItemsCount::new(N)).bench_local(|| histogram.update_many(black_box(&values)));
}

#[divan::bench(args = ["normal", "lognormal", "pareto", "zipf", "five values"])]
fn reference_bins(bencher: Bencher<'_, '_>, law: &str) {
    let values = values(law);
    let bins = Bins::from_values(&values, 1000).unwrap();
    let mut counts = vec![0; bins.len()];
    bencher.counter(ItemsCount::new(N)).bench_local(|| bins.count(black_box(&values), &mut counts));
}

#[divan::bench(args = ["normal", "pareto", "zipf"])]
fn edges(bencher: Bencher<'_, '_>, law: &str) {
    let values = values(law).repeat(16);
    bencher.counter(ItemsCount::new(values.len())).bench_local(|| Bins::from_values(black_box(&values), 1000));
}

#[divan::bench]
fn categories(bencher: Bencher<'_, '_>) {
    let names: Vec<String> = (0..N).map(|i| format!("name {}", i * 7919 % 1000)).collect();
    let mut counts = Categories::new().unwrap();
    bencher.counter(ItemsCount::new(N)).bench_local(|| names.iter().for_each(|name| counts.update(name, 1)));
}

#[divan::bench]
fn hll(bencher: Bencher<'_, '_>) {
    let mut sketch = Hll::new(12).unwrap();
    bencher.counter(ItemsCount::new(N)).bench_local(|| (0..N as u64).for_each(|i| sketch.update(&i.to_le_bytes())));
}

#[divan::bench(args = [1_000, 50_000, 1_000_000])]
fn psi_with_limits(bencher: Bencher<'_, '_>, n: u32) {
    let a: Vec<f64> = vec![f64::from(n) / 10.0; 10];
    let b: Vec<f64> = (0..10).map(|i| f64::from(n) / 10.0 * (0.9 + 0.02 * f64::from(i))).collect();
    bencher.bench_local(|| PsiTest::new(black_box(&a), black_box(&b), 0.5).unwrap().score(0.1, 0.99));
}

#[divan::bench(args = [1_000, 1_000_000])]
fn share_with_limits(bencher: Bencher<'_, '_>, n: u32) {
    let test = ShareTest::new(f64::from(n / 100), f64::from(n), f64::from(n / 20), f64::from(n)).unwrap();
    bencher.bench_local(|| black_box(test).score(0.02, 0.99));
}
