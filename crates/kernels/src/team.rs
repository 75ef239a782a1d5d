//! Phases of tasks on a thread pool, cheap enough for a barrier every few microseconds.
//!
//! Fork and join around every product of a transformer costs more than the products of one small image allow.
//! Here the threads enter once; in every phase they claim tasks from a counter, and nobody enters a phase before
//! all tasks of the one before are done. A thread that arrives late helps from where the others are, one that
//! never arrives is not missed: the caller alone would do all tasks. So it can't deadlock, whatever else the pool runs.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::profile::{Operator, time};

/// The claims and completions of one phase, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Progress {
    claimed: AtomicUsize,
    done: AtomicUsize,
}

/// Counters of a sequence of phases, kept between runs.
#[derive(Debug, Default)]
pub(crate) struct Team {
    progress: Vec<Progress>,
}

/// Turns of busy waiting before a thread offers its core to others.
const SPINS: u32 = 2000;

impl Team {
    /// Calls `work(worker, phase, task)` for every task of every phase (`tasks[phase]` of them), phase after
    /// phase, on up to `workers` threads of the current rayon pool; `worker` is below `workers` and no two
    /// threads share one at the same time.
    pub(crate) fn run(
        &mut self,
        workers: usize,
        tasks: &[usize],
        work: impl Fn(usize, usize, usize) + Sync,
    ) {
        self.progress
            .resize_with(tasks.len().max(self.progress.len()), Progress::default);
        for p in &mut self.progress {
            *p.claimed.get_mut() = 0;
            *p.done.get_mut() = 0;
        }
        let progress = &self.progress;
        let member = |worker: usize| {
            for (phase, (&count, p)) in tasks.iter().zip(progress).enumerate() {
                // looking first keeps a late thread from bumping the counters of finished phases
                while p.claimed.load(Ordering::Relaxed) < count {
                    let task = p.claimed.fetch_add(1, Ordering::Relaxed);
                    if task >= count {
                        break;
                    }
                    // a panicking task must not leave the others waiting for ever
                    let completion = Completion(&p.done);
                    work(worker, phase, task);
                    drop(completion);
                }
                // Acquire pairs with the Release of `Completion`: all writes of the phase are visible after it
                if p.done.load(Ordering::Acquire) >= count {
                    continue;
                }
                time(Operator::Wait, || {
                    let mut spins = 0;
                    while p.done.load(Ordering::Acquire) < count {
                        spins += 1;
                        if spins < SPINS {
                            std::hint::spin_loop();
                        } else {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        };
        enter(0..workers.max(1), &member);
    }
}

/// Runs `member` for every worker of the range, the first one on this thread. Through `join` and not through a scope: its
/// jobs lie on the stack, so nothing is allocated.
fn enter(workers: Range<usize>, member: &(impl Fn(usize) + Sync)) {
    if workers.len() == 1 {
        return member(workers.start);
    }
    let middle = workers.start + workers.len().div_ceil(2);
    rayon::join(
        || enter(workers.start..middle, member),
        || enter(middle..workers.end, member),
    );
}

struct Completion<'a>(&'a AtomicUsize);

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_do_not_overlap() {
        let (phases, tasks) = if cfg!(miri) { (5, 3) } else { (200, 17) };
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let cells: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.install(|| {
                Team::default().run(threads, &vec![tasks; phases], |_, phase, task| {
                    // every task of a phase reads what its neighbour wrote in the phase before
                    let neighbour = cells[(task + 1) % tasks].load(Ordering::Relaxed);
                    assert!(
                        neighbour == phase || neighbour == phase + 1,
                        "{neighbour} in phase {phase}"
                    );
                    assert_eq!(cells[task].swap(phase + 1, Ordering::Relaxed), phase);
                });
            });
            assert!(cells.iter().all(|c| c.load(Ordering::Relaxed) == phases));
        }
    }
}
