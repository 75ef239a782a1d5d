//! Arguments of `flawtune train`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use flawtune::workflow::BackboneOverrides;
use flawtune_lab::workflow::TrainingOptions;

use super::{CacheOptions, DataArgs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UniversalArg {
    /// Trained together, a batch of every category in each step
    Joint,
    /// Trained apart, and the mean taken (see 'flawtune merge' for other means)
    Average,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune train --category screw
  flawtune train --good parts/good --defect parts/bad --category part
  flawtune train --category screw --prompt-depth deep --prompt-init patches
  flawtune train --category screw --use-adapters --num-epochs 120
  flawtune train --category screw --num-defect-samples 5 --loss-type contrastive --seed 3
  flawtune train --category screw --model-name dinov2_vits14 --weights dinov2_vits14.safetensors
  flawtune train --category screw --tensorboard runs
  flawtune train --category screw --num-defect-samples 1 --learn-scaling scalar
  flawtune train --categories screw,pill,cable --universal joint
  flawtune train --category screw --num-defect-samples 20 --hierarchy type
  flawtune train --category screw --num-defect-samples 1 --init meta.pt
  flawtune train --category screw --preset original     # the published recipe, for comparison

Writes <category>_prompts.pt and <category>_history.json into --output-dir. Ctrl-C keeps a resumable state: run the
same command with --resume.")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    #[command(flatten)]
    pub(crate) options: TrainingOptions,
    // the heading of what is inside the transformer would hold for these too
    /// One set of prompts for all of --categories a,b,c (without it for every category under the root), in universal_prompts.pt
    #[arg(long, value_name = "HOW", conflicts_with_all = ["good", "list"], help_heading = None)]
    pub(crate) universal: Option<UniversalArg>,
    /// Also write the curves for TensorBoard: <DIR>/<category>/events.out.tfevents.…
    #[arg(long, value_name = "DIR", help_heading = None)]
    pub(crate) tensorboard: Option<PathBuf>,
}
