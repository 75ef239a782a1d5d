//! One run at a time for what a run writes.
//!
//! Result files appear whole or not at all, but two runs into one folder leave a checkpoint of one beside the history of
//! the other. A file in the system's folder for temporary ones, named after the results, is locked while a run writes: the
//! folder of the results holds results only, and the system lets go of a lock however a run ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::failure::Failure;

/// Lock files of this process, which Ctrl-C removes.
static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A place that no other run writes to meanwhile.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes what is called `name` in `folder`; `None` where there are no locks, or the folder is not there yet.
    pub(crate) fn take(folder: &Path, name: &str) -> Result<Option<Self>, Failure> {
        let Ok(whole) = folder.canonicalize() else {
            return Ok(None);
        };
        // FNV-1a
        let text = format!("{}\0{name}", whole.display());
        let number = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let path = std::env::temp_dir().join(format!("flawtune-{number:016x}.lock"));
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let Ok(file) = open else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => {
                held().push(path.clone());
                Ok(Some(Self { path, _file: file }))
            }
            Err(TryLockError::WouldBlock) => Err(Failure::Input(format!(
                "{}: another run writes the results of {name} here\n\
                 hint: wait for it, or write into another folder",
                folder.display()
            ))),
            Err(TryLockError::Error(_)) => {
                drop(std::fs::remove_file(&path));
                Ok(None)
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
        held().retain(|p| *p != self.path);
    }
}

/// Removes the files of locks, where Ctrl-C ends the process at once.
pub(crate) fn interrupted() {
    for path in held().drain(..) {
        drop(std::fs::remove_file(path));
    }
}

fn held() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), "screw").unwrap().unwrap();
        let text = Lock::take(folder.path(), "screw").unwrap_err().text();
        assert!(
            text.contains("another run") && text.contains("hint:"),
            "{text}"
        );
        let other = Lock::take(folder.path(), "a/b").unwrap().unwrap();
        let path = first.path.clone();
        drop((first, other));
        assert!(!path.exists());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        assert!(Lock::take(folder.path(), "screw").unwrap().is_some());
        let none = folder.path().join("none");
        assert!(Lock::take(&none, "screw").unwrap().is_none());
    }
}
