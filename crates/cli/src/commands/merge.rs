//! `flawtune merge`

use flawtune_lab::workflow::{MergedCheckpoint, merge};
use serde_json::{Value, json};

use crate::Context;
use crate::args::MergeArgs;
use crate::console::{Console, out};
use crate::failure::Failure;
use crate::progress::Display;

/// Prompts kept shorter than this by the mean have mostly cancelled each other out.
const CANCELLED: f64 = 0.5;

pub(crate) fn run(args: &MergeArgs, context: Context) -> Result<(), Failure> {
    let mut display = Display::new(context.console);
    let merged = merge(&args.request, &mut |event| display.show(event));
    display.finish();
    let merged = merged.map_err(|e| Failure::from_error(&e))?;
    if context.json {
        out(&to_json(&merged).to_string());
        return Ok(());
    }
    tell(&merged, context.console);
    out(&merged.path.display().to_string());
    Ok(())
}

/// The result as JSON.
pub(super) fn to_json(merged: &MergedCheckpoint) -> Value {
    json!({
        "checkpoint": merged.path,
        "categories": merged.categories,
        "agreement": merged.agreement,
        "length_kept": merged.length_kept,
    })
}

/// How far apart what was merged lay.
pub(super) fn tell(merged: &MergedCheckpoint, console: Console) {
    for (category, of) in merged.categories.iter().zip(&merged.agreement) {
        console.note(&format!(
            "{category}: weight {:.2}, mean cosine of its prompts to the result {:.3}",
            of.weight, of.cosine
        ));
    }
    console.note(&format!(
        "prompts keep {:.0} % of their length{}",
        100.0 * merged.length_kept,
        if merged.length_kept < CANCELLED {
            ": they point apart and mostly cancel each other out"
        } else {
            ""
        }
    ));
}
