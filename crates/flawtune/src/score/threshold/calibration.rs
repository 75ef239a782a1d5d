//! From raw scores to probabilities, by Platt's logistic curve.

use serde::{Deserialize, Serialize};

use super::{ThresholdError, sorted};

/// Newton steps; the problem is convex and in two unknowns, ten are usual.
const STEPS: usize = 100;

/// `P(flaw | score) = 1 / (1 + exp(−(slope · score + intercept)))`, at the share of defects among the scores
/// it was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Per unit of score.
    pub slope: f64,
    /// At score 0.
    pub intercept: f64,
    /// Good images it was fitted on.
    pub good: usize,
    /// Defects it was fitted on.
    pub defects: usize,
}

impl Calibration {
    /// Fits the curve by maximum likelihood on Platt's smoothed targets, `(n₊ + 1)/(n₊ + 2)` for defects and
    /// `1/(n₋ + 2)` for good images (Platt 1999; Newton with backtracking as Lin, Lin and Weng 2007), which
    /// keeps it finite when the classes do not overlap.
    ///
    /// # Errors
    /// [`ThresholdError`] if either class has no score, or a score is not finite.
    pub fn fit(good: &[f64], defects: &[f64]) -> Result<Self, ThresholdError> {
        let (good, defects) = (sorted("good", good)?, sorted("defect", defects)?);
        let (low, high) = (
            1.0 / (good.len() as f64 + 2.0),
            1.0 - 1.0 / (defects.len() as f64 + 2.0),
        );
        // scores often differ in the third decimal only: Newton runs on (score − centre) / width
        let smallest = good[0].min(defects[0]);
        let largest = good[good.len() - 1].max(defects[defects.len() - 1]);
        let width = if largest > smallest {
            largest - smallest
        } else {
            1.0
        };
        let centre = smallest.midpoint(largest);
        let points: Vec<(f64, f64)> = good
            .iter()
            .map(|s| (s, low))
            .chain(defects.iter().map(|s| (s, high)))
            .map(|(s, target)| ((s - centre) / width, target))
            .collect();
        let loss = |a: f64, b: f64| -> f64 {
            let term = |z: f64, t: f64| z.max(0.0) + (-z.abs()).exp().ln_1p() - t * z;
            points.iter().map(|(x, t)| term(a * x + b, *t)).sum()
        };
        let (mut a, mut b) = (
            0.0,
            ((defects.len() as f64 + 1.0) / (good.len() as f64 + 1.0)).ln(),
        );
        let mut value = loss(a, b);
        for _ in 0..STEPS {
            // the ridge keeps the system solvable when all scores are equal
            let (mut aa, mut ab, mut bb, mut ga, mut gb) = (1e-12, 0.0, 1e-12, 0.0, 0.0);
            for (x, t) in &points {
                let p = probability(a * x + b);
                let (weight, error) = (p * (1.0 - p), p - t);
                aa += weight * x * x;
                ab += weight * x;
                bb += weight;
                ga += error * x;
                gb += error;
            }
            let determinant = aa * bb - ab * ab;
            let (da, db) = (
                (bb * ga - ab * gb) / determinant,
                (aa * gb - ab * ga) / determinant,
            );
            let slope = ga * da + gb * db;
            let mut step = 1.0;
            while step > 1e-10 && loss(a - step * da, b - step * db) > value - 1e-4 * step * slope {
                step /= 2.0;
            }
            if step <= 1e-10 {
                break;
            }
            (a, b) = (a - step * da, b - step * db);
            value = loss(a, b);
            if slope.abs() < 1e-20 {
                break;
            }
        }
        let (slope, intercept) = (a / width, b - a * centre / width);
        Ok(Self {
            slope,
            intercept,
            good: good.len(),
            defects: defects.len(),
        })
    }

    /// The same slope, and a probability of one half at the threshold.
    #[must_use]
    pub fn through(self, threshold: f64) -> Self {
        Self {
            intercept: -self.slope * threshold,
            ..self
        }
    }

    /// A curve where no defect is known: `rate` at the median good score and one half at the threshold. It is a scale and
    /// no measured frequency; [`Self::defects`] is 0 to say so.
    ///
    /// # Errors
    /// [`ThresholdError`] without scores, or if one is not finite.
    pub fn of_threshold(good: &[f64], threshold: f64, rate: f64) -> Result<Self, ThresholdError> {
        super::check_rate(rate)?;
        let good = sorted("good", good)?;
        let middle = good[(good.len() - 1) / 2].midpoint(good[good.len() / 2]);
        // scores that are all alike leave a step, as steep as numbers of their size can tell apart
        let width = (threshold - middle).max(1e-9 * threshold.abs().max(1e-9));
        let slope = ((1.0 - rate) / rate).ln().max(0.0) / width;
        Ok(Self {
            slope,
            intercept: -slope * threshold,
            good: good.len(),
            defects: 0,
        })
    }

    /// The probability that an image with this score is a flaw.
    pub fn probability(&self, score: f64) -> f64 {
        probability(self.slope * score + self.intercept)
    }
}

fn probability(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        z.exp() / (1.0 + z.exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: [f64; 7] = [0.10, 0.12, 0.15, 0.2, 0.22, 0.25, 0.31];
    const DEFECTS: [f64; 5] = [0.18, 0.35, 0.4, 0.28, 0.5];

    #[test]
    fn the_curve_is_scikit_learns() {
        // scikit-learn 1.9 _sigmoid_calibration: a = -10.1902425, b = 2.9501464 (its signs are turned)
        let fit = Calibration::fit(&GOOD, &DEFECTS).unwrap();
        assert!((fit.slope - 10.190_242).abs() < 2e-5, "{}", fit.slope);
        assert!(
            (fit.intercept + 2.950_146).abs() < 1e-5,
            "{}",
            fit.intercept
        );
        assert!((fit.probability(2.950_146 / 10.190_242) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn separated_and_equal_classes_stay_finite() {
        let apart = Calibration::fit(&[0.1, 0.1, 0.1], &[0.1001, 0.1001]).unwrap();
        assert!(
            (apart.probability(0.1) - 0.2).abs() < 1e-6
                && (apart.probability(0.1001) - 0.75).abs() < 1e-6
        );
        let equal = Calibration::fit(&[0.3; 6], &[0.3; 2]).unwrap();
        // the mean target: (6 · 1/8 + 2 · 3/4) / 8
        assert!(
            (equal.probability(0.3) - 0.281_25).abs() < 1e-6,
            "{equal:?}"
        );
    }

    #[test]
    fn without_defects_the_threshold_is_one_half() {
        let curve = Calibration::of_threshold(&GOOD, 0.3, 0.01).unwrap();
        assert!((curve.probability(0.3) - 0.5).abs() < 1e-12);
        assert!(
            (curve.probability(0.2) - 0.01).abs() < 1e-12,
            "the median of {GOOD:?}"
        );
        assert_eq!((curve.good, curve.defects), (7, 0));
        let flat = Calibration::of_threshold(&[0.2; 4], 0.2f64.next_up(), 0.01).unwrap();
        assert!(flat.probability(0.199) < 0.01 && flat.probability(0.201) > 0.99);
    }

    proptest! {
        #[test]
        fn probabilities_are_probabilities(
            good in prop::collection::vec(-1e3f64..1e3, 1..40), defects in prop::collection::vec(-1e3f64..1e3, 1..40),
            score in -1e9f64..1e9,
        ) {
            let p = Calibration::fit(&good, &defects).unwrap().probability(score);
            prop_assert!((0.0..=1.0).contains(&p), "{}", p);
        }
    }
}
