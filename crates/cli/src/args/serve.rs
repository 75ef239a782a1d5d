//! Arguments of `flawtune serve`.

// these comments are what `--help` prints: backticks would stand in it
#![allow(clippy::doc_markdown)]

use clap::Args;
use flawtune_server::ServeOptions;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  flawtune serve
  flawtune serve parts.flaw --data line1
  flawtune serve --listen 0.0.0.0:7878 --token-file token --tls-cert cert.pem --tls-key key.pem
  flawtune serve parts.flaw --watch camera/ --verdicts verdicts.csv --mqtt mqtt://broker/line1

Open the address that it prints in a browser: drop good parts in, then new ones; correct verdicts with a click, and let it learn.
Programs post images to /api/detectors/NAME/predict; /api/openapi.json describes it all, and /v2 speaks the Open Inference Protocol. FLAWTUNE_LOG says how much is logged.")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) options: ServeOptions,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
}
