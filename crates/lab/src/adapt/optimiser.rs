//! Adam, gradient clipping and the learning rate's schedule.

use super::{AdaptError, Parameters};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The learning rate ends near this part of the first one.
const FINAL_FRACTION: f64 = 0.01;

/// Learning rate of `epoch` (from 0) out of `epochs`: half a cosine from `first` towards `first / 100`, constant
/// within an epoch. The last epoch is one step short of the end, as with a scheduler stepped after each epoch.
pub fn cosine_rate(first: f64, epoch: usize, epochs: usize) -> f64 {
    let last = FINAL_FRACTION * first;
    let part = epoch as f64 / epochs.max(1) as f64;
    last + (first - last) * (1.0 + (std::f64::consts::PI * part).cos()) / 2.0
}

/// Adam with β = (0.9, 0.999), ε = 1e-8 and no weight decay; moments are f32, the arithmetic of a step f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    /// Steps taken.
    pub(super) steps: u64,
    /// Running means of the gradients.
    pub(super) first: Parameters,
    /// Running means of their squares.
    pub(super) second: Parameters,
}

impl Adam {
    /// No steps taken yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            steps: 0,
            first: parameters.zeros_like(),
            second: parameters.zeros_like(),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Norm of the running means of the gradients.
    pub fn momentum_norm(&self) -> f64 {
        self.first.norm()
    }

    /// One step along `gradients`.
    ///
    /// # Errors
    /// [`AdaptError::Missing`] or [`AdaptError::Shape`] if the tensors do not fit the moments.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Parameters,
        rate: f64,
    ) -> Result<(), AdaptError> {
        self.first.same_layout(parameters)?;
        self.first.same_layout(gradients)?;
        self.steps += 1;
        let correction_1 = 1.0 - BETA_1.powf(self.steps as f64);
        let root_2 = (1.0 - BETA_2.powf(self.steps as f64)).sqrt();
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for ((parameter, gradient), (first, second)) in
            parameters.iter_mut().zip(gradients.iter()).zip(moments)
        {
            let values = parameter.data.iter_mut().zip(&gradient.data);
            for ((p, &g), (m, v)) in values.zip(first.data.iter_mut().zip(&mut second.data)) {
                let g = f64::from(g);
                let mean = BETA_1 * f64::from(*m) + (1.0 - BETA_1) * g;
                let square = BETA_2 * f64::from(*v) + (1.0 - BETA_2) * g * g;
                let denominator = square.sqrt() / root_2 + EPSILON;
                *p = (f64::from(*p) - rate / correction_1 * mean / denominator) as f32;
                (*m, *v) = (mean as f32, square as f32);
            }
        }
        Ok(())
    }
}

/// Scales the gradients down to the norm `limit` if theirs is larger; returns the norm before.
pub fn clip_norm(gradients: &mut Parameters, limit: Option<f64>) -> f64 {
    let norm = gradients.norm();
    if let Some(limit) = limit.filter(|&l| norm > l) {
        gradients.scale((limit / norm) as f32);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_from_one_to_nearly_a_hundredth() {
        assert!((cosine_rate(1e-3, 0, 100) - 1e-3).abs() < 1e-18);
        // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=100, eta_min=1e-5) after 50 and 99 epochs
        assert!((cosine_rate(1e-3, 50, 100) - 5.05e-4).abs() < 1e-15);
        assert!((cosine_rate(1e-3, 99, 100) - 1.024_425_261_896_285_8e-5).abs() < 1e-15);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut g = Parameters::new();
        g.push("a", &[2], vec![3.0, -4.0]).unwrap();
        assert!((clip_norm(&mut g, Some(10.0)) - 5.0).abs() < 1e-12);
        assert_eq!(g.get("a").unwrap().data, [3.0, -4.0]);
        assert!((clip_norm(&mut g, Some(1.0)) - 5.0).abs() < 1e-12);
        assert_eq!(g.get("a").unwrap().data, [0.6, -0.8]);
        assert!((clip_norm(&mut g, None) - 1.0).abs() < 1e-6);
    }
}
