//! What can be wrong with a dataset folder.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use flawtune_backbone::preprocess::ImageError;

use super::ListError;

/// Why a dataset could not be read; every message says where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The root is not a folder.
    #[error(
        "{}: no such folder. It must hold one folder per category (<category>/train/good, <category>/test/<type>; \
         docs/guides/datasets.md has other layouts, and `good` takes any folder of images)\nhint: MVTec AD can be downloaded from https://www.mvtec.com/company/research/datasets/mvtec-ad; give \
         the unpacked folder with `root_dir`",
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
        "{}: no images of good parts\nhint: put them there (png, jpg, bmp, tif or webp)",
        folder.display()
    )]
    NoTrainImages {
        /// The folder that should hold them.
        folder: PathBuf,
    },
    /// There is nothing to test on.
    #[error(
        "{}: no test images\nhint: put good ones into {} and defective ones into a folder per defect type beside it",
        folder.display(),
        good.display()
    )]
    NoTestImages {
        /// The folder `test`.
        folder: PathBuf,
        /// The folder for good images in it.
        good: PathBuf,
    },
    /// A folder of the layout without an image.
    #[error("{}: the folder holds no images\nhint: fill it or remove it", folder.display())]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Two images of a folder differ in their extension only, so masks and results could not be told apart.
    #[error(
        "{} and {} have the same name but for the extension\nhint: remove one of them",
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
    /// Two files of the same content say two things.
    #[error(
        "{} and {} have the same content, but one is {} and the other {}\n\
         hint: one of the labels is wrong\nhint: remove one of the files, or leave such images out with `skip_bad_images`",
        first.display(),
        second.display(),
        label(first_type.as_deref()),
        label(second_type.as_deref())
    )]
    TwoLabels {
        /// One.
        first: PathBuf,
        /// Its type of defect, none if it is good.
        first_type: Option<String>,
        /// The other.
        second: PathBuf,
        /// Its type of defect, none if it is good.
        second_type: Option<String>,
    },
    /// The folder shows the signs of no layout.
    #[error(
        "{}: no layout is recognised: looked for {}{}\nhint: name the layout with `layout`, give folders of \
         images with `good` and `defect`, or a CSV list with `list`",
        folder.display(),
        wanted.join("; "),
        holds(categories)
    )]
    LayoutUnknown {
        /// The category's folder.
        folder: PathBuf,
        /// What was looked for, a layout each.
        wanted: Vec<String>,
        /// Categories in the folder, which may be the root.
        categories: Vec<String>,
    },
    /// The folder shows the signs of several layouts.
    #[error("{}: holds {}\nhint: say which it is with `layout`", folder.display(), found.join(" and "))]
    LayoutAmbiguous {
        /// The category's folder.
        folder: PathBuf,
        /// What was found, a layout each.
        found: Vec<String>,
    },
    /// A name that has to be a single one is a path.
    #[error(
        "'{category}' cannot be a category: files are named after it, so it is one name without / in it"
    )]
    NotAName {
        /// The name.
        category: String,
    },
    /// A folder of images is none.
    #[error("{}: no such folder of images\nhint: look whether the path is right; it is taken from the current folder", folder.display())]
    NoFolder {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// One folder of images lies in another, so images would count twice.
    #[error(
        "{} and {}: one lies in the other, and folders are searched to any depth: an image would count twice\nhint: put them side by side",
        first.display(),
        second.display()
    )]
    Overlap {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// No mask belongs to any defect.
    #[error(
        "{}: no mask belongs to a defect; that of {} would be {}",
        folder.display(),
        picture.display(),
        wanted.display()
    )]
    NoMasks {
        /// The folder of masks.
        folder: PathBuf,
        /// A defect.
        picture: PathBuf,
        /// Where its mask could be.
        wanted: PathBuf,
    },
    /// There is nothing defective to learn from or to test.
    #[error(
        "{given}: no defects, and they are needed here\nhint: add some ({how}). Good images alone are enough for \
         'flawtune fit'"
    )]
    NoDefects {
        /// The folder or list of the good images.
        given: String,
        /// How defects are given.
        how: &'static str,
    },
    /// A list without anything to learn from.
    #[error("{}: no good image to learn from is listed; list some (label good, split train)", file.display())]
    NoGoodListed {
        /// The list.
        file: PathBuf,
    },
    /// A CSV file is not as it should be.
    #[error("{}, {source}", file.display())]
    List {
        /// The file.
        file: PathBuf,
        /// The line and what is wrong.
        source: ListError,
    },
    /// An image is in a list twice.
    #[error("{}: {} is listed twice\nhint: remove one of the rows", list.display(), picture.display())]
    ListedTwice {
        /// The list.
        list: PathBuf,
        /// The image.
        picture: PathBuf,
    },
    /// An image has no label beside it.
    #[error("{}: no label beside it; in this layout it is called {wanted}, and is black for a good image", picture.display())]
    NoLabel {
        /// The image.
        picture: PathBuf,
        /// The label's name.
        wanted: String,
    },
    /// A label could not be read.
    #[error(transparent)]
    Label(#[from] ImageError),
    /// A file could not be read.
    #[error("{}: cannot read the file: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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

fn label(defect_type: Option<&str>) -> String {
    defect_type.map_or_else(
        || "good".to_owned(),
        |kind| format!("a defect of the type '{kind}'"),
    )
}

fn holds(categories: &[String]) -> String {
    if categories.is_empty() {
        return String::new();
    }
    format!(
        "; it holds the categories {} (`category` chooses one)",
        categories.join(", ")
    )
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
            "The folder is a category itself\nhint: give its parent with `root_dir`, or omit `category`",
        );
    } else {
        text.push_str(
            "The folder holds no category at all (a category is a folder with train/good in it, or of \
             another layout of docs/guides/datasets.md)",
        );
    }
    text
}
