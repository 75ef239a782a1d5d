//! What model a file holds: sizes from its shapes, the rest from the configuration beside it or the variant table.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::keys::{BlockPart, Leaf, Part};
use super::source::Source;
use super::{StoredTensor, WeightsError};
use crate::config::{Family, FeedForward, Normalization, Position, VitConfig};
use crate::models::{self, VARIANTS, Variant};

/// The tensors of a file by what they are, with their keys.
pub(super) type Parts<'a> = HashMap<Part, (&'a str, &'a StoredTensor)>;

/// Sizes that the shapes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) family: Family,
    pub(super) dim: usize,
    pub(super) depth: usize,
    pub(super) patch: usize,
    pub(super) registers: usize,
    pub(super) feed_forward: FeedForward,
    pub(super) hidden: usize,
    /// Side of the position table.
    pub(super) grid: Option<usize>,
    /// Numbers per head, where rotary periods tell it.
    pub(super) head_dim: Option<usize>,
    /// Whether there is a norm for local crops, which of the large models only the satellite one has.
    pub(super) local_norm: bool,
}

/// Reads the sizes off the shapes; the error says what is not there.
pub(super) fn found(parts: &Parts<'_>) -> Result<Found, String> {
    let shape = |part: Part| parts.get(&part).map(|(_, t)| t.shape.as_slice());
    let cls = shape(Part::Cls).ok_or("it has no class token")?;
    let &[.., dim] = cls else {
        return Err("its class token is a single number".into());
    };
    let Some(&[_, _, patch, _]) = shape(Part::Patch(Leaf::Weight)) else {
        return Err("it has no patch embedding of four axes".into());
    };
    let depth = parts
        .keys()
        .filter_map(|p| {
            if let Part::Block(n, _) = p {
                Some(n.saturating_add(1))
            } else {
                None
            }
        })
        .max();
    let depth = depth.ok_or("it has no transformer blocks")?;
    let block = |part| shape(Part::Block(0, part));
    let rows = |part| block(part).and_then(|s| s.first()).copied();
    let down = block(BlockPart::Down(Leaf::Weight))
        .and_then(|s| s.get(1))
        .copied();
    let gated = block(BlockPart::Gate(Leaf::Weight)).is_some()
        || rows(BlockPart::GateUp(Leaf::Weight)).is_some();
    let hidden = down
        .or_else(|| rows(BlockPart::Up(Leaf::Weight)))
        .ok_or("its first block has no feed-forward part")?;
    let positions = parts
        .get(&Part::Positions)
        .map(|(_, t)| t.len() / dim.max(1));
    let grid = positions.map(|n| {
        if n.isqrt() * n.isqrt() == n {
            n.isqrt()
        } else {
            n.saturating_sub(1).isqrt()
        }
    });
    // no vision transformer comes near these; the bounds keep later sums from overflowing
    let registers = parts
        .get(&Part::Registers)
        .map_or(0, |(_, t)| t.len() / dim.max(1));
    for (what, n, most) in [
        ("numbers per token", dim, 1 << 16),
        ("blocks", depth, 1 << 10),
        ("pixels a patch side", patch, 1 << 10),
        ("hidden numbers", hidden, 1 << 20),
        ("registers", registers, 1 << 10),
        ("position rows a side", grid.unwrap_or(1), 1 << 12),
    ] {
        if n > most || (n == 0 && what != "registers") {
            return Err(format!("it has {n} {what}"));
        }
    }
    Ok(Found {
        family: if grid.is_some() {
            Family::DinoV2
        } else {
            Family::DinoV3
        },
        dim,
        depth,
        patch,
        registers,
        feed_forward: if gated {
            FeedForward::SwiGlu
        } else {
            FeedForward::Mlp
        },
        hidden,
        grid,
        head_dim: parts.get(&Part::Periods).map(|(_, t)| 4 * t.len()),
        local_norm: parts.contains_key(&Part::LocalNorm),
    })
}

impl Found {
    /// In words, for messages.
    pub(super) fn describe(&self) -> String {
        format!(
            "{:?}, dim {}, depth {}, patch {}, {} registers, {:?} hidden {}",
            self.family,
            self.dim,
            self.depth,
            self.patch,
            self.registers,
            self.feed_forward,
            self.hidden
        )
    }

    fn fits(&self, v: &Variant) -> bool {
        let c = v.config();
        (c.family, c.dim, c.depth, c.patch_size) == (self.family, self.dim, self.depth, self.patch)
            && (c.registers, c.feed_forward, c.hidden)
                == (self.registers, self.feed_forward, self.hidden)
            && self.head_dim.is_none_or(|h| h == c.head_dim())
    }

    /// The known variant of these sizes; `text` (paths, names) tells satellite models apart.
    pub(super) fn variant(&self, text: &str) -> Option<&'static Variant> {
        let satellite = text.contains("sat493m") || (self.local_norm && self.dim == 1024);
        let mut fitting: Vec<&Variant> = VARIANTS.iter().filter(|v| self.fits(v)).collect();
        fitting.sort_by_key(|v| (v.normalization == Normalization::SAT493M) != satellite);
        fitting.first().copied()
    }
}

/// The configuration of the model in `source`, and what the user should know about how it was found.
pub(super) fn config(
    found: &Found,
    source: &Source,
) -> Result<(VitConfig, Vec<String>), WeightsError> {
    let mut notes = Vec::new();
    let json = beside(found, source, &mut notes)?;
    let text = source
        .path
        .canonicalize()
        .unwrap_or_else(|_| source.path.clone())
        .to_string_lossy()
        .to_lowercase();
    let named = json
        .as_ref()
        .and_then(|(_, j)| named_variant(j))
        .filter(|v| found.fits(v));
    let variant = named.or_else(|| found.variant(&text));

    let stated = |key: &str| {
        json.as_ref()
            .and_then(|(_, j)| j.get(key))
            .filter(|v| !v.is_null())
    };
    let heads = match (
        stated("num_attention_heads").and_then(Json::as_u64),
        found.head_dim,
        variant,
    ) {
        (Some(h), ..) => h as usize,
        (None, Some(head_dim), _) if head_dim > 0 => found.dim / head_dim,
        (.., Some(v)) => v.sizes.heads,
        _ => {
            return Err(WeightsError::UnknownHeads {
                path: source.path.clone(),
                sizes: found.describe(),
            });
        }
    };
    if heads == 0 || !found.dim.is_multiple_of(heads) {
        return Err(WeightsError::Config {
            path: json.map_or_else(|| source.path.clone(), |(p, _)| p),
            what: format!(
                "{heads} attention heads do not divide {} numbers per token",
                found.dim
            ),
        });
    }
    let default_eps = if found.family == Family::DinoV3 {
        1e-5
    } else {
        1e-6
    };
    let base = stated("rope_theta")
        .or_else(|| stated("rope_parameters").and_then(|p| p.get("rope_theta")))
        .and_then(Json::as_f64)
        .unwrap_or(100.0) as f32;
    let name = variant
        .filter(|v| v.sizes.heads == heads)
        .map(|v| v.name.to_owned());
    let config = VitConfig {
        name: name.unwrap_or_else(|| {
            let family = if found.family == Family::DinoV3 {
                "dinov3"
            } else {
                "dinov2"
            };
            format!(
                "{family}_custom_d{}_l{}_p{}",
                found.dim, found.depth, found.patch
            )
        }),
        family: found.family,
        patch_size: found.patch,
        dim: found.dim,
        depth: found.depth,
        heads,
        registers: found.registers,
        feed_forward: found.feed_forward,
        hidden: found.hidden,
        norm_eps: stated("layer_norm_eps")
            .and_then(Json::as_f64)
            .unwrap_or(default_eps) as f32,
        position: match found.grid {
            Some(grid) => Position::Learned { grid },
            None => Position::Rope {
                base,
                round_periods: false,
            },
        },
        normalization: normalization(source, json.as_ref().map(|(_, j)| j))
            .or(variant.map(|v| v.normalization))
            .unwrap_or(Normalization::IMAGENET),
    };
    check_activation(&config, json.as_ref())?;
    Ok((config, notes))
}

/// Refuses a configuration whose activation is not the one of its feed-forward kind.
fn check_activation(
    config: &VitConfig,
    json: Option<&(PathBuf, Json)>,
) -> Result<(), WeightsError> {
    let Some((path, json)) = json else {
        return Ok(());
    };
    let Some(found) = json.get("hidden_act").and_then(Json::as_str) else {
        return Ok(());
    };
    // DINOv2's giant states "gelu" and uses SiLU in its gate all the same
    let fits = match config.feed_forward {
        FeedForward::Mlp => found == "gelu",
        FeedForward::SwiGlu => {
            found == "silu" || found == "swish" || config.family == Family::DinoV2
        }
    };
    if fits {
        return Ok(());
    }
    Err(WeightsError::Config {
        path: path.clone(),
        what: format!(
            "activation '{found}' is none of DINOv2's or DINOv3's (exact GELU; SiLU in a gated part)"
        ),
    })
}

/// The folder of a file, never empty.
fn folder(file: &Path) -> &Path {
    file.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The configuration file beside the weights (for shards also one folder up), if one is there and about this model.
fn beside(
    found: &Found,
    source: &Source,
    notes: &mut Vec<String>,
) -> Result<Option<(PathBuf, Json)>, WeightsError> {
    let stem = source
        .path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = stem.split('.').next().unwrap_or_default();
    let here = folder(&source.path);
    let mut candidates: Vec<PathBuf> = [
        format!("config_{stem}.json"),
        "config.json".into(),
        "hf_config.json".into(),
    ]
    .iter()
    .map(|name| here.join(name))
    .collect();
    if source.path.to_string_lossy().ends_with(".index.json") {
        // shards may lie in a folder of their own below the model's
        candidates.extend(["config.json", "hf_config.json"].map(|name| here.join("..").join(name)));
    }
    for path in candidates {
        if !path.is_file() {
            continue;
        }
        let json = read_json(&path)?;
        // timm's configuration states no sizes; a folder may also hold the configuration of another model
        let differs = [
            ("hidden_size", found.dim),
            ("num_hidden_layers", found.depth),
            ("patch_size", found.patch),
            ("num_register_tokens", found.registers),
        ]
        .into_iter()
        .find_map(|(key, size)| {
            json.get(key)
                .and_then(Json::as_u64)
                .filter(|&n| n != size as u64)
                .map(|n| (key, n, size))
        });
        match differs {
            None => return Ok(Some((path, json))),
            Some((key, stated, size)) => notes.push(format!(
                "{} is about another model ({key} {stated}, the weights have {size}): not used",
                path.display()
            )),
        }
    }
    Ok(None)
}

/// Parses a JSON object of at most 1 MiB.
fn read_json(path: &Path) -> Result<Json, WeightsError> {
    let bad = |what: String| WeightsError::Config {
        path: path.to_owned(),
        what,
    };
    let io = |source| WeightsError::Io {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(io)?.len() > 1 << 20 {
        return Err(bad("too large for a model configuration".into()));
    }
    let json: Json = serde_json::from_slice(&fs::read(path).map_err(io)?)
        .map_err(|e| bad(format!("not a model configuration: {e}")))?;
    if json.is_object() {
        Ok(json)
    } else {
        Err(bad("not a model configuration: no JSON object".into()))
    }
}

/// The variant that a configuration names: timm's `architecture` and tag, or the hub's `_name_or_path`.
fn named_variant(json: &Json) -> Option<&'static Variant> {
    let text = |key: &str| json.get(key).and_then(Json::as_str);
    if let Some(architecture) = text("architecture") {
        let tag = json
            .get("pretrained_cfg")
            .and_then(|c| c.get("tag"))
            .and_then(Json::as_str)
            .unwrap_or("lvd1689m");
        return models::find(&format!("{}.{tag}", architecture.trim_end_matches("_qkvb"))).ok();
    }
    models::find(text("_name_or_path")?).ok()
}

/// Mean and standard deviation from the preprocessing configuration beside the weights, or timm's `pretrained_cfg`.
fn normalization(source: &Source, json: Option<&Json>) -> Option<Normalization> {
    let triple = |v: Option<&Json>| -> Option<[f32; 3]> {
        let numbers: Vec<f32> = v?
            .as_array()?
            .iter()
            .filter_map(Json::as_f64)
            .map(|x| x as f32)
            .collect();
        <[f32; 3]>::try_from(numbers).ok()
    };
    let of = |j: &Json, mean: &str, std: &str| {
        let n = Normalization {
            mean: triple(j.get(mean))?,
            std: triple(j.get(std))?,
        };
        n.std.iter().all(|&s| s > 0.0).then_some(n)
    };
    let path = folder(&source.path).join("preprocessor_config.json");
    let preprocessor = if path.is_file() {
        read_json(&path).ok()
    } else {
        None
    };
    preprocessor
        .and_then(|j| of(&j, "image_mean", "image_std"))
        .or_else(|| of(json?.get("pretrained_cfg")?, "mean", "std"))
}
