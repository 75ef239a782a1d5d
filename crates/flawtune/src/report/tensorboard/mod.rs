//! Event files that TensorBoard reads: scalars and text, a step at a time.
//!
//! A file is a sequence of framed records, each an `Event` message. The messages are few and their field numbers are fixed by
//! `tensorboard/compat/proto/{event,summary,tensor}.proto`, so they are written by hand; the crates that write them have had no
//! release since 2022. Every call reaches the system at once: what a killed process has finished can be read. That makes this
//! the one file that is not written whole or not at all: a reader stops at a record that is not complete.

mod message;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use message::Event;

/// What TensorBoard knows the format by; it is the first event of every file.
const FILE_VERSION: &str = "brain.Event:2";

/// What the names of event files start with; seconds of ten digits follow.
const PREFIX: &str = "events.out.tfevents.";

/// Event files of one process in one second, at most.
const FILES: u32 = 1000;

/// A failed write, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}\nhint: choose a folder that can be written, or make room", path.display())]
pub struct EventFileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// An event file that grows.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// A new file `events.out.tfevents.<seconds>.<host>.<process>.<number>` in `folder`, which is made if need be. What the
    /// folder's older files say of `step` and later steps is withdrawn: TensorBoard shows what this file says in its place.
    ///
    /// # Errors
    /// The folder or the file cannot be made or written.
    pub fn create(folder: &Path, step: usize) -> Result<Self, EventFileError> {
        let failed = |source| EventFileError {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let host: String = gethostname::gethostname()
            .to_string_lossy()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        // files are read in the order of their names, so none may come before one that is older
        let seconds = newest(folder)
            .map_err(failed)?
            .map_or(0, |newest| newest + 1)
            .max(now() as u64);
        let start = format!("{PREFIX}{seconds:010}.{host}.{}", std::process::id());
        for number in 0..FILES {
            let path = folder.join(format!("{start}.{number}"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e)),
                Ok(file) => {
                    let mut file = Self { file, path };
                    file.write(&Event::file_version(now(), FILE_VERSION))?;
                    file.write(&Event::start(now(), step))?;
                    return Ok(file);
                }
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one point to the curve of each name, in `f32` as TensorBoard keeps them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), EventFileError> {
        self.write(&Event::scalars(now(), step, values))
    }

    /// Adds a text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn text(&mut self, step: usize, name: &str, text: &str) -> Result<(), EventFileError> {
        self.write(&Event::text(now(), step, name, text))
    }

    fn write(&mut self, event: &Event) -> Result<(), EventFileError> {
        self.file
            .write_all(&record::framed(event.bytes()))
            .map_err(|source| EventFileError {
                path: self.path.clone(),
                source,
            })
    }
}

/// The seconds that the name of the folder's newest event file says.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        // another writer's name may say anything: one beyond the digits of a time is not a time
        let seconds = rest
            .and_then(|rest| rest.split('.').next()?.parse().ok())
            .filter(|s| *s < 9_999_999_999);
        newest = newest.max(seconds);
    }
    Ok(newest)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |t| t.as_secs_f64())
}

#[cfg(test)]
mod tests;
