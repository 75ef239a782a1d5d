//! `flawtune train`

use std::path::Path;

use flawtune::evaluate::protocol::Protocol;
use flawtune::record::Outcome;
use flawtune::workflow::{BackboneOptions, Event, OnEvent, WorkflowError};
use flawtune_backbone::vjp::Scaling;
use flawtune_lab::adapt::guard::{Evidence, PromptGuard};
use flawtune_lab::adapt::{LearnedScale, TrainState};
use flawtune_lab::workflow::{TrainRequest, Trained, train};
use serde_json::json;

use super::tensorboard::Curves;
use super::{in_force, request, universal};
use crate::Context;
use crate::args::TrainArgs;
use crate::console::{out, warn};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;
use crate::recording::{InForce, Recording, outcome};

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
    let _lock = request::lock(&args.options.output_dir, label)?;
    let recording = Recording::start(
        context,
        &args.options.output_dir,
        Some(args.options.seed),
        in_force,
    );
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
    let cache = request::cache(&args.cache, context.console);
    let data = request::data(&args.data, cache, args.options.batch_size)?;
    let backbone = args.backbone.over(BackboneOptions::default());
    let request = args.options.request(data, backbone);
    request.map_err(|e| Failure::from_error(&e))
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
    if args.options.learn_scaling != Scaling::Fixed {
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
