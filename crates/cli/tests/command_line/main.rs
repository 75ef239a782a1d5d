//! The binary from end to end, on a tiny data set with a tiny backbone.

mod ablate;
mod analyze;
mod augment;
mod datasets;
mod demo;
mod guard;
mod hierarchy;
mod hostile;
mod inside;
mod interrupt;
mod jobs;
mod meta;
mod predict;
mod progress;
mod record;
mod refusals;
mod report;
mod reproduce;
mod scaling;
mod settings;
mod shell;
mod synth;
mod tokens;
mod universal;
mod visualize;
mod world;
