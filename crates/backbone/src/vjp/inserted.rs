//! What prompts and adapters do to the tokens of one image, and the gradients that come back.

use flawtune_kernels::matmul::Op;
use flawtune_kernels::pointwise::{gelu, gelu_backward};
use flawtune_kernels::prepacked::{Scratch, multiply};

use super::insertions::{Adapter, AdapterPart, Insertions, PromptsMut};
use super::normalise::dot;

/// Room for one adapter on one image.
#[derive(Debug, Default)]
pub(super) struct AdapterRoom {
    /// Before and after the activation, and its gradient: `[T, r]` each.
    inner: Vec<f32>,
    active: Vec<f32>,
    grad_inner: Vec<f32>,
    /// Output of the second layer, and its gradient: `[T, D]` each.
    outer: Vec<f32>,
    grad_outer: Vec<f32>,
    /// Gradient of one weight or bias.
    grad: Vec<f32>,
    scratch: Scratch,
}

/// The learned factor of channel `i`: none, one for all, or one for each.
fn factor(scales: &[f32], i: usize) -> f32 {
    match scales.len() {
        0 => 1.0,
        1 => scales[0],
        _ => scales[i],
    }
}

/// Adds `Σ_row grad ∘ value` to the gradients of the factors of these rows.
fn factor_gradient(grad: &[f32], value: &[f32], dim: usize, scales: &mut [f32]) {
    for (g, v) in grad.chunks_exact(dim).zip(value.chunks_exact(dim)) {
        match *scales {
            [] => return,
            [ref mut one] => *one += dot(g, v),
            ref mut each => each
                .iter_mut()
                .zip(g.iter().zip(v))
                .for_each(|(s, (g, v))| *s += g * v),
        }
    }
}

/// Writes the prompts of a set into `rows` `[K, D]`, times the learned factors and `keep` `[K]` (dropout).
pub(super) fn write_prompts(
    (prompts, scales): (&[f32], &[f32]),
    keep: Option<&[f32]>,
    dim: usize,
    rows: &mut [f32],
) {
    for (k, (row, prompt)) in rows
        .chunks_exact_mut(dim)
        .zip(prompts.chunks_exact(dim))
        .enumerate()
    {
        let keep = keep.map_or(1.0, |m| m[k]);
        for (i, (to, p)) in row.iter_mut().zip(prompt).enumerate() {
            *to = keep * factor(scales, i) * p;
        }
    }
}

/// Adds the gradients of a set of prompts, from that of its `rows` `[K, D]`; these become 0 on the way, since the
/// tokens that were there before do not reach the output.
pub(super) fn prompts_backward(
    (prompts, scales): (&[f32], &[f32]),
    keep: Option<&[f32]>,
    dim: usize,
    rows: &mut [f32],
    grad: &mut PromptsMut<'_>,
) {
    for (k, row) in rows.chunks_exact_mut(dim).enumerate() {
        let keep = keep.map_or(1.0, |m| m[k]);
        let at = k * dim..(k + 1) * dim;
        for g in row.iter_mut() {
            *g *= keep;
        }
        factor_gradient(row, &prompts[at.clone()], dim, grad.scales);
        for (i, (to, g)) in grad.prompts[at].iter_mut().zip(row.iter()).enumerate() {
            *to += factor(scales, i) * g;
        }
        row.fill(0.0);
    }
}

impl Adapter<'_> {
    /// Leaves the hidden layer and the output of the second layer for `x` `[T, D]` in `room`.
    fn branch(&self, x: &[f32], dim: usize, room: &mut AdapterRoom) {
        let (t, r) = (x.len() / dim, self.inner);
        for b in [&mut room.inner, &mut room.active, &mut room.grad_inner] {
            b.resize(t * r, 0.0);
        }
        for b in [&mut room.outer, &mut room.grad_outer] {
            b.resize(t * dim, 0.0);
        }
        multiply(
            t,
            r,
            dim,
            x,
            Op::None,
            self.down,
            Op::Transpose,
            &mut room.inner,
            false,
            &mut room.scratch,
        );
        add_bias(&mut room.inner, self.down_bias);
        gelu(&room.inner, &mut room.active);
        multiply(
            t,
            dim,
            r,
            &room.active,
            Op::None,
            self.up,
            Op::Transpose,
            &mut room.outer,
            false,
            &mut room.scratch,
        );
        add_bias(&mut room.outer, self.up_bias);
    }

    /// `x ← x + scales ∘ (up(gelu(down(x))))` for `x` `[T, D]`.
    pub(super) fn forward(&self, x: &mut [f32], dim: usize, room: &mut AdapterRoom) {
        self.branch(x, dim, room);
        for (row, branch) in x.chunks_exact_mut(dim).zip(room.outer.chunks_exact(dim)) {
            for (i, (v, b)) in row.iter_mut().zip(branch).enumerate() {
                *v += factor(self.scales, i) * b;
            }
        }
    }

    /// Adds this adapter's gradients to `gradients` (it is the one after block `index`) and turns `grad` `[T, D]`,
    /// the gradient with respect to its output, into that with respect to its input `x`.
    pub(super) fn backward(
        &self,
        index: usize,
        x: &[f32],
        grad: &mut [f32],
        dim: usize,
        room: &mut AdapterRoom,
        gradients: &mut Insertions,
    ) {
        self.branch(x, dim, room);
        let (t, r) = (x.len() / dim, self.inner);
        let AdapterRoom {
            inner,
            active,
            grad_inner,
            outer,
            grad_outer,
            grad: sum,
            scratch,
        } = room;
        if !self.scales.is_empty() {
            sum.clear();
            sum.resize(self.scales.len(), 0.0);
            factor_gradient(grad, outer, dim, sum);
            gradients.add(AdapterPart::Scales, index, sum);
        }
        for (to, from) in grad_outer.chunks_exact_mut(dim).zip(grad.chunks_exact(dim)) {
            for (i, (to, g)) in to.iter_mut().zip(from).enumerate() {
                *to = factor(self.scales, i) * g;
            }
        }
        gradients.add(
            AdapterPart::UpBias,
            index,
            column_sums(grad_outer, dim, sum),
        );
        sum.resize(dim * r, 0.0);
        multiply(
            dim,
            r,
            t,
            grad_outer,
            Op::Transpose,
            active,
            Op::None,
            sum,
            false,
            scratch,
        );
        gradients.add(AdapterPart::Up, index, sum);
        multiply(
            t,
            r,
            dim,
            grad_outer,
            Op::None,
            self.up,
            Op::None,
            grad_inner,
            false,
            scratch,
        );
        gelu_backward(inner, grad_inner);
        gradients.add(
            AdapterPart::DownBias,
            index,
            column_sums(grad_inner, r, sum),
        );
        sum.resize(dim * r, 0.0);
        multiply(
            r,
            dim,
            t,
            grad_inner,
            Op::Transpose,
            x,
            Op::None,
            sum,
            false,
            scratch,
        );
        gradients.add(AdapterPart::Down, index, sum);
        multiply(
            t,
            dim,
            r,
            grad_inner,
            Op::None,
            self.down,
            Op::None,
            grad,
            true,
            scratch,
        );
    }
}

/// Adds `bias` to every row; an empty one adds nothing.
fn add_bias(rows: &mut [f32], bias: &[f32]) {
    if !bias.is_empty() {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
    }
}

/// Σ over the rows, into `sum`.
fn column_sums<'a>(rows: &[f32], width: usize, sum: &'a mut Vec<f32>) -> &'a [f32] {
    sum.clear();
    sum.resize(width, 0.0);
    for row in rows.chunks_exact(width) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    sum
}
