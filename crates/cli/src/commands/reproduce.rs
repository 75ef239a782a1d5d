//! `flawtune reproduce`

mod checks;
mod line;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use flawtune::record::{
    Comparison, FILE_NAME, FileComparison, Outcome, RunFile, RunRecord, compare_outputs,
};

use flawtune_backbone::atomic_file;

use crate::Context;
use crate::args::ReproduceArgs;
use crate::console::{out, out_json, warn};
use crate::failure::Failure;
use crate::{interrupt, settings};

/// Commands that can be repeated, each after those whose files it may read.
const ORDER: [&str; 4] = ["train", "baseline", "fit", "evaluate"];

pub(crate) fn run(args: &ReproduceArgs, context: Context) -> Result<(), Failure> {
    let file = RunFile::read(&args.run).map_err(|e| Failure::from_error(&e))?;
    let named = |path: &Path| {
        std::path::absolute(path).map_err(|e| Failure::Input(format!("{}: {e}", path.display())))
    };
    let given = named(&args.run)?;
    let folder = if given.is_dir() {
        given
    } else {
        given.parent().unwrap_or(&given).to_owned()
    };
    let again = args
        .output_dir
        .as_deref()
        .map_or_else(|| Ok(beside(&folder)), named)?;
    let runs = chosen(&file, args)?;
    if std::fs::read_dir(&again).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::Input(format!(
            "{}: holds files already\nhint: name an empty or new folder with --output-dir",
            again.display()
        )));
    }
    let others = runs.iter().filter_map(|r| r.versions.get("flawtune"));
    let others: BTreeSet<&String> = others.filter(|v| *v != env!("CARGO_PKG_VERSION")).collect();
    for version in others {
        warn(&format!(
            "recorded by flawtune {version}, and this is {}: files that name the version differ",
            env!("CARGO_PKG_VERSION")
        ));
    }
    // every run is looked at before the first is repeated
    for (i, run) in runs.iter().enumerate() {
        let changes = checks::changes(run, &runs[..i], &folder)?;
        if changes.is_empty() {
            continue;
        }
        let text = format!("{}: {}", title(run), changes.join("; "));
        if !args.allow_changed_data {
            return Err(Failure::Input(format!(
                "{text}\nhint: repeat it with what was recorded, or compare all the same with --allow-changed-data"
            )));
        }
        warn(&text);
    }
    let failed = |e: std::io::Error| Failure::Machine(format!("{}: {e}", again.display()));
    std::fs::create_dir_all(&again).map_err(failed)?;
    // features are computed anew, once for all runs: those of an old cache would prove nothing
    let cache = tempfile::Builder::new()
        .prefix(atomic_file::PREFIX)
        .tempdir_in(&again)
        .map_err(failed)?;
    let mut files = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        context.console.note(&format!("repeating {}", title(run)));
        repeat(run, &runs[..i], (&folder, &again), cache.path(), context)?;
        let repeated =
            RunFile::read(&again.join(FILE_NAME)).map_err(|e| Failure::from_error(&e))?;
        let Some(found) = repeated.find(&run.command, run.category.as_deref()) else {
            return Err(Failure::Machine(format!(
                "{}: does not tell of {}",
                again.display(),
                title(run)
            )));
        };
        files.extend(compare_outputs(
            &run.command,
            (&run.outputs, &folder),
            (&found.outputs, &again),
        ));
    }
    report(&files, &again, context)
}

fn report(files: &[FileComparison], again: &Path, context: Context) -> Result<(), Failure> {
    let differing = files.iter().filter(|f| !f.identical).count();
    if context.json {
        out_json(&Comparison {
            identical: differing == 0,
            files: files.to_vec(),
        })?;
    } else {
        let width = files
            .iter()
            .map(|f| f.path.chars().count())
            .max()
            .unwrap_or(0)
            .max("file".len());
        out(&format!("{:<10}{:<width$}  result", "command", "file"));
        for f in files {
            let result = match &f.difference {
                Some(difference) => format!("differs: {difference}"),
                None if f.same_bytes => "identical".to_owned(),
                None => "identical but for paths and times".to_owned(),
            };
            out(&format!("{:<10}{:<width$}  {result}", f.command, f.path));
        }
    }
    context
        .console
        .note(&format!("repeated in {}", again.display()));
    if differing > 0 {
        return Err(Failure::Differs {
            files: differing,
            compared: files.len(),
        });
    }
    Ok(())
}

/// The runs that are asked for and can be repeated, in the order to do so.
fn chosen<'a>(file: &'a RunFile, args: &ReproduceArgs) -> Result<Vec<&'a RunRecord>, Failure> {
    let refuse = |text: String| Err(Failure::Input(format!("{}: {text}", args.run.display())));
    if let Some(command) = args
        .command
        .as_ref()
        .filter(|c| !ORDER.contains(&c.as_str()))
    {
        return Err(Failure::Input(format!(
            "--command {command}: cannot be repeated; it is one of {}",
            ORDER.join(", ")
        )));
    }
    let asked = |run: &&RunRecord| {
        args.command.as_ref().is_none_or(|c| *c == run.command)
            && args
                .category
                .as_ref()
                .is_none_or(|c| run.category.as_ref() == Some(c))
    };
    let (mut runs, left): (Vec<&RunRecord>, Vec<&RunRecord>) = file
        .runs
        .iter()
        .filter(asked)
        .partition(|r| r.outcome == Outcome::Finished && ORDER.contains(&r.command.as_str()));
    for run in left {
        let why = if ORDER.contains(&run.command.as_str()) {
            format!(
                "its run {}",
                if run.outcome == Outcome::Failed {
                    "failed"
                } else {
                    "was interrupted"
                }
            )
        } else {
            "such runs cannot be repeated".to_owned()
        };
        warn(&format!("{} is left out: {why}", title(run)));
    }
    runs.sort_by_key(|r| ORDER.iter().position(|c| *c == r.command));
    if runs.is_empty() {
        let all: Vec<String> = file.runs.iter().map(title).collect();
        let holds = if all.is_empty() {
            "nothing".to_owned()
        } else {
            all.join(", ")
        };
        return refuse(format!(
            "holds no finished run to repeat of those asked for; it holds {holds}"
        ));
    }
    Ok(runs)
}

/// `outputs_reproduced`, beside `outputs`.
fn beside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("_reproduced");
    folder.with_file_name(name)
}

/// `train screw`
fn title(run: &RunRecord) -> String {
    match &run.category {
        Some(category) => format!("{} {category}", run.command),
        None => run.command.clone(),
    }
}

/// Runs a command again in a process of its own: in the recorded folder, without today's environment and file.
fn repeat(
    run: &RunRecord,
    before: &[&RunRecord],
    (folder, again): (&Path, &Path),
    cache: &Path,
    context: Context,
) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Machine(format!("cannot repeat {}: {e}", title(run)));
    let mut process = Process::new(std::env::current_exe().map_err(failed)?);
    process.args(line::arguments(run, before, folder, Some(again)));
    process
        .arg("--no-config")
        .arg("--threads")
        .arg(rayon::current_num_threads().to_string());
    if run.options.get("no-cache").is_none_or(|o| o.value != true) {
        process.arg("--cache-dir").arg(cache);
    }
    if context.console.quiet() {
        process.arg("--quiet");
    }
    for name in settings::variables() {
        process.env_remove(name);
    }
    if let Some(folder) = working_folder(run) {
        process.current_dir(folder);
    }
    // Ctrl-C reaches both; this one waits for what the other makes of it
    interrupt::watching_starts();
    let status = process
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(failed)?;
    let text = || {
        format!(
            "{} could not be repeated; its own message is above",
            title(run)
        )
    };
    match status.code() {
        _ if interrupt::asked() => Err(Failure::Interrupted(format!(
            "while repeating {}",
            title(run)
        ))),
        Some(0) => Ok(()),
        Some(2) => Err(Failure::Input(text())),
        Some(130) => Err(Failure::Interrupted(format!(
            "while repeating {}",
            title(run)
        ))),
        _ => Err(Failure::Machine(text())),
    }
}

/// Where relative paths of the record start, if it is still there.
fn working_folder(run: &RunRecord) -> Option<PathBuf> {
    run.working_folder.clone().filter(|f| f.is_dir())
}
