//! Who may train on what, who is tested, and what the numbers mean.
//!
//! - [`metrics`] turns labels and scores into AUROC, average precision, curves and AUPRO.
//! - [`statistics`] says how sure we may be of them: bootstrap intervals, `DeLong`'s test, Holm's correction.
//!
//! Everywhere `true` (1) means defective and a higher score means more anomalous; a picture is called defective
//! when its score is at or above the threshold.

pub mod draws;
pub mod metrics;
pub mod statistics;
