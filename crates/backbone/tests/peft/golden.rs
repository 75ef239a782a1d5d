//! Reading the golden folder: tensors, and a backbone from its Hugging Face file.

use std::sync::Arc;

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::weights::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};
use flawtune_testing::{Golden, golden};

/// A tensor.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    values: Vec<f64>,
}

impl Tensor {
    pub(crate) fn f64(&self) -> Vec<f64> {
        self.values.clone()
    }

    pub(crate) fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }
}

/// A tensor of a golden file.
pub(crate) fn read(file: &Golden, name: &str) -> Tensor {
    let (shape, values) = file.f64s(name);
    Tensor { shape, values }
}

/// f32 values as a tensor of a weight file.
pub(crate) fn stored(values: &[f32], shape: &[usize]) -> StoredTensor {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    StoredTensor {
        storage: Storage::Owned(Arc::new(bytes)),
        offset: 0,
        dtype: DType::F32,
        shape: shape.to_vec(),
    }
}

/// A linear layer from its parts stacked along the outputs.
pub(crate) fn linear(weights: &[Tensor], bias: Vec<f32>) -> Linear {
    let inputs = weights[0].shape[1..].iter().product();
    Linear {
        outputs: weights.iter().map(|w| w.shape[0]).sum(),
        weight: weights
            .iter()
            .map(|w| stored(&w.f32(), &[w.shape[0], inputs]))
            .collect(),
        bias,
        inputs,
    }
}

/// Backbone `model` of the goldens.
pub(crate) fn load_backbone(model: &str) -> (VitConfig, VitWeights) {
    let dir = golden("ckpt").join(model);
    let arch: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("arch.json")).unwrap()).unwrap();
    let size = |key: &str| arch[key].as_u64().unwrap() as usize;
    let gated = arch["ffn"].as_str().unwrap().starts_with("swiglu");
    let config = VitConfig {
        name: model.to_owned(),
        family: Family::DinoV3,
        patch_size: size("patch"),
        dim: size("dim"),
        depth: size("depth"),
        heads: size("heads"),
        registers: size("registers"),
        feed_forward: if gated {
            FeedForward::SwiGlu
        } else {
            FeedForward::Mlp
        },
        hidden: size("hidden"),
        norm_eps: arch["norm_eps"].as_f64().unwrap() as f32,
        position: Position::Rope {
            base: arch["rope_base"].as_f64().unwrap() as f32,
            round_periods: false,
        },
        normalization: Normalization::IMAGENET,
    };
    let file = Golden::open(dir.join("hf.safetensors"));
    let vector = |name: &str| read(&file, name).f32();
    let norm = |name: String| Norm {
        weight: vector(&format!("{name}.weight")),
        bias: vector(&format!("{name}.bias")),
    };
    let one = |name: String| {
        linear(
            &[read(&file, &format!("{name}.weight"))],
            vector(&format!("{name}.bias")),
        )
    };
    let block = |i: usize| {
        let at = format!("layer.{i}");
        let part = |p: &str| read(&file, &format!("{at}.attention.{p}_proj.weight"));
        let qkv_bias = [
            vector(&format!("{at}.attention.q_proj.bias")),
            vec![0.0; config.dim],
            vector(&format!("{at}.attention.v_proj.bias")),
        ];
        BlockWeights {
            norm1: norm(format!("{at}.norm1")),
            qkv: linear(&[part("q"), part("k"), part("v")], qkv_bias.concat()),
            proj: one(format!("{at}.attention.o_proj")),
            scale1: vector(&format!("{at}.layer_scale1.lambda1")),
            norm2: norm(format!("{at}.norm2")),
            feed_forward: if gated {
                FeedForwardWeights::SwiGlu {
                    gate: one(format!("{at}.mlp.gate_proj")),
                    up: one(format!("{at}.mlp.up_proj")),
                    down: one(format!("{at}.mlp.down_proj")),
                }
            } else {
                FeedForwardWeights::Mlp {
                    fc1: one(format!("{at}.mlp.up_proj")),
                    fc2: one(format!("{at}.mlp.down_proj")),
                }
            },
            scale2: vector(&format!("{at}.layer_scale2.lambda1")),
        }
    };
    let weights = VitWeights {
        cls: vector("embeddings.cls_token"),
        registers: vector("embeddings.register_tokens"),
        patch: one("embeddings.patch_embeddings".to_owned()),
        positions: None,
        blocks: (0..config.depth).map(block).collect(),
        norm: norm("norm".to_owned()),
        content_hash: String::new(),
    };
    (config, weights)
}

/// Patch embedding `[B, 1 + R + P, D]` of `pixels` `[B, 3, H, W]` in f64, and the patch grid.
pub(crate) fn embed(
    config: &VitConfig,
    weights: &VitWeights,
    pixels: &Tensor,
) -> (Vec<f32>, (usize, usize)) {
    let (height, width, side) = (pixels.shape[2], pixels.shape[3], config.patch_size);
    let grid = config.grid(height, width);
    let kernel: Vec<f64> = weights
        .patch
        .weight_f32()
        .iter()
        .map(|&w| f64::from(w))
        .collect();
    let mut out = Vec::new();
    for image in pixels.values.chunks_exact(3 * height * width) {
        out.extend_from_slice(&weights.cls);
        out.extend_from_slice(&weights.registers);
        for r in 0..grid.0 {
            for c in 0..grid.1 {
                let mut patch = Vec::new();
                for ch in 0..3 {
                    for y in 0..side {
                        let at = (ch * height + r * side + y) * width + c * side;
                        patch.extend_from_slice(&image[at..at + side]);
                    }
                }
                for (w, &b) in kernel.chunks_exact(patch.len()).zip(&weights.patch.bias) {
                    out.push(
                        (w.iter().zip(&patch).map(|(a, b)| a * b).sum::<f64>() + f64::from(b))
                            as f32,
                    );
                }
            }
        }
    }
    (out, grid)
}
