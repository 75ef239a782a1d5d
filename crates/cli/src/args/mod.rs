//! Command-line arguments, their defaults and their help.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

mod ablate;
mod analyze;
mod arrange;
mod demo;
mod detect;
mod learn;
mod merge;
mod meta;
mod progress;
mod report;
mod serve;
mod settings;
mod shell;
mod synth;
mod train;
mod visualize;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use flawtune::dataset::{Layout, VisaSplit};
use flawtune::evaluate::protocol::ProtocolName;
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::score::threshold::DEFAULT_FALSE_ALARMS;
use flawtune::values;
use flawtune::workflow::BackboneOverrides;
use flawtune_backbone::vit::Precision;

pub(crate) use ablate::AblateArgs;
pub(crate) use analyze::AnalyzeArgs;
pub(crate) use arrange::command;
pub(crate) use demo::DemoArgs;
pub(crate) use detect::{FitArgs, FormatArg, MapFormatArg, PredictArgs, ThresholdArgs};
pub(crate) use learn::LearnArgs;
pub(crate) use merge::MergeArgs;
pub(crate) use meta::MetaArgs;
pub(crate) use progress::ProgressArg;
pub(crate) use report::ReportArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use settings::{ConfigArgs, ReproduceArgs};
pub(crate) use shell::{CompletionsArgs, ManArgs};
pub(crate) use synth::SynthArgs;
pub(crate) use train::{TrainArgs, UniversalArg};
pub(crate) use visualize::VisualizeArgs;

/// Few-shot visual flaw detection with a frozen vision transformer.
///
/// Show it images of good parts and, if you have them, a few defects: it gives one file that finds flaws on a CPU, and says
/// honestly how much the defects taught it.
#[derive(Debug, Parser)]
#[command(
    name = "flawtune",
    version,
    max_term_width = 110,
    propagate_version = true
)]
#[command(after_help = "Examples:
  flawtune demo
  flawtune fit      --good parts/good --defect parts/defects --output parts.flaw
  flawtune predict  parts.flaw new/ --maps maps
  flawtune evaluate parts.flaw --root-dir parts
  flawtune train    --category screw --num-defect-samples 10

Everyday commands come first, from demo to report; then those of the original recipe and of studies, from train to reproduce; then
tools.

Data: MVTec AD (also 2 and LOCO), VisA, BTAD, KolektorSDD, two folders of images, or a CSV list; docs/guides/datasets.md.
Exit codes: 0 success, 1 failure of the machine (disk, memory), a flaw found (predict --fail-on-flaw) or a repetition that
differs (reproduce), 2 wrong input, 130 interrupted. Defaults: flawtune.toml and FLAWTUNE_*; docs/guides/configuration.md.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Threads to compute with [default: physical cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Print the result as JSON on standard output instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no notes, only the result and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Defaults of the project [default: flawtune.toml here or in the nearest parent folder; env: FLAWTUNE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Read no file of defaults
    #[arg(long, global = true, conflicts_with = "config")]
    pub(crate) no_config: bool,
    /// Most pixels an image may have, in millions: a guard for the machine's memory [default: 268]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_megapixels: Option<u32>,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    pub(crate) progress: ProgressArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the main job on a backbone and images that are inside of this program: no network, half a minute
    Demo(DemoArgs),
    /// Learn what good parts look like, and defects where there are some: one file that finds flaws
    Fit(Box<FitArgs>),
    /// Find flaws with a file of `fit`: verdict, probability, and where the flaw is
    Predict(PredictArgs),
    /// Measure a file of `fit`, or a checkpoint of `train` against the untouched model, on images neither has seen
    Evaluate(Box<EvaluateArgs>),
    /// Teach a file of `fit` more: new defects, or good images that it stopped
    Learn(LearnArgs),
    /// Serve a page and an API: look at parts, correct verdicts with a click, and it learns
    Serve(Box<ServeArgs>),
    /// See what thresholds of a file of `fit` stop and find, and choose another
    Threshold(ThresholdArgs),
    /// Put finished runs on one page to read and pass on: curves, decisions, images, how it was made
    Report(ReportArgs),
    /// Train prompts for a category from its good images and a few defects
    Train(Box<TrainArgs>),
    /// Score the untouched model (zero-shot nearest neighbours) on a category
    Baseline(Box<BaselineArgs>),
    /// Train and evaluate over a grid of settings, categories and seeds: tables, intervals, plots
    Ablate(Box<AblateArgs>),
    /// Say how far apart normal and defective images lie in each category, and how much room that leaves
    Analyze(Box<AnalyzeArgs>),
    /// Make one checkpoint of several: the mean of their prompts, as they are or matched to each other first
    Merge(MergeArgs),
    /// Learn first values for prompts from several categories, for trainings on others
    MetaTrain(Box<MetaArgs>),
    /// Draw what a checkpoint's prompts look at and change on images: attention, maps before and after, Grad-CAM
    Visualize(Box<VisualizeArgs>),
    /// Repeat the runs recorded in a run.json, and compare what they write
    Reproduce(ReproduceArgs),
    /// Say what a checkpoint or weight file holds
    Info(InfoArgs),
    /// List the backbones that can be named, and where their weights come from
    #[command(after_help = "Examples:
  flawtune models
  flawtune models --json")]
    Models,
    /// Write patch and class tokens of images (or of ready pixel tensors) to a safetensors file
    Features(Box<FeaturesArgs>),
    /// Show or clear the cache of extracted features
    Cache(CacheArgs),
    /// Draw a data set with four defect types and masks to try things with, or put synthetic defects on own images
    Synth(SynthArgs),
    /// Measure this machine: forward pass, patch matching, training step, beside what it could do at most
    Bench(BenchArgs),
    /// Show what options are set to, and by whom: environment, flawtune.toml, default
    Config(ConfigArgs),
    /// Print what a shell needs to complete flawtune's arguments
    Completions(CompletionsArgs),
    /// Print the manual page of a command, or write those of all commands
    Man(ManArgs),
}

/// Where the images of one category are.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Category: a folder under the root. Without it the root is one itself; with --good or --list it only names the
    /// files written [default there: the folder's or list's name]
    #[arg(long, alias = "categories", value_name = "NAME", required_unless_present_any = ["root_dir", "good", "list"])]
    pub(crate) category: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// As [`DataArgs`], where a file can name the category.
#[derive(Debug, Args)]
pub(crate) struct EvaluateDataArgs {
    /// Category: a folder under the root [default: the one that the file was made for; else the root is one itself]
    #[arg(long, alias = "categories", value_name = "NAME")]
    pub(crate) category: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Where images are; docs/guides/datasets.md has a table of the layouts.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Folder that holds the categories
    #[arg(long, value_name = "DIR", default_value = "mvtec_ad", conflicts_with_all = ["good", "list"])]
    pub(crate) root_dir: PathBuf,
    /// How a category is laid out under the root: auto, mvtec-ad, mvtec-ad-2, mvtec-loco, btad, visa, kolektor-sdd or
    /// kolektor-sdd2 (docs/guides/datasets.md)
    #[arg(long, value_name = "NAME", default_value = "auto", conflicts_with_all = ["good", "list"])]
    pub(crate) layout: Layout,
    /// Split of VisA: 1cls, 2cls-highshot or 2cls-fewshot
    #[arg(long, value_name = "NAME", default_value = "1cls", conflicts_with_all = ["good", "list"])]
    pub(crate) visa_split: VisaSplit,
    /// Folder of good images, in place of a root; searched to any depth
    #[arg(long, value_name = "DIR", conflicts_with = "list")]
    pub(crate) good: Option<PathBuf>,
    /// Folder of defects, with a folder per type if there are several
    #[arg(long, value_name = "DIR", requires = "good")]
    pub(crate) defect: Option<PathBuf>,
    /// Folder of the defects' masks: <type>/<name>.png or <type>/<name>_mask.png
    #[arg(long, value_name = "DIR", requires = "defect")]
    pub(crate) masks: Option<PathBuf>,
    /// Folder of good images to test [default: with --defect a fifth of --good, by name]
    #[arg(long, value_name = "DIR", requires = "good")]
    pub(crate) test_good: Option<PathBuf>,
    /// CSV list in place of a root: path,label and if wanted split,type,masks
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Leave out images that cannot be read (they are named) instead of stopping
    #[arg(long)]
    pub(crate) skip_bad_images: bool,
    /// End with an error where something about the images would only be warned of
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The cache of extracted features.
#[derive(Debug, Args)]
pub(crate) struct CacheOptions {
    /// Neither read nor write the feature cache
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Where features are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "FLAWTUNE_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune bench
  flawtune bench --batch 1,8 --image-size 224,448 --threads 1 --json
  flawtune bench --quick

Weights are random: nothing is downloaded. The defaults take about a minute. 'Of attainable' is the share of the fastest
product that this machine can compute, measured in turns with it; other work on the machine lowers both.")]
pub(crate) struct BenchArgs {
    /// Backbones: names of `flawtune models`
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "dinov3_vits16"
    )]
    pub(crate) model_name: Vec<String>,
    /// Sides of the square images, in pixels
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "224",
          value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub(crate) image_size: Vec<u32>,
    /// Images a forward pass
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,8",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) batch: Vec<u32>,
    /// How weights are kept and multiplied; each is measured
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "f32"
    )]
    pub(crate) precision: Vec<Precision>,
    /// Measurements of each thing; medians are reported [default: 7; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// A first look in a few seconds: small matching and training problems
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune evaluate screw.flaw --root-dir mvtec_ad
  flawtune evaluate outputs/screw_prompts.pt --category screw
  flawtune evaluate outputs/screw_prompts.pt --category screw --k-neighbors 3 --json

The file says what it is: a detector of 'flawtune fit' or a checkpoint of 'flawtune train'. Backbone, preprocessing, seed and
split come from it. Of a detector <category>_detection.json and <category>_predictions.csv are written into --output-dir: a row
of what it ships and, where it learned from defects, one of what it would be without them, by the scores that 'flawtune predict'
gives, to the last bit. Of a checkpoint <category>_comparison.json is written.")]
pub(crate) struct EvaluateArgs {
    /// Detector of `flawtune fit`, or checkpoint of `flawtune train` (or of the original recipe)
    #[arg(value_name = "FILE", required_unless_present_any = ["checkpoint", "bundle"], conflicts_with_all = ["checkpoint", "bundle"])]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: EvaluateDataArgs,
    /// Older form of FILE, for a checkpoint
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Older form of FILE, for a detector
    #[arg(long, value_name = "FILE", hide_short_help = true, conflicts_with_all = ["checkpoint", "protocol", "scorers", "no_guard", "k_neighbors", "max_false_alarm"])]
    pub(crate) bundle: Option<PathBuf>,
    /// False positive rate up to which the per-region overlap is integrated (of a detector)
    #[arg(long, value_name = "RATE", default_value_t = 0.3, value_parser = values::part_above_zero)]
    pub(crate) aupro_limit: f64,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Support images whose similarities are averaged
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k_neighbors: u32,
    /// Share of good images that may be called defective: thresholds are set for it on good images held out of
    /// training, never on tested ones
    #[arg(long, value_name = "RATE", default_value_t = DEFAULT_FALSE_ALARMS, value_parser = values::rate)]
    pub(crate) max_false_alarm: f64,
    /// Where the comparison is written
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub(crate) output_dir: PathBuf,
    /// Of a detector: write the anomaly map and an overlay of every tested image here, as predict does
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    pub(crate) maps: Option<PathBuf>,
    /// Overwrite the results of another detector or checkpoint
    #[arg(long)]
    pub(crate) force: bool,
    /// Who is tested [default: what the checkpoint was trained under]
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<ProtocolName>,
    /// Also fit and score plain supervised heads on the shots: linear-probe, patch-head, patch-head-repicked,
    /// defect-memory, or all
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) scorers: Vec<String>,
    /// Whether the shots' ground-truth masks, where there are any, say which patches are flawed
    #[arg(long, value_name = "WHEN", default_value = "auto", action = ArgAction::Set,
          value_parser = values::either(["auto", "off"], "auto"))]
    pub(crate) shot_masks: bool,
    /// Use what was learned from the defects even where images left out of training showed no gain by it
    #[arg(long)]
    pub(crate) no_guard: bool,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune baseline --category screw
  flawtune baseline --category screw --k-neighbors 3 --seed 1 --json

The test set is the one `flawtune train` with the same seed leaves: its pool of defects is taken out here too.")]
pub(crate) struct BaselineArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Support images whose similarities are averaged
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k_neighbors: u32,
    /// Where <category>_baseline.json is written
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub(crate) output_dir: PathBuf,
    /// Who is tested
    #[arg(long, value_name = "NAME", default_value = "held-out")]
    pub(crate) protocol: ProtocolName,
    /// With --protocol hard: the defect type that leaves the test set
    #[arg(long, value_name = "TYPE", required_if_eq("protocol", "hard"))]
    pub(crate) defect_type: Option<String>,
    /// Test defects reserved for training [default: 20, 10 of fewer than 40 defects, half of 10 and fewer]
    #[arg(long, value_name = "P")]
    pub(crate) pool_size: Option<u32>,
    /// Seed of the split
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune features part1.png part2.png --output tokens.safetensors
  flawtune features --pixels pixels.safetensors --output tokens.safetensors

The file holds `patch_tokens` [images, patches, dim] and `class_tokens` [images, dim], f32, after the final norm.")]
pub(crate) struct FeaturesArgs {
    /// Images
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "pixels",
        conflicts_with = "pixels"
    )]
    pub(crate) images: Vec<PathBuf>,
    /// safetensors file with normalised pixels [images, 3, height, width], f32, under the key `pixels`
    #[arg(long, value_name = "FILE")]
    pub(crate) pixels: Option<PathBuf>,
    /// Where the tokens are written
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "features.safetensors"
    )]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Leave out images that cannot be read (they are named) instead of stopping
    #[arg(long)]
    pub(crate) skip_bad_images: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune info outputs/screw_prompts.pt
  flawtune info screw.flaw
  flawtune info dinov2_vits14.safetensors --json")]
pub(crate) struct InfoArgs {
    /// Checkpoint (.pt), weight file (.safetensors, .pth, sharded index) or a folder of one
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune cache info
  flawtune cache clear --cache-dir /mnt/disk/flawtune")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
    /// Where features are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "FLAWTUNE_CACHE_DIR", global = true)]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CacheAction {
    /// Say where the cache is and how large
    #[command(after_help = "Examples:
  flawtune cache info
  flawtune cache info --json")]
    Info,
    /// Remove every entry
    #[command(after_help = "Examples:
  flawtune cache clear
  flawtune cache clear --cache-dir /mnt/disk/flawtune")]
    Clear,
}
