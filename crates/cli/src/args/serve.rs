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
  curl --data-binary @part.png http://127.0.0.1:7878/api/detectors/parts/predict

Open the address that it prints in a browser: drop good parts in, then new ones; correct verdicts with a click, and let it learn.
Programs: REST as /api/openapi.json describes it, and the Open Inference Protocol at /v2. FLAWTUNE_LOG says how much is logged.")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) options: ServeOptions,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
}
