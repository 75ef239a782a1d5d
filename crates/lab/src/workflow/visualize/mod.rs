//! What a checkpoint's prompts look at and change, image by image: panels, a projection, and the numbers behind them.
//!
//! The path: support images through both models into two banks; every image through both, forward and back
//! (`model.rs`); what prompts contribute (`prompts.rs`); panels (`draw.rs`) and `<category>_visualize.json` (`record.rs`).

mod draw;
mod model;
mod pictures;
mod prompts;
mod record;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use flawtune_backbone::vit::Precision;

use self::draw::Drawing;
use self::model::{Entering, Model, Seen, State};
use self::pictures::Shown;
use super::inside::InsertedEngine;
use super::manifests::manifest;
use super::universal::adaptation_for;
use super::{
    BackboneOverrides, Category, CategoryOptions, Engine, Event, OnEvent, WorkflowError, adapted,
    evaluate, part, writable, write_json,
};
use crate::adapt::Checkpoint;
use crate::adapt::inside::prompt_depth_name;
use crate::visualize::{PatchBank, mean_row};
use flawtune::dataset::Subset;
use flawtune::evaluate::protocol::SplitManifest;
use flawtune::features::{ImageTokens, TokenSet, Turn};

pub use record::{ImageRecord, ProjectionRecord, PromptRecord, StateRecord, Visualization};

/// Support images whose activations inside the transformer stand for the normal ones; spread evenly over all.
const LOOKED_INTO: usize = 16;

/// What to look at.
#[derive(Debug, Clone)]
pub struct VisualizeRequest {
    /// Where the support images are: the good training images of this category.
    pub data: CategoryOptions,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The images.
    pub images: Vec<PathBuf>,
    /// What the user says about the backbone; it must agree with the checkpoint.
    pub backbone: BackboneOverrides,
    /// Block whose input Grad-CAM looks at, negative from the end; `None`: the one that features come from.
    pub block: Option<i32>,
    /// Prompts that are drawn in a panel: those that change the image's tokens most.
    pub prompts: usize,
    /// Images at most; the others are left out and counted.
    pub max_images: usize,
    /// Where everything is written.
    pub output_dir: PathBuf,
}

/// What was found and written.
#[derive(Debug, Clone)]
pub struct Visualized {
    /// The numbers.
    pub found: Visualization,
    /// The record, then panels and projections.
    pub files: Vec<PathBuf>,
    /// Whether it was stopped before the last image.
    pub interrupted: bool,
}

/// Support images in both models.
struct Support {
    /// Positions in the category.
    positions: Vec<usize>,
    before: TokenSet,
    /// With what is inside the transformer, without the output modulation.
    through: TokenSet,
    after: TokenSet,
    /// Mean distance of normal patches to the bank without their own image, before and after: what is usual.
    usual: (f64, f64),
}

/// An image and what both models say about it.
struct Looked<'a> {
    shown: &'a Shown,
    left_out: Option<usize>,
    before: Seen,
    after: Seen,
}

/// What does not depend on the data set or the backbone.
fn check(request: &VisualizeRequest, checkpoint: &Checkpoint) -> Result<(), WorkflowError> {
    if request.images.is_empty() {
        return Err(WorkflowError::Input(
            "there are no images to look at\nhint: name some, or a folder of them".into(),
        ));
    }
    if checkpoint.options.use_cls {
        return Err(WorkflowError::Input(format!(
            "{}: compares class tokens (`use_cls`), so there is nothing to show patch by patch\nhint: train without `use_cls`",
            request.checkpoint.display()
        )));
    }
    Ok(())
}

/// Attention and gradients are those of whole images in f32.
fn whole_pictures(engine: &Engine) -> Result<(), WorkflowError> {
    let options = engine.options();
    if options.precision != Precision::F32 {
        return Err(WorkflowError::Input(format!(
            "`precision` {}: attention and gradients are computed in f32 only\nhint: add `precision` f32",
            options.precision
        )));
    }
    if options.tiles.is_some() {
        return Err(WorkflowError::Input(
            "`tile_size`: attention and gradients are those of whole images, and this checkpoint was trained on tiles\nhint: train one without `tile_size`"
                .into(),
        ));
    }
    Ok(())
}

/// Tokens of the good training images in both models.
fn support(
    category: &Category,
    engine: &Engine,
    model: &Model,
    on_event: OnEvent<'_>,
) -> Result<Support, WorkflowError> {
    let samples = category.dataset.samples.iter().enumerate();
    let good: Vec<usize> = samples
        .filter(|(_, s)| s.subset == Subset::Train && !s.is_defect())
        .map(|(i, _)| i)
        .collect();
    let (positions, before) = category.tokens(engine, &good, on_event)?;
    model.adaptation.check(&before)?;
    let through = match &model.inserted {
        None => before.clone(),
        Some(inserted) => {
            let adapted = InsertedEngine {
                engine,
                through: &model.through,
                inserted,
            };
            let preprocess = engine.preprocess();
            category
                .tokens_of(
                    &adapted,
                    preprocess,
                    None,
                    &positions,
                    Turn::default(),
                    on_event,
                )?
                .1
        }
    };
    let mut after = through.clone();
    if model.modulates() {
        adapted::modulate(&mut after, &model.adaptation);
    }
    Ok(Support {
        positions,
        before,
        through,
        after,
        usual: (1.0, 1.0),
    })
}

/// Which of `all` support images are looked into.
fn spread(all: usize) -> impl Iterator<Item = usize> {
    let count = all.min(LOOKED_INTO);
    (0..count).map(move |i| i * all / count)
}

/// Mean distance of the patches of some support images to the others; 1 where there is no other, or none that differs.
fn usual(set: &TokenSet, bank: &PatchBank) -> Result<f64, WorkflowError> {
    if bank.images() < 2 {
        return Ok(1.0);
    }
    let mut distances = Vec::new();
    for i in spread(set.images.len()) {
        distances.extend(
            bank.score(set.images[i].patches(), Some(i), model::top_fraction())?
                .distances,
        );
    }
    let mean = distances.iter().map(|&d| f64::from(d)).sum::<f64>() / distances.len() as f64;
    Ok(if mean > 0.0 { mean } else { 1.0 })
}

/// Some of the support images as they enter the first block.
fn normal_images(
    category: &Category,
    engine: &Engine,
    support: &Support,
) -> Result<Vec<Entering>, WorkflowError> {
    spread(support.positions.len())
        .map(|i| {
            let sample = &category.dataset.samples[support.positions[i]];
            let pixels = engine.preprocess().load(&sample.path)?;
            let (tokens, grid) = engine.embed(&pixels.data, 1, pixels.height, pixels.width)?;
            Ok(Entering { tokens, grid })
        })
        .collect()
}

/// Looks at images with and without what a checkpoint learned, and draws it.
///
/// `cancel` is looked at between images: those before it are drawn and written.
///
/// # Errors
/// A checkpoint for another backbone, of class tokens or of several blocks; no images, or one that cannot be read; a block
/// that does not exist; anything wrong with the data.
pub fn visualize(
    request: &VisualizeRequest,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Visualized, WorkflowError> {
    let checkpoint = Checkpoint::read(&request.checkpoint)?;
    on_event(Event::Read(&request.checkpoint));
    check(request, &checkpoint)?;
    if let Some(guard) =
        evaluate::guard_of(&request.checkpoint, &checkpoint)?.filter(|g| g.fallback)
    {
        on_event(Event::Warning(format!(
            "{}; shown is what the prompts would do",
            evaluate::fallback_text(&guard)
        )));
    }
    let category = Category::open(&request.data, on_event)?;
    let name = &category.dataset.category;
    let manifest = manifest(&request.checkpoint, &checkpoint, name)?;
    let adaptation = adaptation_for(&checkpoint, name)?;
    writable(&request.output_dir)?;
    let engine = evaluate::open_backbone(
        &request.checkpoint,
        &request.backbone,
        &checkpoint,
        on_event,
    )?;
    whole_pictures(&engine)?;
    let model = Model::open(
        &engine,
        adaptation,
        checkpoint.inserted.clone(),
        request.block,
    )?;
    let shown = pictures::load(request, &engine, on_event)?;

    let mut support = support(&category, &engine, &model, on_event)?;
    let rows = |set: &TokenSet| -> Result<PatchBank, WorkflowError> {
        Ok(PatchBank::new(
            &set.images
                .iter()
                .map(ImageTokens::patches)
                .collect::<Vec<_>>(),
            set.dim,
        )?)
    };
    let banks = (rows(&support.before)?, rows(&support.after)?);
    support.usual = (
        usual(&support.before, &banks.0)?,
        usual(&support.after, &banks.1)?,
    );
    let normals = normal_images(&category, &engine, &support)?;
    let mut references = Vec::new();
    for state in [State::Before, State::After] {
        let mut rows = Vec::new();
        for image in &normals {
            rows.push(model.entering_block(state, image, model.block)?.1);
        }
        let size = rows.first().map_or(0, Vec::len);
        references.push(mean_row(rows.iter().map(Vec::as_slice), size));
    }
    let shown_count = shown.len();
    let looked = part("looking", on_event, |on_event| {
        let mut looked = Vec::new();
        for (i, shown) in shown.iter().enumerate() {
            if cancel.load(Ordering::SeqCst) {
                break;
            }
            on_event(Event::Scoring(&format!("image {} of {shown_count}", i + 1)));
            let left_out = support
                .positions
                .iter()
                .position(|&p| category.contents[p] == shown.content);
            looked.push(Looked {
                before: model.look(
                    State::Before,
                    &shown.entering,
                    &banks.0,
                    left_out,
                    &references[0],
                )?,
                after: model.look(
                    State::After,
                    &shown.entering,
                    &banks.1,
                    left_out,
                    &references[1],
                )?,
                shown,
                left_out,
            });
        }
        Ok(looked)
    })?;
    finish(
        request,
        &checkpoint,
        manifest.as_ref(),
        &engine,
        &model,
        &support,
        &normals,
        &looked,
        shown_count,
        on_event,
    )
}

/// Contributions, drawings and the record, from what both models said.
fn finish(
    request: &VisualizeRequest,
    checkpoint: &Checkpoint,
    manifest: Option<&SplitManifest>,
    engine: &Engine,
    model: &Model,
    support: &Support,
    normals: &[Entering],
    looked: &[Looked<'_>],
    asked: usize,
    on_event: OnEvent<'_>,
) -> Result<Visualized, WorkflowError> {
    let category = request.data.category.clone();
    let dim = engine.config().dim;
    let grid = support.before.grid;
    let directions = prompts::Directions::new(support, looked, dim);
    let mut images = Vec::new();
    let mut files = Vec::new();
    let drawing = Drawing::new(support, looked, dim)?;
    for (i, one) in looked.iter().enumerate() {
        let mut record = prompts::record(model, one, &directions, dim)?;
        record.learned_from = manifest.is_some_and(|m| learned(m, &one.shown.content.to_hex()));
        record.panel = PathBuf::from(format!("{category}_{:02}_{}.png", i + 1, one.shown.name()));
        let path = request.output_dir.join(&record.panel);
        let panel = drawing.panel(i, one, &record, model, request.prompts);
        flawtune::report::overlay::write_png(&panel.draw()?, &path)?;
        on_event(Event::Wrote(&path));
        files.push(path);
        images.push(record);
    }
    let mut projections = Vec::new();
    if !looked.is_empty() {
        for one in prompts::projections(model, support, normals, looked, dim, &category)? {
            for path in draw::save_projection(&one, &request.output_dir)? {
                on_event(Event::Wrote(&path));
                files.push(path);
            }
            projections.push(one);
        }
    }
    let depth = model
        .inserted
        .as_ref()
        .map_or("output", |i| prompt_depth_name(i.options.prompt_depth));
    let found = Visualization {
        checkpoint: request.checkpoint.clone(),
        model_name: engine.config().name.clone(),
        weights_hash: flawtune::features::Forward::weights_hash(engine).to_owned(),
        modulation: model
            .modulates()
            .then(|| checkpoint.options.modulation.name().to_owned()),
        prompt_depth: depth.to_owned(),
        grid: [grid.0, grid.1],
        block: model.block,
        layer: model.layer,
        top_fraction: model::top_fraction(),
        support_images: support.positions.len(),
        usual_distance: [support.usual.0, support.usual.1],
        images,
        projections,
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
        category,
    };
    let path = request
        .output_dir
        .join(format!("{}{}", found.category, RECORD));
    write_json(&path, &found)?;
    on_event(Event::Wrote(&path));
    files.insert(0, path);
    Ok(Visualized {
        interrupted: looked.len() < asked,
        found,
        files,
    })
}

/// End of the record's name, after the category.
pub(in crate::workflow) const RECORD: &str = "_visualize.json";

/// Whether the checkpoint's training saw the image.
fn learned(manifest: &SplitManifest, content: &str) -> bool {
    let shots = manifest.pool.iter().take(manifest.shots);
    shots
        .chain(&manifest.train_normals)
        .any(|image| image.content == content)
}
