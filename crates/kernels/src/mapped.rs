//! Files mapped into memory, read-only.
//!
//! It lives here because mapping is `unsafe` (another process may change the file under us) and this crate
//! is where `unsafe` is allowed.

use std::fs::File;
use std::io;
use std::path::Path;

/// A whole file, read-only, mapped into memory; an empty file is an empty slice.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Whatever opening or mapping the file returns.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is read-only and private to us. If another process truncates the file the
        // kernel raises SIGBUS, which ends the process without memory unsafety; if it overwrites bytes we may
        // read changed numbers, never invalid values, because only plain integers are viewed through it.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
