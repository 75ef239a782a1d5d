//! `flawtune fit`

use std::path::Path;

use flawtune::features::FeatureCache;
use flawtune::image_size::ImageSize;
use flawtune::score::threshold::{Rule, trade_offs};
use flawtune::workflow::{
    BackboneOverrides, CategoryOptions, Event, FitOptions, FitRequest, Fitted, fit,
};
use flawtune_lab::workflow::fit_checkpoint;
use serde_json::json;

use super::{in_force, request};
use crate::Context;
use crate::args::FitArgs;
use crate::console::{bytes, out};
use crate::failure::Failure;
use crate::progress::{Display, thousands};
use crate::recording::{Recording, json_with_intake, outcome};

pub(crate) fn run(args: &FitArgs, context: Context) -> Result<(), Failure> {
    let cache = request::cache(&args.cache, context.console);
    let request = FitRequest {
        data: data(args, cache)?,
        backbone: backbone(args),
        output: args.output.clone(),
        options: FitOptions {
            search: args.options.search.filter(|_| !args.no_search),
            ..args.options.clone()
        },
    };
    let name = args.output.file_name().unwrap_or_default();
    let _lock = request::lock(folder_of(&args.output), &name.to_string_lossy())?;
    let recording = Recording::start(
        context,
        folder_of(&args.output),
        Some(args.options.seed),
        in_force::fit(args),
    );
    let mut display = Display::new(context.console);
    let mut on_event = |event: Event<'_>| {
        recording.hear(&event);
        display.show(event);
    };
    let result = match &args.checkpoint {
        Some(checkpoint) => fit_checkpoint(checkpoint, &request, &mut on_event),
        None => fit(&request, &mut on_event),
    };
    display.finish();
    if let Ok(fitted) = &result {
        recording.came_to(in_force::fitted(args, fitted));
    }
    recording.end(outcome(&result));
    let fitted = result.map_err(|e| Failure::from_error(&e))?;
    report(&fitted, &request, context)
}

/// The images, without those that are left out.
pub(super) fn data(
    args: &FitArgs,
    cache: Option<FeatureCache>,
) -> Result<CategoryOptions, Failure> {
    Ok(CategoryOptions {
        needs_test: false,
        exclude: excluded(args)?,
        ..request::data(&args.data, cache, args.batch_size as usize)?
    })
}

/// The backbone, whose blocks can be counted from 1.
fn backbone(args: &FitArgs) -> BackboneOverrides {
    let given = args.backbone.clone();
    let blocks = args.blocks.as_ref();
    let from_zero = |blocks: &Vec<u32>| blocks.iter().map(|b| *b as i32 - 1).collect();
    BackboneOverrides {
        layers: given.layers.or_else(|| blocks.map(from_zero)),
        roi: args.roi,
        ..given
    }
}

/// The good images to leave out: those named, and those of a list.
fn excluded(args: &FitArgs) -> Result<Vec<String>, Failure> {
    let mut all = args.exclude.clone();
    if let Some(list) = &args.exclude_from {
        let text = std::fs::read_to_string(list).map_err(|e| {
            Failure::Input(format!(
                "{}: {e}\nhint: --exclude-from names a text file with a path or pattern a line",
                list.display()
            ))
        })?;
        let lines = text.lines().map(str::trim);
        let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(named.map(str::to_owned));
    }
    Ok(all)
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn report(fitted: &Fitted, request: &FitRequest, context: Context) -> Result<(), Failure> {
    let header = &fitted.header;
    if context.json {
        let result = json!({
            "output": request.output,
            "bytes": fitted.bytes,
            "category": header.category,
            "model_name": header.model_name,
            "scorer": header.scorer.name(),
            "support_images": header.support.len(),
            "bank_patches": header.bank.rows,
            "index": header.bank.index,
            "masked": header.patches.mask.is_some(),
            "neighbourhood": header.patches.neighbourhood,
            "rotations": header.bank.rotations,
            "threshold": header.threshold.value,
            "threshold_good_images": header.threshold.good.len(),
            "threshold_defects": header.threshold.defects.len(),
            "shots": header.manifest.shots,
            "blocks": header.blocks(),
            "image_sizes": header.sizes(),
            "oddest": fitted.oddest,
            "oddest_file": fitted.oddest_file,
            "map_threshold": header.map.threshold,
        });
        out(&json_with_intake(&result)?);
        return Ok(());
    }
    let console = context.console;
    let t = &header.threshold;
    let (n, share) = (t.good.len(), |rate: f64| format!("{} %", 100.0 * rate));
    let chosen = match &t.rule {
        Rule::Quantile {
            max_false_alarm,
            reachable,
            ..
        } if max_false_alarm < reachable => format!(
            "above all of {n} good images; so few can promise {:.1} % false alarms, {} were asked for",
            100.0 * reachable,
            share(*max_false_alarm)
        ),
        Rule::Quantile {
            max_false_alarm, ..
        } => {
            format!(
                "{} false alarms by the quantile of {n} good images",
                share(*max_false_alarm)
            )
        }
        Rule::ExtremeValue {
            max_false_alarm, ..
        } => {
            format!(
                "{} false alarms by the tail of {n} good images' scores",
                share(*max_false_alarm)
            )
        }
        Rule::F1Max { f1, .. } => {
            format!(
                "largest F1, {f1:.3}, of {n} good images and {} defects",
                t.defects.len()
            )
        }
        Rule::Given => "as given".to_owned(),
        Rule::RecallAt { recall, .. } => {
            format!(
                "finds {:.1} % of {} defects, {n} good images",
                100.0 * recall,
                t.defects.len()
            )
        }
    };
    console.note(&format!("threshold {:.4}: {chosen}", t.value));
    if let Ok(all) = trade_offs(&t.good, &t.defects)
        && !t.defects.is_empty()
    {
        for line in super::threshold::table(header, &all) {
            console.note(&line);
        }
    }
    if header.patches.mask.is_some() {
        console.note("the background is cut away: flaws there are not seen");
    }
    if let Some(file) = &fitted.oddest_file {
        console.note(&format!("{} shows the oddest good images", file.display()));
    }
    out(&request.output.display().to_string());
    console.note(&summary(fitted));
    console.note(&format!(
        "next: flawtune predict {} IMAGES",
        request.output.display()
    ));
    Ok(())
}

/// What is in the file, in a line.
fn summary(fitted: &Fitted) -> String {
    let header = &fitted.header;
    let blocks = match header.blocks().as_slice() {
        [] | [_] => String::new(),
        several => format!(" in each of blocks {}", join(several)),
    };
    let sizes = match header.sizes().as_slice() {
        [] | [_] => String::new(),
        several => format!(" at {} px", ImageSize::join(several, " and ")),
    };
    let shots = match header.manifest.shots {
        0 => String::new(),
        n => format!(", {n} defects learned from"),
    };
    format!(
        "{}, {}: {} of {} good images{shots}{sizes}, {} patches{blocks}",
        bytes(fitted.bytes),
        header.scorer.name(),
        header.category,
        header.support.len(),
        thousands(header.bank.rows)
    )
}

/// `5, 7, 9`.
fn join(numbers: &[impl ToString]) -> String {
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
