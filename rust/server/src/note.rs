//! What the operator should read: one line of JSON each on stderr, never faster than he can read.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::shard::clock;

/// The same text again within this time is counted only.
const QUIET: Duration = Duration::from_secs(60);
/// Texts that are remembered.
const MOST: usize = 1000;

static TOLD: LazyLock<Mutex<HashMap<String, (Instant, u64)>>> = LazyLock::new(Mutex::default);

/// How often a text was left out since it was told last, if it is to be told now.
fn skipped(text: &str) -> Option<u64> {
    // By a clock that nobody sets: one that jumps must silence nothing.
    let now = Instant::now();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((last, skipped)) = told.get_mut(text) {
        if now.duration_since(*last) < QUIET {
            *skipped += 1;
            return None;
        }
        *last = now;
        return Some(std::mem::take(skipped));
    }
    if told.len() >= MOST {
        told.clear();
    }
    told.insert(text.to_owned(), (now, 0));
    Some(0)
}

fn tell(level: &str, text: &str) {
    let Some(skipped) = skipped(text) else { return };
    let now = clock();
    let time = jiff::Timestamp::from_nanosecond(i128::from(now)).map(|time| time.to_string()).unwrap_or_default();
    let mut line = serde_json::json!({"time": time, "level": level, "message": text});
    if skipped > 0 {
        line["skipped"] = skipped.into();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_counted_only() {
        assert_eq!(skipped("a text of this test"), Some(0));
        assert_eq!(skipped("a text of this test"), None);
        assert_eq!(skipped("another of this test"), Some(0));
    }
}
