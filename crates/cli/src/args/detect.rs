//! Arguments of `flawtune fit` and `flawtune predict`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use flawtune::values::rate;
use flawtune::workflow::{BackboneOverrides, FitOptions};
use flawtune_backbone::preprocess::Roi;

use super::{CacheOptions, DataArgs};

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

/// A rectangle, or the file of a mask.
fn region(text: &str) -> Result<Roi, String> {
    let path = Path::new(text);
    if path.is_file() {
        return Roi::of_mask(path).map_err(|e| e.to_string());
    }
    text.parse()
        .map_err(|e| format!("{e}; and there is no such file, which could be a mask"))
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
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// Look only at this part of every image: left, top, width and height, in pixels or in percent such as 10%,10%,80%,80%; or an
    /// image that is white where to look
    #[arg(long, value_name = "X,Y,W,H|MASK", value_parser = region)]
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
    /// Blocks of the backbone that are looked at, from 1, each with a bank of its own [default: four, spread over the last two thirds]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "layers",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) blocks: Option<Vec<u32>>,
    #[command(flatten)]
    pub(crate) options: FitOptions,
    /// Search for nothing: the default, and it undoes --search of a file of defaults
    #[arg(long)]
    pub(crate) no_search: bool,
    /// Images a forward pass
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: u32,
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
