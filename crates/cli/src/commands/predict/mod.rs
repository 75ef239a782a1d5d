//! `flawtune predict`

mod inputs;
mod output;
mod watch;

use std::cell::RefCell;
use std::ops::ControlFlow;

use flawtune::features::{BadImage, FeatureError};
use flawtune::workflow::{
    Detector, Event, NewThreshold, Next, OnEvent, PredictOptions, Predicted, WorkflowError,
    predict_past,
};
use flawtune_lab::workflow::checkpoint_tokens;

use self::inputs::Source;
pub(crate) use self::inputs::expand;
use self::output::{Maps, Printer};
use self::watch::Watch;
use crate::Context;
use crate::args::{FormatArg, PredictArgs};
use crate::console;
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;

/// A threshold other than the file's.
fn other_threshold(args: &PredictArgs) -> Option<NewThreshold> {
    args.threshold
        .map(NewThreshold::Value)
        .or_else(|| args.false_alarms.map(NewThreshold::FalseAlarms))
        .or_else(|| args.find.map(NewThreshold::Find))
}

#[expect(
    clippy::too_many_lines,
    reason = "what an image goes through, in its order"
)]
pub(crate) fn run(args: &PredictArgs, context: Context) -> Result<(), Failure> {
    let failed = |e: WorkflowError| Failure::from_error(&e);
    if args.model.is_dir() {
        return Err(Failure::Input(format!(
            "{}: a folder, where the file that 'flawtune fit' wrote is named first, then the images\n\
             hint: flawtune predict part.flaw {}",
            args.model.display(),
            args.model.display()
        )));
    }
    let maps = args.maps.as_deref();
    let source = RefCell::new(match &args.watch {
        Some(folder) => Source::Watch(Watch::new(folder, maps).map_err(failed)?),
        None => Source::named(&args.images, maps)?,
    });
    if let Some(folder) = &args.maps {
        std::fs::create_dir_all(folder).map_err(|e| {
            Failure::Input(format!(
                "{}: {e}\nhint: choose a folder that can be written with --maps",
                folder.display()
            ))
        })?;
    }
    let mut display = Display::new(context.console);
    let detector = Detector::open_with(
        &args.model,
        args.weights.as_deref(),
        Some(checkpoint_tokens),
        &mut |event| display.show(event),
    );
    display.finish();
    let detector = match other_threshold(args) {
        Some(new) => detector.and_then(|d| d.with_threshold(new)),
        None => detector,
    };
    let detector = detector.map_err(failed)?;
    if let Some(folder) = &args.watch {
        interrupt::watching_starts();
        context
            .console
            .note(&format!("watching {}; Ctrl-C ends", folder.display()));
    }
    let maps = args.maps.as_ref().map(|folder| Maps {
        folder,
        format: args.map_format,
        scale: &detector.header().map,
        root: match (&args.watch, &args.images[..]) {
            (Some(folder), _) => Some(folder.clone()),
            (None, [folder]) if folder.is_dir() => Some(folder.clone()),
            _ => None,
        },
    });
    let mut printer = Printer::new(if context.json {
        FormatArg::Jsonl
    } else {
        args.format
    });
    let options = PredictOptions {
        skip_bad_images: args.skip_bad_images,
        maps: maps.is_some(),
        untaught: false,
    };
    let (mut flaws, mut scored) = (0, 0);
    let mut next = |wait: bool| {
        if interrupt::asked() {
            Ok(Next::End)
        } else {
            source.borrow_mut().next(args.batch_size as usize, wait)
        }
    };
    let mut on_prediction = |p: Predicted| {
        scored += 1;
        flaws += usize::from(p.prediction.flaw);
        if let Some(maps) = &maps {
            match maps.write(&p) {
                // a service outlives a map that cannot be written
                Err(e) if args.watch.is_some() => console::warn(&Failure::from_error(&e).text()),
                written => written?,
            }
        }
        let goes_on = printer.prediction(&p)
            // the exit code speaks of every image, also where nobody reads the lines
            || (args.fail_on_flaw && args.watch.is_none() && console::unwritten().is_none());
        Ok(if goes_on {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    };
    let mut left_out = 0;
    let mut on_bad = |bad: BadImage, scored: usize, on_event: OnEvent<'_>| {
        if source.borrow_mut().tries_again(&bad.path) {
            return Ok(());
        }
        if !args.skip_bad_images && args.watch.is_none() {
            let (images, asked) = (vec![bad], scored + 1);
            return Err(FeatureError::BadImages { images, asked }.into());
        }
        left_out += 1;
        on_event(Event::Warning(format!("left out {bad}")));
        Ok(())
    };
    let result = predict_past(
        &detector,
        options,
        &mut next,
        &mut on_prediction,
        &mut on_bad,
        &mut |event| display.show(event),
    );
    display.finish();
    result.map_err(failed)?;
    printer.start();
    context
        .console
        .note(&format!("{flaws} of {scored} images are flawed"));
    if left_out > 0 {
        context.console.note(&format!(
            "{left_out} images could not be read and are not judged"
        ));
    }
    if flaws > 0 && args.fail_on_flaw {
        Err(Failure::Flawed { flaws, scored })
    } else {
        Ok(())
    }
}
