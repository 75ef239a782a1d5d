//! How a command ends when it does not succeed: one message, one exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's input was wrong: exit code 2.
    Input(String),
    /// The machine failed (disk, memory): exit code 1.
    Machine(String),
    /// Ctrl-C: exit code 130; the text says what was kept.
    Interrupted(String),
}

impl Failure {
    /// A wrong input from any error; its sources are appended where their text adds something.
    pub(crate) fn input(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Input(chain(error))
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Machine(_) => 1,
            Self::Input(_) => 2,
            Self::Interrupted(_) => 130,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(m) | Self::Machine(m) => write!(f, "error: {m}"),
            Self::Interrupted(m) => write!(f, "interrupted: {m}"),
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
