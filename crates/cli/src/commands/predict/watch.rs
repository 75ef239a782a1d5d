//! A folder in which pictures arrive.
//!
//! It is listed over and over. A picture is taken once its size and time have not changed between two listings some time
//! apart: who writes slower than that, or wants to be sure, writes under a hidden name and renames.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use flawtune::dataset::is_picture;
use flawtune::workflow::WorkflowError;

/// How long a file must not have changed.
const SETTLED: Duration = Duration::from_millis(300);

/// A file as it was last seen.
struct Seen {
    length: u64,
    modified: Option<SystemTime>,
    since: Instant,
    taken: bool,
    listing: u64,
}

pub(super) struct Watch {
    folder: PathBuf,
    /// Only what is in the folder now.
    files: HashMap<PathBuf, Seen>,
    listing: u64,
}

impl Watch {
    pub(super) fn new(folder: &Path) -> Result<Self, WorkflowError> {
        let mut watch = Self {
            folder: folder.to_owned(),
            files: HashMap::new(),
            listing: 0,
        };
        watch.list()?;
        Ok(watch)
    }

    /// At most `most` pictures that are whole and were not taken before, by name.
    pub(super) fn ready(&mut self, most: usize) -> Result<Vec<PathBuf>, WorkflowError> {
        self.list()?;
        let whole = |s: &Seen| !s.taken && s.length > 0 && s.since.elapsed() >= SETTLED;
        let mut ready: Vec<PathBuf> = self
            .files
            .iter()
            .filter(|(_, s)| whole(s))
            .map(|(path, _)| path.clone())
            .collect();
        ready.sort_unstable();
        ready.truncate(most);
        for path in &ready {
            if let Some(seen) = self.files.get_mut(path) {
                seen.taken = true;
            }
        }
        Ok(ready)
    }

    fn list(&mut self) -> Result<(), WorkflowError> {
        let failed = |source| WorkflowError::Io {
            path: self.folder.clone(),
            source,
            hint: "name a folder that can be read with --watch",
        };
        self.listing += 1;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let hidden = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if hidden || !is_picture(&path) {
                continue;
            }
            // a file that is gone again is no error
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let (length, modified) = (metadata.len(), metadata.modified().ok());
            let listing = self.listing;
            let new = || Seen {
                length,
                modified,
                since: Instant::now(),
                taken: false,
                listing,
            };
            let seen = self.files.entry(path).or_insert_with(new);
            seen.listing = listing;
            if (seen.length, seen.modified) != (length, modified) {
                // also a picture that was taken: another now lies under its name
                *seen = new();
            }
        }
        let listing = self.listing;
        self.files.retain(|_, seen| seen.listing == listing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(watch: &mut Watch) -> Vec<PathBuf> {
        let start = Instant::now();
        loop {
            let found = watch.ready(8).unwrap();
            if !found.is_empty() || start.elapsed() > 4 * SETTLED {
                return found;
            }
            std::thread::sleep(SETTLED / 10);
        }
    }

    #[test]
    fn a_file_is_taken_once_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut watch = Watch::new(folder.path()).unwrap();
        std::fs::write(folder.path().join("note.txt"), "x").unwrap();
        std::fs::write(folder.path().join(".b.png"), "x").unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(
            watch.ready(8).unwrap().is_empty(),
            "it may still be written"
        );
        assert_eq!(wait(&mut watch), vec![path.clone()]);
        assert!(wait(&mut watch).is_empty(), "not again");
        std::fs::write(&path, "another picture").unwrap();
        assert_eq!(wait(&mut watch), vec![path.clone()]);
        std::fs::remove_file(&path).unwrap();
        assert!(watch.ready(8).unwrap().is_empty());
        assert!(watch.files.is_empty(), "what is gone is forgotten");
        assert!(Watch::new(&folder.path().join("none")).is_err());
    }
}
