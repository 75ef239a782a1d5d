//! Verdicts are written down before anybody hears them.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, Asked};
use crate::files::Files;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::store::{NewPart, Store};
use crate::verdict::Part;

/// Parts that are written down at once, at most.
const TOGETHER: usize = 64;
/// How often images that are not kept any longer are removed.
const TIDY: Duration = Duration::from_secs(60);

/// Hears of parts that were written down, and their images.
pub(crate) type Told = Box<dyn Fn(&Arc<Part>, &Arc<[u8]>) + Send>;

/// Takes parts to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    parts: SyncSender<(NewPart, Asked)>,
}

impl Recorder {
    /// Starts the thread that writes parts down. Images of the newest `keep` parts are kept.
    ///
    /// # Errors
    /// A system without threads.
    pub(crate) fn start(
        store: Arc<Store>,
        files: Arc<Files>,
        (keep, keeping): (usize, Arc<Mutex<()>>),
        metrics: Arc<Metrics>,
        told: Told,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (parts, come) = mpsc::sync_channel(2 * TOGETHER);
        let run = move || {
            let mut tidied = Instant::now();
            while let Some(some) = next(&come) {
                write_down(&store, &files, some, &metrics, &told);
                if tidied.elapsed() > TIDY {
                    let _keeping = keeping.lock().unwrap_or_else(PoisonError::into_inner);
                    tidy(&store, &files, keep);
                    tidied = Instant::now();
                }
            }
        };
        let thread = thread::Builder::new().name("flawtune-write".into());
        Ok((Self { parts }, thread.spawn(run)?))
    }

    /// Writes a part down and then answers who asked.
    pub(super) fn record(&self, part: NewPart, asked: Asked) {
        if let Err(lost) = self.parts.send((part, asked)) {
            let (_, asked) = lost.0;
            drop(asked.reply.send(Err(Refusal::stopping())));
        }
    }
}

/// What has come; waits for one.
fn next(come: &Receiver<(NewPart, Asked)>) -> Option<Vec<(NewPart, Asked)>> {
    let mut some = vec![come.recv().ok()?];
    while some.len() < TOGETHER {
        match come.try_recv() {
            Ok(more) => some.push(more),
            Err(_) => break,
        }
    }
    Some(some)
}

fn write_down(
    store: &Store,
    files: &Files,
    some: Vec<(NewPart, Asked)>,
    metrics: &Metrics,
    told: &Told,
) {
    let (mut parts, mut who): (Vec<NewPart>, Vec<Asked>) = (Vec::new(), Vec::new());
    for (mut part, asked) in some {
        let Some(file) = asked.file.as_ref() else {
            answer(part, asked, metrics);
            continue;
        };
        // without its image a verdict is still a verdict
        let extension = part.extension.unwrap_or("bin");
        if let Err(error) = files.put(&part.part.content, extension, file) {
            tracing::error!(%error, "an image cannot be written");
            part.extension = None;
            part.part.kept = false;
        }
        parts.push(part);
        who.push(asked);
    }
    if parts.is_empty() {
        return;
    }
    match store.add_parts(&parts) {
        Ok(numbers) => {
            for ((mut part, asked), number) in parts.into_iter().zip(who).zip(numbers) {
                part.part.part = number;
                let file = asked.file.clone();
                let part = answer(part, asked, metrics);
                if let Some(file) = &file {
                    told(&part, file);
                }
            }
        }
        Err(error) => {
            tracing::error!(%error, "parts cannot be written down");
            for asked in who {
                drop(asked.reply.send(Err(Refusal::machine(&error))));
            }
        }
    }
}

fn answer(part: NewPart, asked: Asked, metrics: &Metrics) -> Arc<Part> {
    let told = Arc::new(part.part);
    metrics.part(&told, asked.since.elapsed());
    drop(asked.reply.send(Ok(Answer {
        part: Arc::clone(&told),
        patches: part.patches,
    })));
    told
}

/// Removes images that are not kept any longer.
fn tidy(store: &Store, files: &Files, keep: usize) {
    match store.forget_images(keep) {
        Ok(gone) => {
            for (content, extension) in gone {
                remove(&files.image(&content, &extension));
            }
        }
        Err(error) => tracing::warn!(%error, "old images cannot be removed"),
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "an old image cannot be removed");
    }
}
