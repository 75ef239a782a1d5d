//! A queue that refuses more than it holds.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a batch waits for who asked with the one before.
const MOMENT: Duration = Duration::from_millis(3);

/// What waits, the first come the first served.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    came: Condvar,
    most: usize,
    heaviest: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(T, usize)>,
    weight: usize,
    closed: bool,
}

/// So many wait already, or nothing is taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl<T> Queue<T> {
    /// Holds at most so many, that weigh so much together.
    pub(crate) fn new(most: usize, heaviest: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                weight: 0,
                closed: false,
            }),
            came: Condvar::new(),
            most,
            heaviest,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one of a weight. One alone may weigh anything.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn add(&self, item: T, weight: usize) -> Result<(), Full> {
        let mut state = self.state();
        let heavy =
            !state.waiting.is_empty() && state.weight.saturating_add(weight) > self.heaviest;
        if state.closed || heavy || state.waiting.len() >= self.most {
            return Err(Full);
        }
        state.waiting.push_back((item, weight));
        state.weight += weight;
        self.came.notify_one();
        Ok(())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// The first that waits and those behind it that are `alike`, at most so many; waits for one, and for `expected` others a moment
    /// longer. `None` once the queue is closed and empty.
    pub(crate) fn take(
        &self,
        most: usize,
        expected: usize,
        alike: impl Fn(&T, &T) -> bool,
    ) -> Option<Vec<T>> {
        let mut state = self.state();
        loop {
            if !state.waiting.is_empty() && !state.closed {
                let more = |state: &mut State<T>| {
                    state.waiting.len() < expected.min(most) && !state.closed
                };
                let waited = self.came.wait_timeout_while(state, MOMENT, more);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let mut taken: Vec<T> = Vec::new();
            while taken.len() < most
                && let Some((next, _)) = state.waiting.front()
                && taken.first().is_none_or(|first| alike(first, next))
            {
                if let Some((item, weight)) = state.waiting.pop_front() {
                    state.weight -= weight;
                    taken.push(item);
                }
            }
            if !taken.is_empty() {
                return Some(taken);
            }
            if state.closed {
                return None;
            }
            state = self
                .came
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more; what waits is still served.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_taken_together_and_more_than_fits_is_refused() {
        let queue = Queue::new(5, 5);
        for n in [1, 1, 1, 2, 1] {
            queue.add(n, 1).unwrap();
        }
        assert_eq!(queue.add(1, 0), Err(Full));
        assert_eq!(queue.take(2, 1, |a, b| a == b), Some(vec![1, 1]));
        assert_eq!(queue.take(8, 4, |a, b| a == b), Some(vec![1]));
        assert_eq!(queue.add(1, 4), Err(Full));
        queue.close();
        assert_eq!(queue.add(3, 1), Err(Full));
        assert_eq!(queue.take(8, 4, |a, b| a == b), Some(vec![2]));
        assert_eq!(queue.take(8, 4, |a, b| a == b), Some(vec![1]));
        assert_eq!(queue.take(8, 4, |a, b| a == b), None);
    }
}
