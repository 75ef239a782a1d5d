//! Files that appear whole or not at all.
//!
//! Bytes go to a temporary file in the folder of the target, which is renamed over it once they are on disk: a reader,
//! an interrupted run or a full disk sees the old file or the new one, never half of one. What is dropped before
//! [`AtomicFile::commit`] leaves nothing behind.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// What names of temporary files start with: a killed process may leave one, and a cleaner knows it by this.
pub const PREFIX: &str = ".tmp-";

/// A file being written, under a temporary name until it is committed. Writing is buffered.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will be at `path`. Its permissions are those of any new file (the process's umask decides),
    /// where a temporary file would be its owner's alone.
    ///
    /// # Errors
    /// The folder of `path` does not exist or cannot be written, or `path` is a folder.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "is a folder, not a file",
            ));
        }
        Ok(Self {
            file: BufWriter::new(temporary(folder_of(path))?),
            path: path.to_owned(),
        })
    }

    /// Brings the file to disk and renames it to its path.
    ///
    /// # Errors
    /// What writing, syncing or renaming returns; the temporary file is then removed and the target is as it was.
    pub fn commit(self) -> io::Result<()> {
        let folder = folder_of(&self.path).to_owned();
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|e| e.error)?;
        // the rename itself survives a power cut only once the folder is on disk; where folders cannot be opened it
        // is up to the system
        if let Ok(folder) = File::open(folder) {
            drop(folder.sync_all());
        }
        Ok(())
    }

    /// As [`commit`](Self::commit) but without waiting for the disk: for files that can be made again and whose reader
    /// checks them, so that a power cut costs work but gives no wrong result.
    ///
    /// # Errors
    /// What writing or renaming returns.
    pub fn commit_unsynced(self) -> io::Result<()> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.persist(&self.path).map(drop).map_err(|e| e.error)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Puts `bytes` at `path` in one step.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Proves that files can be made in `folder`, by making one and removing it.
///
/// # Errors
/// What the system says against it.
pub fn probe(folder: &Path) -> io::Result<()> {
    temporary(folder).map(drop)
}

fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // not the builder's own error: it names the temporary file, which says nothing to a user
    builder
        .tempfile_in(folder)
        .map_err(|e| e.raw_os_error().map_or(e, io::Error::from_raw_os_error))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stands_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new and longer").unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()).len(), 2);
        drop(file);
        assert_eq!(
            names(folder.path()),
            ["a"],
            "nothing stays of a file that was given up"
        );
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"xew").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"n").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"third").unwrap();
        file.commit_unsynced().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        assert_eq!(
            write(&sub, b"x").unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            write(&folder.path().join("none/x"), b"x")
                .unwrap_err()
                .kind(),
            io::ErrorKind::NotFound
        );
        write(&folder.path().join("file"), b"x").unwrap();
        assert_eq!(
            probe(&folder.path().join("file")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        probe(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["file", "sub"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            std::fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        std::fs::write(folder.path().join("plain"), b"x").unwrap();
        write(&folder.path().join("atomic"), b"x").unwrap();
        assert_eq!(mode("atomic"), mode("plain"));
    }
}
