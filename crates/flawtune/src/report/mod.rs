//! Pictures and pages of what was found. Nothing is computed here that `evaluate` or `score` should compute.

pub mod overlay;
