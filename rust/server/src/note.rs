//! What the operator should read: one line of JSON each on stderr, never faster than he can read.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::shard::clock;

/// The same text again within this time is counted only.
const QUIET: i64 = 60 * 1_000_000_000;
/// Texts that are remembered.
const MOST: usize = 1000;

static TOLD: LazyLock<Mutex<HashMap<String, (i64, u64)>>> = LazyLock::new(Mutex::default);

fn tell(level: &str, text: &str) {
    let now = clock();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() >= MOST {
        told.clear();
    }
    let (last, skipped) = told.entry(text.to_owned()).or_insert((i64::MIN, 0));
    if now.saturating_sub(*last) < QUIET {
        *skipped += 1;
        return;
    }
    let time = jiff::Timestamp::from_nanosecond(i128::from(now)).map(|time| time.to_string()).unwrap_or_default();
    let mut line = serde_json::json!({"time": time, "level": level, "message": text});
    if *skipped > 0 {
        line["skipped"] = (*skipped).into();
    }
    (*last, *skipped) = (now, 0);
    drop(told);
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Rare and interesting.
pub fn info(text: &str) {
    tell("info", text);
}

/// Something went another way than it should.
pub fn warn(text: &str) {
    tell("warn", text);
}

/// Something failed.
pub fn error(text: &str) {
    tell("error", text);
}
