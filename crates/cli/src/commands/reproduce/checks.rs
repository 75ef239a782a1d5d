//! Whether a run can still be repeated: the same images, the same weights, the same files.

use std::path::Path;

use flawtune::features::Forward as _;
use flawtune::record::{DataRecord, RunRecord, file_record};
use flawtune::workflow::{
    BackboneOptions, BackboneOverrides, Category, CategoryOptions, Engine, ResizeChoice,
};

use super::{line, title, working_folder};
use crate::args::Command;
use crate::commands::{evaluate, fit, request};
use crate::failure::Failure;
use crate::settings::{self, Refusal};

/// Changed images that are named; of more, their number is said.
const NAMED: usize = 5;

/// What is not as it was recorded. Files that one of the runs `before` writes are made again and not looked at.
pub(super) fn changes(
    run: &RunRecord,
    before: &[&RunRecord],
    folder: &Path,
) -> Result<Vec<String>, Failure> {
    let arguments = {
        let mut line = line::arguments(run, before, folder, Some(folder));
        line.push("--no-config".into());
        line
    };
    let of_record = |text: &str| {
        Failure::Input(format!(
            "{}: its recorded options cannot be used: {}",
            title(run),
            text.trim()
        ))
    };
    let (cli, _) = settings::of_arguments(&arguments).map_err(|refusal| match refusal {
        Refusal::Clap(error) => of_record(&error.to_string().replace("error: ", "")),
        Refusal::Failure(failure) => failure,
    })?;
    // relative paths of the record start where they were typed
    if let Some(folder) = working_folder(run) {
        let failed = |e| Failure::Machine(format!("{}: {e}", folder.display()));
        std::env::set_current_dir(&folder).map_err(failed)?;
    }
    let of = |data| request::data(data, None, 1);
    let (options, backbone, needs_test): (_, &BackboneOverrides, bool) = match &cli.command {
        Command::Train(args) => (of(&args.data)?, &args.backbone, true),
        Command::Evaluate(args) => (evaluate::data(args)?, &args.backbone, true),
        Command::Baseline(args) => (of(&args.data)?, &args.backbone, true),
        Command::Fit(args) => (fit::data(args, None)?, &args.backbone, false),
        _ => return Err(of_record("no such command can be repeated")),
    };
    let mut changes = Vec::new();
    for input in run
        .inputs
        .iter()
        .filter(|input| !line::written_by(input, before))
    {
        let now = file_record(&folder.join(&input.path), folder).ok();
        // the state of an interrupted run is gone once that has been resumed
        let resumed = run.options.get("resume").is_some_and(|o| o.value == true);
        match now {
            None if resumed => {}
            None => changes.push(format!("{} is gone", input.path)),
            Some(now) if now.blake3 != input.blake3 => {
                changes.push(format!("{} changed", input.path));
            }
            Some(_) => {}
        }
    }
    if let Some(recorded) = &run.data {
        let options = CategoryOptions {
            needs_test,
            ..options
        };
        let category =
            Category::open(&options, &mut |_| {}).map_err(|e| Failure::from_error(&e))?;
        let now = DataRecord::of(&category);
        let pictures = recorded.differences(&now);
        if recorded.hash != now.hash || !pictures.is_empty() {
            let more = pictures.len().saturating_sub(NAMED);
            let mut text = match pictures.len() {
                0 => format!(
                    "the images are not those of the record ({} became {})",
                    recorded.hash, now.hash
                ),
                n => format!(
                    "{n} images are not those of the record: {}",
                    pictures[..n.min(NAMED)].join(", ")
                ),
            };
            if more > 0 {
                text.push_str(" and ");
                text.push_str(&more.to_string());
                text.push_str(" more");
            }
            changes.push(text);
        }
    }
    if let Some(recorded) = &run.weights {
        let found = BackboneOptions {
            model_name: backbone
                .weights
                .is_none()
                .then(|| recorded.model_name.clone()),
            weights: recorded.path.clone().filter(|p| p.exists()),
            ..BackboneOptions::default()
        };
        // whatever shape images are given, the weights are the same
        let options = BackboneOptions {
            resize: ResizeChoice::Squash,
            ..backbone.over(found)
        };
        let engine = Engine::open(options, &mut |_| {}).map_err(|e| Failure::from_error(&e))?;
        if engine.weights_hash() != recorded.hash {
            changes.push(format!(
                "the weights are not those of the record: {} became {} ({})",
                recorded.hash,
                engine.weights_hash(),
                engine
                    .path()
                    .map_or_else(|| engine.config().name.clone(), |p| p.display().to_string())
            ));
        }
    }
    Ok(changes)
}
