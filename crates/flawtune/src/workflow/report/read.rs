//! Reads what the commands wrote.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::super::{Baseline, BundleEvaluation, Evaluation, WorkflowError, evaluate};
use super::files::RunFiles;
use crate::adapt::Checkpoint;
use crate::evaluate::protocol::SplitManifest;

/// Everything a run left, read.
#[derive(Debug, Default)]
pub(super) struct RunData {
    pub(super) files: RunFiles,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) detection: Option<BundleEvaluation>,
    pub(super) baseline: Option<Baseline>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) manifest: Option<SplitManifest>,
    /// Lists by name, one value an epoch; null where it was not measured.
    pub(super) history: Option<Json>,
    /// Scores of the comparison's test images.
    pub(super) scores: Option<Scores>,
    /// Scores of the bundle's test images; the column is `score`.
    pub(super) predictions: Option<Scores>,
}

/// Test images and their scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scores {
    pub(super) ids: Vec<String>,
    /// `None` for normal images.
    pub(super) kinds: Vec<Option<String>>,
    /// Name and one score an image.
    pub(super) columns: Vec<(String, Vec<f64>)>,
}

impl Scores {
    pub(super) fn column(&self, name: &str) -> Option<&[f64]> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, scores)| &scores[..])
    }

    pub(super) fn labels(&self) -> Vec<bool> {
        self.kinds.iter().map(Option::is_some).collect()
    }
}

/// Reads all files of a run.
///
/// # Errors
/// A file that cannot be read, with what is wrong in it and what to do.
pub(super) fn read(files: RunFiles) -> Result<RunData, WorkflowError> {
    const AGAIN: &str =
        "it is damaged or was made by another version: run 'flawtune evaluate' again, or remove it";
    let checkpoint = files.checkpoint.as_deref().map(Checkpoint::read).transpose()?;
    let manifest = match (&files.checkpoint, &checkpoint) {
        (Some(path), Some(checkpoint)) => evaluate::manifest(path, checkpoint)?,
        _ => None,
    };
    let of_checkpoint = checkpoint.as_ref().map(|c| crate::adapt::json(&c.history));
    let history = match &files.history {
        Some(path) => Some(json(path, "it is damaged: remove it, the checkpoint holds the history too")?),
        None => of_checkpoint,
    };
    Ok(RunData {
        evaluation: files.comparison.as_deref().map(|p| json(p, AGAIN)).transpose()?,
        detection: files.detection.as_deref().map(|p| json(p, AGAIN)).transpose()?,
        baseline: files.baseline.as_deref().map(|p| json(p, AGAIN)).transpose()?,
        scores: files.scores.as_deref().map(|p| scores(p, None)).transpose()?,
        predictions: files.predictions.as_deref().map(|p| scores(p, Some("score"))).transpose()?,
        checkpoint,
        manifest,
        history,
        files,
    })
}

fn json<T: DeserializeOwned>(path: &Path, todo: &str) -> Result<T, WorkflowError> {
    let bytes = bytes(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| WorkflowError::Input(format!("{}: cannot be read ({e}); {todo}", path.display())))
}

fn bytes(path: &Path) -> Result<Vec<u8>, WorkflowError> {
    std::fs::read(path).map_err(|source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "name a run that can be read",
    })
}

/// A table of test images: `image,defect_type`, then scores; of these all columns, or `only` one.
fn scores(path: &Path, only: Option<&str>) -> Result<Scores, WorkflowError> {
    let wrong = |what: String| {
        WorkflowError::Input(format!(
            "{}: {what}; it is damaged: run 'flawtune evaluate' again, or remove it",
            path.display()
        ))
    };
    let bytes = bytes(path)?;
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let head = reader.headers().map_err(|e| wrong(e.to_string()))?.clone();
    if head.get(0) != Some("image") || head.get(1) != Some("defect_type") {
        return Err(wrong("its columns do not begin with image,defect_type".to_owned()));
    }
    let wanted: Vec<usize> =
        (2..head.len()).filter(|&i| only.is_none_or(|name| head.get(i) == Some(name))).collect();
    let columns = wanted.iter().map(|&i| (head[i].to_owned(), Vec::new())).collect();
    let mut found = Scores { columns, ..Scores::default() };
    if found.columns.is_empty() {
        return Err(wrong("it has no column of scores".to_owned()));
    }
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|e| wrong(e.to_string()))?;
        found.ids.push(record[0].to_owned());
        found.kinds.push(Some(record[1].to_owned()).filter(|kind| !kind.is_empty()));
        for ((name, column), &i) in found.columns.iter_mut().zip(&wanted) {
            let value: Option<f64> = record[i].parse().ok().filter(|v: &f64| v.is_finite());
            column.push(value.ok_or_else(|| {
                wrong(format!("row {}: {:?} in column {name} is not a number", row + 2, &record[i]))
            })?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_by_column_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_scores.csv");
        let read = |text: &str, only| {
            std::fs::write(&path, text).unwrap();
            scores(&path, only).map_err(|e| e.to_string())
        };
        let found = read("image,defect_type,a,b\n\"x,1.png\",,1,0.5\ny.png,hole,-2e-3,1\n", None).unwrap();
        assert_eq!(found.ids, ["x,1.png", "y.png"]);
        assert_eq!(found.labels(), [false, true]);
        assert_eq!(found.column("a"), Some(&[1.0, -0.002][..]));
        assert_eq!(found.column("c"), None);
        let one = read("image,defect_type,score,verdict\ny.png,hole,3,flaw\n", Some("score")).unwrap();
        assert_eq!(one.columns, [("score".to_owned(), vec![3.0])]);
        for (text, part) in [
            ("image,defect_type,a\nx,,one\n", "row 2: \"one\" in column a is not a number"),
            ("image,defect_type,a\nx,,NaN\n", "row 2"),
            ("image,defect_type,a\nx,\n", "2 fields"),
            ("image,defect_type\nx,\n", "no column of scores"),
            ("picture,a\n", "do not begin with"),
            ("", "do not begin with"),
        ] {
            let error = read(text, None).unwrap_err();
            assert!(error.contains(part) && error.contains("a_scores.csv"), "{error}");
        }
    }
}
