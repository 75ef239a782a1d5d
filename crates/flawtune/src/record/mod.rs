//! Run records: what made the files in an output folder, in its `run.json`.
//!
//! A [`Recorder`] listens to a job's events and leaves one [`RunRecord`] when it ends. Results never hold what a record
//! holds (times, threads, the machine), so that the same seed keeps giving the same bytes.
//!
//! ```no_run
//! use flawtune::record::{Outcome, Recorder};
//! # use flawtune::workflow::BundleEvaluateRequest;
//! # fn evaluate(request: BundleEvaluateRequest) -> Result<(), Box<dyn std::error::Error>> {
//!
//! let mut recorder = Recorder::new("evaluate", &request.output_dir);
//! let result = flawtune::workflow::evaluate_bundle(&request, None, &mut |event| recorder.hear(&event));
//! recorder.finish(if result.is_ok() { Outcome::Finished } else { Outcome::Failed })?;
//! # Ok(())
//! # }
//! ```

mod compare;
mod error;
mod file;
mod machine;
mod recorder;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::Ledger;

pub use compare::{Comparison, FileComparison, compare_outputs};
pub use error::RecordError;
pub use file::{FILE_NAME, FORMAT, Kept, RunFile};
pub use machine::{MachineRecord, peak_memory_bytes};
pub use recorder::{Recorder, file_record};

/// One run of one command on one category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Subcommand: `train`, `evaluate`, `baseline`, `fit`, …
    pub command: String,
    /// Category; `None` where a command has none.
    pub category: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Arguments as they were typed, without the program; empty where nobody typed any.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Every option in force, by its long name without dashes.
    #[serde(default)]
    pub options: BTreeMap<String, OptionRecord>,
    /// Folder that relative paths in the options start from.
    pub working_folder: Option<PathBuf>,
    /// Versions, by name; `flawtune` is always there.
    pub versions: BTreeMap<String, String>,
    /// What it ran on.
    pub machine: MachineRecord,
    /// Threads it computed with. No result depends on them.
    pub threads: usize,
    /// Seed; `None` where nothing is random or a checkpoint brings it.
    pub seed: Option<u64>,
    /// The images; `None` where the run ended before they were read.
    pub data: Option<DataRecord>,
    /// The backbone; `None` where the run ended before it was opened.
    pub weights: Option<WeightsRecord>,
    /// Who trains and who is kept for testing, as in the checkpoint.
    #[serde(default)]
    pub split_manifest: Option<Value>,
    /// Files that were read besides images and weights: checkpoints and bundles. Paths inside of the output folder are
    /// relative to it.
    #[serde(default)]
    pub inputs: Vec<FileRecord>,
    /// Files that were written. Paths are relative to the output folder.
    #[serde(default)]
    pub outputs: Vec<FileRecord>,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// Wall-clock seconds in all.
    pub seconds: f64,
    /// Wall-clock seconds by part; `other` is what belongs to none. They add up to `seconds`.
    #[serde(default)]
    pub timings: BTreeMap<String, f64>,
    /// Most memory that the process had resident by its end (of all runs of that process); `None` where the system does
    /// not say.
    pub peak_memory_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With its result.
    Finished,
    /// Stopped by the user.
    Interrupted,
    /// With an error.
    Failed,
}

impl Outcome {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// An option in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptionRecord {
    /// Its value: a bool for a flag, a list for a list, `null` where it is not set.
    pub value: Value,
    /// Who set it.
    pub source: OptionSource,
    /// The environment variable, or the file and its line; `None` for the other sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl OptionRecord {
    /// An option from a source that needs no further word.
    pub fn new(value: impl Into<Value>, source: OptionSource) -> Self {
        Self {
            value: value.into(),
            source,
            from: None,
        }
    }
}

/// Who set an option, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptionSource {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// `flawtune.toml`.
    File,
    /// `--preset`, or another option that chooses the default.
    Preset,
    /// Nobody.
    Default,
}

impl OptionSource {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Preset => "preset",
            Self::Default => "default",
        }
    }
}

/// The images of a category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// How many.
    pub images: usize,
    /// blake3 over the sorted content hashes of all of them: names and order do not count.
    pub hash: String,
    /// The first 32 hexadecimal digits of each image's blake3, by its path in the category: what tells which of them
    /// changed.
    #[serde(default, alias = "pictures")]
    pub image_hashes: BTreeMap<String, String>,
    /// What was met beside them, or not taken as it lay there.
    #[serde(default, skip_serializing_if = "Ledger::is_empty")]
    pub intake: Ledger,
}

/// The backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRecord {
    /// Its name.
    pub model_name: String,
    /// Hash of its weights.
    pub hash: String,
    /// Weight file or folder.
    pub path: Option<PathBuf>,
}

/// A file by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path, with `/` between folders.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// blake3 of its bytes, hexadecimal.
    pub blake3: String,
}
