//! Why weights could not be found or fetched.

use std::io;
use std::path::PathBuf;

use crate::models::UnknownModel;
use crate::weights::WeightsError;

/// Weights that could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No backbone has this name.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// Its weights are part of the program.
    #[error("{0} is part of flawtune: there is nothing to look for or to fetch")]
    Embedded(String),
    /// The file that the user named does not exist.
    #[error("`weights` {}: no such file or folder", .0.display())]
    NoSuchWeights(PathBuf),
    /// Not on this machine, and the network is off.
    #[error(
        "{model} is not on this machine and HF_HUB_OFFLINE is set; looked in {looked}\nhint: unset it, copy the weights into \
         one of these folders, or name a file with `weights`"
    )]
    Offline {
        /// The model.
        model: String,
        /// Folders that were searched.
        looked: String,
    },
    /// The hub wants a login, an accepted licence, or another token.
    #[error(
        "the hub refused {repo} ({status}): {reason}\nhint: or use a backbone that needs no login \
         (`model_name` {alternative}), or name a local file with `weights`"
    )]
    Denied {
        /// The repository.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Why, and what to do about it.
        reason: String,
        /// A comparable backbone without a gate.
        alternative: String,
    },
    /// The repository has no such file.
    #[error(
        "{url} does not exist: {repo} has no weights that flawtune reads\nhint: name a local file with `weights`"
    )]
    NotFound {
        /// The repository.
        repo: String,
        /// The last address tried.
        url: String,
    },
    /// The server answered with an error.
    #[error("{url}: the server answered {status}{}", if *.attempts > 1 { format!(" {attempts} times") } else { String::new() })]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server could not be reached or the connection broke.
    #[error(
        "{url}: {what} ({attempts} attempts). What has arrived is kept\nhint: run it again to continue, set HF_ENDPOINT to a \
         mirror, or name a local file with `weights`"
    )]
    Network {
        /// The address.
        url: String,
        /// What broke.
        what: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server's answer makes no sense.
    #[error("{url}: {what}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The file that arrived is not the one announced.
    #[error(
        "{url}: SHA-256 is {found}, announced was {wanted}; the file was deleted, run it again"
    )]
    Checksum {
        /// The address.
        url: String,
        /// SHA-256 of what arrived, hex.
        found: String,
        /// SHA-256 announced, hex.
        wanted: String,
    },
    /// A folder or file of the cache could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A downloaded index of shards is malformed.
    #[error(transparent)]
    Index(#[from] WeightsError),
}
