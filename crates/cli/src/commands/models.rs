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
            .map(|v| {
                let hub = v.hub();
                json!({
                    "config": v.config(),
                    "hub": hub.map(|h| h.repository),
                    "timm": hub.map(|h| h.timm),
                    "gated": hub.is_some_and(|h| h.gated),
                })
            })
            .collect();
        return out_json(&list);
    }
    out(&format!(
        "{:<22}{:>6}{:>7}{:>7}  {}",
        "name", "dim", "depth", "patch", "repository"
    ));
    for v in VARIANTS {
        let c = v.config();
        let place = match v.hub() {
            Some(hub) if hub.gated => format!("{} (licence to accept first)", hub.repository),
            Some(hub) => hub.repository.to_owned(),
            None => "part of flawtune, for demonstrations".to_owned(),
        };
        out(&format!(
            "{:<22}{:>6}{:>7}{:>7}  {place}",
            c.name, c.dim, c.depth, c.patch_size
        ));
    }
    Ok(())
}
