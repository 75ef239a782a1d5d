//! Weights that are already on this machine: local models folders and the Hugging Face cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{HubError, io};
use crate::atomic_file;
use crate::models::Variant;
use crate::weights;

/// The weights of `variant` in a folder of models: a folder or file with one of its names.
pub(super) fn in_models_folder(folder: &Path, variant: &Variant) -> Option<PathBuf> {
    let names: Vec<String> = variant.names().collect();
    let mut found: Vec<(u8, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let (stem, rank) = if path.is_dir() {
            (name.as_str(), 0)
        } else if let Some(stem) = name.strip_suffix(".safetensors.index.json") {
            (stem, 1)
        } else if let Some(stem) = name.strip_suffix(".safetensors") {
            (stem, 2)
        } else if let Some(stem) = name
            .strip_suffix(".pth")
            .or_else(|| name.strip_suffix(".pt"))
        {
            (stem, 3)
        } else {
            continue;
        };
        // the authors' files end in eight digits of their hash: dinov3_vits16_pretrain_lvd1689m-08c60483.pth
        let bare = stem
            .rsplit_once('-')
            .filter(|(_, hash)| hash.len() == 8 && is_hex(hash))
            .map_or(stem, |(b, _)| b);
        let known = names
            .iter()
            .any(|n| n.rsplit('/').next().is_some_and(|n| same(n, bare)));
        if known && (rank > 0 || complete(&path).is_some()) {
            found.push((rank, path));
        }
    }
    found.sort();
    found.into_iter().next().map(|(_, path)| path)
}

/// Whether two names differ at most in case and separators.
fn same(a: &str, b: &str) -> bool {
    let plain = |s: &str| s.to_lowercase().replace(['-', '.'], "_");
    plain(a) == plain(b)
}

/// Whether all characters are hexadecimal digits.
pub(super) fn is_hex(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The complete weights in a folder: the file, or the index whose shards are all there.
fn complete(folder: &Path) -> Option<PathBuf> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Some(single);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return weights::shards(&index)
            .ok()?
            .iter()
            .all(|s| folder.join(s).is_file())
            .then_some(index);
    }
    let any = fs::read_dir(folder).ok()?.filter_map(Result::ok).any(|e| {
        let name = e.file_name().to_string_lossy().to_lowercase();
        [".safetensors", ".pth", ".pt"]
            .iter()
            .any(|x| name.ends_with(x))
    });
    any.then(|| folder.to_owned())
}

/// The complete weights of `repo` in the Hugging Face cache.
pub(super) fn in_hub_cache(cache: &Path, repo: &str) -> Option<PathBuf> {
    let layout = Layout::new(cache, repo);
    let snapshots = layout.root.join("snapshots");
    let main = fs::read_to_string(layout.root.join("refs/main")).ok();
    if let Some(path) = main.and_then(|commit| weights_in(&snapshots.join(commit.trim()))) {
        return Some(path);
    }
    let mut others: Vec<PathBuf> = fs::read_dir(snapshots)
        .ok()?
        .filter_map(Result::ok)
        .map(|e| e.path())
        .collect();
    others.sort();
    others.iter().find_map(|s| weights_in(s))
}

/// As [`complete`], but a snapshot is used for its safetensors alone.
fn weights_in(snapshot: &Path) -> Option<PathBuf> {
    complete(snapshot).filter(|p| p != snapshot)
}

/// The folder of a repository in the Hugging Face cache.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// `<cache>/models--org--name`
    pub(super) root: PathBuf,
    /// `<cache>/.locks/models--org--name`
    locks: PathBuf,
}

impl Layout {
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self {
            root: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// Where the content with this etag lies.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The lock of a blob, not yet taken. Python's tools lock the same file the same way.
    pub(super) fn lock_file(&self, etag: &str) -> Result<(PathBuf, File), HubError> {
        fs::create_dir_all(&self.locks).map_err(io(&self.locks))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io(&path))?;
        Ok((path, file))
    }

    /// Makes `blob` appear as `file` of the snapshot `commit`, and that snapshot as the main one.
    pub(super) fn publish(
        &self,
        commit: &str,
        file: &str,
        etag: &str,
    ) -> Result<PathBuf, HubError> {
        let snapshot = self.root.join("snapshots").join(commit);
        fs::create_dir_all(&snapshot).map_err(io(&snapshot))?;
        let path = snapshot.join(file);
        if !path.exists() {
            // a dangling link of an interrupted run
            let _ = fs::remove_file(&path);
            if link(&Path::new("../../blobs").join(etag), &path).is_err() {
                // no links on this file system: the file itself moves, as Python's tools do it
                fs::rename(self.blob(etag), &path).map_err(io(&path))?;
            }
        }
        let refs = self.root.join("refs");
        fs::create_dir_all(&refs).map_err(io(&refs))?;
        let main = refs.join("main");
        atomic_file::write(&main, commit.as_bytes()).map_err(io(&main))?;
        Ok(path)
    }
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}
