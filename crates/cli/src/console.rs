//! What the user sees while a command runs: bars, epoch lines, notes. All of it goes to standard error.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

/// Where progress and notes go, and whether they are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    quiet: bool,
    terminal: bool,
}

impl Console {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal() }
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn quiet(self) -> bool {
        self.quiet
    }

    /// Whether a person watches: bars are drawn only then.
    pub(crate) fn live(self) -> bool {
        self.terminal && !self.quiet
    }

    /// A bar over `total` things; invisible when quiet or not on a terminal.
    pub(crate) fn bar(self, total: u64, label: &'static str, unit: &'static str) -> ProgressBar {
        let template = format!(
            "{{prefix:>10}} {{bar:32}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{elapsed_precise}} (ETA {{eta}})  {{msg}}"
        );
        self.styled(total, label, &template)
    }

    /// A bar over bytes, for downloads.
    pub(crate) fn bytes_bar(self, total: u64, label: &'static str) -> ProgressBar {
        self.styled(
            total,
            label,
            "{prefix:>10} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  (ETA {eta})  {msg}",
        )
    }

    /// A bar over epochs; its message is the epoch's line.
    pub(crate) fn epochs_bar(self, total: u64) -> ProgressBar {
        self.styled(total, "training", "{prefix:>10} {bar:20} {wide_msg}")
    }

    fn styled(self, total: u64, label: &'static str, template: &str) -> ProgressBar {
        let target = if self.live() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style).with_prefix(label);
        if self.live() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// One line of information.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            line(text);
        }
    }
}

/// One line that stays even with `--quiet`: something the user must know to trust the result.
pub(crate) fn warn(text: &str) {
    line(&format!("warning: {text}"));
}

/// Writes one line to standard error; a closed pipe is not worth a panic.
pub(crate) fn line(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Writes one line to standard output; a closed pipe (`| head`) is not worth a panic.
pub(crate) fn out(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Writes a result to standard output as one line of JSON.
pub(crate) fn out_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|e| Failure::Machine(format!("cannot write the result as JSON: {e}")))?;
    out(&text);
    Ok(())
}

/// A size for people: `44.1 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    HumanBytes(n).to_string()
}
