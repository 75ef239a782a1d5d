//! How sure a number is: bootstrap intervals, tests of a difference, correction for many tests.
//!
//! All of it is seeded and gives the same bits for any number of threads.

mod bootstrap;
mod delong;
mod holm;
mod rate;
mod seeds;

pub use bootstrap::{
    BootstrapOptions, Interval, PairedInterval, RankingMetric, bootstrap_interval, paired_bootstrap,
};
pub use delong::{DelongTest, delong_test, delong_variance};
pub use holm::holm;
pub use rate::Rate;
pub use seeds::{SeedScores, paired_bootstrap_over_seeds};

use super::metrics::MetricError;

/// Why a statistic could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatisticsError {
    /// The labels and scores themselves are unusable.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// Too few images of a class.
    #[error("{found} {class} images: at least {wanted} are needed for this statistic")]
    TooFew {
        /// Normal or defective.
        class: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// Options that make no sense.
    #[error("{name} is {value}: {wanted}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        wanted: &'static str,
    },
    /// The same image has different labels in two runs.
    #[error("image {id} is labelled defective in one run and normal in another")]
    Labels {
        /// Id of the image.
        id: String,
    },
}
