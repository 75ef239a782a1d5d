//! `flawtune train`

use std::path::Path;

use flawtune::evaluate::protocol::{Protocol, ProtocolName, SplitOptions};
use flawtune::record::Outcome;
use flawtune::score::heads::EnsembleOptions;
use flawtune::workflow::{BackboneOptions, Event, OnEvent, WorkflowError};
use flawtune_backbone::torch_file::Value;
use flawtune_backbone::vjp::Scaling;
use flawtune_lab::adapt::guard::{Evidence, PromptGuard};
use flawtune_lab::adapt::{
    AdaptationOptions, EpochSteps, LearnedScale, Loss, LossType, ModulationType, ScalePenalty,
    TrainOptions, TrainState,
};
use flawtune_lab::augment::Augmentation;
use flawtune_lab::workflow::{EnsembleFit, FrozenScores, TrainRequest, Trained, train};
use serde_json::json;

use super::tensorboard::Curves;
use super::{in_force, inside, request, universal};
use crate::Context;
use crate::args::{HierarchyArg, TrainArgs};
use crate::console::{out, warn};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;
use crate::recording::{InForce, Recording, outcome};

/// Epochs unless told otherwise, where only the output is trained.
const EPOCHS: u32 = 100;

/// What the presets differ in.
struct Preset {
    modulation: ModulationType,
    scaling_factor: f64,
    protocol: ProtocolName,
    epoch: EpochSteps,
    patience: u32,
    grad_clip: f64,
    holdout_fraction: f64,
    ensemble: bool,
    guard: bool,
}

impl Preset {
    fn of(preset: flawtune_lab::workflow::Preset) -> Self {
        match preset {
            flawtune_lab::workflow::Preset::Default => Self {
                modulation: ModulationType::LearnedTransform,
                scaling_factor: 1.0,
                protocol: ProtocolName::HeldOut,
                epoch: EpochSteps::FullPass,
                patience: 10,
                grad_clip: 1.0,
                holdout_fraction: 0.2,
                ensemble: true,
                guard: true,
            },
            flawtune_lab::workflow::Preset::Original => Self {
                modulation: ModulationType::Global,
                scaling_factor: 0.01,
                protocol: ProtocolName::Leaky,
                epoch: EpochSteps::One,
                patience: 0,
                grad_clip: 0.0,
                holdout_fraction: 0.0,
                ensemble: false,
                guard: false,
            },
        }
    }
}

pub(crate) fn run(args: &TrainArgs, context: Context) -> Result<(), Failure> {
    let request = request_of(args, context)?;
    if request.split.protocol == Protocol::Leaky {
        warn(
            "protocol leaky: training defects stay in the test set, so numbers from this checkpoint are not a result",
        );
    }
    if let Some(how) = args.universal {
        return universal::run(how, request, args, context);
    }
    let category = &request.data.category;
    let curves = args
        .tensorboard
        .as_deref()
        .map(|folder| Curves::new(folder, category, &request.args));
    let mut curves = curves.transpose()?;
    let job = |on_event: OnEvent<'_>| {
        train(&request, interrupt::cancel(), &mut |event| {
            let failed = curves.as_mut().and_then(|c| c.add(&event).err());
            on_event(event);
            if let Some(failed) = failed {
                // a curve less is no reason to lose the training
                curves = None;
                on_event(Event::Warning(format!(
                    "{failed}; no more curves are written"
                )));
            }
        })
    };
    let trained = recorded(
        (args, context),
        category,
        in_force::train(&request),
        |t: &Trained| t.interrupted,
        job,
    )?;
    match &trained.state {
        Some(state) if trained.interrupted => {
            Err(interrupted(state.epochs_done, &trained.checkpoint))
        }
        Some(state) => {
            report(&trained, state, args, &request.data.category, context);
            Ok(())
        }
        None => Err(Failure::Interrupted(format!(
            "parts of the cross-validation that are done are kept in {}\nhint: repeat the command",
            trained.checkpoint.display()
        ))),
    }
}

/// Does a training: shown under `label`, and recorded however it ends.
pub(super) fn recorded<T>(
    (args, context): (&TrainArgs, Context),
    label: &str,
    in_force: InForce,
    interrupted: fn(&T) -> bool,
    job: impl FnOnce(OnEvent<'_>) -> Result<T, WorkflowError>,
) -> Result<T, Failure> {
    let _lock = request::lock(&args.output_dir, label)?;
    let recording = Recording::start(context, &args.output_dir, Some(args.seed), in_force);
    let mut display = Display::of(context.console, Some(label));
    let result = job(&mut |event| {
        recording.hear(&event);
        display.show(event);
    });
    display.finish();
    recording.end(match &result {
        Ok(trained) if interrupted(trained) => Outcome::Interrupted,
        result => outcome(result),
    });
    result.map_err(|e| Failure::from_error(&e))
}

/// A training that was interrupted and left a state.
pub(super) fn interrupted(epochs: usize, path: &Path) -> Failure {
    Failure::Interrupted(format!(
        "{epochs} epochs are kept in {}\nhint: repeat the command with --resume",
        path.display()
    ))
}

pub(super) fn request_of(args: &TrainArgs, context: Context) -> Result<TrainRequest, Failure> {
    if let Some(several) = args
        .data
        .category
        .as_ref()
        .filter(|c| c.contains(',') && args.universal.is_none())
    {
        return Err(Failure::Input(format!(
            "--category names {several}\nhint: add --universal joint (or average) to train one set of prompts on all of them, or \
             name one"
        )));
    }
    let preset = Preset::of(args.preset);
    let protocol = args.protocol.unwrap_or(preset.protocol);
    let protocol = protocol.of_type(args.defect_type.as_deref());
    let protocol = protocol.map_err(|e| Failure::from_error(&e))?;
    let inside = inside::options(args)?;
    let through = inside.is_some();
    let patience = args.patience.unwrap_or(if through {
        inside::PATIENCE
    } else {
        preset.patience
    });
    let epochs = args
        .num_epochs
        .unwrap_or(if through { inside::EPOCHS } else { EPOCHS });
    let clip = args.grad_clip.unwrap_or(preset.grad_clip);
    let modulation = args.modulation_type.unwrap_or(preset.modulation);
    let scaling_factor = args.scaling_factor.unwrap_or(preset.scaling_factor);
    let epoch = args.epoch.unwrap_or(if through {
        EpochSteps::One
    } else {
        preset.epoch
    });
    // asking for its layers asks for it
    let ensemble =
        !args.ensemble.no_ensemble && (preset.ensemble || args.ensemble.ensemble_layers.is_some());
    let cache = request::cache(&args.cache, context.console);
    let data = request::data(&args.data, cache, args.batch_size as usize)?;
    let category = data.category.clone();
    Ok(TrainRequest {
        data,
        backbone: request::backbone(&args.backbone).over(BackboneOptions::default()),
        split: SplitOptions {
            holdout_fraction: args.holdout_fraction.unwrap_or(preset.holdout_fraction),
            ..request::split(
                protocol,
                args.seed,
                args.num_defect_samples as usize,
                args.pool_size,
            )
        },
        adaptation: AdaptationOptions {
            modulation,
            num_prompts: args.num_prompts as usize,
            scaling_factor: scaling_factor as f32,
            use_cls: args.use_cls,
            residual_scaling: args.learn_scaling,
            seed: args.seed,
        },
        init: args.init.clone(),
        inside,
        training: TrainOptions {
            epochs: epochs as usize,
            learning_rate: args.learning_rate,
            batch_size: args.batch_size as usize,
            loss: loss(args)?,
            epoch_steps: epoch,
            clip_norm: (clip > 0.0).then_some(clip),
            scale_penalty: penalty(args)?,
            seed: args.seed,
            keep_matches: true,
            hold_out: None,
            last_epoch: None,
            patience: (patience > 0).then_some(patience as usize),
        },
        augment_defects: augmentations(&args.augment_defects)?,
        shot_masks: shot_masks(args)?,
        guard_folds: args.guard_folds as usize,
        type_prompts: type_prompts(args)?,
        guard: !args.ensemble.no_guard && preset.guard,
        ensemble: ensemble.then(|| EnsembleFit {
            layers: args.ensemble.ensemble_layers.clone(),
            options: EnsembleOptions {
                guard: !args.ensemble.no_guard,
                seed: args.seed,
                ..EnsembleOptions::default()
            },
        }),
        output_dir: args.output_dir.clone(),
        frozen: FrozenScores::default(),
        resume: args.resume,
        args: of_recipe(args, category, epochs, scaling_factor),
    })
}

/// The arguments as the recipe's checkpoints hold them.
fn of_recipe(
    args: &TrainArgs,
    category: String,
    epochs: u32,
    scaling_factor: f64,
) -> Vec<(String, Value)> {
    let recorded = |name: &str, value: Value| (name.to_owned(), value);
    let int = |v: u32| Value::Int(i64::from(v));
    vec![
        recorded("category", Value::Str(category)),
        recorded("num_prompts", int(args.num_prompts)),
        recorded("num_defect_samples", int(args.num_defect_samples)),
        recorded("num_epochs", int(epochs)),
        recorded("learning_rate", Value::Float(args.learning_rate)),
        recorded(
            "loss_type",
            Value::Str(format!("{:?}", args.loss_type).to_lowercase()),
        ),
        recorded("margin", Value::Float(args.margin)),
        recorded("shot_masks", Value::Bool(args.shot_masks)),
        recorded("use_cls", Value::Bool(args.use_cls)),
        recorded("use_adapters", Value::Bool(args.inside.use_adapters)),
        recorded("batch_size", int(args.batch_size)),
        recorded(
            "augment_defects",
            Value::Str(args.augment_defects.join(",")),
        ),
        recorded("scaling_factor", Value::Float(scaling_factor)),
        recorded(
            "preset",
            Value::Str(format!("{:?}", args.preset).to_lowercase()),
        ),
        recorded(
            "flawtune_version",
            Value::Str(env!("CARGO_PKG_VERSION").into()),
        ),
    ]
}

/// Prompts of each defect type, unless told otherwise.
const TYPE_PROMPTS: u32 = 3;

/// Prompts of each defect type, where a hierarchy is asked for.
fn type_prompts(args: &TrainArgs) -> Result<Option<usize>, Failure> {
    match (args.hierarchy, args.type_prompts) {
        (HierarchyArg::None, Some(_)) => Err(Failure::Input(
            "--type-prompts belongs to --hierarchy type\nhint: add it, or omit it".into(),
        )),
        (HierarchyArg::None, None) => Ok(None),
        (HierarchyArg::Type, given) => Ok(Some(given.unwrap_or(TYPE_PROMPTS) as usize)),
    }
}

/// What holds learned scales near their start: by default only where learning them was asked for, so that trainings
/// without stay as they were.
fn penalty(args: &TrainArgs) -> Result<ScalePenalty, Failure> {
    match (args.learn_scaling, args.scaling_penalty) {
        (Scaling::Fixed, Some(_)) => Err(Failure::Input(
            "--scaling-penalty belongs to --learn-scaling scalar or channel\nhint: add one of them, or omit it".into(),
        )),
        (Scaling::Fixed, None) => Ok(ScalePenalty::default()),
        (_, given) => Ok(given.map_or(ScalePenalty::DEFAULT, ScalePenalty)),
    }
}

/// Whether masks say where the flaws are, for losses and tokens that can be told so.
fn shot_masks(args: &TrainArgs) -> Result<bool, Failure> {
    if !args.shot_masks {
        return Ok(false);
    }
    let wrong = [
        (
            matches!(
                args.loss_type,
                LossType::Separability | LossType::Contrastive
            ),
            "is for --loss-type ranking or logistic, which compare patches with the normal ones\nhint: add one of them",
        ),
        (
            args.use_cls,
            "is for patches, and --use-cls compares class tokens\nhint: omit one of them",
        ),
        (
            args.hierarchy == HierarchyArg::Type,
            "says nothing to the prompts of --hierarchy\nhint: omit one of them",
        ),
    ];
    match wrong.into_iter().find(|w| w.0) {
        None => Ok(true),
        Some((_, why)) => Err(Failure::Input(format!("--shot-masks auto {why}"))),
    }
}

/// The augmentations named, each once, in their own order.
fn augmentations(names: &[String]) -> Result<Vec<Augmentation>, Failure> {
    let mut found = Vec::new();
    for name in names.iter().filter(|name| *name != "none") {
        found.push(name.parse().map_err(|e| {
            Failure::Input(format!("--augment-defects: {name:?} is unknown; {e}, none"))
        })?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// What the guard found, for people.
pub(super) fn verdict(guard: &PromptGuard) -> String {
    let so = if guard.fallback {
        ": 'evaluate' falls back to zero-shot"
    } else {
        ""
    };
    match (guard.evidence, guard.zero_shot, guard.adapted) {
        (Evidence::Nothing, _, _) | (_, None, _) | (_, _, None) => {
            format!("no shot was left out to judge by{so}")
        }
        (Evidence::HoldOut, Some(before), Some(after)) => {
            format!("hold-out {after:.3}, zero-shot {before:.3}{so}")
        }
        (Evidence::CrossValidation, Some(before), Some(after)) => format!(
            "cross-validated in {} parts {after:.3}, zero-shot {before:.3}, difference ± {:.3}{so}",
            guard.folds,
            guard.standard_error.unwrap_or(0.0)
        ),
    }
}

fn loss(args: &TrainArgs) -> Result<Loss, Failure> {
    let mut loss = args.loss_type.with_margin(args.margin);
    if let Loss::Scores(of_scores) = &mut loss {
        of_scores.top_fraction = args.loss_top_fraction.unwrap_or(of_scores.top_fraction);
        of_scores.temperature = args.loss_temperature.unwrap_or(of_scores.temperature);
        of_scores.check().map_err(|e| Failure::from_error(&e))?;
    }
    let asked = [
        ("--loss-top-fraction", args.loss_top_fraction.is_some()),
        ("--loss-temperature", args.loss_temperature.is_some()),
    ];
    match (loss, asked.iter().find(|a| a.1)) {
        (Loss::Separability | Loss::Contrastive { .. }, Some((flag, _))) => {
            Err(Failure::Input(format!(
                "{flag} belongs to --loss-type ranking or logistic\nhint: add one of them, or omit it"
            )))
        }
        _ => Ok(loss),
    }
}

fn report(
    trained: &Trained,
    state: &TrainState,
    args: &TrainArgs,
    category: &str,
    context: Context,
) {
    let kept = state.kept_epoch();
    if context.json {
        let by_tensor: serde_json::Map<String, serde_json::Value> = trained
            .trainable
            .iter()
            .map(|(name, n)| (name.clone(), json!(n)))
            .collect();
        let result = json!({
            "category": category,
            "checkpoint": trained.checkpoint,
            "trainable": trained.trainable.iter().map(|(_, n)| n).sum::<usize>(),
            "trainable_by_tensor": by_tensor,
            "frozen": trained.frozen,
            "epochs_done": state.epochs_done,
            "kept_epoch": kept,
            "types": trained.levels.as_ref().map(|l| {
                l.levels.iter().map(|t| (t.name.clone(), json!(t.shots))).collect::<serde_json::Map<_, _>>()
            }),
            "scales": LearnedScale::all(state.kept()),
            "hold_out": state.best.as_ref().map(|b| b.metric),
            "hold_out_zero_shot": state.zero_shot_hold_out,
            "guard": trained.guard,
            "ensemble": trained.ensemble.as_ref().map(|e| json!({
                "layers": e.layers,
                "trainable": e.trainable,
                "guard": e.guard,
            })),
            "seconds": trained.seconds,
        });
        out(&result.to_string());
        return;
    }
    let console = context.console;
    let hold_out = match (&state.best, state.zero_shot_hold_out) {
        (Some(best), Some(before)) => {
            format!(
                ", hold-out AUROC {:.4} (zero-shot {before:.4})",
                best.metric
            )
        }
        _ => String::new(),
    };
    console.note(&format!(
        "{} epochs in {:.1} s; kept epoch {kept}{hold_out}",
        state.epochs_done, trained.seconds
    ));
    if let Some(levels) = &trained.levels {
        let types: Vec<String> = levels
            .levels
            .iter()
            .map(|l| format!("{} ({} prompts)", l.name, l.count()))
            .collect();
        console.note(&format!(
            "types: {}; {} numbers",
            types.join(", "),
            levels.count()
        ));
    }
    if args.learn_scaling != Scaling::Fixed {
        let scales: Vec<String> = LearnedScale::all(state.kept())
            .iter()
            .map(ToString::to_string)
            .collect();
        console.note(&format!("scales: {}", scales.join("; ")));
    }
    if let Some(guard) = &trained.guard {
        console.note(&format!("prompts: {}", verdict(guard)));
    }
    if let Some(ensemble) = &trained.ensemble {
        let guard = &ensemble.guard;
        let found = match (guard.zero_shot, guard.adapted) {
            (Some(before), Some(after)) => format!(
                "left-out shots ranked above {:.1} % of left-out normals, {:.1} % without the shots{}",
                100.0 * after,
                100.0 * before,
                if guard.fallback {
                    ": falls back to zero-shot"
                } else {
                    ""
                }
            ),
            _ => "too few shots to cross-validate".to_owned(),
        };
        console.note(&format!(
            "ensemble: {} trained numbers; {found}",
            ensemble.trainable
        ));
    }
    out(&trained.checkpoint.display().to_string());
    console.note(&format!(
        "next: flawtune evaluate{} --checkpoint {}",
        request::data_line(&args.data),
        trained.checkpoint.display()
    ));
}
