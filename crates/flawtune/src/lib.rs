//! Few-shot visual flaw detection: adapt a frozen vision transformer with a handful of defect images.
//!
//! Modules follow the data: dataset, features, adapt, score, evaluate, report.
#![warn(missing_docs)]

pub mod features;
pub mod report;
pub mod synth;
