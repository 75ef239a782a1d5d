//! Where the value of an option comes from: flag > environment > `flawtune.toml` > default.
//!
//! The command line is parsed leniently to learn what was typed. What the environment and the file say about the rest is
//! checked, put into the argument list as `--name=value`, and all of it is parsed as if it had been typed: required and
//! conflicting options are told from one place.

mod arg;
mod file;
mod settle;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, Command, FromArgMatches as _};
use flawtune::record::{OptionRecord, OptionSource};

use crate::args::{self, Cli};
use crate::failure::Failure;

use settle::{Origins, Scope, Sources, variable};

/// What a command was told, and by whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The subcommand.
    pub(crate) command: String,
    /// The same with what it is told to do: `cache clear`.
    pub(crate) path: String,
    /// Arguments as typed, without the program.
    pub(crate) arguments: Vec<String>,
    /// Every option in force, by its long name.
    pub(crate) options: BTreeMap<String, OptionRecord>,
}

/// Why there are no settings.
pub(crate) enum Refusal {
    /// clap's own word: a wrong command line, or the help that was asked for.
    Clap(clap::Error),
    /// The environment or the file.
    Failure(Failure),
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// The command line over the environment over the file over the defaults.
pub(crate) fn of_process() -> Result<(Cli, Settings), Refusal> {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let mut root = args::command();
    root.build();
    let Ok(lenient) = root
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(&typed)
    else {
        // help or version: what a file says does not matter
        return strict(&root, &typed, &Origins::default());
    };
    let Some((name, matches, command)) = leaf(&root, &lenient) else {
        return strict(&root, &typed, &Origins::default());
    };
    let sources = Sources::read(&lenient)?;
    let scope = Scope::new(name, command);
    let (origins, more) = settle::settle(&root, &scope, Some(matches), &sources)?;
    // before a `--`, which ends the options
    let at = typed.iter().position(|a| a == "--").unwrap_or(typed.len());
    let mut all = typed.clone();
    all.splice(at..at, more);
    let (cli, mut settings) = strict(&root, &all, &origins)?;
    settings.arguments = words(&typed);
    Ok((cli, settings))
}

/// A command line with nothing over its defaults: neither environment nor file. Without the program.
pub(crate) fn of_arguments(arguments: &[OsString]) -> Result<(Cli, Settings), Refusal> {
    let mut root = args::command();
    root.build();
    let all: Vec<OsString> = [OsString::from("flawtune")]
        .iter()
        .chain(arguments)
        .cloned()
        .collect();
    strict(&root, &all, &Origins::default())
}

/// What a command would be told if nothing were typed.
pub(crate) fn of_command(name: &str) -> Result<Settings, Failure> {
    let mut root = args::command();
    root.build();
    let typed: Vec<OsString> = std::env::args_os().collect();
    let Ok(lenient) = root
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(&typed)
    else {
        return Ok(Settings::default());
    };
    let sources = Sources::read(&lenient)?;
    let Some(command) = root.find_subcommand(name) else {
        let known: Vec<&str> = root.get_subcommands().map(Command::get_name).collect();
        return Err(Failure::Input(format!(
            "'{name}' is not a command{}; they are {}",
            arg::meant(name, known.iter().copied()),
            known.join(", ")
        )));
    };
    let scope = Scope::new(name, command);
    let (origins, more) = settle::settle(&root, &scope, None, &sources)?;
    let line: Vec<OsString> = [OsString::from("flawtune"), name.into()]
        .into_iter()
        .chain(more)
        .collect();
    let failed = |e: clap::Error| Failure::Input(e.to_string());
    // what has to be typed is missing here, and that is not an error
    let matches = root
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(line)
        .map_err(failed)?;
    let options = leaf(&root, &matches).map(|(_, m, command)| arg::options(command, m, &origins));
    Ok(Settings {
        command: name.to_owned(),
        options: options.unwrap_or_default(),
        ..Settings::default()
    })
}

/// What the help says of defaults that a command chooses when it runs.
pub(crate) fn told_defaults(name: &str) -> BTreeMap<String, String> {
    let mut root = args::command();
    root.build();
    root.find_subcommand(name)
        .map(arg::told_defaults)
        .unwrap_or_default()
}

/// The environment variables of all options, and those that name the file.
pub(crate) fn variables() -> Vec<String> {
    let mut root = args::command();
    root.build();
    let mut all: Vec<String> = root.get_subcommands().flat_map(arg::names).collect();
    all.extend(["config", "no-config"].map(str::to_owned));
    all.iter().map(|long| variable(long)).collect()
}

/// All commands.
pub(crate) fn commands() -> Vec<String> {
    args::command()
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect()
}

fn strict(root: &Command, all: &[OsString], origins: &Origins) -> Result<(Cli, Settings), Refusal> {
    let mut matches = root.clone().try_get_matches_from(all)?;
    let mut settings = Settings::default();
    if let Some((name, found, command)) = leaf(root, &matches) {
        name.clone_into(&mut settings.command);
        settings.path = path(&matches);
        settings.options = arg::options(command, found, origins);
    }
    settings.arguments = words(all);
    Ok((Cli::from_arg_matches_mut(&mut matches)?, settings))
}

/// The names of the subcommands, outermost first.
fn path(matches: &ArgMatches) -> String {
    let mut names = Vec::new();
    let mut next = matches.subcommand();
    while let Some((name, matches)) = next {
        names.push(name);
        next = matches.subcommand();
    }
    names.join(" ")
}

/// The arguments without the program, as text.
fn words(all: &[OsString]) -> Vec<String> {
    all.iter()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect()
}

/// The innermost subcommand's matches, and the name of the outermost.
fn leaf<'a>(
    root: &'a Command,
    matches: &'a ArgMatches,
) -> Option<(&'a str, &'a ArgMatches, &'a Command)> {
    let (name, mut matches) = matches.subcommand()?;
    let mut command = root.find_subcommand(name)?;
    while let Some((inner, found)) = matches.subcommand() {
        command = command.find_subcommand(inner)?;
        matches = found;
    }
    Some((name, matches, command))
}

/// Whether somebody set it.
pub(crate) fn is_set(option: &OptionRecord) -> bool {
    !matches!(option.source, OptionSource::Default | OptionSource::Preset)
}
