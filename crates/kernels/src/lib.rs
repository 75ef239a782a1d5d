//! SIMD compute on slices for frozen vision transformers and patch matching.
//!
//! This is the only crate of the workspace that holds `unsafe` code. Everything is built on one register tile
//! ([`tile`](crate) in the source) over one layout, panels of lanes; each kernel is written once, generic over the
//! vector type, and compiled for every instruction set ([`dispatch`] picks one at run time).
//!
//! Two promises hold throughout: the number of threads changes no bit of a result, and neither does the
//! instruction set, because a sum always runs inside one lane in one fixed order.
#![warn(missing_docs)]

mod buffer;
pub mod dispatch;
pub mod encoder;
mod kernels;
mod lanes;
pub mod mapped;
pub mod matching;
mod math;
pub mod matmul;
pub mod pointwise;
pub mod prepacked;
mod simd;
mod team;
mod tile;
