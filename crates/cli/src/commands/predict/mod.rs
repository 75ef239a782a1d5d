//! `flawtune predict`

mod inputs;
mod output;
mod watch;

use std::ops::ControlFlow;
use std::path::PathBuf;

use flawtune::workflow::{Detector, Next, PredictOptions, Prediction, predict};

use self::inputs::Source;
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
            Failure::Input(format!("{}: {e}; choose a folder that can be written with --maps", folder.display()))
        })?;
    }
    let mut display = Display::new(context.console);
    let detector = Detector::open(&args.model, args.weights.as_deref(), &mut |event| display.show(event));
    display.finish();
    let detector = detector.map_err(failed)?;
    if let Some(folder) = &args.watch {
        interrupt::watching_starts();
        context.console.note(&format!("watching {}; Ctrl-C ends", folder.display()));
    }
    let maps = args.maps.as_ref().map(|folder| Maps {
        folder,
        format: args.map_format,
        scale: &detector.header().map,
        roots: args.images.iter().chain(&args.watch).filter(|i| i.is_dir()).cloned().collect::<Vec<PathBuf>>(),
    });
    let printer = Printer::new(if context.json { FormatArg::Jsonl } else { args.format });
    if !printer.start() {
        return Ok(());
    }
    let options = PredictOptions { skip_bad_images: args.skip_bad_images, maps: maps.is_some() };
    let (mut flaws, mut scored, mut first) = (0, 0, true);
    let mut next = |wait: bool| {
        // one picture alone at first: its result is there soonest
        let most = if std::mem::take(&mut first) { rayon::current_num_threads() } else { args.batch_size as usize };
        if interrupt::asked() { Ok(Next::End) } else { source.next(most.min(args.batch_size as usize), wait) }
    };
    let mut on_prediction = |p: Prediction| {
        scored += 1;
        flaws += usize::from(p.flaw);
        if let Some(maps) = &maps {
            maps.write(&p)?;
        }
        Ok(if printer.prediction(&p) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    };
    let result = predict(&detector, options, &mut next, &mut on_prediction, &mut |event| display.show(event));
    display.finish();
    result.map_err(failed)?;
    context.console.note(&format!("{flaws} of {scored} pictures are flawed"));
    if flaws > 0 && args.fail_on_flaw { Err(Failure::Flawed { flaws, scored }) } else { Ok(()) }
}
