//! `flawtune predict`

mod inputs;
mod output;
mod sorted;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flawtune::dataset::{Journal, Ledger, Oddity, Watch};
use flawtune::features::{BadImage, FeatureError};
use flawtune::workflow::{
    Detector, Event, NewThreshold, Next, OnEvent, PredictOptions, Predicted, WorkflowError,
    predict_past,
};
use flawtune_lab::workflow::checkpoint_tokens;
use serde_json::json;

use self::inputs::Source;
pub(crate) use self::inputs::expand;
use self::output::{Printer, verdict};
use self::sorted::{Sorted, UNREADABLE};
use super::maps::Maps;
use crate::Context;
use crate::args::{FormatArg, PredictArgs};
use crate::console::{self, Console};
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

/// Most pixels that a map is drawn with: patches tell no more of a larger image.
const MAP_PIXELS: usize = 1 << 24;

/// What is counted, and said now and then while a folder is watched.
struct Pulse {
    console: Console,
    every: Option<Duration>,
    last: Instant,
    scored: usize,
    flaws: usize,
    left_out: usize,
}

impl Pulse {
    fn new(console: Console, args: &PredictArgs) -> Self {
        let every = (args.watch.is_some() && args.heartbeat > 0)
            .then(|| Duration::from_secs(args.heartbeat.into()));
        Self {
            console,
            every,
            last: Instant::now(),
            scored: 0,
            flaws: 0,
            left_out: 0,
        }
    }

    /// The last notes; how many images were judged, and how many are flawed.
    fn sum_up(self) -> (usize, usize) {
        let (scored, flaws) = (self.scored, self.flaws);
        self.console
            .note(&format!("{flaws} of {scored} images are flawed"));
        if self.left_out > 0 {
            self.console.note(&format!(
                "{} images could not be read and are not judged",
                self.left_out
            ));
        }
        (scored, flaws)
    }

    fn beat(&mut self) {
        if self.every.is_none_or(|every| self.last.elapsed() < every) {
            return;
        }
        self.last = Instant::now();
        let (judged, flaws, unreadable) = (self.scored, self.flaws, self.left_out);
        if self.console.json() {
            let fields = json!({"judged": judged, "flaws": flaws, "unreadable": unreadable});
            self.console.event("heartbeat", fields);
        } else {
            self.console.note(&format!(
                "watching: {judged} judged, {flaws} flawed, {unreadable} unreadable"
            ));
        }
    }
}

/// Where files about images go.
struct Outlets<'a> {
    maps: Option<Maps<'a>>,
    sorted: Option<Sorted<'a>>,
    /// A service outlives a file that cannot be written.
    service: bool,
}

impl<'a> Outlets<'a> {
    fn new(args: &'a PredictArgs, detector: &'a Detector) -> Self {
        let maps = args.maps.as_ref().map(|folder| Maps {
            folder,
            format: args.map_format,
            scale: &detector.header().map,
            root: root(args),
        });
        let sorted = args.sort_into.as_ref().map(|folder| Sorted {
            folder,
            root: root(args),
        });
        Self {
            maps,
            sorted,
            service: args.watch.is_some(),
        }
    }

    /// Map, overlay and copy of an image.
    fn put(&self, p: &Predicted) -> Result<(), WorkflowError> {
        let written = self.maps.as_ref().map_or(Ok(()), |maps| maps.write(p));
        self.or_warn(written)?;
        self.sort(&p.path, verdict(p))
    }

    /// A copy under a verdict.
    fn sort(&self, path: &Path, verdict: &str) -> Result<(), WorkflowError> {
        let copied = self
            .sorted
            .as_ref()
            .map_or(Ok(()), |s| s.put(path, verdict));
        self.or_warn(copied)
    }

    fn or_warn(&self, written: Result<(), WorkflowError>) -> Result<(), WorkflowError> {
        match written {
            Err(e) if self.service => console::warn(&Failure::from_error(&e).text()),
            written => written?,
        }
        Ok(())
    }
}

/// The folder that paths of inputs are shortened by.
fn root(args: &PredictArgs) -> Option<PathBuf> {
    match (&args.watch, &args.images[..]) {
        (Some(folder), _) => Some(folder.clone()),
        (None, [folder]) if folder.is_dir() => Some(folder.clone()),
        _ => None,
    }
}

/// Where images come from, and what was met besides.
fn source(args: &PredictArgs) -> Result<(Source, Ledger), Failure> {
    if args.journal.is_some() && args.watch.is_none() {
        return Err(Failure::Input(
            "--journal is for a folder that is watched: name it with --watch".into(),
        ));
    }
    let written: Vec<&Path> = [&args.maps, &args.sort_into]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    for (folder, option) in [(&args.maps, "--maps"), (&args.sort_into, "--sort-into")] {
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|e| {
                Failure::Input(format!(
                    "{}: {e}; choose a folder that can be written with {option}",
                    folder.display()
                ))
            })?;
        }
    }
    let Some(folder) = &args.watch else {
        return Source::named(&args.images, &written);
    };
    let journal = args.journal.as_deref().map(|path| {
        Journal::open(path, console::warn).map_err(|e| {
            Failure::Input(format!(
                "{}: {e}\nhint: name a file that can be written with --journal",
                path.display()
            ))
        })
    });
    let watch = Watch::new(folder, &written, journal.transpose()?, console::warn);
    let watch = watch.map_err(|source| {
        Failure::from_error(&WorkflowError::Io {
            path: folder.clone(),
            source,
            hint: "name a folder that can be read with --watch",
        })
    })?;
    Ok((Source::Watch(watch), Ledger::new()))
}

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
    let (source, ledger) = source(args)?;
    let source = RefCell::new(source);
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
    let outlets = Outlets::new(args, &detector);
    let format = if context.json {
        FormatArg::Jsonl
    } else {
        args.format
    };
    let printer = RefCell::new(Printer::new(format, ledger));
    let options = PredictOptions {
        skip_bad_images: args.skip_bad_images,
        maps: args.maps.is_some(),
        max_map_pixels: Some(MAP_PIXELS),
        untaught: false,
    };
    let pulse = RefCell::new(Pulse::new(context.console, args));
    let mut next = |wait: bool| {
        pulse.borrow_mut().beat();
        if interrupt::asked() {
            Ok(Next::End)
        } else {
            source.borrow_mut().next(args.batch_size as usize, wait)
        }
    };
    let mut on_prediction = |p: Predicted| {
        let mut count = pulse.borrow_mut();
        count.scored += 1;
        count.flaws += usize::from(p.prediction.flaw);
        outlets.put(&p)?;
        let printed = printer.borrow_mut().prediction(&p);
        source.borrow_mut().judged(&p.path, verdict(&p));
        let goes_on = printed
            // the exit code speaks of every image, also where nobody reads the lines
            || (args.fail_on_flaw && args.watch.is_none() && console::unwritten().is_none());
        Ok(if goes_on {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    };
    let mut on_bad = |bad: BadImage, scored: usize, on_event: OnEvent<'_>| {
        if source.borrow_mut().tries_again(&bad.path) {
            return Ok(());
        }
        if !args.skip_bad_images && args.watch.is_none() {
            let (images, asked) = (vec![bad], scored + 1);
            return Err(FeatureError::BadImages { images, asked }.into());
        }
        pulse.borrow_mut().left_out += 1;
        let left_out = &mut printer.borrow_mut().intake;
        left_out.add(Oddity::Unreadable, bad.to_string());
        outlets.sort(&bad.path, UNREADABLE)?;
        source.borrow_mut().judged(&bad.path, UNREADABLE);
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
    // a folder that is watched has no last line
    printer.into_inner().end(args.watch.is_none());
    let (scored, flaws) = pulse.into_inner().sum_up();
    if flaws > 0 && args.fail_on_flaw {
        Err(Failure::Flawed { flaws, scored })
    } else {
        Ok(())
    }
}
