//! Another threshold for a detector that was fitted.

use std::path::Path;

use super::WorkflowError;
use crate::bundle::{Bundle, Header};
use crate::score::threshold::{self, Method, Rule};

/// How a threshold is to be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NewThreshold {
    /// For so large a share of good images, by the scores that the file holds.
    FalseAlarms(f64),
    /// So that so large a share of the shots is found, by their scores in the file, each by a head that had not seen it.
    Find(f64),
    /// As given.
    Value(f64),
}

/// Gives a detector another threshold and writes it to `output`, which may be the same file. Nothing is fitted again: the scores
/// that the threshold was chosen from are in the file.
///
/// # Errors
/// A file that cannot be read or written; a share of defects where the file knows none; a value that is not finite.
pub fn set_threshold(
    path: &Path,
    new: NewThreshold,
    output: &Path,
) -> Result<Header, WorkflowError> {
    let mut bundle = Bundle::read(path)?;
    change(&mut bundle.header, new, path)?;
    bundle.write(output)?;
    Ok(bundle.header)
}

/// Gives a header another threshold; `path` names its file in errors.
pub(super) fn change(
    header: &mut Header,
    new: NewThreshold,
    path: &Path,
) -> Result<(), WorkflowError> {
    let old = &header.threshold;
    let (value, rule) = match new {
        NewThreshold::FalseAlarms(rate) => {
            let chosen = threshold::from_good(&old.good, rate, Method::Auto)?;
            (chosen.value, chosen.rule)
        }
        NewThreshold::Find(share) if old.defects.is_empty() => {
            return Err(WorkflowError::Input(format!(
                "{}: knows no defects, so nothing says what finds {:.0} % of them\nhint: fit with two defects or more, or \
                 choose by false alarms",
                path.display(),
                100.0 * share
            )));
        }
        NewThreshold::Find(share) => (threshold::finding(&old.defects, share)?, Rule::Given),
        NewThreshold::Value(value) if !value.is_finite() => {
            return Err(WorkflowError::Input(format!(
                "a threshold of {value} is not a number"
            )));
        }
        NewThreshold::Value(value) => (value, Rule::Given),
    };
    header.threshold.value = value;
    header.threshold.rule = rule;
    header.untaught_threshold = None;
    header.calibration = header.calibration.clone().through(value);
    Ok(())
}
