//! Files of `torch.save`: checkpoints (`.pt`) and weights (`.pth`), read and written without Python.
//!
//! Such a file is a zip archive with a pickle and one entry per tensor storage. A pickle is a program; ours runs on a
//! machine that can build data and nothing else ([`Problem::ForeignGlobal`] names whatever else a file asks for).
//! Every size a file claims is checked before memory is set aside for it.
//!
//! ```
//! use flawtune_backbone::torch_file::{self, Tensor, Value};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("bottle_prompts.pt");
//! let saved = Value::dict([
//!     ("category", Value::from("bottle")),
//!     ("prompts", Tensor::from_f32([2, 3], &[0., 1., 2., 3., 4., 5.]).into()),
//!     ("history", Value::dict([("loss", Value::floats([-0.5, -0.75]))])),
//! ]);
//! torch_file::write(&path, &saved)?;
//! let read = torch_file::read(&path)?;
//! assert_eq!(read, saved);
//! assert_eq!(read.get("category").and_then(Value::as_str), Some("bottle"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod error;
mod globals;
mod numpy;
mod pickle;
mod resolve;
mod value;
mod write;

use std::io;
use std::path::Path;
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;

use crate::atomic_file;
use crate::weights::StoredTensor;
pub use error::{Problem, TorchFileError};
pub use value::{DType, Tensor, Value};

/// Reads a file of `torch.save`, tensors copied into memory, checksums compared.
///
/// Views and non-contiguous tensors arrive contiguous, parameters as tensors, numpy numbers as plain ones. Files of
/// `PyTorch` before 1.6 (no zip) are read too.
///
/// # Errors
/// The file cannot be opened, is damaged, is not a torch file, names code ([`Problem::ForeignGlobal`]) or expands beyond
/// the limits.
pub fn read(path: &Path) -> Result<Value, TorchFileError> {
    let file = map(path).map_err(|p| p.at(path))?;
    read_bytes(file.bytes()).map_err(|p| p.at(path))
}

/// [`read`] from bytes in memory.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8]) -> Result<Value, Problem> {
    resolve::value(bytes, &archive::open(bytes)?)
}

/// Writes `value` so that `torch.load(path, weights_only=True)` opens it; the file appears complete or not at all.
///
/// Lists, dictionaries and text arrive in Python as such, [`Value::Float`] as plain floats, tensors on the CPU.
/// The same value gives the same bytes.
///
/// # Errors
/// The folder cannot be written, a tensor's shape does not fit its data, or nesting is deeper than 64.
pub fn write(path: &Path, value: &Value) -> Result<(), TorchFileError> {
    to_bytes(value)
        .and_then(|bytes| Ok(atomic_file::write(path, &bytes)?))
        .map_err(|p| p.at(path))
}

/// The bytes [`write()`] puts into its file.
///
/// # Errors
/// A tensor's shape does not fit its data, or nesting is deeper than 64.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, Problem> {
    write::to_bytes(value)
}

/// The tensors of a state dict, by name.
#[derive(Debug, Clone)]
pub struct StateDict {
    /// Float tensors in file order; nested dictionaries are joined with dots (`teacher.backbone.cls_token`).
    pub tensors: Vec<(String, StoredTensor)>,
    /// Everything else the file holds.
    pub others: Vec<(String, Entry)>,
}

/// An entry of a state dict that is not a float tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An integer or boolean tensor.
    IntegerTensor {
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A plain value: what it is, in a word.
    Plain(&'static str),
}

/// Opens a state dict without reading its tensors: they stay in the memory-mapped file, but for non-contiguous ones,
/// which are copied. Checksums of tensors are not compared: that would read the whole file.
///
/// # Errors
/// As [`read`], and when the file holds no dictionary.
pub fn open_lazy(path: &Path) -> Result<StateDict, TorchFileError> {
    let open = || {
        let file = Arc::new(map(path)?);
        resolve::state_dict(&file, &archive::open(file.bytes())?)
    };
    open().map_err(|p: Problem| p.at(path))
}

fn map(path: &Path) -> Result<MappedFile, Problem> {
    if path.is_dir() {
        return Err(Problem::Io(io::Error::new(
            io::ErrorKind::IsADirectory,
            "is a folder, not a file",
        )));
    }
    Ok(MappedFile::open(path)?)
}
