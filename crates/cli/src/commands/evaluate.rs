//! `flawtune evaluate`

mod bundle;

use std::path::PathBuf;

use flawtune::bundle::Bundle;
use flawtune::workflow::{CategoryOptions, WorkflowError};
use flawtune_lab::workflow::{
    EvaluateRequest, FrozenScores, Supervised, SupervisedOptions, evaluate,
};

use super::request;
use crate::Context;
use crate::args::EvaluateArgs;
use crate::console::out;
use crate::failure::Failure;
use crate::progress::Display;
use crate::recording::{Recording, json_with_intake, outcome};

/// The scorers named, each once, in their own order.
fn scorers(names: &[String]) -> Result<Vec<Supervised>, Failure> {
    let mut found = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => found.extend(Supervised::ALL),
            name => found.push(name.parse().map_err(|e| {
                Failure::Input(format!("--scorers: {name:?} is not a scorer; {e}, all"))
            })?),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The images, without a cache: of the category that a detector was fitted to, where no other is named and the root holds it.
pub(super) fn data(args: &EvaluateArgs) -> Result<CategoryOptions, Failure> {
    let source = &args.data.source;
    let mut category = args.data.category.clone();
    let detector = args.bundle.as_ref().or(args.file.as_ref());
    let detector = detector.filter(|f| Bundle::is_one(f));
    if let (None, None, None, Some(file)) = (&category, &source.good, &source.list, detector) {
        let fitted = Bundle::read(file);
        let fitted = fitted.map_err(|e| Failure::from_error(&WorkflowError::from(e)))?;
        let name = fitted.header.category;
        category = source.root_dir.join(&name).is_dir().then_some(name);
    }
    request::data_of(source, category.as_deref(), None, args.batch_size as usize)
}

/// What the arguments ask for, of a checkpoint.
pub(super) fn request_of(
    args: &EvaluateArgs,
    checkpoint: PathBuf,
    context: Context,
) -> Result<EvaluateRequest, Failure> {
    let cache = request::cache(&args.cache, context.console);
    Ok(EvaluateRequest {
        data: request::data_of(
            &args.data.source,
            args.data.category.as_deref(),
            cache,
            args.batch_size as usize,
        )?,
        checkpoint,
        backbone: args.backbone.clone(),
        // the type of the hard protocol is the checkpoint's
        protocol: args
            .protocol
            .map(|p| p.of_type(None))
            .transpose()
            .map_err(|e| Failure::from_error(&e))?,
        k_neighbors: args.k_neighbors as usize,
        max_false_alarm: args.max_false_alarm,
        bootstrap: args.bootstrap,
        supervised: SupervisedOptions {
            scorers: scorers(&args.scorers)?,
            masks: args.shot_masks,
        },
        guard: !args.no_guard,
        frozen: FrozenScores::default(),
        output_dir: args.output_dir.clone(),
        overwrite: args.force,
    })
}

pub(crate) fn run(args: &EvaluateArgs, context: Context) -> Result<(), Failure> {
    let file = args.file.as_ref();
    if let Some(detector) = args.bundle.as_ref().or(file.filter(|f| Bundle::is_one(f))) {
        return bundle::run(args, detector, context);
    }
    let Some(checkpoint) = args.checkpoint.clone().or_else(|| file.cloned()) else {
        return Err(Failure::Input(
            "name a detector of 'flawtune fit' or a checkpoint of 'flawtune train'".into(),
        ));
    };
    if args.maps.is_some() {
        return Err(Failure::Input(format!(
            "{}: --maps is for a detector of 'flawtune fit', and this is a checkpoint\nhint: fit a detector with --checkpoint, or \
             draw with 'flawtune visualize'",
            checkpoint.display()
        )));
    }
    let request = request_of(args, checkpoint, context)?;
    let _lock = request::lock(&args.output_dir, &request.data.category)?;
    let recording = Recording::start(context, &args.output_dir, None, Vec::new());
    let mut display = Display::new(context.console);
    let result = evaluate(&request, &mut |event| {
        recording.hear(&event);
        display.show(event);
    });
    display.finish();
    recording.end(outcome(&result));
    let evaluated = result.map_err(|e| Failure::from_error(&e))?;
    let evaluation = &evaluated.evaluation;
    if context.json {
        out(&json_with_intake(evaluation)?);
        return Ok(());
    }
    if evaluation.ensemble.is_some() {
        out("Prompts (image pairs):");
    }
    out(evaluation.comparison.table().trim_end());
    if let Some(ensemble) = &evaluation.ensemble {
        let blocks: Vec<String> = ensemble.layers.iter().map(i32::to_string).collect();
        out(&format!(
            "\nEnsemble (block {}, {} trained numbers):",
            blocks.join(", "),
            ensemble.trainable
        ));
        out(ensemble.comparison.table().trim_end());
        for head in &ensemble.supervised {
            let masks = match head.masked_shots {
                0 => String::new(),
                n => format!(", {n} shots with masks"),
            };
            out(&format!(
                "\n{} ({} trained numbers{masks}) against the patch bank, top 1 %:",
                head.scorer, head.trainable
            ));
            out(head.comparison.table().trim_end());
        }
    }
    if let Some(levels) = &evaluation.hierarchy {
        out(
            "\nEach image at the level of its type (patch bank, top 1 %) against the shared prompts:",
        );
        out(levels.against_flat.table().trim_end());
        out(&format!("\n{}", levels.table()));
    }
    if let Some(adapted) = &evaluation.adapted_tokens {
        out("\nPatch bank, top 1 %, on adapted tokens against frozen ones of the same block:");
        out(adapted.bank.table().trim_end());
        out("\nEnsemble fitted to adapted tokens against the patch bank of the frozen ones:");
        out(adapted.ensemble.table().trim_end());
        out("\nEnsemble fitted to frozen tokens of that block against the same:");
        out(adapted.frozen_ensemble.table().trim_end());
    }
    if let Some(seen) = &evaluation.seen_type {
        let number =
            |v: Option<f64>| v.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
        out(&format!(
            "learned type {} ({} images outside the pool): AUROC adapted {}, zero-shot {}; the table above is on \
             unseen types",
            seen.defect_type,
            seen.images,
            number(seen.prompt_tuned_auroc),
            number(seen.zero_shot_auroc)
        ));
    }
    if evaluation.leaky {
        out(
            "leaky: training images are among the tested; for comparison with the original recipe only",
        );
    }
    context
        .console
        .note(&format!("written to {}", evaluated.path.display()));
    Ok(())
}
