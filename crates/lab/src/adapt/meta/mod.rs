//! Meta-learned first values: prompts that a few steps on a few defects of a new category bring far.
//!
//! A task is a category with a seed and a number of shots. From it an *episode* is drawn: a support of good images and shots
//! for the inner steps, and a query of other good images and other defects of the pool for the outer one. Inner steps are
//! plain gradient descent, `θᵢ₊₁ = θᵢ − a ∇L_support(θᵢ)`. Then
//!
//! - [`Method::Reptile`] (Nichol et al. 2018) moves the start towards where the inner steps ended;
//! - [`Method::Fomaml`] goes along the query's gradient there, as if the inner steps did not depend on the start;
//! - [`Method::Maml`] (Finn et al. 2017) brings that gradient back through the inner steps,
//!   `(I − a H₀) … (I − a Hₙ₋₁) ∇L_query(θₙ)`, with the exact products of the Hessians of the support's loss.
//!
//! | file | holds |
//! |---|---|
//! | `episode.rs` | tasks, and what is drawn from them |
//! | `inner.rs` | inner steps and the outer gradient of an episode |
//! | `outer.rs` | the loop over episodes |
//! | `real.rs` | numbers that carry a derivative |
//! | `exact.rs` | loss, gradient and Hessian products for such numbers |

mod episode;
mod exact;
mod inner;
mod outer;
mod real;

pub use episode::MetaTask;
pub use outer::{IterationReport, MetaOptions, MetaOutcome, meta_train};

use std::str::FromStr;

use super::AdaptError;

/// How the start is moved after an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Method {
    /// Towards where a few steps on a task end
    Reptile,
    /// Along the gradient found there (first-order MAML)
    #[default]
    Fomaml,
    /// Along that gradient brought back through the steps, by exact products with the Hessian
    Maml,
}

impl Method {
    /// All of them, in the order they are listed to the user.
    pub const ALL: [Self; 3] = [Self::Reptile, Self::Fomaml, Self::Maml];

    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reptile => "reptile",
            Self::Fomaml => "fomaml",
            Self::Maml => "maml",
        }
    }
}

impl FromStr for Method {
    type Err = AdaptError;

    fn from_str(s: &str) -> Result<Self, AdaptError> {
        Self::ALL
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| AdaptError::Option {
                option: "method",
                found: format!("{s:?}"),
                wanted: "it is one of reptile, fomaml, maml".to_owned(),
            })
    }
}
