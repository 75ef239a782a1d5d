//! What every request works with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use flawtune::Image;
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast, oneshot};

use crate::compute::{self, Answer, Asked, Live, Queue, Registry};
use crate::files::Files;
use crate::guard::Gate;
use crate::jobs::{Job, Jobs};
use crate::metrics::Metrics;
use crate::options::ServeOptions;
use crate::receivers::{Counted, Receivers};
use crate::refusal::Refusal;
use crate::sources::Sources;
use crate::store::{DetectorRow, Store};
use crate::verdict::{Part, Source};

/// Something that a page wants to know at once.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// A part was looked at.
    Part(Arc<Part>),
    /// A job went on or ended.
    Job(Arc<Job>),
    /// Another version is in force.
    Version(Arc<InForce>),
    /// Detectors came or went, or have other images or judgements.
    Detectors,
}

/// The version of a detector that is in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InForce {
    /// The detector.
    pub(crate) detector: String,
    /// Number of the version.
    pub(crate) current: Option<i64>,
}

/// The server's state.
#[derive(Debug)]
pub(crate) struct App {
    /// What it was started with.
    pub(crate) options: ServeOptions,
    /// What is remembered.
    pub(crate) store: Arc<Store>,
    /// Files.
    pub(crate) files: Arc<Files>,
    /// Detectors that are open.
    pub(crate) registry: Registry,
    /// Images that wait.
    pub(crate) queue: Arc<Queue<Asked>>,
    /// Long work.
    pub(crate) jobs: Jobs,
    /// Figures.
    pub(crate) metrics: Arc<Metrics>,
    /// Who may come in.
    pub(crate) gate: Gate,
    /// Held while images are put on disk to stay, and while others are removed.
    pub(crate) keeping: Arc<Mutex<()>>,
    /// Images that are being decoded.
    pub(crate) decoding: Semaphore,
    /// Uploads that are being read.
    pub(crate) uploads: Semaphore,
    /// Hears of everything.
    pub(crate) notices: broadcast::Sender<Notice>,
    /// Whether no more requests are taken.
    pub(crate) stopping: AtomicBool,
    /// Where verdicts go.
    pub(crate) receivers: Arc<Receivers>,
    /// Where images come from; none before they start and after they ended.
    pub(crate) sources: Mutex<Option<Sources>>,
}

impl App {
    /// Tells every page.
    pub(crate) fn tell(&self, notice: Notice) {
        // nobody may be listening
        drop(self.notices.send(notice));
    }

    /// The detector of a name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn detector(&self, name: &str) -> Result<DetectorRow, Refusal> {
        let found = self.store.detector(name)?;
        found.ok_or_else(|| Refusal::missing(format!("there is no detector '{name}'")))
    }

    /// The version of a detector that is in force, open.
    ///
    /// # Errors
    /// None is, or it cannot be opened.
    pub(crate) fn live(&self, detector: &DetectorRow) -> Result<Arc<Live>, Refusal> {
        self.registry.live(&self.store, &self.files, detector)
    }

    /// Opens what is in force now, and tells every page.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn in_force(&self, name: &str) -> Result<Arc<Live>, Refusal> {
        let row = self.detector(name)?;
        let live = self.live(&row)?;
        self.tell(Notice::Version(Arc::new(InForce {
            detector: row.name,
            current: row.current,
        })));
        Ok(live)
    }

    /// Has an image looked at, given as its file.
    ///
    /// # Errors
    /// Something else than an image; too many wait; it takes too long.
    pub(crate) async fn look(
        self: &Arc<Self>,
        live: &Arc<Live>,
        name: String,
        bytes: Vec<u8>,
        source: Source,
    ) -> Result<Answer, Refusal> {
        let since = Instant::now();
        let permit = self.decoding.acquire().await;
        let (detector, file): (_, Arc<[u8]>) = (Arc::clone(live), bytes.into());
        let read = {
            let (file, name) = (Arc::clone(&file), name.clone());
            let metrics = Arc::clone(&self.metrics);
            tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                let image = compute::read(&detector, &name, &file);
                metrics.decoded(begun.elapsed());
                image
            })
        };
        let image = read.await.map_err(|e| Refusal::machine(&e))??;
        drop(permit);
        let (reply, answer) = oneshot::channel();
        self.ask(Asked {
            live: Arc::clone(live),
            image,
            file: Some(file),
            name,
            source,
            reply,
            since,
        })?;
        self.wait(answer).await
    }

    /// Has pixels looked at, of which nothing is written down.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(crate) async fn look_at_pixels(
        self: &Arc<Self>,
        live: &Arc<Live>,
        image: Image,
    ) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked {
            live: Arc::clone(live),
            image,
            file: None,
            name: "pixels".into(),
            source: Source::Post,
            reply,
            since: Instant::now(),
        })?;
        self.wait(answer).await
    }

    /// What became of images of sources and of verdicts to receivers.
    pub(crate) fn ways(&self) -> Vec<Counted> {
        let mut all = self.receivers.counts();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(sources.iter().flat_map(Sources::counts));
        all
    }

    fn ask(&self, asked: Asked) -> Result<(), Refusal> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Refusal::stopping());
        }
        let pixels = asked.image.height() * asked.image.width();
        let added = self.queue.add(asked, pixels);
        added.map_err(|_| Refusal::busy(1 + self.queue.len() as u64 / 16))
    }

    async fn wait(
        &self,
        answer: oneshot::Receiver<Result<Answer, Refusal>>,
    ) -> Result<Answer, Refusal> {
        match tokio::time::timeout(self.options.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refusal::stopping()),
            Err(_) => Err(
                Refusal::late("no verdict within the time that --timeout allows")
                    .hint("send fewer images at once, or fit with a smaller --budget"),
            ),
        }
    }
}

/// Does something that waits for the disk.
///
/// # Errors
/// Those of the work.
pub(crate) async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Arc<App>) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let app = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.map_err(|e| Refusal::machine(&e))?
}
