//! Arguments of `flawtune visualize`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use flawtune::workflow::BackboneOverrides;

use super::{CacheOptions, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune visualize outputs/screw_prompts.pt mvtec_ad/screw/test/scratch_head
  flawtune visualize outputs/screw_prompts.pt part1.png 'line3/*.jpg' --prompts 5 --output-dir look
  flawtune visualize outputs/screw_prompts.pt part1.png --root-dir mvtec_ad --block 8 --json

Writes for every image a panel (what prompts attend to, distances to the support images before and after, the size of the
change, attention rollout, Grad-CAM, principal components), for the checkpoint a projection of prompts among patches, and
<category>_visualize.json with the numbers. 'flawtune report' shows them. What each image says: docs/guides/visualize.md.")]
pub(crate) struct VisualizeArgs {
    /// Checkpoint of 'flawtune train' (or of the original recipe)
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,
    /// Images, folders (searched to any depth) or quoted patterns with * ? []
    #[arg(value_name = "IMAGES", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Category whose good training images are the support images [default: the checkpoint's]
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Block whose input Grad-CAM looks at, from 0; negative counts from the end [default: the block that features come from]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) block: Option<i32>,
    /// Prompts in a panel: those that change the image's tokens most
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) prompts: u32,
    /// Images at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) max_images: u32,
    /// Where everything is written [default: visualize beside the checkpoint, where 'flawtune report' finds it]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
}
