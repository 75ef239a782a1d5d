//! Image scores, anomaly maps, and the thresholds that turn them into verdicts.

pub mod map;
pub mod threshold;
