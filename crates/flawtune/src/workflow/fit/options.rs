//! What a fit may choose: each option once, with its default and the words that help prints.

// backticks would stand in what a terminal shows
#![allow(clippy::doc_markdown)]

use std::time::Duration;

use super::{IndexChoice, MaskChoice, ScorerChoice, ThresholdChoice};
use crate::bundle::Precision;
use crate::score::Aggregate;
use crate::score::threshold::DEFAULT_FALSE_ALARMS;
#[cfg(feature = "clap")]
use crate::values::{all_or_number, bytes, count, either, part_above_zero, rate};

/// What a fit may choose beside images and backbone.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct FitOptions {
    /// Defects of the test set to learn from, the first of a pool that --seed draws and that is never tested [default: 0, or all
    /// defects that --defect names or that lie in the layout's training part]
    #[cfg_attr(feature = "clap", arg(id = "num_defect_samples", long = "num-defect-samples", value_name = "M",
                                     value_parser = count(0..)))]
    pub shots: Option<usize>,
    /// How an image gets its score [default: residual; with a checkpoint its ensemble or patch-bank]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub scorer: Option<ScorerChoice>,
    /// With patch-bank: share of an image's patches, the oddest, whose mean distance is its score; or max, or mean
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "top_fraction",
            long = "top-fraction",
            value_name = "SHARE",
            default_value_t
        )
    )]
    pub aggregate: Aggregate,
    /// With image-pair: support images whose similarities are averaged
    #[cfg_attr(feature = "clap", arg(long, value_name = "K", default_value_t = Self::default().k_neighbors, value_parser = count(1..)))]
    pub k_neighbors: usize,
    /// Good images that form the bank, drawn with the seed: a number, or all
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value = "all", value_parser = all_or_number))]
    pub support_shots: std::option::Option<usize>,
    /// Keep this share of the bank's patches, chosen to cover the rest (greedy k-centre)
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", value_parser = part_above_zero))]
    pub coreset: Option<f64>,
    /// Cut the background away by the first principal component; flaws there are then not seen
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WHEN", value_enum, default_value_t = Self::default().mask)
    )]
    pub mask: MaskChoice,
    /// Keep the good images in more directions: none, or rotations (eight, 45° apart), for parts that lie in any direction
    #[cfg_attr(feature = "clap", arg(long = "augment", value_name = "WHAT", default_value = "none",
                                     action = clap::ArgAction::Set,
                                     value_parser = either(["none", "rotations"], "rotations")))]
    pub rotations: bool,
    /// A patch is the mean of N×N patches round it, as in PatchCore: 1, 3, 5, …; for noisy surfaces
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().neighbourhood, value_parser = count(1..=255)))]
    pub neighbourhood: usize,
    /// Element type of the bank in the file; everything is scored against the rounded numbers
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "bank_precision",
            long = "bank-precision",
            value_name = "TYPE",
            value_enum, default_value_t = Self::default().precision
        )
    )]
    pub precision: Precision,
    /// How the nearest patch of the bank is found; what an approximate search misses is measured and kept in the file
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "HOW", value_enum, default_value_t = Self::default().index)
    )]
    pub index: IndexChoice,
    /// With an approximate index: cells that are searched for each patch; more find more and take longer
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().index_probes, value_parser = count(1..)))]
    pub index_probes: usize,
    /// Share of good images that may be called flawed
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", default_value_t = Self::default().max_false_alarm, value_parser = rate))]
    pub max_false_alarm: f64,
    /// What the threshold is chosen from
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WHAT", value_enum, default_value_t = Self::default().threshold)
    )]
    pub threshold: ThresholdChoice,
    /// Time an image may take on this machine, such as 50ms: the best sizes within it [default: the best there are]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TIME", value_parser = humantime::parse_duration))]
    pub budget: Option<Duration>,
    /// Choose among the image sizes by the defects that are learned from, each left out, and by synthetic ones; so long they may
    /// take beside the fit, such as 2min
    #[cfg_attr(feature = "clap", arg(long, value_name = "TIME", value_parser = humantime::parse_duration))]
    pub search: Option<Duration>,
    /// Most memory the bank may take: 800M, 2G; its size is said before it is made
    #[cfg_attr(feature = "clap", arg(long, value_name = "BYTES", value_parser = bytes))]
    pub max_memory: Option<usize>,
    /// Use what was learned from the defects even where images left out of training showed no gain by it
    #[cfg_attr(feature = "clap", arg(id = "no_guard", long = "no-guard", action = clap::ArgAction::SetFalse))]
    pub guard: bool,
    /// Seed of the support and the coreset; without a checkpoint also of the split that `evaluate` tests on
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().seed))]
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            shots: None,
            scorer: None,
            aggregate: Aggregate::default(),
            k_neighbors: 1,
            support_shots: None,
            coreset: None,
            mask: MaskChoice::Off,
            rotations: false,
            neighbourhood: 1,
            precision: Precision::F16,
            index: IndexChoice::Auto,
            index_probes: 16,
            max_false_alarm: DEFAULT_FALSE_ALARMS,
            threshold: ThresholdChoice::Good,
            budget: None,
            search: None,
            max_memory: None,
            guard: true,
            seed: 0,
        }
    }
}

#[cfg(all(test, feature = "clap"))]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_line_without_options_is_the_default() {
        let command = FitOptions::augment_args(clap::Command::new("fit"));
        let matches = command.try_get_matches_from(["fit"]).unwrap();
        let parsed = FitOptions::from_arg_matches(&matches).unwrap();
        assert_eq!(parsed, FitOptions::default());
    }
}
