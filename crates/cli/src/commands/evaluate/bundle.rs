//! `flawtune evaluate --bundle`

use std::path::Path;

use flawtune::evaluate::statistics::{BootstrapOptions, Rate};
use flawtune::workflow::{BundleEvaluateRequest, BundleEvaluation, PixelResult, evaluate_bundle};
use flawtune_lab::workflow::checkpoint_tokens;

use crate::Context;
use crate::args::EvaluateArgs;
use crate::commands::request;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::progress::Display;
use crate::recording::{Recording, outcome};

pub(super) fn run(args: &EvaluateArgs, bundle: &Path, context: Context) -> Result<(), Failure> {
    let request = BundleEvaluateRequest {
        data: request::data(&args.data, None, args.batch_size as usize)?,
        bundle: bundle.to_owned(),
        weights: args.backbone.weights.clone(),
        opener: Some(checkpoint_tokens),
        aupro_limit: args.aupro_limit,
        bootstrap: BootstrapOptions {
            replicates: args.bootstrap as usize,
            ..BootstrapOptions::default()
        },
        output_dir: args.output_dir.clone(),
    };
    let recording = Recording::start(context, &args.output_dir, None, Vec::new());
    let mut display = Display::new(context.console);
    let result = evaluate_bundle(&request, &mut |event| {
        recording.hear(&event);
        display.show(event);
    });
    display.finish();
    recording.end(outcome(&result));
    let (found, path) = result.map_err(|e| Failure::from_error(&e))?;
    if context.json {
        return out_json(&found);
    }
    table(&found);
    context
        .console
        .note(&format!("written to {}", path.display()));
    Ok(())
}

fn table(found: &BundleEvaluation) {
    let number = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let pixels = |p: &Option<PixelResult>| {
        let of = |f: fn(&PixelResult) -> Option<f64>| number(p.as_ref().and_then(f));
        [
            of(|p| p.metrics.auroc),
            of(|p| Some(p.metrics.average_precision)),
            of(|p| p.metrics.aupro),
            of(|p| Some(p.metrics.f1_max)),
        ]
    };
    let percent = |r: &Option<Rate>| {
        r.map_or_else(|| "–".to_owned(), |r| format!("{:.1} %", 100.0 * r.share))
    };
    let row = |name: &str, images: &str, auroc: &str, at: &str, pixels: [String; 4]| {
        let [a, b, c, d] = pixels;
        out(&format!(
            "{name:<20}{images:>8}{auroc:>9}{at:>9}{a:>13}{b:>10}{c:>9}{d:>10}"
        ));
    };
    let head = ["pixel AUROC", "pixel AP", "AUPRO", "pixel F1"].map(str::to_owned);
    row("", "images", "AUROC", "found", head);
    for (name, t) in &found.per_defect_type {
        row(
            name,
            &t.images.to_string(),
            &number(t.auroc),
            &percent(&t.found),
            pixels(&t.pixels),
        );
    }
    let images = found.test_defects.to_string();
    row(
        "all defects",
        &images,
        &number(found.auroc),
        &percent(&found.found),
        pixels(&found.pixels),
    );
    let interval = found
        .auroc_interval
        .as_ref()
        .map_or_else(String::new, |i| format!(" [{:.4}, {:.4}]", i.low, i.high));
    out(&format!(
        "{}: {}, AUROC {}{interval}, average precision {:.4}, best F1 {}",
        found.category,
        found.scorer,
        number(found.auroc),
        found.average_precision,
        number(found.f1_max)
    ));
    if let Some(r) = &found.false_alarms {
        out(&format!(
            "threshold {:.4}: {} of {} good images are false alarms, {:.1} % [{:.1}, {:.1}]",
            found.threshold,
            r.count,
            r.of,
            100.0 * r.share,
            100.0 * r.low,
            100.0 * r.high
        ));
    }
    out(&format!(
        "protocol {}, seed {}, {} support images, {} patches, tested on {} normal and {} defective images",
        found.protocol,
        found.seed,
        found.support_images,
        found.bank_patches,
        found.test_normals,
        found.test_defects
    ));
    if let Some(index) = &found.index {
        out(&format!("index: {}", index.text()));
    }
    if let Some(p) = found.pixels.as_ref().filter(|p| p.unmasked_images > 0) {
        out(&format!(
            "{} defects have no mask and are left out of the pixel metrics",
            p.unmasked_images
        ));
    }
    if found.leaky {
        out(
            "leaky: training images are among the tested; for comparison with the original recipe only",
        );
    }
}
