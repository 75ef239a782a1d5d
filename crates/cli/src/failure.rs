//! How a command ends when it does not succeed: one message, one exit code.

use std::fmt;
use std::io;

/// What Unix systems call a failing device; the standard library has no kind for it.
const EIO: i32 = 5;

/// How a line begins that says what to do.
const HINT: &str = "hint: ";

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

    /// What happened, without its kind, and what to do about it, a hint each.
    pub(crate) fn parts(&self) -> (String, Vec<String>) {
        let text = self.text();
        let (hints, what): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with(HINT));
        let hints = hints.into_iter().filter_map(|line| line.strip_prefix(HINT));
        (what.join("\n"), hints.map(str::to_owned).collect())
    }

    /// What happened, hints included, without its kind.
    pub(crate) fn text(&self) -> String {
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
        let (what, hints) = self.parts();
        write!(f, "{kind}: {what}")?;
        hints
            .iter()
            .try_for_each(|hint| write!(f, "\n{HINT}{hint}"))
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

/// The texts of an error and of its sources, where they add something, in one line; their hints follow.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut hints) = (String::new(), String::new());
    for error in std::iter::successors(Some(error), |e| e.source()) {
        let all = error.to_string();
        let (what, hint) = all.split_once("\nhint: ").unwrap_or((&all, ""));
        if !text.contains(what) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(what);
        }
        if !hint.is_empty() && !hints.contains(hint) {
            hints.push_str("\nhint: ");
            hints.push_str(hint);
        }
    }
    text + &hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::workflow::WorkflowError;

    #[test]
    fn hints_come_last_in_lines_of_their_own() {
        let failure = Failure::from_error(&WorkflowError::Io {
            path: "f".into(),
            source: io::Error::other("it broke"),
            hint: "mend it",
        });
        assert_eq!(failure.to_string(), "error: f: it broke\nhint: mend it");
        let failure = Failure::Input("a: no\nhint: say yes\n  more\nhint: or not".into());
        let hints = vec!["say yes".to_owned(), "or not".to_owned()];
        assert_eq!(failure.parts(), ("a: no\n  more".to_owned(), hints));
    }

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
