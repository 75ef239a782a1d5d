//! The file format of one cached image.
//!
//! 64 bytes of header, then the tokens `[1 + rows·columns, dim]`, f32; all little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `flawtok\0` |
//! | 8..12 | format version |
//! | 12..24 | rows, columns, dim |
//! | 24..32 | zero |
//! | 32..48 | first half of the key the entry was stored under |
//! | 48..64 | first half of BLAKE3 over bytes 0..48 and the tokens |
//!
//! The checksum is verified whenever an entry is opened, so an entry that was cut short, overwritten or moved to
//! another name is never used.

use std::path::Path;
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;

use super::ImageTokens;

const MAGIC: [u8; 8] = *b"flawtok\0";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const CHECKED: usize = 48;

/// A valid entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Rows and columns of the patch grid.
    pub grid: (usize, usize),
    /// Numbers per token.
    pub dim: usize,
    /// The tokens, mapped from the file.
    pub tokens: ImageTokens,
}

/// Why a file is not a usable entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It cannot be opened or mapped.
    #[error("cannot open the entry: {0}")]
    Open(#[from] std::io::Error),
    /// It is not an entry of this version, or is cut short, damaged or stored under another key.
    #[error("not a valid entry: {0}")]
    Invalid(&'static str),
}

/// The bytes of an entry for tokens `[1 + rows·columns, dim]`.
///
/// # Panics
/// If `tokens` has another length than the shape says.
pub fn encode_entry(key: &[u8; 32], grid: (usize, usize), dim: usize, tokens: &[f32]) -> Vec<u8> {
    assert_eq!(
        tokens.len(),
        (1 + grid.0 * grid.1) * dim,
        "tokens are [1 + patches, dim]"
    );
    let mut bytes = Vec::with_capacity(HEADER + tokens.len() * 4);
    bytes.extend(MAGIC);
    for number in [VERSION, grid.0 as u32, grid.1 as u32, dim as u32, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(&key[..16]);
    bytes.resize(HEADER, 0);
    if cfg!(target_endian = "little") {
        bytes.extend(bytemuck::cast_slice::<f32, u8>(tokens));
    } else {
        bytes.extend(tokens.iter().flat_map(|v| v.to_le_bytes()));
    }
    let sum = checksum(&bytes);
    bytes[CHECKED..HEADER].copy_from_slice(&sum);
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..CHECKED]);
    hasher.update(&bytes[HEADER..]);
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    half
}

/// Opens and verifies the entry at `path`, which must have been stored under `key`.
///
/// # Errors
/// [`EntryError`]; the caller computes the tokens again.
pub fn open_entry(path: &Path, key: &[u8; 32]) -> Result<Entry, EntryError> {
    let file = MappedFile::open(path)?;
    let (grid, dim) = check(file.bytes(), key).map_err(EntryError::Invalid)?;
    let tokens = ImageTokens::mapped(Arc::new(file), HEADER, grid.0 * grid.1, dim)
        .ok_or(EntryError::Invalid("it cannot be viewed as numbers here"))?;
    Ok(Entry { grid, dim, tokens })
}

/// Grid and width of an entry's bytes, if all of it is as it was written.
fn check(bytes: &[u8], key: &[u8; 32]) -> Result<((usize, usize), usize), &'static str> {
    if bytes.len() < HEADER {
        return Err("it is shorter than a header");
    }
    let number = |at: usize| {
        let mut four = [0; 4];
        four.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(four)
    };
    if bytes[..8] != MAGIC {
        return Err("it does not start as an entry does");
    }
    if number(8) != VERSION {
        return Err("it has another version");
    }
    let (rows, columns, dim) = (
        number(12) as usize,
        number(16) as usize,
        number(20) as usize,
    );
    let length = rows
        .checked_mul(columns)
        .and_then(|n| n.checked_add(1))
        .and_then(|n| n.checked_mul(dim))
        .and_then(|n| n.checked_mul(4))
        .and_then(|n| n.checked_add(HEADER));
    if rows == 0 || columns == 0 || dim == 0 || length != Some(bytes.len()) {
        return Err("its length does not fit its shape");
    }
    if bytes[32..48] != key[..16] {
        return Err("it was stored under another key");
    }
    if bytes[CHECKED..HEADER] != checksum(bytes) {
        return Err("its checksum does not fit");
    }
    Ok(((rows, columns), dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn entry() -> Vec<u8> {
        let tokens: Vec<f32> = (0..7 * 5).map(|v| v as f32 * 0.5).collect();
        encode_entry(&KEY, (2, 3), 5, &tokens)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entry");
        std::fs::write(&path, entry()).unwrap();
        let read = open_entry(&path, &KEY).unwrap();
        assert_eq!((read.grid, read.dim), ((2, 3), 5));
        assert_eq!(read.tokens.cls(), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(read.tokens.patches().len(), 30);
        assert_eq!(read.tokens.patches()[29], 17.0);
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unseen() {
        let good = entry();
        assert!(check(&good, &KEY).is_ok());
        assert!(check(&good, &[8; 32]).is_err());
        for length in 0..good.len() {
            assert!(check(&good[..length], &KEY).is_err(), "cut to {length}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(check(&longer, &KEY).is_err());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(check(&bad, &KEY).is_err(), "byte {at}");
        }
    }
}
