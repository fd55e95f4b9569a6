//! Many monitors that gather and one that judges are one monitor that has seen it all: to the byte, in any order of deltas.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use barograph_core::hash::murmur3_of_word;
use barograph_engine::delta::Delta;
use barograph_engine::governor::Detail;
use barograph_engine::monitor::{Config, Monitor, Roles};
use barograph_engine::policy::Policy;
use barograph_engine::{Reference, ReferenceBuilder, Schema};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const EVENTS: u64 = 6000;

fn draw(row: u64, what: u64) -> f64 {
    (murmur3_of_word(row, what).0 >> 11) as f64 / (1u64 << 53) as f64
}

/// Half of them of one, the others of thirteen that are of all sizes.
fn country(row: u64) -> String {
    if row.is_multiple_of(2) { "de".to_owned() } else { format!("c{:02}", (13.0 * draw(row, 7) * draw(row, 8)) as u64) }
}

/// Events of six hours, of which the last two have moved.
fn events(rows: &[u64]) -> RecordBatch {
    let time = |row: u64| (row as i64) * 6 * HOUR / EVENTS as i64;
    let moved = |row: u64| if (4 * EVENTS / 6..EVENTS).contains(&row) { 0.4 } else { 0.0 };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("x", Arc::new(rows.iter().map(|row| (row % 11 != 0).then(|| draw(*row, 1) + moved(*row))).collect::<Float64Array>())),
        ("c", Arc::new(rows.iter().map(|row| Some(["a", "b", "c"][(draw(*row, 2) * 3.0) as usize])).collect::<StringArray>())),
        ("country", Arc::new(rows.iter().map(|row| Some(country(*row))).collect::<StringArray>())),
        ("id", Arc::new(rows.iter().map(|row| Some(*row as i64)).collect::<Int64Array>())),
        ("at", Arc::new(rows.iter().map(|row| Some(time(*row))).collect::<TimestampNanosecondArray>())),
        ("score", Arc::new(rows.iter().map(|row| Some(draw(*row, 3))).collect::<Float64Array>())),
        ("seconds", Arc::new(rows.iter().map(|row| Some(0.01 + draw(*row, 4) / 10.0)).collect::<Float64Array>())),
        ("failed", Arc::new(rows.iter().map(|row| Some(draw(*row, 5) < 0.02)).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn labels(rows: &[u64]) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(rows.iter().map(|row| Some(*row as i64)).collect::<Int64Array>())),
        ("label", Arc::new(rows.iter().map(|row| Some(f64::from(draw(*row, 6) < draw(*row, 3)))).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn reference() -> Arc<Reference> {
    let rows: Vec<u64> = (1_000_000..1_008_000).collect();
    let whole = events(&rows).project(&[0, 1, 2]).unwrap();
    let mut schema = Schema::infer(&whole).unwrap();
    schema.columns.iter_mut().filter(|column| column.name == "country").for_each(|column| column.role = barograph_engine::Role::Segment);
    let mut builder = ReferenceBuilder::new(&schema, None, None).unwrap();
    builder.update(&whole).unwrap();
    while builder.fix().unwrap() {
        builder.count(&whole).unwrap();
    }
    Arc::new(builder.finish(Some(0)).unwrap())
}

fn policy() -> Policy {
    let rule = r#"{"slo": "latency", "threshold": 0.05, "objective": 0.9}"#;
    Policy::from_json(&format!(r#"{{"window": "1h", "rules": [{rule}, {{"metric": "roc_auc", "below": 0.9}}]}}"#)).unwrap()
}

fn monitor(reference: &Arc<Reference>) -> Monitor {
    let config = Config { name: "m".to_owned(), policy: policy(), privacy: None };
    Monitor::new(config, Arc::clone(reference)).unwrap()
}

fn observe(monitor: &mut Monitor, rows: &[u64]) {
    let name = |name: &str| Some(name.to_owned());
    let (id, time, score) = (name("id"), name("at"), name("score"));
    let roles = Roles { id, time, score, latency: name("seconds"), error: name("failed"), ..Roles::default() };
    monitor.observe(&events(rows), &roles, 0).unwrap();
}

fn alone(reference: &Arc<Reference>) -> Monitor {
    let mut alone = monitor(reference);
    for rows in (0..EVENTS).collect::<Vec<_>>().chunks(500) {
        observe(&mut alone, rows);
    }
    alone.label(&labels(&(0..EVENTS).filter(|row| row % 3 != 0).collect::<Vec<_>>()), "id", "label", None, 7).unwrap();
    alone
}

/// Deltas of so many monitors, cut here and there, in an order that a seed makes.
fn deltas(reference: &Arc<Reference>, edges: u64, seed: u64) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for edge in 0..edges {
        let mut own = monitor(reference);
        own.hand_on();
        let rows: Vec<u64> = (0..EVENTS).filter(|row| murmur3_of_word(*row, seed).0 % edges == edge).collect();
        // Labels of events that others have seen.
        let truths: Vec<u64> = (0..EVENTS).filter(|row| row % 3 != 0 && murmur3_of_word(*row, seed + 1).0 % edges == edge).collect();
        for (turn, (rows, truths)) in rows.chunks(90).zip(truths.chunks(60)).enumerate() {
            observe(&mut own, rows);
            own.label(&labels(truths), "id", "label", None, 7).unwrap();
            if turn % 3 == 2 {
                // A kill in between changes nothing.
                own = Monitor::from_bytes(&own.to_bytes().unwrap()).unwrap();
                out.extend(own.cut(turn as i64).unwrap());
            }
        }
        let rest = rows.chunks(90).count().min(truths.chunks(60).count());
        rows.chunks(90).skip(rest).for_each(|rows| observe(&mut own, rows));
        truths.chunks(60).skip(rest).for_each(|truths| own.label(&labels(truths), "id", "label", None, 7).unwrap());
        out.extend(own.cut(99).unwrap());
        assert_eq!((own.counts()[0].1, own.untold()), (0, 0));
    }
    let mut bytes: Vec<_> = out.iter().map(Delta::to_bytes).collect();
    bytes.sort_by_key(|bytes| murmur3_of_word(bytes.len() as u64, seed + 2).0);
    bytes
}

#[test]
fn the_judge_of_many_is_one_that_has_seen_it_all() {
    let reference = reference();
    let mut alone = alone(&reference);
    alone.tick(10 * HOUR).unwrap();
    assert!(!alone.alerts().is_empty(), "the shift is seen");
    let history: Vec<_> = alone.history(i64::MIN).cloned().collect();
    assert!(history.iter().any(|row| row.segment.is_some()));
    for (edges, seed) in [(1, 1), (3, 5), (20, 9)] {
        let mut judge = monitor(&reference);
        let all = deltas(&reference, edges, seed);
        assert!(all.len() as u64 > edges);
        for bytes in all {
            let delta = Delta::from_bytes(&bytes, &judge).unwrap();
            assert_eq!(delta.to_bytes(), bytes);
            assert_eq!(judge.add_delta(&delta).unwrap().too_late, 0);
        }
        judge.tick(10 * HOUR).unwrap();
        assert_eq!(judge.history(i64::MIN).cloned().collect::<Vec<_>>(), history, "{edges} edges");
        assert_eq!(judge.alerts(), alone.alerts());
        assert_eq!(judge.to_bytes().unwrap(), alone.to_bytes().unwrap());
    }
}

#[test]
fn what_one_has_pooled_is_pooled_at_the_judge() {
    let reference = reference();
    let (all, pooled) = (Detail::default(), Detail { level: 1 });
    let history = |monitor: &mut Monitor| {
        monitor.tick(10 * HOUR).unwrap();
        monitor.history(i64::MIN).cloned().collect::<Vec<_>>()
    };
    let mut alone = monitor(&reference);
    alone.keep(pooled);
    observe(&mut alone, &(0..EVENTS).collect::<Vec<_>>());
    let expected = history(&mut alone);
    let others = |row: &barograph_engine::report::Row| row.segment.as_deref() == Some("country=(other)");
    assert!(expected.iter().any(others));
    for (of_judge, of_edges) in [(all, [pooled, pooled]), (all, [all, pooled]), (all, [pooled, all]), (pooled, [all, all])] {
        let mut judge = monitor(&reference);
        judge.keep(of_judge);
        for (edge, detail) in of_edges.into_iter().enumerate() {
            let mut own = monitor(&reference);
            own.hand_on();
            own.keep(detail);
            observe(&mut own, &(0..EVENTS).filter(|row| row % 2 == edge as u64).collect::<Vec<_>>());
            for delta in own.cut(99).unwrap() {
                let bytes = delta.to_bytes();
                let read = Delta::from_bytes(&bytes, &judge).unwrap();
                assert_eq!(read.to_bytes(), bytes);
                judge.add_delta(&read).unwrap();
            }
        }
        assert_eq!(history(&mut judge), expected);
    }
    let mut judge = monitor(&reference);
    observe(&mut judge, &(0..EVENTS).collect::<Vec<_>>());
    assert!(!history(&mut judge).iter().any(others), "all are told apart where nothing was pooled");
}

#[test]
fn what_comes_late_is_what_a_late_event_is() {
    let reference = reference();
    let (mut alone, mut judge) = (monitor(&reference), monitor(&reference));
    observe(&mut alone, &(0..3000).collect::<Vec<_>>());
    let mut first = monitor(&reference);
    first.hand_on();
    let mut second = first.clone();
    observe(&mut first, &(0..3000).collect::<Vec<_>>());
    // A third of it is late, and has ids that were seen.
    let rest: Vec<u64> = (2000..EVENTS).collect();
    observe(&mut second, &rest);
    for delta in first.cut(0).unwrap() {
        judge.add_delta(&delta).unwrap();
    }
    alone.tick(3 * HOUR).unwrap();
    judge.tick(3 * HOUR).unwrap();
    observe(&mut alone, &rest);
    for delta in second.cut(0).unwrap() {
        judge.add_delta(&delta).unwrap();
    }
    alone.tick(9 * HOUR).unwrap();
    judge.tick(9 * HOUR).unwrap();
    let late = |monitor: &Monitor| monitor.counts().iter().find(|(name, _)| *name == "late").unwrap().1;
    assert!(late(&alone) > 0);
    assert_eq!(judge.to_bytes().unwrap(), alone.to_bytes().unwrap());
}

#[test]
fn another_reference_or_policy_adds_nothing() {
    let reference = reference();
    let mut own = monitor(&reference);
    own.hand_on();
    observe(&mut own, &[1, 2, 3]);
    let bytes = own.cut(0).unwrap().remove(0).to_bytes();
    let mut policy = policy();
    policy.window = serde_json::from_str("\"2h\"").unwrap();
    let config = Config { name: "m".to_owned(), policy, privacy: None };
    let mut other = Monitor::new(config, Arc::clone(&reference)).unwrap();
    assert!(Delta::from_bytes(&bytes, &other).unwrap_err().message.contains("another reference or policy"));
    let delta = Delta::from_bytes(&bytes, &own).unwrap();
    let before = other.to_bytes().unwrap();
    assert!(other.add_delta(&delta).unwrap_err().message.contains("by another policy"));
    assert_eq!(other.to_bytes().unwrap(), before);
}

#[test]
fn no_cut_or_flipped_byte_of_a_delta_does_harm() {
    let reference = reference();
    let mut own = monitor(&reference);
    own.hand_on();
    observe(&mut own, &(0..30).collect::<Vec<_>>());
    own.label(&labels(&[1, 2]), "id", "label", None, 7).unwrap();
    let whole = own.cut(0).unwrap().remove(0).to_bytes();
    let judge = monitor(&reference);
    // A checksum that fits, as whoever means harm would make it.
    let sealed = |bytes: &[u8]| {
        let mut out = bytes[..bytes.len() - 4].to_vec();
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    };
    for at in (7..whole.len() - 4).step_by(3) {
        assert!(Delta::from_bytes(&sealed(&whole[..at + 4]), &judge).is_err());
        for byte in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            if let Ok(delta) = Delta::from_bytes(&sealed(&bytes), &judge) {
                let mut judge = judge.clone();
                let _ = judge.add_delta(&delta);
                let _ = judge.tick(2 * HOUR);
            }
        }
    }
}
