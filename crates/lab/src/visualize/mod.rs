//! What a model looks at and what prompts change, as numbers: [`report`](flawtune::report) draws them.
//!
//! | question | answer |
//! |---|---|
//! | which patches does a prompt attend to, and how much of the change is its doing? | [`PromptShare`] |
//! | how far and in which direction did a patch move? | [`PatchChange`], [`cosine`] |
//! | where is an image unlike every normal image? | [`PatchBank`]: distances before and after |
//! | where in the image does a token's content come from? | [`Rollout`] |
//! | which patches raise the image's score? | [`grad_cam`] of [`PatchScore::gradient`] |
//! | what do the tokens hold? | [`Pca`] of patches as colours, [`Projection`] of prompts among patches |
//!
//! Everything here is a function of tokens, gradients and attention weights that a forward and a backward pass through the
//! backbone gave ([`flawtune_backbone::vjp`]); no pass is made here. Sums run in f64 in a fixed order.

mod bank;
mod change;
mod error;
mod grad_cam;
mod pca;
mod projection;
mod prompt_share;
mod rollout;

pub use bank::{PatchBank, PatchScore};
pub use change::{PatchChange, cosine, mean_row};
pub use error::VisualizeError;
pub use grad_cam::grad_cam;
pub use pca::{Pca, colours};
pub use projection::Projection;
pub use prompt_share::{PromptShare, prompt_shares};
pub use rollout::{Rollout, TokenLayout};

/// `x · y` in f64, in order.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}
