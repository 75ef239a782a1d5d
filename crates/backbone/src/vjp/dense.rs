//! A frozen linear layer that can be applied and transposed.

use flawtune_kernels::matmul::Op;
use flawtune_kernels::prepacked::{Prepacked, Scratch};

use crate::weights::Linear;

/// A linear layer with everything that surrounds it in a frozen block folded in, as row-major numbers.
#[derive(Debug)]
pub(super) struct Folded {
    /// `[outputs, inputs]`
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Folded {
    /// Folds a layer norm before it (`gain`, `shift` `[inputs]`) and a scale after it (`scale` `[outputs]`) into the
    /// layer: `W' = diag(scale) · W · diag(gain)`, `b' = scale ∘ (b + W · shift)`, computed in f64.
    pub(super) fn new(
        linear: &Linear,
        norm: Option<(&[f32], &[f32])>,
        scale: Option<&[f32]>,
    ) -> Self {
        let mut weight = linear.weight_f32();
        let mut bias = linear.bias.clone();
        for (o, row) in weight.chunks_exact_mut(linear.inputs).enumerate() {
            let scale = f64::from(scale.map_or(1.0, |s| s[o]));
            let mut b = f64::from(bias[o]);
            if let Some((gain, shift)) = norm {
                b += row
                    .iter()
                    .zip(shift)
                    .map(|(&w, &s)| f64::from(w) * f64::from(s))
                    .sum::<f64>();
                for (w, &g) in row.iter_mut().zip(gain) {
                    *w = (f64::from(*w) * f64::from(g) * scale) as f32;
                }
            } else {
                for w in row.iter_mut() {
                    *w = (f64::from(*w) * scale) as f32;
                }
            }
            bias[o] = (b * scale) as f32;
        }
        Self {
            weight,
            bias,
            inputs: linear.inputs,
        }
    }

    /// The layer with the outputs of `self`, then those of `other` (same inputs).
    pub(super) fn stacked(mut self, other: &Self) -> Self {
        self.weight.extend_from_slice(&other.weight);
        self.bias.extend_from_slice(&other.bias);
        self
    }

    /// Packs it for both directions.
    pub(super) fn pack(&self) -> Dense {
        let outputs = self.bias.len();
        Dense {
            forward: Prepacked::new(
                outputs,
                self.inputs,
                &self.weight,
                Op::Transpose,
                &self.bias,
            ),
            backward: Prepacked::new(self.inputs, outputs, &self.weight, Op::None, &[]),
        }
    }
}

/// A frozen linear layer, packed for both directions.
#[derive(Debug)]
pub(super) struct Dense {
    forward: Prepacked,
    backward: Prepacked,
}

impl Dense {
    /// `y = x Wᵀ + b` for `x` `[T, inputs]`; `y += …` with `accumulate`.
    pub(super) fn forward(
        &self,
        x: &[f32],
        y: &mut [f32],
        accumulate: bool,
        scratch: &mut Scratch,
    ) {
        self.forward.multiply(x, y, accumulate, scratch);
    }

    /// `grad_x = grad_y W` for `grad_y` `[T, outputs]`.
    pub(super) fn backward(&self, grad_y: &[f32], grad_x: &mut [f32], scratch: &mut Scratch) {
        self.backward.multiply(grad_y, grad_x, false, scratch);
    }
}
