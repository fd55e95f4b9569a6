//! Bodies of every protocol, chosen by the first byte: whatever comes, a refusal, or events that the log and a model take.
#![no_main]

use std::cell::RefCell;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, RecordBatch};
use barograph_core::codec::{SnapshotKind, Writer};
use barograph_engine::frame::nanoseconds;
use barograph_server::ingest::otlp::{self, Otlp};
use barograph_server::ingest::statsd::Aggregator;
use barograph_server::ingest::{arrow, cloudevents, columns, ndjson, open_inference, sagemaker};
use barograph_server::model::{Model, Settings};
use barograph_server::problem::Outcome;
use barograph_server::record::{Happening, Oddities, Record};
use barograph_server::rows::Decoded;
use barograph_server::secret::Secret;
use barograph_server::shape::{Mark, Shape};
use libfuzzer_sys::fuzz_target;

/// Inputs after which the models begin anew: one that matters together with those before it can still be found.
const TURNS: i64 = 64;
const SECOND: i64 = 1_000_000_000;
/// 2026-11-24: times of the seeds lie before it.
const NOW: i64 = 1_795_478_400 * SECOND;
/// As the HTTP interface has it.
const AHEAD: i64 = 24 * 3600 * SECOND;
/// Rows that a byte of a body may become; Arrow's booleans are eight.
const ROWS: usize = 8;
/// Bytes that it may become: a row of a byte has its id, its time and a few columns that all rows of the body share.
const BYTES: usize = 64;

/// Whether Arrow's own reader is at work, whose panics the decoder catches.
static CAUGHT: AtomicBool = AtomicBool::new(false);

/// A model that learns and one that watches, and the shape that bodies are decoded by.
struct World {
    shape: Arc<Shape>,
    fresh: [Model; 2],
    models: [Model; 2],
    /// A delta without its header and checksum.
    told: Vec<u8>,
    turn: i64,
}

/// Events of a model's first hour.
fn lesson() -> String {
    let row = |at: i64| {
        let (x, c, country) = ((at * 37 % 101) as f64 / 10.0, ["a", "b", "c"][at as usize % 3], ["DE", "FR"][at as usize % 2]);
        let (b, score, label) = (at % 5 == 0, (at * 13 % 100) as f64 / 100.0, at % 2);
        format!(
            r#"{{"x":{x},"n":{at},"c":"{c}","b":{b},"t":"words {at} of {x}","country":"{country}","tx":{at},"at":{},"v":[{x},1],"chance":{score},"truth":{label}}}"#,
            (NOW - 3600 * SECOND) / SECOND + at
        )
    };
    (0..200).map(row).collect::<Vec<_>>().join("\n")
}

impl World {
    fn new(settings: &str, open: bool) -> Self {
        let key: Secret = serde_json::from_str("\"0123456789abcdef\"").expect("a secret is text");
        let settings = Settings::from_json(settings).expect("settings that can be");
        let learning = Model::new("m", settings);
        let mut watching = learning.clone();
        let shape = Arc::new(learning.shape(Some(&key)).expect("privacy rules that can be"));
        let told = ndjson::lines(lesson().as_bytes(), shape).expect("lines");
        assert_eq!(told.refusals, 0, "{:?}", told.refused);
        watching.apply(&Record::new(NOW - SECOND, Happening::Events(told.batch))).expect("events to learn from");
        assert!(watching.monitor().is_some());
        let shape = if open { &learning } else { &watching }.shape(Some(&key)).expect("privacy rules that can be");
        assert_eq!(shape.open, open);
        let mut edge = watching.clone();
        edge.apply(&Record::new(NOW, Happening::Enlist(Some("e.1".to_owned())))).expect("a stream");
        let shape = Arc::new(shape);
        let told = ndjson::lines(lesson().lines().take(5).collect::<Vec<_>>().join("\n").as_bytes(), Arc::clone(&shape)).expect("lines");
        edge.apply(&Record::new(NOW, Happening::Events(told.batch))).expect("events");
        edge.apply(&Record::new(NOW, Happening::Cut)).expect("a delta");
        let parcel = edge.outbox.as_ref().and_then(|outbox| outbox.parcels().next()).expect("a parcel").bytes.clone();
        let told = parcel[7..parcel.len() - 4].to_vec();
        Self { shape, fresh: [learning.clone(), watching.clone()], models: [learning, watching], told, turn: 0 }
    }

    /// A model of which nothing is known, one that is known, and one with classes and privacy.
    fn all() -> [Self; 3] {
        let roles = r#""roles":{"id":"tx","time":"at","score":"chance","label":"truth"},"segments":["country"],"learn":{"events":100}"#;
        let strict = r#""privacy":{"columns":{"c":"hash","x":[0,1.5,8],"n":"drop","country":{"names":["DE","FR"]},"tx":"hash"}},
            "policy":{"task":"multiclass","classes":["0","1","2"]}"#;
        [
            Self::new(&format!("{{{roles}}}"), true),
            Self::new(&format!("{{{roles}}}"), false),
            Self::new(&format!("{{{roles},{strict}}}"), false),
        ]
    }

    fn now(&self) -> i64 {
        NOW + self.turn * SECOND
    }

    /// Through the log into both models.
    fn happen(&mut self, happening: Happening, odd: Oddities) {
        let record = Record { odd, ..Record::new(self.now(), happening) };
        let read = Record::from_bytes(&record.to_bytes().expect("what was decoded can be written")).expect("and read");
        if let (Some(before), Some(after)) = (batch_of(&record), batch_of(&read)) {
            assert_eq!((before.num_rows(), before.columns()), (after.num_rows(), after.columns()));
        }
        for model in &mut self.models {
            let before = model.counts;
            let done = model.apply(&read);
            match &read.happening {
                Happening::Events(batch) if done.is_ok() => assert_eq!(model.counts.events - before.events, batch.num_rows() as u64),
                Happening::Labels(batch) if done.is_ok() => assert_eq!(model.counts.labels - before.labels, batch.num_rows() as u64),
                Happening::Half(..) | Happening::Tick => {}
                _ => assert_eq!(model.counts.events, before.events),
            }
        }
    }

    /// Events as the HTTP interface takes them, and the labels among them.
    fn events(&mut self, body: &[u8], decoded: Decoded) {
        let Decoded { batch, refused, refusals, unknown, mistyped, ids: _ } = decoded;
        assert!(refused.len() <= 100 && refused.len() as u64 <= refusals);
        bounded(body, &batch);
        if self.ahead(&batch) {
            return;
        }
        let odd = Oddities { refused: refusals, unknown, mistyped };
        self.happen(Happening::Events(batch.clone()), odd);
        if [Mark::Id, Mark::Label].iter().all(|mark| batch.column_by_name(mark.name()).is_some()) {
            self.happen(Happening::Labels(batch), Oddities::default());
        }
    }

    fn halves(&mut self, body: &[u8], halves: Outcome<Vec<cloudevents::Half>>) {
        for half in halves.into_iter().flatten() {
            bounded(body, &half.batch);
            if !self.ahead(&half.batch) {
                let odd = Oddities { refused: 0, unknown: half.unknown, mistyped: half.mistyped };
                self.happen(Happening::Half(half.side, half.batch), odd);
            }
        }
    }

    /// What a sidecar of a fleet tells: a delta that this model would have made, with what the bytes change of it.
    fn delta(&mut self, body: &[u8]) {
        let Some((places, values)) = body.split_at_checked(body.len() / 3 * 2) else { return };
        let mut payload = self.told.clone();
        for (place, value) in places.as_chunks::<2>().0.iter().zip(values) {
            let place = usize::from(u16::from_le_bytes(*place));
            payload.truncate(if *value == 0xA5 { place.max(1) } else { payload.len() });
            if let Some(byte) = payload.get_mut(place) {
                *byte = *value;
            }
        }
        let mut writer = Writer::new();
        payload.iter().for_each(|byte| writer.u8(*byte));
        let bytes = writer.seal(SnapshotKind::Delta);
        let _ = self.models[0].read_delta(&bytes);
        if let Ok(Some(delta)) = self.models[1].read_delta(&bytes) {
            let again = delta.to_bytes();
            assert!(self.models[1].read_delta(&again).is_ok());
            let before = self.models[1].counts.events;
            let events = delta.events;
            let taken = self.models[1].apply(&Record::new(self.now(), Happening::Delta(bytes.into(), Some(Arc::new(delta)))));
            assert!(taken.is_ok() && self.models[1].counts.events == before + events);
        }
    }

    fn ahead(&self, batch: &RecordBatch) -> bool {
        let times = batch.column_by_name(Mark::Time.name()).and_then(|times| nanoseconds(times.as_ref()));
        times.is_some_and(|times| times.into_iter().flatten().any(|time| time > self.now() + AHEAD))
    }

    /// Time passes; now and then the models are kept and read, and begin anew.
    fn pass(&mut self) {
        self.turn += 1;
        if self.turn % 8 == 0 {
            self.turn += 90;
            self.happen(Happening::Tick, Oddities::default());
            self.turn -= 90;
        }
        if self.turn == TURNS {
            for model in &self.models {
                let bytes = model.to_bytes().expect("a model can be written");
                let read = Model::from_bytes(&bytes).expect("and read");
                assert_eq!(read.counts, model.counts);
            }
            (self.models, self.turn) = (self.fresh.clone(), 0);
        }
    }
}

fn batch_of(record: &Record) -> Option<&RecordBatch> {
    match &record.happening {
        Happening::Events(batch) | Happening::Labels(batch) | Happening::Half(_, batch) => Some(batch),
        _ => None,
    }
}

fn bounded(body: &[u8], batch: &RecordBatch) {
    let bytes: usize = batch.columns().iter().filter_map(|array| array.to_data().get_slice_memory_size().ok()).sum();
    let rows = batch.num_rows();
    assert!(rows <= ROWS * (body.len() + 1), "{rows} rows of {} bytes", body.len());
    assert!(bytes <= BYTES * (body.len() + 1024), "{bytes} bytes of {} columns of {} bytes", batch.num_columns(), body.len());
}

/// Headers, one a line as in HTTP, and the body behind an empty line.
fn binary(data: &[u8], shape: &Arc<Shape>) -> Outcome<Vec<cloudevents::Half>> {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    let head = String::from_utf8_lossy(head);
    let header =
        |name: &str| head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    cloudevents::decode(&header, body, shape)
}

fn structured(kind: &str, body: &[u8], shape: &Arc<Shape>) -> Outcome<Vec<cloudevents::Half>> {
    cloudevents::decode(&|name| (name == "content-type").then(|| kind.to_owned()), body, shape)
}

fn decode(protocol: u8, body: &[u8], world: &mut World) {
    let shape = Arc::clone(&world.shape);
    let decoded = match protocol {
        0 => {
            CAUGHT.store(true, Ordering::Relaxed);
            let decoded = arrow::decode(&body.to_vec().into(), &shape);
            CAUGHT.store(false, Ordering::Relaxed);
            decoded
        }
        1 => ndjson::lines(body, shape),
        2 => ndjson::array(body, shape),
        3 => columns::decode(body, shape),
        4 => sagemaker::decode(body, shape),
        5 => open_inference::both(body, None, &shape),
        6 => {
            // Where its JSON ends is a header: here it is two bytes.
            let Some((length, body)) = body.split_first_chunk::<2>() else { return };
            open_inference::both(body, Some(usize::from(u16::from_le_bytes(*length))), &shape)
        }
        7 => return world.halves(body, structured("application/cloudevents+json", body, &shape)),
        8 => return world.halves(body, structured("application/cloudevents-batch+json", body, &shape)),
        9 => return world.halves(body, binary(body, &shape)),
        13 => return world.delta(body),
        _ => return measured(protocol, body, world),
    };
    if let Ok(decoded) = decoded {
        world.events(body, decoded);
    }
}

fn measured(protocol: u8, body: &[u8], world: &mut World) {
    let measurements = match protocol {
        10 => {
            let mut aggregator = Aggregator::new(&[]);
            aggregator.add(body);
            aggregator.take()
        }
        _ => {
            let json = protocol == 11;
            let Ok((measurements, partial)) = Otlp::new(Vec::new()).decode(body, json) else { return };
            let _ = otlp::response(&partial, json);
            measurements
        }
    };
    assert!(measurements.len() <= body.len());
    for measurement in measurements {
        world.happen(Happening::Measured(measurement), Oddities::default());
    }
}

thread_local! {
    static WORLDS: RefCell<[World; 3]> = RefCell::new(World::all());
}

fuzz_target!(
    init: {
        let aborts = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            if !CAUGHT.load(Ordering::Relaxed) {
                aborts(what);
            }
        }));
    },
    |data: &[u8]| {
        let Some((choice, body)) = data.split_first() else { return };
        WORLDS.with_borrow_mut(|worlds| {
            let world = &mut worlds[usize::from(choice / 14 % 3)];
            decode(choice % 14, body, world);
            world.pass();
        });
    }
);
