//! What can be wrong with a bundle.

use std::path::PathBuf;

use crate::score::foreground::ForegroundError;
use crate::score::heads::HeadError;
use crate::score::map::MapError;

/// Why a bundle could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file or its folder.
    #[error("{}: {source}\nhint: {hint}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Something else than a bundle, or half of one.
    #[error("{}: not a detector of 'flawtune fit': {what}", path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Written by a later version.
    #[error(
        "{}: detector format {found} is newer than this program's {known}\nhint: update it, or fit again with this one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u64,
        /// Highest version that is read.
        known: u64,
    },
    /// The header is damaged.
    #[error("{}: '{key}' {what}\nhint: fit again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where in the header.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor that is missing or of another kind.
    #[error("{}: tensor '{key}' is {found}, wanted {wanted}\nhint: fit again", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        key: String,
        /// What is there.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// The numbers are not those that were written.
    #[error("{}: damaged: its tensors are not those that were written\nhint: copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Tokens that do not fit.
    #[error(
        "images give {found:?} tokens (rows, columns, numbers), the detector was made for {wanted:?}: it belongs to \
         another backbone, block or image size"
    )]
    Tokens {
        /// Rows and columns of the patch grid, and numbers per token.
        found: (usize, usize, usize),
        /// Those of the bundle.
        wanted: (usize, usize, usize),
    },
    /// Tokens that are not numbers.
    #[error(transparent)]
    Foreground(#[from] ForegroundError),
    /// Patches that have no neighbourhood of that size.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The ensemble.
    #[error(transparent)]
    Head(#[from] HeadError),
}
