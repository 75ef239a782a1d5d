//! Modulation `per_patch`, and with one row per image the modulation of the class token:
//! `out = x + α · softmax_k(cos(x, s_k)) · s`.

use flawtune_kernels::matmul::{Op, matmul};
use rayon::prelude::*;

use super::modulation::resize;
use super::prompts::PreparedPrompts;
use super::{Gradients, Modulation, Parameters, Tape};

/// Every row gets its own mixture of the prompts. Tensors: `prompts` `[K, D]`, `prompt_scales` `[K]`.
#[derive(Debug, Clone)]
pub(super) struct PerPatch {
    parameters: Parameters,
    scaling_factor: f32,
}

impl PerPatch {
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
}

impl Modulation for PerPatch {
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
        let mixture: Vec<f32> = s.scaled.iter().map(|v| v * self.scaling_factor).collect();
        let attention = resize(&mut tape.buffers[0], images.len() * rows * s.count);
        images
            .par_iter()
            .zip(out.par_chunks_exact_mut(size))
            .zip(attention.par_chunks_exact_mut(rows * s.count))
            .for_each(|((image, out), attention)| {
                s.attend(image, attention);
                out.copy_from_slice(image);
                matmul(
                    rows,
                    s.dim,
                    s.count,
                    attention,
                    Op::None,
                    &mixture,
                    Op::None,
                    out,
                    true,
                );
            });
    }

    fn attend(&self, image: &[f32]) -> Vec<f32> {
        let s = self.prepare();
        let mut attention = vec![0.0; image.len() / s.dim * s.count];
        s.attend(image, &mut attention);
        attention
    }

    fn mix(&self, image: &[f32], attention: &[f32], out: &mut [f32]) {
        let s = self.prepare();
        let mixture: Vec<f32> = s.scaled.iter().map(|v| v * self.scaling_factor).collect();
        out.copy_from_slice(image);
        let rows = image.len() / s.dim;
        matmul(
            rows,
            s.dim,
            s.count,
            attention,
            Op::None,
            &mixture,
            Op::None,
            out,
            true,
        );
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
        let [attention, logits, parts, ..] = &mut tape.buffers;
        let grad_logits = resize(logits, images.len() * rows * s.count);
        let parts = resize(parts, images.len() * 2 * kd);
        let totals: Vec<f64> = images
            .par_iter()
            .zip(grad_out.par_chunks_exact(size))
            .zip(attention.par_chunks_exact(rows * s.count))
            .zip(grad_logits.par_chunks_exact_mut(rows * s.count))
            .zip(parts.par_chunks_exact_mut(2 * kd))
            .map(|((((image, grad), attention), logits), parts)| {
                let (scaled, unit) = parts.split_at_mut(kd);
                s.attend_backward(
                    image,
                    attention,
                    grad,
                    self.scaling_factor,
                    logits,
                    scaled,
                    unit,
                )
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
        flawtune::unit::add_scaled(gradients.parameters.at_mut(1), 1.0, &grad_scales);
        if let Some(grad_in) = grad_in {
            grad_in.copy_from_slice(grad_out);
            images
                .par_iter()
                .zip(grad_in.par_chunks_exact_mut(size))
                .zip(grad_logits.par_chunks_exact(rows * s.count))
                .for_each(|((image, grad), logits)| {
                    let mut room = vec![0.0; s.dim];
                    let rows = image.chunks_exact(s.dim).zip(grad.chunks_exact_mut(s.dim));
                    for ((row, grad), logits) in rows.zip(logits.chunks_exact(s.count)) {
                        s.row_gradient(row, logits, &mut room, grad);
                    }
                });
        }
    }

    fn boxed_clone(&self) -> Box<dyn Modulation> {
        Box::new(self.clone())
    }
}
