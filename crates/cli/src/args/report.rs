//! Arguments of `flawtune report`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlotFormatArg {
    /// Drawings that scale
    Svg,
    /// Pixels, at twice the drawings' size
    Png,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune report outputs
  flawtune report outputs/screw_comparison.json --output screw.html --plots plots --plot-format png
  flawtune report runs/seed0 runs/seed1 runs/seed2 --output seeds.html

The page is one HTML file: it asks the network for nothing, follows the reader's light or dark scheme and can be printed.
It shows what train, evaluate, baseline and predict --maps left in the run folders; docs/guides/report.md says what is where.")]
pub(crate) struct ReportArgs {
    /// Run folders (with all their categories), …_comparison.json files or checkpoints; several are put side by side
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// The page
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
    /// Heading of the page [default: what it is about]
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Paragraph below the heading, in place of one that says what the page is about
    #[arg(long, value_name = "TEXT")]
    pub(crate) introduction: Option<String>,
    /// Folder that holds the categories now [default: where run.json says they were]
    #[arg(long, value_name = "DIR")]
    pub(crate) root_dir: Option<PathBuf>,
    /// Folder of 'predict --maps', for overlays [default: where run.json says, or maps in the run folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) maps: Option<PathBuf>,
    /// Images at most in each row of examples
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) thumbnails: u8,
    /// No images, and none is looked for
    #[arg(long, conflicts_with_all = ["thumbnails", "maps", "root_dir"])]
    pub(crate) no_thumbnails: bool,
    /// Write every plot as a file into this folder too
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Kind of these files
    #[arg(long, value_name = "FORMAT", default_value = "svg", requires = "plots")]
    pub(crate) plot_format: PlotFormatArg,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
}
