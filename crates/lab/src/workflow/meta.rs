//! Meta-train first values on several categories, and start a training from them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use flawtune_backbone::torch_file::{self, Value};

use super::manifests::{self, manifests};
use super::{
    BackboneOptions, Category, CategoryOptions, Engine, Event, OnEvent, WorkflowError, folder_of,
    part, provenance, writable,
};
use crate::adapt::meta::{IterationReport, MetaOptions, MetaOutcome, MetaTask, meta_train as run};
use crate::adapt::{AdaptError, Adaptation, AdaptationOptions, Checkpoint, Parameters, int_value};
use flawtune::evaluate::protocol::{
    ImageRef, Protocol, Split, SplitManifest, SplitOptions, check_disjoint,
};
use flawtune::features::{Forward as _, TokenSet};

/// What a checkpoint of first values calls its category, and the key that says how they were made.
pub const META: &str = "meta";
/// The part of the job that moves the start.
pub const META_TRAINING: &str = "meta-training";
/// The key of the lists of images that the first values of a checkpoint learned from.
pub(super) const INIT_MANIFESTS: &str = "init_split_manifests";

/// What to meta-train on, and where to put it.
#[derive(Debug, Clone)]
pub struct MetaRequest {
    /// The categories.
    pub data: Vec<CategoryOptions>,
    /// The backbone.
    pub backbone: BackboneOptions,
    /// Seeds of the tasks: each draws its own pool of defects.
    pub seeds: Vec<u64>,
    /// Numbers of shots of the tasks; those a pool is too small for are left out.
    pub shots: Vec<usize>,
    /// Size of the pools; `None`: the protocol's.
    pub pool: Option<usize>,
    /// What gets first values.
    pub adaptation: AdaptationOptions,
    /// How.
    pub options: MetaOptions,
    /// The file to write.
    pub output: PathBuf,
    /// Arguments to record in the checkpoint.
    pub args: Vec<(String, Value)>,
}

/// What meta-training left.
#[derive(Debug, Clone)]
pub struct MetaTrained {
    /// The file.
    pub path: PathBuf,
    /// The tasks, by name.
    pub tasks: Vec<String>,
    /// Names and sizes of the tensors.
    pub trainable: Vec<(String, usize)>,
    /// The history, and whether it was interrupted.
    pub outcome: MetaOutcome,
}

/// A category with one seed.
struct Drawn {
    name: String,
    seed: u64,
    normals: TokenSet,
    defects: TokenSet,
}

/// Meta-trains, and writes the first values as a checkpoint. Raising `cancel` ends it before the next task; what was reached
/// is written.
///
/// # Errors
/// Anything wrong with the input, before any training.
pub fn meta_train(
    request: &MetaRequest,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
    on_iteration: &mut dyn FnMut(&IterationReport),
) -> Result<MetaTrained, WorkflowError> {
    let folder = folder_of(&request.output);
    writable(folder)?;
    let mut splits: Vec<(Category, Vec<Split>)> = Vec::new();
    for data in &request.data {
        let category = Category::open(data, on_event)?;
        let split = |&seed: &u64| {
            category.split(&SplitOptions {
                pool: request.pool,
                ..SplitOptions::held_out(seed, 0)
            })
        };
        let of = request
            .seeds
            .iter()
            .map(split)
            .collect::<Result<Vec<_>, _>>()?;
        splits.push((category, of));
    }
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let mut drawn = Vec::new();
    let mut lists: Vec<SplitManifest> = Vec::new();
    for (category, of) in &splits {
        let infos = category.infos();
        let lists_of = |split: &Split| -> [Vec<usize>; 2] {
            let pool = split.manifest.pool.iter();
            let in_pool = |r: &ImageRef| infos.iter().position(|i| i.id == r.id);
            [
                split
                    .train_normals
                    .iter()
                    .chain(&split.holdout_normals)
                    .copied()
                    .collect(),
                pool.filter_map(in_pool).collect(),
            ]
        };
        let wanted: Vec<[Vec<usize>; 2]> = of.iter().map(lists_of).collect();
        // seeds share most of their images: each is read once
        let all: BTreeSet<usize> = wanted.iter().flatten().flatten().copied().collect();
        let (kept, tokens) =
            category.tokens(&engine, &all.into_iter().collect::<Vec<_>>(), on_event)?;
        let pick = |list: &[usize]| TokenSet {
            images: list
                .iter()
                .filter_map(|i| Some(tokens.images[kept.binary_search(i).ok()?].clone()))
                .collect(),
            grid: tokens.grid,
            dim: tokens.dim,
        };
        for (split, [normals, pool]) in of.iter().zip(&wanted) {
            drawn.push(Drawn {
                name: category.dataset.category.clone(),
                seed: split.seed,
                normals: pick(normals),
                defects: pick(pool),
            });
            lists.push(split.manifest.clone());
        }
    }
    let tasks: Vec<MetaTask<'_>> = drawn
        .iter()
        .flat_map(|d| {
            let fit = request
                .shots
                .iter()
                .filter(|&&shots| shots < d.defects.images.len());
            fit.map(|&shots| MetaTask {
                name: format!("{}, seed {}, {shots} shots", d.name, d.seed),
                normals: &d.normals,
                defects: &d.defects,
                shots,
            })
        })
        .collect();
    if tasks.is_empty() {
        return Err(WorkflowError::Input(format!(
            "no pool holds more than {} defects, and one more is needed to look at\nhint: choose fewer `shots`, or a larger `pool_size`",
            request.shots.iter().min().copied().unwrap_or(0)
        )));
    }
    let mut adaptation = Adaptation::new(request.adaptation.clone(), drawn[0].normals.dim)?;
    let outcome = part(META_TRAINING, on_event, |_| {
        Ok(run(
            &mut adaptation,
            &tasks,
            &request.options,
            cancel,
            on_iteration,
        )?)
    })?;
    let names: Vec<String> = tasks.iter().map(|t| t.name.clone()).collect();
    let checkpoint = checkpoint(request, &engine, &adaptation, &names, &outcome, &lists)?;
    torch_file::write(&request.output, &checkpoint.to_value()).map_err(AdaptError::from)?;
    on_event(Event::Wrote(&request.output));
    Ok(MetaTrained {
        path: request.output.clone(),
        tasks: names,
        trainable: adaptation.trainable(),
        outcome,
    })
}

fn checkpoint(
    request: &MetaRequest,
    engine: &Engine,
    adaptation: &Adaptation,
    tasks: &[String],
    outcome: &MetaOutcome,
    lists: &[SplitManifest],
) -> Result<Checkpoint, WorkflowError> {
    let mut checkpoint = Checkpoint::untrained(&engine.config().name, META, adaptation);
    provenance::put(&mut checkpoint, engine, &request.args)?;
    manifests::put(&mut checkpoint, lists)?;
    let o = &request.options;
    let column = |get: fn(&IterationReport) -> f64| Value::floats(outcome.history.iter().map(get));
    let made = Value::dict([
        ("method", Value::from(o.method.name())),
        (
            "tasks",
            Value::List(tasks.iter().map(|t| Value::Str(t.clone())).collect()),
        ),
        ("iterations", int_value(outcome.history.len())),
        ("tasks_per_iteration", int_value(o.tasks_per_iteration)),
        ("inner_steps", int_value(o.inner_steps)),
        ("inner_rate", Value::Float(o.inner_rate)),
        ("outer_rate", Value::Float(o.outer_rate)),
        ("batch_size", int_value(o.batch_size)),
        ("query_loss_before", column(|r| r.before)),
        ("query_loss_after", column(|r| r.after)),
    ]);
    checkpoint.others.push((META.into(), made));
    Ok(checkpoint)
}

/// First values read from a checkpoint, for a training.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) parameters: Parameters,
    /// Hash of the file, to record.
    pub(super) hash: String,
    /// The images they learned from.
    pub(super) lists: Vec<SplitManifest>,
}

impl Init {
    /// Reads the first values at `path` and checks that none of their images is tested by `split`.
    ///
    /// # Errors
    /// A file that is not a checkpoint, or was made with another backbone or for another adaptation; images of the test set
    /// among those it learned from.
    pub(super) fn read(
        path: &Path,
        engine: &Engine,
        adaptation: &Adaptation,
        (category, split): (&Category, &Split),
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let failed = |source| WorkflowError::Io {
            path: path.to_owned(),
            source,
            hint: "name a checkpoint",
        };
        let hash = blake3::hash(&std::fs::read(path).map_err(failed)?)
            .to_hex()
            .to_string();
        let checkpoint = Checkpoint::read(path)?;
        on_event(Event::Read(path));
        checkpoint.check_backbone(path, &engine.config().name, adaptation.dim())?;
        let input = |text: String| Err(WorkflowError::Input(format!("{}: {text}", path.display())));
        for (what, then, now) in [
            (
                "weights",
                &checkpoint.weights_hash,
                engine.weights_hash().to_owned(),
            ),
            ("layers", &checkpoint.layers, engine.layers_text()),
        ] {
            if let Some(then) = then.as_ref().filter(|then| **then != now) {
                return input(format!(
                    "made with the {what} {then}, but this run has {now}\nhint: use the same"
                ));
            }
        }
        let (theirs, ours) = (&checkpoint.options, adaptation.options());
        let made = adaptation.parameters().same_layout(&checkpoint.parameters);
        let same = theirs.use_cls == ours.use_cls
            && theirs.modulation == ours.modulation
            && theirs.scaling_factor == ours.scaling_factor;
        if checkpoint.inserted.is_some() || made.is_err() || !same {
            return input(format!(
                "holds {} prompts for {} with α = {}, and this run trains {} for {} with α = {}\nhint: make them agree with \
                 `num_prompts`, `modulation_type` and `scaling_factor`",
                theirs.num_prompts,
                theirs.modulation,
                theirs.scaling_factor,
                ours.num_prompts,
                ours.modulation,
                ours.scaling_factor
            ));
        }
        let lists = manifests(path, &checkpoint)?;
        let tested = split.tested(&category.infos());
        let leaky = split.manifest.protocol == Protocol::Leaky;
        for list in lists.iter().filter(|_| !leaky) {
            check_disjoint(
                list,
                &category.dataset.category,
                &tested,
                &split.manifest.protocol,
            )?;
        }
        Ok(Self {
            parameters: checkpoint.parameters,
            hash,
            lists,
        })
    }
}

/// The images that the first values of a checkpoint learned from; none where it started from random ones.
///
/// # Errors
/// Lists that cannot be read.
pub(super) fn init_lists(
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<Vec<SplitManifest>, WorkflowError> {
    let Some(text) = checkpoint.other(INIT_MANIFESTS).and_then(Value::as_str) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(text).map_err(|e| {
        WorkflowError::Input(format!(
            "{}: '{INIT_MANIFESTS}' cannot be read ({e})",
            path.display()
        ))
    })
}
