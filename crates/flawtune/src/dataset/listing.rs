//! What folders hold, by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::{KIND_BYTES, Kind, kind};

use super::{DatasetError, Ledger, Oddity};

const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];

/// Extensions of images that are not read, where the content does not tell.
const FOREIGN_EXTENSIONS: [&str; 17] = [
    "gif", "pgm", "ppm", "pbm", "pnm", "jp2", "j2k", "jxl", "heic", "heif", "avif", "dng", "cr2",
    "nef", "arw", "psd", "exr",
];
/// What an overlay adds to the name of its image.
const OVERLAY: &str = ".overlay.png";
/// What the sheet of the oddest good images, beside a detector, adds to the detector's name.
pub const ODDEST: &str = ".oddest.png";
/// What a map adds.
const MAPS: [&str; 2] = [".tiff", ".npy"];

/// What a folder of the layout holds; hidden entries and files that are not images are left out.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names of sub-folders, sorted.
    pub(super) folders: Vec<String>,
    /// Names of images, sorted.
    pub(super) pictures: Vec<String>,
    /// Images whose names are not UTF-8: they can be read, but have no id.
    pub(super) nameless: Vec<PathBuf>,
    /// Maps and overlays that this program wrote.
    own: Vec<PathBuf>,
    /// What was met besides.
    pub(super) odd: Vec<(Oddity, String)>,
}

impl Listing {
    /// Tells the ledger what was met besides images.
    pub(super) fn told(self, ledger: &mut Ledger) -> Self {
        for (oddity, example) in &self.odd {
            ledger.add(*oddity, example);
        }
        self
    }
}

pub(super) fn list(folder: &Path) -> Result<Listing, DatasetError> {
    let failed = |source| DatasetError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let is_folder = path.is_dir();
        if is_folder && path.is_symlink() && leads_back(&path, folder) {
            continue;
        }
        let what = if is_folder {
            FileKind::Image
        } else {
            file_kind(&path)
        };
        let shown = || path.display().to_string();
        match (what, name.into_string()) {
            (FileKind::Other, _) => {}
            (FileKind::Own, _) => {
                listing.odd.push((Oddity::OwnOutput, shown()));
                listing.own.push(path);
            }
            (FileKind::Foreign(format), _) => {
                let what = format!("{} ({format})", path.display());
                listing.odd.push((Oddity::UnreadFormat, what));
            }
            (FileKind::Image, Err(_)) if is_folder => listing.odd.push((Oddity::NotUtf8, shown())),
            (FileKind::Image, Err(_)) => listing.nameless.push(path),
            // a broken link with an image's name stays in: reading it will name it
            (FileKind::Image, Ok(name)) if is_folder => listing.folders.push(name),
            (FileKind::Image, Ok(name)) => listing.pictures.push(name),
        }
    }
    listing.folders.sort_unstable();
    listing.pictures.sort_unstable();
    listing.odd.sort_unstable();
    Ok(listing)
}

/// Whether a link leads to a folder that it lies in.
fn leads_back(link: &Path, folder: &Path) -> bool {
    match (link.canonicalize(), folder.canonicalize()) {
        (Ok(link), Ok(folder)) => folder.starts_with(link),
        _ => false,
    }
}

/// As [`list`], an absent folder being empty.
pub(super) fn list_if_there(folder: &Path) -> Result<Listing, DatasetError> {
    match list(folder) {
        Err(DatasetError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Listing::default())
        }
        other => other,
    }
}

/// Names of all images below `folder`, at any depth, `/`-separated and sorted; an absent folder is empty.
pub(super) fn deep(folder: &Path, ledger: &mut Ledger) -> Result<Vec<String>, DatasetError> {
    let Listing {
        folders,
        mut pictures,
        nameless,
        ..
    } = list_if_there(folder)?.told(ledger);
    for path in nameless {
        ledger.add(Oddity::NotUtf8, path.display().to_string());
    }
    for name in folders {
        let inside = deep(&folder.join(&name), ledger)?;
        pictures.extend(inside.iter().map(|picture| format!("{name}/{picture}")));
    }
    pictures.sort_unstable();
    Ok(pictures)
}

/// All images below `folder`, at any depth, sorted by path, told by name and content; hidden files and folders, and the
/// maps and overlays of this program, are left out.
///
/// # Errors
/// [`DatasetError::Read`].
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    gather(folder, &mut Ledger::default())
}

/// As [`pictures`], and tells the ledger what was met and is not among them.
///
/// # Errors
/// [`DatasetError::Read`].
pub fn gather(folder: &Path, ledger: &mut Ledger) -> Result<Vec<PathBuf>, DatasetError> {
    let Listing {
        folders,
        pictures,
        nameless,
        ..
    } = list(folder)?.told(ledger);
    let mut found = nameless;
    found.extend(pictures.iter().map(|name| folder.join(name)));
    for name in folders {
        found.extend(gather(&folder.join(&name), ledger)?);
    }
    found.sort_unstable();
    Ok(found)
}

/// The maps and overlays of this program below `folder`, at any depth, sorted by path.
///
/// # Errors
/// [`DatasetError::Read`].
pub fn own_outputs(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let Listing {
        folders, mut own, ..
    } = list(folder)?;
    for name in folders {
        own.extend(own_outputs(&folder.join(&name))?);
    }
    own.sort_unstable();
    Ok(own)
}

/// What a file is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// An image.
    Image,
    /// An image of a format that is not read, by its name.
    Foreign(&'static str),
    /// A map or overlay that this program wrote beside its image.
    Own,
    /// No image.
    Other,
}

/// What a file is taken for: by its extension, where that is usual for images (`png`, `jpg`, `jpeg`, `bmp`, `tif`, `tiff`,
/// `webp`, in any case), otherwise by its first bytes.
pub fn file_kind(path: &Path) -> FileKind {
    if is_own_output(path) {
        return FileKind::Own;
    }
    if is_picture(path) {
        return FileKind::Image;
    }
    let mut start = Vec::with_capacity(KIND_BYTES);
    let regular = path.metadata().is_ok_and(|m| m.is_file());
    let read = regular.then(|| File::open(path)).and_then(Result::ok);
    if let Some(file) = read {
        drop(file.take(KIND_BYTES as u64).read_to_end(&mut start));
    }
    match kind(&start) {
        Kind::Readable => FileKind::Image,
        Kind::Foreign(format) => FileKind::Foreign(format),
        Kind::Unknown => {
            let extension = path.extension().and_then(|e| e.to_str());
            let known = FOREIGN_EXTENSIONS
                .iter()
                .find(|known| extension.is_some_and(|e| e.eq_ignore_ascii_case(known)));
            known.map_or(FileKind::Other, |name| FileKind::Foreign(name))
        }
    }
}

/// Whether a file is a map, an overlay or a sheet of this program: `<image>.overlay.png`, `<image>.tiff` or `.npy` beside such
/// an overlay, `<detector>.oddest.png`.
pub fn is_own_output(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    if name.ends_with(ODDEST) {
        return true;
    }
    if let Some(image) = name.strip_suffix(OVERLAY) {
        return is_picture(Path::new(image)) || path.with_file_name(image).exists();
    }
    MAPS.iter().any(|ending| {
        name.strip_suffix(ending)
            .filter(|image| is_picture(Path::new(image)))
            .is_some_and(|image| path.with_file_name(format!("{image}{OVERLAY}")).exists())
    })
}

/// Whether a file's extension is that of an image: `png`, `jpg`, `jpeg`, `bmp`, `tif`, `tiff`, `webp` in any case.
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

/// The masks of a defect type, by the stem of the image they belong to; folders for which `is_part` holds are not those
/// of one image, but hold masks of their own.
pub(super) fn masks(
    folder: &Path,
    is_part: impl Fn(&str) -> bool,
    ledger: &mut Ledger,
) -> Result<BTreeMap<String, Vec<PathBuf>>, DatasetError> {
    let listing = list_if_there(folder)?.told(ledger);
    let mut masks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in &listing.pictures {
        masks
            .entry(masked_stem(stem(name)).to_string())
            .or_default()
            .push(folder.join(name));
    }
    for name in listing.folders.iter().filter(|name| !is_part(name)) {
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

/// The masks of images in folders below one: those of an image lie under its own path in `root`, or directly in it if
/// no other image of the name is there.
#[derive(Debug)]
pub(super) struct MaskTree {
    by_parent: BTreeMap<String, BTreeMap<String, Vec<PathBuf>>>,
}

impl MaskTree {
    /// `pictures` are `/`-separated, relative to the folder that `root` mirrors.
    pub(super) fn read<'a>(
        root: &Path,
        pictures: impl IntoIterator<Item = &'a String> + Clone,
        ledger: &mut Ledger,
    ) -> Result<Self, DatasetError> {
        let mut parents: Vec<&str> = pictures.into_iter().map(|p| parent(p)).collect();
        parents.push("");
        parents.sort_unstable();
        parents.dedup();
        let mut by_parent = BTreeMap::new();
        for &of in &parents {
            let is_part = |name: &str| {
                let inner = if of.is_empty() {
                    name.to_owned()
                } else {
                    format!("{of}/{name}")
                };
                let below = |p: &&str| {
                    p.strip_prefix(inner.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                parents.iter().any(below)
            };
            by_parent.insert(of.to_owned(), masks(&root.join(of), is_part, ledger)?);
        }
        Ok(Self { by_parent })
    }

    /// Takes the masks of an image; `alone` says that no other has its stem.
    pub(super) fn take(&mut self, picture: &str, alone: bool) -> Vec<PathBuf> {
        let stem = stem(picture.rsplit('/').next().unwrap_or(picture));
        let mut of = |parent: &str| self.by_parent.get_mut(parent).and_then(|m| m.remove(stem));
        let own = of(parent(picture));
        own.or_else(|| if alone { of("") } else { None })
            .unwrap_or_default()
    }

    /// Tells the ledger which masks nobody took.
    pub(super) fn rest(self, ledger: &mut Ledger) {
        for path in self.by_parent.into_values().flatten().flat_map(|(_, m)| m) {
            ledger.add(Oddity::MaskWithoutImage, path.display().to_string());
        }
    }
}

/// The folders of a `/`-separated path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// How many of these images have each stem.
pub(super) fn stems<'a>(pictures: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for picture in pictures {
        let name = picture.rsplit('/').next().unwrap_or(picture);
        *count.entry(stem(name).to_owned()).or_default() += 1;
    }
    count
}

/// Refuses images in one folder that differ in their extension only.
pub(super) fn check_deep_stems(folder: &Path, pictures: &[String]) -> Result<(), DatasetError> {
    let mut by_parent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for picture in pictures {
        let name = picture.rsplit('/').next().unwrap_or(picture);
        by_parent
            .entry(parent(picture))
            .or_default()
            .push(name.to_owned());
    }
    by_parent
        .iter()
        .try_for_each(|(parent, names)| check_stems(&folder.join(parent), names))
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
