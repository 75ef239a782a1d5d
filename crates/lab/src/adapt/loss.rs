//! What training minimises; losses over image similarities and their gradients.

use std::fmt;
use std::str::FromStr;

use super::{AdaptError, ScoreComparison, ScoreLoss, Similarities};

/// Added to the sum of the standard deviations in the separability.
const SPREAD_EPSILON: f64 = 1e-8;

/// Margin of the contrastive loss unless another is given.
pub const DEFAULT_MARGIN: f64 = 0.5;

/// What training minimises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// `−(μ_NN − μ_ND) / (σ_NN + σ_ND + 1e-8)`.
    Separability,
    /// `mean_{i<j}(1 − nn) + mean(relu(nd − margin))`.
    Contrastive {
        /// Similarity of a normal and a defect that costs nothing.
        margin: f64,
    },
    /// A loss of image scores as the patch bank gives them; the batch's normals are the bank.
    Scores(ScoreLoss),
}

/// The losses by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum LossType {
    /// Normals alike and defects apart, in units of the spread, over image pairs
    #[default]
    Separability,
    /// Normals alike, defects under a margin, over image pairs
    Contrastive,
    /// Every defect above every normal in the patch bank's image score
    Ranking,
    /// The oddest patches of defects against the oddest of normals, logistic
    Logistic,
}

impl LossType {
    /// All of them, in the order they are listed to the user.
    pub const ALL: [Self; 4] = [
        Self::Separability,
        Self::Contrastive,
        Self::Ranking,
        Self::Logistic,
    ];

    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Separability => "separability",
            Self::Contrastive => "contrastive",
            Self::Ranking => "ranking",
            Self::Logistic => "logistic",
        }
    }

    /// The loss; those of image scores with their usual numbers, which have no margin.
    pub fn with_margin(self, margin: f64) -> Loss {
        match self {
            Self::Separability => Loss::Separability,
            Self::Contrastive => Loss::Contrastive { margin },
            Self::Ranking => Loss::Scores(ScoreLoss::new(ScoreComparison::Ranking)),
            Self::Logistic => Loss::Scores(ScoreLoss::new(ScoreComparison::Logistic)),
        }
    }
}

impl Loss {
    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Separability => LossType::Separability.name(),
            Self::Contrastive { .. } => LossType::Contrastive.name(),
            Self::Scores(loss) => loss.name(),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Loss {
    type Err = AdaptError;

    fn from_str(s: &str) -> Result<Self, AdaptError> {
        LossType::ALL
            .into_iter()
            .find(|loss| loss.name() == s)
            .map(|loss| loss.with_margin(DEFAULT_MARGIN))
            .ok_or_else(|| AdaptError::Option {
                option: "loss type",
                found: format!("{s:?}"),
                wanted: "it is one of separability, contrastive, ranking, logistic".to_owned(),
            })
    }
}

/// Means and unbiased standard deviations of the similarities: the off-diagonal directed ones among normals, and
/// those from normals to defects. Under a loss of image scores: of the images' similarities to the batch's bank.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SimilarityStats {
    /// Mean over pairs of normals.
    pub mu_nn: f64,
    /// Mean from normals to defects.
    pub mu_nd: f64,
    /// Standard deviation over pairs of normals.
    pub sd_nn: f64,
    /// Standard deviation from normals to defects.
    pub sd_nd: f64,
}

impl SimilarityStats {
    /// Of these similarities.
    ///
    /// # Errors
    /// [`AdaptError::TooFewImages`] where a standard deviation has fewer than two values.
    pub fn of(s: &Similarities) -> Result<Self, AdaptError> {
        check_counts(s.normals, s.defects)?;
        let (mu_nn, sd_nn) = moments(off_diagonal(s).map(|i| s.nn[i]));
        let (mu_nd, sd_nd) = moments(s.nd.iter().copied());
        Ok(Self {
            mu_nn,
            mu_nd,
            sd_nn,
            sd_nd,
        })
    }

    /// Of image scores, normals first: a score's complement to 1 is the image's similarity to the normals of the batch.
    ///
    /// # Errors
    /// [`AdaptError::TooFewImages`] with fewer than two normals or no defect.
    pub(super) fn of_scores(scores: &[f64], normals: usize) -> Result<Self, AdaptError> {
        check_counts(normals, scores.len() - normals)?;
        let similarities = |scores: &'_ [f64]| scores.iter().map(|s| 1.0 - s).collect::<Vec<f64>>();
        let (of_normals, of_defects) = scores.split_at(normals);
        let (mu_nn, sd_nn) = moments(similarities(of_normals).into_iter());
        let (mu_nd, sd_nd) = moments(similarities(of_defects).into_iter());
        // one defect has no spread
        Ok(Self {
            mu_nn,
            mu_nd,
            sd_nn,
            sd_nd: if sd_nd.is_nan() { 0.0 } else { sd_nd },
        })
    }

    /// `(μ_NN − μ_ND) / (σ_NN + σ_ND + 1e-8)`.
    pub fn separability(&self) -> f64 {
        (self.mu_nn - self.mu_nd) / (self.sd_nn + self.sd_nd + SPREAD_EPSILON)
    }
}

/// Whether both standard deviations have at least two values.
pub(super) fn check_counts(normals: usize, defects: usize) -> Result<(), AdaptError> {
    if normals < 2 {
        return Err(AdaptError::TooFewImages {
            what: "normal images in a batch",
            found: normals,
            wanted: 2,
            why: ": the loss compares normals with each other\nhint: give more normal images or a larger batch size",
        });
    }
    if defects < 1 {
        return Err(AdaptError::TooFewImages {
            what: "defect images in a batch",
            found: defects,
            wanted: 1,
            why: ": the loss compares normals with defects\nhint: give at least one defect image",
        });
    }
    Ok(())
}

fn off_diagonal(s: &Similarities) -> impl Iterator<Item = usize> + Clone + use<> {
    let n = s.normals;
    (0..n * n).filter(move |i| i / n != i % n)
}

fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

/// Derivative of a standard deviation by a value `offset` from the mean of `n` values. A deviation at or under the
/// loss's epsilon is rounding noise of f32 similarities (two normals that match mutually have exactly 0): its
/// gradient is taken as 0, as PyTorch takes it at exactly 0.
fn spread_slope(offset: f64, sd: f64, n: usize) -> f64 {
    if sd <= SPREAD_EPSILON {
        0.0
    } else {
        offset / ((n as f64 - 1.0) * sd)
    }
}

impl Loss {
    /// The loss, and in `gradient` its gradient with respect to every similarity.
    ///
    /// # Errors
    /// [`AdaptError::TooFewImages`] with fewer than two normals or no defect; [`AdaptError::Option`] for
    /// [`Self::Scores`], which similarities of image pairs do not determine.
    pub fn evaluate(
        self,
        s: &Similarities,
        stats: &SimilarityStats,
        gradient: &mut Similarities,
    ) -> Result<f64, AdaptError> {
        check_counts(s.normals, s.defects)?;
        *gradient = Similarities::zeros(s.normals, s.defects);
        let n = s.normals;
        match self {
            Self::Separability => {
                let spread = stats.sd_nn + stats.sd_nd + SPREAD_EPSILON;
                let separability = stats.separability();
                let pairs = n * (n - 1);
                for i in off_diagonal(s) {
                    let slope = spread_slope(s.nn[i] - stats.mu_nn, stats.sd_nn, pairs);
                    gradient.nn[i] = (separability * slope - 1.0 / pairs as f64) / spread;
                }
                for (g, &v) in gradient.nd.iter_mut().zip(&s.nd) {
                    let slope = spread_slope(v - stats.mu_nd, stats.sd_nd, s.nd.len());
                    *g = (separability * slope + 1.0 / s.nd.len() as f64) / spread;
                }
                Ok(-separability)
            }
            Self::Contrastive { margin } => {
                let pairs = (n * (n - 1) / 2) as f64;
                let (mut near, mut far) = (0.0, 0.0);
                for i in off_diagonal(s).filter(|i| i / n < i % n) {
                    near += 1.0 - s.nn[i];
                    gradient.nn[i] = -1.0 / pairs;
                }
                let count = s.nd.len() as f64;
                for (g, &v) in gradient.nd.iter_mut().zip(&s.nd) {
                    if v > margin {
                        far += v - margin;
                        *g = 1.0 / count;
                    }
                }
                Ok(near / pairs + far / count)
            }
            Self::Scores(loss) => Err(AdaptError::Option {
                option: "loss type",
                found: loss.name().to_owned(),
                wanted: "a loss of image pairs is needed here: separability or contrastive"
                    .to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarities() -> Similarities {
        Similarities {
            normals: 3,
            defects: 2,
            nn: vec![0.0, 0.91, 0.84, 0.9, 0.0, 0.77, 0.86, 0.79, 0.0],
            nd: vec![0.41, 0.66, 0.52, 0.47, 0.73, 0.5001],
        }
    }

    /// Central differences in f64 with a step of 1e-6 agree to their own error.
    #[test]
    fn gradients_agree_with_finite_differences() {
        const STEP: f64 = 1e-6;
        const TOLERANCE: f64 = 1e-7;
        for loss in [Loss::Separability, Loss::Contrastive { margin: 0.5 }] {
            let s = similarities();
            let (mut g, mut unused) = (Similarities::default(), Similarities::default());
            loss.evaluate(&s, &SimilarityStats::of(&s).unwrap(), &mut g)
                .unwrap();
            for i in 0..s.nn.len() + s.nd.len() {
                let mut at = |delta: f64| {
                    let mut s = s.clone();
                    *(if i < s.nn.len() {
                        &mut s.nn[i]
                    } else {
                        &mut s.nd[i - 9]
                    }) += delta;
                    loss.evaluate(&s, &SimilarityStats::of(&s).unwrap(), &mut unused)
                        .unwrap()
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let found = if i < s.nn.len() { g.nn[i] } else { g.nd[i - 9] };
                assert!(
                    (slope - found).abs() < TOLERANCE * slope.abs().max(1.0),
                    "{loss} {i}: {found} {slope}"
                );
            }
        }
    }

    #[test]
    fn one_normal_is_an_error() {
        let s = Similarities::zeros(1, 3);
        assert!(matches!(
            SimilarityStats::of(&s),
            Err(AdaptError::TooFewImages {
                found: 1,
                wanted: 2,
                ..
            })
        ));
        let s = Similarities::zeros(3, 0);
        assert!(matches!(
            SimilarityStats::of(&s),
            Err(AdaptError::TooFewImages {
                found: 0,
                wanted: 1,
                ..
            })
        ));
    }
}
