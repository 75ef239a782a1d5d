//! Why verdicts cannot go where they shall.

use std::path::PathBuf;

use super::Address;

/// What is wrong with a receiver, found before the first part is looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiverError {
    /// An address that is none, or of a kind that is not served.
    #[error("`{option}`: {address}: {found}\nhint: {hint}")]
    Address {
        /// The option that names it.
        option: &'static str,
        /// Without what is secret in it.
        address: Address,
        /// What is wrong.
        found: String,
        /// What to do.
        hint: &'static str,
    },
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
    /// A file that holds something else than it shall.
    #[error("`{option}`: {}: {found}\nhint: {hint}", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// An option without the one that it belongs to.
    #[error("`{option}` is given without `{wanted}`\nhint: {hint}")]
    Alone {
        /// The option that is there.
        option: &'static str,
        /// The option that is not.
        wanted: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The system gives no thread.
    #[error(
        "no thread for {name}: {source}\nhint: raise the number of threads that the service may have"
    )]
    Thread {
        /// Of which receiver.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}
