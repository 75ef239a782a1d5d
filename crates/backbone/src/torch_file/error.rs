//! What can be wrong with a torch file.

use std::io;
use std::path::{Path, PathBuf};

/// A torch file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct TorchFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a torch file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file could not be opened, read, created or renamed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither a zip nor an old-style pickle.
    #[error("not a PyTorch file: {0}")]
    NotTorch(String),
    /// The zip archive or one of its entries is unreadable.
    #[error("damaged PyTorch file: {0}\nhint: copy or download it again")]
    Damaged(String),
    /// The pickle names a class or function that is not data.
    #[error(
        "its pickle asks for `{0}`, which is code rather than data; flawtune runs no code from a file\nhint: save it again with plain numbers, text and tensors (for weights: the state_dict)"
    )]
    ForeignGlobal(String),
    /// The pickle is malformed.
    #[error("its pickle is malformed at byte {position}: {what}")]
    Pickle {
        /// Byte of the pickle.
        position: usize,
        /// What is wrong there.
        what: String,
    },
    /// Well-formed, but something this reader does not handle.
    #[error("{0}")]
    Unsupported(String),
    /// Larger than the limits that protect from hostile files.
    #[error("too large: {0}")]
    TooLarge(String),
    /// A tensor does not fit the storage it names.
    #[error("its tensor is inconsistent: {0}")]
    Tensor(String),
}

impl Problem {
    /// The problem as an error about `path`.
    pub(super) fn at(self, path: &Path) -> TorchFileError {
        TorchFileError {
            path: path.to_owned(),
            problem: self,
        }
    }
}
