//! Reads what the commands wrote.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::super::{
    Baseline, DetectorEvaluation, Evaluation, Visualization, WorkflowError, manifests, visualize,
};
use super::files::RunFiles;
use crate::adapt::Checkpoint;
use flawtune::evaluate::protocol::SplitManifest;
use flawtune::evaluate::score_table::ScoreTable;

/// Everything a run left, read.
#[derive(Debug, Default)]
pub(super) struct RunData {
    pub(super) files: RunFiles,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) detection: Option<DetectorEvaluation>,
    pub(super) baseline: Option<Baseline>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) manifest: Option<SplitManifest>,
    /// Lists by name, one value an epoch; null where it was not measured.
    pub(super) history: Option<Json>,
    /// Scores of the comparison's test images.
    pub(super) scores: Option<ScoreTable>,
    /// What `visualize` found, and the folder of its panels.
    pub(super) looks: Option<(PathBuf, Visualization)>,
    /// Scores of the bundle's test images; the column is `score`.
    pub(super) predictions: Option<ScoreTable>,
}

/// Reads all files of a run.
///
/// # Errors
/// A file that cannot be read, with what is wrong in it and what to do.
pub(super) fn read(files: RunFiles) -> Result<RunData, WorkflowError> {
    const AGAIN: &str = "it is damaged or was made by another version\nhint: run 'flawtune evaluate' again, or remove it";
    let checkpoint = files
        .checkpoint
        .as_deref()
        .map(Checkpoint::read)
        .transpose()?;
    let manifest = match (&files.checkpoint, &checkpoint) {
        (Some(path), Some(checkpoint)) => manifests::manifest(path, checkpoint, &files.category)?,
        _ => None,
    };
    let of_checkpoint = checkpoint.as_ref().map(|c| crate::adapt::json(&c.history));
    let history = match &files.history {
        Some(path) => Some(json(
            path,
            "it is damaged\nhint: remove it, the checkpoint holds the history too",
        )?),
        None => of_checkpoint,
    };
    Ok(RunData {
        evaluation: files
            .comparison
            .as_deref()
            .map(|p| json(p, AGAIN))
            .transpose()?,
        detection: files
            .detection
            .as_deref()
            .map(|p| json(p, AGAIN))
            .transpose()?,
        baseline: files
            .baseline
            .as_deref()
            .map(|p| json(p, AGAIN))
            .transpose()?,
        scores: files
            .scores
            .as_deref()
            .map(|p| ScoreTable::read(p, None))
            .transpose()?,
        predictions: files
            .predictions
            .as_deref()
            .map(|p| ScoreTable::read(p, Some("score")))
            .transpose()?,
        looks: looks(&files)?,
        checkpoint,
        manifest,
        history,
        files,
    })
}

/// The record of `visualize` for the category, in the run folder or in `visualize` below it.
fn looks(files: &RunFiles) -> Result<Option<(PathBuf, Visualization)>, WorkflowError> {
    const AGAIN: &str = "it is damaged or was made by another version\nhint: run 'flawtune visualize' again, or remove it";
    let name = format!("{}{}", files.category, visualize::RECORD);
    for folder in [files.folder.clone(), files.folder.join("visualize")] {
        let path = folder.join(&name);
        if path.is_file() {
            return Ok(Some((folder, json(&path, AGAIN)?)));
        }
    }
    Ok(None)
}

fn json<T: DeserializeOwned>(path: &Path, todo: &str) -> Result<T, WorkflowError> {
    let bytes = bytes(path)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        WorkflowError::Input(format!("{}: cannot be read ({e}); {todo}", path.display()))
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, WorkflowError> {
    std::fs::read(path).map_err(|source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "name a run that can be read",
    })
}
