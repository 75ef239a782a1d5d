//! How a command ends when it does not succeed: one message, one exit code.

use std::fmt;
use std::io;

/// What Unix systems call a failing device; the standard library has no kind for it.
const EIO: i32 = 5;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's input was wrong: exit code 2.
    Input(String),
    /// The machine failed (disk, memory): exit code 1.
    Machine(String),
    /// Ctrl-C: exit code 130; the text says what was kept.
    Interrupted(String),
    /// Some parts of a larger job failed, the others are done: exit code 1.
    Incomplete(String),
    /// `--fail-on-flaw` and images that are flawed: exit code 1.
    Flawed {
        /// Flawed images.
        flaws: usize,
        /// Images scored.
        scored: usize,
    },
    /// A repetition that did not give the same: exit code 1.
    Differs {
        /// Files that differ.
        files: usize,
        /// Files compared.
        compared: usize,
    },
}

impl Failure {
    /// From any error of the library: the machine's if a full or failing disk or memory is at the bottom of it, a wrong
    /// input otherwise. Its sources are appended where their text adds something.
    pub(crate) fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let text = chain(error);
        if is_machine(error) {
            Self::Machine(text)
        } else {
            Self::Input(text)
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Machine(_) | Self::Incomplete(_) | Self::Flawed { .. } | Self::Differs { .. } => {
                1
            }
            Self::Input(_) => 2,
            Self::Interrupted(_) => 130,
        }
    }

    /// What kind of end it is, for programs: exit code 1 has several.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Machine(_) => "machine",
            Self::Interrupted(_) => "interrupted",
            Self::Incomplete(_) => "incomplete",
            Self::Flawed { .. } => "flawed",
            Self::Differs { .. } => "differs",
        }
    }

    /// What happened, without its kind.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Input(m) | Self::Machine(m) | Self::Incomplete(m) | Self::Interrupted(m) => {
                m.clone()
            }
            Self::Differs { files, compared } => format!("{files} of {compared} files"),
            Self::Flawed { flaws, scored } => {
                format!("{flaws} of {scored} images (--fail-on-flaw)")
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Input(_) | Self::Machine(_) | Self::Incomplete(_) => "error",
            Self::Interrupted(_) => "interrupted",
            Self::Flawed { .. } => "flawed",
            Self::Differs { .. } => "differs",
        };
        write!(f, "{kind}: {}", self.message())
    }
}

/// Whether the machine failed, where no other input would have helped.
fn is_machine(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source()).any(|e| {
        e.downcast_ref::<io::Error>().is_some_and(|e| {
            use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull, WriteZero};
            matches!(
                e.kind(),
                StorageFull | QuotaExceeded | WriteZero | OutOfMemory
            ) || (cfg!(unix) && e.raw_os_error() == Some(EIO))
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::workflow::WorkflowError;

    #[test]
    fn a_full_disk_is_the_machines_failure() {
        let failure = |kind: io::ErrorKind| {
            Failure::from_error(&WorkflowError::Io {
                path: "f".into(),
                source: kind.into(),
                hint: "h",
            })
        };
        assert!(matches!(
            failure(io::ErrorKind::StorageFull),
            Failure::Machine(_)
        ));
        assert!(matches!(
            failure(io::ErrorKind::NotADirectory),
            Failure::Input(_)
        ));
    }
}
