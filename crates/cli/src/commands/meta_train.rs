//! `flawtune meta-train`

use flawtune::workflow::{BackboneOptions, Event};
use flawtune_backbone::torch_file::Value;
use flawtune_lab::adapt::AdaptationOptions;
use flawtune_lab::adapt::meta::{IterationReport, MetaOptions};
use flawtune_lab::workflow::{META_TRAINING, MetaRequest, MetaTrained, meta_train};
use serde_json::json;

use super::request;
use crate::Context;
use crate::args::MetaArgs;
use crate::console::out;
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;

pub(crate) fn run(args: &MetaArgs, context: Context) -> Result<(), Failure> {
    let request = request_of(args, context)?;
    let mut display = Display::new(context.console);
    let console = context.console;
    let tell = &mut |report: &IterationReport| {
        // a line for every tenth keeps a log readable
        if report.iteration == 1
            || report.iteration.is_multiple_of(10)
            || report.iteration == report.iterations
        {
            console.note(&format!(
                "iteration {:>4}/{}  query loss {:.4} before, {:.4} after the inner steps",
                report.iteration, report.iterations, report.before, report.after
            ));
        }
    };
    let on_event = &mut |event: Event<'_>| {
        // before, an interrupt loses nothing: features are in the cache
        if matches!(event, Event::PartBegins(META_TRAINING)) {
            interrupt::training_starts();
        }
        display.show(event);
    };
    let result = meta_train(&request, interrupt::cancel(), on_event, tell);
    display.finish();
    let trained = result.map_err(|e| Failure::from_error(&e))?;
    if trained.outcome.interrupted {
        return Err(Failure::Interrupted(format!(
            "the start after {} iterations is kept in {}",
            trained.outcome.history.len(),
            trained.path.display()
        )));
    }
    report(&trained, context);
    Ok(())
}

fn request_of(args: &MetaArgs, context: Context) -> Result<MetaRequest, Failure> {
    let batch_size = args.batch_size as usize;
    let data = request::each_category(
        &args.source,
        &args.categories,
        &args.cache,
        context.console,
        batch_size,
    )?;
    let names: Vec<&str> = data.iter().map(|d| d.category.as_str()).collect();
    let categories = names.join(",");
    let recorded = |name: &str, value: Value| (name.to_owned(), value);
    Ok(MetaRequest {
        data,
        backbone: args.backbone.over(BackboneOptions::default()),
        seeds: (args.seed..args.seed + u64::from(args.tasks_seeds)).collect(),
        shots: args.shots.iter().map(|&s| s as usize).collect(),
        pool: args.pool_size.map(|p| p as usize),
        adaptation: AdaptationOptions {
            modulation: args.modulation_type,
            num_prompts: args.num_prompts as usize,
            scaling_factor: args.scaling_factor as f32,
            use_cls: args.use_cls,
            seed: args.seed,
            ..AdaptationOptions::default()
        },
        options: MetaOptions {
            method: args.method,
            iterations: args.iterations as usize,
            tasks_per_iteration: args.tasks_per_iteration as usize,
            inner_steps: args.inner_steps as usize,
            inner_rate: args.inner_rate,
            outer_rate: args
                .outer_rate
                .unwrap_or_else(|| MetaOptions::default_outer_rate(args.method)),
            batch_size,
            loss: args.loss_type.with_margin(args.margin),
            seed: args.seed,
        },
        output: args.output.clone(),
        args: vec![
            recorded("categories", Value::Str(categories)),
            recorded("method", Value::from(args.method.name())),
            recorded("loss_type", Value::from(args.loss_type.name())),
            recorded(
                "flawtune_version",
                Value::Str(env!("CARGO_PKG_VERSION").into()),
            ),
        ],
    })
}

fn report(trained: &MetaTrained, context: Context) {
    let last = trained.outcome.history.last();
    if context.json {
        let result = json!({
            "checkpoint": trained.path,
            "tasks": trained.tasks,
            "trainable": trained.trainable.iter().map(|(_, n)| n).sum::<usize>(),
            "iterations": trained.outcome.history.len(),
            "query_loss_before": last.map(|r| r.before),
            "query_loss_after": last.map(|r| r.after),
            "seconds": trained.outcome.seconds,
        });
        out(&result.to_string());
        return;
    }
    context.console.note(&format!(
        "{} iterations over {} tasks in {:.1} s",
        trained.outcome.history.len(),
        trained.tasks.len(),
        trained.outcome.seconds
    ));
    out(&trained.path.display().to_string());
    context.console.note(&format!(
        "next: flawtune train --category OTHER --init {}, with the same backbone, prompts and modulation",
        trained.path.display()
    ));
}
