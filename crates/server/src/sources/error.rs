//! Why images cannot come from where they shall.

use std::path::PathBuf;

use crate::receivers::Address;

/// What is wrong with a source, found before the first image is taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file or folder that cannot be read or written.
    #[error("`{option}`: {}: {source}\nhint: {hint}", path.display())]
    Io {
        /// The option that names it.
        option: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A source that is none, or of a kind that is not served.
    #[error("`source`: {address}: {found}\nhint: {hint}")]
    Address {
        /// Without what is secret in it.
        address: Address,
        /// What is wrong.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(&'static str),
    /// No program that reads cameras and films.
    #[error(
        "{}: cameras and films are read by ffmpeg, which {found}\n\
         hint: install it (Debian: apt install ffmpeg) or name the program with `ffmpeg`",
        program.display()
    )]
    Ffmpeg {
        /// What was tried.
        program: PathBuf,
        /// What came of it.
        found: String,
    },
    /// The system gives no thread.
    #[error(
        "no thread for {name}: {source}\nhint: raise the number of threads that the service may have"
    )]
    Thread {
        /// Of which source.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}
