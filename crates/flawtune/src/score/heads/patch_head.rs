//! A linear head on single patches, trained when only images are labelled (multiple instances).
//!
//! A defect is mostly normal. Its positives are the patches under its mask where it has one, else the share
//! of its patches farthest from the normal bank; in later rounds those the head itself likes best. Negatives are
//! patches of normal images: some at random, and the hard ones that lie farthest from the bank.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::HeadError;
use super::logistic::{LinearHead, LogisticOptions, Standardisation, fit_logistic};
use crate::features::ImageTokens;
use crate::random::{Purpose, Stream};
use crate::score::Aggregate;

/// An image to learn from.
#[derive(Debug, Clone, Copy)]
pub struct PatchExample<'a> {
    /// Its tokens.
    pub tokens: &'a ImageTokens,
    /// Distance of each patch to the normal bank, the image itself left out.
    pub distances: &'a [f32],
    /// Which patches the defect covers, where a mask says so; ignored for normal images.
    pub mask: Option<&'a [bool]>,
}

/// How to train a patch head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchHeadOptions {
    /// Share of a defect's patches taken as positives where it has no mask; at least one patch.
    pub positive_share: f64,
    /// Hard patches per normal image.
    pub hard_negatives: usize,
    /// Random patches per normal image.
    pub random_negatives: usize,
    /// Times the positives are picked anew by the head itself.
    pub rounds: usize,
    /// Share of an image's patches whose mean logit is its score; at least one patch.
    pub score_share: f64,
    /// The regression.
    pub logistic: LogisticOptions,
    /// Seed of the random patches.
    pub seed: u64,
}

impl Default for PatchHeadOptions {
    /// The values that measured best; see `docs/evidence/results.md`.
    fn default() -> Self {
        Self {
            positive_share: 0.05,
            hard_negatives: 8,
            random_negatives: 16,
            rounds: 0,
            score_share: 0.05,
            logistic: LogisticOptions::with_penalty(0.1),
            seed: 0,
        }
    }
}

/// A linear head on patch tokens; dim + 1 trained numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchHead {
    /// Weights for the plain (not standardised) patch tokens.
    pub head: LinearHead,
    /// Share of an image's patches whose mean logit is its score.
    pub score_share: f64,
}

fn share_of(share: f64, patches: usize) -> usize {
    ((share * patches as f64).round() as usize).clamp(1, patches.max(1))
}

/// The `count` patches with the largest values; ties go to the lower index.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

impl PatchHead {
    /// Trains on defective and normal images of `dim` numbers a token.
    ///
    /// # Errors
    /// As [`fit_logistic`]; [`HeadError::Option`] for a share outside (0, 1].
    pub fn fit(
        defective: &[PatchExample<'_>],
        normal: &[PatchExample<'_>],
        dim: usize,
        options: &PatchHeadOptions,
    ) -> Result<Self, HeadError> {
        for (option, share) in [
            ("positive share", options.positive_share),
            ("score share", options.score_share),
        ] {
            if !(share > 0.0 && share <= 1.0) {
                return Err(HeadError::Option {
                    option,
                    found: share.to_string(),
                    wanted: "a share above 0 and at most 1 is needed",
                });
            }
        }
        let patch =
            |image: &PatchExample<'_>, p: usize| image.tokens.patches()[p * dim..][..dim].to_vec();
        let mut negatives = Vec::new();
        let mut stream = Stream::new(options.seed, Purpose::NegativePatches);
        for image in normal {
            let mut picked = largest(image.distances, options.hard_negatives);
            let count = image.distances.len();
            let mut others: Vec<usize> = (0..count).filter(|p| !picked.contains(p)).collect();
            stream.shuffle(&mut others);
            others.truncate(options.random_negatives);
            picked.extend(others);
            negatives.extend(picked.into_iter().flat_map(|p| patch(image, p)));
        }
        let scale = Standardisation::of(&negatives, dim.max(1));
        scale.apply(&mut negatives);

        let mut values: Vec<Vec<f32>> = defective.iter().map(|d| d.distances.to_vec()).collect();
        let mut round = 0;
        loop {
            let mut positives = Vec::new();
            for (image, values) in defective.iter().zip(&values) {
                let under_mask = image.mask.filter(|m| m.iter().any(|covered| *covered));
                let picked = match under_mask {
                    Some(mask) => (0..mask.len()).filter(|&p| mask[p]).collect(),
                    None => largest(values, share_of(options.positive_share, values.len())),
                };
                positives.extend(picked.into_iter().flat_map(|p| patch(image, p)));
            }
            scale.apply(&mut positives);
            let solution = fit_logistic(&positives, &negatives, dim, &options.logistic)?;
            let head = Self {
                head: scale.fold(&solution.head),
                score_share: options.score_share,
            };
            if round == options.rounds {
                return Ok(head);
            }
            values = defective.iter().map(|d| head.logits(d.tokens)).collect();
            round += 1;
        }
    }

    /// The logit of every patch, row-major over the grid: an anomaly map.
    pub fn logits(&self, image: &ImageTokens) -> Vec<f32> {
        image
            .patches()
            .chunks_exact(self.head.weight.len())
            .map(|p| self.head.logit(p))
            .collect()
    }

    /// Mean of the top logits of an image.
    pub fn score(&self, image: &ImageTokens) -> f64 {
        Aggregate::TopFraction(self.score_share).score(&self.logits(image))
    }

    /// Scores of a list of images.
    pub fn scores(&self, images: &[ImageTokens]) -> Vec<f64> {
        images.par_iter().map(|i| self.score(i)).collect()
    }

    /// Trained numbers.
    pub fn trainable(&self) -> usize {
        self.head.trainable()
    }
}
