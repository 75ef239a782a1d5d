//! Arguments of `flawtune meta-train`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use flawtune::workflow::BackboneOverrides;
use flawtune_lab::adapt::meta::Method;
use flawtune_lab::adapt::{LossType, ModulationType};

use super::{CacheOptions, SourceArgs};
use flawtune::values::{finite, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune meta-train --categories screw,pill,cable --output meta.pt
  flawtune meta-train --method maml --categories screw,pill --shots 1,5 --output meta.pt
  flawtune train --category hazelnut --num-defect-samples 1 --init meta.pt

Learns first values from which a few steps on a few defects of another category go far. Every category, seed and number of
shots is a task; from its good images and its pool of defects support and query are drawn anew each time. Test images of
these categories outside the pools are not used, but a training that starts from the result may not be tested on any pool:
evaluate on categories that are not named here. Ctrl-C writes what was reached.")]
pub(crate) struct MetaArgs {
    /// How the start is moved
    #[arg(long, value_name = "METHOD", default_value = "fomaml")]
    pub(crate) method: Method,
    /// Categories to learn from: folders under the root [default: every category under it]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) categories: Vec<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Seeds of the tasks, from --seed on: each draws its own pool
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) tasks_seeds: u32,
    /// Defects in the support
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,5,10", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) shots: Vec<u32>,
    /// Defects of a category that are drawn from, by seed [default: 20, 10 of fewer than 40 defects, half of 10 and fewer]
    #[arg(long, value_name = "P")]
    pub(crate) pool_size: Option<u32>,
    /// Times the start is moved
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) iterations: u32,
    /// Tasks that each move takes the mean of
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) tasks_per_iteration: u32,
    /// Steps of gradient descent on a task's support
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) inner_steps: u32,
    /// Rate of those steps
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = positive)]
    pub(crate) inner_rate: f64,
    /// Rate of the start [default: 0.5 of the way with reptile, falling to 0; otherwise 0.001 of Adam]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub(crate) outer_rate: Option<f64>,
    /// Images of each kind in support and query, at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) batch_size: u32,
    /// Number of prompts
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) num_prompts: u32,
    /// Training objective
    #[arg(long, value_name = "LOSS", default_value = "separability")]
    pub(crate) loss_type: LossType,
    /// Margin of the contrastive loss
    #[arg(long, value_name = "COSINE", default_value_t = 0.5, value_parser = finite)]
    pub(crate) margin: f64,
    /// Class tokens instead of patch tokens
    #[arg(long)]
    pub(crate) use_cls: bool,
    /// How prompts change features
    #[arg(long, value_name = "TYPE", default_value = "learned_transform")]
    pub(crate) modulation_type: ModulationType,
    /// How strongly (α in the formulas of docs/reference/method.md)
    #[arg(long, value_name = "ALPHA", default_value_t = 1.0, value_parser = finite)]
    pub(crate) scaling_factor: f64,
    /// Seed of first values, tasks and what is drawn from them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}
