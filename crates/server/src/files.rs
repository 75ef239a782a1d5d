//! Files under the data folder.
//!
//! ```text
//! flawtune.db            what is remembered
//! lock                   held while a server runs here
//! images/ab/abcd….png    images by their content, as they came
//! detectors/NAME/1.flaw  versions
//! features/              tokens of good and judged images
//! tmp/                   emptied at every start
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use image::ImageFormat;

/// The data folder.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    _lock: File,
}

/// Why a folder cannot hold the data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The system.
    #[error("{}: {source}\nhint: name a folder that can be written with --data", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another server runs there.
    #[error("{}: another flawtune serve uses this folder\nhint: end it, or name another folder with --data", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

impl Files {
    /// Opens a data folder, which is made where there is none, and keeps other servers out of it.
    ///
    /// # Errors
    /// A folder that cannot be made or written, or in which another server runs.
    pub(crate) fn open(root: &Path) -> Result<Self, FilesError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FilesError::Io { path, source }
        };
        fs::create_dir_all(root).map_err(failed(root))?;
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed(&path))?;
        if lock.try_lock().is_err() {
            return Err(FilesError::Taken {
                path: root.to_owned(),
            });
        }
        let files = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        match fs::remove_dir_all(files.tmp()) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&files.tmp())(e)),
            _ => {}
        }
        for folder in [files.tmp(), root.join("images"), root.join("detectors")] {
            fs::create_dir_all(&folder).map_err(failed(&folder))?;
        }
        Ok(files)
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("flawtune.db")
    }

    /// Tokens of images that were looked at to learn from them.
    pub(crate) fn features(&self) -> PathBuf {
        self.root.join("features")
    }

    /// For files that a restart may lose.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Versions of a detector.
    pub(crate) fn detector(&self, name: &str) -> PathBuf {
        self.root.join("detectors").join(name)
    }

    /// Where an image of this content lies.
    pub(crate) fn image(&self, content: &str, extension: &str) -> PathBuf {
        let first = content.get(..2).unwrap_or("00");
        self.root
            .join("images")
            .join(first)
            .join(format!("{content}.{extension}"))
    }

    /// Puts an image on disk, under its content. It is there as a whole or not at all, but may be lost with the power:
    /// [`Self::keep`] waits for the disk.
    ///
    /// # Errors
    /// The system.
    pub(crate) fn put(&self, content: &str, extension: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.image(content, extension);
        if path.exists() {
            return Ok(path);
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = atomic_file::AtomicFile::create(&path)?;
        file.write_all(bytes)?;
        file.commit_unsynced()?;
        Ok(path)
    }

    /// Waits until an image and its name are on disk.
    ///
    /// # Errors
    /// The system; an image that is gone.
    pub(crate) fn keep(&self, content: &str, extension: &str) -> io::Result<()> {
        let path = self.image(content, extension);
        File::open(&path)?.sync_all()?;
        if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
            folder.sync_all()?;
        }
        Ok(())
    }
}

/// The usual extension of an image, by its first bytes; `None` for anything else.
pub(crate) fn extension(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Png => Some("png"),
        ImageFormat::Jpeg => Some("jpg"),
        ImageFormat::Bmp => Some("bmp"),
        ImageFormat::Tiff => Some("tiff"),
        ImageFormat::WebP => Some("webp"),
        ImageFormat::Gif => Some("gif"),
        ImageFormat::Pnm => Some("pnm"),
        _ => None,
    }
}

/// Another name for a file, without copying it where that can be.
///
/// # Errors
/// The system.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Whether this can be the name of a detector: it is a folder's name and part of an address.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(fits) && !name.starts_with(['.', '-'])
}

/// Whether this can be the kind of a flaw: it is a folder's name.
pub(crate) fn is_kind(kind: &str) -> bool {
    let fits = |c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c);
    (1..=64).contains(&kind.len())
        && kind.chars().all(fits)
        && !kind.starts_with('.')
        && kind.trim() == kind
        && kind != "good"
}
