//! The main jobs from end to end: train a category, evaluate a checkpoint, measure the baseline.
//!
//! Each job walks the data flow once, in order, and tells its caller what happens through [`Event`]s; printing, bars
//! and exit codes are the caller's. Everything that can be wrong with the input is looked at before the first forward
//! pass.

mod build;
mod category;
mod detector;
mod engine;
mod epoch;
mod evaluate_bundle;
mod exclude;
mod features;
mod fit;
mod intake;
mod learn;
mod location;
mod place;
mod predict;
mod set_threshold;
mod shape;
mod source;
mod tiles;

use std::path::{Path, PathBuf};

pub use build::{Backbone, DetectorBuilder};
pub use category::{Category, CategoryOptions};
pub use detector::{Alike, Detector};
pub use engine::{BackboneOptions, BackboneOverrides, Engine, ResizeChoice, default_layers};
pub use epoch::{EpochRecord, EpochReport};
pub use evaluate_bundle::{
    BundleEvaluateRequest, DetectorEvaluation, OnTested, Tested, check_owner, evaluate_bundle,
};
pub use features::{FeaturesRequest, Source, Written, features};
pub use fit::{
    EXACT_UP_TO, FitOptions, FitRequest, Fitted, IndexChoice, MaskChoice, OddImage, ScorerChoice,
    ThresholdChoice, fit, fit_in_memory, fit_learned,
};
pub use learn::{LearnRequest, Learnt, Lessons, Tally, Taught, learn};
pub use predict::{Next, PredictOptions, Predicted, Prediction, predict, predict_past};
pub use set_threshold::{NewThreshold, set_threshold};
pub use source::{Learned, LearnedTokens, TokenOpener, TokenSource};
pub use tiles::TileOptions;

use crate::bundle::BundleError;
use crate::dataset::DatasetError;
use crate::evaluate::comparison::ComparisonError;
use crate::evaluate::metrics::MetricError;
use crate::evaluate::protocol::{ProtocolError, SplitManifest};
use crate::evaluate::score_table::ScoreTableError;
use crate::evaluate::statistics::StatisticsError;
use crate::features::{FeatureError, Progress};
use crate::report::overlay::OverlayError;
use crate::report::plot::PlotError;
use crate::score::ScoreError;
use crate::score::coreset::CoresetError;
use crate::score::heads::HeadError;
use crate::score::map::MapError;
use crate::score::threshold::ThresholdError;
use flawtune_backbone::atomic_file;
use flawtune_backbone::hub::HubError;
use flawtune_backbone::models::UnknownModel;
use flawtune_backbone::preprocess::ImageError;
use flawtune_backbone::vit::VitError;
use flawtune_backbone::vjp::VjpError;
use flawtune_backbone::weights::WeightsError;

/// Something that happened on the way.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Worth a line.
    Note(String),
    /// Worth a line even when the user asked for quiet: it changes what the result means.
    Warning(String),
    /// Bytes of a weight file fetched so far, and all of them where known.
    Download {
        /// File being fetched.
        file: &'a str,
        /// Bytes on disk.
        done: u64,
        /// Bytes in all, where the server says.
        total: Option<u64>,
    },
    /// Images read or extracted.
    Images(Progress),
    /// Training is about to start.
    Training {
        /// Which part of how many leaves its shots out, in a cross-validation; none for the training whose result is kept.
        part: Option<(usize, usize)>,
        /// Names and sizes of the trained tensors.
        trainable: &'a [(String, usize)],
        /// Numbers in the frozen backbone.
        frozen: usize,
        /// Normals and defects that train.
        images: (usize, usize),
        /// Normals and defects that choose the epoch.
        hold_out: (usize, usize),
        /// Epochs already done by the run that is resumed.
        resumed_at: usize,
        /// Epochs in all.
        epochs: usize,
    },
    /// An epoch is over.
    Epoch(&'a EpochReport),
    /// Scoring starts; the text says what is scored.
    Scoring(&'a str),
    /// A part of the job begins. Parts nest: what is inside of another is no longer the outer one's time.
    PartBegins(&'static str),
    /// It ends.
    PartEnds(&'static str),
    /// The images are known and hashed.
    Data(&'a Category),
    /// The backbone is open.
    Backbone(&'a Engine),
    /// The images are split.
    Split(&'a SplitManifest),
    /// The oddest good images of a fit, the oddest first; are they good?
    Oddest(&'a [OddImage]),
    /// A file that is neither an image nor a weight file is read.
    Read(&'a Path),
    /// A result was written: a file, or a folder of files.
    Wrote(&'a Path),
}

/// Receives events.
pub type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>);

/// Why a job ended without a result. Every variant but the last is about the input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The split.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The name of the backbone.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// Finding or fetching its weights.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Its weight file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its forward pass.
    #[error(transparent)]
    Vit(#[from] VitError),
    /// Reading images, extracting tokens.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Laying it out for a pass backward.
    #[error(transparent)]
    Vjp(#[from] VjpError),
    /// The ensemble.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Scoring.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// Bundles.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Coresets.
    #[error(transparent)]
    Coreset(#[from] CoresetError),
    /// Thresholds.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// Anomaly maps.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Overlays.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A mask or other image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Metrics.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// Statistics.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// The comparison.
    #[error(transparent)]
    Comparison(#[from] ComparisonError),
    /// The table of scores.
    #[error(transparent)]
    ScoreTable(#[from] ScoreTableError),
    /// A plot or panel.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// What a crate above this one does: trainings, their checkpoints and studies.
    #[error(transparent)]
    Lab(Box<dyn std::error::Error + Send + Sync>),
    /// What was learned makes a detector worse.
    #[error(
        "what was learned makes the detector worse: it told {good} known good images and {defects} defects apart with an AUROC of \
         {was:.3}, and would with {is:.3}; it was not changed\nhint: look whether the new images are labelled right, or take it anyway \
         by force"
    )]
    Worse {
        /// Good images that were told apart from defects, by models that had not seen them.
        good: usize,
        /// Defects.
        defects: usize,
        /// How well the old detector did it.
        was: f64,
        /// How well the new one would.
        is: f64,
    },
    /// A combination of inputs that makes no sense; the text says which and what to do.
    #[error("{0}")]
    Input(String),
    /// A file or folder.
    #[error("{}: {source}\nhint: {hint}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// Does a part of a job, and says when it begins and ends.
///
/// # Errors
/// Those of the work.
pub fn part<T>(
    name: &'static str,
    on_event: OnEvent<'_>,
    work: impl FnOnce(OnEvent<'_>) -> Result<T, WorkflowError>,
) -> Result<T, WorkflowError> {
    on_event(Event::PartBegins(name));
    let result = work(on_event);
    on_event(Event::PartEnds(name));
    result
}

/// Positions in order.
pub fn sorted<'a>(positions: impl Iterator<Item = &'a usize>) -> Vec<usize> {
    let mut list: Vec<usize> = positions.copied().collect();
    list.sort_unstable();
    list
}

/// The folder that a file lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the folder and proves that files can be written there, before any work is done for it.
///
/// # Errors
/// A folder that cannot be made or written.
pub fn writable(folder: &std::path::Path) -> Result<(), WorkflowError> {
    writable_or(
        folder,
        "choose an output folder that can be written with `output_dir`",
    )
}

/// As [`writable`], with what to do about it.
///
/// # Errors
/// As there.
pub fn writable_or(folder: &std::path::Path, hint: &'static str) -> Result<(), WorkflowError> {
    let failed = |source| WorkflowError::Io {
        path: folder.to_owned(),
        source,
        hint,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    atomic_file::probe(folder).map_err(failed)
}

/// Writes pretty JSON, whole or not at all.
///
/// # Errors
/// A value that is not JSON, a file that cannot be written.
pub fn write_json(
    path: &std::path::Path,
    value: &impl serde::Serialize,
) -> Result<(), WorkflowError> {
    let failed = |source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "choose another `output_dir` or make room",
    };
    let mut text = serde_json::to_string_pretty(value).map_err(|e| failed(e.into()))?;
    text.push('\n');
    atomic_file::write(path, text.as_bytes()).map_err(failed)
}
