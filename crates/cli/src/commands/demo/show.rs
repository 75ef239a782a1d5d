//! Steps, and the commands that they run.

use std::cell::Cell;
use std::ffi::OsString;

use serde_json::{Value, json};

use crate::Context;
use crate::commands;
use crate::console::{self, out};
use crate::failure::Failure;
use crate::settings::{self, Refusal};

/// Characters of a word that are shown.
const MOST_SHOWN: usize = 60;

/// Tells what happens, on standard output; nothing of it where the result is wanted as JSON or alone.
pub(super) struct Shown {
    context: Context,
    silent: bool,
    steps: Cell<usize>,
}

impl Shown {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            silent: context.json || context.console.quiet(),
            steps: Cell::new(0),
        }
    }

    pub(super) fn text(&self, text: &str) {
        if !self.silent {
            out(text);
        }
    }

    /// A new step.
    pub(super) fn step(&self, title: &str) {
        self.steps.set(self.steps.get() + 1);
        self.context
            .console
            .event("step", json!({"step": self.steps.get(), "title": title}));
        self.text(&format!("\n{}. {title}", self.steps.get()));
    }

    /// Shows a command and runs it, with a bar where the demonstration has one; gives what it prints as JSON, null if that
    /// is nothing or several things.
    ///
    /// # Errors
    /// As the command.
    pub(super) fn command(&self, line: &[&str]) -> Result<Value, Failure> {
        // a paragraph would hide the command
        let short = |word: &&str| match word.char_indices().nth(MOST_SHOWN) {
            Some((at, _)) => quoted(&format!("{}…", &word[..at])),
            None => quoted(word),
        };
        let typed: Vec<String> = line.iter().map(short).collect();
        self.text(&format!("  $ flawtune {}", typed.join(" ")));
        let words: Vec<OsString> = line.iter().map(OsString::from).collect();
        let (cli, settings) = settings::of_arguments(&words).map_err(|refusal| match refusal {
            Refusal::Failure(failure) => failure,
            Refusal::Clap(error) => Failure::Input(error.to_string()),
        })?;
        let context = Context {
            console: self.context.console.bars_only(),
            json: true,
            // as the process's own: there are a dozen
            settings: &*Box::leak(Box::new(settings)),
        };
        let (result, printed) = console::captured(|| commands::run(cli.command, context));
        result.map_err(|failure| match failure {
            // what is kept for --resume is of no use to somebody who typed 'demo'
            Failure::Interrupted(_) => {
                Failure::Interrupted("the same command starts the demonstration again".into())
            }
            other => other,
        })?;
        Ok(serde_json::from_str(&printed).unwrap_or_default())
    }
}

/// A word as a person would type it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=.,/\\:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_line_as_it_was() {
        let line = ["report", "a b", "it's", "", "--x=1,2", "é/ü", "$HOME"];
        let typed = line.map(quoted).join(" ");
        assert_eq!(shlex::split(&typed).unwrap(), line);
        assert_eq!(quoted("--x=1,2"), "--x=1,2");
    }
}
