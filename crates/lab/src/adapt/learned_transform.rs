//! Modulation `learned_transform`: `out = x + α · MLP([x, w·s])` with `w = softmax_k cos(x, s_k)` and
//! `MLP = Linear(2D → D), GELU(erf), Linear(D → D)`.

use flawtune_kernels::matmul::{Op, matmul};
use rayon::prelude::*;

use super::modulation::resize;
use super::prompts::PreparedPrompts;
use super::{Gradients, Modulation, Parameters, Tape};
use flawtune::unit::add_scaled;

/// Rows that go through the MLP at once. A bound on working memory, and small enough to stay in the cache; fixed,
/// so that sums over rows do not depend on the number of threads.
const ROWS_AT_ONCE: usize = 1024;

/// A two-layer perceptron per patch. Tensors: `prompts` `[K, D]`, `prompt_scales` `[K]`, `mlp.0.weight` `[D, 2D]`,
/// `mlp.0.bias` `[D]`, `mlp.2.weight` `[D, D]`, `mlp.2.bias` `[D]`.
#[derive(Debug, Clone)]
pub(super) struct LearnedTransform {
    parameters: Parameters,
    scaling_factor: f32,
}

impl LearnedTransform {
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

    /// Writes the changed tokens of some images with their attention weights `[images, rows, K]`; `pre` `[images, rows, D]`
    /// is left with what enters the GELU.
    fn transform(
        &self,
        s: &PreparedPrompts,
        images: &[&[f32]],
        attention: &[f32],
        [pre, joined, hidden]: [&mut Vec<f32>; 3],
        out: &mut [f32],
    ) {
        let (size, rows, d) = (images[0].len(), images[0].len() / s.dim, s.dim);
        let [w0, b0, w2, b2] = [2, 3, 4, 5].map(|i| self.parameters.at(i));
        let at_once = (ROWS_AT_ONCE / rows).max(1);
        for (c, images) in images.chunks(at_once).enumerate() {
            let (n, from) = (images.len() * rows, c * at_once * rows);
            let joined = resize(joined, n * 2 * d);
            join(
                s,
                images,
                &attention[from * s.count..][..n * s.count],
                joined,
            );
            let pre = &mut pre[from * d..][..n * d];
            matmul(n, d, 2 * d, joined, Op::None, w0, Op::Transpose, pre, false);
            let hidden = resize(hidden, n * d);
            hidden
                .par_chunks_exact_mut(d)
                .zip(pre.par_chunks_exact_mut(d))
                .for_each(|(h, p)| {
                    for ((h, p), b) in h.iter_mut().zip(p).zip(b0) {
                        *p += b;
                        *h = gelu(*p);
                    }
                });
            let out = &mut out[from * d..][..n * d];
            matmul(n, d, d, hidden, Op::None, w2, Op::Transpose, out, false);
            out.par_chunks_exact_mut(size)
                .zip(images)
                .for_each(|(out, image)| {
                    for (out, row) in out.chunks_exact_mut(d).zip(image.chunks_exact(d)) {
                        for ((o, x), b) in out.iter_mut().zip(row).zip(b2) {
                            *o = x + self.scaling_factor * (*o + b);
                        }
                    }
                });
        }
    }
}

/// `[x, attention · s]` of some images, `[rows, 2D]`.
fn join(s: &PreparedPrompts, images: &[&[f32]], attention: &[f32], joined: &mut [f32]) {
    let size = images[0].len();
    let rows = size / s.dim;
    images
        .par_iter()
        .zip(attention.par_chunks_exact(rows * s.count))
        .zip(joined.par_chunks_exact_mut(2 * size))
        .for_each(|((image, attention), joined)| {
            let mut mix = vec![0.0; size];
            matmul(
                rows,
                s.dim,
                s.count,
                attention,
                Op::None,
                &s.scaled,
                Op::None,
                &mut mix,
                false,
            );
            let pairs = image.chunks_exact(s.dim).zip(mix.chunks_exact(s.dim));
            for (to, (x, m)) in joined.chunks_exact_mut(2 * s.dim).zip(pairs) {
                to[..s.dim].copy_from_slice(x);
                to[s.dim..].copy_from_slice(m);
            }
        });
}

/// `x · Φ(x)`, exact in erf.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `1 / √(2π)`, the height of the normal density.
const INVERSE_ROOT_TWO_PI: f32 = 0.398_942_3;

/// Replaces the gradient with respect to `gelu(pre)` by that with respect to `pre` and returns `Σ grad ∘ gelu(pre)`
/// of the gradient given.
fn through_gelu(grad: &mut [f32], pre: &[f32]) -> f64 {
    let mut total = 0.0;
    for (g, &p) in grad.iter_mut().zip(pre) {
        let below = 0.5 * (1.0 + libm::erff(p * std::f32::consts::FRAC_1_SQRT_2));
        total += f64::from(*g) * f64::from(p * below);
        *g *= p.mul_add((-0.5 * p * p).exp() * INVERSE_ROOT_TWO_PI, below);
    }
    total
}

/// Adds the column sums of `rows` to `sums`.
fn add_columns(rows: &[f32], sums: &mut [f64]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(s, &v)| *s += f64::from(v));
    }
}

impl Modulation for LearnedTransform {
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
        let [attention, pre, joined, hidden, ..] = &mut tape.buffers;
        let attention = resize(attention, images.len() * rows * s.count);
        resize(pre, images.len() * size);
        images
            .par_iter()
            .zip(attention.par_chunks_exact_mut(rows * s.count))
            .for_each(|(image, attention)| s.attend(image, attention));
        self.transform(&s, images, attention, [pre, joined, hidden], out);
    }

    fn attend(&self, image: &[f32]) -> Vec<f32> {
        let s = self.prepare();
        let mut attention = vec![0.0; image.len() / s.dim * s.count];
        s.attend(image, &mut attention);
        attention
    }

    fn mix(&self, image: &[f32], attention: &[f32], out: &mut [f32]) {
        let [mut pre, mut joined, mut hidden] = [vec![0.0; image.len()], Vec::new(), Vec::new()];
        self.transform(
            &self.prepare(),
            &[image],
            attention,
            [&mut pre, &mut joined, &mut hidden],
            out,
        );
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one pass over buffers that its parts share"
    )]
    fn backward(
        &self,
        images: &[&[f32]],
        tape: &mut Tape,
        grad_out: &[f32],
        gradients: &mut Gradients,
        mut grad_in: Option<&mut [f32]>,
    ) {
        let Some(first) = images.first() else { return };
        let s = self.prepare();
        let (size, rows, d, kd) = (first.len(), first.len() / s.dim, s.dim, s.count * s.dim);
        let alpha = self.scaling_factor;
        let [attention, pre, joined, hidden, parts, logits] = &mut tape.buffers;
        let parts = resize(parts, images.len() * 2 * kd);
        let [w0, _, w2, b2] = [2, 3, 4, 5].map(|i| self.parameters.at(i));
        let (mut sum_b0, mut sum_b2) = (vec![0.0f64; d], vec![0.0f64; d]);
        // gradients of the weights before the factor α
        let (mut grad_w0, mut grad_w2) = (vec![0.0f32; 2 * d * d], vec![0.0f32; d * d]);
        let mut total = 0.0f64;
        let at_once = (ROWS_AT_ONCE / rows).max(1);
        let mut grad_mix = Vec::new();
        // the halves of W0 that see the token and the mix of prompts; the token's gradient is seldom asked for
        let half = |at: usize| -> Vec<f32> {
            w0.chunks_exact(2 * d)
                .flat_map(|row| &row[at..at + d])
                .copied()
                .collect()
        };
        let (of_row, of_mix) = (
            if grad_in.is_some() {
                half(0)
            } else {
                Vec::new()
            },
            half(d),
        );
        for (c, images) in images.chunks(at_once).enumerate() {
            let (n, from) = (images.len() * rows, c * at_once * rows);
            let attention = &attention[from * s.count..][..n * s.count];
            let grad = &grad_out[from * d..][..n * d];
            let pre = &pre[from * d..][..n * d];
            let joined = resize(joined, n * 2 * d);
            join(&s, images, attention, joined);
            let hidden = resize(hidden, n * d);
            hidden
                .par_iter_mut()
                .zip(pre)
                .for_each(|(h, &p)| *h = gelu(p));
            add_columns(grad, &mut sum_b2);
            matmul(
                d,
                d,
                n,
                grad,
                Op::Transpose,
                hidden,
                Op::None,
                &mut grad_w2,
                true,
            );
            // hidden now becomes the gradient with respect to itself, then to what entered the GELU
            matmul(n, d, d, grad, Op::None, w2, Op::None, hidden, false);
            let totals: Vec<f64> = hidden
                .par_chunks_exact_mut(d)
                .zip(pre.par_chunks_exact(d))
                .map(|(row, pre)| through_gelu(row, pre))
                .collect();
            total += totals.iter().sum::<f64>();
            add_columns(hidden, &mut sum_b0);
            matmul(
                d,
                2 * d,
                n,
                hidden,
                Op::Transpose,
                joined,
                Op::None,
                &mut grad_w0,
                true,
            );
            let grad_mix = resize(&mut grad_mix, n * d);
            matmul(
                n,
                d,
                d,
                hidden,
                Op::None,
                &of_mix,
                Op::None,
                grad_mix,
                false,
            );
            let grad_logits = resize(logits, n * s.count);
            images
                .par_iter()
                .zip(attention.par_chunks_exact(rows * s.count))
                .zip(grad_mix.par_chunks_exact(size))
                .zip(grad_logits.par_chunks_exact_mut(rows * s.count))
                .zip(parts[c * at_once * 2 * kd..].par_chunks_exact_mut(2 * kd))
                .for_each(|((((image, attention), grad_mix), logits), parts)| {
                    let (scaled, unit) = parts.split_at_mut(kd);
                    s.attend_backward(image, attention, grad_mix, alpha, logits, scaled, unit);
                });
            if let Some(grad_in) = grad_in.as_deref_mut() {
                let grad_in = &mut grad_in[from * d..][..n * d];
                grad_in.copy_from_slice(grad);
                // the mix's gradient is used up
                matmul(
                    n,
                    d,
                    d,
                    hidden,
                    Op::None,
                    &of_row,
                    Op::None,
                    grad_mix,
                    false,
                );
                let lines = grad_in
                    .par_chunks_exact_mut(d)
                    .zip(grad_mix.par_chunks_exact(d));
                lines
                    .zip(grad_logits.par_chunks_exact(s.count))
                    .enumerate()
                    .for_each(|(r, ((grad, through), logits))| {
                        add_scaled(grad, alpha, through);
                        let row = &images[r / rows][r % rows * d..][..d];
                        s.row_gradient(row, logits, &mut vec![0.0; d], grad);
                    });
            }
        }
        total += sum_b2
            .iter()
            .zip(b2)
            .map(|(g, &b)| g * f64::from(b))
            .sum::<f64>();
        gradients.scaling_factor += total;
        let mut grad_scales = vec![0.0; s.count];
        s.finish(
            parts,
            self.parameters.at(0),
            self.parameters.at(1),
            gradients.parameters.at_mut(0),
            &mut grad_scales,
        );
        add_scaled(gradients.parameters.at_mut(1), 1.0, &grad_scales);
        add_scaled(gradients.parameters.at_mut(2), alpha, &grad_w0);
        add_scaled(gradients.parameters.at_mut(4), alpha, &grad_w2);
        for (index, sums) in [(3, sum_b0), (5, sum_b2)] {
            for (g, s) in gradients.parameters.at_mut(index).iter_mut().zip(sums) {
                *g += (f64::from(alpha) * s) as f32;
            }
        }
    }

    fn boxed_clone(&self) -> Box<dyn Modulation> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{gelu, through_gelu};

    /// `torch.nn.functional.gelu` and its gradient in f64 at −2, −0.5, 0, 1, 3.
    #[test]
    fn gelu_is_the_exact_erf_form() {
        let expected = [
            (-2.0, -0.045_500_264, -0.085_231_8),
            (-0.5, -0.154_268_77, 0.132_504_88),
            (0.0, 0.0, 0.5),
            (1.0, 0.841_344_8, 1.083_315_5),
            (3.0, 2.995_950_2, 1.011_945_6),
        ];
        for (x, value, slope) in expected {
            assert!((gelu(x) - value).abs() < 2e-7, "gelu({x})");
            let mut grad = [1.0];
            assert!((through_gelu(&mut grad, &[x]) - f64::from(value)).abs() < 2e-7);
            assert!((grad[0] - slope).abs() < 2e-7, "gelu'({x})");
        }
    }
}
