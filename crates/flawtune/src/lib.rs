//! Few-shot visual flaw detection on the tokens of a frozen vision transformer.
//!
//! Modules follow the data: dataset, features, score, evaluate, report. [`bundle`] is what scores pictures where they
//! are made, as one file; [`workflow`] walks all of them from end to end.
#![warn(missing_docs)]

pub mod bundle;
pub mod dataset;
pub mod evaluate;
pub mod features;
pub mod machine;
pub mod names;
pub mod random;
pub mod record;
pub mod report;
pub mod score;
pub use flawtune_synth as synth;
pub mod unit;
pub mod workflow;

pub use flawtune_backbone::preprocess::RgbImage8 as Image;
pub use score::map::{AnomalyMap, Region};
pub use workflow::{Backbone, Detector, DetectorBuilder, Prediction, WorkflowError as Error};
