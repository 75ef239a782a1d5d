//! What the environment and the file say, where nobody typed it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use flawtune::record::OptionSource;

use super::arg;
use super::file::{Entry, File, Given};
use crate::failure::Failure;

/// Options set from outside: by whom, and where exactly.
pub(super) type Origins = BTreeMap<String, (OptionSource, String)>;

/// A command and its options.
pub(super) struct Scope<'a> {
    name: &'a str,
    command: &'a Command,
}

impl<'a> Scope<'a> {
    pub(super) fn new(name: &'a str, command: &'a Command) -> Self {
        Self { name, command }
    }
}

/// Where values may come from besides the command line.
pub(super) struct Sources {
    file: Option<File>,
}

/// A value that nobody typed.
struct Candidate<'a> {
    long: String,
    arg: &'a Arg,
    source: OptionSource,
    from: String,
    /// What is put into the argument list; nothing for a flag that is off.
    arguments: Vec<OsString>,
}

impl Candidate<'_> {
    /// A flag that is off, or a list of nothing.
    fn is_off(&self) -> bool {
        self.arguments.is_empty()
    }
}

/// The environment variable of an option.
pub(super) fn variable(long: &str) -> String {
    format!("FLAWTUNE_{}", long.to_ascii_uppercase().replace('-', "_"))
}

fn environment(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|v| !v.is_empty())
}

impl Sources {
    /// The file that the command line or the environment names, or else the nearest.
    pub(super) fn read(typed: &ArgMatches) -> Result<Self, Failure> {
        let value = |id: &str| typed.try_get_one::<PathBuf>(id).ok().flatten();
        let off = || {
            typed
                .try_get_one::<bool>("no_config")
                .ok()
                .flatten()
                .is_some_and(|on| *on)
        };
        let named = value("config").cloned();
        if named.is_none() {
            let by_variable = flag("no-config", &variable("no-config"))?.unwrap_or(false);
            if off() || by_variable {
                return Ok(Self { file: None });
            }
        }
        let named = named.or_else(|| environment(&variable("config")).map(PathBuf::from));
        Ok(Self {
            file: File::find(named.as_deref())?,
        })
    }
}

/// A flag in the environment.
fn flag(long: &str, name: &str) -> Result<Option<bool>, Failure> {
    let Some(value) = environment(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        _ => Err(Failure::Input(format!(
            "{name}: '{}' is not a value for --{long}; it is true or false",
            value.to_string_lossy()
        ))),
    }
}

/// What the sources say about the options of a command that were not typed, as further arguments.
///
/// The strongest word about an option counts; one that cannot stand beside a stronger one is left out, and so is what
/// means nothing without it.
pub(super) fn settle(
    root: &Command,
    scope: &Scope<'_>,
    typed: Option<&ArgMatches>,
    sources: &Sources,
) -> Result<(Origins, Vec<OsString>), Failure> {
    let command = scope.command;
    if let Some(file) = &sources.file {
        check_keys(root, file)?;
    }
    let was_typed = |arg: &Arg| {
        typed.and_then(|m| m.value_source(arg.get_id().as_str())) == Some(ValueSource::CommandLine)
    };
    let mut decided: Vec<&Arg> = arg::of(command)
        .map(|(_, a)| a)
        .filter(|a| was_typed(a))
        .collect();
    let mut on = decided.clone();
    let mut kept: Vec<Candidate<'_>> = Vec::new();
    for tier in tiers(scope, sources)? {
        let said = |arg: &Arg| decided.iter().any(|d| d.get_id() == arg.get_id());
        let excluded = |arg: &Arg| on.iter().any(|s| arg::exclude_each_other(command, arg, s));
        let tier: Vec<Candidate<'_>> = tier
            .into_iter()
            .filter(|c| !said(c.arg) && (c.is_off() || !excluded(c.arg)))
            .collect();
        let tier_on: Vec<&Candidate<'_>> = tier.iter().filter(|c| !c.is_off()).collect();
        for (i, a) in tier_on.iter().enumerate() {
            let other = tier_on[i + 1..]
                .iter()
                .find(|b| arg::exclude_each_other(command, a.arg, b.arg));
            if let Some(b) = other {
                return Err(Failure::Input(format!(
                    "{}: {} cannot stand beside {} ({})\nhint: omit one of them",
                    a.from, a.long, b.long, b.from
                )));
            }
        }
        // a flag that is off excludes nothing, but it is the last word on itself
        decided.extend(tier.iter().map(|c| c.arg));
        on.extend(tier_on.iter().map(|c| c.arg));
        kept.extend(tier);
    }
    // whoever lost its companion goes too, and then whoever is that one's
    loop {
        let there = |long: &str| {
            arg::of(command).any(|(l, a)| l == long && was_typed(a))
                || kept.iter().any(|c| c.long == long && !c.is_off())
        };
        let alone = kept.iter().position(|c| {
            !c.is_off() && arg::companion(&c.long).is_some_and(|other| !there(other))
        });
        match alone {
            Some(at) => drop(kept.remove(at)),
            None => break,
        }
    }
    let origins = kept
        .iter()
        .map(|c| (c.long.clone(), (c.source, c.from.clone())))
        .collect();
    Ok((
        origins,
        kept.into_iter().flat_map(|c| c.arguments).collect(),
    ))
}

/// What the sources say, the strongest first: the environment, the command's table, the top of the file.
fn tiers<'a>(scope: &Scope<'a>, sources: &Sources) -> Result<Vec<Vec<Candidate<'a>>>, Failure> {
    let mut tiers = vec![of_environment(scope.command)?];
    if let Some(file) = &sources.file {
        for (name, _, entries) in &file.tables {
            if name == scope.name {
                tiers.push(of_entries(scope.command, file, entries)?);
            }
        }
        tiers.push(of_entries(scope.command, file, &file.top)?);
    }
    Ok(tiers)
}

fn of_environment(command: &Command) -> Result<Vec<Candidate<'_>>, Failure> {
    let mut found = Vec::new();
    for (long, arg) in arg::of(command) {
        let name = variable(long);
        let arguments = if arg::is_flag(arg) {
            flag(long, &name)?.map(|on| {
                if on {
                    vec![OsString::from(format!("--{long}"))]
                } else {
                    vec![]
                }
            })
        } else if let Some(value) = environment(&name) {
            arg::check(arg, &value)
                .map_err(|e| Failure::Input(format!("{name}: --{long}: {e}")))?;
            Some(vec![arg::option(long, &value)])
        } else {
            None
        };
        if let Some(arguments) = arguments {
            let source = OptionSource::Environment;
            found.push(Candidate {
                long: long.to_owned(),
                arg,
                source,
                from: name,
                arguments,
            });
        }
    }
    Ok(found)
}

/// Entries that the command has options for.
fn of_entries<'a>(
    command: &'a Command,
    file: &File,
    entries: &[Entry],
) -> Result<Vec<Candidate<'a>>, Failure> {
    let mut found = Vec::new();
    for entry in entries {
        let Some((long, arg)) = arg::of(command).find(|(long, _)| *long == entry.key) else {
            continue;
        };
        found.push(Candidate {
            long: long.to_owned(),
            arg,
            source: OptionSource::File,
            from: file.at(entry.line),
            arguments: arguments(file, entry, long, arg)?,
        });
    }
    Ok(found)
}

/// An entry as it would be typed.
fn arguments(file: &File, entry: &Entry, long: &str, arg: &Arg) -> Result<Vec<OsString>, Failure> {
    let wrong =
        |text: String| Failure::Input(format!("{}: {}: {text}", file.at(entry.line), entry.key));
    let values: &[String] = match (&entry.value, arg::is_flag(arg)) {
        (Given::Flag(on), true) => {
            return Ok(if *on {
                vec![OsString::from(format!("--{long}"))]
            } else {
                Vec::new()
            });
        }
        (_, true) => return Err(wrong("is true or false, without quotes".into())),
        (Given::Flag(_), false) => return Err(wrong("takes a value, not true or false".into())),
        (Given::One(one), _) => std::slice::from_ref(one),
        (Given::List(_), _) if !arg::takes_list(arg) => {
            return Err(wrong("takes one value, not a list".into()));
        }
        (Given::List(list), _) => list,
    };
    let mut arguments = Vec::new();
    for value in values {
        // paths start from the file, wherever the command is called
        let value = if arg::is_path(arg) {
            file.folder().join(value).into_os_string()
        } else {
            OsString::from(value)
        };
        arg::check(arg, OsStr::new(&value)).map_err(wrong)?;
        arguments.push(arg::option(long, &value));
    }
    Ok(arguments)
}

/// Every key has to be an option of some command, every table a command, and its keys that command's options: a slip of the
/// pen would otherwise change nothing, silently.
fn check_keys(root: &Command, file: &File) -> Result<(), Failure> {
    let own = |command: &Command| {
        arg::of(command)
            .map(|(long, _)| long.to_owned())
            .collect::<Vec<_>>()
    };
    let mut all: Vec<String> = root.get_subcommands().flat_map(own).collect();
    all.sort();
    all.dedup();
    let commands: Vec<&str> = root.get_subcommands().map(Command::get_name).collect();
    for entry in &file.top {
        if !all.contains(&entry.key) {
            return Err(Failure::Input(format!(
                "{}: {}: no command has such an option{}",
                file.at(entry.line),
                entry.key,
                arg::meant(&entry.key, all.iter().map(String::as_str))
            )));
        }
    }
    for (name, line, entries) in &file.tables {
        let Some(command) = root.find_subcommand(name) else {
            return Err(Failure::Input(format!(
                "{}: [{name}] is not a command{}",
                file.at(*line),
                arg::meant(name, commands.iter().copied())
            )));
        };
        let known = own(command);
        for entry in entries {
            if !known.contains(&entry.key) {
                return Err(Failure::Input(format!(
                    "{}: {name}.{}: '{name}' has no such option{}",
                    file.at(entry.line),
                    entry.key,
                    arg::meant(&entry.key, known.iter().map(String::as_str))
                )));
            }
        }
    }
    Ok(())
}
