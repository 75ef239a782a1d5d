//! Verdicts that wait for a receiver: bounded, the oldest gives way.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Counted;
use crate::verdict::Part;

/// Most verdicts that wait for one receiver.
pub(super) const MOST: usize = 10_000;
/// Most bytes of images that wait for one receiver.
pub(super) const MOST_BYTES: usize = 512 << 20;
/// How often it is said that verdicts are dropped.
const SAID: Duration = Duration::from_secs(60);

/// A verdict under way.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) part: Arc<Part>,
    /// The bytes of the image file, for who wants them.
    pub(super) image: Option<Arc<[u8]>>,
    pub(super) at: Instant,
}

impl Told {
    fn bytes(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.len())
    }
}

/// What became of a verdict that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is where it shall be.
    Sent,
    /// The receiver will not have it, or not in time.
    Failed,
    /// The server ended first.
    Dropped,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Told>,
    bytes: usize,
    /// Taken, and nothing became of it yet.
    in_hand: u64,
    /// Nothing more comes, and what waits is given up then.
    ends: Option<Instant>,
    said: Option<Instant>,
}

/// What waits for one receiver, and what became of the rest.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// As `changed`, for who waits asynchronously.
    pub(super) told: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Queue {
    pub(super) fn new(name: String, most: usize) -> Self {
        Self {
            name,
            most,
            state: Mutex::default(),
            changed: Condvar::new(),
            told: Notify::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a verdict. It waits for nobody: where there is no room the oldest goes.
    pub(super) fn push(&self, told: Told) {
        let mut state = self.lock();
        if state.ends.is_some() {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += told.bytes();
        state.waiting.push_back(told);
        let mut dropped = 0;
        while state.waiting.len() > self.most
            || (state.bytes > MOST_BYTES && state.waiting.len() > 1)
        {
            let Some(oldest) = state.waiting.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes();
            dropped += 1;
        }
        let says = dropped > 0 && state.said.is_none_or(|said| said.elapsed() >= SAID);
        if says {
            state.said = Some(Instant::now());
        }
        drop(state);
        self.changed.notify_all();
        self.told.notify_one();
        if dropped > 0 {
            let before = self.dropped.fetch_add(dropped, Ordering::Relaxed);
            if says {
                tracing::warn!(
                    receiver = self.name,
                    dropped = before + dropped,
                    "too many verdicts wait: the oldest are dropped"
                );
            }
        }
    }

    /// The next verdict, once there is one; none when no more come or the time is over.
    pub(super) fn take(&self) -> Option<Told> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.ends.is_some_and(|ends| ends <= now) {
                return None;
            }
            if let Some(told) = Self::pop(&mut state) {
                return Some(told);
            }
            if state.ends.is_some() {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next verdict if there is one.
    pub(super) fn try_take(&self) -> Option<Told> {
        Self::pop(&mut self.lock())
    }

    fn pop(state: &mut State) -> Option<Told> {
        let told = state.waiting.pop_front()?;
        state.bytes -= told.bytes();
        state.in_hand += 1;
        Some(told)
    }

    /// Counts what became of a verdict that was taken.
    pub(super) fn settle(&self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Sent => &self.sent,
            Outcome::Failed => &self.failed,
            Outcome::Dropped => &self.dropped,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.in_hand = state.in_hand.saturating_sub(1);
    }

    /// Sleeps, but not past the end; whether there is time left.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.ends.is_some_and(|ends| ends <= now) {
                return false;
            }
            let until = state.ends.map_or(until, |ends| ends.min(until));
            let Some(left) = until.checked_duration_since(now).filter(|l| !l.is_zero()) else {
                return true;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// When what waits is given up, once that is known.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.lock().ends
    }

    /// No more comes; what waits has until then.
    pub(super) fn close(&self, ends: Instant) {
        self.lock().ends = Some(ends);
        self.changed.notify_all();
        self.told.notify_one();
    }

    /// Counts what is left as dropped; how many that are.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.lock();
        let left = state.waiting.len() as u64 + state.in_hand;
        *state = State {
            ends: state.ends,
            ..State::default()
        };
        drop(state);
        self.dropped.fetch_add(left, Ordering::Relaxed);
        left
    }

    pub(super) fn counted(&self) -> Counted {
        let state = self.lock();
        let waiting = state.waiting.len() as u64 + state.in_hand;
        drop(state);
        Counted {
            name: self.name.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            waiting,
            dropped: self.dropped.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// Pauses that double, each a random part from half on, so that many who lost one server do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            tries: 0,
        }
    }

    /// Whether nothing failed since the last success.
    pub(crate) fn is_fresh(&self) -> bool {
        self.tries == 0
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.tries.min(20));
        self.tries = self.tries.saturating_add(1);
        let random = RandomState::new().build_hasher().finish();
        whole
            .min(self.longest)
            .mul_f64(0.5 + (random >> 11) as f64 / (1_u64 << 54) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::part;
    use super::*;

    fn told(id: i64, bytes: usize) -> Told {
        Told {
            part: Arc::new(part(id, "a.png")),
            image: (bytes > 0).then(|| vec![0; bytes].into()),
            at: Instant::now(),
        }
    }

    #[test]
    fn the_oldest_gives_way() {
        let queue = Queue::new("a".into(), 3);
        for id in 0..5 {
            queue.push(told(id, 0));
        }
        let counted = queue.counted();
        assert_eq!((counted.waiting, counted.dropped), (3, 2));
        assert_eq!(queue.take().unwrap().part.part, 2);
        assert_eq!(queue.counted().waiting, 3, "one is in hand");
        queue.settle(Outcome::Sent);
        let large = Queue::new("b".into(), 100);
        for id in 0..4 {
            large.push(told(id, MOST_BYTES / 2));
        }
        assert_eq!(large.counted().dropped, 2);
    }

    #[test]
    fn the_end_is_waited_for_and_not_longer() {
        let queue = Queue::new("a".into(), 3);
        queue.push(told(1, 0));
        queue.push(told(2, 0));
        queue.close(Instant::now() + Duration::from_millis(50));
        assert!(queue.take().is_some());
        queue.push(told(3, 0));
        let start = Instant::now();
        assert!(!queue.rest(Duration::from_secs(60)));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(queue.take().is_none(), "the time is over");
        assert_eq!(queue.abandon(), 2);
        assert_eq!(queue.counted().dropped, 3);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        assert!(backoff.is_fresh());
        for whole in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            let pause = backoff.pause().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&pause), "{pause} of {whole}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(500));
    }
}
