//! What keeps a shard from its work and is done beside it, on a thread that lets others go first: states are written, folders go.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use barograph_engine::labels::Overlay;
use tokio::sync::oneshot;

use super::{Entry, Job};
use crate::files::Files;
use crate::model::Model;
use crate::pending::Pending;
use crate::problem::{Outcome, Problem};
use crate::wal;

/// How far what is done beside requests stands behind them, of 19.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 10;

/// What keeps a shard from its work, and can be done beside it.
pub(super) enum Chore {
    Save(Box<Save>),
    /// Files that nobody needs any more.
    Remove(Vec<PathBuf>),
    /// The folder of a model, after all that was still to be written there: a state that came later would be one of the next model of
    /// that name.
    Bury(Arc<Entry>, oneshot::Sender<Outcome<()>>),
}

/// A state to be written.
pub(super) struct Save {
    pub(super) entry: Arc<Entry>,
    pub(super) number: u64,
    pub(super) model: Box<Model>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) pending: Option<Arc<Pending>>,
    pub(super) done: Option<oneshot::Sender<Outcome<()>>>,
}

pub(super) fn do_chores(chores: &Receiver<Chore>, files: &Files, back: &Sender<Job>) {
    yield_to_others();
    for chore in chores {
        let save = match chore {
            Chore::Save(save) => save,
            Chore::Remove(paths) => {
                // What stays goes when the folder is opened.
                paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
                continue;
            }
            Chore::Bury(entry, reply) => {
                let gone = match std::fs::remove_dir_all(&entry.folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(Problem::unavailable(format!("the model's folder could not be removed: {error}")))
                    }
                    _ => Ok(()),
                };
                let _ = reply.send(gone);
                continue;
            }
        };
        // One state that cannot be made must not end the thread that writes all others.
        let result = catch_unwind(AssertUnwindSafe(|| save_one(files, &save)));
        let result = result.unwrap_or_else(|_| Err(io::Error::other("the state could not be made")));
        if let Some(done) = save.done {
            let told = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(Problem::unavailable(format!("the state could not be written: {error}"))),
            };
            let _ = done.send(told);
        }
        if back.send(Job::Saved(save.entry, save.number, save.overlay, result)).is_err() {
            return;
        }
    }
}

/// The state first, then what waits for labels: a crash between the two finds it in the state.
pub(super) fn save_one(files: &Files, save: &Save) -> io::Result<()> {
    let bytes = save.model.to_bytes().map_err(|error| io::Error::other(error.message))?;
    wal::write_state(&save.entry.folder, files, save.number, &bytes)?;
    if let Some(pending) = &save.pending {
        pending.write(&save.overlay, save.number).map_err(|problem| io::Error::other(problem.detail))?;
        pending.expire(save.model.now).map_err(|problem| io::Error::other(problem.detail))?;
    }
    Ok(())
}

/// Lets threads that answer requests go first where there are not processors enough; threads that this one starts inherit it.
pub(super) fn yield_to_others() {
    // On other systems than Linux it would be the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(BEHIND);
}
