//! The binary from end to end, on a tiny data set with a tiny backbone.

mod guard;
mod hostile;
mod inside;
mod interrupt;
mod jobs;
mod refusals;
mod tokens;
mod world;
