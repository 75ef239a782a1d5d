//! A folder in which images arrive.
//!
//! It is listed over and over, with the folders in it. A file is taken once its size and time have not changed for some
//! time, and a file that looks as if room had only been made for it once it has not for longer: who writes slower than
//! that, or wants to be sure, writes under a hidden name and renames. A file that cannot be read is tried again some
//! times, then named, and watching goes on: no file ends it, and neither does a folder that is away for a while. With a
//! journal, what was judged before a restart is not judged again.

mod journal;

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub use self::journal::Journal;
use super::{FileKind, file_kind, is_own_output};

/// How long a file must not have changed.
const SETTLED: Duration = Duration::from_millis(300);
/// The same of a file that ends in nothing but zeros.
const FILLED: Duration = Duration::from_secs(3);
/// How often a file is tried.
const TRIES: u32 = 5;
/// Bytes at a file's end that are looked at.
const END: u64 = 4096;

/// A file as it was last seen.
#[derive(Debug)]
struct Seen {
    length: u64,
    modified: Option<SystemTime>,
    since: Instant,
    /// Not to be taken before.
    not_before: Instant,
    tries: u32,
    taken: bool,
    listing: u64,
}

/// A folder, and what was seen in it.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    /// Folders that are not looked into: what is written there is written by us.
    written: Vec<PathBuf>,
    journal: Option<Journal>,
    /// Only what is in the folder now.
    files: HashMap<PathBuf, Seen>,
    listing: u64,
    /// Whether the folder could not be listed the last time.
    away: bool,
    /// Says what a person should know.
    warn: fn(&str),
}

impl Watch {
    /// Starts to watch `folder`, but for the folders in it that are `written` to by us; what `journal` knows is not taken again.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn new(
        folder: &Path,
        written: &[&Path],
        journal: Option<Journal>,
        warn: fn(&str),
    ) -> io::Result<Self> {
        let whole = |path: &&Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let mut watch = Self {
            folder: folder.to_owned(),
            written: written.iter().map(whole).collect(),
            journal,
            files: HashMap::new(),
            listing: 0,
            away: false,
            warn,
        };
        watch.list()?;
        Ok(watch)
    }

    /// At most `most` images that are whole and were not taken before, by name.
    pub fn ready(&mut self, most: usize) -> Vec<PathBuf> {
        match self.list() {
            Ok(()) => self.away = false,
            Err(e) if !std::mem::replace(&mut self.away, true) => (self.warn)(&format!(
                "{}: {e}; looking again until it is there",
                self.folder.display()
            )),
            Err(_) => {}
        }
        let now = Instant::now();
        let whole = |s: &Seen| {
            !s.taken && s.length > 0 && s.since.elapsed() >= SETTLED && s.not_before <= now
        };
        let mut ready: Vec<PathBuf> = self
            .files
            .iter()
            .filter(|(path, s)| whole(s) && (s.since.elapsed() >= FILLED || is_filled(path)))
            .map(|(path, _)| path.clone())
            .collect();
        ready.sort_unstable();
        let mut taken = Vec::new();
        for path in ready {
            if taken.len() == most {
                break;
            }
            if let Some(seen) = self.files.get_mut(&path) {
                seen.taken = true;
            }
            match file_kind(&path) {
                FileKind::Image => taken.push(path),
                FileKind::Foreign(format) => {
                    (self.warn)(&format!(
                        "left out {}: {format} is not supported",
                        path.display()
                    ));
                }
                FileKind::Own | FileKind::Other => {}
            }
        }
        taken
    }

    /// An image that was taken and cannot be read: it is tried again later. Whether this was the last time, or it is gone.
    pub fn failed(&mut self, path: &Path) -> bool {
        let Some(seen) = self.files.get_mut(path).filter(|_| path.exists()) else {
            return true;
        };
        seen.tries += 1;
        if seen.tries >= TRIES {
            return true;
        }
        seen.taken = false;
        seen.not_before = Instant::now() + SETTLED * 2_u32.pow(seen.tries);
        false
    }

    /// Takes down in the journal that an image is judged, as it was when it was taken.
    pub fn judged(&mut self, path: &Path, verdict: &str) {
        if let (Some(journal), Some(seen)) = (&mut self.journal, self.files.get(path)) {
            journal.add(path, seen.length, seen.modified, verdict);
        }
    }

    fn list(&mut self) -> io::Result<()> {
        // the folder itself has to be there; what is in it may come and go meanwhile
        let entries = std::fs::read_dir(&self.folder)?;
        self.listing += 1;
        let mut folders = Vec::new();
        self.list_into(entries, &mut folders);
        while let Some(folder) = folders.pop() {
            if let Ok(entries) = std::fs::read_dir(folder) {
                self.list_into(entries, &mut folders);
            }
        }
        let listing = self.listing;
        self.files.retain(|_, seen| seen.listing == listing);
        Ok(())
    }

    fn list_into(&mut self, entries: std::fs::ReadDir, folders: &mut Vec<PathBuf>) {
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // a file that is gone again is not an error
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if hidden {
                continue;
            }
            // a link to a folder may lead back
            if metadata.is_dir() && !path.is_symlink() {
                let whole = path.canonicalize();
                if !whole.is_ok_and(|whole| self.written.contains(&whole)) {
                    folders.push(path);
                }
            } else if metadata.is_file() && !is_own_output(&path) {
                self.met(path, &metadata);
            }
        }
    }

    fn met(&mut self, path: PathBuf, metadata: &Metadata) {
        let (length, modified) = (metadata.len(), metadata.modified().ok());
        let listing = self.listing;
        let known = || {
            let journal = self.journal.as_ref();
            journal.is_some_and(|j| j.knows(&path, length, modified))
        };
        let before = !self.files.contains_key(&path) && known();
        let new = || Seen {
            length,
            modified,
            since: Instant::now(),
            not_before: Instant::now(),
            tries: 0,
            taken: false,
            listing,
        };
        let seen = self.files.entry(path).or_insert_with(|| Seen {
            taken: before,
            ..new()
        });
        seen.listing = listing;
        if (seen.length, seen.modified) != (length, modified) {
            // also an image that was taken: another now lies under its name
            *seen = new();
        }
    }
}

/// Whether a file's end is not only zeros, as that of a file for which room was made before it is written.
fn is_filled(path: &Path) -> bool {
    let end = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut end = Vec::new();
        file.take(END).read_to_end(&mut end)?;
        Ok(end)
    };
    // what cannot be read is taken, and then said to be so
    end().map_or(true, |end| end.iter().any(|b| *b != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn quiet(_: &str) {}

    fn wait_for(watch: &mut Watch, time: Duration) -> Vec<PathBuf> {
        let start = Instant::now();
        loop {
            let found = watch.ready(8);
            if !found.is_empty() || start.elapsed() > time {
                return found;
            }
            std::thread::sleep(SETTLED / 10);
        }
    }

    fn wait(watch: &mut Watch) -> Vec<PathBuf> {
        wait_for(watch, 4 * SETTLED)
    }

    #[test]
    fn a_file_is_taken_once_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut watch = Watch::new(folder.path(), &[], None, quiet).unwrap();
        std::fs::write(folder.path().join("note.txt"), "x").unwrap();
        std::fs::write(folder.path().join(".b.png"), "x").unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(watch.ready(8).is_empty(), "it may still be written");
        assert_eq!(wait(&mut watch), vec![path.clone()]);
        assert!(wait(&mut watch).is_empty(), "not again");
        std::fs::write(&path, "another image").unwrap();
        assert_eq!(wait(&mut watch), vec![path.clone()]);
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(folder.path().join("note.txt")).unwrap();
        assert!(watch.ready(8).is_empty());
        assert!(watch.files.is_empty(), "what is gone is forgotten");
        assert!(Watch::new(&folder.path().join("none"), &[], None, quiet).is_err());
    }

    #[test]
    fn folders_are_looked_into_and_own_output_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            "day/shift/a.jfif",
            "maps/b.png",
            "c.png",
            "c.png.overlay.png",
            "c.png.tiff",
        ] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), PNG).unwrap();
        }
        let mut watch = Watch::new(folder.path(), &[&at("maps")], None, quiet).unwrap();
        assert_eq!(wait(&mut watch), [at("c.png"), at("day/shift/a.jfif")]);
        assert!(wait(&mut watch).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_tried_some_times() {
        let folder = tempfile::tempdir().unwrap();
        let (path, room) = (folder.path().join("a.png"), folder.path().join("b.bmp"));
        std::fs::write(&path, "half").unwrap();
        let mut watch = Watch::new(folder.path(), &[], None, quiet).unwrap();
        assert_eq!(wait(&mut watch), std::slice::from_ref(&path));
        assert!(!watch.failed(&path));
        assert!(watch.ready(8).is_empty(), "not at once");
        assert_eq!(wait(&mut watch), std::slice::from_ref(&path));
        for _ in 2..TRIES {
            assert!(!watch.failed(&path));
        }
        assert!(watch.failed(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(watch.failed(&path), "it is gone");
        // room was made, and nothing is written yet
        std::fs::write(&room, vec![0; 10_000]).unwrap();
        assert!(wait(&mut watch).is_empty());
        assert_eq!(wait_for(&mut watch, 2 * FILLED), [room]);
        // a folder that is away and comes back
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(watch.ready(8).is_empty());
        std::fs::create_dir(folder.path()).unwrap();
        std::fs::write(&path, PNG).unwrap();
        assert_eq!(wait(&mut watch), [path]);
    }

    #[test]
    fn a_journal_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let at = |name: &str| folder.path().join("in").join(name);
        std::fs::create_dir(folder.path().join("in")).unwrap();
        for name in ["a.png", "b.png", "c.png"] {
            std::fs::write(at(name), PNG).unwrap();
        }
        let start = || {
            let journal = Journal::open(&journal, quiet).unwrap();
            Watch::new(&folder.path().join("in"), &[], Some(journal), quiet).unwrap()
        };
        let mut watch = start();
        assert_eq!(wait(&mut watch), [at("a.png"), at("b.png"), at("c.png")]);
        watch.judged(&at("a.png"), "good");
        watch.judged(&at("b.png"), "flaw");
        drop(watch);
        // the end of a line that was never written whole
        let mut torn = std::fs::read(&journal).unwrap();
        torn.extend(b"{\"path\":\"c.p");
        std::fs::write(&journal, torn).unwrap();
        std::fs::write(at("b.png"), [PNG, PNG].concat()).unwrap();
        let mut watch = start();
        assert_eq!(wait(&mut watch), [at("b.png"), at("c.png")], "one changed");
        watch.judged(&at("c.png"), "good");
        std::fs::remove_file(at("a.png")).unwrap();
        drop(watch);
        drop(start());
        let kept = std::fs::read_to_string(&journal).unwrap();
        assert_eq!(kept.lines().count(), 1, "what is gone is forgotten: {kept}");
    }
}
