//! Alerts on their way to sinks: each change once, and an end never before its beginning.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Control;
use crate::problem::Outcome;

/// Nothing is put off for so long.
const LONGEST_WAIT: i64 = 25 * 3600 * 1_000_000_000;
/// How long what was delivered, or given up, stays for whoever asks.
pub(super) const KEPT: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// What a sink is still to be sent, of each alert what comes first.
const FIRST: &str = "FROM deliveries AS late WHERE ended IS NULL AND sink = ? AND NOT EXISTS (
  SELECT 1 FROM deliveries AS before WHERE before.ended IS NULL AND before.sink = late.sink AND before.model = late.model
  AND before.generation = late.generation AND before.alert = late.alert AND before.id < late.id)";

/// A change of an alert, for the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Of this model.
    pub model: &'a str,
    /// Which of the models that had this name.
    pub generation: &'a str,
    /// How many changes the model had before; none for what a person said about the alert.
    pub index: Option<u64>,
    /// The alert.
    pub alert: u64,
    /// Whether the alert ends by it.
    pub ends: bool,
    /// What the sinks are given.
    pub payload: &'a str,
}

/// A change of an alert on its way to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Delivery {
    pub id: i64,
    pub payload: String,
    pub created: i64,
    pub attempts: u32,
}

impl Control {
    /// How many changes of a model's alerts were put on their way.
    ///
    /// # Errors
    /// 503.
    pub fn told(&self, model: &str, generation: &str) -> Outcome<u64> {
        self.with(|connection| told(connection, model, generation))
    }

    /// So many changes of a model's alerts need no telling any more.
    ///
    /// # Errors
    /// 503.
    pub fn set_told(&self, model: &str, generation: &str, changes: u64) -> Outcome<()> {
        self.with(|connection| {
            let text = "INSERT OR REPLACE INTO told (model, generation, changes) VALUES (?, ?, ?)";
            connection.prepare_cached(text)?.execute(params![model, generation, changes as i64])?;
            Ok(())
        })
    }

    /// Puts a change of an alert on its way to sinks: once, however often it is said. A sink that does not want it of itself gets it if it
    /// was told of the alert before: what opened there ends there. How many sinks get it.
    ///
    /// # Errors
    /// 503.
    pub fn enqueue(&self, what: &Change<'_>, sinks: &[(&str, bool)], now: i64) -> Outcome<usize> {
        let (model, generation, alert) = (what.model, what.generation, what.alert as i64);
        self.with(|connection| {
            let change = connection.transaction()?;
            let told = told(&change, model, generation)?;
            if what.index.is_some_and(|index| index < told) {
                return Ok(0);
            }
            // Below zero: beside the changes, once per alert.
            let index = what.index.map_or(-1 - alert, |index| index as i64);
            let mut count = 0;
            for (sink, wants) in sinks {
                let known = "SELECT EXISTS (SELECT 1 FROM announced WHERE model = ? AND generation = ? AND alert = ? AND sink = ?)";
                let known: bool = change.prepare_cached(known)?.query_row(params![model, generation, alert, sink], |row| row.get(0))?;
                if !wants && !known {
                    continue;
                }
                let text = "INSERT OR IGNORE INTO deliveries (model, generation, change_index, alert, sink, payload, created, next_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";
                count += change.prepare_cached(text)?.execute(params![model, generation, index, alert, sink, what.payload, now])?;
                if what.index.is_some() {
                    let text = "INSERT OR REPLACE INTO announced (model, generation, alert, sink, payload) VALUES (?, ?, ?, ?, ?)";
                    change.prepare_cached(text)?.execute(params![model, generation, alert, sink, what.payload])?;
                }
            }
            if what.ends {
                let text = "DELETE FROM announced WHERE model = ? AND generation = ? AND alert = ?";
                change.prepare_cached(text)?.execute(params![model, generation, alert])?;
            }
            if let Some(index) = what.index {
                let text = "INSERT OR REPLACE INTO told (model, generation, changes) VALUES (?, ?, ?)";
                change.prepare_cached(text)?.execute(params![model, generation, index as i64 + 1])?;
            }
            change.commit()?;
            Ok(count)
        })
    }

    /// What a sink has to be sent now, oldest first; of one alert only what comes first, so that its end never overtakes its beginning.
    ///
    /// # Errors
    /// 503.
    pub fn due(&self, sink: &str, now: i64, limit: u32) -> Outcome<Vec<Delivery>> {
        self.with(|connection| {
            // What waits longer than anything has to was put off by a clock that was set back since.
            let text = format!("SELECT id, payload, created, attempts {FIRST} AND next_at NOT BETWEEN ? AND ? ORDER BY id LIMIT ?");
            let mut found = connection.prepare_cached(&text)?;
            let read = |row: &Row<'_>| Ok(Delivery { id: row.get(0)?, payload: row.get(1)?, created: row.get(2)?, attempts: row.get(3)? });
            Ok(found
                .query_map(params![sink, now.saturating_add(1), now.saturating_add(LONGEST_WAIT), limit], read)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// When the first of what a sink is still to be sent may be tried.
    ///
    /// # Errors
    /// 503.
    pub fn next_due(&self, sink: &str) -> Outcome<Option<i64>> {
        self.with(|connection| {
            Ok(connection.prepare_cached(&format!("SELECT min(next_at) {FIRST}"))?.query_row([sink], |row| row.get(0))?)
        })
    }

    /// The last change of every alert that is open at a sink.
    ///
    /// # Errors
    /// 503.
    pub fn announced(&self, sink: &str, limit: u32) -> Outcome<Vec<String>> {
        self.with(|connection| {
            // What was not delivered yet is not repeated.
            let text = "SELECT payload FROM announced AS known WHERE sink = ? AND NOT EXISTS (
                 SELECT 1 FROM deliveries AS before WHERE before.ended IS NULL AND before.sink = known.sink AND before.model = known.model
                 AND before.generation = known.generation AND before.alert = known.alert) LIMIT ?";
            let mut found = connection.prepare_cached(text)?;
            Ok(found.query_map(params![sink, limit], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// A delivery ended: it was sent, or given up.
    ///
    /// # Errors
    /// 503.
    pub fn ended(&self, id: i64, outcome: &str, error: Option<&str>, now: i64) -> Outcome<()> {
        self.with(|connection| {
            let change = connection.transaction()?;
            let text = "UPDATE deliveries SET ended = ?, outcome = ?, error = ?, attempts = attempts + 1 WHERE id = ?";
            change.prepare_cached(text)?.execute(params![now, outcome, error, id])?;
            change.prepare_cached("DELETE FROM deliveries WHERE ended < ?")?.execute([now.saturating_sub(KEPT)])?;
            Ok(change.commit()?)
        })
    }

    /// A delivery failed and is tried again.
    ///
    /// # Errors
    /// 503.
    pub fn again(&self, id: i64, error: &str, next_at: i64) -> Outcome<()> {
        self.with(|connection| {
            let text = "UPDATE deliveries SET attempts = attempts + 1, error = ?, next_at = ? WHERE id = ?";
            connection.prepare_cached(text)?.execute(params![error, next_at, id])?;
            Ok(())
        })
    }

    /// Ends deliveries older than `before` that sinks other than these would have got: nobody sends them any more. How many.
    ///
    /// # Errors
    /// 503.
    pub fn abandon(&self, sinks: &[&str], before: i64, now: i64) -> Outcome<usize> {
        self.with(|connection| {
            let change = connection.transaction()?;
            let waiting: Vec<String> = {
                let mut found = change.prepare("SELECT DISTINCT sink FROM deliveries WHERE ended IS NULL")?;
                found.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
            };
            let mut count = 0;
            for sink in waiting.iter().filter(|sink| !sinks.contains(&sink.as_str())) {
                let text = "UPDATE deliveries SET ended = ?, outcome = 'given_up', error = 'the sink is not configured any more'
                     WHERE ended IS NULL AND sink = ? AND created < ?";
                count += change.execute(text, params![now, sink, before])?;
            }
            change.commit()?;
            Ok(count)
        })
    }

    /// Deliveries by sink and what became of them; "waiting" for those that have not ended.
    ///
    /// # Errors
    /// 503.
    pub fn deliveries(&self) -> Outcome<Vec<(String, String, u64)>> {
        self.with(|connection| {
            let text = "SELECT sink, coalesce(outcome, 'waiting'), count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1, 2";
            let mut found = connection.prepare_cached(text)?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64));
            Ok(found.query_map([], read)?.collect::<Result<_, _>>()?)
        })
    }
}

fn told(connection: &Connection, model: &str, generation: &str) -> Outcome<u64> {
    let mut found = connection.prepare_cached("SELECT changes FROM told WHERE model = ? AND generation = ?")?;
    let changes: Option<i64> = found.query_row([model, generation], |row| row.get(0)).optional()?;
    Ok(changes.map_or(0, i64::unsigned_abs))
}
