//! Tokens on disk, one file per image, found by content.
//!
//! ```text
//! <cache>/<model, 16 hex digits>/model.json        which weights, layers and preprocessing
//! <cache>/<model, 16 hex digits>/<key, 64 hex digits>.tokens
//! <cache>/<model, 16 hex digits>/<key, 64 hex digits>.looks   what was found by comparing good images, found by their tokens
//! ```
//!
//! The key is BLAKE3 over the image's bytes, the weights, the preprocessing, the layers and the format version, so
//! an entry never has to be invalidated. Entries are written under a temporary name and renamed: any number of
//! processes may use one cache at once, and an interrupted one leaves nothing half-written under a final name. An
//! entry that does not verify is computed again.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file::{self, AtomicFile};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, encode_entry, open_entry};

/// Rises when the meaning of cached tokens changes. 2: JPEG is decoded by libjpeg-turbo.
const FORMAT: u32 = 2;
const ENTRY: &str = "tokens";
const LOOKS: &str = "looks";
/// Bytes of the hash at the start of such a file.
const HASH: usize = 32;
const MODEL: &str = "model.json";

/// Everything besides the image that decides its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Name of the backbone, for people; not part of the key.
    pub model: String,
    /// Identity of the weights.
    pub weights: String,
    /// Layers and other options of the forward pass.
    pub variant: String,
    /// Id of the preprocessing.
    pub preprocessing: String,
}

impl Source {
    fn hasher(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes());
        for part in [&self.weights, &self.variant, &self.preprocessing] {
            // the length keeps "ab" + "c" apart from "a" + "bc"
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher
    }

    /// Name of this source's folder.
    fn folder(&self) -> String {
        self.hasher().finalize().to_hex()[..16].to_string()
    }

    /// Key of an image whose bytes have the hash `image`.
    fn key(&self, image: &blake3::Hash) -> blake3::Hash {
        self.hasher().update(image.as_bytes()).finalize()
    }
}

/// A folder of cached tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureCache {
    folder: PathBuf,
}

/// What a cache holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// The cache's folder.
    pub folder: PathBuf,
    /// Images over all models.
    pub entries: usize,
    /// Bytes over all models, leftovers of interrupted runs included.
    pub bytes: u64,
    /// One row per combination of weights, layers and preprocessing; most bytes first.
    pub models: Vec<ModelUsage>,
}

/// What a cache holds of one combination of weights, layers and preprocessing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelUsage {
    /// Which; `None` if the description is missing or damaged.
    pub source: Option<Source>,
    /// Images.
    pub entries: usize,
    /// Bytes.
    pub bytes: u64,
}

impl FeatureCache {
    /// The cache in `folder`, which is created when something is stored.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The user's cache: `$FLAWTUNE_CACHE_DIR`, else `flawtune/features` in `$XDG_CACHE_HOME`, `~/.cache` or (on
    /// Windows) `%LOCALAPPDATA%`. `None` if none of these is known.
    pub fn for_user() -> Option<Self> {
        Self::from_environment(|name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        })
    }

    fn from_environment(get: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        if let Some(folder) = get("FLAWTUNE_CACHE_DIR") {
            return Some(Self::at(folder));
        }
        // the XDG specification: a relative path there is to be ignored
        let base = get("XDG_CACHE_HOME")
            .filter(|p| p.is_absolute())
            .or_else(|| get("LOCALAPPDATA").filter(|_| cfg!(windows)))
            .or_else(|| get("HOME").map(|home| home.join(".cache")))?;
        Some(Self::at(base.join("flawtune").join("features")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn entry_path(&self, source: &Source, key: &blake3::Hash) -> PathBuf {
        self.folder
            .join(source.folder())
            .join(format!("{}.{ENTRY}", key.to_hex()))
    }

    /// The tokens of the image with content hash `image`; `None` if they are absent or do not verify.
    pub fn load(&self, source: &Source, image: &blake3::Hash) -> Option<Entry> {
        let key = source.key(image);
        open_entry(&self.entry_path(source, &key), key.as_bytes()).ok()
    }

    /// Stores tokens `[1 + rows·columns, dim]`.
    ///
    /// # Errors
    /// Whatever the file system says (read-only, full); the cache is as before then.
    pub fn store(
        &self,
        source: &Source,
        image: &blake3::Hash,
        grid: (usize, usize),
        dim: usize,
        tokens: &[f32],
    ) -> io::Result<()> {
        let key = source.key(image);
        let path = self.entry_path(source, &key);
        self.write(
            source,
            &path,
            &encode_entry(key.as_bytes(), grid, dim, tokens),
        )
    }

    fn write(&self, source: &Source, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match write_renamed(path, bytes) {
            // the first entry of this source, or another process cleared the cache just now
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.folder.join(source.folder());
                fs::create_dir_all(&folder)?;
                write_renamed(&folder.join(MODEL), &serde_json::to_vec_pretty(source)?)?;
                write_renamed(path, bytes)
            }
            result => result,
        }
    }

    /// What comparing the good images found whose tokens, and all that it depends on besides, have this hash; `None` if it is absent
    /// or does not verify.
    pub(crate) fn load_looks(&self, source: &Source, key: &blake3::Hash) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.looks_path(source, key)).ok()?;
        let found = bytes.split_off(HASH.min(bytes.len()));
        (blake3::hash(&found).as_bytes()[..] == bytes[..]).then_some(found)
    }

    /// Stores what comparing good images found.
    pub(crate) fn store_looks(
        &self,
        source: &Source,
        key: &blake3::Hash,
        found: &[u8],
    ) -> io::Result<()> {
        let bytes = [&blake3::hash(found).as_bytes()[..], found].concat();
        self.write(source, &self.looks_path(source, key), &bytes)
    }

    fn looks_path(&self, source: &Source, key: &blake3::Hash) -> PathBuf {
        let name = format!("{}.{LOOKS}", key.to_hex());
        self.folder.join(source.folder()).join(name)
    }

    /// Counts what is there. An absent folder is an empty cache.
    ///
    /// # Errors
    /// If a folder cannot be listed.
    pub fn report(&self) -> io::Result<CacheReport> {
        self.visit(|_| Ok(()))
    }

    /// Removes everything the cache has written, and says what that was. Other files in the folder stay.
    ///
    /// # Errors
    /// If something cannot be listed or removed; what was removed until then stays removed.
    pub fn clear(&self) -> io::Result<CacheReport> {
        let report = self.visit(|file| match fs::remove_file(file) {
            // another process was faster
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        })?;
        for folder in self.model_folders()? {
            // fails when a foreign file is in it or another process has just stored something: then it stays
            let _ = fs::remove_dir(folder);
        }
        Ok(report)
    }

    fn model_folders(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| {
                n.len() == 16 && n.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            });
            if ours && entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }

    /// Calls `each` for every file of the cache after counting it.
    fn visit(&self, each: impl Fn(&Path) -> io::Result<()>) -> io::Result<CacheReport> {
        let mut report = CacheReport {
            folder: self.folder.clone(),
            ..CacheReport::default()
        };
        for folder in self.model_folders()? {
            let description = fs::read(folder.join(MODEL)).ok();
            let source = description.and_then(|json| serde_json::from_slice(&json).ok());
            let mut usage = ModelUsage {
                source,
                entries: 0,
                bytes: 0,
            };
            for file in fs::read_dir(&folder)? {
                let file = file?;
                let name = file.file_name();
                let Some(name) = name.to_str() else { continue };
                let is_entry = name.strip_suffix(ENTRY).is_some_and(|n| n.len() == 65);
                let is_looks = name.strip_suffix(LOOKS).is_some_and(|n| n.len() == 65);
                if !(is_entry || is_looks || name == MODEL || name.starts_with(atomic_file::PREFIX))
                {
                    continue;
                }
                // gone meanwhile: not ours to count
                let Ok(metadata) = file.metadata() else {
                    continue;
                };
                usage.entries += usize::from(is_entry);
                usage.bytes += metadata.len();
                each(&file.path())?;
            }
            report.entries += usage.entries;
            report.bytes += usage.bytes;
            report.models.push(usage);
        }
        report
            .models
            .sort_by_key(|usage| std::cmp::Reverse(usage.bytes));
        Ok(report)
    }
}

/// Writes whole or not at all, without waiting for the disk: every entry carries a checksum, and what a power cut
/// takes is extracted again.
fn write_renamed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit_unsynced()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_the_folder() {
        let with = |pairs: &'static [(&str, &str)]| {
            FeatureCache::from_environment(|name| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| PathBuf::from(v))
            })
        };
        let at = |path: &str| Some(FeatureCache::at(path));
        assert_eq!(
            with(&[("FLAWTUNE_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b")]),
            at("/a")
        );
        assert_eq!(
            with(&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")]),
            at("/b/flawtune/features")
        );
        assert_eq!(
            with(&[("XDG_CACHE_HOME", "b"), ("HOME", "/c")]),
            at("/c/.cache/flawtune/features")
        );
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn keys_depend_on_every_part_but_the_name() {
        let source = |model: &str, weights: &str, variant: &str, preprocessing: &str| Source {
            model: model.to_string(),
            weights: weights.to_string(),
            variant: variant.to_string(),
            preprocessing: preprocessing.to_string(),
        };
        let image = blake3::hash(b"image");
        let base = source("m", "ab", "c", "d");
        assert_eq!(
            base.key(&image),
            source("other", "ab", "c", "d").key(&image)
        );
        for other in [
            source("m", "a", "bc", "d"),
            source("m", "ab", "cd", ""),
            source("m", "x", "c", "d"),
        ] {
            assert_ne!(base.key(&image), other.key(&image));
            assert_ne!(base.folder(), other.folder());
        }
        assert_ne!(base.key(&image), base.key(&blake3::hash(b"image 2")));
    }
}
