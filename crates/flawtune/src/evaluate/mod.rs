//! Who may train on what, who is tested, and what the numbers mean.
//!
//! - [`protocol`] splits a category's images into shots, hold-out and test, and guards the border between them.
//! - [`metrics`] turns labels and scores into AUROC, average precision, curves and AUPRO.
//! - [`statistics`] says how sure we may be of them: bootstrap intervals, `DeLong`'s test, Holm's correction.
//! - [`rows`] is one result for whatever scores: a row a scorer, on the same images.
//! - [`comparison`] holds an evaluation against its zero-shot baseline, as a file and as a table.
//! - [`score_table`] is every test image's score by every scorer, as a file.
//!
//! Everywhere `true` (1) means defective and a higher score means more anomalous; an image is called defective
//! when its score is at or above the threshold.

pub mod comparison;
pub mod metrics;
pub mod protocol;
pub mod rows;
pub mod score_table;
pub mod statistics;
