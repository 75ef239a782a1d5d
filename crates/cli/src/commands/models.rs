//! `flawtune models`

use flawtune_backbone::models::VARIANTS;
use serde_json::json;

use crate::Context;
use crate::console::{out, out_json};
use crate::failure::Failure;

pub(crate) fn run(context: Context) -> Result<(), Failure> {
    if context.json {
        let list: Vec<_> = VARIANTS
            .iter()
            .map(|v| json!({"config": v.config(), "hub": v.hub, "timm": v.timm, "gated": v.gated}))
            .collect();
        return out_json(&list);
    }
    out(&format!("{:<22}{:>6}{:>7}{:>7}  {}", "name", "dim", "depth", "patch", "repository"));
    for v in VARIANTS {
        let c = v.config();
        let gated = if v.gated { " (licence to accept first)" } else { "" };
        out(&format!("{:<22}{:>6}{:>7}{:>7}  {}{gated}", c.name, c.dim, c.depth, c.patch_size, v.hub));
    }
    Ok(())
}
