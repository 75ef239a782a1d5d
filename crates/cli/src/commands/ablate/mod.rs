//! `flawtune ablate`

mod line;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use flawtune_lab::ablate::{
    self, Axis, Jobs, Plan, RunRequests, RunResult, RunSpec, Setting, Status, Study, Summary,
    run_key, summarise, write_tables,
};
use flawtune_lab::workflow::{EvaluateRequest, FrozenScores, TrainRequest, extract_all};

use super::{evaluate, in_force, request, train};
use crate::Context;
use crate::args::AblateArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;
use crate::recording;

use line::{Lines, Passed, check_names};

/// Seeds unless told otherwise: the fewest that a claim needs.
const SEEDS: u64 = 3;

pub(crate) fn run(args: &AblateArgs, context: Context) -> Result<(), Failure> {
    let failed = |e: ablate::AblateError| Failure::from_error(&e);
    let plan = args
        .plan
        .as_deref()
        .map_or_else(|| Ok(Plan::default()), Plan::read)
        .map_err(failed)?;
    let passed = Passed::of(context.settings);
    let (axes, set) = settings(args, plan.grid, plan.options, &passed)?;
    let named = if args.category.is_empty() {
        &plan.categories
    } else {
        &args.category
    };
    let categories = request::categories(&args.source, named)?;
    let mut study = Study::new(
        args.output_dir.clone(),
        axes,
        categories,
        seeds(args, plan.seeds),
    )
    .map_err(failed)?;
    let lines = Lines {
        passed: &passed,
        set: &set,
        with_ensemble: args.with_ensemble,
        guard: args.guard,
        bootstrap: args.bootstrap.replicates,
        named: args.source.good.is_none() && args.source.list.is_none() || !named.is_empty(),
        folder: &args.output_dir,
    };
    let frozen = FrozenScores::kept();
    let mut requests = Vec::with_capacity(study.runs.len());
    for spec in &study.runs {
        requests.push(requests_of(&lines, spec, &frozen, context)?);
    }
    let _lock = study.lock().map_err(failed)?;
    take_features(&mut study, &requests, &set, args, context)?;

    let total = study.runs.len();
    let jobs = Jobs::share(
        rayon::current_num_threads(),
        args.jobs.map(usize::from),
        total,
    );
    context
        .console
        .note(&format!("{total} runs, {} at once", jobs.at_once));
    interrupt::training_starts();
    let known = ablate::results(&study, args.retry_failed).map_err(failed)?;
    let watch = Watch::new(known.iter().flatten().count(), total, context);
    let by_folder: HashMap<_, &RunRequests> = study
        .runs
        .iter()
        .map(RunSpec::folder)
        .zip(&requests)
        .collect();
    let one = |spec: &RunSpec| by_folder[&spec.folder()].run(spec.seed, interrupt::cancel());
    let results = ablate::execute(&study, known, jobs, interrupt::cancel(), &one, &|r| {
        watch.over(r);
    });
    watch.finish();
    let results = results.map_err(failed)?;
    let bootstrap = args.bootstrap;
    let summary = summarise(&study, &results, &bootstrap).map_err(failed)?;
    let written = write_tables(&study, &results, &summary).map_err(failed)?;
    let drawn = ablate::plots(&study, &summary).map_err(failed)?;
    if interrupt::cancel().load(Ordering::SeqCst) && summary.open > 0 {
        return Err(Failure::Interrupted(format!(
            "{} of {total} runs are over and kept in {}\nhint: repeat the command to go on",
            total - summary.open,
            study.folder.display()
        )));
    }
    show(&summary, &results, context)?;
    context.console.note(&format!(
        "written to {} and {}; {} plots",
        written.runs.display(),
        written.summary.display(),
        drawn.len()
    ));
    if summary.failed > 0 {
        return Err(Failure::Incomplete(format!(
            "{} of {total} runs failed; {} says why, --retry-failed repeats them",
            summary.failed,
            written.runs.display()
        )));
    }
    Ok(())
}

/// The grid and the options of every run: the plan's, where no flag says otherwise.
fn settings(
    args: &AblateArgs,
    planned_axes: Vec<Axis>,
    planned: Vec<Setting>,
    passed: &Passed,
) -> Result<(Vec<Axis>, Vec<Setting>), Failure> {
    let mut axes = planned_axes;
    for axis in &args.grid {
        match axes.iter_mut().find(|a| a.name == axis.name) {
            Some(same) => *same = axis.clone(),
            None => axes.push(axis.clone()),
        }
    }
    let mut set = planned;
    for setting in &args.set {
        match set.iter_mut().find(|s| s.name == setting.name) {
            Some(same) => same.value.clone_from(&setting.value),
            None => set.push(setting.clone()),
        }
    }
    let names = axes.iter().map(|a| ("--grid", a.name.as_str()));
    check_names(
        names.chain(set.iter().map(|s| ("--set", s.name.as_str()))),
        passed,
    )?;
    if let Some(both) = axes.iter().find(|a| set.iter().any(|s| s.name == a.name)) {
        return Err(Failure::Input(format!(
            "{} is in the grid and set for every run\nhint: omit one of them",
            both.name
        )));
    }
    Ok((axes, set))
}

fn seeds(args: &AblateArgs, planned: Vec<u64>) -> Vec<u64> {
    match (&args.seed_list[..], args.seeds) {
        ([], None) if planned.is_empty() => (0..SEEDS).collect(),
        ([], None) => planned,
        ([], Some(n)) => (0..u64::from(n)).collect(),
        (list, _) => list.to_vec(),
    }
}

fn requests_of(
    lines: &Lines<'_>,
    spec: &RunSpec,
    frozen: &FrozenScores,
    context: Context,
) -> Result<RunRequests, Failure> {
    let (mut train_line, evaluate_line) = lines.parse(spec)?;
    let train = train::request_of(&train_line.args, context)?;
    let Some(checkpoint) = evaluate_line.args.checkpoint.clone() else {
        return Err(Failure::Input("a run evaluates its checkpoint".into()));
    };
    let evaluate = evaluate::request_of(&evaluate_line.args, checkpoint, context)?;
    train_line.asked.came_to = recording::named(in_force::train(&train)).collect();
    Ok(RunRequests {
        train: TrainRequest {
            frozen: frozen.clone(),
            ..train
        },
        evaluate: EvaluateRequest {
            frozen: frozen.clone(),
            // a run's folder is its own
            overwrite: true,
            ..evaluate
        },
        asked: [train_line.asked, evaluate_line.asked],
    })
}

/// Takes every feature into the cache, once for all runs that share them, and gives each run the key of its result.
fn take_features(
    study: &mut Study,
    requests: &[RunRequests],
    set: &[Setting],
    args: &AblateArgs,
    context: Context,
) -> Result<(), Failure> {
    let mut display = Display::new(context.console);
    let mut known: HashMap<String, String> = HashMap::new();
    for (spec, requests) in study.runs.iter_mut().zip(requests) {
        let train = &requests.train;
        let what = format!(
            "{:?} {:?} {:?}",
            train.data,
            train.backbone,
            train.ensemble.as_ref().map(|e| &e.layers)
        );
        let inputs = if let Some(inputs) = known.get(&what) {
            inputs.clone()
        } else {
            let result = extract_all(train, &mut |event| display.show(event));
            display.finish();
            let inputs = result.map_err(|e| Failure::from_error(&e))?;
            known.insert(what, inputs.clone());
            inputs
        };
        let options = [args.with_ensemble, args.guard].map(|flag| flag.to_string());
        let bootstrap = args.bootstrap.replicates.to_string();
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        spec.key = run_key(
            spec,
            &inputs,
            options
                .iter()
                .chain([&bootstrap])
                .chain(&set)
                .map(String::as_str),
        );
    }
    Ok(())
}

/// Tells about runs as they end.
struct Watch {
    context: Context,
    total: usize,
    bar: indicatif::ProgressBar,
    done: Mutex<usize>,
}

impl Watch {
    fn new(before: usize, total: usize, context: Context) -> Self {
        if before > 0 {
            context
                .console
                .note(&format!("{before} of {total} runs are over already"));
        }
        let bar = context.console.bar(total as u64, "ablation", "runs");
        bar.set_position(before as u64);
        Self {
            context,
            total,
            bar,
            done: Mutex::new(before),
        }
    }

    fn over(&self, result: &RunResult) {
        let mut done = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *done += 1;
        let found = match &result.status {
            Status::Failed { error } => format!("failed: {error}"),
            Status::Finished(f) => f
                .scorers
                .iter()
                .filter_map(|s| s.auroc.map(|auroc| format!("{} {auroc:.4}", s.scorer)))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let text = format!(
            "run {}/{} in {:.1} s: {}: {found}",
            *done,
            self.total,
            result.seconds,
            result.title()
        );
        self.bar.suspend(|| self.context.console.note(&text));
        self.bar.set_position(*done as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn show(summary: &Summary, results: &[Option<RunResult>], context: Context) -> Result<(), Failure> {
    if context.json {
        return out_json(summary);
    }
    out(summary.to_markdown().trim_end());
    for result in results.iter().flatten() {
        if let Status::Failed { error } = &result.status {
            out(&format!("failed: {}: {error}", result.title()));
        }
    }
    Ok(())
}
