//! The numbers behind the panels, as they are written beside them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::visualize::Projection;
use flawtune::report::plot::Plot;

/// Everything that was found, `<category>_visualize.json`. Lists of patches are row-major over `grid`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visualization {
    /// Category of the support images.
    pub category: String,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Backbone.
    pub model_name: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// Which kind of modulation acts on the output; none where only the transformer's inside was trained.
    pub modulation: Option<String>,
    /// Where prompts enter the transformer: `output` (nowhere inside), `shallow` or `deep`.
    pub prompt_depth: String,
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Block whose input Grad-CAM looks at, from 0.
    pub block: usize,
    /// Block whose normed tokens are compared, from 0.
    pub layer: usize,
    /// Share of an image's patches, the farthest, whose mean distance is its score.
    pub top_fraction: f64,
    /// Support images in the bank.
    pub support_images: usize,
    /// Mean distance of normal patches to the bank without their own image, before and after: the unit of the panels' maps.
    pub usual_distance: [f64; 2],
    /// The images, in the order they were given.
    pub images: Vec<ImageRecord>,
    /// Prompts among patches; one for prompts at the output, one for those inside.
    pub projections: Vec<ProjectionRecord>,
    /// Version of this program.
    pub flawtune_version: String,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The file.
    pub path: PathBuf,
    /// Its panel, beside the record.
    pub panel: PathBuf,
    /// Whether the image is one of the support images; it was then left out of the bank.
    pub in_support: bool,
    /// Whether the checkpoint has learned from this image.
    pub learned_from: bool,
    /// By the untouched model.
    pub before: StateRecord,
    /// By the adapted one.
    pub after: StateRecord,
    /// `‖after − before‖ / ‖before‖` of each patch.
    pub change_size: Vec<f32>,
    /// Cosine of each patch after with itself before.
    pub change_cosine: Vec<f32>,
    /// Cosine between the mean change of the patches that make the score and the direction from normal patches to odd ones.
    pub change_direction: f64,
    /// Prompts at the output.
    pub prompts: Vec<PromptRecord>,
    /// Prompts inside the transformer.
    pub prompts_inside: Vec<PromptRecord>,
}

/// What the model says about an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Patch-bank score.
    pub score: f64,
    /// The patches whose distances are averaged for it, the farthest first.
    pub top: Vec<usize>,
    /// 1 − cosine to the nearest support patch.
    pub distances: Vec<f32>,
    /// Grad-CAM of the score.
    pub grad_cam: Vec<f32>,
    /// What the class token has taken from each patch, by attention rollout.
    pub rollout_class: Vec<f32>,
    /// Share of the class token that comes from prompts.
    pub rollout_class_from_prompts: f64,
}

/// One prompt on one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// Which, from 0.
    pub prompt: usize,
    /// At the output: its share of all attention between prompts and patches. Inside: the share of the patches' content that
    /// comes from it, by rollout.
    pub attended: f64,
    /// What goes away without it, over the length of the patch; mean over the patches.
    pub change: f64,
    /// Cosine between that and the direction from normal patches to odd ones.
    pub direction: f64,
    /// At the output: attention to each patch. Inside: what it has taken from each patch, by rollout.
    pub patches: Vec<f32>,
}

/// A projection and its drawing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionRecord {
    /// Which tokens: `features`, or `block N` for what enters a block.
    pub space: String,
    /// The drawing, without its ending; it is there as SVG and PNG.
    pub file: PathBuf,
    /// The points.
    pub points: Projection,
    /// The drawing as data.
    pub plot: Plot,
}
