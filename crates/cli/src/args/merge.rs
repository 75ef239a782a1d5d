//! Arguments of `flawtune merge`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use clap::Args;
use flawtune_lab::workflow::MergeRequest;

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
    #[command(flatten)]
    pub(crate) request: MergeRequest,
}
