//! A job's events for programs: docs/guides/progress.md.

use std::time::{Duration, Instant};

use flawtune::workflow::EpochReport;
use flawtune::workflow::Event;
use serde_json::{Map, Value, json};

use super::{Clock, stage};
use crate::console::{Console, warn};

/// No sooner after the last is the next event of a count written, its end apart.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes events as they come, and of counts now and then.
pub(super) struct Events {
    console: Console,
    category: Option<String>,
    tally: Tally,
}

impl Events {
    pub(super) fn new(console: Console, category: Option<String>) -> Self {
        Self {
            console,
            category,
            tally: Tally::new(console),
        }
    }

    pub(super) fn show(&mut self, event: &Event<'_>, clock: &Clock) {
        match event {
            Event::Download { file, done, total } => {
                let fields = json!({"file": file, "done": done, "total": total});
                self.tally
                    .show("download", file, fields, *total == Some(*done));
                return;
            }
            Event::Images(progress) => {
                let (label, done, total) = (stage(progress.stage), progress.done, progress.total);
                self.tally.images(label, done, total);
                return;
            }
            _ => self.finish(),
        }
        match event {
            Event::Note(text) => self.console.note(text),
            Event::Warning(text) => warn(text),
            Event::Training {
                part,
                trainable,
                frozen,
                images,
                hold_out,
                resumed_at,
                epochs,
            } => {
                let by_tensor: Map<String, Value> = trainable
                    .iter()
                    .map(|(name, n)| (name.clone(), json!(n)))
                    .collect();
                self.write(
                    "training",
                    json!({
                        "category": self.category,
                        "part": part.map(|p| p.0),
                        "parts": part.map(|p| p.1),
                        "resumed_at": resumed_at,
                        "epochs": epochs,
                        "trainable": trainable.iter().map(|(_, n)| n).sum::<usize>(),
                        "trainable_by_tensor": by_tensor,
                        "frozen": frozen,
                        "normals": images.0,
                        "defects": images.1,
                        "hold_out_normals": hold_out.0,
                        "hold_out_defects": hold_out.1,
                    }),
                );
            }
            Event::Epoch(report) => self.epoch(report, clock),
            Event::Oddest(images) => self.write("oddest", json!({"images": images})),
            Event::Scoring(what) => self.write("scoring", json!({"text": what})),
            _ => {}
        }
    }

    /// Writes the last count, if it was held back.
    pub(super) fn finish(&mut self) {
        self.tally.finish();
    }

    fn write(&self, name: &str, fields: Value) {
        self.console.event(name, fields);
    }

    fn epoch(&self, report: &EpochReport, clock: &Clock) {
        let r = &report.record;
        // numbers that are not finite are null in JSON
        self.write(
            "epoch",
            json!({
                "category": self.category,
                "part": clock.part.map(|p| p.0),
                "epoch": r.epoch,
                "epochs": clock.epochs,
                "loss": r.loss,
                "separability": r.separability,
                "mu_nn": r.mu_nn,
                "mu_nd": r.mu_nd,
                "hold_out": r.hold_out,
                "learning_rate": r.learning_rate,
                "grad_norm": r.grad_norm,
                "seconds": report.seconds,
                "eta_seconds": clock.left(r.epoch),
            }),
        );
    }
}

/// How far something has come, written not too often: at its start, at its end, and after a pause.
pub(crate) struct Tally {
    console: Console,
    /// What is counted, and when it was written last.
    last: Option<(String, Instant)>,
    held: Option<(&'static str, Value)>,
}

impl Tally {
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            last: None,
            held: None,
        }
    }

    pub(crate) fn images(&mut self, stage: &str, done: usize, total: usize) {
        let fields = json!({"stage": stage, "done": done, "total": total});
        self.show("images", stage, fields, done >= total);
    }

    fn show(&mut self, event: &'static str, what: &str, fields: Value, end: bool) {
        if self.last.as_ref().is_some_and(|(last, _)| last != what) {
            self.finish();
        }
        if !end
            && self
                .last
                .as_ref()
                .is_some_and(|(_, at)| at.elapsed() < PAUSE)
        {
            self.held = Some((event, fields));
            return;
        }
        self.held = None;
        self.console.event(event, fields);
        self.last = (!end).then(|| (what.to_owned(), Instant::now()));
    }

    pub(crate) fn finish(&mut self) {
        if let Some((event, fields)) = self.held.take() {
            self.console.event(event, fields);
        }
        self.last = None;
    }
}
