//! SIMD compute on slices for frozen vision transformers and patch matching.
//!
//! This is the only crate of the workspace that holds `unsafe` code.
#![warn(missing_docs)]

pub mod mapped;
pub mod matching;
pub mod matmul;
