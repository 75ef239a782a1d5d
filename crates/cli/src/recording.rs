//! The record of the run at hand; it is written however the run ends.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use flawtune::dataset::Ledger;
use flawtune::record::{OptionRecord, OptionSource, Outcome, Recorder};
use flawtune::workflow::Event;
use serde_json::Value;

use crate::Context;
use crate::console::warn;
use crate::failure::Failure;
use crate::settings::Settings;

/// What Ctrl-C has to finish, where it ends the process at once.
static RUNNING: Mutex<Option<Recorder>> = Mutex::new(None);

/// What an option came to that nobody set: who chose it, and what.
pub(crate) type InForce = Vec<(&'static str, OptionSource, Value)>;

/// What was not taken of the images as it lay there.
static INTAKE: Mutex<Ledger> = Mutex::new(Ledger::new());

/// A result as a line of JSON, with what was not taken of the images as it lay there, if anything.
pub(crate) fn json_with_intake(result: &impl serde::Serialize) -> Result<String, Failure> {
    let failed = |e| Failure::Machine(format!("cannot write the result as JSON: {e}"));
    let mut text = serde_json::to_string(result).map_err(failed)?;
    let ledger = INTAKE.lock().unwrap_or_else(PoisonError::into_inner);
    if !ledger.is_empty() && text.ends_with('}') {
        let intake = serde_json::to_string(&*ledger).map_err(failed)?;
        // not by way of a value: numbers of the result keep their digits
        text.truncate(text.len() - 1);
        text = format!("{text},\"intake\":{intake}}}");
    }
    Ok(text)
}

/// A run that is being recorded.
pub(crate) struct Recording(());

impl Recording {
    /// Starts to record what writes into `folder`.
    pub(crate) fn start(
        context: Context,
        folder: &Path,
        seed: Option<u64>,
        in_force: InForce,
    ) -> Self {
        Self::of(context.settings, folder, seed, in_force)
    }

    /// The same of a run inside of another command, with settings of its own.
    pub(crate) fn of(
        settings: &Settings,
        folder: &Path,
        seed: Option<u64>,
        in_force: InForce,
    ) -> Self {
        let mut recorder = Recorder::new(&settings.command, folder)
            .asked(settings.arguments.clone(), settings.options.clone());
        if let Some(seed) = seed {
            recorder = recorder.seed(seed);
        }
        recorder.came_to(named(in_force));
        *lock() = Some(recorder);
        Self(())
    }

    /// Takes down what an event tells.
    #[allow(clippy::unused_self)] // only who started it may speak
    pub(crate) fn hear(&self, event: &Event<'_>) {
        if let Event::Data(category) = event {
            let ledger = &category.dataset.ledger;
            *INTAKE.lock().unwrap_or_else(PoisonError::into_inner) = ledger.clone();
        }
        if let Some(recorder) = lock().as_mut() {
            recorder.hear(event);
        }
    }

    /// What an option came to that only the run itself could tell.
    #[allow(clippy::unused_self)]
    pub(crate) fn came_to(&self, in_force: InForce) {
        if let Some(recorder) = lock().as_mut() {
            recorder.came_to(named(in_force));
        }
    }

    /// Writes the record; consuming, since a run ends once.
    #[allow(clippy::unused_self, clippy::needless_pass_by_value)]
    pub(crate) fn end(self, outcome: Outcome) {
        end(outcome);
    }
}

/// Ctrl-C ends the process: what is recorded so far is written.
pub(crate) fn interrupted() {
    end(Outcome::Interrupted);
}

/// How a job ended.
pub(crate) fn outcome<T, E>(result: &Result<T, E>) -> Outcome {
    if result.is_ok() {
        Outcome::Finished
    } else {
        Outcome::Failed
    }
}

fn end(outcome: Outcome) {
    // a run that is over is not at fault if its record cannot be written
    match lock().take().map(|recorder| recorder.finish(outcome)) {
        Some(Ok(Some(kept))) => {
            if let Some(error) = kept.beside {
                warn(&format!(
                    "{error}; it is left as it is, and this run is recorded in {}",
                    kept.path.display()
                ));
            }
        }
        Some(Err(error)) => warn(&format!("the run is not recorded: {error}")),
        _ => {}
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Recorder>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By the options' long names.
pub(crate) fn named(in_force: InForce) -> impl Iterator<Item = (String, OptionRecord)> {
    in_force
        .into_iter()
        .map(|(name, source, value)| (name.to_owned(), OptionRecord::new(value, source)))
}
