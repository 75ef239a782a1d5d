//! `flawtune predict`

mod inputs;
mod output;
mod watch;

use std::ops::ControlFlow;

use flawtune::workflow::{Detector, Next, PredictOptions, Predicted, predict};
use flawtune_lab::workflow::checkpoint_tokens;

use self::inputs::Source;
pub(crate) use self::inputs::expand;
use self::output::{Maps, Printer};
use self::watch::Watch;
use crate::Context;
use crate::args::{FormatArg, PredictArgs};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Display;

pub(crate) fn run(args: &PredictArgs, context: Context) -> Result<(), Failure> {
    let failed = |e: flawtune::workflow::WorkflowError| Failure::from_error(&e);
    let mut source = match &args.watch {
        Some(folder) => Source::Watch(Watch::new(folder).map_err(failed)?),
        None => Source::named(&args.images)?,
    };
    if let Some(folder) = &args.maps {
        std::fs::create_dir_all(folder).map_err(|e| {
            Failure::Input(format!(
                "{}: {e}; choose a folder that can be written with --maps",
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
            source.next(args.batch_size as usize, wait)
        }
    };
    let mut on_prediction = |p: Predicted| {
        scored += 1;
        flaws += usize::from(p.prediction.flaw);
        if let Some(maps) = &maps {
            maps.write(&p)?;
        }
        Ok(if printer.prediction(&p) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    };
    let result = predict(
        &detector,
        options,
        &mut next,
        &mut on_prediction,
        &mut |event| display.show(event),
    );
    display.finish();
    result.map_err(failed)?;
    printer.start();
    context
        .console
        .note(&format!("{flaws} of {scored} pictures are flawed"));
    if flaws > 0 && args.fail_on_flaw {
        Err(Failure::Flawed { flaws, scored })
    } else {
        Ok(())
    }
}
