//! Image-to-image similarity: a test is as anomalous as it is unlike its nearest normal images.

use flawtune_kernels::matching::{Nearest, PackedPatches, max_similarity};
use rayon::prelude::*;

use crate::features::TokenSet;

use super::{ImageScores, ScoreError, SupportSet, TokenChange, TokenKind};

/// Test images that are adapted and held at once; bounds memory, changes no result.
const TESTS_AT_ONCE: usize = 32;

/// Image score `1 − mean of the k largest sim(test → support_i)` with
/// `sim(a→b) = mean_p max_q cos(a_p, b_q)`, over patch tokens. The maps hold, for each patch of the test,
/// `1 − mean max_q cos` over the same k images, so that a map's mean is the score.
///
/// # Errors
/// Any of [`ScoreError`] but `Fraction`.
pub fn image_pair(
    support: &TokenSet,
    test: &TokenSet,
    change: Option<&dyn TokenChange>,
    k: usize,
) -> Result<ImageScores, ScoreError> {
    SupportSet::new(support, TokenKind::Patches, change)?.score_pairs(test, k, true)
}

/// Image score `1 − mean of the k largest cosines` of the test's class token with those of the support images.
///
/// # Errors
/// As [`image_pair`].
pub fn class_token(
    support: &TokenSet,
    test: &TokenSet,
    change: Option<&dyn TokenChange>,
    k: usize,
) -> Result<ImageScores, ScoreError> {
    SupportSet::new(support, TokenKind::Class, change)?.score_pairs(test, k, false)
}

impl SupportSet<'_> {
    /// Scores by the k most similar support images, with anomaly maps if asked. Support images that can't be among them
    /// are left out by bounds, which changes no bit of the scores.
    ///
    /// # Errors
    /// [`ScoreError::Width`] and [`ScoreError::Neighbours`].
    pub fn score_pairs(
        &self,
        test: &TokenSet,
        k: usize,
        maps: bool,
    ) -> Result<ImageScores, ScoreError> {
        self.check(test)?;
        if k == 0 || k > self.len() {
            return Err(ScoreError::Neighbours {
                k,
                support: self.len(),
            });
        }
        let mut scores = Vec::with_capacity(test.images.len());
        let mut all_maps = Vec::new();
        for images in test.images.chunks(TESTS_AT_ONCE) {
            let packs = self.pack(images);
            let nearest = self.images.nearest(&packs, k);
            scores.extend(nearest.iter().map(|near| 1.0 - mean(near)));
            if maps {
                all_maps.par_extend(
                    packs
                        .par_iter()
                        .zip(&nearest)
                        .map(|(pack, near)| self.map(pack, near)),
                );
            }
        }
        Ok(ImageScores {
            scores,
            maps: maps.then_some(all_maps),
        })
    }

    /// Scores of images that are in the support set themselves, each without itself; `own[i]` says where `images[i]` is.
    ///
    /// # Errors
    /// [`ScoreError::Width`], and [`ScoreError::Neighbours`] if fewer than `k` others are left.
    pub fn score_left_out(
        &self,
        images: &TokenSet,
        own: &[usize],
        k: usize,
    ) -> Result<Vec<f64>, ScoreError> {
        self.check(images)?;
        let others = self.len().saturating_sub(1);
        if k == 0 || k > others {
            return Err(ScoreError::Neighbours { k, support: others });
        }
        let mut scores = Vec::with_capacity(images.images.len());
        for (images, own) in images
            .images
            .chunks(TESTS_AT_ONCE)
            .zip(own.chunks(TESTS_AT_ONCE))
        {
            let nearest = self.images.nearest(&self.pack(images), k + 1);
            scores.extend(nearest.into_iter().zip(own).map(|(mut near, own)| {
                near.images.retain(|(image, _)| image != own);
                near.images.truncate(k);
                1.0 - mean(&near)
            }));
        }
        Ok(scores)
    }

    /// `1 − mean over some support images of max_q cos`, per patch of the test.
    fn map(&self, test: &PackedPatches, near: &Nearest) -> Vec<f32> {
        let (mut best, mut sums) = (vec![0.0f32; test.patches()], vec![0.0f64; test.patches()]);
        for &(s, _) in &near.images {
            max_similarity(test, &self.images.images()[s], &mut best);
            sums.iter_mut()
                .zip(&best)
                .for_each(|(sum, &b)| *sum += f64::from(b));
        }
        sums.iter()
            .map(|sum| (1.0 - sum / near.images.len() as f64) as f32)
            .collect()
    }
}

/// The mean of the similarities, from the largest on.
fn mean(near: &Nearest) -> f64 {
    near.images
        .iter()
        .map(|&(_, similarity)| similarity)
        .sum::<f64>()
        / near.images.len() as f64
}
