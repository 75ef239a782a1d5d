//! Shows a job's events: one bar at a time and a line for each epoch where nobody watches a bar, or JSON for programs.

mod json;

use std::time::Instant;

use flawtune::features::{Progress, Stage};
use flawtune::workflow::{EpochReport, Event, OddImage};
use indicatif::ProgressBar;

use self::json::Events;
pub(crate) use self::json::Tally;
use crate::console::{Console, warn};
use crate::interrupt;

/// Where the training at hand stands.
struct Clock {
    started: Instant,
    resumed_at: usize,
    epochs: usize,
    part: Option<(usize, usize)>,
    /// Whether training may end before the last epoch.
    may_stop: bool,
}

impl Clock {
    /// Seconds that the epochs after `epoch` will take, if each takes as long as those so far.
    fn left(&self, epoch: usize) -> f64 {
        let done = epoch.saturating_sub(self.resumed_at).max(1);
        let each = self.started.elapsed().as_secs_f64() / done as f64;
        each * self.epochs.saturating_sub(epoch) as f64
    }
}

pub(crate) struct Display {
    console: Console,
    bar: Option<(&'static str, ProgressBar)>,
    clock: Clock,
    events: Option<Events>,
}

impl Display {
    pub(crate) fn new(console: Console) -> Self {
        Self::of(console, None)
    }

    /// As [`new`](Self::new); programs are told the category.
    pub(crate) fn of(console: Console, category: Option<&str>) -> Self {
        let clock = Clock {
            started: Instant::now(),
            resumed_at: 0,
            epochs: 0,
            part: None,
            may_stop: false,
        };
        let events = console
            .json()
            .then(|| Events::new(console, category.map(str::to_owned)));
        Self {
            console,
            bar: None,
            clock,
            events,
        }
    }

    pub(crate) fn show(&mut self, event: Event<'_>) {
        if let Event::Training {
            part,
            resumed_at,
            epochs,
            hold_out,
            ..
        } = event
        {
            interrupt::training_starts();
            self.clock = Clock {
                started: Instant::now(),
                resumed_at,
                epochs,
                part,
                // the parts of a cross-validation are trained to the end
                may_stop: part.is_none() && hold_out.1 > 0,
            };
        }
        match &mut self.events {
            Some(events) => events.show(&event, &self.clock),
            None => self.draw(event),
        }
    }

    fn draw(&mut self, event: Event<'_>) {
        match event {
            Event::Note(text) => self.text(|c| c.note(&text)),
            Event::Warning(text) => self.text(|_| warn(&text)),
            Event::Download { file, done, total } => {
                let console = self.console;
                let bar = self.bar("download", || {
                    console.bytes_bar(total.unwrap_or(done), "download")
                });
                bar.set_message(file.to_owned());
                bar.set_position(done);
            }
            Event::Images(progress) => self.images(progress),
            Event::Training {
                trainable,
                frozen,
                images,
                hold_out,
                resumed_at,
                epochs,
                ..
            } => {
                self.finish();
                let count: usize = trainable.iter().map(|(_, n)| n).sum();
                let parts: Vec<String> = trainable
                    .iter()
                    .map(|(name, n)| format!("{name} {}", thousands(*n)))
                    .collect();
                self.console.note(&format!(
                    "training {} numbers ({}); {} frozen",
                    thousands(count),
                    parts.join(", "),
                    thousands(frozen)
                ));
                self.console.note(&format!(
                    "on {} normal and {} defect images; {}",
                    images.0,
                    images.1,
                    if hold_out.1 == 0 {
                        "no hold-out: the last epoch is kept".to_owned()
                    } else {
                        format!(
                            "{} normal and {} defect images held out to choose the epoch",
                            hold_out.0, hold_out.1
                        )
                    }
                ));
                if resumed_at > 0 {
                    self.console
                        .note(&format!("going on after epoch {resumed_at} of {epochs}"));
                }
            }
            Event::Epoch(report) => self.epoch(report),
            Event::Oddest(images) => self.oddest(images),
            Event::Scoring(what) => {
                self.finish();
                self.console.note(&format!("scoring: {what}"));
            }
            _ => {}
        }
    }

    fn oddest(&mut self, images: &[OddImage]) {
        if images.is_empty() {
            return;
        }
        let some = images.iter().any(OddImage::stands_out);
        let mut lines = vec![if some {
            "look at the oddest good images: are they good? (--exclude leaves out those that are not)"
                .to_owned()
        } else {
            "the oddest good images; none stands out".to_owned()
        }];
        lines.extend(images.iter().map(|odd| {
            let out = if odd.stands_out() { ", stands out" } else { "" };
            let (score, deviations) = (odd.score, odd.deviations);
            format!(
                "  {score:.3}, {deviations:.1} deviations{out}  {}",
                odd.image
            )
        }));
        self.text(|console| lines.iter().for_each(|line| console.note(line)));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(events) = &mut self.events {
            events.finish();
        }
    }

    fn text(&mut self, print: impl Fn(Console)) {
        let console = self.console;
        match &self.bar {
            Some((_, bar)) => bar.suspend(|| print(console)),
            None => print(console),
        }
    }

    fn bar(&mut self, kind: &'static str, make: impl FnOnce() -> ProgressBar) -> &ProgressBar {
        if self.bar.as_ref().is_some_and(|(k, _)| *k != kind) {
            self.finish();
        }
        &self.bar.get_or_insert_with(|| (kind, make())).1
    }

    fn images(&mut self, progress: Progress) {
        let label = stage(progress.stage);
        let console = self.console;
        let bar = self.bar(label, || {
            console.bar(progress.total as u64, label, "images")
        });
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.done >= progress.total {
            self.finish();
        }
    }

    fn epoch(&mut self, report: &EpochReport) {
        let r = &report.record;
        let left = self.clock.left(r.epoch);
        let epochs = self.clock.epochs;
        // what is waited for comes first: a narrow terminal cuts the end off
        let line = format!(
            "epoch {:>4}/{epochs}{}  ETA {}{left:.0} s  loss {:.4}  separability {:.4}  μ_nn {:.4}  μ_nd {:.4}  lr {:.2e}",
            r.epoch,
            r.hold_out
                .map_or(String::new(), |h| format!("  hold-out {h:.4}")),
            if self.clock.may_stop { "at most " } else { "" },
            r.loss,
            r.separability,
            r.mu_nn,
            r.mu_nd,
            r.learning_rate,
        );
        if self.console.live() {
            let (console, total) = (self.console, epochs as u64);
            let bar = self.bar("training", || console.epochs_bar(total));
            bar.set_position(r.epoch as u64);
            bar.set_message(line);
        } else if self.console.lines() {
            self.console.note(&line);
        }
    }
}

/// What is done with images, as it is shown.
fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Reading => "reading",
        Stage::Extracting => "features",
        Stage::Comparing => "comparing",
    }
}

/// `21596544` as `21,596,544`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 21_596_544].map(thousands),
            ["0", "999", "1,000", "21,596,544"]
        );
    }
}
