//! Loading weights: open, understand, check, assemble.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;
use rayon::prelude::*;

use super::assemble::assemble;
use super::error::{Mismatch, WeightsError};
use super::infer::{self, Found, Parts};
use super::keys::{BlockPart, Leaf, Part, part, scheme};
use super::source::{self, Source};
use super::{Scheme, Storage, StoredTensor, VitWeights};
use crate::config::{Position, VitConfig};

/// A model read from its files.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its sizes.
    pub config: VitConfig,
    /// Its weights.
    pub weights: VitWeights,
    /// Who named the keys.
    pub scheme: Scheme,
    /// What the user should know: files passed over, choices made. Often empty.
    pub notes: Vec<String>,
}

/// Loads the weights at `path`: a safetensors file, an index of shards (`*.safetensors.index.json`), a folder with
/// either, or a `.pth`/`.pt` file.
///
/// With `expected`, the file must fit it (only the side of a learned position table may differ: the file's is taken);
/// it also settles rounding of the rotary periods and pixel normalisation. Without, sizes come from the shapes, and
/// what shapes do not tell from the `config.json` (`hf_config.json`, `config_<name>.json`) beside the file, from an
/// official file's rotary periods, or from the table of known variants.
///
/// # Errors
/// The file is absent, damaged, no vision transformer's weights, or of another shape; or the number of heads cannot
/// be known. Messages name keys, shapes and the way out.
pub fn load(path: &Path, expected: Option<&VitConfig>) -> Result<Loaded, WeightsError> {
    understand(&source::open(path)?, expected)
}

/// As [`load`], of a safetensors file that is part of the program; `name` stands for its path in messages.
///
/// # Errors
/// As [`load`].
pub fn load_embedded(
    name: &str,
    bytes: &'static [u8],
    expected: Option<&VitConfig>,
) -> Result<Loaded, WeightsError> {
    understand(&source::embedded(name, bytes)?, expected)
}

fn understand(source: &Source, expected: Option<&VitConfig>) -> Result<Loaded, WeightsError> {
    let understood = Understood::new(source)?;
    let (mut config, mut notes) = match expected {
        Some(c) => (c.clone(), Vec::new()),
        None => infer::config(&understood.found, source)?,
    };
    if let (Position::Learned { .. }, Some(grid)) = (config.position, understood.found.grid) {
        config.position = Position::Learned { grid };
    }
    let assembled = assemble(
        &understood.parts,
        &config,
        &understood.unknown,
        understood.scheme,
    );
    let mut weights = assembled.map_err(|d| {
        WeightsError::Mismatch(Box::new(Mismatch {
            path: source.path.clone(),
            model: config.name.clone(),
            scheme: understood.scheme,
            hint: hint(&understood.found, &config, source, &d.missing),
            missing: d.missing,
            unexpected: d.unexpected,
            different: d.different,
        }))
    })?;
    periods(&understood.parts, &config, source, &mut notes)?;
    finite(&understood.parts, source)?;
    weights.content_hash = hash(source)?;
    Ok(Loaded {
        config,
        weights,
        scheme: understood.scheme,
        notes,
    })
}

/// Refuses weights that would turn every token into nothing: far from here, in scores, nobody could tell whose fault it was.
fn finite(parts: &Parts<'_>, source: &Source) -> Result<(), WeightsError> {
    let used: Vec<_> = parts
        .iter()
        .filter(|(p, _)| match p {
            Part::LocalNorm | Part::Block(_, BlockPart::QkvMask) => false,
            // where a mask is multiplied in, what it hides may be anything
            Part::Block(block, BlockPart::Qkv(Leaf::Bias)) => {
                let mask = Part::Block(*block, BlockPart::QkvMask);
                !parts.contains_key(&mask)
            }
            _ => true,
        })
        .map(|(_, entry)| entry)
        .collect();
    let bad = used.par_iter().filter(|(_, tensor)| !tensor.is_finite());
    match bad.map(|(key, _)| *key).min() {
        None => Ok(()),
        Some(key) => Err(WeightsError::NotWeights {
            path: source.path.clone(),
            what: format!(
                "the weights '{key}' hold values that are infinite or no numbers\n\
                 hint: copy or download the file again; a training that diverged leaves such weights"
            ),
        }),
    }
}

/// A file whose keys have been made out.
pub(super) struct Understood<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) scheme: Scheme,
    pub(super) found: Found,
    /// Keys that no vision transformer of ours has.
    pub(super) unknown: Vec<&'a str>,
}

impl<'a> Understood<'a> {
    pub(super) fn new(source: &'a Source) -> Result<Self, WeightsError> {
        let not = |what: String| WeightsError::NotWeights {
            path: source.path.clone(),
            what,
        };
        let has = |name: &str| source.tensors.iter().any(|(k, _)| k == name);
        let other = |name: &str| source.others.iter().any(|(k, _)| k == name);
        if has("prompts") && other("model_name") {
            return Err(not(
                "a checkpoint of trained prompts, not the weights of a backbone\nhint: pass it as `checkpoint` \
                            and name the backbone's file with `weights`"
                    .into(),
            ));
        }
        if source.tensors.is_empty() {
            return Err(not("holds no float tensors".into()));
        }
        let mut parts: Parts<'a> = HashMap::with_capacity(source.tensors.len());
        let mut unknown = Vec::new();
        for (key, tensor) in &source.tensors {
            match part(key) {
                None => unknown.push(key.as_str()),
                Some(Part::Ignored) => {}
                Some(p) => {
                    if let Some((first, _)) = parts.insert(p, (key, tensor))
                        && !matches!(p, Part::LocalNorm)
                    {
                        return Err(not(format!(
                            "holds two models: '{first}' and '{key}' are the same part\nhint: save one of them alone"
                        )));
                    }
                }
            }
        }
        let found = infer::found(&parts).map_err(|lacks| not(what_else(source, &lacks)))?;
        unstack(&mut parts, &found);
        let found = infer::found(&parts).unwrap_or(found);
        let keys = source.tensors.iter().map(|(k, _)| k.as_str());
        Ok(Self {
            scheme: scheme(&keys),
            parts,
            found,
            unknown,
        })
    }
}

/// timm keeps gate and up of `DINOv2`'s giant in `fc1`: twice as many rows as the last linear has columns.
fn unstack(parts: &mut Parts<'_>, found: &Found) {
    for n in 0..found.depth {
        let at = |b: fn(Leaf) -> BlockPart, l| Part::Block(n, b(l));
        let rows = |p: &Parts<'_>, part| p.get(&part).and_then(|(_, t)| t.shape.first().copied());
        let twice = rows(parts, at(BlockPart::Up, Leaf::Weight)) == Some(2 * found.hidden);
        if twice && !parts.contains_key(&at(BlockPart::Gate, Leaf::Weight)) {
            for leaf in [Leaf::Weight, Leaf::Bias] {
                if let Some(entry) = parts.remove(&at(BlockPart::Up, leaf)) {
                    parts.insert(at(BlockPart::GateUp, leaf), entry);
                }
            }
        }
    }
}

/// What a readable file that is not a DINO transformer seems to hold.
fn what_else(source: &Source, lacks: &str) -> String {
    let has = |start: &str| source.tensors.iter().any(|(k, _)| k.contains(start));
    let seems = if has("stages.") || has("downsample_layers.") {
        "it looks like a ConvNeXt, which flawtune does not run"
    } else if has("layer1.0.conv1") {
        "it looks like a ResNet, which flawtune does not run"
    } else if has("lora_") {
        "it looks like a LoRA adapter\nhint: merge it into its backbone first"
    } else {
        "flawtune runs DINOv2 and DINOv3 vision transformers"
    };
    let keys: Vec<&str> = source
        .tensors
        .iter()
        .take(3)
        .map(|(k, _)| k.as_str())
        .collect();
    format!(
        "not the weights of a DINOv2 or DINOv3 vision transformer: {lacks} (keys such as {}); {seems}",
        keys.join(", ")
    )
}

/// What to do about a mismatch.
fn hint(found: &Found, config: &VitConfig, source: &Source, missing: &[String]) -> String {
    let text = source.path.to_string_lossy().to_lowercase();
    match found.variant(&text) {
        Some(v) if v.name != config.name => {
            format!(
                "the file looks like {0}: use `model_name` {0}, or another file",
                v.name
            )
        }
        _ if !missing.is_empty() => "the file is incomplete: download or export it again".into(),
        _ => format!("the file has {}", found.describe()),
    }
}

/// Checks an official file's rotary periods against the configuration's base.
fn periods(
    parts: &Parts<'_>,
    config: &VitConfig,
    source: &Source,
    notes: &mut Vec<String>,
) -> Result<(), WeightsError> {
    let (
        Some((key, tensor)),
        Position::Rope {
            base,
            round_periods,
        },
    ) = (parts.get(&Part::Periods), config.position)
    else {
        return Ok(());
    };
    let stored = tensor.to_f32();
    let exact = |j: usize| f64::from(base).powf(4.0 * j as f64 / config.head_dim() as f64);
    // bf16 keeps 8 bits: rounding is off by at most 2^-8 of the number
    let far = stored
        .iter()
        .enumerate()
        .find(|&(j, &p)| (f64::from(p) / exact(j) - 1.0).abs() > 1.0 / 256.0);
    if let Some((j, p)) = far {
        return Err(WeightsError::NotWeights {
            path: source.path.clone(),
            what: format!(
                "'{key}' holds period {p} at {j} where base {base} gives {}: another rotary base",
                exact(j)
            ),
        });
    }
    let rounded = stored
        .iter()
        .enumerate()
        .any(|(j, &p)| (f64::from(p) / exact(j) - 1.0).abs() > 1e-6);
    if rounded && !round_periods {
        notes.push(format!(
            "'{key}' is rounded to bf16; exact periods are used, as the Hugging Face and timm versions do (token values \
             differ by about 0.01 from the official code's)"
        ));
    }
    Ok(())
}

/// BLAKE3 of the one file, or of the digests of several in order. It reads through the mappings of the tensors, so that
/// their pages are there when the weights are packed.
fn hash(source: &Source) -> Result<String, WeightsError> {
    let mut files: Vec<&Arc<MappedFile>> = Vec::new();
    for (_, tensor) in &source.tensors {
        if let Storage::Mapped(file) = &tensor.storage
            && !files.iter().any(|f| Arc::ptr_eq(f, file))
        {
            files.push(file);
        }
    }
    let digest = |bytes: &[u8]| blake3::Hasher::new().update_rayon(bytes).finalize();
    let mut digests: Vec<blake3::Hash> = Vec::with_capacity(files.len());
    for file in files {
        digests.push(digest(file.bytes()));
        file.release(0..file.bytes().len());
    }
    if let [
        (
            _,
            StoredTensor {
                storage: Storage::Embedded(bytes),
                ..
            },
        ),
        ..,
    ] = source.tensors[..]
    {
        digests.push(digest(bytes));
    } else if digests.is_empty() {
        // every tensor was copied out of a file that has none contiguous
        for path in &source.files {
            let file = MappedFile::open(path).map_err(|source| WeightsError::Io {
                path: path.clone(),
                source,
            })?;
            digests.push(digest(file.bytes()));
        }
    }
    Ok(match digests.as_slice() {
        [one] => one.to_hex().to_string(),
        several => {
            let mut all = blake3::Hasher::new();
            for digest in several {
                all.update(digest.as_bytes());
            }
            all.finalize().to_hex().to_string()
        }
    })
}
