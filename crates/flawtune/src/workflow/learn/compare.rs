//! Whether a detector that learned is better: the same images by the old one and by the new one.

use serde::Serialize;

use super::images::NewImages;
use crate::bundle::{Finding, Header};
use crate::evaluate::metrics::auroc;

/// How much worse known images may be told apart before what was learned is refused.
const WORSE: f64 = 0.005;

/// Images that a detector had not seen, or had left out to judge them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Good images.
    pub good: usize,
    /// Those of them that it stops.
    pub stopped: usize,
    /// Defects.
    pub defects: usize,
    /// Those of them that it finds.
    pub found: usize,
}

/// Scores of the same images by the old detector and by the new one, each image by models that had not seen it.
pub(super) struct Comparable {
    good: [Vec<f64>; 2],
    defects: [Vec<f64>; 2],
}

impl Comparable {
    pub(super) fn of(was: &Header, new: &NewImages, good: &[Finding], defects: &[f64]) -> Self {
        let before = was.threshold.good.iter().chain(&new.good_found);
        // of the old shots there are scores where there were two or more
        let old_shots = &was.threshold.defects;
        let defects_before = old_shots.iter().chain(&new.defects_found);
        let first = defects
            .len()
            .saturating_sub(old_shots.len() + new.defects.len());
        Self {
            good: [
                before.copied().collect(),
                good.iter().map(|f| f.score).collect(),
            ],
            defects: [
                defects_before.copied().collect(),
                defects.iter().skip(first).copied().collect(),
            ],
        }
    }

    pub(super) fn tallies(&self, was: f64, is: f64) -> (Tally, Tally) {
        let of = |which: usize, threshold: f64| {
            let over = |scores: &[f64]| scores.iter().filter(|s| **s >= threshold).count();
            Tally {
                good: self.good[which].len(),
                stopped: over(&self.good[which]),
                defects: self.defects[which].len(),
                found: over(&self.defects[which]),
            }
        };
        (of(0, was), of(1, is))
    }

    /// How well both tell known images apart, where the new one does it worse.
    pub(super) fn worse(&self) -> Option<(f64, f64)> {
        let of = |which: usize| {
            let (good, defects) = (&self.good[which], &self.defects[which]);
            let labels: Vec<bool> = (0..good.len() + defects.len())
                .map(|i| i >= good.len())
                .collect();
            let scores: Vec<f64> = good.iter().chain(defects).copied().collect();
            auroc(&labels, &scores).ok().flatten()
        };
        let (was, is) = (of(0)?, of(1)?);
        (self.defects[0].len() == self.defects[1].len() && is < was - WORSE).then_some((was, is))
    }
}
