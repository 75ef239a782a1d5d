//! Logistic regression on one row per image: class token and mean patch token.

use serde::{Deserialize, Serialize};

use super::HeadError;
use super::logistic::{LinearHead, LogisticOptions, Standardisation, fit_logistic};
use crate::features::ImageTokens;

/// A linear head on `[class token ‖ mean patch token]`; 2 · dim + 1 trained numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageHead {
    /// Weights for the plain (not standardised) features.
    pub head: LinearHead,
}

/// `[class token ‖ mean patch token]` of an image, `[2 · dim]`.
pub fn image_features(image: &ImageTokens) -> Vec<f32> {
    let dim = image.cls().len();
    let mut mean = vec![0.0f64; dim];
    for patch in image.patches().chunks_exact(dim) {
        mean.iter_mut()
            .zip(patch)
            .for_each(|(m, x)| *m += f64::from(*x));
    }
    let count = (image.patches().len() / dim).max(1) as f64;
    image
        .cls()
        .iter()
        .copied()
        .chain(mean.into_iter().map(|m| (m / count) as f32))
        .collect()
}

impl ImageHead {
    /// Fits to the features (of [`image_features`]) of defective and of normal images, standardised on the normals.
    ///
    /// # Errors
    /// As [`fit_logistic`].
    pub fn fit(
        defective: &[&[f32]],
        normal: &[&[f32]],
        options: &LogisticOptions,
    ) -> Result<Self, HeadError> {
        let width = normal.first().or(defective.first()).map_or(0, |r| r.len());
        let (mut defective, mut normal) = (defective.concat(), normal.concat());
        let scale = Standardisation::of(&normal, width);
        scale.apply(&mut defective);
        scale.apply(&mut normal);
        let solution = fit_logistic(&defective, &normal, width, options)?;
        Ok(Self {
            head: scale.fold(&solution.head),
        })
    }

    /// The logit of an image's features.
    pub fn score(&self, features: &[f32]) -> f64 {
        f64::from(self.head.logit(features))
    }

    /// Trained numbers.
    pub fn trainable(&self) -> usize {
        self.head.trainable()
    }
}
