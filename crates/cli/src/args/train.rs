//! Arguments of `flawtune train`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use flawtune::evaluate::protocol::ProtocolName;
use flawtune_backbone::vjp::{PromptDepth, Scaling};
use flawtune_lab::adapt::inside::PromptInit;
use flawtune_lab::adapt::{EpochSteps, LossType, ModulationType};
use flawtune_lab::workflow::Preset;

use super::{BackboneArgs, CacheOptions, DataArgs};
use flawtune::values::{self, finite, not_negative, part, part_above_zero, positive};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HierarchyArg {
    None,
    /// Prompts for each defect type among the shots, by its folder's name
    Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UniversalArg {
    /// Trained together, a batch of every category in each step
    Joint,
    /// Trained apart, and the mean taken (see 'flawtune merge' for other means)
    Average,
}

/// What is trained inside the transformer.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Inside the transformer (every step runs through the backbone: seconds, not milliseconds)"
)]
pub(crate) struct InsideArgs {
    /// Where prompts enter; with shallow or deep, --modulation-type trains an output modulation on top
    #[arg(long, value_name = "DEPTH", default_value = "output")]
    pub(crate) prompt_depth: PromptDepth,
    /// Bottleneck adapters after every block
    #[arg(long)]
    pub(crate) use_adapters: bool,
    /// Inner width of the adapters [default: 6: 54K numbers in all on ViT-S]
    #[arg(long, value_name = "R", requires = "use_adapters", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) adapter_dim: Option<u32>,
    /// Probability that a prompt is left out in a training step
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = not_negative)]
    pub(crate) prompt_dropout: f64,
    /// First values of the prompts
    #[arg(long, value_name = "HOW", default_value = "xavier")]
    pub(crate) prompt_init: PromptInit,
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
    pub(crate) backbone: BackboneArgs,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Where the checkpoint and history are written
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub(crate) output_dir: PathBuf,
    /// A whole set of defaults; a flag given beside it wins
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) preset: Preset,
    /// Number of prompts
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) num_prompts: u32,
    /// Defect images to train on (shots)
    #[arg(long, value_name = "M", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) num_defect_samples: u32,
    /// Epochs at the most [default: 100; inside the transformer 60 of one step, minutes at 224 pixels]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) num_epochs: Option<u32>,
    /// Learning rate at the start; a cosine takes it to a hundredth
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = positive)]
    pub(crate) learning_rate: f64,
    /// Training objective
    #[arg(long, value_name = "LOSS", default_value = "separability")]
    pub(crate) loss_type: LossType,
    /// Margin of the contrastive loss
    #[arg(long, value_name = "COSINE", default_value_t = 0.5, value_parser = finite)]
    pub(crate) margin: f64,
    /// Part of an image's patches, the oddest, that the ranking and logistic losses look at
    #[arg(long, value_name = "SHARE", value_parser = part_above_zero)]
    pub(crate) loss_top_fraction: Option<f64>,
    /// Difference of patch distances that the ranking and logistic losses count as one
    #[arg(long, value_name = "DISTANCE", value_parser = positive)]
    pub(crate) loss_temperature: Option<f64>,
    /// Whether the ranking and logistic losses look for the flaw of a shot under its ground-truth mask only, where it has one
    #[arg(long, value_name = "WHEN", default_value = "off", action = ArgAction::Set,
          value_parser = values::either(["auto", "off"], "auto"))]
    pub(crate) shot_masks: bool,
    /// Train on and compare class tokens instead of patch tokens
    #[arg(long)]
    pub(crate) use_cls: bool,
    /// Images a step, of each kind
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// How prompts change features [default: by preset]
    #[arg(long, value_name = "TYPE")]
    pub(crate) modulation_type: Option<ModulationType>,
    /// How strongly (α in the formulas of docs/reference/method.md) [default: by preset]
    #[arg(long, value_name = "ALPHA", value_parser = finite)]
    pub(crate) scaling_factor: Option<f64>,
    /// Who trains and who is tested [default: held-out; leaky with --preset original]
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<ProtocolName>,
    /// With --protocol hard: the defect type the shots come from
    #[arg(long, value_name = "TYPE", required_if_eq("protocol", "hard"))]
    pub(crate) defect_type: Option<String>,
    /// Test defects reserved for training; they leave the test set [default: 20, 10 of fewer than 40 defects, half of 10 and fewer]
    #[arg(long, value_name = "P")]
    pub(crate) pool_size: Option<u32>,
    /// What one epoch is [default: full; one with --preset original and inside the transformer]
    #[arg(long, value_name = "STEPS")]
    pub(crate) epoch: Option<EpochSteps>,
    /// Stop after this many epochs without a better hold-out; 0 never stops early [default: 10; 30 inside
    /// the transformer; 0 with original]
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<u32>,
    /// Part of the good images, and from five shots on a fifth of the shots, that choose the epoch instead of training;
    /// 0 trains on everything and keeps the last epoch [default: 0.2; original: 0]
    #[arg(long, value_name = "SHARE", value_parser = part)]
    pub(crate) holdout_fraction: Option<f64>,
    /// More views of the shots that train: flips, rotations, photometric, synthetic (defects pasted on good images),
    /// or none; they are written to <category>_views in the output folder
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "none"
    )]
    pub(crate) augment_defects: Vec<String>,
    /// Train again this many times without a part of the shots, to choose the epoch and to judge whether the prompts help;
    /// 0: the hold-out does both
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub(crate) guard_folds: u32,
    /// Clip the gradient's norm to this; 0 does not clip [default: 1; 0 with original]
    #[arg(long, value_name = "NORM", value_parser = not_negative)]
    pub(crate) grad_clip: Option<f64>,
    /// Learn how strongly: factors on what the output modulation adds, and on prompts and adapters inside the transformer
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) learn_scaling: Scaling,
    /// Pull of every learned scale to where it starts, λ of λ · mean (scale / start − 1)² [default: 1]
    #[arg(long, value_name = "LAMBDA", value_parser = not_negative)]
    pub(crate) scaling_penalty: Option<f64>,
    /// Prompts for each known defect type beside the shared ones: 'evaluate' names the type of a flaw and scores it there
    #[arg(
        long,
        value_name = "HOW",
        default_value = "none",
        conflicts_with = "use_cls"
    )]
    pub(crate) hierarchy: HierarchyArg,
    /// Prompts a type, at most, with --hierarchy type [default: 3]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) type_prompts: Option<u32>,
    /// One set of prompts for all of --categories a,b,c (without it for every category under the root), in universal_prompts.pt
    #[arg(long, value_name = "HOW", conflicts_with_all = ["good", "list"])]
    pub(crate) universal: Option<UniversalArg>,
    #[command(flatten)]
    pub(crate) ensemble: EnsembleArgs,
    /// Seed of everything random: the split, the start, the batches
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Start from the values of a checkpoint, such as one of 'flawtune meta-train', instead of random ones
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,
    /// Go on from the state that an interrupted run left in --output-dir
    #[arg(long)]
    pub(crate) resume: bool,
    /// Also write the curves for TensorBoard: <DIR>/<category>/events.out.tfevents.…
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) inside: InsideArgs,
}

/// The ensemble fitted beside the prompts.
#[derive(Debug, Args)]
pub(crate) struct EnsembleArgs {
    /// Fit no ensemble beside the prompts [the original preset fits none]
    #[arg(long, conflicts_with = "ensemble_layers")]
    pub(crate) no_ensemble: bool,
    /// Blocks the ensemble looks at, from 0 [default: the one at three quarters of the depth]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub(crate) ensemble_layers: Option<Vec<i32>>,
    /// Use what was learned from the defects even where images left out of training show no gain by it
    #[arg(long)]
    pub(crate) no_guard: bool,
}
