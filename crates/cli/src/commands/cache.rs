//! `flawtune cache`

use super::request::user_cache;
use crate::Context;
use crate::args::{CacheAction, CacheArgs};
use crate::console::{bytes, out, out_json};
use crate::failure::Failure;

pub(crate) fn run(args: &CacheArgs, context: Context) -> Result<(), Failure> {
    let cache = user_cache(args.cache_dir.as_deref()).ok_or_else(|| {
        Failure::Input("no cache folder is known\nhint: name one with --cache-dir".into())
    })?;
    let failed = |e: std::io::Error| Failure::Machine(format!("{}: {e}", cache.folder().display()));
    let (report, verb) = match args.action {
        CacheAction::Info => (cache.report().map_err(failed)?, "holds"),
        CacheAction::Clear => (cache.clear().map_err(failed)?, "is cleared of"),
    };
    if context.json {
        return out_json(&report);
    }
    out(&format!(
        "{} {verb} the features of {} images, {}",
        report.folder.display(),
        report.entries,
        bytes(report.bytes)
    ));
    for model in &report.models {
        let name = model.source.as_ref().map_or_else(
            || "(unreadable)".to_owned(),
            |s| format!("{}, {}, {}", s.model, s.variant, s.preprocessing),
        );
        out(&format!(
            "  {:>10}  {:>6} images  {name}",
            bytes(model.bytes),
            model.entries
        ));
    }
    Ok(())
}
