//! Image scores, anomaly maps, and the thresholds that turn them into verdicts.

pub mod coreset;
pub mod foreground;
pub mod map;
pub mod threshold;
