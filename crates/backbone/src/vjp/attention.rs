//! Self-attention of one image, forward and backward, a head at a time.

use flawtune_kernels::matmul::Op;
use flawtune_kernels::pointwise::exp;
use flawtune_kernels::prepacked::{Scratch, multiply};

use super::normalise::{dot, sum};
use super::rope::Rotation;

/// Sizes of the attention of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Tokens, prompts included.
    pub(super) tokens: usize,
    /// Heads.
    pub(super) heads: usize,
    /// Numbers per head.
    pub(super) head_dim: usize,
    /// Tokens before the patches: they are not rotated.
    pub(super) prefix: usize,
}

impl Shape {
    fn dim(self) -> usize {
        self.heads * self.head_dim
    }
}

/// Room for one head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Rotated queries, keys, and values `[T, head_dim]` each.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Attention weights `[T, T]`.
    p: Vec<f32>,
    /// Their gradient, then that of the logits.
    dp: Vec<f32>,
    /// Output or its gradient `[T, head_dim]`.
    o: Vec<f32>,
    /// Gradient of q, k or v.
    d: Vec<f32>,
    scratch: Scratch,
}

impl Head {
    fn resize(&mut self, shape: Shape) {
        let rows = shape.tokens * shape.head_dim;
        for b in [
            &mut self.q,
            &mut self.k,
            &mut self.v,
            &mut self.o,
            &mut self.d,
        ] {
            b.resize(rows, 0.0);
        }
        for b in [&mut self.p, &mut self.dp] {
            b.resize(shape.tokens * shape.tokens, 0.0);
        }
    }

    /// Reads head `h` out of `qkv` `[T, 3·dim]`, rotates, and computes the attention weights. The softmax scale is
    /// part of the query weights.
    fn weights(&mut self, shape: Shape, qkv: &[f32], h: usize, rope: Option<&Rotation>) {
        let (t, d) = (shape.tokens, shape.head_dim);
        for (part, to) in [&mut self.q, &mut self.k, &mut self.v]
            .into_iter()
            .enumerate()
        {
            gather(qkv, 3 * shape.dim(), part * shape.dim() + h * d, d, to);
        }
        if let Some(rope) = rope {
            for rows in [&mut self.q, &mut self.k] {
                for (i, row) in rows.chunks_exact_mut(d).skip(shape.prefix).enumerate() {
                    rope.rotate(i, row, false);
                }
            }
        }
        multiply(
            t,
            t,
            d,
            &self.q,
            Op::None,
            &self.k,
            Op::Transpose,
            &mut self.p,
            false,
            &mut self.scratch,
        );
        for row in self.p.chunks_exact_mut(t) {
            softmax(row);
        }
    }
}

/// `context` `[T, dim]` = attention over `qkv` `[T, 3·dim]`, heads side by side.
pub(super) fn forward(
    shape: Shape,
    qkv: &[f32],
    rope: Option<&Rotation>,
    context: &mut [f32],
    room: &mut Head,
) {
    let (t, d) = (shape.tokens, shape.head_dim);
    room.resize(shape);
    for h in 0..shape.heads {
        room.weights(shape, qkv, h, rope);
        multiply(
            t,
            d,
            t,
            &room.p,
            Op::None,
            &room.v,
            Op::None,
            &mut room.o,
            false,
            &mut room.scratch,
        );
        scatter(&room.o, d, context, shape.dim(), h * d);
    }
}

/// Writes the attention weights `[T, T]`, averaged over the heads, to `mean`: row i is what token i looks at, and sums to 1.
pub(super) fn head_mean(
    shape: Shape,
    qkv: &[f32],
    rope: Option<&Rotation>,
    mean: &mut [f32],
    room: &mut Head,
) {
    room.resize(shape);
    mean.fill(0.0);
    let share = 1.0 / shape.heads as f32;
    for h in 0..shape.heads {
        room.weights(shape, qkv, h, rope);
        mean.iter_mut()
            .zip(&room.p)
            .for_each(|(m, p)| *m += share * p);
    }
}

/// Writes the gradient with respect to `qkv` to `grad_qkv` `[T, 3·dim]`, from that of the context `[T, dim]`.
pub(super) fn backward(
    shape: Shape,
    qkv: &[f32],
    rope: Option<&Rotation>,
    grad_context: &[f32],
    grad_qkv: &mut [f32],
    room: &mut Head,
) {
    let (t, d, dim) = (shape.tokens, shape.head_dim, shape.dim());
    room.resize(shape);
    for h in 0..shape.heads {
        room.weights(shape, qkv, h, rope);
        let Head {
            q,
            k,
            v,
            p,
            dp,
            o,
            d: grad,
            scratch,
        } = room;
        gather(grad_context, dim, h * d, d, o);
        // values
        multiply(t, d, t, p, Op::Transpose, o, Op::None, grad, false, scratch);
        scatter(grad, d, grad_qkv, 3 * dim, 2 * dim + h * d);
        // logits: p ∘ (dp − Σ p·dp)
        multiply(t, t, d, o, Op::None, v, Op::Transpose, dp, false, scratch);
        for (p, dp) in p.chunks_exact(t).zip(dp.chunks_exact_mut(t)) {
            let mean = dot(p, dp);
            for (g, p) in dp.iter_mut().zip(p) {
                *g = p * (*g - mean);
            }
        }
        for (part, op, other) in [(0, Op::None, &*k), (1, Op::Transpose, &*q)] {
            multiply(t, d, t, dp, op, other, Op::None, grad, false, scratch);
            if let Some(rope) = rope {
                for (i, row) in grad.chunks_exact_mut(d).skip(shape.prefix).enumerate() {
                    rope.rotate(i, row, true);
                }
            }
            scatter(grad, d, grad_qkv, 3 * dim, part * dim + h * d);
        }
    }
}

/// Replaces a row of logits by its softmax.
fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    exp(row, max);
    let inverse = 1.0 / sum(row);
    for v in row.iter_mut() {
        *v *= inverse;
    }
}

/// Copies `width` columns from `start` of rows of `stride` numbers to dense rows.
fn gather(from: &[f32], stride: usize, start: usize, width: usize, to: &mut [f32]) {
    for (row, to) in from.chunks_exact(stride).zip(to.chunks_exact_mut(width)) {
        to.copy_from_slice(&row[start..start + width]);
    }
}

/// The reverse of [`gather`].
fn scatter(from: &[f32], width: usize, to: &mut [f32], stride: usize, start: usize) {
    for (from, row) in from.chunks_exact(width).zip(to.chunks_exact_mut(stride)) {
        row[start..start + width].copy_from_slice(from);
    }
}
