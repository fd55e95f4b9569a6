//! The control plane: what is stated about models, said about alerts, done by administrators, told of their feedback loops, and alerts on
//! their way. One `SQLite` file with one writer; every change has reached the disk when a call returns.

mod audit;
mod deliveries;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::audit::AuditRow;
pub use self::deliveries::{Change, Delivery};
use crate::problem::{Outcome, Problem};

/// "baro", so that the file says whose it is.
const APPLICATION: i32 = 0x6261_726F;
/// Of the tables; a file of an earlier version gets what it lacks.
const VERSION: i32 = 2;

const TABLES: &str = "
CREATE TABLE models (name TEXT PRIMARY KEY, settings TEXT NOT NULL, etag TEXT NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
  changes INTEGER NOT NULL) STRICT;
CREATE TABLE audit (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL,
  detail TEXT NOT NULL, previous_hash TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
CREATE TABLE standings (model TEXT NOT NULL, alert_id TEXT NOT NULL, column_name TEXT NOT NULL, acknowledged_by TEXT, acknowledged_at INTEGER,
  muted_by TEXT, muted_until INTEGER, PRIMARY KEY (model, alert_id)) STRICT;
CREATE TABLE deliveries (id INTEGER PRIMARY KEY, model TEXT NOT NULL, generation TEXT NOT NULL, change_index INTEGER NOT NULL,
  alert INTEGER NOT NULL, sink TEXT NOT NULL, payload TEXT NOT NULL, created INTEGER NOT NULL, next_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, error TEXT, ended INTEGER, outcome TEXT, UNIQUE (model, generation, change_index, sink)) STRICT;
CREATE INDEX due ON deliveries (sink, next_at) WHERE ended IS NULL;
CREATE INDEX waiting ON deliveries (sink, model, generation, alert, id) WHERE ended IS NULL;
CREATE INDEX ended ON deliveries (ended) WHERE ended IS NOT NULL;
CREATE TABLE announced (model TEXT NOT NULL, generation TEXT NOT NULL, alert INTEGER NOT NULL, sink TEXT NOT NULL, payload TEXT NOT NULL,
  PRIMARY KEY (model, generation, alert, sink)) STRICT;
CREATE TABLE told (model TEXT NOT NULL, generation TEXT NOT NULL, changes INTEGER NOT NULL, PRIMARY KEY (model, generation)) STRICT;
";
/// Of them.
const TABLE_COUNT: i64 = 6;

/// The table that version 2 added.
const FEEDBACK: &str = "
CREATE TABLE feedback (model TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, time INTEGER NOT NULL, document TEXT NOT NULL,
  PRIMARY KEY (model, kind, name)) STRICT;
";

/// What is stated about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelRow {
    pub name: String,
    pub settings_json: String,
    pub etag: String,
    pub created: i64,
    pub updated: i64,
}

/// What somebody said about an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Standing {
    #[serde(skip)]
    pub alert_id: String,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<i64>,
    pub muted_by: Option<String>,
    pub muted_until: Option<i64>,
}

/// Something that was told of a model's feedback loop.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    /// What sort of thing.
    pub kind: &'a str,
    /// Which of them: what is told again takes its place.
    pub name: &'a str,
    /// When it was so.
    pub time: i64,
    /// All of it, as JSON.
    pub document: &'a str,
}

/// The control plane.
#[derive(Debug)]
pub struct Control {
    connection: Mutex<Connection>,
    trouble: Option<String>,
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let why = match error.sqlite_error_code() {
            Some(Code::DiskFull) => "the disk is full".to_owned(),
            Some(Code::ReadOnly | Code::PermissionDenied) => "its file cannot be written to".to_owned(),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => "another program uses its file".to_owned(),
            Some(Code::SystemIoFailure | Code::CannotOpen) => format!("its file cannot be used ({error})"),
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => {
                "its file is damaged; a restart moves it aside and begins a new one".to_owned()
            }
            _ => error.to_string(),
        };
        Self::unavailable(format!("the control plane cannot be used: {why}"))
    }
}

/// The version of the tables.
fn version_of(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl Control {
    /// Opens the file, or makes it. One that cannot be read is moved aside; one that cannot be written to is read: the warnings say so.
    ///
    /// # Errors
    /// 503 for a file of a newer version, or one that cannot be read where nothing can be written.
    pub fn open(path: &Path) -> Outcome<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut opened = Self::connect(path);
        if let Err(Fault::Broken(why)) = &opened {
            let number = (1..=u32::MAX).find(|number| !beside(path, &format!(".broken-{number}")).exists()).unwrap_or(0);
            let aside = beside(path, &format!(".broken-{number}"));
            std::fs::rename(path, &aside)
                .map_err(|error| Problem::unavailable(format!("{} cannot be read ({why}) nor moved aside: {error}", path.display())))?;
            // What was not yet in the file itself goes with it: somebody may want to repair both. Often there is nothing.
            for end in ["-wal", "-shm"] {
                let _ = std::fs::rename(beside(path, end), beside(&aside, end));
            }
            warnings.push(format!(
                "{} cannot be read ({why}) and was moved to {}: models that were stated by requests have to be stated anew",
                path.display(),
                aside.display()
            ));
            opened = Self::connect(path);
        }
        match opened {
            Ok(connection) => Ok((Self { connection: Mutex::new(connection), trouble: None }, warnings)),
            Err(Fault::Failed(why)) => {
                let connection = Self::connect_reading(path)
                    .map_err(|fault| Problem::unavailable(format!("{}: {why}; {}", path.display(), fault.why())))?;
                let trouble = format!("{} can only be read ({why}): nothing can be changed", path.display());
                warnings.push(trouble.clone());
                Ok((Self { connection: Mutex::new(connection), trouble: Some(trouble) }, warnings))
            }
            Err(Fault::Broken(why) | Fault::Refused(why)) => Err(Problem::unavailable(format!("{}: {why}", path.display()))),
        }
    }

    /// Why nothing can be changed, if that is so.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Opens the file on a disk that cannot be written to.
    fn connect_reading(path: &Path) -> Result<Connection, Fault> {
        if !path.exists() {
            // Models come from their own files then.
            let connection = Connection::open_in_memory()?;
            connection.execute_batch(TABLES)?;
            connection.execute_batch(FEEDBACK)?;
            connection.pragma_update(None, "user_version", VERSION)?;
            connection.pragma_update(None, "query_only", "ON")?;
            return Ok(connection);
        }
        let encoded: String = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        // What stands beside it can be read only where SQLite's index of it is there too.
        let mut opened = Err(Fault::Refused("it cannot be read".into()));
        for how in ["mode=ro", "immutable=1"] {
            opened = Connection::open_with_flags(format!("file:{encoded}?{how}"), flags).map_err(Fault::from).and_then(|connection| {
                Self::known(&connection)?;
                Ok(connection)
            });
            if opened.is_ok() {
                break;
            }
        }
        opened
    }

    /// Whether the file has no tables yet.
    fn known(connection: &Connection) -> Result<bool, Fault> {
        let number = |text: &str| connection.query_row(text, [], |row| row.get::<_, i64>(0));
        let application = number("PRAGMA application_id")?;
        let version = number("PRAGMA user_version")?;
        // A process that ended before it had made the tables leaves a file without any.
        if application == 0 && version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
            return Ok(true);
        }
        if application != i64::from(APPLICATION) {
            return Err(Fault::Broken("it is another program's".into()));
        }
        if version > i64::from(VERSION) {
            let why = format!("it was written by a newer barograph (version {version}, this one reads up to {VERSION})");
            return Err(Fault::Refused(why));
        }
        let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let tables = number("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
        if sound != "ok" || version < 1 || tables != TABLE_COUNT + i64::from(version > 1) {
            return Err(Fault::Broken(if sound == "ok" { "tables are missing".into() } else { sound }));
        }
        Ok(false)
    }

    fn connect(path: &Path) -> Result<Connection, Fault> {
        // Made here so that nobody else reads it; SQLite gives what it puts beside it the same mode, and says what is wrong if it cannot.
        let _ = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let blank = Self::known(&connection)?;
        // WAL with FULL: a commit has reached the disk when it returns.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        if blank {
            let making = connection.transaction()?;
            making.execute_batch(TABLES)?;
            making.execute_batch(FEEDBACK)?;
            making.pragma_update(None, "application_id", APPLICATION)?;
            making.pragma_update(None, "user_version", VERSION)?;
            making.commit()?;
        }
        if connection.is_readonly("main")? {
            return Err(Fault::Failed("it cannot be written to".into()));
        }
        if version_of(&connection)? < VERSION {
            let adding = connection.transaction()?;
            adding.execute_batch(FEEDBACK)?;
            adding.pragma_update(None, "user_version", VERSION)?;
            adding.commit()?;
        }
        Ok(connection)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Outcome<T>) -> Outcome<T> {
        work(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All models, by name.
    ///
    /// # Errors
    /// 503; so for every method here.
    pub fn models(&self) -> Outcome<Vec<ModelRow>> {
        self.with(|connection| {
            let mut found = connection.prepare_cached("SELECT name, settings, etag, created, updated FROM models ORDER BY name")?;
            Ok(found.query_map([], model_row)?.collect::<Result<_, _>>()?)
        })
    }

    /// The model of this name.
    ///
    /// # Errors
    /// 503.
    pub fn model(&self, name: &str) -> Outcome<Option<ModelRow>> {
        self.with(|connection| {
            let mut found = connection.prepare_cached("SELECT name, settings, etag, created, updated FROM models WHERE name = ?")?;
            Ok(found.query_row([name], model_row).optional()?)
        })
    }

    /// States a model, if its tag is still the one that is expected. Gives its new tag, and whether it was made.
    ///
    /// # Errors
    /// 412 for another tag.
    pub fn put_model(&self, name: &str, settings_json: &str, if_match: Option<&str>, now: i64) -> Outcome<(String, bool)> {
        self.with(|connection| {
            let change = connection.transaction()?;
            let known = expected(&change, name, if_match)?;
            let changes: i64 =
                change.query_row("SELECT changes FROM models WHERE name = ?", [name], |row| row.get(0)).optional()?.unwrap_or(0) + 1;
            let digest = Sha256::digest(format!("{changes}\0{now}\0{settings_json}"));
            let etag = format!("\"{}\"", hex(digest.get(..12).unwrap_or_default()));
            change.execute(
                "INSERT INTO models (name, settings, etag, created, updated, changes) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
                 ON CONFLICT (name) DO UPDATE SET settings = ?2, etag = ?3, updated = ?4, changes = ?5",
                params![name, settings_json, etag, now, changes],
            )?;
            change.commit()?;
            Ok((etag, !known))
        })
    }

    /// Forgets a model, and what is on its way about it.
    ///
    /// # Errors
    /// 412 for another tag.
    pub fn delete_model(&self, name: &str, if_match: Option<&str>) -> Outcome<()> {
        self.with(|connection| {
            let change = connection.transaction()?;
            expected(&change, name, if_match)?;
            for table in ["deliveries", "standings", "announced", "told", "feedback"] {
                change.execute(&format!("DELETE FROM {table} WHERE model = ?"), [name])?;
            }
            change.execute("DELETE FROM models WHERE name = ?", [name])?;
            Ok(change.commit()?)
        })
    }

    /// Gives the space of what was forgotten back to the disk.
    ///
    /// # Errors
    /// 503.
    pub fn compact(&self) -> Outcome<()> {
        self.with(|connection| Ok(connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?))
    }

    /// Somebody looks after an alert.
    ///
    /// # Errors
    /// 503.
    pub fn acknowledge(&self, model: &str, alert_id: &str, column: &str, by: &str, now: i64) -> Outcome<()> {
        self.with(|connection| {
            let text = "INSERT INTO standings (model, alert_id, column_name, acknowledged_by, acknowledged_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (model, alert_id) DO UPDATE SET acknowledged_by = ?4, acknowledged_at = ?5";
            connection.execute(text, params![model, alert_id, column, by, now])?;
            Ok(())
        })
    }

    /// Nothing more is sent about an alert's column until a time.
    ///
    /// # Errors
    /// 503.
    pub fn mute(&self, model: &str, alert_id: &str, column: &str, until: i64, by: &str) -> Outcome<()> {
        self.with(|connection| {
            let text = "INSERT INTO standings (model, alert_id, column_name, muted_by, muted_until) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (model, alert_id) DO UPDATE SET muted_by = ?4, muted_until = ?5";
            connection.execute(text, params![model, alert_id, column, by, until])?;
            Ok(())
        })
    }

    /// Keeps what was told of a model's feedback loop: of one kind and name the last, of one kind the newest `most`.
    ///
    /// # Errors
    /// 503.
    pub fn add_feedback(&self, model: &str, told: &Feedback<'_>, most: i64) -> Outcome<()> {
        self.with(|connection| {
            let change = connection.transaction()?;
            change.execute(
                "INSERT OR REPLACE INTO feedback (model, kind, name, time, document) VALUES (?, ?, ?, ?, ?)",
                params![model, told.kind, told.name, told.time, told.document],
            )?;
            change.execute(
                "DELETE FROM feedback WHERE model = ?1 AND kind = ?2 AND name NOT IN
                 (SELECT name FROM feedback WHERE model = ?1 AND kind = ?2 ORDER BY time DESC, name LIMIT ?3)",
                params![model, told.kind, most],
            )?;
            Ok(change.commit()?)
        })
    }

    /// Documents of one kind that were told of a model's feedback loop, the newest first.
    ///
    /// # Errors
    /// 503.
    pub fn feedback(&self, model: &str, kind: &str, limit: i64) -> Outcome<Vec<String>> {
        self.with(|connection| {
            // A file of an earlier version that can only be read holds none.
            if version_of(connection)? < 2 {
                return Ok(Vec::new());
            }
            let text = "SELECT document FROM feedback WHERE model = ? AND kind = ? ORDER BY time DESC, name LIMIT ?";
            let mut found = connection.prepare_cached(text)?;
            Ok(found.query_map(params![model, kind, limit], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// What was said about a model's alerts.
    ///
    /// # Errors
    /// 503.
    pub fn standings(&self, model: &str) -> Outcome<Vec<Standing>> {
        self.with(|connection| {
            let text = "SELECT alert_id, acknowledged_by, acknowledged_at, muted_by, muted_until FROM standings WHERE model = ?";
            let mut found = connection.prepare_cached(text)?;
            let read = |row: &Row<'_>| {
                Ok(Standing {
                    alert_id: row.get(0)?,
                    acknowledged_by: row.get(1)?,
                    acknowledged_at: row.get(2)?,
                    muted_by: row.get(3)?,
                    muted_until: row.get(4)?,
                })
            };
            Ok(found.query_map([model], read)?.collect::<Result<_, _>>()?)
        })
    }

    /// Whether nothing is to be sent about a column now.
    ///
    /// # Errors
    /// 503.
    pub fn is_muted(&self, model: &str, column: &str, now: i64) -> Outcome<bool> {
        self.with(|connection| {
            let text = "SELECT EXISTS (SELECT 1 FROM standings WHERE model = ? AND column_name = ? AND muted_until > ?)";
            Ok(connection.prepare_cached(text)?.query_row(params![model, column, now], |row| row.get(0))?)
        })
    }
}

/// Why a file cannot be used.
enum Fault {
    /// It is no control plane, or not whole.
    Broken(String),
    /// It is whole, and not for us.
    Refused(String),
    /// The disk does not work.
    Failed(String),
}

impl Fault {
    fn why(&self) -> &str {
        let (Self::Broken(why) | Self::Refused(why) | Self::Failed(why)) = self;
        why
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let short = error.sqlite_error().is_some_and(|found| found.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ);
        match error.sqlite_error_code() {
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Broken(error.to_string()),
            _ if short => Self::Broken("it ends too early".into()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The path with more at its end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn model_row(row: &Row<'_>) -> rusqlite::Result<ModelRow> {
    Ok(ModelRow { name: row.get(0)?, settings_json: row.get(1)?, etag: row.get(2)?, created: row.get(3)?, updated: row.get(4)? })
}

/// Whether the model is known, and the one that is expected.
fn expected(connection: &Connection, name: &str, if_match: Option<&str>) -> Outcome<bool> {
    let etag: Option<String> = connection.query_row("SELECT etag FROM models WHERE name = ?", [name], |row| row.get(0)).optional()?;
    match (&etag, if_match.map(str::trim)) {
        (_, None) | (Some(_), Some("*")) => Ok(etag.is_some()),
        (Some(etag), Some(tags)) if tags.split(',').any(|tag| tag.trim() == etag) => Ok(true),
        _ => Err(Problem::new(412, "precondition failed", "the model is another one than `If-Match` says").hint("GET it again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("barograph-control-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("control.sqlite")
    }

    #[test]
    fn models_have_tags_that_change() {
        let path = path("models");
        let (control, _) = Control::open(&path).unwrap();
        let (first, created) = control.put_model("m", "{}", None, 1).unwrap();
        assert!(created);
        assert_eq!(control.put_model("m", "{}", Some("\"x\""), 2).unwrap_err().status, 412);
        let (second, created) = control.put_model("m", "{}", Some(&first), 2).unwrap();
        assert!(!created && first != second);
        drop(control);
        let (control, warnings) = Control::open(&path).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(control.model("m").unwrap().unwrap().etag, second);
        control.delete_model("m", Some(&second)).unwrap();
        assert!(control.models().unwrap().is_empty());
    }

    #[test]
    fn a_file_of_the_version_before_gets_what_it_lacks() {
        let path = path("upgraded");
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch(TABLES).unwrap();
        raw.pragma_update(None, "application_id", APPLICATION).unwrap();
        raw.pragma_update(None, "user_version", 1).unwrap();
        raw.execute("INSERT INTO models VALUES ('m', '{}', 'e', 1, 1, 1)", []).unwrap();
        drop(raw);
        let (control, warnings) = Control::open(&path).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(control.models().unwrap().len(), 1);
        let told = |name: &'static str, time: i64, document: &'static str| Feedback { kind: "decision", name, time, document };
        for (at, one) in [told("a", 1, "1"), told("b", 2, "2"), told("c", 3, "3"), told("a", 4, "4")].iter().enumerate() {
            control.add_feedback("m", one, 2).unwrap();
            assert!(control.feedback("m", "decision", 9).unwrap().len() <= 2, "{at}");
        }
        drop(control);
        let (control, _) = Control::open(&path).unwrap();
        assert_eq!(control.feedback("m", "decision", 9).unwrap(), ["4", "3"]);
        assert!(control.feedback("m", "request", 9).unwrap().is_empty());
        control.delete_model("m", None).unwrap();
        assert!(control.feedback("m", "decision", 9).unwrap().is_empty());
    }

    #[test]
    fn a_change_of_the_audit_log_is_seen() {
        let path = path("audit");
        let (control, _) = Control::open(&path).unwrap();
        for at in 0..5 {
            control.audit(at, "ada", "change", "m", "{}").unwrap();
        }
        assert_eq!(control.check_audit().unwrap(), 5);
        let raw = Connection::open(&path).unwrap();
        let refused = raw.execute("DELETE FROM audit WHERE id = 3", []).unwrap_err();
        assert!(refused.to_string().contains("only appended to"), "{refused}");
        raw.execute_batch("DROP TRIGGER audit_stays; DROP TRIGGER audit_is_kept").unwrap();
        raw.execute("UPDATE audit SET actor = 'eve' WHERE id = 3", []).unwrap();
        assert!(control.check_audit().unwrap_err().detail.contains("row 3"));
        raw.execute("UPDATE audit SET actor = 'ada' WHERE id = 3", []).unwrap();
        assert_eq!(control.check_audit().unwrap(), 5);
        raw.execute("DELETE FROM audit WHERE id = 2", []).unwrap();
        assert!(control.check_audit().is_err());
    }

    fn change(index: u64, alert: u64, ends: bool) -> Change<'static> {
        Change { model: "m", generation: "g", index: Some(index), alert, ends, payload: "{}" }
    }

    #[test]
    fn a_change_is_on_its_way_once_whatever_restarts() {
        let path = path("once");
        for _ in 0..3 {
            let (control, _) = Control::open(&path).unwrap();
            control.enqueue(&change(4, 1, false), &[("log", true), ("slack", true)], 10).unwrap();
        }
        let (control, _) = Control::open(&path).unwrap();
        assert_eq!(control.told("m", "g").unwrap(), 5);
        let due = control.due("slack", 10, 10).unwrap();
        assert_eq!(due.len(), 1);
        control.again(due[0].id, "no", 50).unwrap();
        assert!(control.due("slack", 20, 10).unwrap().is_empty());
        assert_eq!(control.next_due("slack").unwrap(), Some(50));
        assert_eq!(control.due("slack", 50, 10).unwrap()[0].attempts, 1);
        control.ended(due[0].id, "sent", None, 60).unwrap();
        assert_eq!(control.enqueue(&change(4, 1, false), &[("slack", true)], 70).unwrap(), 0);
        assert_eq!(control.deliveries().unwrap(), [("log".into(), "waiting".into(), 1), ("slack".into(), "sent".into(), 1)]);
        // Its row is gone after a week, and it is still not sent again.
        control.enqueue(&change(5, 2, false), &[("log", true)], 80).unwrap();
        control.ended(due[0].id + 1, "sent", None, 61 + deliveries::KEPT).unwrap();
        assert!(control.deliveries().unwrap().iter().all(|(sink, ..)| sink == "log"));
        assert_eq!(control.enqueue(&change(4, 1, false), &[("slack", true)], 90).unwrap(), 0);
    }

    #[test]
    fn an_end_never_overtakes_its_beginning() {
        let (control, _) = Control::open(&path("order")).unwrap();
        for (index, alert, ends) in [(0, 1, false), (1, 2, false), (2, 1, true)] {
            control.enqueue(&change(index, alert, ends), &[("s", true)], 10).unwrap();
        }
        let ids = |now| control.due("s", now, 10).unwrap().into_iter().map(|found| found.id).collect::<Vec<_>>();
        let first = ids(10);
        assert_eq!(first.len(), 2);
        control.again(first[0], "no", 99).unwrap();
        assert_eq!(control.next_due("s").unwrap(), Some(10));
        assert_eq!(ids(50), [first[1]], "the end of the first alert waits, the second alert does not");
        control.ended(first[1], "sent", None, 50).unwrap();
        assert_eq!(control.next_due("s").unwrap(), Some(99), "what waits for another is not due");
        control.ended(first[0], "sent", None, 99).unwrap();
        assert_eq!(ids(99).len(), 1);
    }

    #[test]
    fn what_opened_at_a_sink_ends_there_and_nowhere_else() {
        let (control, _) = Control::open(&path("announced")).unwrap();
        control.enqueue(&change(0, 7, false), &[("pager", true), ("mail", false)], 1).unwrap();
        assert!(control.announced("pager", 9).unwrap().is_empty(), "what was not delivered yet is not repeated");
        control.ended(control.due("pager", 1, 1).unwrap()[0].id, "sent", None, 2).unwrap();
        assert_eq!(control.announced("pager", 9).unwrap().len(), 1);
        let said = Change { index: None, ..change(0, 7, false) };
        assert_eq!(control.enqueue(&said, &[("pager", false), ("mail", false)], 3).unwrap(), 1);
        assert_eq!(control.enqueue(&said, &[("pager", false)], 4).unwrap(), 0, "once");
        assert_eq!(control.told("m", "g").unwrap(), 1);
        assert_eq!(control.enqueue(&change(1, 7, true), &[("pager", false), ("mail", false)], 5).unwrap(), 1);
        assert!(control.announced("pager", 9).unwrap().is_empty());
    }

    #[test]
    fn what_nobody_sends_any_more_is_given_up() {
        let (control, _) = Control::open(&path("abandoned")).unwrap();
        control.enqueue(&change(0, 1, false), &[("gone", true), ("here", true)], 10).unwrap();
        assert_eq!(control.abandon(&["here"], 10, 20).unwrap(), 0);
        assert_eq!(control.abandon(&["here"], 11, 20).unwrap(), 1);
        assert_eq!(control.deliveries().unwrap(), [("gone".into(), "given_up".into(), 1), ("here".into(), "waiting".into(), 1)]);
    }

    #[test]
    fn what_cannot_be_read_is_moved_aside() {
        let path = path("broken");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let (control, warnings) = Control::open(&path).unwrap();
        assert!(warnings[0].contains("moved"), "{warnings:?}");
        assert!(control.models().unwrap().is_empty());
        control.put_model("m", "{}", None, 1).unwrap();
        drop(control);
        let whole = std::fs::read(&path).unwrap();
        // Every half of a file, and one with a byte changed here and there, opens: as it was, or anew.
        for (number, damaged) in (0..40).map(|part| (part, damage(&whole, part))) {
            std::fs::write(&path, damaged).unwrap();
            let (control, _) = Control::open(&path).unwrap_or_else(|problem| panic!("{number}: {}", problem.detail));
            // What a quick check does not see is refused when it is used, and never panics.
            let _ = (control.models(), control.due("s", 1, 1), control.check_audit());
            drop(control);
            for end in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(beside(&path, end));
            }
        }
        std::fs::write(&path, b"").unwrap();
        assert!(Control::open(&path).unwrap().1.is_empty(), "an empty file is a new one");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let problem = Control::open(&path).unwrap_err();
        assert!(problem.detail.contains("newer barograph (version 99"), "{}", problem.detail);
        assert!(path.exists(), "it is left as it is");
    }

    fn damage(whole: &[u8], part: usize) -> Vec<u8> {
        let mut out = whole.to_vec();
        if part < 20 {
            out.truncate(whole.len() * part / 20);
        } else {
            for at in (part..whole.len()).step_by(whole.len() / 50) {
                out[at] ^= 0x55;
            }
            // The version is refused rather than moved aside.
            out[60..64].copy_from_slice(&whole[60..64]);
        }
        out
    }

    #[test]
    fn two_writers_with_one_tag_are_not_both_let_in() {
        let (control, _) = Control::open(&path("race")).unwrap();
        let (tag, _) = control.put_model("m", "{}", None, 1).unwrap();
        let won = std::thread::scope(|scope| {
            let put = |number: i64| control.put_model("m", &format!("{{\"n\":{number}}}"), Some(&tag), number).is_ok();
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || put(number))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn what_a_clock_that_was_set_back_put_off_is_due() {
        let path = path("set-back");
        let (control, _) = Control::open(&path).unwrap();
        let ahead = 400 * 24 * 3600 * 1_000_000_000;
        control.enqueue(&change(0, 1, false), &[("s", true)], ahead).unwrap();
        assert_eq!(control.due("s", 10, 9).unwrap().len(), 1);
        control.again(1, "later", 10 + 3600 * 1_000_000_000).unwrap();
        assert_eq!(control.due("s", 10, 9).unwrap().len(), 0);
        assert_eq!(control.due("s", 10 + 3600 * 1_000_000_000, 9).unwrap().len(), 1);
    }

    #[test]
    fn muting_ends() {
        let (control, _) = Control::open(&path("mute")).unwrap();
        control.mute("m", "1", "x", 100, "ada").unwrap();
        control.acknowledge("m", "1", "x", "eve", 5).unwrap();
        assert!(control.is_muted("m", "x", 99).unwrap() && !control.is_muted("m", "x", 100).unwrap());
        let standing = &control.standings("m").unwrap()[0];
        assert_eq!((standing.muted_by.as_deref(), standing.acknowledged_by.as_deref()), (Some("ada"), Some("eve")));
    }
}
