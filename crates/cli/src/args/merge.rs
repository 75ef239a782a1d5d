//! Arguments of `flawtune merge`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::numbers::not_negative;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MergeArg {
    /// All the same, prompt by prompt in the order they have
    Mean,
    /// With --weights, or by the number of shots each was trained on
    Weighted,
    /// As mean, after matching the prompts of each to the first one's (largest sum of cosines)
    Aligned,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune merge screw_prompts.pt pill_prompts.pt --output both.pt
  flawtune merge screw_prompts.pt pill_prompts.pt --how aligned --output both.pt
  flawtune merge a.pt b.pt c.pt --how weighted --weights 3,1,1 --output all.pt
  flawtune evaluate --category cable --checkpoint both.pt

The checkpoints must be of one backbone and one kind of modulation. The result tests each category under the split of its
checkpoint, and categories it never saw under the usual one. Says how far the prompts were apart: prompts that point
apart cancel each other out in a mean.")]
pub(crate) struct MergeArgs {
    /// Checkpoints of 'flawtune train'
    #[arg(value_name = "CHECKPOINT", required = true, num_args = 2..)]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// How the mean is taken
    #[arg(long, value_name = "HOW", default_value = "mean")]
    pub(crate) how: MergeArg,
    /// A weight for each checkpoint, in their order; with --how weighted
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = not_negative)]
    pub(crate) weights: Vec<f64>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
