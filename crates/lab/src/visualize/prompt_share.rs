//! What each prompt of an output modulation attends to, and what part of the change is its doing.

use super::change::{cosine, mean_row};
use crate::adapt::Modulation;

/// One prompt on one image.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptShare {
    /// Attention between the prompt and each patch, `[P]`. In `per_patch` and `learned_transform` it sums to 1 over the
    /// prompts of a patch; in `global` over the patches of the prompt.
    pub attention: Vec<f32>,
    /// The prompt's share of all attention, 0 to 1; over the prompts it sums to 1.
    pub attended: f64,
    /// What goes away from each patch when the prompt's attention weight counts as 0 and the other prompts' stay: its length
    /// over the patch's own, `[P]`.
    pub size: Vec<f32>,
    /// Mean of `size`.
    pub mean_size: f64,
    /// Cosine of the prompt's mean contribution with the direction asked about; 0 if it contributes nothing.
    pub direction: f64,
}

/// What each prompt does to the patches `[P, D]` of an image; `towards` `[D]` is the direction that contributions are compared
/// with.
///
/// In `per_patch` and `global` the contributions add up to the whole change; through the MLP of `learned_transform` they need
/// not.
pub fn prompt_shares(
    modulation: &dyn Modulation,
    image: &[f32],
    towards: &[f64],
) -> Vec<PromptShare> {
    let dim = towards.len();
    let attention = modulation.attend(image);
    let rows = image.len() / dim;
    let count = attention.len() / rows;
    let total: f64 = attention.iter().map(|&a| f64::from(a)).sum();
    let mut whole = vec![0.0; image.len()];
    modulation.mix(image, &attention, &mut whole);
    let mut without = vec![0.0; image.len()];
    let mut weights = attention.clone();
    (0..count)
        .map(|k| {
            weights.copy_from_slice(&attention);
            weights
                .iter_mut()
                .skip(k)
                .step_by(count)
                .for_each(|w| *w = 0.0);
            modulation.mix(image, &weights, &mut without);
            let contribution: Vec<f32> = whole.iter().zip(&without).map(|(a, b)| a - b).collect();
            let length = |row: &[f32]| {
                row.iter()
                    .map(|&v| f64::from(v).powi(2))
                    .sum::<f64>()
                    .sqrt()
            };
            let size: Vec<f32> = contribution
                .chunks_exact(dim)
                .zip(image.chunks_exact(dim))
                .map(|(c, x)| (length(c) / length(x).max(f64::MIN_POSITIVE)) as f32)
                .collect();
            let seen: Vec<f32> = attention.iter().skip(k).step_by(count).copied().collect();
            PromptShare {
                attended: seen.iter().map(|&a| f64::from(a)).sum::<f64>() / total,
                attention: seen,
                mean_size: size.iter().map(|&s| f64::from(s)).sum::<f64>() / rows as f64,
                size,
                direction: cosine(&mean_row(contribution.chunks_exact(dim), dim), towards),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::{
        Adaptation, AdaptationOptions, ModulationType, PROMPT_SCALES, PROMPTS, Parameters, Tape,
    };

    const ALL: [ModulationType; 3] = ModulationType::ALL;

    fn adaptation(modulation: ModulationType) -> Adaptation {
        let options = AdaptationOptions {
            modulation,
            num_prompts: 3,
            scaling_factor: 0.5,
            ..AdaptationOptions::default()
        };
        Adaptation::new(options, 5).unwrap()
    }

    fn image() -> Vec<f32> {
        (0..20).map(|i| ((i * 7 + 3) % 11) as f32 - 4.0).collect()
    }

    #[test]
    fn mixing_with_its_own_attention_is_the_forward_pass() {
        for modulation in ALL {
            let a = adaptation(modulation);
            let (image, mut forward, mut mixed) = (image(), vec![0.0; 20], vec![0.0; 20]);
            a.apply(&[&image], &mut forward, &mut Tape::default());
            a.modulation()
                .mix(&image, &a.modulation().attend(&image), &mut mixed);
            assert_eq!(forward, mixed, "{modulation}");
            assert_ne!(forward, image, "{modulation}");
        }
    }

    #[test]
    fn attention_sums_to_one_and_contributions_to_the_change() {
        for modulation in ALL {
            let a = adaptation(modulation);
            let image = image();
            let shares = prompt_shares(a.modulation(), &image, &[1.0; 5]);
            assert_eq!(shares.len(), 3);
            assert!((shares.iter().map(|s| s.attended).sum::<f64>() - 1.0).abs() < 1e-6);
            let per_row: f32 = shares.iter().map(|s| s.attention[2]).sum();
            let per_prompt: f32 = shares[1].attention.iter().sum();
            let one = if modulation == ModulationType::Global {
                per_prompt
            } else {
                per_row
            };
            assert!((one - 1.0).abs() < 1e-6, "{modulation}: {one}");
            assert!(
                shares
                    .iter()
                    .all(|s| s.mean_size > 0.0 && s.direction.abs() <= 1.0)
            );
        }
    }

    /// Two prompts of unit length on the axes, α = 2: a patch on the first axis attends by softmax(1, 0).
    #[test]
    fn a_contribution_by_hand() {
        let mut p = Parameters::new();
        p.push(PROMPTS, &[2, 2], vec![1.0, 0.0, 0.0, 1.0]).unwrap();
        p.push(PROMPT_SCALES, &[2], vec![1.0, 1.0]).unwrap();
        let options = AdaptationOptions {
            modulation: ModulationType::PerPatch,
            scaling_factor: 2.0,
            ..AdaptationOptions::default()
        };
        let a = Adaptation::from_parameters(options, &p).unwrap();
        let shares = prompt_shares(a.modulation(), &[4.0, 0.0], &[0.0, -1.0]);
        let w = 1f64.exp() / (1f64.exp() + 1.0);
        assert!((shares[0].attended - w).abs() < 1e-6);
        // ‖2·w·(1, 0)‖ / 4
        assert!((shares[0].mean_size - w / 2.0).abs() < 1e-6);
        assert!((shares[1].mean_size - (1.0 - w) / 2.0).abs() < 1e-6);
        assert!(shares[0].direction.abs() < 1e-6 && (shares[1].direction + 1.0).abs() < 1e-6);
    }
}
