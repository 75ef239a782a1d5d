//! Standard error for programs: one JSON object a line, and nothing else (`--progress json`, docs/guides/progress.md).

use std::io::Write as _;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// The command, once lines are wanted as JSON.
static COMMAND: OnceLock<Option<String>> = OnceLock::new();

/// From now on every line is JSON; `command` is `None` where the arguments did not say which.
pub(super) fn start(command: Option<&str>) {
    COMMAND.get_or_init(|| command.map(str::to_owned));
    // a defect of ours is the last that may break a program's reading of the lines before
    std::panic::set_hook(Box::new(|panic| {
        let fields =
            serde_json::json!({"kind": "defect", "message": panic.to_string(), "exit_code": 101});
        event("error", fields);
    }));
}

pub(super) fn on() -> bool {
    COMMAND.get().is_some()
}

/// Writes one event; `fields` is an object.
pub(super) fn event(name: &str, fields: Value) {
    let mut object = Map::new();
    object.insert("event".into(), name.into());
    object.insert("command".into(), COMMAND.get().cloned().flatten().into());
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    // one write a line, so that lines of several threads stay whole
    let line = format!("{}\n", Value::Object(object));
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}
