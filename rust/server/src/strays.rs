//! Folders of models that the control plane does not know: it was damaged, and they are taken in again; or they were being deleted when
//! the process ended, and go now.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::is_name;
use crate::control::{Control, ModelRow};
use crate::files::{Files, listed, sync_folder};
use crate::model::{Model, Settings};
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Record};
use crate::shard::{clock, model_of};
use crate::wal::{self, Log};

/// Names of models do not begin with a dot.
fn mark(models: &Path, name: &str) -> PathBuf {
    models.join(format!(".{name}.deleted"))
}

/// Notes that a model is being deleted: whatever happens in between, it does not come back.
///
/// # Errors
/// 503 if that cannot be written.
pub fn doom(models: &Path, name: &str) -> Outcome<()> {
    let written = fs::write(mark(models, name), b"").and_then(|()| sync_folder(models));
    written.map_err(|error| Problem::unavailable(format!("the model could not be deleted: {error}")))
}

/// The model is gone, or stays.
pub fn spare(models: &Path, name: &str) {
    let _ = fs::remove_file(mark(models, name));
}

/// All models there are: those that the control plane knows, and those whose folders it does not know, which are stated anew as their own
/// files say. What is to be told about these.
pub fn all(control: &Control, models: &Path) -> (Vec<ModelRow>, Vec<(String, String)>) {
    let mut told = Vec::new();
    let mut rows = control.models().unwrap_or_else(|problem| {
        told.push((String::new(), format!("models could not be read: {}", problem.detail)));
        Vec::new()
    });
    let known = |rows: &[ModelRow], name: &str| rows.iter().any(|row| row.name == name);
    for (name, path) in listed(models, ".", ".deleted").unwrap_or_default() {
        if !known(&rows, &name) {
            let _ = fs::remove_dir_all(models.join(&name));
        }
        let _ = fs::remove_file(path);
    }
    for (name, folder) in listed(models, "", "").unwrap_or_default() {
        if known(&rows, &name) || !is_name(&name) || !folder.is_dir() {
            continue;
        }
        let (row, what) = match found(&folder, &name) {
            Ok(None) => continue,
            Ok(Some((settings, changes))) => {
                let row = taken_in(control, &name, &settings, changes);
                (row, "the control plane did not know this model: it was taken in as its own files say".to_owned())
            }
            Err(why) => (None, format!("the control plane does not know this model, and its files cannot be read: {why}")),
        };
        told.push((name, what));
        rows.extend(row);
    }
    (rows, told)
}

/// What the files of a model say of its settings, and how many changes of alerts it has had; none for a folder without any.
fn found(folder: &Path, name: &str) -> Result<Option<(Settings, u64)>, String> {
    let state = wal::read_state(folder, &model_of, &mut |_| ()).map_err(|error| error.to_string())?;
    if state.is_none() && listed(folder, "log-", ".wal").is_ok_and(|logs| logs.is_empty()) {
        return Ok(None);
    }
    let (number, model) = state.unwrap_or_else(|| (0, Model::new(name, Settings::default())));
    let changes = model.monitor().map_or(0, |monitor| monitor.alerts().len() as u64);
    let mut settings = model.settings;
    let each = &mut |_: u64, payload: &[u8]| {
        if let Ok(Record { happening: Happening::Settings(json), .. }) = Record::from_bytes(payload)
            && let Ok(stated) = Settings::from_json(&json)
        {
            settings = stated;
        }
    };
    Log::open(folder, &Files::default(), number + 1, each).map_err(|error| error.to_string())?;
    Ok(Some((settings, changes)))
}

/// States it, and that its alerts were told: a damaged file is no reason to send them all again.
fn taken_in(control: &Control, name: &str, settings: &Settings, changes: u64) -> Option<ModelRow> {
    let settings_json = settings.to_json().ok()?;
    let now = clock();
    // What cannot be written is opened all the same.
    let etag = control.put_model(name, &settings_json, None, now).map(|(etag, _)| etag).unwrap_or_default();
    let row = control.model(name).ok().flatten();
    let row = row.unwrap_or_else(|| ModelRow { name: name.to_owned(), settings_json, etag, created: now, updated: now });
    let _ = control.set_told(name, &row.created.to_string(), changes);
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("barograph-strays-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("models").join("m")).unwrap();
        path
    }

    fn log(folder: &Path, settings: &Settings) {
        let (mut log, _) = Log::open(&folder.join("models").join("m"), &Files::default(), 1, &mut |_, _| ()).unwrap();
        let record = Record::new(5, Happening::Settings(settings.to_json().unwrap()));
        log.append(&record.to_bytes().unwrap()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_known_is_taken_in_as_its_log_says() {
        let folder = folder("taken");
        let settings = Settings { segments: vec!["country".into()], ..Settings::default() };
        log(&folder, &settings);
        fs::create_dir_all(folder.join("models").join("empty")).unwrap();
        let (control, _) = Control::open(&folder.join("control.sqlite")).unwrap();
        let (rows, told) = all(&control, &folder.join("models"));
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["m"]);
        assert_eq!(Settings::from_json(&rows[0].settings_json).unwrap(), settings);
        assert!(told.len() == 1 && told[0].1.contains("taken in"));
        // Once.
        let (again, told) = all(&control, &folder.join("models"));
        assert_eq!((again, told), (rows, Vec::new()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_being_deleted_does_not_come_back() {
        let folder = folder("deleted");
        let models = folder.join("models");
        log(&folder, &Settings::default());
        let (control, _) = Control::open(&folder.join("control.sqlite")).unwrap();
        control.put_model("m", "{}", None, 1).unwrap();
        doom(&models, "m").unwrap();
        // The process ended before the control plane knew: the model stays.
        assert_eq!(all(&control, &models).0.len(), 1);
        assert!(models.join("m").exists() && !mark(&models, "m").exists());
        doom(&models, "m").unwrap();
        control.delete_model("m", None).unwrap();
        // And after it did: it goes.
        assert_eq!(all(&control, &models), (Vec::new(), Vec::new()));
        assert!(!models.join("m").exists() && !mark(&models, "m").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
