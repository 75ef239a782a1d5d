//! What every scorer is: tokens of images in, a score and a patch map each out.

use std::fmt::Debug;

use crate::bundle::BundleError;
use crate::features::TokenSet;

/// What is known of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Image score; larger is more anomalous.
    pub score: f64,
    /// Scores of the patches over the grid, row-major, that maps are drawn of; 0 where the background is cut away.
    pub distances: Vec<f32>,
    /// How unlike good images the image is as a whole: 0 as they are, from 1 on unlike them; 0 where a scorer does not tell.
    pub drift: f64,
    /// Type of the flaw, if the image has one, where the scorer can name types.
    pub kind: Option<String>,
    /// The same without what was learned from defects, where anything was.
    pub untaught: Option<Untaught>,
}

/// What a scorer would say that had seen good images only.
#[derive(Debug, Clone, PartialEq)]
pub struct Untaught {
    /// Image score.
    pub score: f64,
    /// Scores of the patches over the grid.
    pub distances: Vec<f32>,
}

/// Scores images by their tokens.
///
/// The bank, image pairs, the ensemble and the residual head are scorers. What is found of an image depends on that image alone:
/// not on the others it is scored with, nor on the number of threads.
pub trait Scorer: Debug + Send + Sync {
    /// What is known of each image, in their order.
    ///
    /// # Errors
    /// [`BundleError::Tokens`] for tokens of another shape; tokens that are not numbers.
    fn score(&self, tokens: &TokenSet) -> Result<Vec<Finding>, BundleError>;

    /// The patch of good images that a patch of the first image is nearest to, by its place in the bank; `None` where a scorer does not
    /// tell.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn nearest(&self, _tokens: &TokenSet, _patch: usize) -> Result<Option<usize>, BundleError> {
        Ok(None)
    }

    /// The lowest and the highest number that its maps tell apart.
    fn span(&self) -> (f32, f32) {
        (0.0, 2.0)
    }
}
