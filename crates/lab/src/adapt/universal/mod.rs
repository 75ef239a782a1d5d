//! Universal prompts: one set for many categories, trained jointly or averaged from sets that were trained apart.
//!
//! | file | holds |
//! |---|---|
//! | `joint.rs` | training with a batch of every category in each step |
//! | `sampling.rs` | which images of a category make up a step's batch |
//! | `merge.rs` | the mean of prompts, as they are or matched to each other first |

mod joint;
mod merge;
mod sampling;

pub use joint::{JointCategory, train_joint};
pub use merge::{Agreement, Merge, Merged, merge};
