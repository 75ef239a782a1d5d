//! One image through all blocks, there and back.

use crate::config::VitConfig;
use crate::weights::Norm;

use super::VjpError;
use super::attention::Shape;
use super::block::{Block, Workspace};
use super::inserted::{AdapterRoom, prompts_backward, write_prompts};
use super::insertions::Insertions;
use super::normalise::{normalise, normalise_backward};
use super::rope::Rotation;

/// Everything that all images of a pass share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) config: &'a VitConfig,
    pub(super) blocks: &'a [Block],
    pub(super) norm: &'a Norm,
    pub(super) insertions: &'a Insertions,
    pub(super) layers: &'a [usize],
    pub(super) grid: (usize, usize),
    pub(super) rope: Option<&'a Rotation>,
}

/// A thread's room to work in.
#[derive(Debug, Default)]
pub(super) struct Room {
    block: Workspace,
    adapter: AdapterRoom,
    x: Vec<f32>,
    grad: Vec<f32>,
    normal: Vec<f32>,
    grad_normal: Vec<f32>,
    inverse: Vec<f32>,
}

impl Pass<'_> {
    fn shape(&self) -> Shape {
        let prefix = self.config.prefix() + self.insertions.spec().prompt_tokens();
        Shape {
            tokens: prefix + self.grid.0 * self.grid.1,
            heads: self.config.heads,
            head_dim: self.config.head_dim(),
            prefix,
        }
    }

    /// Where the prompts are in a `[T, D]` tensor.
    fn prompt_rows(&self) -> std::ops::Range<usize> {
        let start = self.config.prefix() * self.config.dim;
        start..start + self.insertions.spec().prompt_tokens() * self.config.dim
    }

    fn keep<'k>(&self, keep: Option<&'k [f32]>, set: usize) -> Option<&'k [f32]> {
        let k = self.insertions.spec().prompts;
        keep.map(|m| &m[set * k..(set + 1) * k])
    }

    /// What happens between the output of block `index` before its adapter and the next block: adapter, then fresh
    /// prompts. `before_prompts` sees the tokens in between, which are the block's output.
    fn between(
        &self,
        index: usize,
        x: &mut [f32],
        keep: Option<&[f32]>,
        room: &mut AdapterRoom,
        before_prompts: impl FnOnce(&[f32]),
    ) {
        let dim = self.config.dim;
        if let Some(adapter) = self.insertions.adapter(index) {
            adapter.forward(x, dim, room);
        }
        before_prompts(x);
        if index + 1 < self.config.depth
            && let Some(prompts) = self.insertions.prompts(index + 1)
        {
            write_prompts(prompts, self.keep(keep, index + 1), dim, &mut x[self.prompt_rows()]);
        }
    }

    /// Features `[1 + P, D]` of each layer, and, with `record`, the tokens that enter the first block followed by
    /// each block's output before its adapter.
    pub(super) fn forward(
        &self,
        tokens_in: &[f32],
        keep: Option<&[f32]>,
        record: bool,
        room: &mut Room,
    ) -> (Vec<Vec<f32>>, Vec<f32>) {
        let shape = self.shape();
        let (dim, size) = (self.config.dim, shape.tokens * self.config.dim);
        let Room { block, adapter, x, normal, inverse, .. } = room;
        let rows = self.prompt_rows();
        x.resize(size, 0.0);
        x[..rows.start].copy_from_slice(&tokens_in[..rows.start]);
        x[rows.end..].copy_from_slice(&tokens_in[rows.start..]);
        if let Some(prompts) = self.insertions.prompts(0) {
            write_prompts(prompts, self.keep(keep, 0), dim, &mut x[rows]);
        }
        let mut kept = Vec::with_capacity(if record { size * (self.config.depth + 1) } else { 0 });
        if record {
            kept.extend_from_slice(x);
        }
        let mut features = Vec::with_capacity(self.layers.len());
        let last = self.layers.last().copied().unwrap_or(0);
        for (i, b) in self.blocks.iter().enumerate().take(last + 1) {
            b.forward(shape, x, self.rope, block);
            if record {
                kept.extend_from_slice(x);
            }
            self.between(i, x, keep, adapter, |x| {
                if self.layers.contains(&i) {
                    features.push(self.features(shape, x, normal, inverse));
                }
            });
        }
        (features, kept)
    }

    /// Class token and patches after the final norm.
    fn features(&self, shape: Shape, x: &[f32], normal: &mut Vec<f32>, inverse: &mut Vec<f32>) -> Vec<f32> {
        let dim = self.config.dim;
        normal.resize(x.len(), 0.0);
        inverse.resize(shape.tokens, 0.0);
        normalise(x, dim, self.config.norm_eps, normal, inverse);
        let rows = normal[..dim].chunks_exact(dim).chain(normal[shape.prefix * dim..].chunks_exact(dim));
        rows.flat_map(|row| {
            row.iter().zip(self.norm.weight.iter().zip(&self.norm.bias)).map(|(n, (g, b))| n * g + b)
        })
        .collect()
    }

    /// Adds to `grad` `[T, D]` the gradient with respect to a block's output `x` that reaches it through the features.
    fn features_backward(
        &self,
        shape: Shape,
        x: &[f32],
        grad_features: &[f32],
        normal: &mut Vec<f32>,
        grad_normal: &mut Vec<f32>,
        inverse: &mut Vec<f32>,
        grad: &mut [f32],
    ) {
        let dim = self.config.dim;
        normal.resize(x.len(), 0.0);
        inverse.resize(shape.tokens, 0.0);
        normalise(x, dim, self.config.norm_eps, normal, inverse);
        grad_normal.clear();
        grad_normal.resize(x.len(), 0.0);
        let (class, rest) = grad_normal.split_at_mut(shape.prefix * dim);
        let rows = class[..dim].chunks_exact_mut(dim).chain(rest.chunks_exact_mut(dim));
        for (to, from) in rows.zip(grad_features.chunks_exact(dim)) {
            for ((to, g), w) in to.iter_mut().zip(from).zip(&self.norm.weight) {
                *to = g * w;
            }
        }
        normalise_backward(normal, inverse, grad_normal, dim, grad);
    }

    /// This image's gradients, and those of its `tokens_in` (empty unless `wants_input`).
    pub(super) fn backward(
        &self,
        kept: &[f32],
        keep: Option<&[f32]>,
        grad_features: &[&[f32]],
        wants_input: bool,
        room: &mut Room,
    ) -> Result<(Insertions, Vec<f32>), VjpError> {
        let shape = self.shape();
        let (dim, size) = (self.config.dim, shape.tokens * self.config.dim);
        let mut gradients = Insertions::zeros(*self.insertions.spec())?;
        let Room { block, adapter: adapter_room, x, grad, normal, grad_normal, inverse } = room;
        x.resize(size, 0.0);
        grad.clear();
        grad.resize(size, 0.0);
        let rows = self.prompt_rows();
        let last = self.layers.last().copied().unwrap_or(0);
        // without prompts nothing trainable lies below the first adapter
        let needs_first = wants_input || !rows.is_empty();
        for i in (0..=last).rev() {
            let output = &kept[(i + 1) * size..(i + 2) * size];
            let adapter = self.insertions.adapter(i);
            if let Some(layer) = self.layers.iter().position(|&l| l == i) {
                x.copy_from_slice(output);
                if let Some(adapter) = adapter {
                    adapter.forward(x, dim, adapter_room);
                }
                self.features_backward(shape, x, grad_features[layer], normal, grad_normal, inverse, grad);
            }
            if let Some(adapter) = adapter {
                adapter.backward(i, output, grad, dim, adapter_room, &mut gradients);
            }
            if i == 0 && !needs_first {
                break;
            }
            x.copy_from_slice(&kept[i * size..(i + 1) * size]);
            if i > 0 {
                self.between(i - 1, x, keep, adapter_room, |_| {});
            }
            self.blocks[i].backward(shape, x, self.rope, grad, block);
            if let Some(prompts) = self.insertions.prompts(i) {
                let mut to = gradients.prompts_mut(i);
                prompts_backward(prompts, self.keep(keep, i), dim, &mut grad[rows.clone()], &mut to);
            }
        }
        let input = if wants_input { [&grad[..rows.start], &grad[rows.end..]].concat() } else { Vec::new() };
        Ok((gradients, input))
    }
}
