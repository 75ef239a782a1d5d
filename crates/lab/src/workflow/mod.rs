//! The original recipe and its studies from end to end: train a category, evaluate a checkpoint, measure the baseline.
//!
//! Each job walks the data flow once, in order, and tells its caller what happens through
//! [`Event`]s, as those of [`flawtune::workflow`] do.

mod adapted;
mod analyze;
mod baseline;
mod cross_validate;
mod ensemble;
mod evaluate;
mod extract_all;
mod frozen;
mod held_out;
mod hierarchy;
mod inside;
mod learned;
mod manifests;
mod merge;
mod meta;
mod prepared;
mod provenance;
mod report;
mod resume;
mod shot_masks;
mod supervised;
mod train;
mod universal;
mod visualize;

pub use adapted::AdaptedTokens;
pub use analyze::{
    Analysis, AnalyzeRequest, SimilaritySpread, analyze, markdown as analysis_markdown, rank,
    write_analyses,
};
pub use baseline::{Baseline, BaselineRequest, BaselineResult, baseline};
pub use ensemble::{EnsembleEvaluation, EnsembleFit, ZeroShotScorer};
pub use evaluate::{EvaluateRequest, Evaluated, Evaluation, SeenType, evaluate};
pub use extract_all::extract_all;
pub use frozen::FrozenScores;
pub use held_out::HeldOutThresholds;
pub use hierarchy::{HierarchyEvaluation, LevelPixels};
pub use learned::{checkpoint_tokens, fit_checkpoint};
pub use merge::{MergeRequest, MergedCheckpoint, merge};
pub use meta::{META, META_TRAINING, MetaRequest, MetaTrained, meta_train};
pub use report::{MOST_PAGE_BYTES, PlotFormat, ReportRequest, Reported, report};
pub use supervised::{Supervised, SupervisedEvaluation, SupervisedOptions};
pub use train::{
    HierarchyChoice, Preset, TrainRequest, Trained, TrainingEnsemble, TrainingInside,
    TrainingOptions, hold_out_shots, train,
};
pub use universal::{UNIVERSAL, UniversalRequest, UniversalTrained, train_universal};
pub use visualize::{
    ImageRecord, ProjectionRecord, PromptRecord, StateRecord, Visualization, VisualizeRequest,
    Visualized, visualize,
};

use flawtune::workflow::{
    BackboneOptions, BackboneOverrides, Category, CategoryOptions, DetectorEvaluation, Engine,
    Event, FitRequest, Fitted, Learned, LearnedTokens, OnEvent, TokenSource, WorkflowError,
    check_owner, default_layers, fit_learned, folder_of, part, sorted, writable, writable_or,
    write_json,
};
