//! Copies of images by verdict: `good`, `flaw`, `unreadable`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use flawtune::workflow::WorkflowError;

use crate::commands::maps::place_below;

/// What an image is sorted under when it cannot be read.
pub(super) const UNREADABLE: &str = "unreadable";

/// A folder with a folder for each verdict.
pub(super) struct Sorted<'a> {
    pub(super) folder: &'a Path,
    /// The one input, where it is a folder: copies lie below a verdict as images lie below it.
    pub(super) root: Option<PathBuf>,
}

impl Sorted<'_> {
    /// Copies an image under its verdict, whole or not at all, and over nothing that is there.
    pub(super) fn put(&self, path: &Path, verdict: &str) -> Result<(), WorkflowError> {
        let wanted = place_below(&self.folder.join(verdict), self.root.as_deref(), path);
        match copy(path, &wanted) {
            // one that is gone meanwhile is named elsewhere
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.exists() => Ok(()),
            copied => copied.map_err(|source| WorkflowError::Io {
                path: wanted,
                source,
                hint: "choose a folder that can be written with --sort-into",
            }),
        }
    }
}

fn copy(from: &Path, wanted: &Path) -> io::Result<()> {
    let folder = wanted.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = wanted.file_name().unwrap_or_default();
    let mut part = OsString::from(".");
    part.push(name);
    part.push(".part");
    let part = folder.join(part);
    let copied = std::fs::copy(from, &part).and_then(|_| {
        let free = free(wanted, &part)?;
        free.map_or_else(
            || std::fs::remove_file(&part),
            |to| std::fs::rename(&part, to),
        )
    });
    if copied.is_err() {
        drop(std::fs::remove_file(&part));
    }
    copied
}

/// The place wanted, or the next one that is free: `a~2.png`; none where the same bytes are there.
fn free(wanted: &Path, copy: &Path) -> io::Result<Option<PathBuf>> {
    for number in 1_u32.. {
        let place = if number == 1 {
            wanted.to_owned()
        } else {
            let mut name = wanted.file_stem().unwrap_or_default().to_owned();
            name.push(format!("~{number}"));
            if let Some(extension) = wanted.extension() {
                name.push(".");
                name.push(extension);
            }
            wanted.with_file_name(name)
        };
        match std::fs::metadata(&place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(place)),
            Err(e) => return Err(e),
            Ok(there) => {
                let same = there.len() == std::fs::metadata(copy)?.len()
                    && std::fs::read(&place)? == std::fs::read(copy)?;
                if same {
                    return Ok(None);
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_lie_under_their_verdict_and_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("in/day")).unwrap();
        let out = at("out");
        let sorted = Sorted {
            folder: &out,
            root: Some(at("in")),
        };
        for content in ["one", "one", "two"] {
            std::fs::write(at("in/day/a.png"), content).unwrap();
            sorted.put(&at("in/day/a.png"), "flaw").unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        assert_eq!(read("out/flaw/day/a.png"), "one");
        assert_eq!(read("out/flaw/day/a~2.png"), "two");
        assert_eq!(at("out/flaw/day").read_dir().unwrap().count(), 2);
        sorted.put(&at("in/gone.png"), UNREADABLE).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let blocked = at("file");
        let sorted = Sorted {
            folder: &blocked,
            root: None,
        };
        let text = sorted
            .put(&at("in/day/a.png"), "good")
            .unwrap_err()
            .to_string();
        assert!(text.contains("--sort-into"), "{text}");
    }
}
