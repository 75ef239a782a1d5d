//! `flawtune visualize`

use std::path::Path;

use flawtune::dataset;
use flawtune::workflow::CategoryOptions;
use flawtune_lab::adapt::Checkpoint;
use flawtune_lab::workflow::{Visualization, VisualizeRequest, visualize};

use super::predict::expand;
use super::request;
use crate::Context;
use crate::args::VisualizeArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;

pub(crate) fn run(args: &VisualizeArgs, context: Context) -> Result<(), Failure> {
    let mut images = Vec::new();
    for input in &args.images {
        expand(input, &mut images)?;
    }
    let trained_on = Checkpoint::read(&args.checkpoint)
        .map_err(|e| Failure::from_error(&e))?
        .category;
    let beside = || {
        args.checkpoint
            .parent()
            .unwrap_or(Path::new(""))
            .join("visualize")
    };
    let request = VisualizeRequest {
        data: data(args, &trained_on, context)?,
        checkpoint: args.checkpoint.clone(),
        images,
        backbone: args.backbone.clone(),
        block: args.block,
        prompts: args.prompts as usize,
        max_images: args.max_images as usize,
        output_dir: args.output_dir.clone().unwrap_or_else(beside),
    };
    let mut display = Display::new(context.console);
    interrupt::pictures_start();
    let result = visualize(&request, interrupt::cancel(), &mut |event| {
        display.show(event);
    });
    display.finish();
    let done = result.map_err(|e| Failure::from_error(&e))?;
    if context.json {
        out_json(&done.found)?;
    } else {
        out(table(&done.found).trim_end());
    }
    if done.interrupted {
        return Err(Failure::Interrupted(format!(
            "{} images were looked at and are in {}",
            done.found.images.len(),
            request.output_dir.display()
        )));
    }
    context.console.note(&format!(
        "{} files written to {}",
        done.files.len(),
        request.output_dir.display()
    ));
    Ok(())
}

/// The support images: under the root that holds the categories, or wherever else they were said to be.
fn data(
    args: &VisualizeArgs,
    trained_on: &str,
    context: Context,
) -> Result<CategoryOptions, Failure> {
    let from_root = args.source.good.is_none() && args.source.list.is_none();
    let root_is_one = from_root && dataset::is_category(&args.source.root_dir);
    let named = args
        .category
        .as_deref()
        .or((!root_is_one).then_some(trained_on));
    let cache = request::cache(&args.cache, context.console);
    let data = request::data_of(&args.source, named, cache, args.batch_size as usize)?;
    Ok(CategoryOptions {
        needs_test: false,
        ..data
    })
}

/// One line an image.
fn table(found: &Visualization) -> String {
    let mut lines = vec![format!("{:>8} {:>8}  panel", "before", "after")];
    for image in &found.images {
        let (before, after) = (image.before.score, image.after.score);
        lines.push(format!(
            "{before:>8.4} {after:>8.4}  {}",
            image.panel.display()
        ));
    }
    lines.join("\n")
}
