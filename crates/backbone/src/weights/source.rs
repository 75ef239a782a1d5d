//! Opening weight files: which files make up a model, and the tensors in them, by key.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;
use safetensors::SafeTensors;

use super::{DType, Storage, StoredTensor, WeightsError};
use crate::torch_file::{self, Entry};

/// Kind of container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Safetensors,
    Sharded,
    Torch,
}

/// The tensors of a model's files, not yet understood.
#[derive(Debug)]
pub(super) struct Source {
    /// The file the user named, or the one found in the folder.
    pub(super) path: PathBuf,
    pub(super) container: Container,
    /// All files with tensors, by name.
    pub(super) files: Vec<PathBuf>,
    /// Float tensors by key.
    pub(super) tensors: Vec<(String, StoredTensor)>,
    /// Other entries by key: what they are.
    pub(super) others: Vec<(String, String)>,
}

/// An index of 4 GB is damaged or forged; the 7-billion-parameter model's has about 60 kB.
const MAX_INDEX: u64 = 16 << 20;

/// Opens a file, an index or a folder.
pub(super) fn open(path: &Path) -> Result<Source, WeightsError> {
    let path = if path.is_dir() {
        choose(path)?
    } else {
        path.to_owned()
    };
    if path.extension() == Some(OsStr::new("json")) {
        return sharded(path);
    }
    let mut start = [0u8; 9];
    let n = fs::File::open(&path)
        .and_then(|mut f| std::io::Read::read(&mut f, &mut start))
        .map_err(|source| WeightsError::Io {
            path: path.clone(),
            source,
        })?;
    let extension = path
        .extension()
        .and_then(OsStr::to_str)
        .unwrap_or_default()
        .to_lowercase();
    let torch = matches!(extension.as_str(), "pth" | "pt" | "bin" | "ckpt");
    // a safetensors file has a JSON object after its eight bytes of length, whatever its name ends in
    let pickle = start.starts_with(b"PK") || start.starts_with(b"\x80\x02");
    if n > 0 && start[8] != b'{' && (pickle || torch) {
        let dict = torch_file::open_lazy(&path)?;
        let others = dict.others.into_iter().map(|(name, entry)| {
            let what = match entry {
                Entry::IntegerTensor { dtype, shape } => format!("{} {shape:?}", dtype.name()),
                Entry::Plain(kind) => kind.to_owned(),
            };
            (name, what)
        });
        return Ok(Source {
            container: Container::Torch,
            files: vec![path.clone()],
            tensors: dict.tensors,
            others: others.collect(),
            path,
        });
    }
    let mut source = Source {
        container: Container::Safetensors,
        files: vec![path.clone()],
        tensors: Vec::new(),
        others: Vec::new(),
        path: path.clone(),
    };
    safetensors_file(&path, &mut source)?;
    Ok(source)
}

/// The one model in a folder.
fn choose(folder: &Path) -> Result<PathBuf, WeightsError> {
    let io = |source| WeightsError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        if let Some(name) = entry.map_err(io)?.file_name().to_str() {
            names.insert(name.to_owned());
        }
    }
    for usual in ["model.safetensors.index.json", "model.safetensors"] {
        if names.contains(usual) {
            return Ok(folder.join(usual));
        }
    }
    let ending = |ends: &[&str]| -> Vec<&String> {
        names
            .iter()
            .filter(|n| !n.starts_with('.') && ends.iter().any(|e| n.ends_with(e)))
            .collect()
    };
    for ends in [
        &[".safetensors.index.json"][..],
        &[".safetensors"],
        &[".pth", ".pt", ".bin"],
    ] {
        match ending(ends).as_slice() {
            [] => {}
            [one] => return Ok(folder.join(one)),
            several => {
                let list: Vec<&str> = several.iter().take(6).map(|s| s.as_str()).collect();
                return Err(WeightsError::NotWeights {
                    path: folder.to_owned(),
                    what: format!(
                        "holds {} weight files\nhint: name one of them: {}",
                        several.len(),
                        list.join(", ")
                    ),
                });
            }
        }
    }
    Err(WeightsError::NotWeights {
        path: folder.to_owned(),
        what: "holds no weights: no .safetensors, .safetensors.index.json, .pth or .pt file".into(),
    })
}

/// The shards that an index names, once each, by name.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>, WeightsError> {
    let bad = |what: String| WeightsError::Config {
        path: index.to_owned(),
        what,
    };
    let io = |source| WeightsError::Io {
        path: index.to_owned(),
        source,
    };
    if fs::metadata(index).map_err(io)?.len() > MAX_INDEX {
        return Err(bad("too large for an index of shards".into()));
    }
    let text = fs::read(index).map_err(io)?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| bad(format!("not an index of shards: {e}")))?;
    let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else {
        return Err(bad(
            "not an index of shards (no 'weight_map')\nhint: name the weight file itself".into(),
        ));
    };
    let mut names = BTreeSet::new();
    for (key, shard) in map {
        let name = shard
            .as_str()
            .ok_or_else(|| bad(format!("the shard of '{key}' is not a file name")))?;
        // a file beside the index, never one elsewhere
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', ':']) {
            return Err(bad(format!(
                "the shard of '{key}' is '{name}', not a file beside the index"
            )));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err(bad("its 'weight_map' is empty".into()));
    }
    Ok(names.into_iter().collect())
}

fn sharded(path: PathBuf) -> Result<Source, WeightsError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let names = shards(&path)?;
    let absent: Vec<&str> = names
        .iter()
        .filter(|n| !folder.join(n).exists())
        .map(String::as_str)
        .collect();
    if !absent.is_empty() {
        return Err(WeightsError::NotWeights {
            what: format!(
                "{} of {} shards are missing beside it: {}",
                absent.len(),
                names.len(),
                absent[..absent.len().min(6)].join(", ")
            ),
            path,
        });
    }
    let files: Vec<PathBuf> = names.iter().map(|n| folder.join(n)).collect();
    let mut source = Source {
        container: Container::Sharded,
        files: files.clone(),
        tensors: Vec::new(),
        others: Vec::new(),
        path,
    };
    for file in &files {
        safetensors_file(file, &mut source)?;
    }
    Ok(source)
}

fn safetensors_file(path: &Path, source: &mut Source) -> Result<(), WeightsError> {
    let file = MappedFile::open(path).map_err(|source| WeightsError::Io {
        path: path.to_owned(),
        source,
    })?;
    safetensors(&Storage::Mapped(Arc::new(file)), path, source)
}

/// The safetensors file that is part of the program, under this name.
pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Result<Source, WeightsError> {
    // no file lies beside it, so nothing is looked for there
    let path = PathBuf::from(format!("{name} (part of flawtune)"));
    let mut source = Source {
        container: Container::Safetensors,
        files: Vec::new(),
        tensors: Vec::new(),
        others: Vec::new(),
        path: path.clone(),
    };
    safetensors(&Storage::Embedded(bytes), &path, &mut source)?;
    Ok(source)
}

/// Adds the tensors of a safetensors file.
fn safetensors(storage: &Storage, path: &Path, source: &mut Source) -> Result<(), WeightsError> {
    let bad = |what: String| WeightsError::Safetensors {
        path: path.to_owned(),
        what,
    };
    let bytes = storage.bytes();
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| bad(explain(bytes, &e)))?;
    let data = 8 + header;
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            safetensors::Dtype::BF16 => DType::Bf16,
            safetensors::Dtype::F64 => DType::F64,
            other => {
                source
                    .others
                    .push((name, format!("{other:?} {:?}", info.shape)));
                continue;
            }
        };
        let tensor = StoredTensor {
            storage: storage.clone(),
            offset: data + info.data_offsets.0,
            dtype,
            shape: info.shape.clone(),
        };
        source.tensors.push((name, tensor));
    }
    Ok(())
}

/// Why a file is not a safetensors file, and what to do.
fn explain(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError as E;
    let text = bytes
        .iter()
        .take(256)
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    if bytes.is_empty() {
        "the file is empty\nhint: copy or download it again".into()
    } else if bytes.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer, not the weights\nhint: run `git lfs pull` or download the file itself"
            .into()
    } else if bytes.starts_with(b"<") {
        "an HTML page, not weights: the download needed a login\nhint: fetch the file again".into()
    } else if text {
        "a text file, not weights; flawtune reads .safetensors, .pth and .pt".into()
    } else if bytes.get(8) != Some(&b'{') {
        "neither a safetensors file nor a PyTorch one; flawtune reads .safetensors, .pth and .pt"
            .into()
    } else if let E::MetadataIncompleteBuffer | E::InvalidHeaderLength | E::HeaderTooSmall = error {
        let header = bytes
            .first_chunk::<8>()
            .map_or(0, |b| u64::from_le_bytes(*b));
        format!(
            "a truncated or padded safetensors file ({} bytes, header of {header})\nhint: copy or download it again",
            bytes.len()
        )
    } else {
        format!("a damaged safetensors file ({error})\nhint: copy or download it again")
    }
}
