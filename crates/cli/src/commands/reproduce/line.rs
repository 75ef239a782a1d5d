//! A recorded run as a command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use flawtune::record::{FileRecord, RunRecord};
use serde_json::Value;

/// Options that say where results and features go, how they are shown or where a run was cut: not what it computes.
const NOT_REPEATED: [&str; 9] = [
    "cache-dir",
    "output-dir",
    "output",
    "resume",
    "threads",
    "json",
    "quiet",
    "progress",
    "tensorboard",
];
/// Options that name a file that an earlier run may have written.
const FILES: [&str; 2] = ["checkpoint", "bundle"];

/// The arguments that repeat a run: each option as recorded. With `again`, results go there, and a file that one of the runs
/// `before` wrote is taken from there.
pub(super) fn arguments(
    run: &RunRecord,
    before: &[&RunRecord],
    folder: &Path,
    again: Option<&Path>,
) -> Vec<OsString> {
    let mut line = vec![OsString::from(&run.command)];
    for (name, option) in &run.options {
        if NOT_REPEATED.contains(&name.as_str()) {
            continue;
        }
        let input = run.inputs.iter().find(|_| FILES.contains(&name.as_str()));
        match (&option.value, input) {
            (Value::Null | Value::Bool(false), _) => {}
            (Value::Bool(true), _) => line.push(format!("--{name}").into()),
            (Value::Array(list), _) => {
                line.extend(list.iter().map(|v| format!("--{name}={}", text(v)).into()));
            }
            (_, Some(input)) => {
                let path = place(input, before, folder, again);
                line.push(with_path(name, &path));
            }
            (value, None) => line.push(format!("--{name}={}", text(value)).into()),
        }
    }
    if let Some(again) = again {
        match run.outputs.first().filter(|_| run.command == "fit") {
            Some(bundle) => line.push(with_path("output", &again.join(&bundle.path))),
            None => line.push(with_path("output-dir", again)),
        }
    }
    line
}

/// Where a recorded input is to be read from.
fn place(
    input: &FileRecord,
    before: &[&RunRecord],
    folder: &Path,
    again: Option<&Path>,
) -> PathBuf {
    let written = written_by(input, before);
    match again.filter(|_| written) {
        Some(again) => again.join(&input.path),
        // an absolute path stays what it is
        None => folder.join(&input.path),
    }
}

/// Whether one of the runs wrote this very file.
pub(super) fn written_by(input: &FileRecord, runs: &[&RunRecord]) -> bool {
    runs.iter()
        .flat_map(|r| &r.outputs)
        .any(|output| output == input)
}

fn with_path(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("--{name}="));
    text.push(path);
    text
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
