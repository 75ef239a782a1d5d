//! Frozen DINOv2 and DINOv3 vision transformers on a CPU.
//!
//! Weight files in, tokens out: [`config`] says what a variant looks like, [`models`] names the known ones,
//! [`weights`] reads their files, [`preprocess`] turns images into their input, [`vit`] runs them, [`vjp`] runs them
//! with trainable tensors inside and brings gradients back to those. [`atomic_file`] is how every result is written.
#![warn(missing_docs)]

pub mod atomic_file;
pub mod config;
pub mod hub;
pub mod models;
pub mod preprocess;
pub mod torch_file;
pub mod vit;
pub mod vjp;
pub mod weights;
