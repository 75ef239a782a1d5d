//! Arguments of `flawtune report`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use clap::Args;
use flawtune_lab::workflow::ReportRequest;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune report outputs
  flawtune report outputs/screw_comparison.json --output screw.html --plots plots --plot-format png
  flawtune report runs/seed0 runs/seed1 runs/seed2 --output seeds.html

The page is one HTML file: it asks the network for nothing, follows the reader's light or dark scheme and can be printed.
It shows what train, evaluate, baseline and predict --maps left in the run folders; docs/guides/report.md says what is where.")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) request: ReportRequest,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
}
