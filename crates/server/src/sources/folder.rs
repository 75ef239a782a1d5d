//! Images that arrive in a folder.

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flawtune::dataset::{Journal, Watch};

use super::{Hand, Refused, SourceError};
use crate::verdict::Source;

/// Most bytes that an image file may have.
const MOST_BYTES: u64 = 1 << 30;
/// Images that are looked for at once.
const BATCH: usize = 16;
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What the journal calls an image that was handed in, and one that never could be.
const TAKEN: &str = "taken";
const UNREADABLE: &str = "unreadable";

/// A folder that is watched.
#[derive(Debug)]
pub(super) struct Folder {
    folder: PathBuf,
    watch: Watch,
}

impl Folder {
    pub(super) fn open(
        folder: &Path,
        journal: &Path,
        written: &[&Path],
    ) -> Result<Self, SourceError> {
        fn warn(text: &str) {
            tracing::warn!("{text}");
        }
        let failed = |path: &Path, hint| {
            let path = path.to_owned();
            move |source| SourceError::Io {
                option: "watch",
                path,
                source,
                hint,
            }
        };
        let hint = "the journal of what was taken lies in the data folder, which must be writable";
        let journal = Journal::open(journal, warn).map_err(failed(journal, hint))?;
        let hint = "name a folder that can be read with `watch`";
        let watch =
            Watch::new(folder, written, Some(journal), warn).map_err(failed(folder, hint))?;
        Ok(Self {
            folder: folder.to_owned(),
            watch,
        })
    }

    /// Hands in what arrives until the end.
    pub(super) fn work(&mut self, hand: &Hand) {
        while !hand.stop.is_over() {
            let start = Instant::now();
            let batch = self.watch.ready(BATCH);
            if batch.is_empty() {
                // a large folder is not listed without a break
                let pause = PAUSE.max(4 * start.elapsed()).min(LONGEST_PAUSE);
                hand.stop.rest(pause);
            }
            for path in batch {
                if self.take(&path, hand).is_break() {
                    return;
                }
            }
        }
    }

    fn take(&mut self, path: &Path, hand: &Hand) -> ControlFlow<()> {
        let inside = path.strip_prefix(&self.folder).unwrap_or(path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let name = parts.join("/");
        let refused = match read(path) {
            Ok(bytes) => match hand.submit_all(&name, Source::Folder, &bytes) {
                Ok(()) => {
                    self.watch.judged(path, TAKEN);
                    return ControlFlow::Continue(());
                }
                Err(Refused::Bad(reason)) => reason,
                Err(_) => return ControlFlow::Break(()),
            },
            Err(e) => e.to_string(),
        };
        // it may be whole, or readable, in a moment
        if self.watch.failed(path) {
            hand.tally.failed();
            tracing::warn!(image = %path.display(), "left out: {refused}");
            self.watch.judged(path, UNREADABLE);
        }
        ControlFlow::Continue(())
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let text = format!("larger than {} MiB", MOST_BYTES >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
