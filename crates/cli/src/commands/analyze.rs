//! `flawtune analyze`

use std::path::PathBuf;

use flawtune_lab::adapt::Checkpoint;
use flawtune_lab::workflow::{AnalyzeRequest, analysis_markdown, analyze, rank, write_analyses};

use super::request;
use crate::Context;
use crate::args::AnalyzeArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::progress::Display;

pub(crate) fn run(args: &AnalyzeArgs, context: Context) -> Result<(), Failure> {
    let failed = |e: &(dyn std::error::Error + 'static)| Failure::from_error(e);
    let mut checkpoints: Vec<(String, PathBuf)> = Vec::new();
    for path in &args.checkpoint {
        let category = Checkpoint::read(path).map_err(|e| failed(&e))?.category;
        if let Some((_, first)) = checkpoints.iter().find(|c| c.0 == category) {
            return Err(Failure::Input(format!(
                "{} and {} are both of {category}\nhint: give one checkpoint a category",
                first.display(),
                path.display()
            )));
        }
        checkpoints.push((category, path.clone()));
    }
    let named: Vec<String> = if args.category.is_empty() {
        checkpoints.iter().map(|c| c.0.clone()).collect()
    } else {
        args.category.clone()
    };
    let categories = request::categories(&args.source, &named)?;
    if let Some((category, path)) = checkpoints.iter().find(|c| !categories.contains(&c.0)) {
        return Err(Failure::Input(format!(
            "{} is of {category}, which is not analysed\nhint: name it with --category too, or omit the checkpoint",
            path.display()
        )));
    }
    if categories.is_empty() {
        return Err(Failure::Input(format!(
            "{}: no category under it; --root-dir names the folder that holds them",
            args.source.root_dir.display()
        )));
    }
    let mut display = Display::new(context.console);
    let mut analyses = Vec::new();
    for category in &categories {
        let cache = request::cache(&args.cache, context.console);
        let from_root = args.source.good.is_none() && args.source.list.is_none();
        let name = (from_root || !named.is_empty()).then_some(category.as_str());
        let request = AnalyzeRequest {
            data: request::data_of(&args.source, name, cache, args.batch_size as usize)?,
            backbone: args.backbone.clone(),
            checkpoint: checkpoints
                .iter()
                .find(|c| c.0 == *category)
                .map(|c| c.1.clone()),
            use_cls: args.use_cls,
            max_images: args.max_images as usize,
            seed: args.seed,
        };
        let result = analyze(&request, &mut |event| display.show(event));
        display.finish();
        analyses.push(result.map_err(|e| failed(&e))?);
    }
    rank(&mut analyses);
    let written = write_analyses(&args.output_dir, &analyses).map_err(|e| failed(&e))?;
    if context.json {
        return out_json(&analyses);
    }
    out(analysis_markdown(&analyses).trim_end());
    context.console.note(&format!(
        "{} files written to {}",
        written.len(),
        args.output_dir.display()
    ));
    Ok(())
}
