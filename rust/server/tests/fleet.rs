//! Models that tell and one that judges, through their records: whatever comes late, twice, out of order or after a replay.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use barograph_core::hash::murmur3_of_word;
use barograph_engine::{Monitor, ReferenceBuilder, Schema};
use barograph_server::model::{Model, Settings, State};
use barograph_server::outbox::Parcels;
use barograph_server::record::{Happening, Record, batch_from_stream};
use barograph_server::streams::Numbered;

const HOUR: i64 = 3_600_000_000_000;
const EVENTS: u64 = 3000;

fn draw(row: u64, what: u64) -> f64 {
    (murmur3_of_word(row, what).0 >> 11) as f64 / (1u64 << 53) as f64
}

fn batch(rows: &[u64], wanted: &[&str]) -> RecordBatch {
    let column = |name: &str| -> ArrayRef {
        match name {
            "x" => Arc::new(rows.iter().map(|row| Some(draw(*row, 1))).collect::<Float64Array>()),
            "c" => Arc::new(rows.iter().map(|row| Some(["a", "b"][(row % 2) as usize])).collect::<StringArray>()),
            "_id" => Arc::new(rows.iter().map(|row| Some(*row as i64)).collect::<Int64Array>()),
            "_time" => Arc::new(rows.iter().map(|row| Some(*row as i64 * 3 * HOUR / EVENTS as i64)).collect::<TimestampNanosecondArray>()),
            "_score" => Arc::new(rows.iter().map(|row| Some(draw(*row, 2))).collect::<Float64Array>()),
            _ => Arc::new(rows.iter().map(|row| Some(f64::from(draw(*row, 3) < draw(*row, 2)))).collect::<Float64Array>()),
        }
    };
    RecordBatch::try_from_iter_with_nullable(wanted.iter().map(|name| (*name, column(name), true))).unwrap()
}

const FEATURES: [&str; 5] = ["x", "c", "_id", "_time", "_score"];

fn reference() -> Vec<u8> {
    reference_of(1_000_000..1_004_000, &["x", "c"])
}

fn reference_of(rows: std::ops::Range<u64>, columns: &[&str]) -> Vec<u8> {
    let whole = batch(&rows.collect::<Vec<_>>(), columns);
    let mut builder = ReferenceBuilder::new(&Schema::infer(&whole).unwrap(), None, None).unwrap();
    builder.update(&whole).unwrap();
    while builder.fix().unwrap() {
        builder.count(&whole).unwrap();
    }
    builder.finish(Some(0)).unwrap().to_bytes()
}

/// A model, and all that happened to it as its log has it.
struct Logged {
    model: Model,
    log: Vec<Vec<u8>>,
    now: i64,
}

impl Logged {
    fn new() -> Self {
        let settings = Settings::from_json(r#"{"policy": {"window": "1h"}}"#).unwrap();
        Self { model: Model::new("m", settings), log: Vec::new(), now: 0 }
    }

    fn take(&mut self, record: &Record) {
        let bytes = record.to_bytes().unwrap();
        // A shard would refuse to open the log otherwise.
        assert_eq!(Record::newer(&bytes), None);
        self.log.push(bytes);
        self.model.apply(record).unwrap();
    }

    fn happen(&mut self, happening: Happening) {
        self.now += 1_000_000;
        self.take(&Record::new(self.now, happening));
    }

    /// The same model out of a state and the log behind it.
    fn killed(&self, at: usize) -> Model {
        let mut model = Self::new().model;
        for bytes in self.log.iter().take(at) {
            model.apply(&Record::from_bytes(bytes).unwrap()).unwrap();
        }
        let mut model = Model::from_bytes(&model.to_bytes().unwrap()).unwrap();
        for bytes in self.log.iter().skip(at) {
            model.apply(&Record::from_bytes(bytes).unwrap()).unwrap();
        }
        model
    }

    fn parcels(&self) -> Vec<(Numbered, Parcels, bytes::Bytes)> {
        let outbox = self.model.outbox.as_ref().unwrap();
        let place = |number| Numbered { stream: Arc::clone(&outbox.stream), number };
        outbox.parcels().map(|parcel| (place(parcel.number), parcel.what, parcel.bytes.clone())).collect()
    }

    /// A parcel comes, perhaps again.
    fn receive(&mut self, (place, what, bytes): (Numbered, Parcels, bytes::Bytes)) {
        if self.model.streams.contains(&place) {
            return;
        }
        self.now += 1_000_000;
        let happening = match what {
            Parcels::Delta => Happening::Delta(bytes, None),
            Parcels::Events => Happening::Events(batch_from_stream(&bytes).unwrap()),
            Parcels::Labels => Happening::Labels(batch_from_stream(&bytes).unwrap()),
        };
        self.take(&Record { numbers: vec![place], ..Record::new(self.now, happening) });
    }
}

fn rows(edge: u64, edges: u64) -> Vec<u64> {
    (0..EVENTS).filter(|row| murmur3_of_word(*row, 7).0 % edges == edge).collect()
}

fn edge(number: u64, edges: u64) -> Logged {
    let mut edge = Logged::new();
    edge.happen(Happening::Enlist(Some(format!("e{number}.1"))));
    edge.happen(Happening::Reference(reference()));
    for (turn, rows) in rows(number, edges).chunks(40).enumerate() {
        edge.happen(Happening::Events(batch(rows, &FEATURES)));
        // Labels of what the next one has seen.
        let theirs: Vec<u64> = rows.iter().map(|row| (row * 7 + 1) % EVENTS).collect();
        edge.happen(Happening::Labels(batch(&theirs, &["_id", "_label"])));
        if turn % 3 == 1 {
            edge.happen(Happening::Cut);
        }
    }
    edge.happen(Happening::Cut);
    edge
}

#[test]
fn deltas_in_any_order_twice_and_after_replays_make_one_model() {
    let reference = reference();
    let mut alone = Logged::new();
    alone.happen(Happening::Reference(reference.clone()));
    for number in 0..4 {
        for rows in rows(number, 4).chunks(100) {
            alone.happen(Happening::Events(batch(rows, &FEATURES)));
        }
    }
    let labelled: Vec<u64> = (0..EVENTS).map(|row| (row * 7 + 1) % EVENTS).collect();
    alone.happen(Happening::Labels(batch(&labelled, &["_id", "_label"])));
    let edges: Vec<Logged> = (0..4).map(|number| edge(number, 4)).collect();
    for edge in &edges {
        // Killed anywhere, the same parcels come under the same numbers.
        for at in [0, 3, edge.log.len() / 2, edge.log.len()] {
            assert_eq!(edge.killed(at).to_bytes().unwrap(), edge.model.to_bytes().unwrap(), "{at}");
        }
    }
    let mut judge = Logged::new();
    judge.happen(Happening::Reference(reference));
    let mut parcels: Vec<_> = edges.iter().flat_map(Logged::parcels).collect();
    assert!(parcels.len() > 12);
    parcels.extend(parcels.clone());
    parcels.sort_by_key(|(place, ..)| murmur3_of_word(place.number, place.stream.len() as u64).0);
    parcels.into_iter().for_each(|parcel| judge.receive(parcel));
    assert_eq!((judge.model.counts.events, judge.model.counts.labels), (EVENTS, EVENTS));
    assert_eq!(judge.model.sources.iter().map(|(_, source)| source.events).sum::<u64>(), EVENTS);
    let mut judge = Logged { model: judge.killed(judge.log.len() / 2), ..judge };
    for model in [&mut judge, &mut alone] {
        model.take(&Record::new(400 * HOUR, Happening::Tick));
    }
    let monitor = |logged: &Logged| match &logged.model.state {
        State::Watching(monitor) => Monitor::clone(monitor),
        State::Learning(_) => unreachable!(),
    };
    let (judge, alone) = (monitor(&judge), monitor(&alone));
    assert!(alone.history(i64::MIN).count() > 20);
    assert_eq!(judge.history(i64::MIN).collect::<Vec<_>>(), alone.history(i64::MIN).collect::<Vec<_>>());
    assert_eq!(judge.alerts(), alone.alerts());
    let bytes = |monitor: &Monitor| monitor.profile(i64::MIN, i64::MAX).unwrap().unwrap().to_bytes();
    assert_eq!(bytes(&judge), bytes(&alone));
}

#[test]
fn what_was_replaced_counts_and_what_never_was_is_refused() {
    let mut judge = Logged::new();
    let parcels = edge(0, 30).parcels();
    let refused = judge.model.read_delta(&parcels[0].2).unwrap_err();
    assert!(refused.message.contains("no reference yet"));
    judge.happen(Happening::Reference(reference()));
    judge.receive(parcels[0].clone());
    let before = judge.model.counts.events;
    judge.happen(Happening::Reference(reference_of(0..3000, &["x"])));
    judge.receive(parcels[1].clone());
    assert!(judge.model.outdated > 0);
    assert_eq!(judge.model.counts.events, before + judge.model.outdated);
    let mut never = Logged::new();
    never.happen(Happening::Reference(reference_of(0..2000, &["x"])));
    assert!(never.model.read_delta(&parcels[0].2).unwrap_err().message.contains("expected"));
    assert_eq!(judge.killed(3).to_bytes().unwrap(), judge.model.to_bytes().unwrap());
}

#[test]
fn while_the_judge_learns_events_and_labels_are_told_as_they_came() {
    let (mut edge, mut judge) = (Logged::new(), Logged::new());
    edge.happen(Happening::Enlist(Some("e.1".to_owned())));
    for rows in (0..300).collect::<Vec<u64>>().chunks(50) {
        edge.happen(Happening::Events(batch(rows, &FEATURES)));
        edge.happen(Happening::Labels(batch(rows, &["_id", "_label"])));
        edge.happen(Happening::Tick);
    }
    edge.happen(Happening::Cut);
    let parcels = edge.parcels();
    assert_eq!(parcels.iter().filter(|(_, what, _)| *what == Parcels::Labels).count(), 6);
    parcels.into_iter().for_each(|parcel| judge.receive(parcel));
    assert_eq!((judge.model.counts.events, judge.model.counts.labels), (300, 300));
    assert!(edge.model.monitor().is_none());
    assert_eq!(edge.killed(5).to_bytes().unwrap(), edge.model.to_bytes().unwrap());
}
