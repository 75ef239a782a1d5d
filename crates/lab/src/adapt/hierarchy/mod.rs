//! Hierarchical prompts: those that all shots share, and under them a set for each known defect type.
//!
//! The shared prompts are trained on all shots. Then every type gets prompts of its own beside them: started at its shots'
//! residuals, trained on its shots alone while everything shared stays as it is to the last bit. At test time an image's
//! residuals (its oddest patches less the good patches most like them) are compared with each type's prompts; the type that
//! responds best names the flaw, and its
//! level scores it. An image that no type responds to more than good images do is left to the shared level, so flaws of
//! unseen types are scored as without a hierarchy.
//!
//! | file | holds |
//! |---|---|
//! | `levels.rs` | the levels, and how a checkpoint keeps them |
//! | `residual.rs` | how an image's oddest patches differ from the good patches most like them |
//! | `response.rs` | how strongly the types respond to an image |
//! | `train.rs` | the prompts of a type: first values, training |

mod levels;
mod residual;
mod response;
mod train;

pub use levels::{Hierarchy, TypeLevel};
pub use residual::{GoodPatches, oddest};
pub(crate) use train::spread;
pub use train::{HierarchyData, Trained, train_levels};
