//! Checks the weights of a file against the configuration and packs them for the kernels.

use flawtune_kernels::encoder::{
    Affine, Block, Dense, Encoder, FeedForward as Packed, PackedBlock, Precision, Shape,
};
use rayon::prelude::*;

use super::VitError;
use crate::config::{FeedForward, Position, VitConfig};
use crate::weights::{BlockWeights, FeedForwardWeights, Linear, Norm, VitWeights};

/// Colour channels of an image.
pub(crate) const CHANNELS: usize = 3;

/// Names what is checked in an error.
struct Checker<'a> {
    model: &'a str,
}

impl Checker<'_> {
    fn shape(&self, tensor: &str, wanted: &[usize], found: &[usize]) -> Result<(), VitError> {
        if wanted == found {
            return Ok(());
        }
        Err(VitError::Shape {
            model: self.model.to_owned(),
            tensor: tensor.to_owned(),
            wanted: wanted.to_vec(),
            found: found.to_vec(),
        })
    }

    fn linear(
        &self,
        name: &str,
        linear: &Linear,
        outputs: usize,
        inputs: usize,
    ) -> Result<(), VitError> {
        self.shape(
            &format!("{name}.weight"),
            &[outputs, inputs],
            &[linear.outputs, linear.inputs],
        )?;
        let stored: usize = linear
            .weight
            .iter()
            .map(crate::weights::StoredTensor::len)
            .sum();
        self.shape(&format!("{name}.weight"), &[outputs * inputs], &[stored])?;
        for tensor in &linear.weight {
            let bytes =
                tensor.storage.bytes().len().saturating_sub(tensor.offset) / tensor.dtype.size();
            if bytes < tensor.len() {
                return self.shape(&format!("{name}.weight"), &tensor.shape, &[bytes]);
            }
        }
        self.shape(&format!("{name}.bias"), &[outputs], &[linear.bias.len()])
    }

    fn norm(&self, name: &str, norm: &Norm, dim: usize) -> Result<(), VitError> {
        self.shape(&format!("{name}.weight"), &[dim], &[norm.weight.len()])?;
        self.shape(&format!("{name}.bias"), &[dim], &[norm.bias.len()])
    }
}

/// Checks that the numbers of the configuration can belong together.
pub(crate) fn check_config(config: &VitConfig) -> Result<(), VitError> {
    let wrong = |reason: String| {
        Err(VitError::Config {
            model: config.name.clone(),
            reason,
        })
    };
    let VitConfig {
        dim,
        heads,
        hidden,
        patch_size,
        ..
    } = *config;
    if [dim, heads, hidden, patch_size, config.depth].contains(&0) {
        return wrong(format!(
            "dim {dim}, heads {heads}, hidden {hidden}, patch_size {patch_size} and depth {} must be positive",
            config.depth
        ));
    }
    if !dim.is_multiple_of(heads) {
        return wrong(format!("dim {dim} is not a multiple of heads {heads}"));
    }
    match config.position {
        Position::Rope { .. } if !config.head_dim().is_multiple_of(4) => wrong(format!(
            "rotary positions need a head width that is a multiple of 4, not {}",
            config.head_dim()
        )),
        Position::Learned { grid: 0 } => wrong("the learned position table is empty".to_owned()),
        _ => Ok(()),
    }
}

/// Checks every tensor's shape.
pub(crate) fn check_weights(config: &VitConfig, weights: &VitWeights) -> Result<(), VitError> {
    let check = Checker {
        model: &config.name,
    };
    let (dim, hidden) = (config.dim, config.hidden);
    check.shape("class token", &[dim], &[weights.cls.len()])?;
    check.shape(
        "register tokens",
        &[config.registers * dim],
        &[weights.registers.len()],
    )?;
    check.linear(
        "patch embedding",
        &weights.patch,
        dim,
        CHANNELS * config.patch_size * config.patch_size,
    )?;
    match config.position {
        Position::Learned { grid } => check.shape(
            "position table",
            &[(1 + grid * grid) * dim],
            &[weights.positions.as_ref().map_or(0, Vec::len)],
        )?,
        Position::Rope { .. } => {}
    }
    check.shape("blocks", &[config.depth], &[weights.blocks.len()])?;
    for (i, block) in weights.blocks.iter().enumerate() {
        let name = |part: &str| format!("block {i}: {part}");
        check.norm(&name("norm1"), &block.norm1, dim)?;
        check.norm(&name("norm2"), &block.norm2, dim)?;
        check.linear(&name("qkv"), &block.qkv, 3 * dim, dim)?;
        check.linear(&name("proj"), &block.proj, dim, dim)?;
        check.shape(&name("scale1"), &[dim], &[block.scale1.len()])?;
        check.shape(&name("scale2"), &[dim], &[block.scale2.len()])?;
        match (&block.feed_forward, config.feed_forward) {
            (FeedForwardWeights::Mlp { fc1, fc2 }, FeedForward::Mlp) => {
                check.linear(&name("fc1"), fc1, hidden, dim)?;
                check.linear(&name("fc2"), fc2, dim, hidden)?;
            }
            (FeedForwardWeights::SwiGlu { gate, up, down }, FeedForward::SwiGlu) => {
                check.linear(&name("gate"), gate, hidden, dim)?;
                check.linear(&name("up"), up, hidden, dim)?;
                check.linear(&name("down"), down, dim, hidden)?;
            }
            _ => {
                return Err(VitError::Config {
                    model: config.name.clone(),
                    reason: format!(
                        "its feed-forward part is {:?}, block {i} has the other kind",
                        config.feed_forward
                    ),
                });
            }
        }
    }
    check.norm("final norm", &weights.norm, dim)
}

/// Packs checked weights, blocks in parallel.
pub(super) fn pack(config: &VitConfig, weights: &VitWeights, precision: Precision) -> Encoder {
    let shape = Shape {
        dim: config.dim,
        heads: config.heads,
        hidden: config.hidden,
        gated: config.feed_forward == FeedForward::SwiGlu,
        rotary: matches!(config.position, Position::Rope { .. }),
        eps: config.norm_eps,
    };
    let blocks = weights
        .blocks
        .par_iter()
        .map(|block| pack_block(&shape, block, precision))
        .collect();
    Encoder::new(
        shape,
        &weights.patch.weight_f32(),
        CHANNELS,
        config.patch_size,
        blocks,
    )
}

fn pack_block(shape: &Shape, block: &BlockWeights, precision: Precision) -> PackedBlock {
    let affine = |norm| -> Affine<'_> {
        let Norm { weight, bias }: &Norm = norm;
        Affine { weight, bias }
    };
    let (qkv, proj) = (block.qkv.weight_f32(), block.proj.weight_f32());
    let dense = |weight, linear| -> Dense<'_> {
        let linear: &Linear = linear;
        Dense {
            weight,
            bias: &linear.bias,
        }
    };
    let with = |feed_forward| {
        PackedBlock::pack(
            shape,
            &Block {
                norm1: affine(&block.norm1),
                qkv: dense(&qkv, &block.qkv),
                proj: dense(&proj, &block.proj),
                scale1: &block.scale1,
                norm2: affine(&block.norm2),
                feed_forward,
                scale2: &block.scale2,
            },
            precision,
        )
    };
    match &block.feed_forward {
        FeedForwardWeights::Mlp { fc1, fc2 } => {
            let (w1, w2) = (fc1.weight_f32(), fc2.weight_f32());
            with(Packed::Mlp {
                fc1: dense(&w1, fc1),
                fc2: dense(&w2, fc2),
            })
        }
        FeedForwardWeights::SwiGlu { gate, up, down } => {
            let (wg, wu, wd) = (gate.weight_f32(), up.weight_f32(), down.weight_f32());
            with(Packed::Gated {
                gate: dense(&wg, gate),
                up: dense(&wu, up),
                down: dense(&wd, down),
            })
        }
    }
}
