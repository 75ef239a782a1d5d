//! Files mapped into memory, read-only.
//!
//! It lives here because mapping is `unsafe` (another process may change the file under us) and this crate
//! is where `unsafe` is allowed.

use std::fs::File;
use std::io;
use std::ops::Range;
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

    /// Gives the memory of some bytes (their whole pages) back to the system until they are read again: what has been
    /// copied need not count twice. Where the system has no such call, nothing happens.
    pub fn release(&self, part: Range<usize>) {
        let Some(map) = &self.map else { return };
        let part = part.start.min(map.len())..part.end.min(map.len());
        #[cfg(all(unix, not(miri)))]
        if !part.is_empty() {
            // SAFETY: the mapping is a shared, read-only one of a file: pages that are dropped come back with the file's
            // bytes when they are next read, which is what reading them now would give.
            let dropped = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    part.start,
                    part.len(),
                )
            };
            // it was a hint only
            drop(dropped);
        }
        #[cfg(not(all(unix, not(miri))))]
        drop(part);
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

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_come_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = MappedFile::open(file.path()).unwrap();
        assert_eq!(map.bytes(), bytes);
        for part in [
            0..100_000,
            5..9,
            50_000..50_000,
            99_000..200_000,
            300_000..400_000,
        ] {
            map.release(part);
            assert_eq!(map.bytes(), bytes);
        }
    }
}
