//! Where weights come from: a file the user names, a local models folder, the Hugging Face cache, or the hub.
//!
//! [`locate`] looks in that order and downloads only when nothing is found. Downloads go into the Hugging Face cache
//! in its own layout (`models--org--name/{blobs,snapshots,refs}`), so that Python tools find them and flawtune finds
//! theirs; a partial file is kept and continued, the SHA-256 that the hub announces is compared, and a lock keeps two
//! processes from fetching the same file.

mod cache;
mod download;
mod error;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::models::{self, Variant};
use crate::weights;
pub use error::HubError;

use download::Client;

/// Where to look and how to fetch.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// The file or folder the user named: nothing else is tried.
    pub weights: Option<PathBuf>,
    /// Folders of models, searched in this order.
    pub model_folders: Vec<PathBuf>,
    /// The Hugging Face cache, read and written.
    pub cache: PathBuf,
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Access token, sent to the endpoint's host alone.
    pub token: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// How often a broken transfer is tried in all.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles each time.
    pub pause: Duration,
    /// Longest wait for a connection, an answer, or the next bytes.
    pub patience: Duration,
}

impl LocateOptions {
    /// What the environment says.
    ///
    /// - models folder: `FLAWTUNE_MODELS` or `./models`, then `$XDG_DATA_HOME/flawtune/models`
    ///   (`~/.local/share/flawtune/models`);
    /// - cache: `HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`;
    /// - endpoint: `HF_ENDPOINT`, else `https://huggingface.co`;
    /// - token: `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `$HF_HOME/token`;
    /// - `HF_HUB_OFFLINE`: 1, true, yes or on forbids the network.
    pub fn from_env() -> Self {
        Self::from_vars(|name| env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let home = var("HOME")
            .or_else(|| var("USERPROFILE"))
            .map_or_else(|| PathBuf::from("."), PathBuf::from);
        let folder = |name: &str| var(name).map(PathBuf::from);
        let hf_home = folder("HF_HOME").unwrap_or_else(|| {
            folder("XDG_CACHE_HOME")
                .unwrap_or_else(|| home.join(".cache"))
                .join("huggingface")
        });
        let data = folder("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
        let token = var("HF_TOKEN").or_else(|| {
            let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            std::fs::read_to_string(path).ok()
        });
        Self {
            weights: None,
            model_folders: vec![
                folder("FLAWTUNE_MODELS").unwrap_or_else(|| "models".into()),
                data.join("flawtune/models"),
            ],
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| hf_home.join("hub")),
            endpoint: var("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".into(),
                |e| e.trim_end_matches('/').to_owned(),
            ),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|v| ["1", "true", "yes", "on"].contains(&v.to_lowercase().as_str())),
            attempts: 5,
            pause: Duration::from_secs(1),
            patience: Duration::from_secs(30),
        }
    }
}

/// What a download is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process is fetching this file.
    Waiting {
        /// Its name in the repository.
        file: &'a str,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file's name in the repository.
        file: &'a str,
        /// Bytes on disk, those of an earlier run included.
        done: u64,
        /// All its bytes, where the server says.
        total: Option<u64>,
    },
    /// The transfer broke and will be tried again.
    Retrying {
        /// The file's name in the repository.
        file: &'a str,
        /// What broke.
        why: String,
        /// Pause before the next attempt.
        pause: Duration,
    },
}

/// Finds the weights of `model` (any name of [`models::find`]), fetching them if they are nowhere on this machine.
///
/// The result is a file, an index of shards or a folder: what [`weights::load`] takes. A model named by its timm
/// repository is fetched from there, any other from the authors' repository.
///
/// # Errors
/// The model is unknown or part of the program, the named file is absent, the network is off or fails, the hub refuses
/// (the message says what to do), or the cache cannot be written.
pub fn locate(
    model: &str,
    options: &LocateOptions,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    if let Some(path) = &options.weights {
        return if path.exists() {
            Ok(path.clone())
        } else {
            Err(HubError::NoSuchWeights(path.clone()))
        };
    }
    let variant = models::find(model)?;
    let Some(hub) = variant.hub() else {
        return Err(HubError::Embedded(variant.name.into()));
    };
    if let Some(path) = options
        .model_folders
        .iter()
        .find_map(|f| cache::in_models_folder(f, variant))
    {
        return Ok(path);
    }
    // a model named by its timm repository is fetched from there
    let timm = model.to_lowercase().contains("timm/");
    let (repo, other) = if timm {
        (hub.timm, hub.repository)
    } else {
        (hub.repository, hub.timm)
    };
    if let Some(path) = [repo, other]
        .iter()
        .find_map(|r| cache::in_hub_cache(&options.cache, r))
    {
        return Ok(path);
    }
    if options.offline {
        let mut looked: Vec<String> = options
            .model_folders
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        looked.push(options.cache.display().to_string());
        return Err(HubError::Offline {
            model: variant.name.into(),
            looked: looked.join(", "),
        });
    }
    fetch(variant, repo, options, on_progress)
}

/// Downloads the configuration and the weights of `repo`.
fn fetch(
    variant: &Variant,
    repo: &str,
    options: &LocateOptions,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let client = Client::new(options, variant, repo);
    let layout = cache::Layout::new(&options.cache, repo);
    // small files first: a gate shows before any large one; sizes and pixel statistics that weights do not tell are here
    for small in ["config.json", "preprocessor_config.json"] {
        client.file(&layout, small, on_progress)?;
    }
    if let Some(path) = client.file(&layout, "model.safetensors", on_progress)? {
        return Ok(path);
    }
    let index = "model.safetensors.index.json";
    let Some(path) = client.file(&layout, index, on_progress)? else {
        return Err(HubError::NotFound {
            repo: repo.to_owned(),
            url: client.address("model.safetensors"),
        });
    };
    for shard in weights::shards(&path)? {
        if client.file(&layout, &shard, on_progress)?.is_none() {
            return Err(HubError::NotFound {
                repo: repo.to_owned(),
                url: client.address(&shard),
            });
        }
    }
    Ok(path)
}

/// An error about `path`.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + '_ {
    move |source| HubError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> LocateOptions {
        LocateOptions::from_vars(|n| {
            vars.iter()
                .find(|(k, _)| *k == n)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn the_environment_is_honoured() {
        let o = options(&[("HOME", "/home/a")]);
        assert_eq!(o.cache, Path::new("/home/a/.cache/huggingface/hub"));
        assert_eq!(
            o.model_folders,
            [
                Path::new("models"),
                Path::new("/home/a/.local/share/flawtune/models")
            ]
        );
        assert_eq!(
            (o.endpoint.as_str(), o.token, o.offline),
            ("https://huggingface.co", None, false)
        );

        let o = options(&[
            ("HOME", "/home/a"),
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror:8080/"),
            ("HF_TOKEN", " hf_x\n"),
            ("HF_HUB_OFFLINE", "1"),
            ("FLAWTUNE_MODELS", "/m"),
            ("XDG_DATA_HOME", "/data"),
        ]);
        assert_eq!(o.cache, Path::new("/hf/hub"));
        assert_eq!(
            o.model_folders,
            [Path::new("/m"), Path::new("/data/flawtune/models")]
        );
        assert_eq!(
            (o.endpoint.as_str(), o.token.as_deref(), o.offline),
            ("http://mirror:8080", Some("hf_x"), true)
        );
        assert_eq!(
            options(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/hf")]).cache,
            Path::new("/c")
        );
        assert_eq!(
            options(&[("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/x/huggingface/hub")
        );
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn the_token_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(
            options(&[("HF_HOME", home)]).token.as_deref(),
            Some("hf_file")
        );
        assert_eq!(
            options(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")])
                .token
                .as_deref(),
            Some("hf_env")
        );
    }
}
