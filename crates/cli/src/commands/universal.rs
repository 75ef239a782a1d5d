//! `flawtune train --universal`: one set of prompts for several categories.

use std::path::PathBuf;

use flawtune::evaluate::protocol::Protocol;
use flawtune::workflow::CategoryOptions;
use flawtune_lab::adapt::LearnedScale;
use flawtune_lab::adapt::universal::Merge;
use flawtune_lab::workflow::{
    MergeRequest, TrainRequest, Trained, UNIVERSAL, UniversalRequest, UniversalTrained, merge,
    train, train_universal,
};
use serde_json::json;

use super::train::{interrupted, recorded, verdict};
use super::{in_force, merge as merging, request};
use crate::Context;
use crate::args::{TrainArgs, UniversalArg};
use crate::console::out;
use crate::failure::Failure;
use crate::interrupt;

/// Trains on all categories of `args`; `plain` is the request of the same arguments for one of them.
pub(super) fn run(
    how: UniversalArg,
    plain: TrainRequest,
    args: &TrainArgs,
    context: Context,
) -> Result<(), Failure> {
    refuse(args, &plain)?;
    let named: Vec<String> = args
        .data
        .category
        .iter()
        .flat_map(|list| list.split(','))
        .map(|c| c.trim().to_owned())
        .collect();
    let (batch_size, console) = (args.options.batch_size, context.console);
    let data = request::each_category(&args.data.source, &named, &args.cache, console, batch_size)?;
    match how {
        UniversalArg::Joint => joint(data, plain, args, context),
        UniversalArg::Average => average(data, &plain, args, context),
    }
}

/// What makes no sense, or is not built, for several categories.
fn refuse(args: &TrainArgs, plain: &TrainRequest) -> Result<(), Failure> {
    let wrong = [
        (
            plain.inside.is_some(),
            "prompts and adapters inside the transformer",
            "--prompt-depth and --use-adapters",
        ),
        (
            plain.type_prompts.is_some(),
            "prompts for each defect type",
            "--hierarchy",
        ),
        (plain.init.is_some(), "from given first values", "--init"),
        (
            plain.shot_masks,
            "by masks of the shots",
            "--shot-masks auto",
        ),
        (
            plain.guard_folds > 0,
            "a cross-validation over the shots",
            "--guard-folds",
        ),
        (
            !plain.augment_defects.is_empty(),
            "augmented shots",
            "--augment-defects",
        ),
        (
            args.options.ensemble.ensemble_layers.is_some(),
            "an ensemble",
            "--ensemble-layers",
        ),
        (
            matches!(plain.split.protocol, Protocol::Hard { .. }),
            "one defect type",
            "--protocol hard",
        ),
        (
            args.tensorboard.is_some(),
            "curves for TensorBoard",
            "--tensorboard",
        ),
    ];
    match wrong.into_iter().find(|w| w.0) {
        None => Ok(()),
        Some((_, what, flags)) => Err(Failure::Input(format!(
            "--universal trains no {what}\nhint: omit {flags}, or train the categories one by one"
        ))),
    }
}

fn joint(
    data: Vec<CategoryOptions>,
    plain: TrainRequest,
    args: &TrainArgs,
    context: Context,
) -> Result<(), Failure> {
    let in_force = in_force::train(&plain);
    let request = UniversalRequest {
        data,
        backbone: plain.backbone,
        split: plain.split,
        adaptation: plain.adaptation,
        training: plain.training,
        guard: plain.guard,
        output_dir: plain.output_dir,
        resume: plain.resume,
        args: plain.args,
    };
    let trained = recorded(
        (args, context),
        UNIVERSAL,
        in_force,
        |t: &UniversalTrained| t.interrupted,
        |on_event| train_universal(&request, interrupt::cancel(), on_event),
    )?;
    if trained.interrupted {
        return Err(interrupted(trained.state.epochs_done, &trained.checkpoint));
    }
    report(&trained, context);
    Ok(())
}

fn report(trained: &UniversalTrained, context: Context) {
    let (state, kept) = (&trained.state, trained.state.kept_epoch());
    if context.json {
        let result = json!({
            "categories": trained.categories,
            "checkpoint": trained.checkpoint,
            "trainable": state.kept().count(),
            "epochs_done": state.epochs_done,
            "kept_epoch": kept,
            "scales": LearnedScale::all(state.kept()),
            "hold_out": state.best.as_ref().map(|b| b.metric),
            "hold_out_zero_shot": state.zero_shot_hold_out,
            "guard": trained.guard,
            "seconds": trained.seconds,
        });
        out(&result.to_string());
        return;
    }
    let console = context.console;
    console.note(&format!(
        "{} epochs on {} categories in {:.1} s; kept epoch {kept}",
        state.epochs_done,
        trained.categories.len(),
        trained.seconds
    ));
    if let Some(guard) = &trained.guard {
        console.note(&format!(
            "prompts, mean of the categories: {}",
            verdict(guard)
        ));
    }
    out(&trained.checkpoint.display().to_string());
    next(&trained.checkpoint, context);
}

fn next(checkpoint: &std::path::Path, context: Context) {
    context.console.note(&format!(
        "next: flawtune evaluate --category ANY --checkpoint {}; categories it was not trained on are tested as never seen",
        checkpoint.display()
    ));
}

fn average(
    data: Vec<CategoryOptions>,
    plain: &TrainRequest,
    args: &TrainArgs,
    context: Context,
) -> Result<(), Failure> {
    if data.len() < 2 {
        return Err(Failure::Input(
            "universal prompts are trained on at least two categories\nhint: name them with --categories a,b"
                .into(),
        ));
    }
    let mut checkpoints: Vec<PathBuf> = Vec::new();
    for data in data {
        let category = data.category.clone();
        let done = args
            .options
            .output_dir
            .join(format!("{category}_prompts.pt"));
        let half = args
            .options
            .output_dir
            .join(format!("{category}_resume.pt"))
            .exists();
        if args.options.resume && !half && done.exists() {
            context
                .console
                .note(&format!("{category}: done before, {}", done.display()));
            checkpoints.push(done);
            continue;
        }
        let request = TrainRequest {
            data,
            resume: args.options.resume && half,
            ..plain.clone()
        };
        let in_force = in_force::train(&request);
        let trained = recorded(
            (args, context),
            &category,
            in_force,
            |t: &Trained| t.interrupted,
            |on_event| train(&request, interrupt::cancel(), on_event),
        )?;
        if trained.interrupted {
            let epochs = trained.state.as_ref().map_or(0, |s| s.epochs_done);
            return Err(interrupted(epochs, &trained.checkpoint));
        }
        checkpoints.push(trained.checkpoint);
    }
    let output = args
        .options
        .output_dir
        .join(format!("{UNIVERSAL}_prompts.pt"));
    let merged = merge(
        &MergeRequest {
            checkpoints,
            how: Merge::Mean,
            weights: Vec::new(),
            output,
        },
        &mut |_| {},
    )
    .map_err(|e| Failure::from_error(&e))?;
    if context.json {
        out(&merging::to_json(&merged).to_string());
        return Ok(());
    }
    merging::tell(&merged, context.console);
    out(&merged.path.display().to_string());
    next(&merged.path, context);
    Ok(())
}
