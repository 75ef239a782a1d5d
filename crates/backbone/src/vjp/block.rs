//! One frozen block on one image: forward, and backward with its insides recomputed.

use flawtune_kernels::pointwise::{gated, gated_backward, gelu, gelu_backward};
use flawtune_kernels::prepacked::Scratch;

use crate::config::VitConfig;
use crate::weights::{BlockWeights, FeedForwardWeights};

use super::attention::{self, Head, Shape};
use super::dense::{Dense, Folded};
use super::normalise::{normalise, normalise_backward};
use super::rope::Rotation;

/// A block with gains, biases of its norms, `LayerScale` and the softmax scale folded into four linear layers.
#[derive(Debug)]
pub(super) struct Block {
    qkv: Dense,
    proj: Dense,
    /// `[hidden]`, or `[2·hidden]` with the gate first.
    rise: Dense,
    fall: Dense,
    gated: bool,
    hidden: usize,
    dim: usize,
    eps: f32,
}

/// Room for one block on one image; reused from block to block.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    head: Head,
    scratch: Scratch,
    normal1: Vec<f32>,
    inverse1: Vec<f32>,
    normal2: Vec<f32>,
    inverse2: Vec<f32>,
    qkv: Vec<f32>,
    grad_qkv: Vec<f32>,
    context: Vec<f32>,
    middle: Vec<f32>,
    rise: Vec<f32>,
    active: Vec<f32>,
    grad: Vec<f32>,
}

impl Block {
    /// Folds and lays out the weights of one block.
    pub(super) fn new(config: &VitConfig, weights: &BlockWeights) -> Self {
        let norm1 = (&weights.norm1.weight[..], &weights.norm1.bias[..]);
        let norm2 = (&weights.norm2.weight[..], &weights.norm2.bias[..]);
        let mut qkv_scale = vec![1.0; 3 * config.dim];
        qkv_scale[..config.dim].fill(1.0 / (config.head_dim() as f32).sqrt());
        let (rise, fall, gated) = match &weights.feed_forward {
            FeedForwardWeights::Mlp { fc1, fc2 } => {
                (Folded::new(fc1, Some(norm2), None), fc2, false)
            }
            FeedForwardWeights::SwiGlu { gate, up, down } => {
                let up = Folded::new(up, Some(norm2), None);
                (
                    Folded::new(gate, Some(norm2), None).stacked(&up),
                    down,
                    true,
                )
            }
        };
        Self {
            qkv: Folded::new(&weights.qkv, Some(norm1), Some(&qkv_scale)).pack(),
            proj: Folded::new(&weights.proj, None, Some(&weights.scale1)).pack(),
            rise: rise.pack(),
            fall: Folded::new(fall, None, Some(&weights.scale2)).pack(),
            gated,
            hidden: config.hidden,
            dim: config.dim,
            eps: config.norm_eps,
        }
    }

    fn resize(&self, tokens: usize, ws: &mut Workspace) {
        let rows = tokens * self.dim;
        for b in [
            &mut ws.normal1,
            &mut ws.normal2,
            &mut ws.context,
            &mut ws.middle,
            &mut ws.grad,
        ] {
            b.resize(rows, 0.0);
        }
        for b in [&mut ws.qkv, &mut ws.grad_qkv] {
            b.resize(3 * rows, 0.0);
        }
        for b in [&mut ws.inverse1, &mut ws.inverse2] {
            b.resize(tokens, 0.0);
        }
        ws.rise
            .resize(tokens * self.hidden * if self.gated { 2 } else { 1 }, 0.0);
        ws.active.resize(tokens * self.hidden, 0.0);
    }

    /// Up to the hidden layer before its activation, leaving everything the backward pass needs in `ws`.
    fn first_half(&self, shape: Shape, x: &[f32], rope: Option<&Rotation>, ws: &mut Workspace) {
        self.resize(shape.tokens, ws);
        normalise(x, self.dim, self.eps, &mut ws.normal1, &mut ws.inverse1);
        self.qkv
            .forward(&ws.normal1, &mut ws.qkv, false, &mut ws.scratch);
        attention::forward(shape, &ws.qkv, rope, &mut ws.context, &mut ws.head);
        ws.middle.copy_from_slice(x);
        self.proj
            .forward(&ws.context, &mut ws.middle, true, &mut ws.scratch);
        normalise(
            &ws.middle,
            self.dim,
            self.eps,
            &mut ws.normal2,
            &mut ws.inverse2,
        );
        self.rise
            .forward(&ws.normal2, &mut ws.rise, false, &mut ws.scratch);
    }

    /// Replaces `x` `[T, dim]` by the output of the block.
    pub(super) fn forward(
        &self,
        shape: Shape,
        x: &mut [f32],
        rope: Option<&Rotation>,
        ws: &mut Workspace,
    ) {
        self.first_half(shape, x, rope, ws);
        if self.gated {
            let rows = ws
                .rise
                .chunks_exact(2 * self.hidden)
                .zip(ws.active.chunks_exact_mut(self.hidden));
            for (both, active) in rows {
                let (gate, up) = both.split_at(self.hidden);
                gated(gate, up, active);
            }
        } else {
            gelu(&ws.rise, &mut ws.active);
        }
        x.copy_from_slice(&ws.middle);
        self.fall.forward(&ws.active, x, true, &mut ws.scratch);
    }

    /// Writes the attention weights inside of the block, averaged over its heads, to `mean` `[T, T]`.
    pub(super) fn attention(
        &self,
        shape: Shape,
        x: &[f32],
        rope: Option<&Rotation>,
        ws: &mut Workspace,
        mean: &mut [f32],
    ) {
        self.resize(shape.tokens, ws);
        normalise(x, self.dim, self.eps, &mut ws.normal1, &mut ws.inverse1);
        self.qkv
            .forward(&ws.normal1, &mut ws.qkv, false, &mut ws.scratch);
        attention::head_mean(shape, &ws.qkv, rope, mean, &mut ws.head);
    }

    /// Replaces `grad` `[T, dim]`, the gradient with respect to the output, by that with respect to the input `x`.
    pub(super) fn backward(
        &self,
        shape: Shape,
        x: &[f32],
        rope: Option<&Rotation>,
        grad: &mut [f32],
        ws: &mut Workspace,
    ) {
        self.first_half(shape, x, rope, ws);
        self.fall.backward(grad, &mut ws.active, &mut ws.scratch);
        if self.gated {
            let rows = ws
                .rise
                .chunks_exact_mut(2 * self.hidden)
                .zip(ws.active.chunks_exact(self.hidden));
            for (both, active) in rows {
                let (gate, up) = both.split_at_mut(self.hidden);
                gated_backward(gate, up, active);
            }
            self.rise.backward(&ws.rise, &mut ws.grad, &mut ws.scratch);
        } else {
            gelu_backward(&ws.rise, &mut ws.active);
            self.rise
                .backward(&ws.active, &mut ws.grad, &mut ws.scratch);
        }
        normalise_backward(&ws.normal2, &ws.inverse2, &ws.grad, self.dim, grad);
        self.proj.backward(grad, &mut ws.context, &mut ws.scratch);
        attention::backward(
            shape,
            &ws.qkv,
            rope,
            &ws.context,
            &mut ws.grad_qkv,
            &mut ws.head,
        );
        self.qkv
            .backward(&ws.grad_qkv, &mut ws.grad, &mut ws.scratch);
        normalise_backward(&ws.normal1, &ws.inverse1, &ws.grad, self.dim, grad);
    }
}
