//! From tokens to image scores and anomaly maps: larger means more likely flawed.
//!
//! | scorer | image score |
//! |---|---|
//! | [`image_pair`] | 1 − mean of the k largest `sim(test → support_i)` over patch tokens |
//! | [`class_token`] | the same with the cosine of the class tokens |
//! | [`patch_bank`] | mean of the largest patch distances, 1 − cosine to the nearest support patch |
//!
//! Zero-shot and adapted scores come from the same code: a [`TokenChange`], if given, changes
//! the tokens of support and test images before they are compared. No patch-by-patch matrix of images is kept. A score
//! depends on neither the number of threads nor the other test images. [`map`] draws patch distances at the image's
//! own size; [`threshold`] turns scores into verdicts.

mod bank;
mod change;
pub mod coreset;
mod error;
pub mod foreground;
pub mod heads;
pub mod map;
mod pair;
pub mod residual;
mod scorer;
pub mod search;
mod support;
pub mod threshold;

pub(crate) use bank::mean_of_largest;
pub use bank::{Aggregate, patch_bank};
pub use change::{ChangeRows, TokenChange, pack_images};
pub use error::ScoreError;
pub use pair::{class_token, image_pair};
pub use scorer::{Finding, Scorer, Untaught};
pub use support::{SupportSet, TokenKind};

/// Scores of a list of test images.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageScores {
    /// One score an image, in the order of the images; larger is more anomalous.
    pub scores: Vec<f64>,
    /// One anomaly map an image, row-major over the patch grid `[rows · columns]`; none for class tokens.
    pub maps: Option<Vec<Vec<f32>>>,
}
