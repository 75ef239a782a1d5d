//! `flawtune features`

use flawtune::workflow::{BackboneOptions, FeaturesRequest, Source, features};
use serde_json::json;

use super::request;
use crate::Context;
use crate::args::FeaturesArgs;
use crate::console::out;
use crate::failure::Failure;
use crate::progress::Display;

pub(crate) fn run(args: &FeaturesArgs, context: Context) -> Result<(), Failure> {
    let request = FeaturesRequest {
        source: match &args.pixels {
            Some(file) => Source::Pixels(file.clone()),
            None => Source::Pictures(args.images.clone()),
        },
        backbone: args.backbone.over(BackboneOptions::default()),
        cache: request::cache(&args.cache, context.console),
        batch_size: args.batch_size as usize,
        skip_bad_images: args.skip_bad_images,
        output: args.output.clone(),
    };
    let mut display = Display::new(context.console);
    let result = features(&request, &mut |event| display.show(event));
    display.finish();
    let written = result.map_err(|e| Failure::from_error(&e))?;
    let (rows, columns) = written.grid;
    if context.json {
        let result = json!({
            "output": request.output,
            "images": written.images,
            "grid": [rows, columns],
            "dim": written.dim,
        });
        out(&result.to_string());
    } else {
        out(&format!(
            "{}: {} images, {rows}×{columns} patches of {} numbers",
            request.output.display(),
            written.images,
            written.dim
        ));
    }
    Ok(())
}
