//! One module a command: arguments to a request, the library's work, its result to text or JSON.

pub(crate) mod ablate;
pub(crate) mod analyze;
pub(crate) mod baseline;
pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod evaluate;
pub(crate) mod features;
pub(crate) mod fit;
mod in_force;
pub(crate) mod info;
mod inside;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod reproduce;
mod request;
pub(crate) mod synth;
mod tensorboard;
pub(crate) mod train;
