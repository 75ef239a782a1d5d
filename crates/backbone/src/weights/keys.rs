//! From the keys of a file to the parts of a vision transformer.

use std::fmt;

/// Who named the keys of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Hugging Face transformers: `embeddings.cls_token`, `layer.0.attention.q_proj.weight`.
    HuggingFace,
    /// timm: `blocks.0.attn.qkv.weight`, `reg_token`, `blocks.0.gamma_1`.
    Timm,
    /// The authors' own files: `blocks.0.attn.qkv.bias_mask`, `storage_tokens`, `blocks.0.ls1.gamma`.
    Official,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "Hugging Face",
            Self::Timm => "timm",
            Self::Official => "official",
        })
    }
}

/// A part of the network that a key can name, weight and bias apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Cls,
    Registers,
    Positions,
    Patch(Leaf),
    Norm(Leaf),
    /// Rotary periods of an official file; they tell the number of heads.
    Periods,
    /// A norm used in training only.
    LocalNorm,
    Block(usize, BlockPart),
    /// Used in training only.
    Ignored,
}

/// A part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum BlockPart {
    Norm1(Leaf),
    Norm2(Leaf),
    Query(Leaf),
    Key(Leaf),
    Value(Leaf),
    Qkv(Leaf),
    QkvMask,
    Proj(Leaf),
    Scale1,
    Scale2,
    /// Activated half of a gated feed-forward part.
    Gate(Leaf),
    /// First linear: of an MLP, or the other half of a gated part; timm's giant keeps gate and up in it.
    Up(Leaf),
    /// Gate and up stacked.
    GateUp(Leaf),
    /// Last linear.
    Down(Leaf),
}

/// Weight or bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Leaf {
    Weight,
    Bias,
}

use BlockPart as B;
use Leaf::{Bias, Weight};

/// Wrappers that training code and libraries put around the model.
const PREFIXES: [&str; 18] = [
    "model.",
    "module.",
    "_orig_mod.",
    "backbone.",
    "state_dict.",
    "teacher.",
    "student.",
    "dinov3_vit.",
    "dinov3.",
    "dinov2_with_registers.",
    "dinov2.",
    "vit.",
    "vision_model.",
    "image_encoder.",
    "trunk.",
    "base_model.",
    "encoder.model.",
    "ema.",
];

/// Starts of keys that belong to heads and to training, not to the features.
const IGNORED: [&str; 14] = [
    "mask_token",
    "embeddings.mask_token",
    "head.",
    "head_dist.",
    "fc_norm.",
    "pooler.",
    "classifier.",
    "linear_head.",
    "dino_head.",
    "ibot_head.",
    "dino_loss.",
    "ibot_patch_loss.",
    "rope_embeddings.inv_freq",
    "rope.periods",
];

/// The part that `key` names, once wrappers are stripped; none if no vision transformer of ours has it.
pub(super) fn part(key: &str) -> Option<Part> {
    let mut rest = key;
    loop {
        if let Some(part) = bare(rest) {
            return Some(part);
        }
        rest = PREFIXES.iter().find_map(|p| rest.strip_prefix(p))?;
    }
}

fn bare(key: &str) -> Option<Part> {
    Some(match key {
        "cls_token" | "embeddings.cls_token" => Part::Cls,
        "reg_token" | "storage_tokens" | "register_tokens" | "embeddings.register_tokens" => {
            Part::Registers
        }
        "pos_embed" | "embeddings.position_embeddings" => Part::Positions,
        "rope_embed.periods" => Part::Periods,
        _ => {
            if IGNORED.iter().any(|p| key.starts_with(p)) {
                return Some(Part::Ignored);
            }
            let blocks = [
                "encoder.layer.",
                "encoder.layers.",
                "layer.",
                "layers.",
                "blocks.",
            ];
            if let Some(rest) = blocks.iter().find_map(|p| key.strip_prefix(p)) {
                let (block, rest) = rest.split_once('.')?;
                let (mut block, mut rest) = (block.parse().ok()?, rest);
                // training checkpoints keep blocks in chunks, `blocks.0.7.`; the second number counts through
                if let Some((inner, after)) = rest.split_once('.')
                    && let Ok(inner) = inner.parse()
                {
                    (block, rest) = (inner, after);
                }
                return Some(Part::Block(block, block_part(rest)?));
            }
            let (stem, leaf) = leaf(key)?;
            match stem {
                "patch_embed.proj"
                | "embeddings.patch_embeddings"
                | "embeddings.patch_embeddings.projection" => Part::Patch(leaf),
                "norm" | "layernorm" => Part::Norm(leaf),
                "local_cls_norm" => Part::LocalNorm,
                _ => return None,
            }
        }
    })
}

fn leaf(key: &str) -> Option<(&str, Leaf)> {
    key.strip_suffix(".weight")
        .map(|s| (s, Weight))
        .or_else(|| key.strip_suffix(".bias").map(|s| (s, Bias)))
}

fn block_part(key: &str) -> Option<BlockPart> {
    Some(match key {
        "attn.qkv.bias_mask" => B::QkvMask,
        "attn.q_bias" => B::Query(Bias),
        "attn.k_bias" => B::Key(Bias),
        "attn.v_bias" => B::Value(Bias),
        "ls1.gamma" | "gamma_1" | "layer_scale1.lambda1" => B::Scale1,
        "ls2.gamma" | "gamma_2" | "layer_scale2.lambda1" => B::Scale2,
        _ => {
            let (stem, leaf) = leaf(key)?;
            match stem {
                "norm1" => B::Norm1(leaf),
                "norm2" => B::Norm2(leaf),
                "attention.q_proj" | "attention.attention.query" => B::Query(leaf),
                "attention.k_proj" | "attention.attention.key" => B::Key(leaf),
                "attention.v_proj" | "attention.attention.value" => B::Value(leaf),
                "attn.qkv" => B::Qkv(leaf),
                "attention.o_proj" | "attention.output.dense" | "attn.proj" => B::Proj(leaf),
                "mlp.gate_proj" | "mlp.fc1_g" | "mlp.w1" => B::Gate(leaf),
                "mlp.up_proj" | "mlp.fc1" | "mlp.fc1_x" | "mlp.w2" => B::Up(leaf),
                "mlp.w12" | "mlp.weights_in" => B::GateUp(leaf),
                "mlp.down_proj" | "mlp.fc2" | "mlp.w3" | "mlp.weights_out" => B::Down(leaf),
                _ => return None,
            }
        }
    })
}

/// The scheme of a file with these keys.
pub(super) fn scheme<'a>(keys: &(impl Iterator<Item = &'a str> + Clone)) -> Scheme {
    let any = |marks: &[&str]| keys.clone().any(|k| marks.iter().any(|m| k.contains(m)));
    if any(&["embeddings.", ".attention."]) {
        Scheme::HuggingFace
    } else if any(&[
        "storage_tokens",
        "register_tokens",
        "bias_mask",
        "rope_embed.",
        "mask_token",
        "local_cls_norm",
    ]) {
        Scheme::Official
    } else {
        // timm drops the mask token; a DINOv2 file without one can only be told from timm's by that
        Scheme::Timm
    }
}

/// How `scheme` spells `part`, for messages. `registers_v2`: the DINOv2 name of the register tokens.
#[expect(clippy::too_many_lines, reason = "a table of names")]
pub(super) fn spelling(part: Part, scheme: Scheme, v2: bool) -> String {
    let (hf, timm) = (scheme == Scheme::HuggingFace, scheme == Scheme::Timm);
    let tail = |leaf: Leaf| if leaf == Weight { "weight" } else { "bias" };
    match part {
        Part::Cls => if hf {
            "embeddings.cls_token"
        } else {
            "cls_token"
        }
        .into(),
        Part::Registers => match (hf, timm, v2) {
            (true, ..) => "embeddings.register_tokens",
            (_, true, _) => "reg_token",
            (.., true) => "register_tokens",
            (.., false) => "storage_tokens",
        }
        .into(),
        Part::Positions => if hf {
            "embeddings.position_embeddings"
        } else {
            "pos_embed"
        }
        .into(),
        Part::Patch(l) if hf && v2 => format!("embeddings.patch_embeddings.projection.{}", tail(l)),
        Part::Patch(l) if hf => format!("embeddings.patch_embeddings.{}", tail(l)),
        Part::Patch(l) => format!("patch_embed.proj.{}", tail(l)),
        Part::Norm(l) if hf && v2 => format!("layernorm.{}", tail(l)),
        Part::Norm(l) => format!("norm.{}", tail(l)),
        Part::Periods => "rope_embed.periods".into(),
        Part::LocalNorm => "local_cls_norm".into(),
        Part::Ignored => "mask_token".into(),
        Part::Block(n, b) => {
            let stem = match (hf, v2) {
                (true, true) => "encoder.layer",
                (true, false) => "layer",
                (false, _) => "blocks",
            };
            let name = match b {
                B::Norm1(l) => format!("norm1.{}", tail(l)),
                B::Norm2(l) => format!("norm2.{}", tail(l)),
                B::Query(l) if hf => {
                    format!(
                        "attention.{}.{}",
                        if v2 { "attention.query" } else { "q_proj" },
                        tail(l)
                    )
                }
                B::Key(l) if hf => {
                    format!(
                        "attention.{}.{}",
                        if v2 { "attention.key" } else { "k_proj" },
                        tail(l)
                    )
                }
                B::Value(l) if hf => {
                    format!(
                        "attention.{}.{}",
                        if v2 { "attention.value" } else { "v_proj" },
                        tail(l)
                    )
                }
                B::Query(Bias) if timm => "attn.q_bias".into(),
                B::Key(Bias) if timm => "attn.k_bias".into(),
                B::Value(Bias) if timm => "attn.v_bias".into(),
                B::Query(l) | B::Key(l) | B::Value(l) | B::Qkv(l) => {
                    format!("attn.qkv.{}", tail(l))
                }
                B::QkvMask => "attn.qkv.bias_mask".into(),
                B::Proj(l) if hf => {
                    format!(
                        "attention.{}.{}",
                        if v2 { "output.dense" } else { "o_proj" },
                        tail(l)
                    )
                }
                B::Proj(l) => format!("attn.proj.{}", tail(l)),
                B::Scale1 => match (hf, timm && !v2) {
                    (true, _) => "layer_scale1.lambda1",
                    (_, true) => "gamma_1",
                    _ => "ls1.gamma",
                }
                .into(),
                B::Scale2 => match (hf, timm && !v2) {
                    (true, _) => "layer_scale2.lambda1",
                    (_, true) => "gamma_2",
                    _ => "ls2.gamma",
                }
                .into(),
                B::Gate(l) => {
                    let gate = if hf {
                        "gate_proj"
                    } else if timm {
                        "fc1_g"
                    } else {
                        "w1"
                    };
                    format!("mlp.{gate}.{}", tail(l))
                }
                B::Up(l) => format!(
                    "mlp.{}.{}",
                    if hf && !v2 { "up_proj" } else { "fc1" },
                    tail(l)
                ),
                B::GateUp(l) => {
                    format!("mlp.{}.{}", if hf { "weights_in" } else { "w12" }, tail(l))
                }
                B::Down(l) => format!(
                    "mlp.{}.{}",
                    if hf && !v2 { "down_proj" } else { "fc2" },
                    tail(l)
                ),
            };
            format!("{stem}.{n}.{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_stripped() {
        let wanted = Some(Part::Block(7, B::Query(Weight)));
        for key in [
            "layer.7.attention.q_proj.weight",
            "model.layer.7.attention.q_proj.weight",
            "dinov3_vit.model.layer.7.attention.q_proj.weight",
            "backbone.encoder.layer.7.attention.attention.query.weight",
            "module.dinov2.encoder.layer.7.attention.q_proj.weight",
        ] {
            assert_eq!(part(key), wanted, "{key}");
        }
        assert_eq!(
            part("teacher.backbone.blocks.1.7.ls1.gamma"),
            Some(Part::Block(7, B::Scale1))
        );
        assert_eq!(
            part("model.model.model.norm.weight"),
            Some(Part::Norm(Weight))
        );
        assert_eq!(part("dino_head.mlp.0.weight"), Some(Part::Ignored));
        for key in [
            "",
            "conv1.weight",
            "blocks.x.norm1.weight",
            "blocks.3.attn.q_norm.weight",
            "model.",
            "blocks.1",
        ] {
            assert_eq!(part(key), None, "{key}");
        }
    }

    #[test]
    fn spellings_are_read_back() {
        for scheme in [Scheme::HuggingFace, Scheme::Timm, Scheme::Official] {
            for v2 in [false, true] {
                let mut parts = vec![
                    Part::Cls,
                    Part::Registers,
                    Part::Positions,
                    Part::Patch(Bias),
                    Part::Norm(Weight),
                ];
                let inner = [
                    B::Norm1(Bias),
                    B::Norm2(Weight),
                    B::Proj(Weight),
                    B::Scale1,
                    B::Scale2,
                    B::Gate(Bias),
                ];
                parts.extend(inner.map(|b| Part::Block(3, b)));
                for p in parts {
                    assert_eq!(part(&spelling(p, scheme, v2)), Some(p), "{scheme} {v2}");
                }
            }
        }
    }
}
