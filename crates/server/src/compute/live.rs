//! Detectors that are open.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use flawtune::Detector;
use flawtune::workflow::NewThreshold;

use crate::files::Files;
use crate::refusal::Refusal;
use crate::store::{DetectorRow, Store, Version};

/// A version of a detector, open.
#[derive(Debug)]
pub(crate) struct Live {
    /// The detector.
    pub(crate) detector: Detector,
    /// Its row.
    pub(crate) row: DetectorRow,
    /// Number of the version.
    pub(crate) version: i64,
}

impl Live {
    /// Opens a version.
    ///
    /// # Errors
    /// Anything wrong with its file or the backbone's weights.
    pub(crate) fn open(
        files: &Files,
        weights: Option<&PathBuf>,
        row: &DetectorRow,
        version: &Version,
    ) -> Result<Self, Refusal> {
        let path = files.detector(&row.name).join(&version.is.file);
        let mut detector =
            Detector::open_with(&path, weights.map(PathBuf::as_path), None, &mut |_| {})?;
        if version.is.given {
            detector = detector.with_threshold(NewThreshold::Value(version.is.threshold))?;
        }
        Ok(Self {
            detector,
            row: row.clone(),
            version: version.number,
        })
    }

    /// The threshold in force.
    pub(crate) fn threshold(&self) -> f64 {
        self.detector.header().threshold.value
    }
}

/// The version in force of each detector that was asked for, open.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    open: RwLock<HashMap<i64, Arc<Live>>>,
    opening: Mutex<()>,
    weights: Option<PathBuf>,
}

impl Registry {
    /// Of none yet. `weights` names the weight file of their backbone, where it is not found by name.
    pub(crate) fn new(weights: Option<PathBuf>) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    /// The version in force, opened where it is not open.
    ///
    /// # Errors
    /// A detector without a version, or one that cannot be opened.
    pub(crate) fn live(
        &self,
        store: &Store,
        files: &Files,
        row: &DetectorRow,
    ) -> Result<Arc<Live>, Refusal> {
        let open = |current: i64| {
            let all = self.open.read().unwrap_or_else(PoisonError::into_inner);
            all.get(&row.id)
                .filter(|live| live.version == current)
                .cloned()
        };
        let current = row.current.ok_or_else(|| {
            Refusal::conflict(format!("'{}' has learned nothing yet", row.name))
                .hint("hand in good images and fit it")
        })?;
        if let Some(live) = open(current) {
            return Ok(live);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = open(current) {
            return Ok(live);
        }
        let version = store.version(row.id, current)?;
        let version = version
            .ok_or_else(|| Refusal::missing(format!("'{}' has no version {current}", row.name)))?;
        let live = Arc::new(Live::open(files, self.weights.as_ref(), row, &version)?);
        let mut all = self.open.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(row.id, Arc::clone(&live));
        Ok(live)
    }

    /// The weight file of backbones that are not found by name.
    pub(crate) fn weights(&self) -> Option<&PathBuf> {
        self.weights.as_ref()
    }

    /// Closes a detector.
    pub(crate) fn close(&self, detector: i64) {
        let mut all = self.open.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&detector);
    }
}
