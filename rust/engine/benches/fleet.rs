//! What a judge of many pays per tile of a delta: 20 columns, ten seconds of events, decoded, checked and merged.
//! `cargo bench -p barograph-engine`
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use barograph_core::hash::murmur3_of_word;
use barograph_engine::delta::Delta;
use barograph_engine::monitor::{Config, Monitor, Roles};
use barograph_engine::policy::Policy;
use barograph_engine::{Reference, ReferenceBuilder, Schema};

const COLUMNS: u64 = 20;

fn main() {
    divan::main();
}

fn rows(from: u64, count: u64) -> RecordBatch {
    let value = |row: u64, column: u64| (murmur3_of_word(row, column).0 >> 11) as f64 / (1u64 << 53) as f64;
    let column = |at: u64| -> (String, ArrayRef) {
        (format!("x{at}"), Arc::new((from..from + count).map(|row| Some(value(row, at) * 100.0)).collect::<Float64Array>()))
    };
    let times: TimestampNanosecondArray = (0..count as i64).map(|row| Some(row * 1_000_000)).collect();
    let time: (String, ArrayRef) = ("at".to_owned(), Arc::new(times));
    RecordBatch::try_from_iter((0..COLUMNS).map(column).chain([time])).unwrap()
}

fn monitor() -> Monitor {
    let whole = rows(0, 50_000);
    let whole = whole.project(&(0..COLUMNS as usize).collect::<Vec<_>>()).unwrap();
    let mut builder = ReferenceBuilder::new(&Schema::infer(&whole).unwrap(), None, None).unwrap();
    builder.update(&whole).unwrap();
    while builder.fix().unwrap() {
        builder.count(&whole).unwrap();
    }
    let reference: Arc<Reference> = Arc::new(builder.finish(None).unwrap());
    Monitor::new(Config { name: "m".into(), policy: Policy::default(), privacy: None }, reference).unwrap()
}

/// Events of a tile that a delta brings.
#[divan::bench(args = [100, 1000, 10_000])]
fn tile(bencher: divan::Bencher<'_, '_>, events: u64) {
    let mut judge = monitor();
    let mut edge = judge.clone();
    edge.hand_on();
    let roles = Roles { time: Some("at".into()), ..Roles::default() };
    edge.observe(&rows(1_000_000, events), &roles, 0).unwrap();
    let bytes = edge.cut(0).unwrap().remove(0).to_bytes();
    println!("{events} events: {} bytes", bytes.len());
    bencher.bench_local(|| {
        let delta = Delta::from_bytes(&bytes, &judge).unwrap();
        judge.add_delta(&delta).unwrap();
    });
}
