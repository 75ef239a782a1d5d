//! Modulation `global`: every prompt attends to the patches of an image, and the mean of what they see is added to
//! every patch: `v = softmax_p cos(s_k, x_p)`, `e = mean_k v · x`, `out = x + α · e`.

use flawtune_kernels::matmul::{Op, matmul};
use rayon::prelude::*;

use super::modulation::resize;
use super::prompts::{PreparedPrompts, softmax, softmax_backward};
use super::{Gradients, Modulation, Parameters, Tape};
use flawtune::unit::{NORM_EPSILON, add_scaled, dot, norm};

/// One vector per image for all its patches. Tensors: `prompts` `[K, D]`, `prompt_scales` `[K]`.
///
/// The scales enter only through the 1e-8 beside a norm: their gradient is of that size and their trained values
/// are rounding noise.
#[derive(Debug, Clone)]
pub(super) struct Global {
    parameters: Parameters,
    scaling_factor: f32,
}

impl Global {
    /// Over tensors whose layout has been checked.
    pub(super) fn new(parameters: Parameters, scaling_factor: f32) -> Self {
        Self {
            parameters,
            scaling_factor,
        }
    }

    fn prepare(&self) -> PreparedPrompts {
        PreparedPrompts::new(self.parameters.at(0), self.parameters.at(1))
    }

    /// `out = image + α · e` of one image, with its attention `[K, rows]`.
    fn add(&self, s: &PreparedPrompts, image: &[f32], attention: &[f32], out: &mut [f32]) {
        let e = seen(&mean_over_prompts(attention, s.count), image, s.dim);
        let e: Vec<f32> = e
            .iter()
            .map(|v| (f64::from(self.scaling_factor) * v) as f32)
            .collect();
        for (out, row) in out.chunks_exact_mut(s.dim).zip(image.chunks_exact(s.dim)) {
            out.iter_mut()
                .zip(row)
                .zip(&e)
                .for_each(|((o, x), e)| *o = x + e);
        }
    }
}

/// Attention `[K, rows]` of the prompts over the rows of one image.
fn attend(s: &PreparedPrompts, image: &[f32], attention: &mut [f32]) {
    let rows = image.len() / s.dim;
    matmul(
        s.count,
        rows,
        s.dim,
        &s.unit,
        Op::None,
        image,
        Op::Transpose,
        attention,
        false,
    );
    divide_by_norms(attention, image, s.dim);
    attention.chunks_exact_mut(rows).for_each(softmax);
}

/// The transpose of a matrix with rows of `width` numbers.
fn transposed(matrix: &[f32], width: usize) -> Vec<f32> {
    (0..width)
        .flat_map(|c| matrix.iter().skip(c).step_by(width).copied())
        .collect()
}

/// Divides column `p` of `matrix` (`[K, P]`) by `‖row_p‖ + ε`.
fn divide_by_norms(matrix: &mut [f32], rows: &[f32], dim: usize) {
    let p = rows.len() / dim;
    let inverse: Vec<f64> = rows
        .chunks_exact(dim)
        .map(|r| 1.0 / (norm(r) + NORM_EPSILON))
        .collect();
    for line in matrix.chunks_exact_mut(p) {
        line.iter_mut()
            .zip(&inverse)
            .for_each(|(v, i)| *v = (f64::from(*v) * i) as f32);
    }
}

/// `mean_k attention[k, p]` for every patch, f64.
fn mean_over_prompts(attention: &[f32], count: usize) -> Vec<f64> {
    let p = attention.len() / count;
    let mut mean = vec![0.0f64; p];
    for line in attention.chunks_exact(p) {
        mean.iter_mut()
            .zip(line)
            .for_each(|(m, &v)| *m += f64::from(v));
    }
    for m in &mut mean {
        *m /= count as f64;
    }
    mean
}

/// `e = Σ_p mean[p] · row_p`, f64.
fn seen(mean: &[f64], rows: &[f32], dim: usize) -> Vec<f64> {
    let mut e = vec![0.0f64; dim];
    for (row, m) in rows.chunks_exact(dim).zip(mean) {
        e.iter_mut()
            .zip(row)
            .for_each(|(e, &v)| *e += m * f64::from(v));
    }
    e
}

impl Modulation for Global {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(&self, images: &[&[f32]], out: &mut [f32], tape: &mut Tape) {
        let Some(first) = images.first() else { return };
        let s = self.prepare();
        let (size, rows) = (first.len(), first.len() / s.dim);
        let attention = resize(&mut tape.buffers[0], images.len() * rows * s.count);
        images
            .par_iter()
            .zip(out.par_chunks_exact_mut(size))
            .zip(attention.par_chunks_exact_mut(rows * s.count))
            .for_each(|((image, out), attention)| {
                attend(&s, image, attention);
                self.add(&s, image, attention, out);
            });
    }

    fn attend(&self, image: &[f32]) -> Vec<f32> {
        let s = self.prepare();
        let rows = image.len() / s.dim;
        let mut attention = vec![0.0; s.count * rows];
        attend(&s, image, &mut attention);
        transposed(&attention, rows)
    }

    fn mix(&self, image: &[f32], attention: &[f32], out: &mut [f32]) {
        let s = self.prepare();
        self.add(&s, image, &transposed(attention, s.count), out);
    }

    fn backward(
        &self,
        images: &[&[f32]],
        tape: &mut Tape,
        grad_out: &[f32],
        gradients: &mut Gradients,
        grad_in: Option<&mut [f32]>,
    ) {
        let Some(first) = images.first() else { return };
        let s = self.prepare();
        let (size, rows, kd) = (first.len(), first.len() / s.dim, s.count * s.dim);
        let [attention, logits, parts, summed, ..] = &mut tape.buffers;
        let grad_logits = resize(logits, images.len() * rows * s.count);
        let parts = resize(parts, images.len() * 2 * kd);
        let summed = resize(summed, images.len() * s.dim);
        let totals: Vec<f64> = images
            .par_iter()
            .zip(grad_out.par_chunks_exact(size))
            .zip(attention.par_chunks_exact(rows * s.count))
            .zip(grad_logits.par_chunks_exact_mut(rows * s.count))
            .zip(parts.par_chunks_exact_mut(2 * kd))
            .zip(summed.par_chunks_exact_mut(s.dim))
            .map(|(((((image, grad), attention), logits), parts), summed)| {
                let g = seen(&vec![1.0; rows], grad, s.dim);
                let e = seen(&mean_over_prompts(attention, s.count), image, s.dim);
                let total = g.iter().zip(&e).map(|(g, e)| g * e).sum::<f64>();
                // gradient with respect to e
                summed
                    .iter_mut()
                    .zip(&g)
                    .for_each(|(t, g)| *t = (f64::from(self.scaling_factor) * g) as f32);
                let share = 1.0 / s.count as f64;
                let per_patch: Vec<f32> = image
                    .chunks_exact(s.dim)
                    .map(|row| (share * dot(row, summed)) as f32)
                    .collect();
                for (line, w) in logits
                    .chunks_exact_mut(rows)
                    .zip(attention.chunks_exact(rows))
                {
                    line.copy_from_slice(&per_patch);
                    softmax_backward(w, line, 1.0);
                }
                let (scaled, unit) = parts.split_at_mut(kd);
                scaled.fill(0.0);
                let mut shares = logits.to_vec();
                divide_by_norms(&mut shares, image, s.dim);
                matmul(
                    s.count,
                    s.dim,
                    rows,
                    &shares,
                    Op::None,
                    image,
                    Op::None,
                    unit,
                    false,
                );
                total
            })
            .collect();
        gradients.scaling_factor += totals.iter().sum::<f64>();
        let mut grad_scales = vec![0.0; s.count];
        s.finish(
            parts,
            self.parameters.at(0),
            self.parameters.at(1),
            gradients.parameters.at_mut(0),
            &mut grad_scales,
        );
        add_scaled(gradients.parameters.at_mut(1), 1.0, &grad_scales);
        if let Some(grad_in) = grad_in {
            grad_in.copy_from_slice(grad_out);
            images
                .par_iter()
                .zip(grad_in.par_chunks_exact_mut(size))
                .zip(grad_logits.par_chunks_exact(rows * s.count))
                .zip(attention.par_chunks_exact(rows * s.count))
                .zip(summed.par_chunks_exact(s.dim))
                .for_each(|((((image, grad), logits), attention), summed)| {
                    let mean = mean_over_prompts(attention, s.count);
                    let (mut room, mut column) = (vec![0.0; s.dim], vec![0.0; s.count]);
                    let lines = image.chunks_exact(s.dim).zip(grad.chunks_exact_mut(s.dim));
                    for (p, (row, grad)) in lines.enumerate() {
                        add_scaled(grad, mean[p] as f32, summed);
                        column
                            .iter_mut()
                            .enumerate()
                            .for_each(|(k, c)| *c = logits[k * rows + p]);
                        s.row_gradient(row, &column, &mut room, grad);
                    }
                });
        }
    }

    fn boxed_clone(&self) -> Box<dyn Modulation> {
        Box::new(self.clone())
    }
}
