//! Arguments of `flawtune config` and `flawtune reproduce`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune config
  flawtune config train
  FLAWTUNE_IMAGE_SIZE=448 flawtune config fit --json

A flag beats an environment variable (FLAWTUNE_ and the option's name: FLAWTUNE_IMAGE_SIZE), that beats flawtune.toml in this
folder or its nearest parent that has one, and that beats the default; docs/guides/configuration.md.")]
pub(crate) struct ConfigArgs {
    /// Command whose options are shown [default: every command, and only what is set]
    #[arg(value_name = "COMMAND")]
    pub(crate) of: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune reproduce outputs/run.json
  flawtune reproduce outputs --category screw --output-dir again

Runs what is recorded again, with the options as recorded whatever flawtune.toml and the environment say now, and features
computed anew, and compares what it writes. Images and weights have to be those of the record. Exit codes: 0 all files are identical, 1 some differ,
2 wrong input.")]
pub(crate) struct ReproduceArgs {
    /// run.json of an output folder, or the folder
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Where the repetition is written; it must not hold files yet [default: the folder's name and _reproduced]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Repeat the runs of this command only: train, baseline, fit or evaluate
    #[arg(long, value_name = "NAME")]
    pub(crate) command: Option<String>,
    /// Repeat the runs of this category only
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Option<String>,
    /// Go on, with a warning, where images, weights or checkpoints are not those of the record
    #[arg(long)]
    pub(crate) allow_changed_data: bool,
}
