//! The laboratory: the original recipe (prompts behind a frozen vision transformer, trained on a handful of defect images)
//! and what is studied with it. Its checkpoints go into bundles of [`flawtune`] as a source of tokens.
//!
//! [`adapt`] trains, [`visualize`] looks inside, [`ablate`] runs grids, [`mod@bench`] measures speed; [`workflow`] walks all of
//! them from end to end.
#![warn(missing_docs)]

pub mod ablate;
pub mod adapt;
pub mod augment;
pub mod bench;
mod error;
pub mod visualize;
pub mod workflow;
