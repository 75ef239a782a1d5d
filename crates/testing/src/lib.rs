//! What tests of several crates need: the reference vectors of `golden/`, and noise that repeats for the same seed. For
//! `[dev-dependencies]` only: everything here panics where a program would explain.
#![warn(missing_docs)]

mod golden;
mod noise;

pub use golden::{Golden, golden, golden_json};
pub use noise::{Noise, SmallNoise};
