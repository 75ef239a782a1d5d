//! Categories: folders under a root.

use std::path::{Path, PathBuf};

use super::DatasetError;
use super::layout::Layout;
use super::listing::list;

pub(super) fn categories(root: &Path) -> Result<Vec<String>, DatasetError> {
    if !root.is_dir() {
        return Err(DatasetError::RootMissing {
            root: root.to_path_buf(),
        });
    }
    let mut names = list(root)?.folders;
    names.retain(|name| is_category(&root.join(name)));
    Ok(names)
}

/// Whether `folder` looks like a category itself in any of the layouts.
pub fn is_category(folder: &Path) -> bool {
    !Layout::found_in(folder).is_empty()
}

/// Whether `name` is one folder's name rather than a path.
pub(super) fn is_one_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|only| only == name)
}

/// The folder of `category`, which exists.
pub(super) fn category_folder(root: &Path, category: &str) -> Result<PathBuf, DatasetError> {
    if !root.is_dir() {
        return Err(DatasetError::RootMissing {
            root: root.to_path_buf(),
        });
    }
    let folder = root.join(category);
    if is_one_name(category) && folder.is_dir() {
        return Ok(folder);
    }
    let existing = categories(root)?;
    Err(DatasetError::CategoryMissing {
        root: root.to_path_buf(),
        category: category.to_string(),
        suggestion: closest(category, &existing),
        existing,
        root_is_category: is_category(root),
    })
}

/// The name with the fewest edits from `wanted`, if they are few.
fn closest(wanted: &str, names: &[String]) -> Option<String> {
    let wanted = wanted.to_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    names
        .iter()
        .map(|name| (strsim::levenshtein(&wanted, &name.to_lowercase()), name))
        .min()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let names = ["bottle".to_string(), "cable".to_string()];
        assert_eq!(closest("Botle", &names).as_deref(), Some("bottle"));
        assert_eq!(closest("zipper", &names), None);
    }
}
