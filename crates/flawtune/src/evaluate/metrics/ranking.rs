//! Metrics of a ranking: one label and one score per image.

use serde::{Deserialize, Serialize};

use super::MetricError;

/// How many defective and normal items share each distinct score, scores descending.
///
/// Everything a ranking metric needs; resampling only changes the counts, never the order.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// (defective, normal) per distinct score, highest score first.
    pub(crate) groups: Vec<(u64, u64)>,
}

/// The rank of each score among the distinct ones (0 = highest) and the distinct scores, descending.
pub(crate) fn dense_ranks(scores: &[f64]) -> Result<(Vec<usize>, Vec<f64>), MetricError> {
    if scores.is_empty() {
        return Err(MetricError::Empty);
    }
    if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
        return Err(MetricError::NotFinite { index });
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut distinct: Vec<f64> = Vec::new();
    let mut ranks = vec![0; scores.len()];
    for index in order {
        // == and not the total order: -0.0 and 0.0 are one score
        if distinct.last() != Some(&scores[index]) {
            distinct.push(scores[index]);
        }
        ranks[index] = distinct.len() - 1;
    }
    Ok((ranks, distinct))
}

impl Tally {
    fn count(labels: &[bool], scores: &[f64]) -> Result<(Self, Vec<f64>), MetricError> {
        if labels.len() != scores.len() {
            return Err(MetricError::Length {
                labels: labels.len(),
                scores: scores.len(),
            });
        }
        let (ranks, distinct) = dense_ranks(scores)?;
        let mut groups = vec![(0, 0); distinct.len()];
        for (&label, rank) in labels.iter().zip(ranks) {
            if label {
                groups[rank].0 += 1;
            } else {
                groups[rank].1 += 1;
            }
        }
        Ok((Self { groups }, distinct))
    }

    fn totals(&self) -> (u64, u64) {
        self.groups
            .iter()
            .fold((0, 0), |(p, n), g| (p + g.0, n + g.1))
    }

    /// Probability that a defective item outranks a normal one, ties counting one half; `None` with one class.
    pub(crate) fn auroc(&self) -> Option<f64> {
        let (positives, negatives) = self.totals();
        if positives == 0 || negatives == 0 {
            return None;
        }
        // twice the number of won pairs, in whole numbers: the only rounding is the division
        let mut above = 0u128;
        let mut twice = 0u128;
        for &(p, n) in &self.groups {
            twice += u128::from(n) * (2 * above + u128::from(p));
            above += u128::from(p);
        }
        Some(twice as f64 / (2.0 * positives as f64 * negatives as f64))
    }

    /// Sum over distinct scores of the step in recall times the precision there; 0 without defective items.
    pub(crate) fn average_precision(&self) -> f64 {
        let (positives, _) = self.totals();
        if positives == 0 {
            return 0.0;
        }
        let (mut tp, mut fp, mut sum) = (0u64, 0u64, 0.0);
        for &(p, n) in &self.groups {
            tp += p;
            fp += n;
            if p > 0 {
                sum += p as f64 * (tp as f64 / (tp + fp) as f64);
            }
        }
        sum / positives as f64
    }

    /// (true positives, false positives) when everything at or above each distinct score is called defective.
    fn cumulated(&self) -> Vec<(u64, u64)> {
        self.groups
            .iter()
            .scan((0, 0), |sums, g| {
                *sums = (sums.0 + g.0, sums.1 + g.1);
                Some(*sums)
            })
            .collect()
    }
}

/// Area under the ROC curve; `None` when only one class is present.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn auroc(labels: &[bool], scores: &[f64]) -> Result<Option<f64>, MetricError> {
    Ok(Tally::count(labels, scores)?.0.auroc())
}

/// Average precision (area under the precision–recall steps, no interpolation); without defective images 0.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn average_precision(labels: &[bool], scores: &[f64]) -> Result<f64, MetricError> {
    Ok(Tally::count(labels, scores)?.0.average_precision())
}

/// Receiver operating characteristic, from (0, 0) to (1, 1), thresholds descending.
///
/// The first threshold is infinite (nothing is called defective). A rate whose class is missing is NaN; both become
/// `null` in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RocCurve {
    /// False positive rate per point.
    pub fpr: Vec<f64>,
    /// True positive rate per point.
    pub tpr: Vec<f64>,
    /// Score at or above which an image is called defective.
    pub thresholds: Vec<f64>,
}

fn roc_from(points: &[(u64, u64)], scores: &[f64], (positives, negatives): (u64, u64)) -> RocCurve {
    let rate = |count: u64, total: u64| {
        if total == 0 {
            f64::NAN
        } else {
            count as f64 / total as f64
        }
    };
    let all = || std::iter::once(&(0, 0)).chain(points);
    RocCurve {
        fpr: all().map(|p| rate(p.1, negatives)).collect(),
        tpr: all().map(|p| rate(p.0, positives)).collect(),
        thresholds: std::iter::once(f64::INFINITY)
            .chain(scores.iter().copied())
            .collect(),
    }
}

/// The ROC curve with one point per distinct score.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn roc_curve(labels: &[bool], scores: &[f64]) -> Result<RocCurve, MetricError> {
    let (tally, distinct) = Tally::count(labels, scores)?;
    Ok(roc_from(&tally.cumulated(), &distinct, tally.totals()))
}

/// The ROC curve with only the points where it turns: the same line, fewer points to draw.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn roc_curve_corners(labels: &[bool], scores: &[f64]) -> Result<RocCurve, MetricError> {
    let (tally, distinct) = Tally::count(labels, scores)?;
    let points = tally.cumulated();
    let last = points.len() - 1;
    let keep: Vec<usize> = (0..points.len())
        .filter(|&i| {
            i == 0 || i == last || {
                let (a, b) = (tally.groups[i], tally.groups[i + 1]);
                a != b
            }
        })
        .collect();
    let kept: Vec<(u64, u64)> = keep.iter().map(|&i| points[i]).collect();
    let scores: Vec<f64> = keep.iter().map(|&i| distinct[i]).collect();
    Ok(roc_from(&kept, &scores, tally.totals()))
}

/// Precision and recall, thresholds ascending; one more point than thresholds: the last is (1, 0).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrCurve {
    /// Precision per point.
    pub precision: Vec<f64>,
    /// Recall per point; 1 everywhere when there are no defective images.
    pub recall: Vec<f64>,
    /// Score at or above which an image is called defective.
    pub thresholds: Vec<f64>,
}

/// The precision–recall curve with one point per distinct score.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn pr_curve(labels: &[bool], scores: &[f64]) -> Result<PrCurve, MetricError> {
    let (tally, mut thresholds) = Tally::count(labels, scores)?;
    let (positives, _) = tally.totals();
    let points = tally.cumulated();
    let mut precision: Vec<f64> = points
        .iter()
        .rev()
        .map(|&(tp, fp)| tp as f64 / (tp + fp) as f64)
        .collect();
    let mut recall: Vec<f64> = points
        .iter()
        .rev()
        .map(|&(tp, _)| {
            if positives == 0 {
                1.0
            } else {
                tp as f64 / positives as f64
            }
        })
        .collect();
    precision.push(1.0);
    recall.push(0.0);
    thresholds.reverse();
    Ok(PrCurve {
        precision,
        recall,
        thresholds,
    })
}

/// What a threshold does to a set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Score at or above which an image is called defective.
    pub threshold: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Share of the images called defective that are.
    pub precision: f64,
    /// Share of the defective images that are called so.
    pub recall: f64,
}

/// The threshold with the largest F1; the lowest among equals.
///
/// F1 values are compared as fractions of whole numbers, so that equal ones are equal.
///
/// # Errors
/// Empty input, different lengths, a score that is not finite.
pub fn f1_max(labels: &[bool], scores: &[f64]) -> Result<OperatingPoint, MetricError> {
    let (tally, distinct) = Tally::count(labels, scores)?;
    let (positives, _) = tally.totals();
    let mut best: Option<(u128, u128, usize)> = None;
    let points = tally.cumulated();
    for (i, &(tp, fp)) in points.iter().enumerate() {
        // F1 = 2 TP / (2 TP + FP + FN) = 2 TP / (called defective + defective)
        let (numerator, denominator) = (u128::from(2 * tp), u128::from(tp + fp + positives));
        if best.is_none_or(|(n, d, _)| numerator * d >= n * denominator) {
            best = Some((numerator, denominator, i));
        }
    }
    // a tally of at least one score has at least one point
    let (numerator, denominator, at) = best.ok_or(MetricError::Empty)?;
    let (tp, fp) = points[at];
    Ok(OperatingPoint {
        threshold: distinct[at],
        f1: numerator as f64 / denominator as f64,
        precision: tp as f64 / (tp + fp) as f64,
        recall: if positives == 0 {
            1.0
        } else {
            tp as f64 / positives as f64
        },
    })
}

/// Counts of right and wrong decisions at a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Defective and called so.
    pub true_positives: usize,
    /// Normal but called defective.
    pub false_positives: usize,
    /// Normal and called so.
    pub true_negatives: usize,
    /// Defective but called normal.
    pub false_negatives: usize,
}

/// Right and wrong decisions when scores at or above `threshold` are called defective.
///
/// # Errors
/// Different lengths.
pub fn confusion_at(
    labels: &[bool],
    scores: &[f64],
    threshold: f64,
) -> Result<Confusion, MetricError> {
    if labels.len() != scores.len() {
        return Err(MetricError::Length {
            labels: labels.len(),
            scores: scores.len(),
        });
    }
    let mut counts = Confusion::default();
    for (&label, &score) in labels.iter().zip(scores) {
        match (label, score >= threshold) {
            (true, true) => counts.true_positives += 1,
            (false, true) => counts.false_positives += 1,
            (false, false) => counts.true_negatives += 1,
            (true, false) => counts.false_negatives += 1,
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_has_no_auroc() {
        assert_eq!(auroc(&[true, true], &[0.1, 0.2]), Ok(None));
        assert_eq!(auroc(&[false], &[0.1]), Ok(None));
        assert_eq!(average_precision(&[true, true], &[0.1, 0.2]), Ok(1.0));
        assert_eq!(average_precision(&[false, false], &[0.1, 0.2]), Ok(0.0));
    }

    #[test]
    fn negative_zero_ties_with_zero() {
        assert_eq!(auroc(&[true, false], &[-0.0, 0.0]), Ok(Some(0.5)));
        assert_eq!(auroc(&[true, false], &[0.0, -0.0]), Ok(Some(0.5)));
    }

    #[test]
    fn unusable_scores_are_refused() {
        assert_eq!(auroc(&[], &[]), Err(MetricError::Empty));
        assert_eq!(
            auroc(&[true], &[]),
            Err(MetricError::Length {
                labels: 1,
                scores: 0
            })
        );
        assert_eq!(
            auroc(&[true, false], &[0.0, f64::NAN]),
            Err(MetricError::NotFinite { index: 1 })
        );
        assert_eq!(
            f1_max(&[true, false], &[f64::INFINITY, 0.0]),
            Err(MetricError::NotFinite { index: 0 })
        );
    }

    #[test]
    fn a_threshold_includes_scores_equal_to_it() {
        let counts = confusion_at(&[true, true, false, false], &[0.9, 0.5, 0.5, 0.1], 0.5).unwrap();
        assert_eq!(
            counts,
            Confusion {
                true_positives: 2,
                false_positives: 1,
                true_negatives: 1,
                false_negatives: 0
            }
        );
    }

    #[test]
    fn f1_ties_take_the_lowest_threshold() {
        // at 0.4: TP 1, FP 0, FN 1 -> 2/3; at 0.1: TP 2, FP 2 -> 4/6; the middle ones are smaller
        let point = f1_max(&[true, false, false, true], &[0.4, 0.3, 0.2, 0.1]).unwrap();
        assert_eq!(point.threshold, 0.1);
        assert!((point.f1 - 2.0 / 3.0).abs() < 1e-15);
    }
}
