//! Files as the store writes them; a test can make them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fault to inject: called before every write, sync and rename with what is about to happen and the bytes so far.
pub type Fault = Arc<dyn Fn(Step<'_>) -> io::Result<usize> + Send + Sync>;

/// What is about to happen to a file.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// So many bytes are written; the fault says how many of them get through.
    Write(&'a Path, usize),
    /// What was written has to reach the disk.
    Sync(&'a Path),
    /// A finished file takes its name.
    Rename(&'a Path),
}

/// How the store reaches its files.
#[derive(Clone, Default)]
pub struct Files {
    fault: Option<Fault>,
    written: Arc<AtomicU64>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("faulty", &self.fault.is_some()).finish_non_exhaustive()
    }
}

impl Files {
    /// Files that fail as `fault` says.
    pub fn failing(fault: Fault) -> Self {
        Self { fault: Some(fault), written: Arc::default() }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// A file to append to, readable by its owner only.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the file system; part of it may have been written.
    pub fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let through = self.fault.as_ref().map_or(Ok(bytes.len()), |fault| fault(Step::Write(path, bytes.len())))?;
        file.write_all(bytes.get(..through).unwrap_or(bytes))?;
        self.written.fetch_add(through as u64, Ordering::Relaxed);
        if through < bytes.len() { Err(io::Error::new(io::ErrorKind::WriteZero, "the file took only a part")) } else { Ok(()) }
    }

    /// Waits until what was written has reached the disk.
    ///
    /// # Errors
    /// Those of the file system; what was written since the last success may be lost.
    pub fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        if let Some(fault) = &self.fault {
            fault(Step::Sync(path))?;
        }
        file.sync_data()
    }

    /// Writes a file that is there whole or not at all, also after a power failure.
    ///
    /// # Errors
    /// Those of the file system; the old file is untouched then.
    pub fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let result = (|| {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
            self.write(&mut file, &part, bytes)?;
            self.sync(&file, &part)?;
            if let Some(fault) = &self.fault {
                fault(Step::Rename(path))?;
            }
            fs::rename(&part, path)?;
            sync_folder(path.parent().unwrap_or_else(|| Path::new(".")))
        })();
        if result.is_err() {
            // What is left of it is in nobody's way, and goes if it can.
            let _ = fs::remove_file(&part);
        }
        result
    }
}

/// Makes names in a folder last.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The files of a folder whose names begin and end like this, with what stands between, in order.
///
/// # Errors
/// Those of the file system.
pub fn listed(folder: &Path, begin: &str, end: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix(begin)?.strip_suffix(end));
        if let Some(middle) = middle {
            out.push((middle.to_owned(), entry.path()));
        }
    }
    out.sort();
    Ok(out)
}
