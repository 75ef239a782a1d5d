//! One run: train, evaluate, and what came of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::execute::Ended;
use super::result::{Difference, Finished, ScorerResult, Status};
use super::{AblateError, RunSpec};
use crate::adapt::TrainState;
use crate::workflow::{EvaluateRequest, Evaluated, TrainRequest, Trained, evaluate, train};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::record::{OptionRecord, Outcome, Recorder};
use flawtune::workflow::{Event, OnEvent, WorkflowError};

/// A hash of everything that decides a run's result: `inputs` (images, weights, preprocessing, as [`extract_all`] hashes
/// them), the run's settings, `options` that every run of the study has, and the version of flawtune.
///
/// [`extract_all`]: crate::workflow::extract_all
pub fn run_key<'a>(spec: &RunSpec, inputs: &str, options: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    };
    [
        inputs,
        env!("CARGO_PKG_VERSION"),
        &spec.category,
        &spec.seed.to_string(),
    ]
    .into_iter()
    .for_each(&mut add);
    spec.point.iter().for_each(|s| add(&s.to_string()));
    add("options");
    options.for_each(&mut add);
    hasher.finalize().to_hex()[..32].to_owned()
}

/// What a command of a run was told, for its record.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The arguments, without the program.
    pub arguments: Vec<String>,
    /// Every option in force.
    pub options: BTreeMap<String, OptionRecord>,
    /// What options came to that nobody set.
    pub came_to: Vec<(String, OptionRecord)>,
}

/// A run: a training and the evaluation of what it leaves, both in one folder.
#[derive(Debug)]
pub struct RunRequests {
    /// The training.
    pub train: TrainRequest,
    /// The evaluation; its checkpoint is the one that the training writes.
    pub evaluate: EvaluateRequest,
    /// What the training and the evaluation were told.
    pub asked: [Asked; 2],
}

impl RunRequests {
    /// Trains, evaluates and records both. Whatever goes wrong is the run's own result, not the study's.
    pub fn run(&self, seed: u64, cancel: &AtomicBool) -> Ended {
        let mut warnings = Vec::new();
        let result = self.both(seed, cancel, &mut |event| {
            if let Event::Warning(text) = event {
                warnings.push(text);
            }
        });
        match result {
            Ok(Some(found)) => Ended::Over(Status::Finished(Box::new(found)), warnings),
            Ok(None) => Ended::Stopped,
            Err(error) => Ended::Over(Status::Failed { error }, warnings),
        }
    }

    fn both(
        &self,
        seed: u64,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<Option<Finished>, String> {
        let folder = &self.train.output_dir;
        let [of_train, of_evaluate] = &self.asked;
        let recorder = |command: &str, asked: &Asked| {
            let recorder = Recorder::new(command, folder).seed(seed);
            let mut recorder = recorder.asked(asked.arguments.clone(), asked.options.clone());
            recorder.came_to(asked.came_to.iter().cloned());
            recorder
        };
        let trained = recorded(recorder("train", of_train), on_event, |on_event| {
            train(&self.train, cancel, on_event).map(|t| (outcome(t.interrupted), t))
        })?;
        if trained.interrupted {
            return Ok(None);
        }
        let evaluated = recorded(recorder("evaluate", of_evaluate), on_event, |on_event| {
            evaluate(&self.evaluate, on_event).map(|e| (Outcome::Finished, e))
        })?;
        let table = folder.join(format!(
            "{}_scores.csv",
            evaluated.evaluation.comparison.category
        ));
        finished(&trained, &evaluated, &table)
            .map(Some)
            .map_err(|e| e.to_string())
    }
}

fn outcome(interrupted: bool) -> Outcome {
    if interrupted {
        Outcome::Interrupted
    } else {
        Outcome::Finished
    }
}

/// Does a job and leaves its record, however it ends.
fn recorded<T>(
    mut recorder: Recorder,
    on_event: OnEvent<'_>,
    job: impl FnOnce(OnEvent<'_>) -> Result<(Outcome, T), WorkflowError>,
) -> Result<T, String> {
    let result = job(&mut |event| {
        recorder.hear(&event);
        on_event(event);
    });
    let how = result.as_ref().map_or(Outcome::Failed, |found| found.0);
    if let Err(e) = recorder.finish(how) {
        on_event(Event::Warning(format!("the run is not recorded: {e}")));
    }
    result.map(|found| found.1).map_err(|e| e.to_string())
}

fn finished(
    trained: &Trained,
    evaluated: &Evaluated,
    table: &Path,
) -> Result<Finished, AblateError> {
    let evaluation = &evaluated.evaluation;
    let comparison = &evaluation.comparison;
    Ok(Finished {
        protocol: comparison.protocol.clone(),
        leaky: evaluation.leaky,
        shots: comparison.shots,
        test_normals: comparison.test_normals,
        test_defects: comparison.test_defects,
        test_set_hash: comparison.test_set_hash.clone(),
        trainable: trained.trainable.iter().map(|t| t.1).sum(),
        epochs: trained.state.as_ref().map_or(0, |s| s.epochs_done),
        kept_epoch: trained.state.as_ref().map_or(0, TrainState::kept_epoch),
        guard_falls_back: trained.guard.map(|g| g.fallback),
        comparison: Difference::of(comparison),
        scorers: ScorerResult::of_table(&ScoreTable::read(table, None)?)?,
    })
}
