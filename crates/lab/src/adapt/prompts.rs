//! Prompts and how tokens attend to them: the softmax over prompts and its gradient.

use flawtune_kernels::matmul::{Op, matmul};

use flawtune::unit::{NORM_EPSILON, add_scaled, dot, norm, unit_backward};

/// Scaled prompts `s = prompts · scales` and their unit vectors, for one forward or backward pass.
#[derive(Debug)]
pub(super) struct PreparedPrompts {
    /// Number of prompts, K.
    pub(super) count: usize,
    /// Numbers per prompt, D.
    pub(super) dim: usize,
    /// `s`, `[K, D]`.
    pub(super) scaled: Vec<f32>,
    /// `unit(s)`, `[K, D]`.
    pub(super) unit: Vec<f32>,
    /// `‖s‖`, `[K]`.
    norms: Vec<f64>,
}

impl PreparedPrompts {
    /// From `prompts` `[K, D]` and `scales` `[K]`.
    pub(super) fn new(prompts: &[f32], scales: &[f32]) -> Self {
        let count = scales.len();
        let dim = prompts.len() / count;
        let mut scaled = prompts.to_vec();
        for (row, &scale) in scaled.chunks_exact_mut(dim).zip(scales) {
            for v in row {
                *v *= scale;
            }
        }
        let mut unit = scaled.clone();
        let mut norms = vec![0.0; count];
        flawtune::unit::normalise_rows(&mut unit, dim, &mut norms);
        Self {
            count,
            dim,
            scaled,
            unit,
            norms,
        }
    }

    /// `attention[p, k] = softmax_k cos(row_p, s_k)` for the rows `[P, D]` of one image; `[P, K]`.
    pub(super) fn attend(&self, rows: &[f32], attention: &mut [f32]) {
        let p = rows.len() / self.dim;
        matmul(
            p,
            self.count,
            self.dim,
            rows,
            Op::None,
            &self.unit,
            Op::Transpose,
            attention,
            false,
        );
        for (row, logits) in rows
            .chunks_exact(self.dim)
            .zip(attention.chunks_exact_mut(self.count))
        {
            let inverse = 1.0 / (norm(row) + NORM_EPSILON);
            for l in logits.iter_mut() {
                *l = (f64::from(*l) * inverse) as f32;
            }
            softmax(logits);
        }
    }

    /// Gradient of the attention of one image.
    ///
    /// `grad_mix` `[P, D]` is the gradient with respect to `factor⁻¹ · attention · s`. Writes the gradient with
    /// respect to the cosines to `grad_logits` `[P, K]` and this image's parts of the gradients with respect to
    /// `s` as mixed, and to `unit(s)`, each `[K, D]`. Returns `Σ grad_mix ∘ (attention · s)`.
    pub(super) fn attend_backward(
        &self,
        rows: &[f32],
        attention: &[f32],
        grad_mix: &[f32],
        factor: f32,
        grad_logits: &mut [f32],
        grad_scaled: &mut [f32],
        grad_unit: &mut [f32],
    ) -> f64 {
        let (p, k, d) = (rows.len() / self.dim, self.count, self.dim);
        matmul(
            k,
            d,
            p,
            attention,
            Op::Transpose,
            grad_mix,
            Op::None,
            grad_scaled,
            false,
        );
        for v in grad_scaled.iter_mut() {
            *v *= factor;
        }
        matmul(
            p,
            k,
            d,
            grad_mix,
            Op::None,
            &self.scaled,
            Op::Transpose,
            grad_logits,
            false,
        );
        let mut total = 0.0;
        for (a, g) in attention
            .chunks_exact(k)
            .zip(grad_logits.chunks_exact_mut(k))
        {
            total += softmax_backward(a, g, factor);
        }
        self.unit_gradient(rows, grad_logits, grad_unit);
        total
    }

    /// `grad_unit = (grad_logits / (‖row‖ + ε))ᵀ · rows`, the gradient with respect to `unit(s)`, `[K, D]`.
    fn unit_gradient(&self, rows: &[f32], grad_logits: &[f32], grad_unit: &mut [f32]) {
        let (p, k, d) = (rows.len() / self.dim, self.count, self.dim);
        let mut shares = grad_logits.to_vec();
        for (row, share) in rows.chunks_exact(d).zip(shares.chunks_exact_mut(k)) {
            let inverse = 1.0 / (norm(row) + NORM_EPSILON);
            for v in share {
                *v = (f64::from(*v) * inverse) as f32;
            }
        }
        matmul(
            k,
            d,
            p,
            &shares,
            Op::Transpose,
            rows,
            Op::None,
            grad_unit,
            false,
        );
    }

    /// Adds the gradient with respect to one row that reaches it through its cosines; `room` is `[D]`.
    pub(super) fn row_gradient(
        &self,
        row: &[f32],
        grad_logits: &[f32],
        room: &mut [f32],
        grad_row: &mut [f32],
    ) {
        room.fill(0.0);
        for (u, &g) in self.unit.chunks_exact(self.dim).zip(grad_logits) {
            add_scaled(room, g, u);
        }
        let length = norm(row);
        let inverse = 1.0 / (length + NORM_EPSILON);
        let unit: Vec<f32> = row
            .iter()
            .map(|&v| (f64::from(v) * inverse) as f32)
            .collect();
        unit_backward(&unit, length, room);
        add_scaled(grad_row, 1.0, room);
    }

    /// Adds the gradients with respect to the prompts `[K, D]` and the scales `[K]` from the parts of all images.
    /// `parts` holds for each image `grad_scaled` then `grad_unit`, `[images, 2, K, D]`; they are summed in f64 in
    /// the order of the images.
    pub(super) fn finish(
        &self,
        parts: &[f32],
        prompts: &[f32],
        scales: &[f32],
        grad_prompts: &mut [f32],
        grad_scales: &mut [f32],
    ) {
        let (k, d) = (self.count, self.dim);
        let mut total = vec![0.0f64; 2 * k * d];
        for image in parts.chunks_exact(2 * k * d) {
            total
                .iter_mut()
                .zip(image)
                .for_each(|(t, &v)| *t += f64::from(v));
        }
        let (mixed, unit) = total.split_at(k * d);
        let mut through = vec![0.0f32; d];
        for i in 0..k {
            let span = i * d..(i + 1) * d;
            through
                .iter_mut()
                .zip(&unit[span.clone()])
                .for_each(|(t, &v)| *t = v as f32);
            unit_backward(&self.unit[span.clone()], self.norms[i], &mut through);
            for (t, &m) in through.iter_mut().zip(&mixed[span.clone()]) {
                *t += m as f32;
            }
            grad_scales[i] += dot(&through, &prompts[span.clone()]) as f32;
            add_scaled(&mut grad_prompts[span], scales[i], &through);
        }
    }
}

/// Softmax in place, summed in f64.
pub(super) fn softmax(logits: &mut [f32]) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for l in &mut *logits {
        *l = (*l - top).exp();
        sum += f64::from(*l);
    }
    let inverse = 1.0 / sum;
    for l in logits.iter_mut() {
        *l = (f64::from(*l) * inverse) as f32;
    }
}

/// Gradient of a softmax with weights `w`, in place in `g`, times `factor`. Returns `Σ w ∘ g` of the `g` given.
pub(super) fn softmax_backward(w: &[f32], g: &mut [f32], factor: f32) -> f64 {
    let along: f64 = w
        .iter()
        .zip(&*g)
        .map(|(&w, &g)| f64::from(w) * f64::from(g))
        .sum();
    for (g, &w) in g.iter_mut().zip(w) {
        *g = (f64::from(factor) * f64::from(w) * (f64::from(*g) - along)) as f32;
    }
    along
}
