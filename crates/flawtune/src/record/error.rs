//! What can be wrong with a record.

use std::path::PathBuf;

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file or folder.
    #[error("{}: {source}\nhint: {hint}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// No JSON, or JSON of another shape.
    #[error("{}: is not a run record ({source})\nhint: name a run.json that flawtune wrote, or repeat the run", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Written by a later version.
    #[error("{}: has format {found}, and this version knows up to {known}\nhint: use a newer flawtune", path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The latest format known here.
        known: u64,
    },
}
