//! Few-shot visual flaw detection: adapt a frozen vision transformer with a handful of defect images.
//!
//! Modules follow the data: dataset, features, adapt, score, evaluate, report. [`bundle`] is what scores pictures where they
//! are made, as one file; [`workflow`] walks all of them from end to end.
#![warn(missing_docs)]

pub mod ablate;
pub mod adapt;
pub mod bench;
pub mod bundle;
pub mod dataset;
pub mod evaluate;
pub mod features;
mod names;
pub mod record;
pub mod report;
pub mod score;
pub use flawtune_synth as synth;
pub mod visualize;
pub mod workflow;
