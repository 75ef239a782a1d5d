//! Train one set of prompts on several categories together.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use flawtune_backbone::torch_file::{self, Tensor, Value};

use super::prepared::Prepared;
use super::{
    BackboneOptions, Category, CategoryOptions, Engine, Event, OnEvent, WorkflowError, manifests,
    part, provenance, resume, writable,
};
use crate::adapt::guard::PromptGuard;
use crate::adapt::universal::{JointCategory, train_joint};
use crate::adapt::{
    AdaptError, Adaptation, AdaptationOptions, Checkpoint, EpochReport, Outcome, RESIDUAL_SCALE,
    TrainData, TrainOptions, TrainState,
};
use flawtune::evaluate::protocol::{SplitManifest, SplitOptions};

/// What a checkpoint of several categories calls its category, and the key that says how it was made.
pub const UNIVERSAL: &str = "universal";

/// What to train, from what, and where to put it.
#[derive(Debug, Clone)]
pub struct UniversalRequest {
    /// The categories, at least two.
    pub data: Vec<CategoryOptions>,
    /// The backbone.
    pub backbone: BackboneOptions,
    /// Who trains and who is kept for testing, in each category.
    pub split: SplitOptions,
    /// What is trained.
    pub adaptation: AdaptationOptions,
    /// How; its hold-outs are filled in from the splits.
    pub training: TrainOptions,
    /// Record a verdict that makes scores fall back to zero-shot where training showed no gain in the mean of the categories.
    pub guard: bool,
    /// Where `universal_prompts.pt` goes.
    pub output_dir: PathBuf,
    /// Go on from the state of an interrupted run.
    pub resume: bool,
    /// Arguments to record in the checkpoint.
    pub args: Vec<(String, Value)>,
}

/// What training left.
#[derive(Debug, Clone)]
pub struct UniversalTrained {
    /// The checkpoint, or if training was interrupted the state it can go on from.
    pub checkpoint: PathBuf,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// The categories, in the order they were given.
    pub categories: Vec<String>,
    /// The state at the end, with the history.
    pub state: TrainState,
    /// The verdict on the trained prompts.
    pub guard: Option<PromptGuard>,
    /// Seconds of training, without features.
    pub seconds: f64,
}

/// Trains, and writes `universal_prompts.pt` and `universal_history.json`. Raising `cancel` ends it after the step at hand
/// and leaves `universal_resume.pt`.
///
/// # Errors
/// Anything wrong with the input, before any training.
pub fn train_universal(
    request: &UniversalRequest,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<UniversalTrained, WorkflowError> {
    if request.data.len() < 2 {
        return Err(WorkflowError::Input(
            "universal prompts are trained on at least two categories\nhint: name them with `categories` a,b, or omit `universal`"
                .into(),
        ));
    }
    writable(&request.output_dir)?;
    let mut categories = Vec::new();
    for data in &request.data {
        let category = Category::open(data, on_event)?;
        let split = category.split(&request.split)?;
        on_event(Event::Split(&split.manifest));
        categories.push((category, split));
    }
    let lists: Vec<SplitManifest> = categories
        .iter()
        .map(|(_, split)| split.manifest.clone())
        .collect();
    let names: Vec<String> = lists.iter().map(|m| m.category.clone()).collect();
    let resume_path = request.output_dir.join(format!("{UNIVERSAL}_resume.pt"));
    let mut resumed = None;
    if request.resume {
        let saved = resume::read(&resume_path, on_event)?;
        let same = manifests::manifests(&resume_path, &saved)? == lists
            && saved.options == request.adaptation;
        let state = saved.resume.filter(|_| same);
        resumed = Some(state.ok_or_else(|| resume::of_another_run(&resume_path))?);
    }
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let mut prepared = Vec::new();
    for (category, split) in &categories {
        prepared.push(Prepared::new(category, &engine, split, on_event)?);
    }
    let joint = prepared.iter().map(|p| joined(p, &request.training));
    let joint: Vec<JointCategory<'_>> = joint.collect();
    let mut adaptation =
        Adaptation::new(request.adaptation.clone(), prepared[0].normal_tokens.dim)?;
    let mut options = request.training.clone();
    if joint.iter().all(|c| c.hold_out.is_none()) {
        options.patience = None;
    }
    let done = resumed.as_ref().map_or(0, |s| s.epochs_done);
    begins(
        &joint,
        &adaptation,
        &engine,
        (done, options.epochs),
        on_event,
    );
    let start = Instant::now();
    let (outcome, scales) = part("training", on_event, |on_event| {
        let on_epoch = &mut |report: &EpochReport| on_event(Event::Epoch(report));
        Ok(train_joint(
            &mut adaptation,
            &joint,
            &options,
            resumed,
            cancel,
            on_epoch,
        )?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (state, interrupted) = match outcome {
        Outcome::Finished(state) => (state, false),
        Outcome::Interrupted(state) => (state, true),
    };
    let mut checkpoint = Checkpoint::new(&engine.config().name, UNIVERSAL, &adaptation, &state);
    provenance::put(&mut checkpoint, &engine, &request.args)?;
    manifests::put(&mut checkpoint, &lists)?;
    let made = (UNIVERSAL.into(), made_of(&names, &scales));
    checkpoint.others.push(made);
    let guard = request.guard.then(|| PromptGuard::of_training(&state));
    if let Some(guard) = &guard {
        checkpoint
            .others
            .push((PromptGuard::KEY.into(), guard.to_value()));
    }
    let path = if interrupted {
        checkpoint.resume = Some(state.clone());
        torch_file::write(&resume_path, &checkpoint.to_value()).map_err(AdaptError::from)?;
        resume_path
    } else {
        let path = checkpoint.save(&request.output_dir)?;
        on_event(Event::Wrote(
            &request.output_dir.join(format!("{UNIVERSAL}_history.json")),
        ));
        // the finished checkpoint replaces it; if it cannot be removed, nothing is lost
        drop(std::fs::remove_file(&resume_path));
        path
    };
    on_event(Event::Wrote(&path));
    Ok(UniversalTrained {
        checkpoint: path,
        interrupted,
        categories: names,
        state,
        guard,
        seconds,
    })
}

/// A category's part in the training.
fn joined<'a>(prepared: &'a Prepared, training: &TrainOptions) -> JointCategory<'a> {
    JointCategory {
        data: TrainData {
            normals: &prepared.normal_tokens,
            normal_indices: &prepared.train_normals,
            defects: &prepared.shot_tokens,
            defect_indices: &prepared.train_defects,
            masks: &[],
        },
        hold_out: (!prepared.held_defects.is_empty()).then(|| prepared.hold_out(training)),
    }
}

/// Says how much of what is trained on what.
fn begins(
    joint: &[JointCategory<'_>],
    adaptation: &Adaptation,
    engine: &Engine,
    (resumed_at, epochs): (usize, usize),
    on_event: OnEvent<'_>,
) {
    let count = |of: fn(&JointCategory<'_>) -> usize| joint.iter().map(of).sum::<usize>();
    on_event(Event::Training {
        part: None,
        trainable: &adaptation.trainable(),
        frozen: engine.parameters(),
        images: (
            count(|c| c.data.normal_indices.len()),
            count(|c| c.data.defect_indices.len()),
        ),
        hold_out: (
            count(|c| c.hold_out.as_ref().map_or(0, |h| h.normals.len())),
            count(|c| c.hold_out.as_ref().map_or(0, |h| h.defects.len())),
        ),
        resumed_at,
        epochs,
    });
}

/// What is said of a universal checkpoint: its categories, and their factors where it learned any.
fn made_of(names: &[String], scales: &[Vec<f32>]) -> Value {
    let list = names.iter().map(|n| Value::Str(n.clone())).collect();
    let mut made = vec![
        ("method", Value::from("joint")),
        ("categories", Value::List(list)),
    ];
    if let Some(width) = scales.first().map(Vec::len) {
        let shape = vec![scales.len(), width];
        let scales = Tensor::from_f32(shape, &scales.concat());
        made.push((CATEGORY_SCALES, Value::Tensor(scales)));
    }
    Value::dict(made)
}

/// The key of each category's factors among what is said of a universal checkpoint.
const CATEGORY_SCALES: &str = "category_scales";

/// The adaptation of a checkpoint for a category: of a universal one with the category's own factors, where it learned any;
/// others have the mean of all.
///
/// # Errors
/// As [`Checkpoint::adaptation`].
pub(super) fn adaptation_for(
    checkpoint: &Checkpoint,
    category: &str,
) -> Result<Adaptation, AdaptError> {
    let own = |checkpoint: &Checkpoint| {
        let made = checkpoint.other(UNIVERSAL)?;
        let names = made.get("categories")?.as_list()?;
        let at = names.iter().position(|n| n.as_str() == Some(category))?;
        let scales = made
            .get(CATEGORY_SCALES)?
            .as_tensor()
            .filter(|t| t.shape.len() == 2)?;
        let width = scales.shape[1];
        scales
            .to_f32()
            .chunks_exact(width.max(1))
            .nth(at)
            .map(<[f32]>::to_vec)
    };
    let Some(scales) = own(checkpoint) else {
        return checkpoint.adaptation();
    };
    let mut parameters = checkpoint.parameters.clone();
    if let Some(t) = parameters
        .get_mut(RESIDUAL_SCALE)
        .filter(|t| t.data.len() == scales.len())
    {
        t.data = scales;
    }
    Adaptation::from_parameters(checkpoint.options.clone(), &parameters)
}
