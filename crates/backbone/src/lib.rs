//! Frozen DINOv2 and DINOv3 vision transformers on a CPU.
//!
//! Weight files in, tokens out: [`config`] says what a variant looks like, [`weights`] reads its file.
#![warn(missing_docs)]

pub mod config;
pub mod hub;
pub mod models;
pub mod torch_file;
pub mod weights;
