//! Files of a category being made: it appears whole, or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, GrayImage, ImageEncoder, RgbImage};

use super::SynthError;

/// A category's folder while it is filled, under a temporary name beside its place.
pub(super) struct Unfinished {
    partial: tempfile::TempDir,
    folder: PathBuf,
}

impl Unfinished {
    /// A place for `dir/name`, which must not exist; `dir` is made.
    pub(super) fn new(dir: &Path, name: &str) -> Result<Self, SynthError> {
        let folder = dir.join(name);
        if folder.exists() {
            return Err(SynthError::Exists { path: folder });
        }
        make_folder(dir)?;
        let partial = tempfile::Builder::new()
            .prefix(".synth-")
            .tempdir_in(dir)
            .map_err(|source| SynthError::Write {
                path: dir.to_owned(),
                source,
            })?;
        Ok(Self { partial, folder })
    }

    /// Where files are put meanwhile. Inside of the temporary folder, which is private to its owner: the data set
    /// that it becomes is not.
    pub(super) fn root(&self) -> PathBuf {
        self.partial.path().join("category")
    }

    /// Gives the folder its name and returns it.
    pub(super) fn finish(self) -> Result<PathBuf, SynthError> {
        let root = self.root();
        fs::create_dir_all(&root)
            .and_then(|()| fs::rename(&root, &self.folder))
            .map_err(|source| SynthError::Write {
                path: self.folder.clone(),
                source,
            })?;
        Ok(self.folder)
    }
}

pub(super) fn make_folder(path: &Path) -> Result<(), SynthError> {
    fs::create_dir_all(path).map_err(|source| SynthError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes a mask as one-channel PNG and returns its bytes.
pub(super) fn write_mask(path: &Path, mask: &GrayImage) -> Result<u64, SynthError> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::NoFilter)
        .write_image(
            mask.as_raw(),
            mask.width(),
            mask.height(),
            ExtendedColorType::L8,
        )
        .map_err(|source| SynthError::Encode {
            path: path.to_owned(),
            source,
        })?;
    write(path, &bytes)
}

/// Writes an image without loss and returns its bytes.
pub(super) fn write_png(path: &Path, picture: &RgbImage) -> Result<u64, SynthError> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(
            picture.as_raw(),
            picture.width(),
            picture.height(),
            ExtendedColorType::Rgb8,
        )
        .map_err(|source| SynthError::Encode {
            path: path.to_owned(),
            source,
        })?;
    write(path, &bytes)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<u64, SynthError> {
    fs::File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|source| SynthError::Write {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes.len() as u64)
}

/// Every file below a folder, by its path with `/`.
#[cfg(test)]
pub(super) fn read_all(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}
