//! Arguments of `flawtune fit` and `flawtune predict`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use flawtune::bundle::Precision;
use flawtune::score::Aggregate;
use flawtune::score::threshold::DEFAULT_FALSE_ALARMS;
use flawtune::values::{self, all_or_number, bytes, part_above_zero, rate};
use flawtune::workflow::{IndexChoice, MaskChoice, ScorerChoice, ThresholdChoice};
use flawtune_backbone::preprocess::Roi;

use super::{BackboneArgs, CacheOptions, DataArgs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// A line for people
    Table,
    /// A JSON object a line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MapFormatArg {
    /// 32-bit float TIFF
    Tiff,
    /// NumPy
    Npy,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune fit --good parts/good --output part.flaw
  flawtune fit --good parts/good --defect parts/defects --masks parts/masks --output part.flaw
  flawtune fit --category screw --num-defect-samples 10 --output screw.flaw
  flawtune fit --category screw --checkpoint outputs/screw_prompts.pt --output screw.flaw
  flawtune fit --good parts/good --exclude parts/good/017.png --exclude '*_blurred.png' --output part.flaw
  flawtune fit --good parts/good --resize keep --roi 10%,10%,80%,80% --output part.flaw
  flawtune fit --category screw --support-shots 16 --max-false-alarm 0.001 --output screw.flaw
  flawtune fit --category screw --scorer patch-bank --coreset 0.1 --max-memory 2G --output screw.flaw
  flawtune fit --category screw --image-size 896 --tile-size 448 --index approximate --output screw.flaw
  flawtune fit --category screw --support-shots 4 --augment rotations --output screw.flaw
  flawtune fit --category screw --image-size 896 --tile-size 448 --neighbourhood 3 --output screw.flaw

The file holds everything but the backbone's weights, which it names with their hash: preprocessing, layer, what a
checkpoint learned, the bank, the threshold and what it was chosen from. Test images are not looked at.")]
pub(crate) struct FitArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneArgs,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Look only at this part of every image: left, top, width and height, in pixels or in percent such as 10%,10%,80%,80%
    #[arg(long, value_name = "X,Y,W,H")]
    pub(crate) roi: Option<Roi>,
    /// Good images to leave out: a file or folder, a name, or a quoted pattern with * ? []; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// The same, a line each, from a text file; lines that begin with # are comments
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_from: Option<PathBuf>,
    /// Checkpoint of `flawtune train`, for what it learned from defects
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Where the detector is written
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Defects of the test set to learn from, the first of a pool that --seed draws and that is never tested [default: 0, or all
    /// defects that --defect names or that lie in the layout's training part]
    #[arg(long, value_name = "M")]
    pub(crate) num_defect_samples: Option<u32>,
    /// Blocks of the backbone that are looked at, from 1, each with a bank of its own [default: four, spread over the last two thirds]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "layers",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) blocks: Option<Vec<u32>>,
    /// How an image gets its score [default: residual; with a checkpoint its ensemble or patch-bank]
    #[arg(long, value_name = "NAME")]
    pub(crate) scorer: Option<ScorerChoice>,
    /// With patch-bank: share of an image's patches, the oddest, whose mean distance is its score; or max, or mean
    #[arg(long, value_name = "SHARE", default_value_t)]
    pub(crate) top_fraction: Aggregate,
    /// With image-pair: support images whose similarities are averaged
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k_neighbors: u32,
    /// Good images that form the bank, drawn with the seed: a number, or all
    #[arg(long, value_name = "N", default_value = "all", value_parser = all_or_number)]
    pub(crate) support_shots: std::option::Option<usize>,
    /// Keep this share of the bank's patches, chosen to cover the rest (greedy k-centre)
    #[arg(long, value_name = "SHARE", value_parser = part_above_zero)]
    pub(crate) coreset: Option<f64>,
    /// Cut the background away by the first principal component; flaws there are then not seen
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub(crate) mask: MaskChoice,
    /// Keep the good images in more directions: none, or rotations (eight, 45° apart), for parts that lie in any direction
    #[arg(long = "augment", value_name = "WHAT", default_value = "none", action = ArgAction::Set,
          value_parser = values::either(["none", "rotations"], "rotations"))]
    pub(crate) rotations: bool,
    /// A patch is the mean of N×N patches round it, as in PatchCore: 1, 3, 5, …; for noisy surfaces
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) neighbourhood: u8,
    /// Element type of the bank in the file; everything is scored against the rounded numbers
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub(crate) bank_precision: Precision,
    /// How the nearest patch of the bank is found; what an approximate search misses is measured and kept in the file
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) index: IndexChoice,
    /// With an approximate index: cells that are searched for each patch; more find more and take longer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) index_probes: u32,
    /// Share of good images that may be called flawed
    #[arg(long, value_name = "RATE", default_value_t = DEFAULT_FALSE_ALARMS, value_parser = rate)]
    pub(crate) max_false_alarm: f64,
    /// What the threshold is chosen from
    #[arg(long, value_name = "WHAT", default_value = "good")]
    pub(crate) threshold: ThresholdChoice,
    /// Time an image may take on this machine, such as 50ms: the best sizes within it [default: the best there are]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) budget: Option<Duration>,
    /// Most memory the bank may take: 800M, 2G; its size is said before it is made
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_memory: Option<usize>,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
    /// Use what was learned from the defects even where images left out of training showed no gain by it
    #[arg(long)]
    pub(crate) no_guard: bool,
    /// Seed of the support and the coreset; without a checkpoint also of the split that `evaluate` tests on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune threshold screw.flaw
  flawtune threshold screw.flaw --false-alarms 2%
  flawtune threshold screw.flaw --find 90% --output strict.flaw

Without an option it prints what several thresholds stop and find, by the scores that the file holds: of good images, each
without itself, and of the defects it learned from, each by a head that had not seen it. With one the file is changed, or
--output written; nothing is fitted again. A probability of 0.5 is the threshold.")]
pub(crate) struct ThresholdArgs {
    /// File of `flawtune fit`
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Stop this share of good images at most
    #[arg(long, value_name = "RATE", value_parser = rate, group = "new")]
    pub(crate) false_alarms: Option<f64>,
    /// Find this share of defects
    #[arg(long, value_name = "SHARE", value_parser = rate, group = "new")]
    pub(crate) find: Option<f64>,
    /// Call images flawed from this score on
    #[arg(
        long,
        value_name = "SCORE",
        allow_negative_numbers = true,
        group = "new"
    )]
    pub(crate) value: Option<f64>,
    /// Where the changed file is written [default: FILE itself]
    #[arg(long, short, value_name = "FILE", requires = "new")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune predict screw.flaw part1.png part2.png
  flawtune predict screw.flaw parts/ --format csv > verdicts.csv
  flawtune predict screw.flaw 'line3/*.jpg' --maps maps
  find parts -name '*.png' | flawtune predict screw.flaw - --format jsonl
  flawtune predict screw.flaw --watch camera/ --format jsonl
  flawtune predict screw.flaw --watch camera/ --journal judged.jsonl --sort-into sorted

Exit codes: 0 scored, 2 wrong input (an image that cannot be read is named), 1 the machine failed. With --fail-on-flaw, 1
also says that an image is flawed; the last line on standard error tells which of the two it was. Box: pixels of the
image, from its upper left corner.")]
pub(crate) struct PredictArgs {
    /// File of `flawtune fit`
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Images, folders (searched to any depth), quoted patterns with * ? [], or - for paths on standard input, one a line
    #[arg(
        value_name = "IMAGES",
        required_unless_present = "watch",
        conflicts_with = "watch"
    )]
    pub(crate) images: Vec<PathBuf>,
    /// Score the images in this folder, and those that arrive, until Ctrl-C
    #[arg(long, value_name = "FOLDER")]
    pub(crate) watch: Option<PathBuf>,
    /// With --watch: keep in this file what is judged, so that a restart does not judge it again
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// With --watch: seconds between lines that say that it goes on; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) heartbeat: u32,
    /// Copy every image into DIR/good, DIR/flaw or DIR/unreadable
    #[arg(long, value_name = "DIR")]
    pub(crate) sort_into: Option<PathBuf>,
    /// How results are printed; --json is jsonl
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: FormatArg,
    /// Write every image's anomaly map and an overlay here
    #[arg(long, value_name = "DIR")]
    pub(crate) maps: Option<PathBuf>,
    /// Kind of the maps' numbers
    #[arg(long, value_name = "TYPE", default_value = "tiff", requires = "maps")]
    pub(crate) map_format: MapFormatArg,
    /// Call images flawed from this score on, whatever the file says
    #[arg(
        long,
        value_name = "SCORE",
        allow_negative_numbers = true,
        group = "other_threshold"
    )]
    pub(crate) threshold: Option<f64>,
    /// Stop this share of good images at most, by the scores that the file holds
    #[arg(long, value_name = "RATE", value_parser = rate, group = "other_threshold")]
    pub(crate) false_alarms: Option<f64>,
    /// Find this share of defects, by the scores that the file holds
    #[arg(long, value_name = "SHARE", value_parser = rate, group = "other_threshold")]
    pub(crate) find: Option<f64>,
    /// End with exit code 1 if any image is flawed
    #[arg(long)]
    pub(crate) fail_on_flaw: bool,
    /// Weight file of the backbone; it must be the one the model was fitted with
    #[arg(long, value_name = "PATH")]
    pub(crate) weights: Option<PathBuf>,
    /// Leave out images that cannot be read (they are named) instead of stopping
    #[arg(long)]
    pub(crate) skip_bad_images: bool,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) batch_size: u32,
}
