//! Where images come from, beside the page and programs: a folder that is watched, a camera, a stream or a film.

mod camera;
mod error;
mod ffmpeg;
mod folder;
mod frames;
mod options;
mod ppm;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::error::SourceError;
pub use self::options::SourceOptions;

use self::camera::Camera;
use self::ffmpeg::{Ffmpeg, Input, Pace};
use self::folder::Folder;
use crate::receivers::Counted;
use crate::verdict::Source;

/// How long the threads may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest time between two pictures.
const SHORTEST: Duration = Duration::from_millis(1);

/// Why an image was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no room now; try again after this long.
    #[error("too much waits; try again in {}", humantime::format_duration(*.0))]
    Busy(Duration),
    /// This image is bad, and why.
    #[error("{0}")]
    Bad(String),
    /// No image is taken any more.
    #[error("the server ends")]
    Closed,
}

/// Takes images in.
pub trait Submit: Send + Sync {
    /// Takes the bytes of an image file in; `name` says where it lay. It may wait.
    ///
    /// # Errors
    /// The image is not taken.
    fn submit(&self, name: &str, source: Source, bytes: Vec<u8>) -> Result<(), Refused>;
}

/// Says when all is over.
#[derive(Debug, Default)]
struct Stop {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn ring(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps; whether it goes on after that.
    fn rest(&self, pause: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(over, pause, |over| !*over)
            .unwrap_or_else(PoisonError::into_inner);
        !*waited.0
    }
}

/// Counts the images of a source.
#[derive(Debug)]
struct Tally {
    name: String,
    sent: AtomicU64,
    waiting: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn new(name: String) -> Self {
        Self {
            name,
            sent: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn waiting(&self, number: u64) {
        self.waiting.store(number, Ordering::Relaxed);
    }

    fn dropped(&self, number: u64) {
        self.dropped.fetch_add(number, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> Counted {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            name: self.name.clone(),
            sent: of(&self.sent),
            waiting: of(&self.waiting),
            dropped: of(&self.dropped),
            failed: of(&self.failed),
        }
    }
}

/// What hands in the images of a source.
struct Hand {
    stop: Arc<Stop>,
    tally: Arc<Tally>,
    submit: Arc<dyn Submit>,
}

impl Hand {
    /// Hands in an image until it is taken or refused for good.
    fn submit_all(&self, name: &str, source: Source, bytes: &[u8]) -> Result<(), Refused> {
        loop {
            match self.submit_once(name, source, bytes.to_vec()) {
                Err(Refused::Busy(_)) if self.stop.is_over() => return Err(Refused::Closed),
                Err(Refused::Busy(_)) => {}
                done => return done,
            }
        }
    }

    /// Hands in an image; where there is no room, waits until there may be.
    fn submit_once(&self, name: &str, source: Source, bytes: Vec<u8>) -> Result<(), Refused> {
        let handed = self.submit.submit(name, source, bytes);
        match &handed {
            Ok(()) => {
                self.tally.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(Refused::Busy(pause)) => {
                let pause = *pause;
                self.stop
                    .rest(pause.clamp(Duration::from_millis(10), Duration::from_secs(60)));
            }
            Err(_) => {}
        }
        handed
    }
}

/// All sources at work.
pub struct Sources {
    submit: Arc<dyn Submit>,
    stop: Arc<Stop>,
    tallies: Vec<Arc<Tally>>,
    camera: Option<(Arc<Camera>, Arc<Tally>)>,
    /// Closed when a thread ends.
    ended: Vec<Receiver<()>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("tallies", &self.tallies)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// Checks all that can be checked, then starts to take images in. What was taken of a watched folder is kept in the file
    /// `journal`, so that a restart does not take it again; folders that are `written` to by the server are not looked into.
    ///
    /// # Errors
    /// A folder that cannot be listed, a source that is none, no ffmpeg.
    pub fn start(
        options: &SourceOptions,
        journal: &Path,
        written: &[&Path],
        submit: Arc<dyn Submit>,
    ) -> Result<Self, SourceError> {
        let pace = match (&options.source, options.every, options.on_trigger) {
            (None, None, false) => None,
            (None, ..) => {
                return Err(SourceError::Options(
                    "`every` and `on_trigger` are for a camera, a stream or a film\nhint: name it with `source`",
                ));
            }
            (Some(_), Some(every), false) if every >= SHORTEST => Some(Pace::Every(every)),
            (Some(_), None, true) => Some(Pace::Trigger),
            (Some(_), Some(_), false) => {
                return Err(SourceError::Options(
                    "`every`: there is no time between two images\nhint: give a time such as 500ms",
                ));
            }
            (Some(_), ..) => {
                return Err(SourceError::Options(
                    "`source`: it is not said when an image is taken\nhint: give either a time with `every`, such as 500ms, or `on_trigger`",
                ));
            }
        };
        let folder = options.watch.as_deref();
        let folder = folder
            .map(|folder| Folder::open(folder, journal, written))
            .transpose()?;
        let camera = match (&options.source, pace) {
            (Some(address), Some(pace)) => {
                let input = Input::new(address)?;
                let ffmpeg = Ffmpeg::find(options.ffmpeg.as_deref())?;
                Some(Arc::new(Camera::new(input, pace, ffmpeg)))
            }
            _ => None,
        };
        let mut sources = Self {
            submit,
            stop: Arc::default(),
            tallies: Vec::new(),
            camera: None,
            ended: Vec::new(),
        };
        if let Some(mut folder) = folder {
            let shown = options.watch.as_deref().unwrap_or(Path::new(""));
            let hand = sources.hand(format!("watch {}", shown.display()));
            sources.spawn(&hand, move |hand| folder.work(hand))?;
        }
        if let (Some(camera), Some(address)) = (camera, &options.source) {
            let hand = sources.hand(format!("source {address}"));
            sources.camera = Some((Arc::clone(&camera), Arc::clone(&hand.tally)));
            let works: [fn(&Camera, &Hand); 3] = [Camera::read, Camera::work, Camera::guard];
            for work in works {
                let camera = Arc::clone(&camera);
                sources.spawn(&hand, move |hand| work(&camera, hand))?;
            }
        }
        Ok(sources)
    }

    fn hand(&mut self, name: String) -> Arc<Hand> {
        let tally = Arc::new(Tally::new(name));
        self.tallies.push(Arc::clone(&tally));
        Arc::new(Hand {
            stop: Arc::clone(&self.stop),
            tally,
            submit: Arc::clone(&self.submit),
        })
    }

    fn spawn(
        &mut self,
        hand: &Arc<Hand>,
        work: impl FnOnce(&Hand) + Send + 'static,
    ) -> Result<(), SourceError> {
        let (end, ended) = channel();
        let theirs = Arc::clone(hand);
        std::thread::Builder::new()
            .name("source".into())
            .spawn(move || {
                work(&theirs);
                drop(end);
            })
            .map_err(|source| SourceError::Thread {
                name: hand.tally.name.clone(),
                source,
            })?;
        self.ended.push(ended);
        Ok(())
    }

    /// Takes the newest image of a camera that is asked, or the next where the newest is too old or was taken already. Whether
    /// there is such a camera.
    pub fn trigger(&self) -> bool {
        let Some((camera, tally)) = &self.camera else {
            return false;
        };
        camera.frames.ask(tally)
    }

    /// What became of the images so far, a row a source.
    pub fn counts(&self) -> Vec<Counted> {
        self.tallies.iter().map(|tally| tally.counted()).collect()
    }

    /// Takes no more images; returns the last counts.
    pub fn stop(self) -> Vec<Counted> {
        self.end();
        let ends = Instant::now() + PATIENCE;
        for ended in &self.ended {
            // who still hands an image in is not waited for for ever
            let _ = ended.recv_timeout(ends.saturating_duration_since(Instant::now()));
        }
        self.counts()
    }

    fn end(&self) {
        self.stop.ring();
        if let Some((camera, _)) = &self.camera {
            camera.stop();
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.end();
    }
}
