//! What folders hold, by name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::DatasetError;

const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];

/// What a folder of the layout holds; hidden entries and other files are left out.
pub(super) struct Listing {
    /// Names of sub-folders, sorted.
    pub(super) folders: Vec<String>,
    /// Names of pictures, sorted.
    pub(super) pictures: Vec<String>,
}

pub(super) fn list(folder: &Path) -> Result<Listing, DatasetError> {
    let failed = |source| DatasetError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let mut listing = Listing {
        folders: Vec::new(),
        pictures: Vec::new(),
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let is_folder = path.is_dir();
        if !is_folder && !is_picture(&path) {
            continue;
        }
        let Ok(name) = name.into_string() else {
            return Err(DatasetError::NotUtf8 { path });
        };
        // a broken link with a picture's name stays in: reading it will name it
        if is_folder {
            &mut listing.folders
        } else {
            &mut listing.pictures
        }
        .push(name);
    }
    listing.folders.sort_unstable();
    listing.pictures.sort_unstable();
    Ok(listing)
}

/// As [`list`], an absent folder being empty.
pub(super) fn list_if_there(folder: &Path) -> Result<Listing, DatasetError> {
    match list(folder) {
        Err(DatasetError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Listing {
                folders: Vec::new(),
                pictures: Vec::new(),
            })
        }
        other => other,
    }
}

/// All pictures below `folder`, at any depth, sorted by path; hidden files and folders are left out.
///
/// # Errors
/// [`DatasetError::Read`] and [`DatasetError::NotUtf8`].
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let Listing { folders, pictures } = list(folder)?;
    let mut found: Vec<PathBuf> = pictures.iter().map(|name| folder.join(name)).collect();
    for name in folders {
        found.extend(self::pictures(&folder.join(name))?);
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a file's extension is that of a picture: `png`, `jpg`, `jpeg`, `bmp`, `tif`, `tiff`, `webp` in any case.
pub fn is_picture(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

pub(super) fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

pub(super) fn check_stems<'a>(
    folder: &Path,
    pictures: impl IntoIterator<Item = &'a String>,
) -> Result<(), DatasetError> {
    let mut seen = BTreeMap::new();
    for name in pictures {
        if let Some(other) = seen.insert(stem(name), name) {
            return Err(DatasetError::DuplicateStem {
                first: folder.join(other),
                second: folder.join(name),
            });
        }
    }
    Ok(())
}

/// The masks of a defect type, by the stem of the picture they belong to.
pub(super) fn masks(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, DatasetError> {
    let listing = list_if_there(folder)?;
    let mut masks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in &listing.pictures {
        masks
            .entry(masked_stem(stem(name)).to_string())
            .or_default()
            .push(folder.join(name));
    }
    for name in &listing.folders {
        let inner = folder.join(name);
        let pictures = list(&inner)?.pictures;
        masks
            .entry(name.clone())
            .or_default()
            .extend(pictures.iter().map(|p| inner.join(p)));
    }
    for paths in masks.values_mut() {
        paths.sort_unstable();
    }
    Ok(masks)
}

/// `003_mask` and `003_mask_1` belong to `003`; a stem without such an ending to itself.
fn masked_stem(stem: &str) -> &str {
    match stem.rsplit_once("_mask") {
        Some((front, end))
            if !front.is_empty()
                && end
                    .chars()
                    .all(|c| c.is_ascii_digit() || c == '_' || c == '-') =>
        {
            front
        }
        _ => stem,
    }
}

/// The path of `path` below `folder`, `/`-separated on every system.
pub(super) fn relative(path: &Path, folder: &Path) -> Result<String, DatasetError> {
    let not_utf8 = || DatasetError::NotUtf8 {
        path: path.to_path_buf(),
    };
    let parts = path.strip_prefix(folder).unwrap_or(path).components();
    let parts: Option<Vec<&str>> = parts.map(|c| c.as_os_str().to_str()).collect();
    Ok(parts.ok_or_else(not_utf8)?.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_names_lead_to_their_picture() {
        for (mask, picture) in [
            ("003_mask", "003"),
            ("003_mask_1", "003"),
            ("003_mask12", "003"),
            ("003", "003"),
            ("_mask", "_mask"),
            ("a_masked", "a_masked"),
            ("a_mask_b_mask", "a_mask_b"),
        ] {
            assert_eq!(masked_stem(mask), picture);
        }
    }
}
