//! Which images may be learned from and which are tested.
//!
//! The default, [`Protocol::HeldOut`]: a seeded pool of defects leaves the test set for good; the M shots are the first
//! M of the pool. So every M, zero-shot (M = 0) included, is measured on one and the same test set, and larger M
//! contain the smaller. Whatever has to be chosen (epoch, threshold, method) is chosen on the pool and on held-out
//! train/good images, never on the test set. Where a data set has defects of its own to learn from (train), the pool is
//! drawn from them and no defect leaves the test set.

mod manifest;
mod split;

pub use manifest::{ImageRef, SplitManifest, check_disjoint};
pub use split::{SampleInfo, Split, SplitOptions};

use serde::{Deserialize, Serialize};

/// The rule by which a category is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A pool of defects leaves the test set. The default; nothing else may be called a result.
    HeldOut,
    /// The arrangement of the original recipe: the first N test anomalies are trained on **and** tested.
    Leaky,
    /// Shots of one defect type; that whole type leaves the test set: how well are unseen types found?
    Hard {
        /// The type that is learned, a folder name such as `crack`.
        defect_type: String,
    },
}

/// The rules by name: what is chosen before it is known which type [`Protocol::Hard`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ProtocolName {
    /// Training defects leave the test set, for the baseline too
    #[default]
    HeldOut,
    /// The original recipe's: the first test anomalies train, the whole test split is scored
    Leaky,
    /// Shots of one defect type; that whole type leaves the test set
    Hard,
}

impl ProtocolName {
    /// The rule; of the hard one the type is that of a checkpoint where none is given.
    ///
    /// # Errors
    /// [`ProtocolError::TypeWithoutHard`].
    pub fn of_type(self, defect_type: Option<&str>) -> Result<Protocol, ProtocolError> {
        match (self, defect_type) {
            (Self::Hard, of) => Ok(Protocol::Hard {
                defect_type: of.unwrap_or_default().to_owned(),
            }),
            (_, Some(_)) => Err(ProtocolError::TypeWithoutHard),
            (Self::HeldOut, None) => Ok(Protocol::HeldOut),
            (Self::Leaky, None) => Ok(Protocol::Leaky),
        }
    }
}

impl Protocol {
    /// Its name.
    pub fn name(&self) -> ProtocolName {
        match self {
            Self::HeldOut => ProtocolName::HeldOut,
            Self::Leaky => ProtocolName::Leaky,
            Self::Hard { .. } => ProtocolName::Hard,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HeldOut => f.write_str("held-out"),
            Self::Leaky => f.write_str("leaky"),
            Self::Hard { defect_type } => write!(f, "hard ({defect_type})"),
        }
    }
}

/// What to do about a pool that takes all defects.
fn pool_hint(defects: usize) -> String {
    if defects < 2 {
        "a single defect is learned from or tested: `flawtune fit` learns from what `defect` names, and tests nothing"
            .to_owned()
    } else {
        format!("choose a smaller pool (at most {})", defects - 1)
    }
}

/// Why a category cannot be split, or a checkpoint not be evaluated, as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No defects at all.
    #[error(
        "{category}: no defect images to test (in the layout of MVTec AD, every folder under test/ other than good counts): \
         nothing to adapt to or to measure\nhint: put defective images into a folder per defect type, test/<type>"
    )]
    NoDefects {
        /// Category.
        category: String,
    },
    /// No images of the type that is to be learned.
    #[error("{category}: no defect type {defect_type:?} to learn from; there are: {}", known.join(", "))]
    UnknownType {
        /// Category.
        category: String,
        /// Type asked for.
        defect_type: String,
        /// Types found.
        known: Vec<String>,
    },
    /// A type, and a rule that is about none.
    #[error("`defect_type` goes with `protocol` hard only")]
    TypeWithoutHard,
    /// More shots asked for than the pool holds.
    #[error(
        "{category}: {shots} defect images asked for, but the pool that may be learned from holds {pool} of the {defects} defects\nhint: ask for at most {pool}, or make the pool larger"
    )]
    MoreShotsThanPool {
        /// Category.
        category: String,
        /// Shots asked for.
        shots: usize,
        /// Size of the pool.
        pool: usize,
        /// Defects there are.
        defects: usize,
    },
    /// More shots asked for than there are defects (leaky protocol).
    #[error(
        "{category}: {shots} defect images asked for, but there are only {defects}\nhint: ask for at most {defects}"
    )]
    MoreShotsThanDefects {
        /// Category.
        category: String,
        /// Shots asked for.
        shots: usize,
        /// Defects there are.
        defects: usize,
    },
    /// The pool would leave no defect to test.
    #[error(
        "{category}: a pool of {pool} out of {defects} defects leaves none to test\nhint: {}",
        pool_hint(*defects)
    )]
    PoolTakesAll {
        /// Category.
        category: String,
        /// Size of the pool.
        pool: usize,
        /// Defects there are.
        defects: usize,
    },
    /// No defects of other types are left to test.
    #[error(
        "{category}: without {defect_type:?} no defects are left to test; the hard protocol needs at least two types"
    )]
    NoOtherTypes {
        /// Category.
        category: String,
        /// The type that is learned.
        defect_type: String,
    },
    /// Too few normal training images.
    #[error(
        "{category}: {found} good images to learn from (train/good), at least {wanted} are needed \
         (two to learn from, the rest held out for choosing)"
    )]
    TooFewNormals {
        /// Category.
        category: String,
        /// How many there are.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// No normal test images.
    #[error("{category}: no good images to test (test/good): AUROC needs normal test images too")]
    NoTestNormals {
        /// Category.
        category: String,
    },
    /// An option out of range.
    #[error("{name} is {value}; {wanted}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// Value given.
        value: String,
        /// What is allowed.
        wanted: &'static str,
    },
    /// The checkpoint learned from images that are now to be tested.
    #[error(
        "{count} of the {trained} images that the file learned from or was chosen on are in the test set ({how}), the \
         first is {first}: the result would be worthless\nhint: test other images, or a checkpoint under the protocol leaky if that \
         is what you want to see"
    )]
    TrainedOnTest {
        /// How many overlap.
        count: usize,
        /// Images in the manifest.
        trained: usize,
        /// Same file or same content.
        how: &'static str,
        /// Id of the first one.
        first: String,
    },
}
