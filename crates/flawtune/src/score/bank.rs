//! Patch memory bank: every patch of a test is compared with all patches of all support images.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::features::TokenSet;
use crate::values;

use super::search::largest_cosine;
use super::{ImageScores, ScoreError, SupportSet, TokenChange, TokenKind};

/// Tests that are adapted and held at once; bounds memory, changes no result.
const TESTS_AT_ONCE: usize = 32;
/// Support images in one piece of work; a maximum does not depend on how it is split. What the first of them bring makes the
/// others faster to search.
const SUPPORT_AT_ONCE: usize = 64;

/// How the patch distances of an image become its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Mean of the largest `fraction · patches` distances, rounded, at least one.
    TopFraction(f64),
    /// The largest distance.
    Max,
    /// The mean distance.
    Mean,
}

impl Default for Aggregate {
    /// The mean of the top 1 %.
    fn default() -> Self {
        Self::TopFraction(0.01)
    }
}

impl std::fmt::Display for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TopFraction(share) => share.fmt(f),
            Self::Max => f.write_str("max"),
            Self::Mean => f.write_str("mean"),
        }
    }
}

impl std::str::FromStr for Aggregate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            "mean" => Ok(Self::Mean),
            text => values::part_above_zero(text)
                .map(Self::TopFraction)
                .map_err(|_| "must be max, mean, or a share above 0 and at most 1".into()),
        }
    }
}

impl Aggregate {
    /// Whether its fraction has a meaning.
    ///
    /// # Errors
    /// [`ScoreError::Fraction`].
    pub fn check(self) -> Result<(), ScoreError> {
        match self {
            Self::TopFraction(f) if !(f > 0.0 && f <= 1.0) => Err(ScoreError::Fraction(f)),
            _ => Ok(()),
        }
    }

    /// The score of an image from its patch distances, in f64.
    pub fn score(self, distances: &[f32]) -> f64 {
        let count = match self {
            Self::TopFraction(f) => {
                ((f * distances.len() as f64).round() as usize).clamp(1, distances.len().max(1))
            }
            Self::Max => 1,
            Self::Mean => distances.len(),
        };
        mean_of_largest(distances, count)
    }
}

/// The mean of the `count` largest of `values`, summed in f64 from the largest on; 0 of none.
pub(crate) fn mean_of_largest(values: &[f32], count: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let largest = sorted.iter().take(count).map(|&v| f64::from(v));
    largest.sum::<f64>() / count.max(1) as f64
}

/// Patch distance `1 − max cos` to the nearest patch of any support image; the maps hold these distances, and the image
/// score is an aggregate of them.
///
/// # Errors
/// Any of [`ScoreError`] but `Neighbours`.
pub fn patch_bank(
    support: &TokenSet,
    test: &TokenSet,
    change: Option<&dyn TokenChange>,
    aggregate: Aggregate,
) -> Result<ImageScores, ScoreError> {
    SupportSet::new(support, TokenKind::Patches, change)?.score_bank(test, aggregate)
}

impl SupportSet<'_> {
    /// Scores by the nearest patch of any support image; see [`patch_bank`].
    ///
    /// # Errors
    /// [`ScoreError::Width`] and [`ScoreError::Fraction`].
    pub fn score_bank(
        &self,
        test: &TokenSet,
        aggregate: Aggregate,
    ) -> Result<ImageScores, ScoreError> {
        aggregate.check()?;
        let maps = self.patch_distances(test)?;
        Ok(ImageScores {
            scores: maps.iter().map(|m| aggregate.score(m)).collect(),
            maps: Some(maps),
        })
    }

    /// `1 − max cos` to the nearest patch of any support image, one list per test.
    ///
    /// # Errors
    /// [`ScoreError::Width`].
    pub fn patch_distances(&self, test: &TokenSet) -> Result<Vec<Vec<f32>>, ScoreError> {
        self.check(test)?;
        let mut maps = Vec::with_capacity(test.images.len());
        for images in test.images.chunks(TESTS_AT_ONCE) {
            let packs = self.pack(images);
            let parts: Vec<_> = packs
                .iter()
                .flat_map(|test| {
                    self.images
                        .images()
                        .chunks(SUPPORT_AT_ONCE)
                        .map(move |support| (test, support))
                })
                .collect();
            let best: Vec<Vec<f32>> = parts
                .par_iter()
                .map(|(test, support)| largest_cosine(test, support, f32::NEG_INFINITY))
                .collect();
            let pieces = self.len().div_ceil(SUPPORT_AT_ONCE);
            maps.extend(best.chunks_exact(pieces).map(|pieces| {
                let nearest = |p: usize| {
                    pieces
                        .iter()
                        .map(|b| b[p])
                        .fold(f32::NEG_INFINITY, f32::max)
                };
                (0..pieces[0].len()).map(|p| 1.0 - nearest(p)).collect()
            }));
        }
        Ok(maps)
    }
}
