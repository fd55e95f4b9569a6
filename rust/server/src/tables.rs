//! The files of the store of waiting events, looked at before they are opened: a wrong number of parts in one of them would ask for more
//! memory than any machine has, which ends the process.
//!
//! Their form is that of the crate `sfa` 1.0: parts, a table of contents (`TOC!`, how many, then position, length and name of each), and
//! a trailer (`SFA!`, version, kind of checksum, checksum, position of the table, its length).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const TRAILER: u64 = 4 + 1 + 1 + 16 + 8 + 8;
/// Bytes of a line of the table of contents, at least.
const LINE: u64 = 8 + 8 + 2;

/// The first file below a folder whose table of contents is longer than the file, if there is one.
pub(crate) fn overlong(folder: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let found = if entry.file_type()?.is_dir() { overlong(&path)? } else { is_overlong(&path)?.then(|| path.display().to_string()) };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn is_overlong(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let Some(trailer) = size.checked_sub(TRAILER) else { return Ok(false) };
    let mut head = [0; 4];
    file.seek(SeekFrom::Start(trailer))?;
    file.read_exact(&mut head)?;
    if &head != b"SFA!" {
        return Ok(false);
    }
    let mut place = [0; 8];
    file.seek(SeekFrom::Start(trailer + 22))?;
    file.read_exact(&mut place)?;
    let place = u64::from_le_bytes(place);
    // Where the table is missing, whoever opens the file says so.
    let Some(left) = trailer.checked_sub(place).and_then(|left| left.checked_sub(8)) else { return Ok(false) };
    let mut count = [0; 4];
    file.seek(SeekFrom::Start(place + 4))?;
    file.read_exact(&mut count)?;
    Ok(u64::from(u32::from_le_bytes(count)) > left / LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_is_no_longer_than_its_file() {
        let folder = std::env::temp_dir().join(format!("barograph-tables-{}", std::process::id()));
        let file = |count: u32| {
            let mut bytes = b"parts".to_vec();
            bytes.extend(b"TOC!");
            bytes.extend(count.to_le_bytes());
            bytes.extend([0; 18]);
            bytes.extend(b"SFA!\x01\x00");
            bytes.extend([0; 16]);
            bytes.extend(5u64.to_le_bytes());
            bytes.extend(26u64.to_le_bytes());
            bytes
        };
        let inside = folder.join("tables");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("0"), file(1)).unwrap();
        assert_eq!(overlong(&folder).unwrap(), None);
        fs::write(inside.join("1"), file(2)).unwrap();
        assert!(overlong(&folder).unwrap().unwrap().ends_with("tables/1"));
        for cut in 0..file(2).len() {
            fs::write(inside.join("1"), &file(2)[..cut]).unwrap();
            assert_eq!(overlong(&folder).unwrap(), None);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
