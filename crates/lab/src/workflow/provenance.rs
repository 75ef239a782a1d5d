//! What a checkpoint says of how it was made: backbone, preprocessing, layers, arguments.

use flawtune_backbone::torch_file::Value;

use super::{Engine, WorkflowError};
use crate::adapt::Checkpoint;
use flawtune::features::Forward as _;

/// Puts it into a checkpoint; `args` are the arguments of the command.
///
/// # Errors
/// Options that are not JSON; not for options of this program.
pub(super) fn put(
    checkpoint: &mut Checkpoint,
    engine: &Engine,
    args: &[(String, Value)],
) -> Result<(), WorkflowError> {
    checkpoint.weights_hash = Some(engine.weights_hash().to_owned());
    checkpoint.preprocessing = Some(engine.preprocess().id());
    checkpoint.layers = Some(engine.layers_text());
    let backbone = serde_json::to_value(engine.options()).map_err(|e| {
        WorkflowError::Input(format!(
            "the backbone options cannot be written as JSON: {e}"
        ))
    })?;
    let mut args = args.to_vec();
    args.push(("backbone".into(), value_of(&backbone)));
    checkpoint.args = Value::dict(args);
    Ok(())
}

/// JSON as a value of a torch file.
fn value_of(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value_of).collect()),
        Json::Object(map) => Value::dict(map.iter().map(|(k, v)| (k.clone(), value_of(v)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_plain_python_values() {
        let value = value_of(&serde_json::json!({"a": [1, 2.5, null, true], "b": "x"}));
        assert_eq!(value.get("b").and_then(Value::as_str), Some("x"));
        let list = value.get("a").and_then(Value::as_list).unwrap();
        assert_eq!(list[0], Value::Int(1));
        assert_eq!(list[1], Value::Float(2.5));
        assert_eq!(list[2], Value::None);
        assert_eq!(list[3], Value::Bool(true));
    }
}
