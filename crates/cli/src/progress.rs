//! Draws a job's events: one bar at a time, and a line for each epoch where nobody watches a bar.

use std::time::Instant;

use flawtune::adapt::EpochReport;
use flawtune::features::{Progress, Stage};
use flawtune::workflow::Event;
use indicatif::ProgressBar;

use crate::console::{Console, warn};
use crate::interrupt;

pub(crate) struct Display {
    console: Console,
    bar: Option<(&'static str, ProgressBar)>,
    training: Instant,
    resumed_at: usize,
}

impl Display {
    pub(crate) fn new(console: Console) -> Self {
        Self { console, bar: None, training: Instant::now(), resumed_at: 0 }
    }

    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Note(text) => self.text(|c| c.note(&text)),
            Event::Warning(text) => self.text(|_| warn(&text)),
            Event::Download { file, done, total } => {
                let console = self.console;
                let bar = self.bar("download", || console.bytes_bar(total.unwrap_or(done), "download"));
                bar.set_message(file.to_owned());
                bar.set_position(done);
            }
            Event::Images(progress) => self.images(progress),
            Event::Training { trainable, frozen, images, hold_out, resumed_at, epochs } => {
                self.finish();
                interrupt::training_starts();
                let count: usize = trainable.iter().map(|(_, n)| n).sum();
                let parts: Vec<String> =
                    trainable.iter().map(|(name, n)| format!("{name} {}", thousands(*n))).collect();
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
                    self.console.note(&format!("going on after epoch {resumed_at} of {epochs}"));
                }
                self.resumed_at = resumed_at;
                self.training = Instant::now();
            }
            Event::Epoch(report) => self.epoch(report),
            Event::Scoring(what) => {
                self.finish();
                self.console.note(&format!("scoring: {what}"));
            }
            _ => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
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
        let label = match progress.stage {
            Stage::Reading => "reading",
            Stage::Extracting => "features",
        };
        let console = self.console;
        let bar = self.bar(label, || console.bar(progress.total as u64, label, "images"));
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.done >= progress.total {
            self.finish();
        }
    }

    fn epoch(&mut self, report: &EpochReport) {
        let r = &report.record;
        let done = (r.epoch - self.resumed_at).max(1);
        let each = self.training.elapsed().as_secs_f64() / done as f64;
        let left = each * (report.epochs - r.epoch) as f64;
        let line = format!(
            "epoch {:>4}/{}  loss {:>9.4}  separability {:>8.4}  μ_nn {:.4}  μ_nd {:.4}{}  lr {:.2e}",
            r.epoch,
            report.epochs,
            r.loss,
            r.separability,
            r.mu_nn,
            r.mu_nd,
            r.hold_out.map_or(String::new(), |h| format!("  hold-out {h:.4}")),
            r.learning_rate,
        );
        if self.console.live() {
            let (console, total) = (self.console, report.epochs as u64);
            let bar = self.bar("training", || console.epochs_bar(total));
            bar.set_position(r.epoch as u64);
            bar.set_message(format!("{line}  ETA {left:.0} s"));
        } else {
            self.console.note(&format!("{line}  ETA {left:.0} s"));
        }
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
        assert_eq!([0, 999, 1000, 21_596_544].map(thousands), ["0", "999", "1,000", "21,596,544"]);
    }
}
