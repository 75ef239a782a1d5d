//! `flawtune info`

use flawtune_backbone::weights::describe;
use serde_json::{Map, Value, json};

use crate::Context;
use crate::args::InfoArgs;
use crate::console::{bytes, out};
use crate::failure::Failure;
use crate::progress::thousands;

pub(crate) fn run(args: &InfoArgs, context: Context) -> Result<(), Failure> {
    let d = describe(&args.file).map_err(|e| Failure::from_error(&e))?;
    if context.json {
        let dtypes: Map<String, Value> = d
            .dtypes
            .iter()
            .map(|(name, (tensors, numbers))| {
                (name.clone(), json!({"tensors": tensors, "parameters": numbers}))
            })
            .collect();
        let entries: Map<String, Value> = d.entries.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let result = json!({
            "path": d.path,
            "kind": d.kind.name(),
            "bytes": d.bytes,
            "scheme": d.scheme.map(|s| s.to_string()),
            "config": d.config,
            "tensors": d.tensors,
            "parameters": d.parameters,
            "dtypes": dtypes,
            "entries": entries,
            "notes": d.notes,
        });
        out(&result.to_string());
        return Ok(());
    }
    out(&format!("{}: {}, {}", d.path.display(), d.kind.name(), bytes(d.bytes)));
    if let Some(scheme) = d.scheme {
        out(&format!("keys        {scheme}"));
    }
    if let Some(c) = &d.config {
        out(&format!(
            "backbone    {} ({} blocks, {} numbers a token, {} heads, patch {}, {} registers)",
            c.name, c.depth, c.dim, c.heads, c.patch_size, c.registers
        ));
    }
    let dtypes: Vec<String> = d
        .dtypes
        .iter()
        .map(|(name, (tensors, numbers))| {
            format!("{tensors} {name} ({} numbers)", thousands(*numbers as usize))
        })
        .collect();
    out(&format!(
        "tensors     {} with {} numbers: {}",
        d.tensors,
        thousands(d.parameters as usize),
        dtypes.join(", ")
    ));
    for (key, value) in &d.entries {
        out(&format!("  {key:<48} {value}"));
    }
    for note in &d.notes {
        out(&format!("note: {note}"));
    }
    Ok(())
}
