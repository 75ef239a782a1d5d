//! `flawtune baseline`

use flawtune::workflow::BackboneOptions;
use flawtune_lab::workflow::{BaselineRequest, baseline};

use super::{in_force, request};
use crate::Context;
use crate::args::BaselineArgs;
use crate::console::out;
use crate::failure::Failure;
use crate::progress::Display;
use crate::recording::{Recording, json_with_intake, outcome};

pub(crate) fn run(args: &BaselineArgs, context: Context) -> Result<(), Failure> {
    let protocol = args.protocol.of_type(args.defect_type.as_deref());
    let protocol = protocol.map_err(|e| Failure::from_error(&e))?;
    let cache = request::cache(&args.cache, context.console);
    let request = BaselineRequest {
        data: request::data(&args.data, cache, args.batch_size as usize)?,
        backbone: args.backbone.over(BackboneOptions::default()),
        split: request::split(protocol, args.seed, 0, args.pool_size),
        k_neighbors: args.k_neighbors as usize,
        bootstrap: args.bootstrap,
        output_dir: args.output_dir.clone(),
    };
    let _lock = request::lock(&args.output_dir, &request.data.category)?;
    let recording = Recording::start(
        context,
        &args.output_dir,
        Some(args.seed),
        in_force::backbone(&request.backbone),
    );
    let mut display = Display::new(context.console);
    let result = baseline(&request, &mut |event| {
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
    out(&format!(
        "{:<24}{:>8}  {:^20}{:>8}",
        "zero-shot scorer", "AUROC", "95 % interval", "AP"
    ));
    for s in &found.scorers {
        let auroc = s
            .auroc
            .map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
        let interval = s
            .auroc_interval
            .as_ref()
            .map_or_else(String::new, |i| format!("[{:.4}, {:.4}]", i.low, i.high));
        out(&format!(
            "{:<24}{auroc:>8}  {interval:^20}{:>8.4}",
            s.scorer, s.average_precision
        ));
    }
    out(&format!(
        "{}: protocol {}, seed {}, {} support images, tested on {} normal and {} defective images",
        found.category,
        found.protocol,
        found.seed,
        found.support_images,
        found.test_normals,
        found.test_defects
    ));
    context
        .console
        .note(&format!("written to {}", path.display()));
    Ok(())
}
