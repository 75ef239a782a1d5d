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
            write_prompts(
                prompts,
                self.keep(keep, index + 1),
                dim,
                &mut x[self.prompt_rows()],
            );
        }
    }

    /// Leaves in `x` what enters the first block: `tokens_in` with the first prompts between.
    fn enter(&self, tokens_in: &[f32], keep: Option<&[f32]>, x: &mut Vec<f32>) {
        let rows = self.prompt_rows();
        x.resize(self.shape().tokens * self.config.dim, 0.0);
        x[..rows.start].copy_from_slice(&tokens_in[..rows.start]);
        x[rows.end..].copy_from_slice(&tokens_in[rows.start..]);
        if let Some(prompts) = self.insertions.prompts(0) {
            write_prompts(prompts, self.keep(keep, 0), self.config.dim, &mut x[rows]);
        }
    }

    /// Runs the blocks up to the last layer and shows each block's attention weights `[T, T]`, averaged over its heads.
    pub(super) fn attentions(
        &self,
        tokens_in: &[f32],
        on_block: &mut dyn FnMut(usize, &[f32]),
        room: &mut Room,
    ) {
        let shape = self.shape();
        let Room {
            block, adapter, x, ..
        } = room;
        self.enter(tokens_in, None, x);
        let mut mean = vec![0.0; shape.tokens * shape.tokens];
        let last = self.layers.last().copied().unwrap_or(0);
        for (i, b) in self.blocks.iter().enumerate().take(last + 1) {
            b.attention(shape, x, self.rope, block, &mut mean);
            on_block(i, &mean);
            b.forward(shape, x, self.rope, block);
            self.between(i, x, None, adapter, |_| {});
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
        let size = shape.tokens * self.config.dim;
        let Room {
            block,
            adapter,
            x,
            normal,
            inverse,
            ..
        } = room;
        self.enter(tokens_in, keep, x);
        let mut kept = Vec::with_capacity(if record {
            size * (self.config.depth + 1)
        } else {
            0
        });
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
    fn features(
        &self,
        shape: Shape,
        x: &[f32],
        normal: &mut Vec<f32>,
        inverse: &mut Vec<f32>,
    ) -> Vec<f32> {
        let dim = self.config.dim;
        normal.resize(x.len(), 0.0);
        inverse.resize(shape.tokens, 0.0);
        normalise(x, dim, self.config.norm_eps, normal, inverse);
        let rows = normal[..dim]
            .chunks_exact(dim)
            .chain(normal[shape.prefix * dim..].chunks_exact(dim));
        rows.flat_map(|row| {
            row.iter()
                .zip(self.norm.weight.iter().zip(&self.norm.bias))
                .map(|(n, (g, b))| n * g + b)
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
        let rows = class[..dim]
            .chunks_exact_mut(dim)
            .chain(rest.chunks_exact_mut(dim));
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
        let mut gradients = Insertions::zeros(*self.insertions.spec())?;
        let rows = self.prompt_rows();
        // without prompts nothing trainable lies below the first adapter
        if !wants_input && rows.is_empty() {
            self.descend(kept, keep, grad_features, 1, &mut gradients, room);
            self.output_backward(0, kept, grad_features, &mut gradients, room);
            return Ok((gradients, Vec::new()));
        }
        self.descend(kept, keep, grad_features, 0, &mut gradients, room);
        self.fresh_backward(0, keep, &mut gradients, &mut room.grad);
        let grad = &room.grad;
        let input = if wants_input {
            [&grad[..rows.start], &grad[rows.end..]].concat()
        } else {
            Vec::new()
        };
        Ok((gradients, input))
    }

    /// What entered block `block` (its adapters applied, its prompts written), and the gradient with respect to it:
    /// `[T, D]` each.
    pub(super) fn at_block(
        &self,
        kept: &[f32],
        keep: Option<&[f32]>,
        grad_features: &[&[f32]],
        block: usize,
        room: &mut Room,
    ) -> Result<(Vec<f32>, Vec<f32>), VjpError> {
        let mut gradients = Insertions::zeros(*self.insertions.spec())?;
        self.descend(kept, keep, grad_features, block, &mut gradients, room);
        Ok((room.x.clone(), room.grad.clone()))
    }

    /// Walks back from the last layer through block `until`. Leaves in `room.x` what entered that block and in `room.grad`
    /// the gradient with respect to it, that of its prompts included.
    fn descend(
        &self,
        kept: &[f32],
        keep: Option<&[f32]>,
        grad_features: &[&[f32]],
        until: usize,
        gradients: &mut Insertions,
        room: &mut Room,
    ) {
        let shape = self.shape();
        let size = shape.tokens * self.config.dim;
        room.x.resize(size, 0.0);
        room.grad.clear();
        room.grad.resize(size, 0.0);
        let last = self.layers.last().copied().unwrap_or(0);
        for i in (until..=last).rev() {
            self.output_backward(i, kept, grad_features, gradients, room);
            let Room {
                block,
                adapter,
                x,
                grad,
                ..
            } = room;
            x.copy_from_slice(&kept[i * size..(i + 1) * size]);
            if i > 0 {
                self.between(i - 1, x, keep, adapter, |_| {});
            }
            self.blocks[i].backward(shape, x, self.rope, grad, block);
            if i > until {
                self.fresh_backward(i, keep, gradients, grad);
            }
        }
    }

    /// Turns the gradient with respect to the tokens after block `i` and its adapter into that with respect to the block's
    /// own output, what reaches it through the features of that layer included.
    fn output_backward(
        &self,
        i: usize,
        kept: &[f32],
        grad_features: &[&[f32]],
        gradients: &mut Insertions,
        room: &mut Room,
    ) {
        let shape = self.shape();
        let (dim, size) = (self.config.dim, shape.tokens * self.config.dim);
        let Room {
            adapter: adapter_room,
            x,
            grad,
            normal,
            grad_normal,
            inverse,
            ..
        } = room;
        let output = &kept[(i + 1) * size..(i + 2) * size];
        let adapter = self.insertions.adapter(i);
        if let Some(layer) = self.layers.iter().position(|&l| l == i) {
            x.copy_from_slice(output);
            if let Some(adapter) = adapter {
                adapter.forward(x, dim, adapter_room);
            }
            self.features_backward(
                shape,
                x,
                grad_features[layer],
                normal,
                grad_normal,
                inverse,
                grad,
            );
        }
        if let Some(adapter) = adapter {
            adapter.backward(i, output, grad, dim, adapter_room, gradients);
        }
    }

    /// Takes the gradient of the prompts that were written before block `i` out of `grad` `[T, D]`.
    fn fresh_backward(
        &self,
        i: usize,
        keep: Option<&[f32]>,
        gradients: &mut Insertions,
        grad: &mut [f32],
    ) {
        if let Some(prompts) = self.insertions.prompts(i) {
            let mut to = gradients.prompts_mut(i);
            prompts_backward(
                prompts,
                self.keep(keep, i),
                self.config.dim,
                &mut grad[self.prompt_rows()],
                &mut to,
            );
        }
    }
}
