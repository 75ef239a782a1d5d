//! What a server is started with: each option once, with its default and the words that help prints.

// backticks would stand in what a terminal shows
#![allow(clippy::doc_markdown)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::receivers::ReceiverOptions;
use crate::sources::SourceOptions;

/// What a server is started with.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct ServeOptions {
    /// File of `flawtune fit` to begin with; without one, detectors are made in the page
    #[cfg_attr(feature = "clap", arg(value_name = "FILE"))]
    pub detector: Option<PathBuf>,
    /// Folder for everything that is remembered: images, judgements, versions
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "DIR", default_value = "flawtune-data")
    )]
    pub data: PathBuf,
    /// Address and port to listen on; any but this machine's own needs --token-file
    #[cfg_attr(feature = "clap", arg(long, value_name = "ADDRESS:PORT", default_value_t = Self::default().listen))]
    pub listen: SocketAddr,
    /// Let nobody in who has not logged in. The file holds one secret of 16 characters or more: programs send it as a bearer token,
    /// and it is the first password of the person called admin
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM), to speak HTTPS
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", requires = "tls_key"))]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "FILE", requires = "tls_cert")
    )]
    pub tls_key: Option<PathBuf>,
    /// Weight file of the backbone, where it is not found by name
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH"))]
    pub weights: Option<PathBuf>,
    /// Images that may wait; more are refused until there is room
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().queue, value_parser = flawtune::values::count(1..=10_000)))]
    pub queue: usize,
    /// Longest time that an image may wait for its verdict
    #[cfg_attr(feature = "clap", arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration))]
    pub timeout: Duration,
    /// Largest image file that is taken, in millions of bytes
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().max_upload, value_parser = flawtune::values::count(1..=4096)))]
    pub max_upload: usize,
    /// Parts whose images are kept, the newest; images that were judged or learned from stay
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().keep, value_parser = flawtune::values::count(1..)))]
    pub keep: usize,
    /// Log as JSON, a line each
    #[cfg_attr(feature = "clap", arg(long))]
    pub log_json: bool,
    /// The detector that looks at what comes from --watch and --source [default: the one of FILE]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub line: Option<String>,
    /// Where images come from, beside the page and programs.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub sources: SourceOptions,
    /// Where verdicts go, beside the page.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub receivers: ReceiverOptions,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            detector: None,
            data: "flawtune-data".into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7878),
            token_file: None,
            tls_cert: None,
            tls_key: None,
            weights: None,
            queue: 256,
            timeout: Duration::from_secs(60),
            max_upload: 64,
            keep: 5000,
            log_json: false,
            line: None,
            sources: SourceOptions::default(),
            receivers: ReceiverOptions::default(),
        }
    }
}

impl ServeOptions {
    /// Most bytes of an image file.
    pub fn upload_bytes(&self) -> usize {
        self.max_upload * 1_000_000
    }
}
