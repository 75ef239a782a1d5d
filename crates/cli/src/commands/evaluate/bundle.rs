//! `flawtune evaluate` of a detector

use std::path::Path;

use flawtune::evaluate::rows::PixelMetrics;
use flawtune::evaluate::statistics::{Interval, Rate};
use flawtune::workflow::{
    BundleEvaluateRequest, DetectorEvaluation, OnTested, Tested, evaluate_bundle, writable_or,
};
use flawtune_lab::workflow::checkpoint_tokens;

use crate::Context;
use crate::args::{EvaluateArgs, MapFormatArg};
use crate::commands::maps::Maps;
use crate::commands::request;
use crate::console::out;
use crate::failure::Failure;
use crate::progress::Display;
use crate::recording::{Recording, json_with_intake, outcome};

pub(super) fn run(args: &EvaluateArgs, bundle: &Path, context: Context) -> Result<(), Failure> {
    let request = BundleEvaluateRequest {
        data: super::data(args)?,
        bundle: bundle.to_owned(),
        weights: args.backbone.weights.clone(),
        opener: Some(checkpoint_tokens),
        aupro_limit: args.aupro_limit,
        bootstrap: args.bootstrap,
        output_dir: args.output_dir.clone(),
        overwrite: args.force,
    };
    if let Some(folder) = &args.maps {
        writable_or(folder, "choose a folder that can be written with --maps")
            .map_err(|e| Failure::from_error(&e))?;
    }
    let _lock = request::lock(&args.output_dir, &request.data.category)?;
    let recording = Recording::start(context, &args.output_dir, None, Vec::new());
    let mut display = Display::new(context.console);
    let mut write = args.maps.as_deref().map(|folder| {
        move |tested: Tested<'_>| {
            let maps = Maps {
                folder,
                format: MapFormatArg::Tiff,
                scale: tested.scale,
                root: None,
            };
            maps.write_as(Path::new(tested.id), tested.predicted)
        }
    });
    let on_tested = write.as_mut().map(|write| write as OnTested<'_>);
    let result = evaluate_bundle(&request, on_tested, &mut |event| {
        recording.hear(&event);
        display.show(event);
    });
    display.finish();
    recording.end(outcome(&result));
    let (found, path) = result.map_err(|e| Failure::from_error(&e))?;
    if context.json {
        out(&json_with_intake(&found)?);
        return Ok(());
    }
    table(&found);
    context
        .console
        .note(&format!("written to {}", path.display()));
    Ok(())
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

fn percent(rate: Option<&Rate>) -> String {
    rate.map_or_else(|| "–".to_owned(), |r| format!("{:.1} %", 100.0 * r.share))
}

fn line(
    name: &str,
    images: usize,
    auroc: Option<f64>,
    found: Option<&Rate>,
    pixels: Option<&PixelMetrics>,
) {
    let of = |f: fn(&PixelMetrics) -> Option<f64>| number(pixels.and_then(f));
    out(&format!(
        "{name:<24}{images:>8}{:>9}{:>9}{:>13}{:>10}{:>9}{:>10}",
        number(auroc),
        percent(found),
        of(|p| p.metrics.auroc),
        of(|p| Some(p.metrics.average_precision)),
        of(|p| p.metrics.aupro),
        of(|p| Some(p.metrics.f1_max)),
    ));
}

/// Which type was named for the defects that were found, a line for each that they are of.
fn named_types(found: &DetectorEvaluation) {
    if found.kinds.is_empty() {
        return;
    }
    out("types named of the defects that were found:");
    for (is, named) in &found.kinds {
        let named: Vec<String> = named
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        out(&format!("  {is:<22}{}", named.join(", ")));
    }
}

fn table(found: &DetectorEvaluation) {
    let (split, shipped) = (&found.evaluation.split, found.shipped());
    out(&format!(
        "{:<24}{:>8}{:>9}{:>9}{:>13}{:>10}{:>9}{:>10}",
        "", "defects", "AUROC", "found", "pixel AUROC", "pixel AP", "AUPRO", "pixel F1"
    ));
    for row in &found.evaluation.rows {
        let name = match (row.taught, split.shots) {
            (true, 0) => format!("{}, taught", row.scorer),
            (true, shots) => format!("{}, {shots} shots", row.scorer),
            (false, _) => format!("{}, good images only", row.scorer),
        };
        let metrics = &row.metrics;
        line(
            &name,
            split.defects,
            metrics.auroc,
            metrics.found.as_ref(),
            row.pixels.as_ref(),
        );
    }
    for (name, t) in &shipped.by_type {
        line(
            &format!("  {name}"),
            t.images,
            t.auroc,
            t.found.as_ref(),
            t.pixels.as_ref(),
        );
    }
    let interval = |i: Option<&Interval>| {
        i.map_or_else(String::new, |i| format!(" [{:.4}, {:.4}]", i.low, i.high))
    };
    let metrics = &shipped.metrics;
    out(&format!(
        "{}: AUROC {}{}, average precision {:.4}, best F1 {}",
        found.evaluation.category,
        number(metrics.auroc),
        interval(metrics.auroc_interval.as_ref()),
        metrics.average_precision,
        number(shipped.f1_max)
    ));
    if let (Some(d), Some(against)) = (&shipped.difference, &shipped.against) {
        let interval = d.auroc_interval.as_ref();
        out(&format!(
            "AUROC gained over the {against} of good images by what the defects taught: {:+.4}{}",
            d.auroc.unwrap_or(f64::NAN),
            interval.map_or_else(String::new, |i| format!(" [{:+.4}, {:+.4}]", i.low, i.high))
        ));
    }
    if let (Some(r), Some(threshold)) = (&metrics.false_alarms, metrics.threshold) {
        out(&format!(
            "threshold {threshold:.4}: {} of {} good images are false alarms, {:.1} % [{:.1}, {:.1}]",
            r.count,
            r.of,
            100.0 * r.share,
            100.0 * r.low,
            100.0 * r.high
        ));
    }
    out(&format!(
        "protocol {}, seed {}, {} shots, {} support images, {} patches, tested on {} good images and {} defects",
        split.protocol,
        split.seed,
        split.shots,
        found.support_images,
        found.bank_patches,
        split.good,
        split.defects
    ));
    if let Some(index) = &found.index {
        out(&format!("index: {}", index.text()));
    }
    if found.unlike != [0, 0] {
        out(&format!(
            "{} good images and {} defects as a whole do not look like the good images of the fit",
            found.unlike[0], found.unlike[1]
        ));
    }
    named_types(found);
    if let Some(p) = shipped.pixels.as_ref().filter(|p| p.unmasked_images > 0) {
        out(&format!(
            "{} defects have no mask and are left out of the pixel metrics",
            p.unmasked_images
        ));
    }
    if split.leaky {
        out(
            "leaky: training images are among the tested; for comparison with the original recipe only",
        );
    }
}
