//! Why nothing was made.

use std::path::PathBuf;

use flawtune_backbone::preprocess::ImageError;

use super::SIZE_RANGE;
use super::paste::SMALLEST_EDGE;

/// Why no category was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A name that is not on the list.
    #[error("unknown {what} '{found}'\nhint: use one of {known}")]
    UnknownName {
        /// What was named.
        what: &'static str,
        /// The name given.
        found: String,
        /// The names there are.
        known: &'static str,
    },
    /// An image edge outside [`SIZE_RANGE`].
    #[error("cannot draw images of {found} pixels\nhint: choose a size from {low} to {high}", low = SIZE_RANGE.start(), high = SIZE_RANGE.end())]
    Size {
        /// The edge asked for, in pixels.
        found: u32,
    },
    /// The category's folder is already there.
    #[error("{path} already exists\nhint: choose another folder or remove it first")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A category's name that cannot be a folder's.
    #[error(
        "a category cannot be called '{found}': it is the name of a folder, without / and \\ and not hidden"
    )]
    FolderName {
        /// The name given.
        found: String,
    },
    /// An image to put defects on cannot be read.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// An image that has no room for a defect.
    #[error(
        "{path}: {width}x{height} pixels have no room for a defect; each side needs at least {SMALLEST_EDGE}"
    )]
    SmallPicture {
        /// The file.
        path: PathBuf,
        /// Its columns.
        width: u32,
        /// Its rows.
        height: u32,
    },
    /// Too few images for three groups.
    #[error(
        "{given} image(s) with {different} different content(s) are too few: at least 3 are needed, one to learn from, \
         one to test as it is and one to put defects on"
    )]
    FewPictures {
        /// Images given.
        given: usize,
        /// Those that differ in their pixels.
        different: usize,
    },
    /// The folder of the embedded data set holds a file that is not of it.
    #[error("{path} is not of the demonstration\nhint: choose another folder or remove it first")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An image could not be encoded.
    #[error("cannot encode {path}: {source}")]
    Encode {
        /// The file it was for.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}
