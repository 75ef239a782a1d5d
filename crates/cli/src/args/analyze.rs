//! Arguments of `flawtune analyze`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use flawtune::workflow::BackboneOverrides;

use super::{CacheOptions, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune analyze --root-dir mvtec_ad
  flawtune analyze --root-dir mvtec_ad --category screw,pill --max-images 100
  flawtune analyze --category screw --checkpoint outputs/screw_prompts.pt

Says for every category under the root how alike normal images are, how unlike the defects, and how much room that leaves
(1 − AUROC of the untouched model), most room first; with checkpoints, before and after. Test images outside the pool
are compared, which no checkpoint has learned from. Writes similarity.json, similarity.csv, similarity.md and plots.")]
pub(crate) struct AnalyzeArgs {
    /// Categories: folders under the root [default: every category under the root, or those of the checkpoints]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) category: Vec<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Checkpoints of 'flawtune train', at most one a category
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) checkpoint: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Images of each kind to compare, at most; every pair of them is
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) max_images: u32,
    /// Compare class tokens instead of patch tokens
    #[arg(long)]
    pub(crate) use_cls: bool,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Seed of the pool that is left out, and of which images are compared
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where tables and plots are written
    #[arg(long, value_name = "DIR", default_value = "analysis")]
    pub(crate) output_dir: PathBuf,
}
