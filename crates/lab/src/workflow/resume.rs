//! The state that an interrupted training left.

use std::path::Path;

use super::{Event, OnEvent, WorkflowError};
use crate::adapt::Checkpoint;

/// Reads it.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn read(path: &Path, on_event: OnEvent<'_>) -> Result<Checkpoint, WorkflowError> {
    if !path.exists() {
        return Err(WorkflowError::Input(format!(
            "{}: nothing to resume\nhint: omit `resume` to start afresh",
            path.display()
        )));
    }
    let saved = Checkpoint::read(path)?;
    on_event(Event::Read(path));
    Ok(saved)
}

/// What to say of a state that this run cannot go on from.
pub(super) fn of_another_run(path: &Path) -> WorkflowError {
    WorkflowError::Input(format!(
        "{}: made with other images or options\nhint: repeat the interrupted command exactly, or omit `resume`",
        path.display()
    ))
}
