//! Self-scaling: any modulation with a learned factor on what it adds, `out = x + γ ∘ (modulated − x)`.
//!
//! γ is one number or one per channel. It starts at 1, where nothing is changed, and [`ScalePenalty`] holds it there
//! unless the images say otherwise.

use flawtune_backbone::vjp::Scaling;
use rayon::prelude::*;

use super::modulation::resize;
use super::{Gradients, Modulation, Parameters, Tape};

/// Name of the learned factor's tensor: `[1]` scalar, `[D]` channel.
pub const RESIDUAL_SCALE: &str = "residual_scale";
/// First value of the learned factor.
pub const INITIAL_RESIDUAL_SCALE: f32 = 1.0;

/// Sizes of the factor for tokens of `dim` numbers; `None`: it is not learned.
pub(super) fn shape(scaling: Scaling, dim: usize) -> Option<usize> {
    match scaling {
        Scaling::Fixed => None,
        Scaling::Scalar => Some(1),
        Scaling::Channel => Some(dim),
    }
}

/// A modulation and the factor on its change. The factor is the last of the modulation's own tensors, which the
/// formulas look up by position and so never see.
#[derive(Debug, Clone)]
pub(super) struct SelfScaled {
    inner: Box<dyn Modulation>,
    dim: usize,
}

impl SelfScaled {
    /// Around a modulation whose last tensor is the factor.
    pub(super) fn new(inner: Box<dyn Modulation>, dim: usize) -> Self {
        Self { inner, dim }
    }

    /// The factor of every channel of a token, `[D]`.
    fn factors(&self) -> Vec<f32> {
        let parameters = self.inner.parameters();
        match parameters.at(parameters.len() - 1) {
            [one] => vec![*one; self.dim],
            channels => channels.to_vec(),
        }
    }
}

impl Modulation for SelfScaled {
    fn parameters(&self) -> &Parameters {
        self.inner.parameters()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.inner.parameters_mut()
    }

    fn forward(&self, images: &[&[f32]], out: &mut [f32], tape: &mut Tape) {
        let Some(first) = images.first() else { return };
        self.inner.forward(images, out, tape);
        let (size, factors) = (first.len(), self.factors());
        let change = resize(&mut tape.change, images.len() * size);
        images
            .par_iter()
            .zip(out.par_chunks_exact_mut(size))
            .zip(change.par_chunks_exact_mut(size))
            .for_each(|((image, out), change)| {
                for (i, ((o, c), x)) in out.iter_mut().zip(change).zip(*image).enumerate() {
                    *c = *o - x;
                    *o = factors[i % self.dim].mul_add(*c, *x);
                }
            });
    }

    fn attend(&self, image: &[f32]) -> Vec<f32> {
        self.inner.attend(image)
    }

    fn mix(&self, image: &[f32], attention: &[f32], out: &mut [f32]) {
        self.inner.mix(image, attention, out);
        let factors = self.factors();
        for (i, (o, x)) in out.iter_mut().zip(image).enumerate() {
            *o = factors[i % self.dim].mul_add(*o - x, *x);
        }
    }

    fn backward(
        &self,
        images: &[&[f32]],
        tape: &mut Tape,
        grad_out: &[f32],
        gradients: &mut Gradients,
        grad_in: Option<&mut [f32]>,
    ) {
        let factors = self.factors();
        let mut by_channel = vec![0.0f64; self.dim];
        for (grad, change) in grad_out
            .chunks_exact(self.dim)
            .zip(tape.change.chunks_exact(self.dim))
        {
            for ((sum, g), c) in by_channel.iter_mut().zip(grad).zip(change) {
                *sum += f64::from(*g) * f64::from(*c);
            }
        }
        let last = gradients.parameters.len() - 1;
        match gradients.parameters.at_mut(last) {
            [one] => *one += by_channel.iter().sum::<f64>() as f32,
            channels => channels
                .iter_mut()
                .zip(&by_channel)
                .for_each(|(to, sum)| *to += *sum as f32),
        }
        let mut scaled = std::mem::take(&mut tape.scaled);
        scaled.clear();
        scaled.extend(
            grad_out
                .iter()
                .enumerate()
                .map(|(i, g)| factors[i % self.dim] * g),
        );
        match grad_in {
            None => self.inner.backward(images, tape, &scaled, gradients, None),
            Some(grad_in) => {
                self.inner
                    .backward(images, tape, &scaled, gradients, Some(grad_in));
                // the inner one brings the token itself back with the factor on it
                for ((to, g), s) in grad_in.iter_mut().zip(grad_out).zip(&scaled) {
                    *to += g - s;
                }
            }
        }
        tape.scaled = scaled;
    }

    fn boxed_clone(&self) -> Box<dyn Modulation> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::{Adaptation, AdaptationOptions, ModulationType};
    use flawtune::random::{Purpose, Stream};

    const DIM: usize = 6;
    const ROWS: usize = 4;

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Init);
        (0..count)
            .map(|_| 2.0 * stream.uniform() as f32 - 1.0)
            .collect()
    }

    /// A modulation that changes tokens a good deal, with its factor.
    fn adaptation(modulation: ModulationType, scaling: Scaling, factor: &[f32]) -> Adaptation {
        let options = AdaptationOptions {
            modulation,
            num_prompts: 3,
            scaling_factor: 0.7,
            residual_scaling: scaling,
            seed: 5,
            ..AdaptationOptions::default()
        };
        let mut made = Adaptation::new(options, DIM).unwrap();
        for (i, t) in made
            .modulation_mut()
            .parameters_mut()
            .iter_mut()
            .enumerate()
        {
            let count = t.data.len();
            t.data = if t.name == RESIDUAL_SCALE {
                factor.to_vec()
            } else {
                values(count, 20 + i as u64)
            };
        }
        made
    }

    fn forward(adaptation: &Adaptation, images: &[&[f32]]) -> (Vec<f32>, Tape) {
        let (mut out, mut tape) = (vec![0.0; images.len() * ROWS * DIM], Tape::default());
        adaptation.apply(images, &mut out, &mut tape);
        (out, tape)
    }

    #[test]
    fn the_factor_multiplies_what_is_added() {
        let (a, b) = (values(ROWS * DIM, 1), values(ROWS * DIM, 2));
        let images: [&[f32]; 2] = [&a, &b];
        let x = [a.clone(), b.clone()].concat();
        let channels: Vec<f32> = (0..DIM).map(|d| 0.5 * d as f32).collect();
        for modulation in ModulationType::ALL {
            let plain = forward(&adaptation(modulation, Scaling::Fixed, &[]), &images).0;
            assert_eq!(
                forward(&adaptation(modulation, Scaling::Scalar, &[0.0]), &images).0,
                x,
                "{modulation}"
            );
            let (scalar, _) = forward(&adaptation(modulation, Scaling::Scalar, &[-2.0]), &images);
            let (channel, _) = forward(
                &adaptation(modulation, Scaling::Channel, &channels),
                &images,
            );
            for i in 0..x.len() {
                let change = plain[i] - x[i];
                // a few roundings of numbers around 1
                assert!(
                    (scalar[i] - (x[i] - 2.0 * change)).abs() < 2e-6,
                    "{modulation} {i}"
                );
                assert!(
                    (channel[i] - (x[i] + channels[i % DIM] * change)).abs() < 2e-6,
                    "{modulation} {i}"
                );
            }
        }
    }

    #[test]
    fn mixing_with_its_own_attention_is_the_forward_pass() {
        let a = values(ROWS * DIM, 1);
        for modulation in ModulationType::ALL {
            let made = adaptation(modulation, Scaling::Scalar, &[1.5]);
            let mut out = vec![0.0; a.len()];
            made.modulation()
                .mix(&a, &made.modulation().attend(&a), &mut out);
            assert_eq!(out, forward(&made, &[&a]).0, "{modulation}");
        }
    }

    /// Of `Σ probe ∘ out`, by central differences in f32 with a step of 1e-2: truncation and rounding stay below 1e-3.
    #[test]
    fn gradients_agree_with_finite_differences() {
        const STEP: f32 = 1e-2;
        let (a, probe) = (values(ROWS * DIM, 3), values(ROWS * DIM, 4));
        let channels: Vec<f32> = (0..DIM).map(|d| 0.4 + 0.3 * d as f32).collect();
        let loss = |adaptation: &Adaptation, image: &[f32]| -> f64 {
            let out = forward(adaptation, &[image]).0;
            out.iter()
                .zip(&probe)
                .map(|(o, p)| f64::from(*o) * f64::from(*p))
                .sum()
        };
        let close = |what: &str, found: f32, slope: f64| {
            let error = (f64::from(found) - slope).abs();
            assert!(
                error < 2e-3 * slope.abs().max(1.0),
                "{what}: {found} {slope}"
            );
        };
        for modulation in ModulationType::ALL {
            for (scaling, factor) in [(Scaling::Scalar, &[1.7][..]), (Scaling::Channel, &channels)]
            {
                let made = adaptation(modulation, scaling, factor);
                let (_, mut tape) = forward(&made, &[&a]);
                let mut gradients = Gradients::zeros_for(made.parameters());
                let mut grad_in = vec![0.0; a.len()];
                made.modulation().backward(
                    &[&a],
                    &mut tape,
                    &probe,
                    &mut gradients,
                    Some(&mut grad_in),
                );
                for t in 0..made.parameters().len() {
                    for i in 0..made.parameters().at(t).len() {
                        let at = |delta: f32| {
                            let mut moved = made.clone();
                            moved.modulation_mut().parameters_mut().at_mut(t)[i] += delta;
                            loss(&moved, &a)
                        };
                        let slope = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
                        close(
                            &format!("{modulation} tensor {t} {i}"),
                            gradients.parameters.at(t)[i],
                            slope,
                        );
                    }
                }
                for i in 0..a.len() {
                    let at = |delta: f32| {
                        let mut moved = a.clone();
                        moved[i] += delta;
                        loss(&made, &moved)
                    };
                    let slope = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
                    close(&format!("{modulation} input {i}"), grad_in[i], slope);
                }
            }
        }
    }
}
