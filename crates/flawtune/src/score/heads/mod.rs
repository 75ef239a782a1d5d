//! Supervised heads on frozen (or adapted) tokens: the plain methods that prompts have to beat.
//!
//! | file | holds | trained numbers at width D |
//! |---|---|---|
//! | `logistic.rs` | class-balanced L2 logistic regression, solved to convergence | |
//! | `descent.rs` | how it is solved: limited-memory BFGS | |
//! | `image_head.rs` | logistic regression on class token ‖ mean patch token | 2 D + 1 |
//! | `patch_head.rs` | logistic regression on patches, by multiple instances | D + 1 |
//! | `defect_memory.rs` | distance to the normal bank minus distance to known defect patches | 0 |
//! | `normality.rs` | Mahalanobis distance and cosine under the normal images' correlation | 0 |
//! | `ensemble.rs` | the default: distance from normal, raised by likeness to known defects; cross-validated guard | 2 D + 1 |
//! | `record.rs` | what a checkpoint keeps of the ensemble | |
//! | `bank.rs` | patch distances to normal images, leaving one out | 0 |

mod bank;
mod defect_memory;
mod descent;
mod ensemble;
mod image_head;
mod logistic;
mod normality;
mod patch_head;
mod record;

pub use bank::PatchBank;
pub use defect_memory::DefectMemory;
pub use ensemble::{
    BANK_SHARE, Ensemble, EnsembleOptions, EnsembleScore, Evidence, Guard, NORMALS_NEEDED,
};
pub use image_head::{ImageHead, image_features};
pub use logistic::{
    Fit, LinearHead, LogisticOptions, Segment, Solution, fit_logistic, fit_together,
};
pub use normality::{Departure, Normality};
pub use patch_head::{PatchExample, PatchHead, PatchHeadOptions};
pub use record::EnsembleRecord;

/// Why a head could not be trained.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// Not enough to learn from.
    #[error("{found} {what}: at least {wanted} are needed to train a head")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// An option that has no meaning.
    #[error("{option} is {found}: {wanted}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// Features that are not finite.
    #[error(
        "the features hold NaN or infinite values\nhint: look at the weights and the images they came from"
    )]
    NotFinite,
    /// A stored ensemble whose parts do not fit each other.
    #[error(
        "{what} of the stored ensemble has {found} numbers, {wanted} wanted: the file was damaged or altered"
    )]
    Stored {
        /// Which part.
        what: &'static str,
        /// Numbers found.
        found: usize,
        /// Numbers wanted.
        wanted: usize,
    },
    /// Patch distances are missing.
    #[error(
        "the ensemble was fitted with patch distances to normal images and needs them to score"
    )]
    NoBank,
    /// Token sets that do not belong together.
    #[error(
        "tokens of {found} numbers, {wanted} wanted: both sets must come from one backbone and one resolution"
    )]
    Width {
        /// Numbers per token found.
        found: usize,
        /// Numbers per token wanted.
        wanted: usize,
    },
}
