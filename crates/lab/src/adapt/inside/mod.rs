//! Training through the frozen backbone: prompts inside the transformer, bottleneck adapters, learned factors.
//!
//! One step: the embedded images of a batch run through the backbone with the inserted tensors
//! ([`flawtune_backbone::vjp`]), the output tokens are compared like any others (the loop, the losses and the optimiser
//! are those of output modulation), and the gradient with respect to the tokens walks back through the blocks to the
//! inserted tensors. An output modulation may be trained on top of them in the same step.
//!
//! | file | holds |
//! |---|---|
//! | `options.rs` | which tensors, and which combinations make sense |
//! | `inserted.rs` | the tensors as a checkpoint keeps them |
//! | `images.rs` | the images of a run, embedded once within a bound of memory |
//! | `start.rs`, `centroids.rs` | first values: Xavier, or centroids of normal patches |
//! | `learner.rs`, `train.rs` | a step, and the run |

mod centroids;
mod images;
mod inserted;
mod learner;
mod options;
mod start;
#[cfg(test)]
mod tests;
mod train;

pub use centroids::centroids;
pub use images::{DEFAULT_MEMORY, Embed, EmbeddedImages};
pub use inserted::Inserted;
pub use options::{InsideOptions, PromptInit, prompt_depth_name, scaling_name};
pub use start::{INIT_IMAGES, initial};
pub use train::{InsideData, InsideModel, train_inside};
