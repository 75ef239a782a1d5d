//! Scores and distances of frozen tokens, kept from one job of a process to the next.
//!
//! Whatever is trained, the untouched model gives the same image the same score. A study that trains many settings on
//! one split asks for these numbers once a run; here they are computed once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Category, Engine, WorkflowError};
use flawtune::features::Forward as _;

type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;
type Slots<T> = Mutex<HashMap<blake3::Hash, Slot<T>>>;

/// Numbers of frozen tokens by everything that decides them: weights, layers, preprocessing, images. Copies share what
/// they keep. The default keeps nothing: every job computes its own.
#[derive(Clone, Default)]
pub struct FrozenScores(Option<Arc<Kept>>);

#[derive(Default)]
struct Kept {
    scores: Slots<Vec<f64>>,
    distances: Slots<Vec<Vec<f32>>>,
}

impl fmt::Debug for FrozenScores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FrozenScores")
            .field(&self.0.is_some())
            .finish()
    }
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// Which numbers, with every option that changes them.
    pub(super) what: String,
    pub(super) category: &'a Category,
    pub(super) engine: &'a Engine,
    /// Positions of the images compared with, in the order compared.
    pub(super) support: &'a [usize],
    /// Positions of the images scored; none where the support's own are.
    pub(super) scored: &'a [usize],
}

impl Wanted<'_> {
    fn key(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let engine = self.engine;
        let texts = [
            self.what.as_str(),
            engine.weights_hash(),
            &engine.variant(),
            &engine.preprocess().id(),
        ];
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for list in [self.support, self.scored] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            for &i in list {
                hasher.update(self.category.contents[i].as_bytes());
            }
        }
        hasher.finalize()
    }
}

impl FrozenScores {
    /// Keeps what it is asked for until the last copy is dropped.
    pub fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    pub(super) fn scores(
        &self,
        wanted: &Wanted<'_>,
        compute: impl FnOnce() -> Result<Vec<f64>, WorkflowError>,
    ) -> Result<Arc<Vec<f64>>, WorkflowError> {
        once(self.0.as_deref().map(|k| &k.scores), wanted, compute)
    }

    pub(super) fn distances(
        &self,
        wanted: &Wanted<'_>,
        compute: impl FnOnce() -> Result<Vec<Vec<f32>>, WorkflowError>,
    ) -> Result<Arc<Vec<Vec<f32>>>, WorkflowError> {
        once(self.0.as_deref().map(|k| &k.distances), wanted, compute)
    }
}

/// What is kept, or else what `compute` gives. Two jobs that ask at once compute once: the second waits. An error is the
/// asker's alone; the next one computes again.
fn once<T>(
    slots: Option<&Slots<T>>,
    wanted: &Wanted<'_>,
    compute: impl FnOnce() -> Result<T, WorkflowError>,
) -> Result<Arc<T>, WorkflowError> {
    let Some(slots) = slots else {
        return compute().map(Arc::new);
    };
    let slot = {
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(wanted.key()).or_default())
    };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = slot.as_ref() {
        return Ok(Arc::clone(found));
    }
    let found = Arc::new(compute()?);
    *slot = Some(Arc::clone(&found));
    Ok(found)
}
