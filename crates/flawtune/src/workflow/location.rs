//! Where the weights of a backbone are: in a file, or in the program itself.

use std::fmt;
use std::path::{Path, PathBuf};

use flawtune_backbone::config::VitConfig;
use flawtune_backbone::hub::{self, LocateOptions};
use flawtune_backbone::models::{Origin, Variant};
use flawtune_backbone::weights::{self, Loaded, WeightsError};

use super::engine::download;
use super::{OnEvent, WorkflowError};

/// Where weights are.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// A file, an index of shards or a folder.
    File(PathBuf),
    /// Bytes of the program, under the name of their backbone.
    Embedded(&'static str, &'static [u8]),
}

impl Location {
    /// Those of a known backbone, fetched if they are nowhere on this machine. `name` is how the user called it: a hub or
    /// timm id names a repository, a short name the authors' own.
    pub(super) fn find(
        variant: &'static Variant,
        name: &str,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        match variant.origin {
            Origin::Embedded(bytes) => Ok(Self::Embedded(variant.name, bytes)),
            Origin::Hub(_) => {
                let found = hub::locate(name, &LocateOptions::from_env(), &mut |p| {
                    on_event(download(&p));
                })?;
                Ok(Self::File(found))
            }
        }
    }

    pub(super) fn load(&self, expected: Option<&VitConfig>) -> Result<Loaded, WeightsError> {
        match self {
            Self::File(path) => weights::load(path, expected),
            Self::Embedded(name, bytes) => weights::load_embedded(name, bytes, expected),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Embedded(..) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Embedded(name, _) => write!(f, "{name}, part of flawtune"),
        }
    }
}
