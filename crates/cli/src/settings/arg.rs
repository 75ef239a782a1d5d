//! What is known of an option: its kind, its values, whom it cannot stand beside.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use flawtune::image_size::ImageSize;
use flawtune::record::{OptionRecord, OptionSource};
use serde_json::{Value, json};

use super::settle::Origins;

/// Options that say where the others come from.
const ABOUT_SETTINGS: [&str; 4] = ["config", "no-config", "help", "version"];
/// Options that mean nothing without another: without that one, a value of the file or the environment is left out.
const COMPANIONS: [(&str, &str); 5] = [
    ("defect", "good"),
    ("masks", "defect"),
    ("test-good", "good"),
    ("map-format", "maps"),
    ("adapter-dim", "use-adapters"),
];

/// The options of a command that have a long name and can be set from outside.
pub(super) fn of(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command
        .get_arguments()
        .filter_map(|a| a.get_long().map(|long| (long, a)))
        .filter(|(long, _)| !ABOUT_SETTINGS.contains(long))
}

/// Their names.
pub(super) fn names(command: &Command) -> Vec<String> {
    of(command).map(|(long, _)| long.to_owned()).collect()
}

/// What the help says of the defaults that depend on other options.
pub(super) fn told_defaults(command: &Command) -> BTreeMap<String, String> {
    let told = |(long, arg): (&str, &Arg)| {
        let help = arg.get_help()?.to_string();
        let (_, rest) = help.split_once("[default: ")?;
        let (text, _) = rest.split_once(']')?;
        Some((
            long.to_owned(),
            text.split_whitespace().collect::<Vec<_>>().join(" "),
        ))
    };
    of(command).filter_map(told).collect()
}

/// The option that `long` means nothing without.
pub(super) fn companion(long: &str) -> Option<&'static str> {
    COMPANIONS
        .iter()
        .find(|(one, _)| *one == long)
        .map(|(_, other)| *other)
}

pub(super) fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

pub(super) fn takes_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

pub(super) fn is_path(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

fn is_number(parser: &ValueParser) -> bool {
    let id = parser.type_id();
    [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
        TypeId::of::<f32>(),
        TypeId::of::<f64>(),
        // a square is the number of its side
        TypeId::of::<ImageSize>(),
    ]
    .iter()
    .any(|number| id == *number)
}

/// Whether two options exclude each other; either may say so.
pub(super) fn exclude_each_other(command: &Command, a: &Arg, b: &Arg) -> bool {
    let says = |one: &Arg, other: &Arg| {
        // what is set for all commands conflicts with nothing of one of them
        !one.is_global_set()
            && command
                .get_arg_conflicts_with(one)
                .iter()
                .any(|c| c.get_id() == other.get_id())
    };
    says(a, b) || says(b, a)
}

/// What is wrong with a value, in the words of the option's own parser.
pub(super) fn check(arg: &Arg, value: &OsStr) -> Result<(), String> {
    let mut alone = Arg::new("value")
        .long("value")
        .action(arg.get_action().clone())
        .allow_hyphen_values(true)
        .value_parser(arg.get_value_parser().clone());
    if let Some(delimiter) = arg.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    let command = Command::new("flawtune")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(alone);
    let Err(error) = command.try_get_matches_from([option("value", value)]) else {
        return Ok(());
    };
    let shown = value.to_string_lossy();
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) if !list.is_empty() => Some(list.join(", ")),
        _ => None,
    };
    if let (ErrorKind::ValueValidation, Some(source)) =
        (error.kind(), std::error::Error::source(&error))
    {
        return Err(format!("'{shown}': {source}"));
    }
    let known =
        text(ContextKind::ValidValue).map_or_else(String::new, |v| format!("; it is one of {v}"));
    let meant = text(ContextKind::SuggestedValue)
        .map_or_else(String::new, |v| format!(" (is '{v}' meant?)"));
    Err(format!("'{shown}' is not a value for it{meant}{known}"))
}

/// `--long=value`.
pub(super) fn option(long: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(format!("--{long}="));
    text.push(value);
    text
}

/// `; is 'x' meant?`, for a name that is not known.
pub(super) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .min();
    near.filter(|(edits, k)| *edits <= 2.max(k.len() / 3))
        .map_or_else(String::new, |(_, k)| format!("; is '{k}' meant?"))
}

/// Every option in force of a parsed command. A default that cannot stand beside what was set is not in force.
pub(super) fn options(
    command: &Command,
    matches: &ArgMatches,
    origins: &Origins,
) -> BTreeMap<String, OptionRecord> {
    let source = |arg: &Arg| matches.value_source(arg.get_id().as_str());
    let set = |arg: &Arg| source(arg).is_some_and(|s| s != ValueSource::DefaultValue);
    let idle = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    let put_aside = |arg: &Arg| {
        !set(arg)
            && of(command).any(|(_, other)| set(other) && exclude_each_other(command, arg, other))
    };
    let one = |(long, arg): (&str, &Arg)| {
        let value = value(arg, matches);
        if !idle(&value) && put_aside(arg) {
            return None;
        }
        let record = match (origins.get(long), source(arg)) {
            (Some((source, from)), _) => OptionRecord {
                value,
                source: *source,
                from: Some(from.clone()),
            },
            (None, Some(ValueSource::CommandLine)) => OptionRecord::new(value, OptionSource::Flag),
            (None, Some(ValueSource::EnvVariable)) => OptionRecord {
                value,
                source: OptionSource::Environment,
                from: Some(super::variable(long)),
            },
            _ => OptionRecord::new(value, OptionSource::Default),
        };
        Some((long.to_owned(), record))
    };
    of(command).filter_map(one).collect()
}

/// The value of an option as JSON; `null` where it has none.
fn value(arg: &Arg, matches: &ArgMatches) -> Value {
    let id = arg.get_id().as_str();
    let raw: Vec<String> = matches
        .get_raw(id)
        .into_iter()
        .flatten()
        .map(|v| v.to_string_lossy().into_owned())
        .collect();
    if is_flag(arg) {
        // a flag that takes something away is on where its field is false
        let on = (!matches!(arg.get_action(), ArgAction::SetFalse)).to_string();
        return json!(raw.first() == Some(&on));
    }
    let number = is_number(arg.get_value_parser());
    let one = |text: &String| {
        let parsed = number
            .then(|| {
                serde_json::from_str::<Value>(text)
                    .ok()
                    .filter(Value::is_number)
            })
            .flatten();
        parsed.unwrap_or_else(|| json!(text))
    };
    match (takes_list(arg), raw.first()) {
        (_, None) => Value::Null,
        // one size is a number, as it always was
        (true, Some(only)) if raw.len() == 1 && id == "image_size" => one(only),
        (true, _) => raw.iter().map(one).collect(),
        (false, Some(first)) => one(first),
    }
}
