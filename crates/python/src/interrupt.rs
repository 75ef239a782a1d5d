//! Long work without the interpreter: what happens is told to Python, and Ctrl-C or an exception there ends it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use flawtune::Error;
use flawtune::workflow::{Event, OnEvent};
use pyo3::prelude::*;

use crate::failure::exception;
use crate::start_threads;

/// What unwinds the library: an exception of the callback, or Ctrl-C.
struct Stopped(PyErr);

/// Does the work without the interpreter. `on_event(kind, text, done, total)` is called with `progress`, `warning` or `note`; signals
/// are looked at before each call, and what the call raises ends the work.
///
/// The library has no way to break off a fit, and needs none: it writes files whole or not at all, so unwinding leaves nothing half
/// done.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    on_event: &Py<PyAny>,
    work: impl FnOnce(OnEvent<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let done = py.detach(|| {
        start_threads();
        catch_unwind(AssertUnwindSafe(|| {
            work(&mut |event| tell(on_event, &event))
        }))
    });
    match done {
        Ok(result) => result.map_err(|error| exception(&error)),
        Err(payload) => match payload.downcast::<Stopped>() {
            Ok(stopped) => Err(stopped.0),
            Err(other) => resume_unwind(other),
        },
    }
}

fn tell(on_event: &Py<PyAny>, event: &Event<'_>) {
    let told = Python::attach(|py| {
        py.check_signals()?;
        let arguments = match event {
            Event::Images(progress) => {
                let stage = format!("{:?}", progress.stage).to_lowercase();
                ("progress", stage, progress.done, progress.total)
            }
            Event::Download { file, done, total } => {
                let total = total.unwrap_or_default() as usize;
                (
                    "progress",
                    format!("fetching {file}"),
                    *done as usize,
                    total,
                )
            }
            Event::Scoring(what) => ("progress", format!("scoring {what}"), 0, 0),
            Event::Warning(text) => ("warning", text.clone(), 0, 0),
            Event::Note(text) => ("note", text.clone(), 0, 0),
            _ => return Ok(()),
        };
        on_event.call1(py, arguments).map(drop)
    });
    if let Err(error) = told {
        // not a panic: no message, no backtrace
        resume_unwind(Box::new(Stopped(error)));
    }
}
