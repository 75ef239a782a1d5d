//! `DeLong`'s variance of an AUROC and test of the difference of two on the same images.
//!
//! `DeLong`, `DeLong` and Clarke-Pearson, Biometrics 44 (1988); the midrank form of Sun and Xu, IEEE Signal Processing
//! Letters 21 (2014): O(n log n) instead of one comparison a pair.

use serde::{Deserialize, Serialize};

use super::StatisticsError;
use super::bootstrap::Strata;
use crate::evaluate::metrics::MetricError;

/// What is left of a variance that is exactly zero in real numbers, in sums of shares between 0 and 1.
const ROUNDING: f64 = 1e-15;

/// The difference of two correlated AUROCs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DelongTest {
    /// AUROC of the first scorer.
    pub first: f64,
    /// AUROC of the second scorer.
    pub second: f64,
    /// Variance of the first AUROC.
    pub variance_first: f64,
    /// Variance of the second AUROC.
    pub variance_second: f64,
    /// Covariance of the two.
    pub covariance: f64,
    /// (first − second) over its standard error; `None` when the standard error is 0.
    pub z: Option<f64>,
    /// Two-sided p-value of "they are equal". 1 when both scorers decide every pair alike; `None` when they differ
    /// with a standard error of 0 (then nothing can be said from so few images).
    pub p_value: Option<f64>,
}

/// Midranks (1-based, ties share their mean).
fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        for &at in &order[start..end] {
            ranks[at] = (start + 1 + end) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

/// Share of normals that each defective image outranks, and share of defectives that outrank each normal image.
struct Placements {
    defective: Vec<f64>,
    normal: Vec<f64>,
    auroc: f64,
}

fn placements(labels: &[bool], scores: &[f64]) -> Result<Placements, StatisticsError> {
    if labels.len() != scores.len() {
        return Err(MetricError::Length {
            labels: labels.len(),
            scores: scores.len(),
        }
        .into());
    }
    if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
        return Err(MetricError::NotFinite { index }.into());
    }
    Strata::of(labels, 2)?;
    let class = |value: bool| -> Vec<f64> {
        // + 0.0: -0.0 ties with 0.0
        labels
            .iter()
            .zip(scores)
            .filter(|(l, _)| **l == value)
            .map(|(_, s)| *s + 0.0)
            .collect()
    };
    let (x, y) = (class(true), class(false));
    let (m, n) = (x.len() as f64, y.len() as f64);
    let both: Vec<f64> = x.iter().chain(&y).copied().collect();
    let together = midranks(&both);
    let share = |own: Vec<f64>, offset: usize, others: f64| -> Vec<f64> {
        own.iter()
            .enumerate()
            .map(|(i, r)| (together[offset + i] - r) / others)
            .collect()
    };
    let defective = share(midranks(&x), 0, n);
    let normal: Vec<f64> = share(midranks(&y), x.len(), m)
        .into_iter()
        .map(|v| 1.0 - v)
        .collect();
    let auroc = defective.iter().sum::<f64>() / m;
    Ok(Placements {
        defective,
        normal,
        auroc,
    })
}

fn covariance(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - mean_a) * (y - mean_b))
        .sum::<f64>()
        / (n - 1.0)
}

fn auroc_covariance(a: &Placements, b: &Placements) -> f64 {
    covariance(&a.defective, &b.defective) / a.defective.len() as f64
        + covariance(&a.normal, &b.normal) / a.normal.len() as f64
}

/// AUROC and its variance.
///
/// # Errors
/// Unusable labels or scores, fewer than two images of a class.
pub fn delong_variance(labels: &[bool], scores: &[f64]) -> Result<(f64, f64), StatisticsError> {
    let p = placements(labels, scores)?;
    Ok((p.auroc, auroc_covariance(&p, &p)))
}

/// Tests whether two scorers have the same AUROC on the same images.
///
/// # Errors
/// Unusable labels or scores, fewer than two images of a class.
pub fn delong_test(
    labels: &[bool],
    first: &[f64],
    second: &[f64],
) -> Result<DelongTest, StatisticsError> {
    let (a, b) = (placements(labels, first)?, placements(labels, second)?);
    let (variance_first, variance_second) = (auroc_covariance(&a, &a), auroc_covariance(&b, &b));
    let shared = auroc_covariance(&a, &b);
    let difference = a.auroc - b.auroc;
    let variance = variance_first + variance_second - 2.0 * shared;
    let (z, p_value) = if variance > ROUNDING {
        let z = difference / variance.sqrt();
        (
            Some(z),
            Some(libm::erfc(z.abs() / std::f64::consts::SQRT_2)),
        )
    } else if difference.abs() < 1e-12 {
        (None, Some(1.0))
    } else {
        (None, None)
    };
    Ok(DelongTest {
        first: a.auroc,
        second: b.auroc,
        variance_first,
        variance_second,
        covariance: shared,
        z,
        p_value,
    })
}
