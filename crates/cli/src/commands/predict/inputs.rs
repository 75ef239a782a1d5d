//! Where pictures come from: files, folders, patterns, standard input, a folder that is watched.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use flawtune::dataset::{is_picture, pictures};
use flawtune::workflow::{Next, WorkflowError};

use super::watch::Watch;
use crate::failure::Failure;
use crate::interrupt;

/// Paths that a reader of standard input may be ahead.
const AHEAD: usize = 1024;
/// How often Ctrl-C is looked for while nothing comes.
const PAUSE: Duration = Duration::from_millis(100);

/// A source of pictures that gives batches.
pub(super) enum Source {
    List(std::vec::IntoIter<PathBuf>),
    Stdin {
        lines: Receiver<Result<PathBuf, String>>,
        ended: bool,
    },
    Watch(Watch),
}

impl Source {
    /// The pictures named on the command line.
    pub(super) fn named(inputs: &[PathBuf]) -> Result<Self, Failure> {
        if inputs.iter().any(|i| i == Path::new("-")) {
            if inputs.len() > 1 {
                return Err(Failure::Input(
                    "- (standard input) stands alone: name no other picture beside it".into(),
                ));
            }
            return Ok(Self::stdin());
        }
        let mut list = Vec::new();
        for input in inputs {
            expand(input, &mut list)?;
        }
        Ok(Self::List(list.into_iter()))
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
                let batch = watch.ready(most)?;
                if batch.is_empty() && wait {
                    std::thread::sleep(PAUSE);
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

/// The pictures that an argument names.
pub(crate) fn expand(input: &Path, list: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if input.is_dir() {
        let found = pictures(input).map_err(|e| Failure::from_error(&e))?;
        if found.is_empty() {
            return Err(Failure::Input(format!(
                "{}: no pictures in this folder",
                input.display()
            )));
        }
        list.extend(found);
        return Ok(());
    }
    // a file that exists is meant, whatever characters its name has
    let pattern = input
        .to_str()
        .filter(|t| !input.exists() && t.contains(['*', '?', '[']));
    let Some(pattern) = pattern else {
        list.push(input.to_owned());
        return Ok(());
    };
    let wrong = |e: &dyn std::fmt::Display| Failure::Input(format!("{pattern}: {e}"));
    let before = list.len();
    for path in glob::glob(pattern).map_err(|e| wrong(&e))? {
        let path = path.map_err(|e| wrong(&e))?;
        if path.is_file() && is_picture(&path) {
            list.push(path);
        }
    }
    if list.len() == before {
        return Err(Failure::Input(format!(
            "{pattern}: no picture matches this pattern"
        )));
    }
    Ok(())
}
