//! Where the images of a category come from.

use std::path::{Path, PathBuf};

use super::root::is_one_name;
use super::{
    Dataset, DatasetError, Folders, Layout, Ledger, MoreImages, Sample, VisaSplit, folders, list,
};

/// Where the images of a category come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder that holds categories.
    Root {
        /// The folder.
        root: PathBuf,
        /// How a category is laid out in it.
        layout: Layout,
        /// Which split, in the layout of `VisA`.
        visa_split: VisaSplit,
    },
    /// Folders of good and of defective images.
    Folders(Folders),
    /// Folders of images that are learned from after a first fit.
    More(MoreImages),
    /// A CSV list; see [`super::parse_list`]. Without the column `split`, defects are tested, and so is a fifth of the
    /// good images if there are defects.
    List(PathBuf),
}

impl Source {
    /// A root in whichever layout it shows.
    pub fn root(root: impl Into<PathBuf>) -> Self {
        Self::Root {
            root: root.into(),
            layout: Layout::Auto,
            visa_split: VisaSplit::default(),
        }
    }

    /// The root's parent as a root, and the root's own name as the category: for a root that is a category itself.
    ///
    /// # Errors
    /// [`DatasetError::RootMissing`], [`DatasetError::NotUtf8`].
    pub fn root_as_category(
        root: &Path,
        layout: Layout,
        visa_split: VisaSplit,
    ) -> Result<(Self, String), DatasetError> {
        let real = root.canonicalize().map_err(|_| DatasetError::RootMissing {
            root: root.to_path_buf(),
        })?;
        let name = name_of(&real)?;
        let root = real.parent().unwrap_or(&real).to_path_buf();
        Ok((
            Self::Root {
                root,
                layout,
                visa_split,
            },
            name,
        ))
    }

    /// What a category is called that nobody named: the folder of good images, the list without its extension, the
    /// root.
    ///
    /// # Errors
    /// [`DatasetError::NotUtf8`].
    pub fn default_category(&self) -> Result<String, DatasetError> {
        match self {
            Self::Root { root, .. } => name_of(root),
            Self::Folders(folders) => name_of(&folders.good),
            Self::More(more) => more
                .good
                .as_ref()
                .or(more.defect.as_ref())
                .map_or_else(|| Ok("data".to_owned()), |folder| name_of(folder)),
            Self::List(file) => name_of(&file.with_extension("")),
        }
    }
}

/// The last name of a path, found in the file system where the path ends with none (`..`).
fn name_of(path: &Path) -> Result<String, DatasetError> {
    let real = path
        .file_name()
        .is_none()
        .then(|| path.canonicalize().ok())
        .flatten();
    let name = real.as_deref().unwrap_or(path).file_name();
    let Some(name) = name else {
        return Ok("data".to_owned());
    };
    name.to_str()
        .map(str::to_owned)
        .ok_or_else(|| DatasetError::NotUtf8 {
            path: path.to_path_buf(),
        })
}

impl Dataset {
    /// Reads one category. With `needs_test` there have to be images to test, defects among them; without, good
    /// images to learn from are enough.
    ///
    /// # Errors
    /// A [`DatasetError`] that names the folder, or the file and its line, and what to do.
    pub fn open(source: &Source, category: &str, needs_test: bool) -> Result<Self, DatasetError> {
        let mut ledger = Ledger::default();
        let (root, samples, how) = match source {
            Source::Root {
                root,
                layout,
                visa_split,
            } => {
                return layout.read(root, category, *visa_split, needs_test);
            }
            Source::Folders(given) => {
                let samples = folders::read(given, &mut ledger)?;
                (&given.good, samples, "`defect` DIR")
            }
            Source::More(more) => {
                let samples = folders::read_more(more, &mut ledger)?;
                let root = more.good.as_ref().or(more.defect.as_ref());
                return Ok(Self::of(
                    root.map_or(Path::new(""), PathBuf::as_path),
                    category,
                    samples,
                    ledger,
                ));
            }
            Source::List(file) => (file, list::read(file)?, "rows with the label defect"),
        };
        if !is_one_name(category) {
            return Err(DatasetError::NotAName {
                category: category.to_owned(),
            });
        }
        if needs_test && !samples.iter().any(Sample::is_defect) {
            return Err(DatasetError::NoDefects {
                given: root.display().to_string(),
                how,
            });
        }
        Ok(Self::of(root, category, samples, ledger))
    }
}
