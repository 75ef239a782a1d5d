//! What can be wrong with a dataset folder.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

/// Why a dataset could not be read; every message says where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The root is no folder.
    #[error(
        "{}: no such folder. It must hold one folder per category (<category>/train/good, <category>/test/<type>). \
         MVTec AD can be downloaded from https://www.mvtec.com/company/research/datasets/mvtec-ad; unpack it and \
         give the folder with --root-dir",
        root.display()
    )]
    RootMissing {
        /// The folder asked for.
        root: PathBuf,
    },
    /// The root has no such category.
    #[error("{}: no category '{category}'. {}", root.display(), hint(existing, suggestion.as_deref(), *root_is_category))]
    CategoryMissing {
        /// The root.
        root: PathBuf,
        /// The category asked for.
        category: String,
        /// Those that exist.
        existing: Vec<String>,
        /// The one that was probably meant.
        suggestion: Option<String>,
        /// Whether the root itself looks like a category.
        root_is_category: bool,
    },
    /// There is nothing to learn from.
    #[error(
        "{}: no pictures of good parts; put them there (png, jpg, bmp, tif or webp)",
        folder.display()
    )]
    NoTrainImages {
        /// The folder that should hold them.
        folder: PathBuf,
    },
    /// There is nothing to test on.
    #[error(
        "{}: no test pictures; put good ones into {} and defective ones into a folder per defect type beside it",
        folder.display(),
        folder.join("good").display()
    )]
    NoTestImages {
        /// The folder `test`.
        folder: PathBuf,
    },
    /// A folder of the layout without a picture.
    #[error("{}: the folder holds no pictures; fill it or remove it", folder.display())]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Two pictures of a folder differ in their extension only, so masks and results could not be told apart.
    #[error(
        "{} and {} have the same name but for the extension; remove one of them",
        first.display(),
        second.display()
    )]
    DuplicateStem {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A name that is not UTF-8 cannot be an id.
    #[error("{}: the name is not valid UTF-8; rename it", path.display())]
    NotUtf8 {
        /// The file or folder.
        path: PathBuf,
    },
    /// A folder could not be listed.
    #[error("{}: cannot list the folder: {source}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn hint(existing: &[String], suggestion: Option<&str>, root_is_category: bool) -> String {
    let mut text = String::new();
    if let Some(name) = suggestion {
        let _ = write!(text, "Did you mean '{name}'? ");
    }
    if !existing.is_empty() {
        let _ = write!(text, "Existing categories: {}", existing.join(", "));
    } else if root_is_category {
        text.push_str(
            "The folder holds train/good, so it is a category itself; give its parent with --root-dir",
        );
    } else {
        text.push_str("The folder holds no category at all (a category is a folder with train/good in it)");
    }
    text
}
