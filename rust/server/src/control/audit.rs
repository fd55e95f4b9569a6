//! The audit log: a chain of hashes that is only appended to.

use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Control, hex};
use crate::problem::{Outcome, Problem};

/// What an administrator did. `hash` covers the row and the hash before it: no row can be changed or left out unseen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct AuditRow {
    pub id: i64,
    pub time: i64,
    pub actor: String,
    pub action: String,
    pub object: String,
    pub detail: String,
    pub previous_hash: String,
    pub hash: String,
}

impl AuditRow {
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.previous_hash, &self.actor, &self.action, &self.object, &self.detail] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(self.id.to_le_bytes());
        hash.update(self.time.to_le_bytes());
        hex(&hash.finalize())
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            time: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            object: row.get(4)?,
            detail: row.get(5)?,
            previous_hash: row.get(6)?,
            hash: row.get(7)?,
        })
    }
}

impl Control {
    /// Appends to the audit log.
    ///
    /// # Errors
    /// 503.
    pub fn audit(&self, now: i64, actor: &str, action: &str, object: &str, detail: &str) -> Outcome<()> {
        self.with(|connection| {
            let change = connection.transaction()?;
            let last = change.query_row("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)));
            let (id, previous_hash): (i64, String) = last.optional()?.unwrap_or((0, String::new()));
            let text = |text: &str| text.to_owned();
            let mut row = AuditRow {
                id: id + 1,
                time: now,
                actor: text(actor),
                action: text(action),
                object: text(object),
                detail: text(detail),
                previous_hash,
                hash: String::new(),
            };
            row.hash = row.digest();
            change.execute(
                "INSERT INTO audit (id, time, actor, action, object, detail, previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![row.id, row.time, row.actor, row.action, row.object, row.detail, row.previous_hash, row.hash],
            )?;
            Ok(change.commit()?)
        })
    }

    /// A page of the audit log, oldest first.
    ///
    /// # Errors
    /// 503.
    pub fn audit_page(&self, after: i64, limit: i64) -> Outcome<Vec<AuditRow>> {
        self.with(|connection| {
            let mut found = connection.prepare_cached(
                "SELECT id, time, actor, action, object, detail, previous_hash, hash FROM audit WHERE id > ? ORDER BY id LIMIT ?",
            )?;
            Ok(found.query_map(params![after, limit.max(0)], AuditRow::read)?.collect::<Result<_, _>>()?)
        })
    }

    /// How many rows the audit log has, if every one of them is as it was written.
    ///
    /// # Errors
    /// 500 naming the first row that is not.
    pub fn check_audit(&self) -> Outcome<u64> {
        let (mut after, mut previous, mut count) = (0, String::new(), 0);
        loop {
            let page = self.audit_page(after, 1000)?;
            if page.is_empty() {
                return Ok(count);
            }
            for row in page {
                if row.id != after + 1 || row.previous_hash != previous || row.hash != row.digest() {
                    return Err(Problem::new(
                        500,
                        "audit log changed",
                        format!("row {} of the audit log is not as it was written", after + 1),
                    ));
                }
                (after, previous, count) = (row.id, row.hash, count + 1);
            }
        }
    }
}
