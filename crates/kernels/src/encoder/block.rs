//! The weights of one transformer block, packed for the kernels in use.

use rayon::prelude::*;

use super::Shape;
use super::weight::{PackedLinear, Precision, Source};
use crate::kernels::Kernels;

/// A linear layer as its file has it: row-major weight `[outputs, inputs]` and bias `[outputs]`.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    /// `[outputs, inputs]`
    pub weight: &'a [f32],
    /// `[outputs]`
    pub bias: &'a [f32],
}

/// Gain and bias of a layer norm, `[dim]` each.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Gain.
    pub weight: &'a [f32],
    /// Bias.
    pub bias: &'a [f32],
}

/// The feed-forward part of a block.
#[derive(Debug, Clone, Copy)]
pub enum FeedForward<'a> {
    /// `fc2(gelu(fc1(x)))`
    Mlp {
        /// `[hidden, dim]`
        fc1: Dense<'a>,
        /// `[dim, hidden]`
        fc2: Dense<'a>,
    },
    /// `down(silu(gate(x)) · up(x))`
    Gated {
        /// `[hidden, dim]`
        gate: Dense<'a>,
        /// `[hidden, dim]`
        up: Dense<'a>,
        /// `[dim, hidden]`
        down: Dense<'a>,
    },
}

/// The weights of one pre-norm block:
/// `x += scale1 · proj(attention(norm1(x)))`, then `x += scale2 · feed_forward(norm2(x))`.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Norm before attention.
    pub norm1: Affine<'a>,
    /// `[3·dim, dim]`, rows q, k, v, each head by head.
    pub qkv: Dense<'a>,
    /// `[dim, dim]`
    pub proj: Dense<'a>,
    /// `[dim]`
    pub scale1: &'a [f32],
    /// Norm before the feed-forward part.
    pub norm2: Affine<'a>,
    /// Feed-forward part.
    pub feed_forward: FeedForward<'a>,
    /// `[dim]`
    pub scale2: &'a [f32],
}

/// A [`Block`] in the kernels' layout. Norm gains and biases, the attention scale and the layer scales are folded
/// into its weights; the rows of q and k are ordered so that the two halves of a rotated pair share a tile.
#[derive(Debug)]
pub struct PackedBlock {
    pub(super) precision: Precision,
    pub(super) qkv: PackedLinear,
    pub(super) proj: PackedLinear,
    pub(super) fc1: PackedLinear,
    pub(super) fc2: PackedLinear,
}

impl PackedBlock {
    /// Its layers in the order in which they run.
    pub(super) fn layers(&mut self) -> [&mut PackedLinear; 4] {
        [&mut self.qkv, &mut self.proj, &mut self.fc1, &mut self.fc2]
    }

    /// Packs `block` of an encoder of the given shape in the given precision, its layers in parallel.
    ///
    /// # Panics
    /// If a slice is not as long as the shape says.
    pub fn pack(shape: &Shape, block: &Block<'_>, precision: Precision) -> Self {
        Self::pack_with(crate::dispatch::active(), shape, block, precision)
    }

    pub(crate) fn pack_with(
        kernels: &Kernels,
        shape: &Shape,
        block: &Block<'_>,
        precision: Precision,
    ) -> Self {
        let (dim, hidden) = (shape.dim, shape.hidden);
        check(&block.qkv, 3 * dim, dim, "qkv");
        check(&block.proj, dim, dim, "proj");
        for (norm, name) in [(block.norm1, "norm1"), (block.norm2, "norm2")] {
            assert!(
                norm.weight.len() == dim && norm.bias.len() == dim,
                "{name} is [dim] twice"
            );
        }
        assert!(
            block.scale1.len() == dim && block.scale2.len() == dim,
            "layer scales are [dim]"
        );
        let parts: Vec<PackedLinear> = (0..4)
            .into_par_iter()
            .map(|part| match part {
                0 => pack_qkv(kernels, shape, block, precision),
                1 => pack_scaled(kernels, precision, dim, dim, block.proj, block.scale1),
                2 => pack_hidden(kernels, shape, block, precision),
                _ => {
                    let dense = match block.feed_forward {
                        FeedForward::Mlp { fc2, .. } => fc2,
                        FeedForward::Gated { down, .. } => down,
                    };
                    check(&dense, dim, hidden, "fc2");
                    pack_scaled(kernels, precision, hidden, dim, dense, block.scale2)
                }
            })
            .collect();
        let mut parts = parts.into_iter();
        let mut next = || {
            parts
                .next()
                .unwrap_or_else(|| unreachable!("four parts were packed"))
        };
        Self {
            precision,
            qkv: next(),
            proj: next(),
            fc1: next(),
            fc2: next(),
        }
    }
}

fn check(dense: &Dense<'_>, outputs: usize, inputs: usize, name: &str) {
    assert_eq!(
        dense.weight.len(),
        outputs * inputs,
        "{name} weight is [outputs, inputs]"
    );
    assert_eq!(dense.bias.len(), outputs, "{name} bias is [outputs]");
}

fn pack_qkv(
    kernels: &Kernels,
    shape: &Shape,
    block: &Block<'_>,
    precision: Precision,
) -> PackedLinear {
    let source = Source {
        weight: block.qkv.weight,
        bias: block.qkv.bias,
        norm: Some((block.norm1.weight, block.norm1.bias)),
    };
    let (dim, head_dim) = (shape.dim, shape.head_dim());
    let (rotary_dim, value_dim) = (
        shape.rotary_dim(kernels.rows),
        shape.value_dim(kernels.rows),
    );
    // softmax in base two: exp(x/√d) = 2^(x·log2(e)/√d)
    let scale = std::f64::consts::LOG2_E / (head_dim as f64).sqrt();
    let rows = 2 * shape.heads * rotary_dim + shape.heads * value_dim;
    PackedLinear::pack(kernels, precision, dim, rows / kernels.rows, |i| {
        if i < 2 * shape.heads * rotary_dim {
            let (qk, head) = (i / (shape.heads * rotary_dim), i / rotary_dim % shape.heads);
            let d = shape.rotary_source(i % rotary_dim)?;
            let scale = if qk == 0 { scale as f32 } else { 1.0 };
            Some((source, qk * dim + head * head_dim + d, scale))
        } else {
            let i = i - 2 * shape.heads * rotary_dim;
            let (head, d) = (i / value_dim, i % value_dim);
            (d < head_dim).then_some((source, 2 * dim + head * head_dim + d, 1.0))
        }
    })
}

fn pack_scaled(
    kernels: &Kernels,
    precision: Precision,
    inputs: usize,
    outputs: usize,
    dense: Dense<'_>,
    scale: &[f32],
) -> PackedLinear {
    let source = Source {
        weight: dense.weight,
        bias: dense.bias,
        norm: None,
    };
    PackedLinear::pack(
        kernels,
        precision,
        inputs,
        outputs.div_ceil(kernels.rows),
        |i| (i < outputs).then(|| (source, i, scale[i])),
    )
}

fn pack_hidden(
    kernels: &Kernels,
    shape: &Shape,
    block: &Block<'_>,
    precision: Precision,
) -> PackedLinear {
    let (dim, hidden, rows) = (shape.dim, shape.hidden, kernels.rows);
    let norm = Some((block.norm2.weight, block.norm2.bias));
    match block.feed_forward {
        FeedForward::Mlp { fc1, .. } => {
            assert!(!shape.gated, "the shape asks for a gated feed-forward part");
            check(&fc1, hidden, dim, "fc1");
            let source = Source {
                weight: fc1.weight,
                bias: fc1.bias,
                norm,
            };
            PackedLinear::pack(kernels, precision, dim, hidden.div_ceil(rows), |i| {
                (i < hidden).then_some((source, i, 1.0))
            })
        }
        FeedForward::Gated { gate, up, .. } => {
            assert!(shape.gated, "the shape asks for a plain feed-forward part");
            check(&gate, hidden, dim, "gate");
            check(&up, hidden, dim, "up");
            let half = rows / 2;
            PackedLinear::pack(kernels, precision, dim, hidden.div_ceil(half), |i| {
                let dense = if i % rows < half { gate } else { up };
                let from = i / rows * half + i % half;
                let source = Source {
                    weight: dense.weight,
                    bias: dense.bias,
                    norm,
                };
                (from < hidden).then_some((source, from, 1.0))
            })
        }
    }
}
