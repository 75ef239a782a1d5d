//! What can be wrong with a weight file.

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use super::Scheme;
use crate::torch_file::TorchFileError;

/// A weight file that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file or folder could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A safetensors file is damaged or none at all.
    #[error("{}: {what}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A `.pth`/`.pt` file is damaged, unsafe or none at all.
    #[error(transparent)]
    Torch(#[from] TorchFileError),
    /// A readable file, but not the weights of a vision transformer.
    #[error("{}: {what}", path.display())]
    NotWeights {
        /// The file or folder.
        path: PathBuf,
        /// What it is instead, and what to do.
        what: String,
    },
    /// A configuration or index file beside the weights is malformed.
    #[error("{}: {what}", path.display())]
    Config {
        /// The configuration or index.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No file tells the number of attention heads.
    #[error(
        "{}: the number of attention heads is not in this file and no known variant has its sizes \
         ({sizes})\nhint: put the model's config.json beside it, or name the variant with `model_name`",
        path.display()
    )]
    UnknownHeads {
        /// The file.
        path: PathBuf,
        /// The sizes that were found, in words.
        sizes: String,
    },
    /// Keys or shapes differ from what the model has.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}

/// A tensor whose shape is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeDifference {
    /// Its key in the file.
    pub key: String,
    /// Its shape in the file.
    pub found: Vec<usize>,
    /// The shape the model has.
    pub wanted: Vec<usize>,
}

/// How a file differs from the model it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The file or folder.
    pub path: PathBuf,
    /// The model it was compared with.
    pub model: String,
    /// The key scheme it was read in.
    pub scheme: Scheme,
    /// Keys the model needs and the file lacks, in the file's scheme.
    pub missing: Vec<String>,
    /// Keys of the file that no such model has.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub different: Vec<ShapeDifference>,
    /// What the file seems to be, or what to do.
    pub hint: String,
}

/// Most keys of a kind that a message lists.
const LISTED: usize = 4;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| {
            let mut text = names[..names.len().min(LISTED)].join(", ");
            if names.len() > LISTED {
                let _ = write!(text, " and {} more", names.len() - LISTED);
            }
            text
        };
        write!(
            f,
            "{}: not the weights of {} ({} keys)",
            self.path.display(),
            self.model,
            self.scheme
        )?;
        if !self.missing.is_empty() {
            write!(
                f,
                "; missing {}: {}",
                self.missing.len(),
                list(&self.missing)
            )?;
        }
        if !self.unexpected.is_empty() {
            write!(
                f,
                "; unexpected {}: {}",
                self.unexpected.len(),
                list(&self.unexpected)
            )?;
        }
        if !self.different.is_empty() {
            let shapes: Vec<String> = self
                .different
                .iter()
                .map(|d| format!("{} is {:?}, not {:?}", d.key, d.found, d.wanted))
                .collect();
            write!(
                f,
                "; differently shaped {}: {}",
                shapes.len(),
                list(&shapes)
            )?;
        }
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}
