//! Holds learned scales near their start, so that one shot does not carry them away; and says where they went.

use serde::{Deserialize, Serialize};

use super::adaptation::INITIAL_PROMPT_SCALE;
use super::self_scaled::{INITIAL_RESIDUAL_SCALE, RESIDUAL_SCALE};
use super::{NamedTensor, PROMPT_SCALES, Parameters};

/// Factors of joint training, `[categories, 1]` or `[categories, D]`; each stands for [`RESIDUAL_SCALE`].
pub(super) const CATEGORY_SCALES: &str = "category_scales";
/// The tensors that hold scales, and what each of their values starts from.
const SCALES: [(&str, f32); 5] = [
    (PROMPT_SCALES, INITIAL_PROMPT_SCALE),
    (RESIDUAL_SCALE, INITIAL_RESIDUAL_SCALE),
    (CATEGORY_SCALES, INITIAL_RESIDUAL_SCALE),
    ("vpt.scales", 1.0),
    ("adapters.scales", 1.0),
];

/// A pull of every learned scale to its start: for each tensor of scales `λ · mean (v / start − 1)²`, added to the loss.
/// Starts are the formulas' own (0.1 for prompts, 1 for the rest), whatever values training begins with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScalePenalty(
    /// λ, from 0; 0 pulls nothing.
    pub f64,
);

impl ScalePenalty {
    /// Where scales are learned and nothing else is said. A scale 30 % off its start costs 0.09, the size of what a
    /// separability loss gains in its first epochs.
    pub const DEFAULT: Self = Self(1.0);

    /// The penalty; its gradient is added to `gradients`.
    pub fn add(self, parameters: &Parameters, gradients: &mut Parameters) -> f64 {
        if self.0 == 0.0 {
            return 0.0;
        }
        let mut total = 0.0;
        for (name, start) in SCALES {
            let (Some(values), Some(to)) = (parameters.get(name), gradients.get_mut(name)) else {
                continue;
            };
            let (start, count) = (f64::from(start), values.data.len() as f64);
            for (v, g) in values.data.iter().zip(&mut to.data) {
                let off = f64::from(*v) / start - 1.0;
                total += self.0 * off * off / count;
                *g += (2.0 * self.0 * off / (start * count)) as f32;
            }
        }
        total
    }
}

/// What training made of one tensor of scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedScale {
    /// The tensor, such as `residual_scale`.
    pub name: String,
    /// How many scales.
    pub count: usize,
    /// What each started from.
    pub start: f32,
    /// Their mean now.
    pub mean: f64,
    /// The smallest.
    pub low: f32,
    /// The largest.
    pub high: f32,
}

impl LearnedScale {
    /// Of every tensor of scales among the trained.
    pub fn all<'a>(tensors: impl IntoIterator<Item = &'a NamedTensor>) -> Vec<Self> {
        let of = |t: &NamedTensor| {
            let (_, start) = SCALES.into_iter().find(|(name, _)| *name == t.name)?;
            let low = t.data.iter().copied().fold(f32::INFINITY, f32::min);
            let high = t.data.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mean = t.data.iter().map(|&v| f64::from(v)).sum::<f64>() / t.data.len() as f64;
            Some(Self {
                name: t.name.clone(),
                count: t.data.len(),
                start,
                mean,
                low,
                high,
            })
        };
        tensors.into_iter().filter_map(of).collect()
    }
}

impl std::fmt::Display for LearnedScale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} → {:.3}", self.name, self.start, self.mean)?;
        if self.count > 1 {
            write!(
                f,
                " ({:.3} to {:.3} of {})",
                self.low, self.high, self.count
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_each_scale_to_its_own_start_by_hand() {
        let mut p = Parameters::new();
        p.push(PROMPT_SCALES, &[2], vec![0.1, 0.2]).unwrap();
        p.push("prompts", &[2, 1], vec![5.0, 7.0]).unwrap();
        p.push(RESIDUAL_SCALE, &[1], vec![0.5]).unwrap();
        let mut g = p.zeros_like();
        // (0.2 / 0.1 − 1)² / 2 = 0.5 and (0.5 − 1)² = 0.25, times λ = 2
        let found = ScalePenalty(2.0).add(&p, &mut g);
        assert!((found - 1.5).abs() < 1e-6, "{found}");
        // 2 · λ · off / (start · count): 2·2·1/(0.1·2) = 20; 2·2·(−0.5) = −2
        let [scales, prompts, residual] =
            [PROMPT_SCALES, "prompts", RESIDUAL_SCALE].map(|n| g.get(n).unwrap());
        assert!(
            scales.data[0].abs() < 1e-5 && (scales.data[1] - 20.0).abs() < 1e-4,
            "{:?}",
            scales.data
        );
        assert_eq!(prompts.data, [0.0, 0.0]);
        assert!((residual.data[0] + 2.0).abs() < 1e-6);
        assert_eq!(ScalePenalty(0.0).add(&p, &mut g), 0.0);
    }

    #[test]
    fn says_what_was_learned() {
        let mut p = Parameters::new();
        p.push("prompts", &[1, 1], vec![5.0]).unwrap();
        p.push(RESIDUAL_SCALE, &[2], vec![0.5, 2.0]).unwrap();
        let all = LearnedScale::all(&p);
        assert_eq!(all.len(), 1);
        assert_eq!(
            all[0].to_string(),
            "residual_scale 1 → 1.250 (0.500 to 2.000 of 2)"
        );
    }
}
