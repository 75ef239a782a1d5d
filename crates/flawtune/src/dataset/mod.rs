//! Images on disk, with what is known about each: which subset, good or which defect type, which masks.
//!
//! A [`Dataset`] is one category, read from a [`Source`]: a folder in one of the [`Layout`]s, [`Folders`] of good and of
//! defective images, or a CSV list ([`parse_list`]). [`Dataset::mvtec`] reads the layout of MVTec AD:
//!
//! ```text
//! <root>/<category>/train/good/*.png
//! <root>/<category>/test/good/*.png
//! <root>/<category>/test/<defect type>/*.png
//! <root>/<category>/ground_truth/<defect type>/<stem>_mask.png      optional
//! ```
//!
//! Only names are read here, no pixels, but for the layouts whose masks alone say which images are good. Samples are
//! sorted by [`Sample::id`], bytewise, so every later choice by position and seed is the same on every machine.

mod error;
mod folders;
mod kolektor;
mod layout;
mod ledger;
mod list;
mod listing;
mod mask;
mod mvtec;
mod root;
mod share;
mod source;
mod table;
mod visa;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::DatasetError;
pub use folders::{Folders, MoreImages};
pub use layout::{Layout, VisaSplit};
pub use ledger::{Ledger, LedgerEntry, Oddity};
pub use list::{ListRow, parse_list};
pub use listing::{
    FileKind, ODDEST, file_kind, gather, is_own_output, is_picture, own_outputs, pictures,
};
pub(crate) use mask::fits;
pub use mask::{load_mask, read_mask};
pub use root::is_category;
pub use source::Source;
pub use table::ListError;
pub use watch::{Journal, Watch};

/// The type of defects of which no type is known.
const DEFECT: &str = "defect";

/// What a sample is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// `train`: to learn from; good images, in some layouts defects too.
    Train,
    /// `test`: good and defective images.
    Test,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the category (or list), separated by `/` on every system: `test/crack/003.png`.
    pub id: String,
    /// Where it belongs.
    pub subset: Subset,
    /// The defect type, `None` for good images.
    pub defect_type: Option<String>,
    /// Ground-truth masks, sorted; the defect is where any of them is not black. Empty if there are none.
    pub masks: Vec<PathBuf>,
}

impl Sample {
    /// Whether it shows a defect.
    pub fn is_defect(&self) -> bool {
        self.defect_type.is_some()
    }
}

impl AsRef<Path> for Sample {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// The samples of one category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder that holds the categories, the folder of good images, or the list.
    pub root: PathBuf,
    /// The category.
    pub category: String,
    /// All samples, sorted by id.
    pub samples: Vec<Sample>,
    /// What was met and is not among them, or not as it lay there.
    pub ledger: Ledger,
}

impl Dataset {
    /// Reads one category in the layout of MVTec AD.
    ///
    /// Images lie at any depth below these folders. A file is an image by its extension (`png`, `jpg`, `jpeg`, `bmp`,
    /// `tif`, `tiff`, `webp`, in any case) or else by its content; hidden files are ignored, symbolic links followed. Besides `<stem>_mask.png`, masks may be
    /// called `<stem>.png`, `<stem>_mask_1.png`, … or lie in a folder `<stem>/`.
    ///
    /// # Errors
    /// A [`DatasetError`] that names the folder and what to do.
    pub fn mvtec(root: &Path, category: &str) -> Result<Self, DatasetError> {
        Layout::MvtecAd.read(root, category, VisaSplit::default(), true)
    }

    fn of(root: &Path, category: &str, mut samples: Vec<Sample>, ledger: Ledger) -> Self {
        samples.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self {
            root: root.to_path_buf(),
            category: category.to_owned(),
            samples,
            ledger,
        }
    }

    /// The good images of `train`.
    pub fn train_good(&self) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(|s| s.subset == Subset::Train && !s.is_defect())
    }

    /// All images of `test`.
    pub fn test(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|s| s.subset == Subset::Test)
    }

    /// The good images of `test`.
    pub fn test_good(&self) -> impl Iterator<Item = &Sample> {
        self.test().filter(|s| !s.is_defect())
    }

    /// The defective images of `test`.
    pub fn test_defects(&self) -> impl Iterator<Item = &Sample> {
        self.test().filter(|s| s.is_defect())
    }

    /// The defect types, sorted.
    pub fn defect_types(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .filter_map(|s| s.defect_type.as_deref())
            .collect()
    }
}

/// The categories below `root`: folders of any layout, sorted.
///
/// # Errors
/// [`DatasetError::RootMissing`] or [`DatasetError::Read`].
pub fn categories(root: &Path) -> Result<Vec<String>, DatasetError> {
    root::categories(root)
}
