//! Time per operator, collected while `FLAWTUNE_PROFILE=1` is set.
//!
//! Counters are summed over all threads; with the variable unset a timer is one predictable branch.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The environment variable that switches the timers on.
pub const VARIABLE: &str = "FLAWTUNE_PROFILE";

/// What a timer measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Cutting images into patches, in the embedding.
    Unfold,
    /// The product of the patch embedding.
    Embed,
    /// Layer norms.
    Norm,
    /// Making bytes of activations, with the norm in front where there is one.
    Quantise,
    /// Queries, keys and values.
    Qkv,
    /// Attention.
    Attention,
    /// The projection after attention.
    Projection,
    /// First feed-forward layer with its activation.
    Expand,
    /// Second feed-forward layer.
    Contract,
    /// Waiting for other threads.
    Wait,
    /// Reading tokens out.
    Read,
    /// Patch matching.
    Match,
}

const NAMES: [&str; 12] = [
    "unfold",
    "embed",
    "norm",
    "quantise",
    "qkv",
    "attention",
    "projection",
    "expand",
    "contract",
    "wait",
    "read",
    "match",
];

#[derive(Debug)]
struct Counter {
    nanoseconds: AtomicU64,
    calls: AtomicU64,
}

static COUNTERS: [Counter; NAMES.len()] = [const {
    Counter {
        nanoseconds: AtomicU64::new(0),
        calls: AtomicU64::new(0),
    }
}; NAMES.len()];

/// Switched on by [`collect`], whatever the environment says.
static COLLECTING: AtomicBool = AtomicBool::new(false);

/// Whether the timers run because the environment asks for them.
pub fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var(VARIABLE).is_ok_and(|v| !v.is_empty() && v != "0"))
}

/// Runs `work` with the timers on and returns what they measured in it; earlier counts are lost. Not for two threads at
/// once: the counters are the program's.
pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Report) {
    reset();
    COLLECTING.store(true, Ordering::Relaxed);
    let result = work();
    COLLECTING.store(false, Ordering::Relaxed);
    (result, report())
}

/// Runs `work`, and counts its time if profiling is on.
#[inline]
pub(crate) fn time<T>(operator: Operator, work: impl FnOnce() -> T) -> T {
    if !COLLECTING.load(Ordering::Relaxed) && !enabled() {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let counter = &COUNTERS[operator as usize];
    counter
        .nanoseconds
        .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    counter.calls.fetch_add(1, Ordering::Relaxed);
    result
}

/// The time that one operator has taken, over all threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Its name.
    pub operator: &'static str,
    /// Seconds, summed over threads.
    pub seconds: f64,
    /// Tasks.
    pub calls: u64,
}

/// What has been measured since the start or the last [`reset`].
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Operators that ran.
    pub entries: Vec<Entry>,
}

/// The times so far; empty unless `FLAWTUNE_PROFILE` is set.
pub fn report() -> Report {
    let entries = NAMES
        .iter()
        .zip(&COUNTERS)
        .map(|(&operator, c)| Entry {
            operator,
            seconds: c.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
            calls: c.calls.load(Ordering::Relaxed),
        })
        .filter(|e| e.calls > 0)
        .collect();
    Report { entries }
}

/// Sets all counters to zero.
pub fn reset() {
    for c in &COUNTERS {
        c.nanoseconds.store(0, Ordering::Relaxed);
        c.calls.store(0, Ordering::Relaxed);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.entries.iter().map(|e| e.seconds).sum();
        for e in &self.entries {
            writeln!(
                f,
                "{:<12} {:>10.2} ms {:>5.1} % {:>9} tasks",
                e.operator,
                e.seconds * 1e3,
                e.seconds / total * 100.0,
                e.calls
            )?;
        }
        Ok(())
    }
}
