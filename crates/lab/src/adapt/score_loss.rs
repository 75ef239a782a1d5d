//! Losses over image scores as the patch bank gives them: the distance of each patch to the nearest patch of the
//! normal images, the image's score the mean of its largest distances.

use super::AdaptError;

/// Part of an image's patches that makes its score unless another is given; the patch bank's own.
pub const DEFAULT_TOP_FRACTION: f64 = 0.01;
/// Difference of distances that counts as one unless another is given: about the spread of normal images' scores.
pub const DEFAULT_TEMPERATURE: f64 = 0.05;

/// How scores are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreComparison {
    /// `mean_{i,j} softplus((score(normal_i) − score(defect_j)) / T)`: every pair of a normal and a defect image
    /// should be in order.
    Ranking,
    /// Class-balanced logistic loss of the top patches themselves, `½ mean softplus((d_normal − c) / T) +
    /// ½ mean softplus((c − d_defect) / T)`, where `c`, taken as constant, lies midway between the classes' means.
    /// The top patches of the normals are hard negatives, those of the defects the presumed flaws: under the mask where
    /// one says where the flaw is.
    Logistic,
}

/// A loss that fits how a patch bank scores images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreLoss {
    /// How scores are compared.
    pub comparison: ScoreComparison,
    /// Part of an image's patches that counts, the most distant ones; at least one patch.
    pub top_fraction: f64,
    /// T, in cosine distance.
    pub temperature: f64,
}

impl ScoreLoss {
    /// With the default fraction and temperature.
    pub fn new(comparison: ScoreComparison) -> Self {
        Self {
            comparison,
            top_fraction: DEFAULT_TOP_FRACTION,
            temperature: DEFAULT_TEMPERATURE,
        }
    }

    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self.comparison {
            ScoreComparison::Ranking => "ranking",
            ScoreComparison::Logistic => "logistic",
        }
    }

    /// # Errors
    /// [`AdaptError::Option`] for a fraction outside (0, 1] or a temperature that is not positive.
    pub fn check(self) -> Result<(), AdaptError> {
        let wrong = |option, found: f64, wanted: &str| {
            Err(AdaptError::Option {
                option,
                found: found.to_string(),
                wanted: wanted.to_owned(),
            })
        };
        if !(self.top_fraction > 0.0 && self.top_fraction <= 1.0) {
            return wrong(
                "loss top fraction",
                self.top_fraction,
                "it is above 0 and at most 1, such as 0.01",
            );
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return wrong(
                "loss temperature",
                self.temperature,
                "it is a positive number, such as 0.05",
            );
        }
        Ok(())
    }

    /// The loss of distances `[images, rows]`, normal images first. `gradient` gets the derivatives of the top distances:
    /// position in `distances`, and the derivative, image by image in ascending position. `scores` gets the images'
    /// scores. `flaws` says for each defect image which of its patches may count; those of an image that it says nothing
    /// of, or of which it marks none, all may.
    ///
    /// Among equal distances the earlier patch counts.
    pub(super) fn evaluate(
        self,
        distances: &[f64],
        rows: usize,
        (normals, flaws): (usize, &[Option<Vec<bool>>]),
        scores: &mut Vec<f64>,
        gradient: &mut Vec<(usize, f64)>,
    ) -> f64 {
        let count = ((self.top_fraction * rows as f64).round() as usize).clamp(1, rows);
        let mut top: Vec<Vec<usize>> = Vec::new();
        scores.clear();
        gradient.clear();
        for (image, distances) in distances.chunks_exact(rows).enumerate() {
            let flaw = image
                .checked_sub(normals)
                .and_then(|defect| flaws.get(defect)?.as_ref());
            let flaw = flaw.filter(|flaw| flaw.contains(&true));
            let mut order: Vec<usize> = (0..rows)
                .filter(|&p| flaw.is_none_or(|flaw| flaw[p]))
                .collect();
            order.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]));
            order.truncate(count);
            order.sort_unstable();
            scores.push(order.iter().map(|&p| distances[p]).sum::<f64>() / order.len() as f64);
            top.push(order.iter().map(|p| image * rows + p).collect());
        }
        let (of_normals, of_defects) = scores.split_at(normals);
        let mut loss = 0.0;
        match self.comparison {
            ScoreComparison::Ranking => {
                let pairs = (of_normals.len() * of_defects.len()) as f64;
                let mut slopes = vec![0.0; scores.len()];
                for (i, normal) in of_normals.iter().enumerate() {
                    for (j, defect) in of_defects.iter().enumerate() {
                        let (value, slope) = softplus((normal - defect) / self.temperature);
                        loss += value / pairs;
                        let slope = slope / (self.temperature * pairs);
                        slopes[i] += slope;
                        slopes[normals + j] -= slope;
                    }
                }
                for (patches, slope) in top.iter().zip(slopes) {
                    gradient.extend(patches.iter().map(|&p| (p, slope / patches.len() as f64)));
                }
            }
            ScoreComparison::Logistic => {
                let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
                let middle = f64::midpoint(mean(of_normals), mean(of_defects));
                for (image, patches) in top.iter().enumerate() {
                    let (sign, images) = if image < normals {
                        (1.0, of_normals.len())
                    } else {
                        (-1.0, of_defects.len())
                    };
                    let weight = 0.5 / (images * patches.len()) as f64;
                    for &p in patches {
                        let (value, slope) =
                            softplus(sign * (distances[p] - middle) / self.temperature);
                        loss += weight * value;
                        gradient.push((p, sign * weight * slope / self.temperature));
                    }
                }
            }
        }
        loss
    }
}

/// `ln(1 + eˣ)` and its derivative.
fn softplus(x: f64) -> (f64, f64) {
    (
        x.max(0.0) + (-x.abs()).exp().ln_1p(),
        1.0 / (1.0 + (-x).exp()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two normals and two defects of four patches; T = 0.1, two patches count.
    const DISTANCES: [f64; 16] = [
        0.10, 0.30, 0.22, 0.05, 0.40, 0.11, 0.31, 0.02, 0.35, 0.50, 0.12, 0.20, 0.33, 0.01, 0.29,
        0.07,
    ];

    fn loss(comparison: ScoreComparison) -> ScoreLoss {
        ScoreLoss {
            comparison,
            top_fraction: 0.5,
            temperature: 0.1,
        }
    }

    fn evaluate(loss: ScoreLoss, distances: &[f64]) -> (f64, Vec<f64>, Vec<(usize, f64)>) {
        evaluate_masked(loss, distances, &[])
    }

    fn evaluate_masked(
        loss: ScoreLoss,
        distances: &[f64],
        flaws: &[Option<Vec<bool>>],
    ) -> (f64, Vec<f64>, Vec<(usize, f64)>) {
        let (mut scores, mut gradient) = (Vec::new(), Vec::new());
        (
            loss.evaluate(distances, 4, (2, flaws), &mut scores, &mut gradient),
            scores,
            gradient,
        )
    }

    #[test]
    fn values_agree_with_a_computation_by_hand() {
        let (ranking, scores, _) = evaluate(loss(ScoreComparison::Ranking), &DISTANCES);
        for (score, by_hand) in scores.iter().zip([0.26, 0.355, 0.425, 0.31]) {
            assert!((score - by_hand).abs() < 1e-12);
        }
        // softplus of −1.65, −0.5, −0.7, 0.45
        let by_hand: f64 = [-1.65f64, -0.5, -0.7, 0.45]
            .iter()
            .map(|x| (1.0 + x.exp()).ln())
            .sum::<f64>()
            / 4.0;
        assert!((ranking - by_hand).abs() < 1e-12, "{ranking} {by_hand}");
        let (logistic, _, _) = evaluate(loss(ScoreComparison::Logistic), &DISTANCES);
        let c = (0.26 + 0.355 + 0.425 + 0.31) / 4.0;
        let sum = |values: [f64; 4], sign: f64| -> f64 {
            values
                .iter()
                .map(|d| (1.0 + (sign * (d - c) / 0.1).exp()).ln())
                .sum()
        };
        let by_hand =
            sum([0.3, 0.22, 0.4, 0.31], 1.0) / 8.0 + sum([0.35, 0.5, 0.33, 0.29], -1.0) / 8.0;
        assert!((logistic - by_hand).abs() < 1e-12, "{logistic} {by_hand}");
    }

    /// Central differences in f64 with a step of 1e-6 agree to their own error. The middle of the logistic loss is a constant
    /// of the gradient, so its differences are taken with the shift of the middle added back.
    #[test]
    fn gradients_agree_with_finite_differences() {
        const STEP: f64 = 1e-6;
        const TOLERANCE: f64 = 1e-7;
        let (_, _, gradient) = evaluate(loss(ScoreComparison::Ranking), &DISTANCES);
        for p in 0..DISTANCES.len() {
            let at = |delta: f64| {
                let mut moved = DISTANCES;
                moved[p] += delta;
                evaluate(loss(ScoreComparison::Ranking), &moved).0
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let found = gradient.iter().find(|g| g.0 == p).map_or(0.0, |g| g.1);
            assert!((slope - found).abs() < TOLERANCE, "{p}: {found} {slope}");
        }
        let (_, _, gradient) = evaluate(loss(ScoreComparison::Logistic), &DISTANCES);
        // moving all of one class's top patches by ±δ and the other's by ∓δ keeps the middle where it is
        let at = |delta: f64| {
            let mut moved = DISTANCES;
            for &(p, _) in &gradient {
                moved[p] += if p < 8 { delta } else { -delta };
            }
            evaluate(loss(ScoreComparison::Logistic), &moved).0
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let found: f64 = gradient
            .iter()
            .map(|&(p, g)| if p < 8 { g } else { -g })
            .sum();
        assert!((slope - found).abs() < TOLERANCE * 10.0, "{found} {slope}");
    }

    /// A mask of one patch, of the one with the smallest distance; one that marks nothing; more of them than shots.
    #[test]
    fn under_a_mask_only_its_patches_count() {
        let mask =
            |marked: &[usize]| Some((0..4).map(|p| marked.contains(&p)).collect::<Vec<bool>>());
        let flaws = [mask(&[2]), mask(&[])];
        for comparison in [ScoreComparison::Ranking, ScoreComparison::Logistic] {
            let (_, plain, _) = evaluate(loss(comparison), &DISTANCES);
            let (value, scores, gradient) = evaluate_masked(loss(comparison), &DISTANCES, &flaws);
            assert_eq!(
                [scores[0], scores[1], scores[3]],
                [plain[0], plain[1], plain[3]]
            );
            assert_eq!(scores[2], 0.12);
            let touched: Vec<usize> = gradient
                .iter()
                .map(|g| g.0)
                .filter(|p| (8..12).contains(p))
                .collect();
            assert_eq!(touched, [10]);
            // all of the image's weight is on it
            let of = |image: usize| {
                gradient
                    .iter()
                    .filter(|g| g.0 / 4 == image)
                    .map(|g| g.1)
                    .sum::<f64>()
            };
            assert!(of(2) < 0.0 && of(3) < 0.0);
            let at = |delta: f64| {
                let mut moved = DISTANCES;
                moved[10] += delta;
                evaluate_masked(loss(comparison), &moved, &flaws).0
            };
            if comparison == ScoreComparison::Ranking {
                // softplus of (normals − 0.12) / 0.1 and (normals − 0.31) / 0.1
                let by_hand: f64 = [1.4f64, -0.5, 2.35, 0.45]
                    .iter()
                    .map(|x| (1.0 + x.exp()).ln())
                    .sum::<f64>()
                    / 4.0;
                assert!((value - by_hand).abs() < 1e-12, "{value} {by_hand}");
                // the error of central differences with this step
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((slope - of(2)).abs() < 1e-7, "{slope} {}", of(2));
            }
            // without any mask nothing changes
            assert_eq!(
                evaluate_masked(loss(comparison), &DISTANCES, &[None, None]).1,
                plain
            );
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for (top_fraction, temperature) in [
            (0.0, 0.1),
            (1.5, 0.1),
            (f64::NAN, 0.1),
            (0.5, 0.0),
            (0.5, f64::INFINITY),
        ] {
            let loss = ScoreLoss {
                top_fraction,
                temperature,
                ..loss(ScoreComparison::Ranking)
            };
            assert!(matches!(loss.check(), Err(AdaptError::Option { .. })));
        }
        assert!(ScoreLoss::new(ScoreComparison::Logistic).check().is_ok());
    }
}
