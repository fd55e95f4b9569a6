//! What is kept and stated in files, chosen by the first byte: whatever they hold, an error or something to go on with.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, panic};

use arrow_array::RecordBatch;
use barograph_core::codec::{Reader, Writer};
use barograph_server::bucket::parcel::Held;
use barograph_server::config::Config;
use barograph_server::files::Files;
use barograph_server::ingest::cloudevents::Side;
use barograph_server::ingest::{ndjson, open_inference};
use barograph_server::measurement::Measurement;
use barograph_server::model::{Model, Settings};
use barograph_server::pairing::Pairing;
use barograph_server::privacy::Privacy;
use barograph_server::record::{Happening, Record};
use barograph_server::rows::batch_of;
use barograph_server::secret::Secret;
use barograph_server::shape::Shape;
use barograph_server::streams::{Numbered, is_name};
use barograph_server::wal::{self, Cursor, Log, Unread};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"0123456789abcdef";
/// Settings of models that watch from so many events on are tried out.
const LESSON: u64 = 200;
const NOW: i64 = 1_795_478_400_000_000_000;

/// A folder in memory, for one input.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("barograph-fuzz-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(bytes: &[u8]) {
    if let Ok(numbered) = Numbered::parse(bytes) {
        assert!(is_name(&numbered.stream));
    }
    let head = Record::head(bytes);
    if let Ok(record) = Record::from_bytes(bytes) {
        assert!(head.is_ok_and(|head| (head.now, &head.once, &head.numbers) == (record.now, &record.once, &record.numbers)));
        let again = record.to_bytes().expect("what was read can be written");
        assert!(Record::from_bytes(&again).is_ok());
    }
}

fn model(bytes: &[u8]) {
    if let Ok(mut model) = Model::from_bytes(bytes) {
        let again = model.to_bytes().expect("what was read can be written");
        let read = Model::from_bytes(&again).expect("and read");
        assert_eq!((&read.settings, read.counts, read.now), (&model.settings, model.counts, model.now));
        assert_eq!((read.streams.iter().count(), read.streams.forgotten), (model.streams.iter().count(), model.streams.forgotten));
        let _ = model.apply(&Record::new(model.now, Happening::Tick));
        let _ = model.shape(None);
    }
}

/// All records of a folder's log, from the first one on.
fn records(folder: &Folder) -> Option<(Log, Vec<(u64, Vec<u8>)>)> {
    let mut out = Vec::new();
    let (log, _) = Log::open(&folder.0, &Files::default(), 1, &mut |number, payload| out.push((number, payload.to_vec()))).ok()?;
    Some((log, out))
}

/// What can be read stays so, and more can be appended; where segments begin as they do, a cursor reads the same.
fn log(folder: &Folder, begun: bool) {
    let Some((mut log, before)) = records(folder) else { return };
    let mut cursor = Cursor::at(1);
    let mut next = |log: &Log| log.read_at(&mut cursor).expect("a file").map(|(number, payload)| (number, payload.to_vec()));
    let mut read: Vec<_> = std::iter::from_fn(|| next(&log)).collect();
    assert!(!begun || read == before, "a cursor reads {} records of {}", read.len(), before.len());
    let number = log.append(b"appended").expect("a log that can be appended to");
    read.extend(next(&log));
    assert!(!begun || read.last() == Some(&(number, b"appended".to_vec())));
    drop(log);
    let (_, after) = records(folder).expect("a log that was appended to");
    assert_eq!(after.split_last(), Some((&(number, b"appended".to_vec()), before.as_slice())));
}

/// Segments of records with checksums that fit, and of what lies between them.
fn segments(folder: &Folder, mut data: &[u8]) {
    let (mut name, mut segment, mut next) = (1u64, Vec::new(), 1u64);
    let begun = |first: u64| [b"BAROLOG\x01".as_slice(), &first.to_le_bytes()].concat();
    segment.extend(begun(1));
    while let Some(([what, length], rest)) = data.split_first_chunk::<2>() {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        match what % 4 {
            0 | 1 => {
                // The next number, one of a few later or earlier, or any.
                let far = content.first_chunk::<8>().filter(|_| what & 8 != 0).map(|raw| u64::from_le_bytes(*raw));
                let number = far.unwrap_or_else(|| next.wrapping_add(u64::from(what / 64)).wrapping_sub(u64::from(what & 4)));
                segment.extend((content.len() as u32).to_le_bytes());
                segment.extend(crc32(&[&number.to_le_bytes(), content].concat()).to_le_bytes());
                segment.extend(number.to_le_bytes());
                segment.extend(content);
                next = number.wrapping_add(1);
            }
            2 => segment.extend(content),
            _ => {
                folder.write(&format!("log-{name:016x}.wal"), &segment);
                (name, segment) = (next.max(name.saturating_add(1)), begun(next));
            }
        }
    }
    folder.write(&format!("log-{name:016x}.wal"), &segment);
}

/// CRC-32 as in zlib, by its polynomial.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A state that can be read, a newer one of these bytes, and one that is written after both.
fn state(bytes: &[u8], sealed: bool) {
    let folder = Folder::new();
    let files = Files::default();
    let broken = |error: barograph_core::Error| Unread::Broken(error.message);
    let read = |bytes: &[u8]| if bytes == b"good" { Ok(None) } else { Model::from_bytes(bytes).map(Some).map_err(broken) };
    wal::write_state(&folder.0, &files, 3, b"good").expect("a state");
    if sealed {
        wal::write_state(&folder.0, &files, 5, bytes).expect("a state");
    } else {
        folder.write("state-0000000000000005.bin", bytes);
    }
    let mut told = Vec::new();
    // What a newer version wrote, by its checksum, is left alone.
    let Ok(found) = wal::read_state(&folder.0, &read, &mut |why| told.push(why)) else { return };
    let (number, _) = found.expect("the older one");
    assert_eq!((number, told.len()), if number == 5 { (5, 0) } else { (3, 1) });
    wal::write_state(&folder.0, &files, 7, b"good").expect("a state");
    assert_eq!(wal::read_state(&folder.0, &read, &mut |_| ()).expect("files").map(|(number, _)| number), Some(7));
    assert_eq!(wal::prune_states(&folder.0).expect("files"), Some(number));
}

fn half(id: &str) -> Option<RecordBatch> {
    batch_of(vec![open_inference::ids(id, 1, &Shape::default()).ok()?], 1).ok()
}

fn pairing(bytes: &[u8]) {
    let Ok(mut pairing) = Pairing::decode(&mut Reader::new(bytes)) else { return };
    let mut writer = Writer::new();
    pairing.encode(&mut writer);
    let again = Pairing::decode(&mut Reader::new(&writer.into_payload())).expect("what was read and written");
    assert_eq!(again.counts(), pairing.counts());
    for (side, id) in [(Side::Response, "a"), (Side::Request, "b"), (Side::Response, "b")] {
        let batch = half(id).expect("a half");
        pairing.add(side, &batch, NOW).expect("a half is taken");
    }
    pairing.expire(i64::MAX).expect("nothing waits for ever");
    assert_eq!((pairing.counts().requests, pairing.counts().responses, pairing.counts().bytes), (0, 0, 0));
}

fn measurement(bytes: &[u8]) {
    if let Ok(measurement) = Measurement::decode(&mut Reader::new(bytes)) {
        let mut writer = Writer::new();
        measurement.encode(&mut writer);
        assert!(Measurement::decode(&mut Reader::new(&writer.into_payload())).is_ok());
    }
}

fn parcel(bytes: &[u8]) {
    if let Ok(held) = Held::from_bytes(&Bytes::copy_from_slice(bytes), 1 << 20) {
        let again = Bytes::from(held.to_bytes().expect("what was read can be written"));
        assert_eq!(Held::from_bytes(&again, 1 << 20).expect("and read"), held);
    }
}

fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A secret may be in a file: none of this machine is read.
    if text.contains("file") || text.contains('\\') {
        return;
    }
    if let Ok(config) = Config::from_toml(text, "x") {
        let _ = config.check();
        config.models.values().for_each(tried);
        config.listen.iter().for_each(|address| drop(address.to_string()));
    }
}

fn privacy(bytes: &[u8]) {
    let Ok(setting) = serde_json::from_slice(bytes) else { return };
    if let Ok(privacy) = Privacy::from_json(&setting, Some(KEY)) {
        let described: serde_json::Value = serde_json::from_str(&privacy.describe()).expect("rules as JSON");
        let again = Privacy::from_json(&serde_json::json!({"columns": described}), Some(KEY)).expect("the same rules");
        assert!(again == privacy && again.describe() == privacy.describe());
        let _ = privacy.with_roles(&Shape::new(&BTreeMap::from([("id".into(), "x".into())]), &[], None).marks);
    }
}

fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(settings) = Settings::from_json(text) {
        let again = settings.to_json().expect("settings as JSON");
        assert_eq!(Settings::from_json(&again).expect("the same settings"), settings);
        tried(&settings);
    }
}

/// A model of these settings learns a little and watches.
fn tried(settings: &Settings) {
    let key: Secret = serde_json::from_str("\"0123456789abcdef\"").expect("a secret is text");
    let mut model = Model::new("m", settings.clone());
    let _ = settings.described();
    let Ok(shape) = model.shape(Some(&key)) else { return };
    if settings.learn.events > LESSON {
        return;
    }
    let row =
        |at: u64| format!("{{\"x\":{},\"c\":\"{}\",\"_id\":{at},\"_score\":0.{},\"_label\":{}}}", at * 37 % 101, at % 3, at % 10, at % 2);
    let lesson = (0..LESSON).map(row).collect::<Vec<_>>().join("\n");
    if let Ok(decoded) = ndjson::lines(lesson.as_bytes(), shape.into()) {
        let _ = model.apply(&Record::new(NOW, Happening::Events(decoded.batch)));
        let _ = model.apply(&Record::new(NOW + 86_400_000_000_000, Happening::Tick));
        let bytes = model.to_bytes().expect("a model can be written");
        assert!(Model::from_bytes(&bytes).is_ok());
    }
}

fuzz_target!(
    init: {
        let aborts = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            // Those of the readers of Arrow and Parquet are caught where they are called; one that is not comes to the fuzzer all the same.
            let readers = ["/arrow-", "/parquet-"];
            if !what.location().is_some_and(|location| readers.iter().any(|reader| location.file().contains(reader))) {
                aborts(what);
            }
        }));
    },
    |data: &[u8]| {
        let Some((choice, bytes)) = data.split_first() else { return };
        match choice % 12 {
            0 => record(bytes),
            1 => model(bytes),
            2 => {
                let folder = Folder::new();
                folder.write("log-0000000000000001.wal", bytes);
                log(&folder, false);
            }
            3 => {
                let folder = Folder::new();
                segments(&folder, bytes);
                log(&folder, true);
            }
            4 => state(bytes, false),
            5 => state(bytes, true),
            6 => pairing(bytes),
            7 => measurement(bytes),
            8 => config(bytes),
            9 => privacy(bytes),
            10 => settings(bytes),
            _ => parcel(bytes),
        }
    }
);
