//! `flawtune config`

use std::collections::BTreeMap;

use flawtune::record::{OptionRecord, OptionSource};
use serde_json::Value;

use crate::Context;
use crate::args::ConfigArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;
use crate::settings;

pub(crate) fn run(args: &ConfigArgs, context: Context) -> Result<(), Failure> {
    if let Some(name) = &args.of {
        let options = settings::of_command(name)?.options;
        if context.json {
            return out_json(&options);
        }
        let told = settings::told_defaults(name);
        table(options.iter().map(|(option, record)| {
            let value = match (&record.value, told.get(option)) {
                (Value::Null, Some(text)) => text.clone(),
                (value, _) => shown(value),
            };
            [option.clone(), value, source(record)]
        }));
        return Ok(());
    }
    let mut all: BTreeMap<String, BTreeMap<String, OptionRecord>> = BTreeMap::new();
    for command in settings::commands() {
        let mut options = settings::of_command(&command)?.options;
        options.retain(|_, record| settings::is_set(record));
        if !options.is_empty() {
            all.insert(command, options);
        }
    }
    if context.json {
        return out_json(&all);
    }
    if all.is_empty() {
        context
            .console
            .note("neither the environment nor a flawtune.toml sets anything; every option has its default");
        return Ok(());
    }
    table(all.iter().flat_map(|(command, options)| {
        options.iter().map(move |(option, record)| {
            [
                format!("{command} {option}"),
                shown(&record.value),
                source(record),
            ]
        })
    }));
    Ok(())
}

fn table(rows: impl Iterator<Item = [String; 3]>) {
    let rows: Vec<[String; 3]> = rows.collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (name, value) = (width(0).max("option".len()), width(1).max("value".len()));
    let row = |[a, b, c]: [&str; 3]| out(&format!("{a:<name$}  {b:<value$}  {c}"));
    row(["option", "value", "source"]);
    for [a, b, c] in &rows {
        row([a, b, c]);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn source(record: &OptionRecord) -> String {
    match (record.source, &record.from) {
        (OptionSource::Environment | OptionSource::File, Some(from)) => {
            format!("{} {from}", record.source.name())
        }
        (source, _) => source.name().to_owned(),
    }
}
