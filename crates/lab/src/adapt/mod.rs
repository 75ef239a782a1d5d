//! Changing tokens so that flaws stand out: modulations with a few thousand trained numbers, their losses and their
//! training.
//!
//! One step of training reads like this. A [`Modulation`] changes the tokens of a batch; [`PairwiseMatches`] finds for
//! every patch of a normal image its best match in the other images and averages these into directed
//! [`Similarities`]; a [`Loss`] wants normals alike and defects apart. The gradient walks back: from the similarities
//! along the recorded matches to the tokens, through the modulation to its [`Parameters`], and [`Adam`] moves them.
//!
//! An [`Adaptation`] is a modulation together with what it takes to build it again. Every sum is taken in an order
//! that does not depend on the number of threads: the same seed gives the same bytes.
//!
//! | file | holds |
//! |---|---|
//! | `prompts.rs` | the softmax over prompts and its gradient |
//! | `per_patch.rs`, `global.rs`, `learned_transform.rs` | the three formulas |
//! | `self_scaled.rs`, `scale_penalty.rs` | a learned factor on what any of them adds; what holds scales near their start |
//! | `similarity.rs` | matches, similarities, the sparse gradient |
//! | `loss.rs` | what training minimises; separability, contrastive |
//! | `score_loss.rs`, `bank_matches.rs` | ranking and logistic losses of scores as a patch bank gives them |
//! | `step.rs` | loss and gradient of one batch |
//! | `batches.rs`, `optimiser.rs`, `hold_out.rs`, `train.rs` | the loop |
//! | `learner.rs` | what the loop trains: parameters, the loss of a batch, the way back |
//! | `inside/` | prompts, adapters and learned factors inside the transformer |
//! | `hierarchy/` | prompts for each known defect type beside the shared ones |
//! | `meta/` | meta-learned first values |
//! | `universal/` | one set of prompts for many categories: trained jointly, or averaged |
//! | `guard.rs` | whether what was trained may change a score |
//! | `state.rs`, `checkpoint.rs` | what is kept on disk |

pub(crate) use flawtune::workflow::{EpochRecord, EpochReport};

mod adaptation;
mod bank_matches;
mod batches;
mod checkpoint;
mod error;
mod global;
pub mod guard;
pub mod hierarchy;
mod hold_out;
pub mod inside;
mod learned_transform;
mod learner;
mod loss;
pub mod meta;
mod modulation;
mod optimiser;
mod parameters;
mod per_patch;
mod prompts;
mod recall;
mod scale_penalty;
mod score_loss;
mod self_scaled;
mod similarity;
mod state;
mod step;
mod train;
pub mod universal;

pub use adaptation::{Adaptation, AdaptationOptions, INITIAL_PROMPT_SCALE, rows_of};
pub use batches::{EpochSteps, Sampler, SamplerState};
pub use checkpoint::{Checkpoint, FORMAT_VERSION, json};
pub use error::AdaptError;
pub use hold_out::{HoldOut, HoldOutMetric};
pub use loss::{DEFAULT_MARGIN, Loss, LossType, SimilarityStats};
pub use modulation::{Modulation, ModulationType, PROMPT_SCALES, PROMPTS, Tape};
pub use optimiser::{Adam, clip_norm, cosine_rate};
pub use parameters::{Gradients, NamedTensor, Parameters};
pub use recall::MatchMemory;
pub use scale_penalty::{LearnedScale, ScalePenalty};
pub use score_loss::{DEFAULT_TEMPERATURE, DEFAULT_TOP_FRACTION, ScoreComparison, ScoreLoss};
pub use self_scaled::{INITIAL_RESIDUAL_SCALE, RESIDUAL_SCALE};
pub use similarity::{PairwiseMatches, Similarities};
pub(crate) use state::int as int_value;
pub use state::{Best, Settings, TrainState};
pub use step::{BatchLoss, BatchPass};
pub use train::{Outcome, TrainData, TrainOptions, train};
