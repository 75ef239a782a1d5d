//! Ctrl-C: training stops after its step and keeps its state, watching and drawing end after the images at hand; anything else ends at
//! once, since finished features are
//! already in the cache and result files appear whole or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::console;
use crate::failure::Failure;
use crate::lock;
use crate::recording;

static TRAINING: AtomicBool = AtomicBool::new(false);
static WATCHING: AtomicBool = AtomicBool::new(false);
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Raised by Ctrl-C while training, watching or drawing.
pub(crate) fn cancel() -> &'static AtomicBool {
    &CANCEL
}

/// From now on Ctrl-C asks training to stop.
pub(crate) fn training_starts() {
    TRAINING.store(true, Ordering::SeqCst);
}

/// From now on Ctrl-C ends the watching of a folder.
pub(crate) fn watching_starts() {
    WATCHING.store(true, Ordering::SeqCst);
}

/// From now on Ctrl-C ends the server after the requests at hand.
pub(crate) fn serving_starts() {
    WATCHING.store(true, Ordering::SeqCst);
}

/// From now on Ctrl-C ends the work after the image at hand.
pub(crate) fn pictures_start() {
    WATCHING.store(true, Ordering::SeqCst);
}

/// Whether Ctrl-C asked to stop.
pub(crate) fn asked() -> bool {
    CANCEL.load(Ordering::SeqCst)
}

pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if WATCHING.load(Ordering::SeqCst) && !CANCEL.swap(true, Ordering::SeqCst) {
            return;
        }
        let graceful = TRAINING.load(Ordering::SeqCst);
        if graceful && !CANCEL.swap(true, Ordering::SeqCst) {
            console::line(
                "stopping after this step; Ctrl-C again ends at once and loses what is not saved yet",
            );
            return;
        }
        recording::interrupted();
        lock::interrupted();
        console::interrupted();
        std::process::exit(130);
    })
    .map_err(|e| Failure::Machine(format!("cannot watch for Ctrl-C: {e}")))
}
