//! What the user sees while a command runs: bars, epoch lines, notes. All of it goes to standard error.

mod drawn;
mod flags;
mod json;

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::ProgressArg;
use crate::failure::Failure;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Bars,
    /// On no terminal.
    DrawnBars,
    Lines,
    Json,
    Nothing,
}

/// Where progress and notes go, and whether they are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    quiet: bool,
    how: How,
    started: Instant,
}

impl Console {
    /// `command` names the running command in JSON lines.
    pub(crate) fn new(progress: ProgressArg, quiet: bool, command: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let how = match progress {
            ProgressArg::Json => How::Json,
            _ if quiet => How::Nothing,
            ProgressArg::Auto | ProgressArg::Bars if terminal => How::Bars,
            ProgressArg::Bars => How::DrawnBars,
            ProgressArg::Auto | ProgressArg::Plain => How::Lines,
            ProgressArg::None => How::Nothing,
        };
        if how == How::Json {
            json::start(Some(command));
        }
        Self {
            quiet,
            how,
            started: Instant::now(),
        }
    }

    /// The same without notes and lines: bars at most, for a command inside of another.
    pub(crate) fn bars_only(self) -> Self {
        let how = if self.live() || self.json() {
            self.how
        } else {
            How::Nothing
        };
        Self {
            quiet: true,
            how,
            ..self
        }
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn quiet(self) -> bool {
        self.quiet
    }

    /// Whether bars are drawn.
    pub(crate) fn live(self) -> bool {
        matches!(self.how, How::Bars | How::DrawnBars)
    }

    /// Whether an epoch gets a line.
    pub(crate) fn lines(self) -> bool {
        self.how == How::Lines
    }

    /// Whether a program reads along: [`event`](Self::event) writes then, and only then.
    pub(crate) fn json(self) -> bool {
        self.how == How::Json
    }

    /// One line of progress for programs; `fields` is an object.
    pub(crate) fn event(self, name: &str, fields: Value) {
        if self.json() && !self.quiet {
            json::event(name, fields);
        }
    }

    /// The end of a command that succeeded.
    pub(crate) fn done(self) {
        if self.json() {
            let seconds = self.started.elapsed().as_secs_f64();
            json::event("done", json!({"exit_code": 0, "seconds": seconds}));
        }
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
        self.styled(total, "training", "{prefix:>10} {bar:12} {wide_msg}")
    }

    fn styled(self, total: u64, label: &'static str, template: &str) -> ProgressBar {
        let target = match self.how {
            How::Bars => ProgressDrawTarget::stderr(),
            How::DrawnBars => ProgressDrawTarget::term_like_with_hz(Box::new(drawn::Drawn), 5),
            _ => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style)
            .with_prefix(label);
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
    if json::on() {
        json::event("warning", json!({"text": flags::named(text)}));
    } else {
        line(&format!("warning: {text}"));
    }
}

/// Writes one line to standard error; a closed pipe is not worth a panic.
pub(crate) fn line(text: &str) {
    let text = flags::named(text);
    if json::on() {
        json::event("note", json!({"text": text}));
    } else {
        drop(writeln!(std::io::stderr().lock(), "{text}"));
    }
}

/// The last line of a command that did not succeed.
pub(crate) fn failed(failure: &Failure) {
    if json::on() {
        let (message, hints) = failure.parts();
        let mut fields = json!({
            "kind": failure.kind(),
            "message": flags::named(&message),
            "exit_code": failure.exit_code(),
        });
        if !hints.is_empty() {
            fields["hint"] = flags::named(&hints.join("\n")).into();
        }
        json::event("error", fields);
    } else {
        line(&failure.to_string());
    }
}

/// The last line after a Ctrl-C that leaves nothing behind.
pub(crate) fn interrupted() {
    if json::on() {
        failed(&Failure::Interrupted("nothing is kept".into()));
    } else {
        line("interrupted");
    }
}

/// As [`failed`], where there is no console yet: what the arguments say of JSON holds all the same.
pub(crate) fn refused(failure: &Failure, wants_json: bool) {
    if wants_json {
        json::start(None);
    }
    failed(failure);
}

/// What [`out`] was given since it began to be captured.
static CAPTURED: Mutex<Option<String>> = Mutex::new(None);

/// Does some work, and gives what it would have written to standard output.
pub(crate) fn captured<T>(work: impl FnOnce() -> T) -> (T, String) {
    let take = |next| {
        std::mem::replace(
            &mut *CAPTURED.lock().unwrap_or_else(PoisonError::into_inner),
            next,
        )
    };
    let before = take(Some(String::new()));
    let result = work();
    (result, take(before).unwrap_or_default())
}

/// What went wrong first with standard output, unless it was only closed.
static UNWRITTEN: Mutex<Option<String>> = Mutex::new(None);

/// Writes one line to standard output. A closed pipe (`| head`) is not worth a word; any other failure ends the command
/// in [`unwritten`].
pub(crate) fn out(text: &str) {
    sent(text);
}

/// As [`out`], and sends it off; false if it did not arrive: it was not written, or the reader has gone.
pub(crate) fn sent(text: &str) -> bool {
    if let Some(captured) = &mut *CAPTURED.lock().unwrap_or_else(PoisonError::into_inner) {
        captured.push_str(text);
        captured.push('\n');
        return true;
    }
    let mut out = std::io::stdout().lock();
    arrived(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Writes a file to standard output, as [`out`].
pub(crate) fn out_file(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    arrived(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Whether a write arrived; the first that failed for another reason than a closed pipe is kept.
fn arrived(written: std::io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    if error.kind() != ErrorKind::BrokenPipe {
        let mut first = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_string());
    }
    false
}

/// The failure of a command whose result did not reach standard output, whatever else it did.
pub(crate) fn unwritten() -> Option<Failure> {
    let first = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    first.as_ref().map(|error| {
        Failure::Machine(format!(
            "cannot write to standard output: {error}; what was printed is not all of the result\n\
             hint: make room, or send the output to another place"
        ))
    })
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
