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

/// Lognormal-like values without a generator: a Weyl sequence through the inverse normal.
fn values() -> Vec<f64> {
    (1..=N)
        .map(|i| (barograph_core::distributions::normal_quantile((i as f64 * 0.618_033_988_749_895).fract().clamp(1e-9, 1.0 - 1e-9))).exp())
        .collect()
}

#[divan::bench]
fn moments(bencher: Bencher<'_, '_>) {
    let values = values();
    bencher.counter(ItemsCount::new(N)).bench_local(|| {
        let mut moments = Moments::new();
        moments.update_many(black_box(&values));
        moments
    });
}

#[divan::bench(args = [0, 6, 8])]
fn exponential_histogram(bencher: Bencher<'_, '_>, scale: u8) {
    let values = values();
    let mut histogram = ExponentialHistogram::new(scale).unwrap();
    bencher.counter(ItemsCount::new(N)).bench_local(|| histogram.update_many(black_box(&values)));
}

#[divan::bench]
fn reference_bins(bencher: Bencher<'_, '_>) {
    let mut values = values();
    let unsorted = values.clone();
    values.sort_by(f64::total_cmp);
    let bins = Bins::from_sorted(&values, 1000).unwrap();
    let mut counts = vec![0; bins.len()];
    bencher.counter(ItemsCount::new(N)).bench_local(|| bins.count(black_box(&unsorted), &mut counts));
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
