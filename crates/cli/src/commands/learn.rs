//! `flawtune learn`

use flawtune::dataset::MoreImages;
use flawtune::workflow::{Event, LearnRequest, Learnt, Lessons, Tally, learn};
use serde_json::json;

use crate::Context;
use crate::args::LearnArgs;
use crate::console::{bytes, out, out_json};
use crate::failure::Failure;
use crate::progress::Display;

pub(crate) fn run(args: &LearnArgs, context: Context) -> Result<(), Failure> {
    let mut lessons = Lessons::new(MoreImages {
        good: args.good.clone(),
        defect: args.defect.clone(),
        masks: args.masks.clone(),
    });
    lessons.force = args.force;
    lessons.skip_bad_images = args.skip_bad_images;
    lessons.strict = args.strict;
    let request = LearnRequest {
        detector: args.file.clone(),
        weights: args.weights.clone(),
        lessons,
        output: args.output.clone().unwrap_or_else(|| args.file.clone()),
    };
    let mut display = Display::new(context.console);
    let result = learn(&request, &mut |event: Event<'_>| display.show(event));
    display.finish();
    let learnt = result.map_err(|e| Failure::from_error(&e))?;
    report(&request, &learnt, context)
}

fn report(request: &LearnRequest, learnt: &Learnt, context: Context) -> Result<(), Failure> {
    if context.json {
        return out_json(&json!({
            "output": request.output,
            "bytes": learnt.bytes,
            "good": learnt.good,
            "defects": learnt.defects,
            "before": learnt.before,
            "after": learnt.after,
            "old_version": learnt.old_version,
            "threshold": learnt.header.threshold.value,
        }));
    }
    out(&request.output.display().to_string());
    let console = context.console;
    console.note(&format!(
        "learned {} good images and {} defects; {}",
        learnt.good,
        learnt.defects,
        bytes(learnt.bytes)
    ));
    console.note(&format!("before: {}", text(learnt.before)));
    console.note(&format!("now:    {}", text(learnt.after)));
    if let Some(old) = &learnt.old_version {
        console.note(&format!("the old version is {}", old.display()));
    }
    Ok(())
}

/// Counts of images that were judged by models that had not seen them.
fn text(tally: Tally) -> String {
    let found = if tally.defects == 0 {
        "one defect cannot be judged without itself".to_owned()
    } else {
        format!("finds {} of {} defects", tally.found, tally.defects)
    };
    format!(
        "stops {} of {} good images, {found}",
        tally.stopped, tally.good
    )
}
