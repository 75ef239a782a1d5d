//! Where images come from: files, folders, patterns, standard input, a folder that is watched.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use flawtune::dataset::{FileKind, Ledger, LedgerEntry, Oddity, Watch, file_kind, gather};
use flawtune::workflow::{Next, WorkflowError};

use crate::console::warn;
use crate::failure::Failure;
use crate::interrupt;

/// Paths that a reader of standard input may be ahead.
const AHEAD: usize = 1024;
/// How often Ctrl-C is looked for while nothing comes.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A source of images that gives batches.
pub(super) enum Source {
    List(std::vec::IntoIter<PathBuf>),
    Stdin {
        lines: Receiver<Result<PathBuf, String>>,
        ended: bool,
    },
    Watch(Watch),
}

impl Source {
    /// The images named on the command line, and what was met besides; what lies in folders that are written to is no input,
    /// unless such a folder is one.
    pub(super) fn named(inputs: &[PathBuf], written: &[&Path]) -> Result<(Self, Ledger), Failure> {
        let mut ledger = Ledger::new();
        if inputs.iter().any(|i| i == Path::new("-")) {
            if inputs.len() > 1 {
                return Err(Failure::Input(
                    "- (standard input) stands alone\nhint: name no other image beside it".into(),
                ));
            }
            return Ok((Self::stdin(), ledger));
        }
        let mut list = Vec::new();
        for input in inputs {
            expand_telling(input, &mut list, &mut ledger)?;
        }
        for written in written.iter().filter_map(|w| w.canonicalize().ok()) {
            let named = |i: &PathBuf| i.canonicalize().is_ok_and(|i| i == written);
            if !inputs.iter().any(named) {
                list.retain(|path| !path.canonicalize().is_ok_and(|p| p.starts_with(&written)));
            }
        }
        Ok((Self::List(list.into_iter()), ledger))
    }

    fn stdin() -> Self {
        let (send, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let line = line.map(PathBuf::from).map_err(|e| e.to_string());
                let failed = line.is_err();
                if line.as_ref().is_ok_and(|p| p.as_os_str().is_empty()) {
                    continue;
                }
                if send.send(line).is_err() || failed {
                    break;
                }
            }
        });
        Self::Stdin {
            lines,
            ended: false,
        }
    }

    /// Whether an image that cannot be read will be given again.
    pub(super) fn tries_again(&mut self, path: &Path) -> bool {
        match self {
            Self::Watch(watch) => !watch.failed(path),
            _ => false,
        }
    }

    /// Takes down that an image is judged, or given up.
    pub(super) fn judged(&mut self, path: &Path, verdict: &str) {
        if let Self::Watch(watch) = self {
            watch.judged(path, verdict);
        }
    }

    /// The next batch of at most `most`; without `wait` only what is there.
    pub(super) fn next(&mut self, most: usize, wait: bool) -> Result<Next, WorkflowError> {
        match self {
            Self::List(list) => {
                let batch: Vec<PathBuf> = list.take(most).collect();
                Ok(if batch.is_empty() {
                    Next::End
                } else {
                    Next::Paths(batch)
                })
            }
            Self::Stdin { lines, ended } => {
                let unreadable =
                    |e| WorkflowError::Input(format!("standard input cannot be read: {e}"));
                let mut batch = Vec::new();
                if wait && !*ended {
                    match lines.recv_timeout(PAUSE) {
                        Ok(line) => batch.push(line.map_err(unreadable)?),
                        Err(RecvTimeoutError::Timeout) => return Ok(Next::NotNow),
                        Err(RecvTimeoutError::Disconnected) => *ended = true,
                    }
                }
                while batch.len() < most && !*ended {
                    match lines.try_recv() {
                        Ok(line) => batch.push(line.map_err(unreadable)?),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => *ended = true,
                    }
                }
                Ok(match (batch.is_empty(), *ended) {
                    (false, _) => Next::Paths(batch),
                    (true, true) => Next::End,
                    (true, false) => Next::NotNow,
                })
            }
            Self::Watch(watch) => {
                if interrupt::asked() {
                    return Ok(Next::End);
                }
                let start = Instant::now();
                let batch = watch.ready(most);
                if batch.is_empty() && wait {
                    // a large folder is not listed without a break
                    std::thread::sleep(PAUSE.max(4 * start.elapsed()).min(LONGEST_PAUSE));
                }
                Ok(if batch.is_empty() {
                    Next::NotNow
                } else {
                    Next::Paths(batch)
                })
            }
        }
    }
}

/// The images that an argument names; says what it names besides.
pub(crate) fn expand(input: &Path, list: &mut Vec<PathBuf>) -> Result<(), Failure> {
    expand_telling(input, list, &mut Ledger::new())
}

/// As [`expand`], and tells a ledger too.
fn expand_telling(input: &Path, list: &mut Vec<PathBuf>, told: &mut Ledger) -> Result<(), Failure> {
    let mut ledger = Ledger::new();
    let before = list.len();
    let what = if input.is_dir() {
        let found = gather(input, &mut ledger).map_err(|e| Failure::from_error(&e))?;
        list.extend(found);
        "no images in this folder"
    } else if let Some(pattern) = pattern(input) {
        matching(pattern, list, &mut ledger)?;
        "no image matches this pattern"
    } else {
        list.push(input.to_owned());
        return Ok(());
    };
    let entries = ledger.entries();
    if list.len() == before {
        let besides: Vec<String> = entries.iter().map(LedgerEntry::line).collect();
        let besides = if besides.is_empty() {
            String::new()
        } else {
            format!(" that can be read; {}", besides.join("; "))
        };
        return Err(Failure::Input(format!(
            "{}: {what}{besides}",
            input.display()
        )));
    }
    for entry in entries.iter().filter(|e| !e.oddity.is_harmless()) {
        warn(&entry.line());
    }
    told.merge(&ledger);
    Ok(())
}

/// The input as a pattern; a file that exists is meant, whatever characters its name has.
fn pattern(input: &Path) -> Option<&str> {
    let text = input.to_str()?;
    (!input.exists() && text.contains(['*', '?', '['])).then_some(text)
}

fn matching(pattern: &str, list: &mut Vec<PathBuf>, ledger: &mut Ledger) -> Result<(), Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::Input(format!("{pattern}: {e}"));
    for path in glob::glob(pattern).map_err(|e| wrong(&e))? {
        let path = path.map_err(|e| wrong(&e))?;
        if !path.is_file() {
            continue;
        }
        let shown = path.display().to_string();
        match file_kind(&path) {
            FileKind::Image => list.push(path),
            FileKind::Foreign(format) => {
                ledger.add(Oddity::UnreadFormat, format!("{shown} ({format})"));
            }
            FileKind::Own => ledger.add(Oddity::OwnOutput, shown),
            FileKind::Other => {}
        }
    }
    Ok(())
}
