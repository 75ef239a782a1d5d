//! `run.json`: the records of the runs that wrote into a folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use serde::{Deserialize, Serialize};

use super::{Outcome, RecordError, RunRecord};

/// Name of the file in the output folder.
pub const FILE_NAME: &str = "run.json";
/// Format that this version writes.
pub const FORMAT: u64 = 1;
/// Unreadable files that are stepped round before giving up.
const MOST_BESIDE: usize = 100;

/// The records of a folder: one for each command and category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// [`FORMAT`].
    pub format: u64,
    /// The runs, in the order they were last made.
    pub runs: Vec<RunRecord>,
}

impl Default for RunFile {
    fn default() -> Self {
        Self {
            format: FORMAT,
            runs: Vec::new(),
        }
    }
}

/// Where a record was put.
#[derive(Debug)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// Why it is not [`FILE_NAME`]: what is there cannot be read, and is left as it is.
    pub beside: Option<RecordError>,
}

/// What of a file is looked at before the rest of it is.
#[derive(Deserialize)]
struct Head {
    format: u64,
}

impl RunFile {
    /// Reads a `run.json`, or that of a folder.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Damaged`], [`RecordError::Newer`].
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let bytes = std::fs::read(&path).map_err(|source| RecordError::Io {
            path: path.clone(),
            source,
            hint: "name the run.json of an output folder",
        })?;
        let damaged = |source| RecordError::Damaged {
            path: path.clone(),
            source,
        };
        let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
        if head.format > FORMAT {
            return Err(RecordError::Newer {
                path,
                found: head.format,
                known: FORMAT,
            });
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// The record of a command on a category.
    pub fn find(&self, command: &str, category: Option<&str>) -> Option<&RunRecord> {
        self.runs
            .iter()
            .find(|r| r.command == command && r.category.as_deref() == category)
    }

    /// Puts a record in: it replaces that of the same command and category. A run that ended without writing anything
    /// does not replace one that did: its files are still there.
    pub fn put(&mut self, record: RunRecord) {
        let same = |r: &RunRecord| r.command == record.command && r.category == record.category;
        let nothing_new = record.outcome != Outcome::Finished && record.outputs.is_empty();
        if nothing_new && self.runs.iter().any(|r| same(r) && !r.outputs.is_empty()) {
            return;
        }
        self.runs.retain(|r| !same(r));
        self.runs.push(record);
    }

    /// Puts a record into the `run.json` of a folder, whole or not at all.
    ///
    /// A `run.json` that is damaged or of a newer format is not touched, and the record goes to `run-2.json`, … beside
    /// it: the run it tells of is already done, so that refusing would lose the record, and overwriting the others.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn add(folder: &Path, record: RunRecord) -> Result<Kept, RecordError> {
        // two runs may end at once in one folder; where folders cannot be locked, the later one wins
        let lock = File::open(folder).ok();
        if let Some(folder) = &lock {
            drop(folder.lock());
        }
        let (mut path, mut beside) = (folder.join(FILE_NAME), None);
        let mut number = 2;
        let mut file = loop {
            match Self::read(&path) {
                _ if !path.exists() => break Self::default(),
                Ok(file) => break file,
                Err(error) if number <= MOST_BESIDE => {
                    beside.get_or_insert(error);
                    path = folder.join(format!("run-{number}.json"));
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        };
        file.put(record);
        let failed = |source| RecordError::Io {
            path: path.clone(),
            source,
            hint: "make room, or make the folder writable",
        };
        let mut text = serde_json::to_string_pretty(&file).map_err(|e| failed(e.into()))?;
        text.push('\n');
        atomic_file::write(&path, text.as_bytes()).map_err(failed)?;
        Ok(Kept { path, beside })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{FileRecord, Recorder};
    use super::*;

    fn record(command: &str, category: &str, outcome: Outcome, outputs: &[&str]) -> RunRecord {
        let mut record = Recorder::new(command, Path::new(".")).into_record(outcome);
        record.category = Some(category.to_owned());
        record.outputs = outputs
            .iter()
            .map(|p| FileRecord {
                path: (*p).to_owned(),
                bytes: 1,
                blake3: "00".into(),
            })
            .collect();
        record
    }

    #[test]
    fn a_record_replaces_its_like_and_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        for (command, category, output) in [
            ("train", "a", "1"),
            ("evaluate", "a", "2"),
            ("train", "b", "3"),
            ("train", "a", "4"),
        ] {
            let kept = RunFile::add(
                folder.path(),
                record(command, category, Outcome::Finished, &[output]),
            )
            .unwrap();
            assert_eq!(kept.path, folder.path().join("run.json"));
            assert!(kept.beside.is_none());
        }
        let file = RunFile::read(folder.path()).unwrap();
        let found: Vec<_> = file
            .runs
            .iter()
            .map(|r| {
                (
                    r.command.as_str(),
                    r.category.as_deref().unwrap(),
                    r.outputs[0].path.as_str(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("evaluate", "a", "2"),
                ("train", "b", "3"),
                ("train", "a", "4")
            ]
        );
        assert_eq!(file.find("train", Some("b")).unwrap().outputs[0].path, "3");
        assert!(file.find("train", None).is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_without_files_leaves_the_record_of_the_files_that_are_there() {
        let mut file = RunFile::default();
        file.put(record("train", "a", Outcome::Failed, &[]));
        assert_eq!(file.runs[0].outcome, Outcome::Failed);
        file.put(record("train", "a", Outcome::Finished, &["x"]));
        file.put(record("train", "a", Outcome::Failed, &[]));
        assert_eq!(
            (file.runs.len(), file.runs[0].outcome),
            (1, Outcome::Finished)
        );
        file.put(record("train", "a", Outcome::Interrupted, &["y"]));
        assert_eq!(
            (file.runs.len(), file.runs[0].outcome),
            (1, Outcome::Interrupted)
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        for (text, part) in [
            (
                r#"{"format": 2, "machines": []}"#,
                "has format 2, and this version knows up to 1",
            ),
            (
                r#"{"format": 1, "runs": [{}]}"#,
                "is not a run record (missing field",
            ),
            ("{", "is not a run record (EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = RunFile::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("run.json"),
                "{error}"
            );
            let kept = RunFile::add(
                folder.path(),
                record("fit", "a", Outcome::Finished, &["a.flaw"]),
            )
            .unwrap();
            assert_eq!(kept.path, folder.path().join("run-2.json"));
            assert_eq!(kept.beside.unwrap().to_string(), error);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(RunFile::read(&kept.path).unwrap().runs.len(), 1);
        }
        let missing = RunFile::read(&folder.path().join("none.json")).unwrap_err();
        assert!(matches!(missing, RecordError::Io { .. }), "{missing}");
    }

    #[test]
    fn a_record_survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = record("train", "a", Outcome::Finished, &["x", "y/z"]);
        one.options.insert(
            "layers".into(),
            super::super::OptionRecord {
                value: serde_json::json!([8, -1]),
                source: super::super::OptionSource::File,
                from: Some("flawtune.toml:3".into()),
            },
        );
        RunFile::add(folder.path(), one.clone()).unwrap();
        assert_eq!(RunFile::read(folder.path()).unwrap().runs, [one]);
    }
}
