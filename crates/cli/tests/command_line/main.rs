//! The binary from end to end, on a tiny data set with a tiny backbone.

#![allow(clippy::unwrap_used)] // a test may stop

mod ablate;
mod analyze;
mod augment;
mod datasets;
mod demo;
mod field;
mod guard;
mod hierarchy;
mod hostile;
mod inside;
mod interrupt;
mod jobs;
mod learn;
mod meta;
mod outlet;
mod predict;
mod progress;
mod promises;
mod prose;
mod record;
mod refusals;
mod report;
mod reproduce;
mod scaling;
mod service;
mod settings;
mod shape;
mod shell;
mod shot_masks;
mod synth;
mod tokens;
mod training_data;
mod universal;
mod visualize;
mod world;
