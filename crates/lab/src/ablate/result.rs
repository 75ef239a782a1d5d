//! What is kept of a run.

use std::path::Path;

use flawtune_backbone::atomic_file;
use serde::{Deserialize, Serialize};

use super::grid::joined;
use super::{AblateError, RunSpec, Setting, io_error};
use flawtune::evaluate::comparison::Comparison;
use flawtune::evaluate::metrics::{auroc, average_precision};
use flawtune::evaluate::score_table::ScoreTable;

/// Rises when the meaning of a result changes.
const FORMAT: u32 = 1;
/// The file that says that a run is over.
const FILE: &str = "result.json";

/// Whether a column of the table of scores is a scorer that saw no defect.
pub fn is_zero_shot(column: &str) -> bool {
    matches!(
        column,
        "zero_shot" | "ensemble_zero_shot" | "bank_top" | "bank_mean" | "zero_shot_bank"
    )
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// With scores.
    Finished(Box<Finished>),
    /// Without; the others go on.
    Failed {
        /// What went wrong.
        error: String,
    },
}

/// What a finished run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Protocol of the split.
    pub protocol: String,
    /// Whether training images are among the tested: such numbers are not a result.
    pub leaky: bool,
    /// Defect images learned from.
    pub shots: usize,
    /// Normal images tested.
    pub test_normals: usize,
    /// Defective images tested.
    pub test_defects: usize,
    /// Hash over the test images.
    pub test_set_hash: String,
    /// Trained numbers.
    pub trainable: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// The epoch that was kept.
    pub kept_epoch: usize,
    /// Whether the guard would fall back to zero-shot; `None` where nothing was there to judge by.
    pub guard_falls_back: Option<bool>,
    /// Adapted minus zero-shot image pairs: interval and test.
    pub comparison: Option<Difference>,
    /// Every column of the table of scores.
    pub scorers: Vec<ScorerResult>,
}

/// The difference that `evaluate` reports first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Difference of the AUROCs.
    pub auroc: f64,
    /// Lower end of its paired bootstrap interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// p-value of `DeLong`'s test.
    pub delong_p: Option<f64>,
}

impl Difference {
    /// Of a comparison; `None` with one class only.
    pub fn of(comparison: &Comparison) -> Option<Self> {
        let improvement = &comparison.improvement;
        let interval = improvement.auroc_interval?;
        Some(Self {
            auroc: interval.difference,
            low: interval.low,
            high: interval.high,
            delong_p: improvement.delong.and_then(|d| d.p_value),
        })
    }
}

/// Metrics of one scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorerResult {
    /// Column of the table of scores.
    pub scorer: String,
    /// Area under the ROC curve; `null` with one class only.
    pub auroc: Option<f64>,
    /// Average precision.
    pub average_precision: f64,
}

impl ScorerResult {
    /// Metrics of every column.
    ///
    /// # Errors
    /// Scores that cannot be measured.
    pub fn of_table(table: &ScoreTable) -> Result<Vec<Self>, AblateError> {
        let labels = table.labels();
        let one = |(name, scores): &(String, Vec<f64>)| {
            Ok(Self {
                scorer: name.clone(),
                auroc: auroc(&labels, scores)?,
                average_precision: average_precision(&labels, scores)?,
            })
        };
        table.columns.iter().map(one).collect()
    }
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    format: u32,
    /// Category.
    pub category: String,
    /// Seed.
    pub seed: u64,
    /// The grid's settings.
    pub settings: Vec<Setting>,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
    /// Warnings on the way.
    pub warnings: Vec<String>,
    /// Seconds it took; in no table.
    pub seconds: f64,
    key: String,
}

impl RunResult {
    /// The result of a run.
    pub fn new(spec: &RunSpec, status: Status, warnings: Vec<String>, seconds: f64) -> Self {
        Self {
            format: FORMAT,
            category: spec.category.clone(),
            seed: spec.seed,
            settings: spec.point.clone(),
            status,
            warnings,
            seconds,
            key: spec.key.clone(),
        }
    }

    /// Which run it is, for people: `screw num-prompts=5 seed 0`.
    pub fn title(&self) -> String {
        format!(
            "{} {} seed {}",
            self.category,
            joined(&self.settings, " "),
            self.seed
        )
    }

    /// What it found, if it did not fail.
    pub fn finished(&self) -> Option<&Finished> {
        match &self.status {
            Status::Finished(found) => Some(found),
            Status::Failed { .. } => None,
        }
    }

    /// Says that the run of `folder` is over.
    ///
    /// # Errors
    /// [`AblateError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), AblateError> {
        std::fs::create_dir_all(folder).map_err(io_error(folder))?;
        let path = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(self).map_err(|e| io_error(&path)(e.into()))?;
        text.push('\n');
        atomic_file::write(&path, text.as_bytes()).map_err(io_error(&path))
    }

    /// The result of `spec` in its `folder`; `None` if that run is not over.
    ///
    /// # Errors
    /// [`AblateError::Damaged`], [`AblateError::Io`], and [`AblateError::Other`] for a result that `spec` does not give.
    pub fn read(folder: &Path, spec: &RunSpec) -> Result<Option<Self>, AblateError> {
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path)(e)),
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|e| AblateError::Damaged {
            path: path.clone(),
            what: format!("no result of a run ({e})"),
        })?;
        if found.format != FORMAT || found.key != spec.key {
            return Err(AblateError::Other { path });
        }
        Ok(Some(found))
    }
}
