//! The folder layout of MVTec AD.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Dataset, DatasetError, Sample, Subset};

const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];
const GOOD: &str = "good";

/// What a folder of the layout holds; hidden entries and other files are left out.
struct Listing {
    /// Names of sub-folders, sorted.
    folders: Vec<String>,
    /// Names of pictures, sorted.
    pictures: Vec<String>,
}

fn list(folder: &Path) -> Result<Listing, DatasetError> {
    let failed = |source| DatasetError::Read { path: folder.to_path_buf(), source };
    let mut listing = Listing { folders: Vec::new(), pictures: Vec::new() };
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
        let Ok(name) = name.into_string() else { return Err(DatasetError::NotUtf8 { path }) };
        // a broken link with a picture's name stays in: reading it will name it
        if is_folder { &mut listing.folders } else { &mut listing.pictures }.push(name);
    }
    listing.folders.sort_unstable();
    listing.pictures.sort_unstable();
    Ok(listing)
}

/// As [`list`], an absent folder being empty.
fn list_if_there(folder: &Path) -> Result<Listing, DatasetError> {
    match list(folder) {
        Err(DatasetError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Listing { folders: Vec::new(), pictures: Vec::new() })
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

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

pub(super) fn categories(root: &Path) -> Result<Vec<String>, DatasetError> {
    if !root.is_dir() {
        return Err(DatasetError::RootMissing { root: root.to_path_buf() });
    }
    let mut names = list(root)?.folders;
    names.retain(|name| looks_like_category(&root.join(name)));
    Ok(names)
}

fn looks_like_category(folder: &Path) -> bool {
    folder.join("train").join(GOOD).is_dir()
}

pub(super) fn read(root: &Path, category: &str) -> Result<Dataset, DatasetError> {
    if !root.is_dir() {
        return Err(DatasetError::RootMissing { root: root.to_path_buf() });
    }
    let is_one_name = Path::new(category).file_name().is_some_and(|name| name == category);
    let folder = root.join(category);
    if !is_one_name || !folder.is_dir() {
        let existing = categories(root)?;
        return Err(DatasetError::CategoryMissing {
            root: root.to_path_buf(),
            category: category.to_string(),
            suggestion: closest(category, &existing),
            existing,
            root_is_category: looks_like_category(root),
        });
    }

    let mut samples = Vec::new();
    let train = folder.join("train").join(GOOD);
    let pictures = list_if_there(&train)?.pictures;
    if pictures.is_empty() {
        return Err(DatasetError::NoTrainImages { folder: train });
    }
    check_stems(&train, &pictures)?;
    samples.extend(pictures.iter().map(|name| Sample {
        path: train.join(name),
        id: format!("train/{GOOD}/{name}"),
        subset: Subset::Train,
        defect_type: None,
        masks: Vec::new(),
    }));

    let test = folder.join("test");
    let types = list_if_there(&test)?.folders;
    if types.is_empty() {
        return Err(DatasetError::NoTestImages { folder: test });
    }
    for kind in types {
        let folder_of_kind = test.join(&kind);
        let pictures = list(&folder_of_kind)?.pictures;
        if pictures.is_empty() {
            return Err(DatasetError::EmptyFolder { folder: folder_of_kind });
        }
        check_stems(&folder_of_kind, &pictures)?;
        let good = kind == GOOD;
        let mut masks = if good { BTreeMap::new() } else { masks(&folder.join("ground_truth").join(&kind))? };
        samples.extend(pictures.iter().map(|name| Sample {
            path: folder_of_kind.join(name),
            id: format!("test/{kind}/{name}"),
            subset: Subset::Test,
            defect_type: (!good).then(|| kind.clone()),
            masks: masks.remove(stem(name)).unwrap_or_default(),
        }));
    }
    samples.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok(Dataset { root: root.to_path_buf(), category: category.to_string(), samples })
}

fn check_stems(folder: &Path, pictures: &[String]) -> Result<(), DatasetError> {
    let mut seen = BTreeMap::new();
    for name in pictures {
        if let Some(other) = seen.insert(stem(name), name) {
            return Err(DatasetError::DuplicateStem { first: folder.join(other), second: folder.join(name) });
        }
    }
    Ok(())
}

/// The masks of a defect type, by the stem of the picture they belong to.
fn masks(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, DatasetError> {
    let listing = list_if_there(folder)?;
    let mut masks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in &listing.pictures {
        masks.entry(masked_stem(stem(name)).to_string()).or_default().push(folder.join(name));
    }
    for name in &listing.folders {
        let inner = folder.join(name);
        let pictures = list(&inner)?.pictures;
        masks.entry(name.clone()).or_default().extend(pictures.iter().map(|p| inner.join(p)));
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
            if !front.is_empty() && end.chars().all(|c| c.is_ascii_digit() || c == '_' || c == '-') =>
        {
            front
        }
        _ => stem,
    }
}

/// The name with the fewest edits from `wanted`, if they are few.
fn closest(wanted: &str, names: &[String]) -> Option<String> {
    let wanted = wanted.to_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    names
        .iter()
        .map(|name| (edits(&wanted, &name.to_lowercase()), name))
        .min()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, name)| name.clone())
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("tile", "tiles", 1)] {
            assert_eq!(edits(a, b), n, "{a} {b}");
            assert_eq!(edits(b, a), n, "{b} {a}");
        }
        let names = ["bottle".to_string(), "cable".to_string()];
        assert_eq!(closest("Botle", &names).as_deref(), Some("bottle"));
        assert_eq!(closest("zipper", &names), None);
    }

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
