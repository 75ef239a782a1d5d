//! Pictures between a camera and who looks at them.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Tally;
use super::ppm::Picture;

/// Pictures that were asked for and wait to be looked at.
const ASKED: usize = 16;
/// Pictures of a film that are read ahead.
const AHEAD: usize = 2;
/// How old a picture may be when it is asked for: an older one may show the part before.
const FRESH: Duration = Duration::from_secs(1);
/// How long who asked waits for the next picture.
const LATE: Duration = Duration::from_secs(2);

/// A picture, and when it was taken.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) picture: Picture,
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) at: SystemTime,
    seen: Instant,
}

/// Which pictures are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taking {
    /// All: who reads waits.
    All,
    /// The newest: what is not looked at before the next comes is dropped.
    Newest,
    /// The newest when it is asked for, and none twice.
    Asked,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Frame>,
    taken: VecDeque<Frame>,
    /// When somebody asked for a picture that is not there yet.
    asked: VecDeque<Instant>,
    over: bool,
}

/// Pictures that wait.
#[derive(Debug)]
pub(super) struct Frames {
    taking: Taking,
    state: Mutex<State>,
    changed: Condvar,
    number: AtomicU64,
}

impl Frames {
    pub(super) fn new(taking: Taking) -> Self {
        Self {
            taking,
            state: Mutex::default(),
            changed: Condvar::new(),
            number: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A picture came; where all are taken this waits until there is room.
    pub(super) fn arrive(&self, picture: Picture, tally: &Tally) {
        let number = 1 + self
            .number
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let frame = Frame {
            picture,
            number,
            at: SystemTime::now(),
            seen: Instant::now(),
        };
        self.forget_late(tally);
        let mut state = self.lock();
        match self.taking {
            Taking::All => {
                while state.taken.len() >= AHEAD && !state.over {
                    state = self.wait(state);
                }
                state.taken.push_back(frame);
            }
            Taking::Newest => {
                tally.dropped(state.taken.len() as u64);
                state.taken.clear();
                state.taken.push_back(frame);
            }
            Taking::Asked if state.asked.pop_front().is_some() => state.taken.push_back(frame),
            Taking::Asked => state.newest = Some(frame),
        }
        tally.waiting(state.taken.len() as u64);
        drop(state);
        self.changed.notify_all();
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the newest picture, or where it is too old or was taken already the next that comes.
    /// Whether pictures are taken that way.
    pub(super) fn ask(&self, tally: &Tally) -> bool {
        if self.taking != Taking::Asked {
            return false;
        }
        self.forget_late(tally);
        let mut state = self.lock();
        if state.taken.len() + state.asked.len() >= ASKED {
            drop(state);
            tally.dropped(1);
            tracing::warn!(
                source = tally.name,
                "a picture is asked for while too many wait: it is not taken"
            );
            return true;
        }
        match state.newest.take() {
            Some(frame) if frame.seen.elapsed() <= FRESH => state.taken.push_back(frame),
            _ => state.asked.push_back(Instant::now()),
        }
        tally.waiting(state.taken.len() as u64);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Gives up what was asked for and did not come.
    pub(super) fn forget_late(&self, tally: &Tally) {
        let mut state = self.lock();
        let before = state.asked.len();
        state.asked.retain(|asked| asked.elapsed() <= LATE);
        let late = before - state.asked.len();
        drop(state);
        if late > 0 {
            (0..late).for_each(|_| tally.failed());
            tracing::warn!(
                source = tally.name,
                late,
                "a picture was asked for and none came"
            );
        }
    }

    /// The camera is away: what it saw last is no longer what is there.
    pub(super) fn away(&self) {
        self.lock().newest = None;
    }

    /// No more come.
    pub(super) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// The next picture to look at, once there is one; none when no more come.
    pub(super) fn next(&self, tally: &Tally) -> Option<Frame> {
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.taken.pop_front() {
                tally.waiting(state.taken.len() as u64);
                drop(state);
                self.changed.notify_all();
                return Some(frame);
            }
            if state.over {
                return None;
            }
            state = self.wait(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(grey: u8) -> Picture {
        Picture {
            width: 1,
            height: 1,
            pixels: vec![grey; 3],
        }
    }

    fn next(frames: &Frames, tally: &Tally) -> Option<u8> {
        frames.next(tally).map(|frame| frame.picture.pixels[0])
    }

    #[test]
    fn the_newest_is_taken_when_it_is_asked_for_and_none_twice() {
        let tally = Tally::new("a".into());
        let frames = Frames::new(Taking::Asked);
        for grey in 1..=3 {
            frames.arrive(picture(grey), &tally);
        }
        frames.ask(&tally);
        frames.ask(&tally);
        assert_eq!(next(&frames, &tally), Some(3));
        assert_eq!(tally.counted().waiting, 0, "the second waits for the next");
        frames.arrive(picture(4), &tally);
        frames.arrive(picture(5), &tally);
        assert_eq!(next(&frames, &tally), Some(4));
        frames.away();
        frames.ask(&tally);
        std::thread::sleep(LATE + Duration::from_millis(50));
        frames.arrive(picture(6), &tally);
        assert_eq!(
            tally.counted().failed,
            1,
            "what came later shows another part"
        );
        for _ in 0..20 {
            frames.ask(&tally);
        }
        assert_eq!(tally.counted().dropped, 4);
        frames.end();
        assert_eq!(
            (next(&frames, &tally), next(&frames, &tally)),
            (Some(6), None)
        );
    }

    #[test]
    fn a_stream_goes_on_and_a_film_waits() {
        let tally = Tally::new("a".into());
        let frames = Frames::new(Taking::Newest);
        for grey in 1..=3 {
            frames.arrive(picture(grey), &tally);
        }
        assert_eq!(next(&frames, &tally), Some(3));
        assert_eq!(tally.counted().dropped, 2);
        let frames = Frames::new(Taking::All);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..=9).for_each(|grey| frames.arrive(picture(grey), &tally));
                frames.end();
            });
            let all: Vec<u8> = std::iter::from_fn(|| next(&frames, &tally)).collect();
            assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        });
    }
}
