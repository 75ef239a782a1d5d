//! Arguments of `flawtune demo`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune demo
  flawtune demo --output-dir /tmp/demo --open
  flawtune demo --seeds 5 --json

Backbone and images are inside of the program, so no network, no licence and no data set are needed. The commands shown are
the ones that run, all numbers are computed while it runs, and the same seeds give the same numbers on any machine. The
images are drawn, so that their flaws are plain to the small backbone: the demonstration shows what flawtune does, not how
well it will do on your parts.")]
pub(crate) struct DemoArgs {
    /// Folder for images, results and the page; an earlier demonstration in it is replaced
    #[arg(long, value_name = "DIR", default_value = "flawtune_demo")]
    pub(crate) output_dir: PathBuf,
    /// Draws of the defects that are learned from: with more than one it shows whether the first was luck
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) seeds: u32,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
}
