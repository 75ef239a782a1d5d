//! Settings as the argument lines of `train` and `evaluate`, read by the parser that reads a person's.

use std::ffi::OsString;
use std::path::Path;

use clap::{ArgAction, Args as _, CommandFactory as _, Parser as _};
use flawtune::workflow::BackboneOverrides;
use flawtune_lab::ablate::{Asked, RunSpec, Setting};
use serde_json::Value;

use crate::args::{CacheOptions, Cli, Command, EvaluateArgs, SourceArgs, TrainArgs};
use crate::failure::Failure;
use crate::settings::{self, Refusal, Settings, is_set};

/// Options that are the study's own, and what says them.
const OWN: [(&str, &str); 9] = [
    ("category", "--category"),
    ("seed", "--seeds or --seed-list"),
    ("output-dir", "--output-dir"),
    ("bootstrap", "--bootstrap"),
    ("no-guard", "--guard, or its absence"),
    ("no-ensemble", "--with-ensemble, or its absence"),
    ("checkpoint", "nothing: each run makes its own"),
    ("bundle", "nothing: detectors are not trained"),
    ("resume", "nothing: runs that are over are not repeated"),
];

/// Options of the study that its runs are given too; `None` for a switch.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<(String, Option<String>)>);

impl Passed {
    /// What somebody set of the options that say where images and weights are: flag, environment or file.
    pub(super) fn of(settings: &Settings) -> Self {
        let shared = CacheOptions::augment_args(BackboneOverrides::augment_args(
            SourceArgs::augment_args(clap::Command::new("shared")),
        ));
        let mut passed = Vec::new();
        for long in shared.get_arguments().filter_map(clap::Arg::get_long) {
            let Some(option) = settings.options.get(long).filter(|o| is_set(o)) else {
                continue;
            };
            let text = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), ToOwned::to_owned)
            };
            let value = match &option.value {
                Value::Bool(true) => None,
                Value::Bool(false) | Value::Null => continue,
                Value::Array(list) => Some(list.iter().map(text).collect::<Vec<_>>().join(",")),
                one => Some(text(one)),
            };
            passed.push((long.to_owned(), value));
        }
        Self(passed)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(long, _)| long == name)
    }
}

fn command(name: &str) -> clap::Command {
    let whole = Cli::command();
    whole.find_subcommand(name).cloned().unwrap_or(whole)
}

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Checks that each name is an option of `train` or `evaluate` that a study may set.
pub(super) fn check_names<'a>(
    names: impl Iterator<Item = (&'static str, &'a str)>,
    passed: &Passed,
) -> Result<(), Failure> {
    let known = [command("train"), command("evaluate")];
    for (flag, name) in names {
        if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
            return Err(Failure::Input(format!(
                "{flag} {name}: the study sets it\nhint: say {instead}"
            )));
        }
        if passed.has(name) {
            return Err(Failure::Input(format!(
                "{flag} {name}: --{name} is given too\nhint: omit one of them"
            )));
        }
        if !known.iter().any(|c| find(c, name).is_some()) {
            // the parser knows which name is near
            let tip = match Cli::try_parse_from(["flawtune", "train", &format!("--{name}")]) {
                Err(e) => message(&e),
                Ok(_) => String::new(),
            };
            return Err(Failure::Input(format!(
                "{flag} {name}: no option of 'flawtune train' or 'flawtune evaluate': {tip}"
            )));
        }
    }
    Ok(())
}

fn find<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|a| a.get_long() == Some(name))
}

/// What both commands of a run are told.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) passed: &'a Passed,
    pub(super) set: &'a [Setting],
    pub(super) with_ensemble: bool,
    pub(super) guard: bool,
    pub(super) bootstrap: usize,
    /// Whether images come from a root with categories.
    pub(super) named: bool,
    /// The study's folder.
    pub(super) folder: &'a Path,
}

impl Lines<'_> {
    /// The arguments of a run's training and of its evaluation.
    ///
    /// # Errors
    /// Values that an option does not take.
    pub(super) fn parse(
        &self,
        spec: &RunSpec,
    ) -> Result<(Told<TrainArgs>, Told<EvaluateArgs>), Failure> {
        let mut train = self.line("train", spec)?;
        train.push(format!("--seed={}", spec.seed));
        if !self.with_ensemble {
            train.push("--no-ensemble".into());
        }
        let folder = self.folder.join(spec.folder());
        let checkpoint = folder.join(format!("{}_prompts.pt", spec.category));
        let mut evaluate = self.line("evaluate", spec)?;
        evaluate.push(format!("--checkpoint={}", checkpoint.display()));
        evaluate.push(format!("--bootstrap={}", self.bootstrap));
        if !self.guard {
            evaluate.push("--no-guard".into());
        }
        for line in [&mut train, &mut evaluate] {
            line.push(format!("--output-dir={}", folder.display()));
        }
        match (told(train, spec)?, told(evaluate, spec)?) {
            ((Command::Train(train), of_train), (Command::Evaluate(evaluate), of_evaluate)) => {
                Ok((
                    Told {
                        args: train,
                        asked: of_train,
                    },
                    Told {
                        args: evaluate,
                        asked: of_evaluate,
                    },
                ))
            }
            _ => Err(Failure::Input(
                "a run is a training and an evaluation".into(),
            )),
        }
    }

    /// `NAME …` with those of the options that the command has.
    fn line(&self, name: &str, spec: &RunSpec) -> Result<Vec<String>, Failure> {
        let known = command(name);
        let mut line = vec![name.to_owned()];
        if self.named {
            line.push(format!("--category={}", spec.category));
        }
        // where the weights are and how images are prepared is the checkpoint's to say when it is evaluated
        let of_checkpoint = |long: &str| name == "evaluate" && is_backbone(long);
        for (long, value) in &self.passed.0 {
            if find(&known, long).is_none() || of_checkpoint(long) {
                continue;
            }
            line.push(
                value
                    .as_ref()
                    .map_or_else(|| format!("--{long}"), |v| format!("--{long}={v}")),
            );
        }
        for setting in self.set.iter().chain(&spec.point) {
            let Some(arg) = find(&known, &setting.name).filter(|_| !of_checkpoint(&setting.name))
            else {
                continue;
            };
            match (takes_value(arg), setting.value.as_str()) {
                (true, value) => line.push(format!("--{}={value}", setting.name)),
                (false, "true") => line.push(format!("--{}", setting.name)),
                (false, "false") => {}
                (false, other) => {
                    return Err(Failure::Input(format!(
                        "{}={other}: a switch is true or false",
                        setting.name
                    )));
                }
            }
        }
        Ok(line)
    }
}

/// What one command of a run is told: read, and as its record has it.
pub(super) struct Told<T> {
    pub(super) args: Box<T>,
    pub(super) asked: Asked,
}

fn told(line: Vec<String>, spec: &RunSpec) -> Result<(Command, Asked), Failure> {
    let words: Vec<OsString> = line.iter().map(OsString::from).collect();
    let (cli, settings) = settings::of_arguments(&words).map_err(|refusal| match refusal {
        Refusal::Failure(failure) => failure,
        Refusal::Clap(e) => {
            let at = if spec.point.is_empty() {
                String::new()
            } else {
                format!("{}: ", spec.settings())
            };
            Failure::Input(format!("{at}{}", message(&e)))
        }
    })?;
    Ok((
        cli.command,
        Asked {
            arguments: line,
            options: settings.options,
            ..Asked::default()
        },
    ))
}

/// Whether an option says which backbone, and how images get into it.
fn is_backbone(long: &str) -> bool {
    let group = BackboneOverrides::augment_args(clap::Command::new("backbone"));
    find(&group, long).is_some()
}

/// A parser's complaint without its label and usage, on one line.
fn message(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraphs = text
        .split("\n\n")
        .filter(|p| !p.starts_with("Usage:") && !p.starts_with("For more"));
    let joined = paragraphs
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}
