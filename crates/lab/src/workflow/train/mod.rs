//! Train a category: split, features, training, checkpoint.

mod options;
mod put;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use flawtune_backbone::torch_file::{self, Value};

pub use self::options::{
    HierarchyChoice, Preset, TrainingEnsemble, TrainingInside, TrainingOptions,
};
use self::put::{belongs, put_init, put_masks, put_split};
use super::cross_validate::{Plan, Trainer, cross_validate};
use super::frozen::FrozenScores;
use super::inside::{self, Through};
use super::meta::Init;
use super::prepared::Prepared;
use super::shot_masks::shot_masks;
use super::{
    BackboneOptions, Category, CategoryOptions, Engine, EnsembleFit, Event, OnEvent, WorkflowError,
    ensemble, hierarchy, part, provenance, resume, writable,
};
use crate::adapt::guard::PromptGuard;
use crate::adapt::hierarchy::Hierarchy;
use crate::adapt::inside::InsideOptions;
use crate::adapt::{
    self, Adaptation, AdaptationOptions, Checkpoint, EpochReport, HoldOut, Outcome, TrainData,
    TrainOptions, TrainState,
};
use crate::augment::{Augmentation, View, write_views};
use flawtune::evaluate::protocol::{Split, SplitOptions};
use flawtune::features::Forward as _;
use flawtune::score::heads::EnsembleRecord;

/// What to train, from what, and where to put it.
#[derive(Debug, Clone)]
pub struct TrainRequest {
    /// The images.
    pub data: CategoryOptions,
    /// The backbone.
    pub backbone: BackboneOptions,
    /// Who trains and who is kept for testing.
    pub split: SplitOptions,
    /// What is trained.
    pub adaptation: AdaptationOptions,
    /// A checkpoint whose values training starts from, such as one of meta-training; `None`: random ones.
    pub init: Option<PathBuf>,
    /// What is trained inside the transformer; `None`: the output only.
    pub inside: Option<InsideOptions>,
    /// How; its hold-out is filled in from the split.
    pub training: TrainOptions,
    /// Ways to make more of the shots that train; what is held out is never augmented, and views are not shots.
    pub augment_defects: Vec<Augmentation>,
    /// Take the shots' ground-truth masks, where there are any, for where their flaws are; under losses of image scores.
    pub shot_masks: bool,
    /// Parts of the shots that are left out in turn to choose the epoch and to judge what was trained; 0: the hold-out
    /// of the split does both.
    pub guard_folds: usize,
    /// Prompts for each known defect type beside the shared ones; `None`: no hierarchy.
    pub type_prompts: Option<usize>,
    /// Record a verdict that makes scores fall back to zero-shot where training showed no gain.
    pub guard: bool,
    /// The ensemble fitted beside it; `None` fits none.
    pub ensemble: Option<EnsembleFit>,
    /// Where the checkpoint goes.
    pub output_dir: PathBuf,
    /// Go on from the state of an interrupted run.
    pub resume: bool,
    /// Distances of the untouched model that other jobs of this process have computed, or may need.
    pub frozen: FrozenScores,
    /// Arguments to record in the checkpoint.
    pub args: Vec<(String, Value)>,
}

/// What training left.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The checkpoint, or if training was interrupted what it can go on from: the resumable state, or the parts of the
    /// cross-validation that are done.
    pub checkpoint: PathBuf,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Names and sizes of the trained tensors.
    pub trainable: Vec<(String, usize)>,
    /// Numbers in the frozen backbone.
    pub frozen: usize,
    /// The state at the end, with the history; none after an interruption of the cross-validation.
    pub state: Option<TrainState>,
    /// The levels under the shared prompts, where they were asked for.
    pub levels: Option<Hierarchy>,
    /// The verdict on the trained prompts.
    pub guard: Option<PromptGuard>,
    /// The ensemble; none after an interruption, or if none was asked for.
    pub ensemble: Option<EnsembleRecord>,
    /// Seconds of training, without features.
    pub seconds: f64,
}

impl Trained {
    /// After an interruption of the cross-validation.
    fn stopped(
        folds: PathBuf,
        trainable: Vec<(String, usize)>,
        engine: &Engine,
        seconds: f64,
    ) -> Self {
        Self {
            checkpoint: folds,
            interrupted: true,
            trainable,
            frozen: engine.parameters(),
            state: None,
            levels: None,
            guard: None,
            ensemble: None,
            seconds,
        }
    }
}

/// Defects that choose the epoch, of `shots`: a fifth, rounded up, from 5 shots on. They are not trained on, so that
/// M shots never means more than M labelled defects. Below 5 shots there are none and the last epoch is kept.
pub fn hold_out_shots(shots: usize) -> usize {
    if shots < 5 { 0 } else { shots.div_ceil(5) }
}

/// Refuses options that do not go together.
fn check(request: &TrainRequest) -> Result<(), WorkflowError> {
    if let Some(inside) = &request.inside {
        inside.check()?;
        if request.init.is_some() {
            return Err(WorkflowError::Input(
                "`init` gives prompts at the output their first values\nhint: omit `prompt_depth` and `use_adapters`".into(),
            ));
        }
        if request.type_prompts.is_some() {
            return Err(WorkflowError::Input(
                "`hierarchy` adds prompts at the output, on frozen tokens\nhint: omit `prompt_depth` and `use_adapters`".into(),
            ));
        }
    }
    Ok(())
}

/// Where the shots' flaws are, by their masks.
fn masks_of(
    category: &Category,
    engine: &Engine,
    (grid, shots): ((usize, usize), &[usize]),
    on_event: OnEvent<'_>,
) -> Result<Vec<Option<Vec<bool>>>, WorkflowError> {
    let masks = shot_masks(category, engine, grid, shots)?;
    if masks.iter().all(Option::is_none) {
        on_event(Event::Warning(
            "no shot has a ground-truth mask: `shot_masks` changes nothing".into(),
        ));
    }
    Ok(masks)
}

/// What a cross-validation over the shots came to.
enum Judged {
    /// One shot cannot be left out.
    Not,
    /// It was interrupted; its parts are kept.
    Stopped,
    Found(Option<PromptGuard>),
}

fn judged(
    trainer: &Trainer<'_>,
    plan: &Plan<'_>,
    held_normals: &[usize],
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Judged, WorkflowError> {
    if held_normals.is_empty() {
        return Err(WorkflowError::Input(
            "`guard_folds` measures left-out shots against held-out good images, and there are none\nhint: hold some \
             out with `holdout_fraction`, or omit `guard_folds`"
                .into(),
        ));
    }
    if plan.folds < 2 {
        on_event(Event::Warning(
            "one shot cannot be left out: no cross-validation".into(),
        ));
        return Ok(Judged::Not);
    }
    let found = part("cross-validation", on_event, |on_event| {
        cross_validate(trainer, plan, cancel, on_event)
    })?;
    Ok(found.map_or(Judged::Stopped, |folds| {
        Judged::Found(PromptGuard::of_folds(&folds))
    }))
}

/// Fits the ensemble, and saves the checkpoint again with it.
fn add_ensemble(
    checkpoint: &mut Checkpoint,
    request: &TrainRequest,
    (category, split): (&Category, &Split),
    planned: &ensemble::Planned,
    on_event: OnEvent<'_>,
) -> Result<Option<EnsembleRecord>, WorkflowError> {
    let (all, frozen) = (split.normals(), &request.frozen);
    let fitted = part("ensemble", on_event, |on_event| {
        ensemble::fit(category, planned, &all, &split.shots, frozen, on_event)
    })?;
    if let Some(record) = &fitted {
        let record = record.to_value();
        checkpoint.others.push((EnsembleRecord::KEY.into(), record));
        checkpoint.save(&request.output_dir)?;
    }
    Ok(fitted)
}

/// What a training starts from, checked.
struct Opened {
    category: Category,
    split: Split,
    engine: Engine,
    planned: Option<ensemble::Planned>,
    wanted: AdaptationOptions,
    resumed: Option<Checkpoint>,
    through: Option<Through>,
    prepared: Prepared,
    /// Where an interrupted training and an interrupted cross-validation are kept.
    resume_path: PathBuf,
    folds_path: PathBuf,
}

fn open(request: &TrainRequest, on_event: OnEvent<'_>) -> Result<Opened, WorkflowError> {
    check(request)?;
    let wanted = request.inside.as_ref().map_or_else(
        || request.adaptation.clone(),
        |i| i.output(&request.adaptation),
    );
    let category = Category::open(&request.data, on_event)?;
    let split = category.split(&request.split)?;
    on_event(Event::Split(&split.manifest));
    writable(&request.output_dir)?;
    let kept = |what: &str| {
        let name = format!("{}_{what}", category.dataset.category);
        request.output_dir.join(name)
    };
    let (resume_path, folds_path) = (kept("resume.pt"), kept("folds.json"));
    let resumed = request
        .resume
        .then(|| resume::read(&resume_path, on_event))
        .transpose()?;
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let planned = request
        .ensemble
        .as_ref()
        .map(|how| ensemble::plan(&engine, how, on_event))
        .transpose()?;
    if let Some(saved) = &resumed
        && !belongs(saved, request, &wanted, &split.manifest.hash)
    {
        return Err(resume::of_another_run(&resume_path));
    }
    let inside = request.inside.as_ref();
    let through = inside.map(|_| Through::open(&engine)).transpose()?;
    let prepared = Prepared::new(&category, &engine, &split, on_event)?;
    Ok(Opened {
        category,
        split,
        engine,
        planned,
        wanted,
        resumed,
        through,
        prepared,
        resume_path,
        folds_path,
    })
}

/// The shots given, all their views, and synthetic defects; views stand behind the shots.
fn with_views(given: &[usize], shots: usize, views: &[View]) -> Vec<usize> {
    let of = |(i, view): (usize, &View)| {
        let belongs = view.shot.is_none_or(|s| given.contains(&s));
        belongs.then_some(shots + i)
    };
    let views = views.iter().enumerate().filter_map(of);
    given.iter().copied().chain(views).collect()
}

/// The untrained adaptation, with the first values that were asked for.
fn first_values(
    request: &TrainRequest,
    opened: &Opened,
    on_event: OnEvent<'_>,
) -> Result<(Adaptation, Option<Init>), WorkflowError> {
    let dim = opened.prepared.normal_tokens.dim;
    let mut adaptation = Adaptation::new(opened.wanted.clone(), dim)?;
    let of = (&opened.category, &opened.split);
    let init = request.init.as_deref();
    let init = init.map(|path| Init::read(path, &opened.engine, &adaptation, of, on_event));
    let init = init.transpose()?;
    if let Some(init) = &init {
        adaptation
            .modulation_mut()
            .parameters_mut()
            .copy_from(&init.parameters)?;
    }
    Ok((adaptation, init))
}

/// The levels of the defect types under the trained prompts; `None` after an interruption.
fn levels_of(
    opened: &Opened,
    (adaptation, state): (&Adaptation, &TrainState),
    options: &TrainOptions,
    prompts: usize,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Option<Hierarchy>, WorkflowError> {
    // as long as did best for the shared prompts: a type may have too few shots to choose by
    let own = TrainOptions {
        last_epoch: Some(state.kept_epoch().max(1)),
        ..options.clone()
    };
    part("hierarchy", on_event, |on_event| {
        let (category, prepared) = (&opened.category, &opened.prepared);
        hierarchy::train(
            category, prepared, adaptation, prompts, &own, cancel, on_event,
        )
    })
}

/// Writes the checkpoint, with the ensemble, or if it was `interrupted` what training can go on from.
fn keep(
    mut checkpoint: Checkpoint,
    (request, opened): (&TrainRequest, &Opened),
    interrupted: Option<&TrainState>,
    on_event: OnEvent<'_>,
) -> Result<(PathBuf, Option<EnsembleRecord>), WorkflowError> {
    if let Some(state) = interrupted {
        let path = opened.resume_path.clone();
        checkpoint.resume = Some(state.clone());
        torch_file::write(&path, &checkpoint.to_value()).map_err(adapt::AdaptError::from)?;
        on_event(Event::Wrote(&path));
        return Ok((path, None));
    }
    let path = checkpoint.save(&request.output_dir)?;
    on_event(Event::Wrote(&path));
    let history = format!("{}_history.json", opened.category.dataset.category);
    on_event(Event::Wrote(&request.output_dir.join(history)));
    let mut fitted = None;
    // the training is kept whatever becomes of the ensemble
    if let Some(planned) = &opened.planned {
        let of = (&opened.category, &opened.split);
        fitted = add_ensemble(&mut checkpoint, request, of, planned, on_event)?;
    }
    for replaced in [&opened.resume_path, &opened.folds_path] {
        if replaced.exists() {
            // the finished checkpoint replaces it; if it cannot be removed, nothing is lost
            drop(std::fs::remove_file(replaced));
        }
    }
    Ok((path, fitted))
}

/// Trains, and writes `<category>_prompts.pt` and `<category>_history.json`. Raising `cancel` ends it after the step at
/// hand and leaves `<category>_resume.pt`.
///
/// # Errors
/// Anything wrong with the input, before any training.
#[expect(
    clippy::too_many_lines,
    reason = "its steps are functions; this is their order"
)]
pub fn train(
    request: &TrainRequest,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Trained, WorkflowError> {
    let mut opened = open(request, on_event)?;
    let state = opened.resumed.take().and_then(|c| c.resume);
    let (category, engine, prepared) = (&opened.category, &opened.engine, &opened.prepared);
    let Prepared {
        normals,
        normal_tokens,
        shots,
        train_normals,
        ..
    } = prepared;
    let mut defect_tokens = prepared.shot_tokens.clone();
    let views = if request.augment_defects.is_empty() {
        Vec::new()
    } else {
        let of = (&shots[..], &train_normals[..], &normals[..]);
        part("views", on_event, |on_event| {
            views(request, category, of, engine, on_event)
        })?
    };
    let view_paths: Vec<PathBuf> = views.iter().map(|v| v.path.clone()).collect();
    if !views.is_empty() {
        let tokens = category.tokens_of_views(engine, &view_paths, on_event)?.1;
        defect_tokens.images.extend(tokens.images);
    }
    let masks = if request.shot_masks {
        masks_of(category, engine, (normal_tokens.grid, shots), on_event)?
    } else {
        Vec::new()
    };
    let with_views = |given: &[usize]| with_views(given, shots.len(), &views);
    let mut options = request.training.clone();
    let hold_out = prepared.hold_out(&options);
    if prepared.held_defects.is_empty() {
        (options.hold_out, options.patience) = (None, None);
    } else {
        options.hold_out = Some(hold_out.clone());
    }

    let (mut adaptation, init) = first_values(request, &opened, on_event)?;
    let trainable = match &request.inside {
        Some(inside) => inside::trainable(inside, engine, &adaptation),
        None => adaptation.trainable(),
    };
    let trainer = Trainer {
        engine,
        category,
        inside: request.inside.as_ref().zip(opened.through.as_ref()),
        lists: (normals, shots, &view_paths),
    };
    let all_shots: Vec<usize> = (0..shots.len()).collect();
    let data = TrainData {
        normals: normal_tokens,
        normal_indices: train_normals,
        defects: &defect_tokens,
        defect_indices: &all_shots,
        masks: &masks,
    };
    let start = Instant::now();
    let mut guard = None;
    if request.guard_folds > 0 {
        let plan = Plan {
            adaptation: &adaptation,
            data,
            with_views: &with_views,
            options: &options,
            hold_out: &HoldOut {
                defects: Vec::new(),
                ..hold_out
            },
            folds: request.guard_folds.min(shots.len()),
            key: &fold_key(request, &opened.split.manifest.hash, engine),
            file: opened.folds_path.clone(),
            trainable: &trainable,
        };
        match judged(&trainer, &plan, &prepared.held_normals, cancel, on_event)? {
            Judged::Not => {}
            Judged::Stopped => {
                on_event(Event::Wrote(&opened.folds_path));
                let (path, seconds) = (opened.folds_path.clone(), start.elapsed().as_secs_f64());
                return Ok(Trained::stopped(path, trainable, engine, seconds));
            }
            Judged::Found(found) => {
                guard = found;
                options.last_epoch = guard.and_then(|g| g.epoch);
            }
        }
    }
    let own = guard.map_or(&prepared.train_defects, |_| &all_shots);
    let data = TrainData {
        defect_indices: &with_views(own),
        ..data
    };
    if guard.is_some() {
        (options.hold_out, options.patience) = (None, None);
    }
    let held = options.hold_out.as_ref();
    on_event(Event::Training {
        part: None,
        trainable: &trainable,
        frozen: engine.parameters(),
        images: (train_normals.len(), data.defect_indices.len()),
        hold_out: held.map_or((0, 0), |h| (h.normals.len(), h.defects.len())),
        resumed_at: state.as_ref().map_or(0, |s| s.epochs_done),
        epochs: options.last_epoch.unwrap_or(options.epochs),
    });
    let (outcome, inserted) = part("training", on_event, |on_event| {
        let on_epoch = &mut |report: &EpochReport| on_event(Event::Epoch(report));
        Ok(trainer.run(&mut adaptation, &data, &options, state, cancel, on_epoch)?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (state, mut interrupted) = match outcome {
        Outcome::Finished(state) => (state, false),
        Outcome::Interrupted(state) => (state, true),
    };
    let mut levels = None;
    if let Some(prompts) = request.type_prompts.filter(|_| !interrupted) {
        let shared = (&adaptation, &state);
        levels = levels_of(&opened, shared, &options, prompts, cancel, on_event)?;
        interrupted = levels.is_none();
    }
    let name = &category.dataset.category;
    let mut checkpoint = Checkpoint::new(&engine.config().name, name, &adaptation, &state);
    checkpoint.inserted = inserted;
    provenance::put(&mut checkpoint, engine, &request.args)?;
    put_split(&mut checkpoint, &opened.split.manifest)?;
    if request.shot_masks {
        put_masks(&mut checkpoint, &masks);
    }
    if let Some(init) = &init {
        put_init(&mut checkpoint, init)?;
    }
    if let Some(levels) = &levels {
        let levels = levels.to_value(adaptation.dim());
        checkpoint.others.push((Hierarchy::KEY.into(), levels));
    }
    let guard = request
        .guard
        .then(|| guard.unwrap_or_else(|| PromptGuard::of_training(&state)));
    if let Some(guard) = &guard {
        let guard = guard.to_value();
        checkpoint.others.push((PromptGuard::KEY.into(), guard));
    }
    let stopped = interrupted.then_some(&state);
    let (path, fitted) = keep(checkpoint, (request, &opened), stopped, on_event)?;
    Ok(Trained {
        checkpoint: path,
        interrupted,
        trainable,
        frozen: engine.parameters(),
        state: Some(state),
        levels,
        guard,
        ensemble: fitted,
        seconds,
    })
}

/// The augmented images of the run, in a folder of their own beside the checkpoint.
fn views(
    request: &TrainRequest,
    category: &Category,
    (shots, train_normals, normals): (&[usize], &[usize], &[usize]),
    engine: &Engine,
    on_event: OnEvent<'_>,
) -> Result<Vec<View>, WorkflowError> {
    let path = |i: usize| category.dataset.samples[i].path.clone();
    let shots: Vec<PathBuf> = shots.iter().map(|&i| path(i)).collect();
    let good: Vec<PathBuf> = train_normals.iter().map(|&i| path(normals[i])).collect();
    let folder = request
        .output_dir
        .join(format!("{}_views", category.dataset.category));
    let options = engine.preprocess().decode_options();
    let views = write_views(
        &request.augment_defects,
        &shots,
        &good,
        request.training.seed,
        &options,
        &folder,
    )?;
    on_event(Event::Wrote(&folder));
    Ok(views)
}

/// Hash of everything the folds of a cross-validation depend on.
fn fold_key(request: &TrainRequest, split: &str, engine: &Engine) -> String {
    let text = format!(
        "{split} {} {} {} {:?} {:?} {:?} {} {:?} {}",
        engine.weights_hash(),
        engine.preprocess().id(),
        engine.layers_text(),
        request.adaptation,
        request.inside,
        request.training,
        request.guard_folds,
        request.augment_defects,
        request.shot_masks
    );
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_out_never_adds_labelled_defects() {
        for shots in 1..100 {
            let held = hold_out_shots(shots);
            assert!(held < shots, "{held} of {shots}");
            assert!(shots < 5 || held >= 1);
        }
        assert_eq!([1, 4, 5, 10, 20].map(hold_out_shots), [0, 0, 1, 2, 4]);
    }
}
