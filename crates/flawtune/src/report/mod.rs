//! Results that people can see: overlays, plots and one self-contained page.
//!
//! This module only draws: every number comes ready from `evaluate` or `score`.

pub mod overlay;
pub mod page;
pub mod panel;
pub mod plot;
pub mod tensorboard;
