//! Arguments of `flawtune ablate`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::workflow::BackboneOverrides;
use flawtune_lab::ablate::{Axis, Setting};

use super::{CacheOptions, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune ablate --category screw --grid num-defect-samples=1,5,10,20
  flawtune ablate --category screw --grid num-prompts=5,10,20,50
  flawtune ablate --category screw --grid loss-type=separability,contrastive
  flawtune ablate --category screw --grid use-adapters=false,true --set num-epochs=30
  flawtune ablate --category screw,pill --grid num-prompts=5,10 --grid loss-type=separability,ranking --seeds 5
  flawtune ablate --plan study.toml --output-dir study

A grid may name any option of 'train' and of 'evaluate'; its values are checked before anything runs. A plan is a TOML file:

  categories = [\"screw\", \"pill\"]
  seeds = 5                       # 0 to 4; or a list
  [options]                       # as --set
  epoch = \"one\"
  [grid]                          # as --grid; a value that is a list stands in brackets
  num-prompts = [5, 10, 20, 50]
  layers = [[8], [8, 11]]

Features are extracted once. A run that is over is not repeated: stopped by Ctrl-C, or killed, the same command goes on. A
run that fails is recorded, and the rest goes on (exit code 1 at the end). Writes runs.csv, runs.jsonl, summary.csv,
summary.md, plots/*.svg and a folder for each run into --output-dir.")]
pub(crate) struct AblateArgs {
    /// Categories: folders under the root [default: every category under the root]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) category: Vec<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) backbone: BackboneOverrides,
    #[command(flatten)]
    pub(crate) cache: CacheOptions,
    /// An option and the values it takes in turn; once for each axis of the grid
    #[arg(long, value_name = "NAME=V,V", help_heading = "Study")]
    pub(crate) grid: Vec<Axis>,
    /// An option of every run; a switch is set to true or false
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Study")]
    pub(crate) set: Vec<Setting>,
    /// Plan in a TOML file; flags given beside it win
    #[arg(long, value_name = "FILE", help_heading = "Study")]
    pub(crate) plan: Option<PathBuf>,
    /// Number of seeds, counted from 0 [default: 3]
    #[arg(long, value_name = "N", help_heading = "Study", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) seeds: Option<u32>,
    /// The seeds themselves, in place of their number
    #[arg(
        long,
        value_name = "LIST",
        help_heading = "Study",
        value_delimiter = ',',
        conflicts_with = "seeds"
    )]
    pub(crate) seed_list: Vec<u64>,
    /// Fit the ensemble in every run too, and compare it
    #[arg(long, help_heading = "Study")]
    pub(crate) with_ensemble: bool,
    /// Let scores fall back to zero-shot where a run's guard says so; otherwise the table shows what was trained, and in a
    /// column what the guard said
    #[arg(long, help_heading = "Study")]
    pub(crate) guard: bool,
    /// Runs at once, which share the threads [default: as many as threads]
    #[arg(long, value_name = "N", help_heading = "Study", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Repeat runs that failed before
    #[arg(long, help_heading = "Study")]
    pub(crate) retry_failed: bool,
    /// Where tables, plots and runs are written
    #[arg(
        long,
        value_name = "DIR",
        default_value = "ablation",
        help_heading = "Study"
    )]
    pub(crate) output_dir: PathBuf,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapOptions,
}
