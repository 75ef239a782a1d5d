//! Runs a study's runs, some at once, and records each when it is over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{AblateError, RunResult, RunSpec, Status, Study, io_error};

/// How many runs at once, and what each may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jobs {
    /// Runs at once, at least 1.
    pub at_once: usize,
    /// Threads of each, at least 1.
    pub threads: usize,
}

impl Jobs {
    /// `threads` shared out: as many runs at once as asked for (or as there are threads), never more than runs.
    pub fn share(threads: usize, asked: Option<usize>, runs: usize) -> Self {
        let at_once = asked.unwrap_or(threads).clamp(1, runs.max(1));
        Self {
            at_once,
            threads: (threads / at_once).max(1),
        }
    }
}

/// What a run gives the one who runs it.
#[derive(Debug)]
pub enum Ended {
    /// It is over, well or badly, with its warnings.
    Over(Status, Vec<String>),
    /// It was told to stop and left no result.
    Stopped,
}

/// The results that are there, in the study's order; `None` for runs that are not over, and with `retry` for those that failed.
///
/// # Errors
/// A result that cannot be read, or that is of another study.
pub fn results(study: &Study, retry: bool) -> Result<Vec<Option<RunResult>>, AblateError> {
    let one = |spec: &RunSpec| {
        let found = RunResult::read(&study.folder.join(spec.folder()), spec)?;
        Ok(found.filter(|r| !(retry && r.finished().is_none())))
    };
    study.runs.iter().map(one).collect()
}

/// Runs what has no result in `results`, each by `run` in a thread pool of its own. `on_over` hears of each that is over.
/// Once `cancel` is raised no further run starts. Returns the results that are there then.
///
/// A run depends on nothing but its spec, so neither the order nor the number at once changes a result.
///
/// # Errors
/// A result that cannot be written; then nothing more is started.
pub fn execute(
    study: &Study,
    mut results: Vec<Option<RunResult>>,
    jobs: Jobs,
    cancel: &AtomicBool,
    run: &(dyn Fn(&RunSpec) -> Ended + Sync),
    on_over: &(dyn Fn(&RunResult) + Sync),
) -> Result<Vec<Option<RunResult>>, AblateError> {
    let open: Vec<usize> = (0..results.len())
        .filter(|&i| results[i].is_none())
        .collect();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<AblateError>> = Mutex::new(None);
    let fresh: Mutex<Vec<(usize, RunResult)>> = Mutex::new(Vec::new());
    let work = || -> Result<(), AblateError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(jobs.threads)
            .build()
            .map_err(|e| io_error(&study.folder)(std::io::Error::other(e)))?;
        loop {
            let stop = cancel.load(Ordering::SeqCst) || failure.lock().is_ok_and(|f| f.is_some());
            let Some(&at) = open
                .get(next.fetch_add(1, Ordering::SeqCst))
                .filter(|_| !stop)
            else {
                return Ok(());
            };
            let spec = &study.runs[at];
            let folder = study.folder.join(spec.folder());
            let start = Instant::now();
            let (status, warnings) = match pool.install(|| run(spec)) {
                Ended::Over(status, warnings) => (status, warnings),
                Ended::Stopped => continue,
            };
            let result = RunResult::new(spec, status, warnings, start.elapsed().as_secs_f64());
            result.write(&folder)?;
            on_over(&result);
            fresh
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.at_once.min(open.len()) {
            scope.spawn(|| {
                if let Err(e) = work() {
                    failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(e);
                }
            });
        }
    });
    if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    for (at, result) in fresh.into_inner().unwrap_or_else(PoisonError::into_inner) {
        results[at] = Some(result);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn study(folder: &Path) -> Study {
        let axes = vec!["a=1,2,3".parse().unwrap()];
        let mut study = Study::new(folder.to_owned(), axes, vec!["x".into()], vec![0, 1]).unwrap();
        for spec in &mut study.runs {
            spec.key = format!("{} {}", spec.settings(), spec.seed);
        }
        study
    }

    fn failed(text: &str) -> Ended {
        Ended::Over(Status::Failed { error: text.into() }, vec![])
    }

    #[test]
    fn what_is_over_is_not_repeated_and_what_failed_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let study = study(folder.path());
        let count = AtomicUsize::new(0);
        let go = AtomicBool::new(false);
        let one = |_: &RunSpec| {
            count.fetch_add(1, Ordering::SeqCst);
            failed("no")
        };
        let jobs = Jobs {
            at_once: 2,
            threads: 1,
        };
        let first = execute(
            &study,
            results(&study, false).unwrap(),
            jobs,
            &go,
            &one,
            &|_| (),
        )
        .unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 6);
        assert!(
            first
                .iter()
                .zip(&study.runs)
                .all(|(r, s)| r.as_ref().is_some_and(|r| r.seed == s.seed))
        );
        let again = execute(
            &study,
            results(&study, false).unwrap(),
            jobs,
            &go,
            &one,
            &|_| (),
        )
        .unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 6);
        assert_eq!(first, again);
        execute(
            &study,
            results(&study, true).unwrap(),
            jobs,
            &go,
            &one,
            &|_| (),
        )
        .unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 12);
    }

    #[test]
    fn nothing_starts_after_a_stop_and_a_stopped_run_is_not_over() {
        let folder = tempfile::tempdir().unwrap();
        let study = study(folder.path());
        let stop = AtomicBool::new(false);
        let one = |spec: &RunSpec| {
            if spec.seed == 1 {
                stop.store(true, Ordering::SeqCst);
                return Ended::Stopped;
            }
            failed("no")
        };
        let got = execute(
            &study,
            results(&study, false).unwrap(),
            Jobs {
                at_once: 1,
                threads: 1,
            },
            &stop,
            &one,
            &|_| (),
        )
        .unwrap();
        assert_eq!(got.iter().flatten().count(), 1);
        assert!(got[0].is_some());
    }

    #[test]
    fn a_result_of_another_study_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut study = study(folder.path());
        let go = AtomicBool::new(false);
        let jobs = Jobs::share(4, None, 6);
        assert_eq!(
            jobs,
            Jobs {
                at_once: 4,
                threads: 1
            }
        );
        let one = |_: &RunSpec| failed("no");
        execute(
            &study,
            results(&study, false).unwrap(),
            jobs,
            &go,
            &one,
            &|_| (),
        )
        .unwrap();
        study.runs[2].key = "other".into();
        let error = results(&study, false).unwrap_err();
        assert!(matches!(error, AblateError::Other { .. }), "{error}");
    }

    #[test]
    fn threads_are_shared_out() {
        assert_eq!(
            Jobs::share(8, Some(3), 100),
            Jobs {
                at_once: 3,
                threads: 2
            }
        );
        assert_eq!(
            Jobs::share(2, Some(9), 100),
            Jobs {
                at_once: 9,
                threads: 1
            }
        );
        assert_eq!(
            Jobs::share(8, None, 2),
            Jobs {
                at_once: 2,
                threads: 4
            }
        );
        assert_eq!(
            Jobs::share(0, None, 0),
            Jobs {
                at_once: 1,
                threads: 1
            }
        );
    }
}
