//! Where verdicts shall go: each option once, with its default and the words that help prints.

// backticks would stand in what a terminal shows
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Address;

/// Where verdicts shall go, beside the store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, rename_all = "kebab-case")]
pub struct ReceiverOptions {
    /// Send every verdict to this address: a POST of its JSON; may be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "URL"))]
    pub webhook: Vec<Address>,
    /// Sign what goes to webhooks with the secret in this file (header X-Flawtune-Signature, HMAC-SHA256)
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub webhook_secret_file: Option<PathBuf>,
    /// Give a verdict up that a webhook has not taken for so long
    #[cfg_attr(feature = "clap", arg(long, value_name = "TIME", default_value = "1h",
                                     value_parser = humantime::parse_duration))]
    #[serde(deserialize_with = "duration")]
    pub webhook_patience: Duration,
    /// Send every verdict to an MQTT broker, to TOPIC/verdicts: mqtt://user:password@host:port/TOPIC or mqtts://…, where login and
    /// port may be left out; TOPIC/status says online or offline
    #[cfg_attr(feature = "clap", arg(long, value_name = "URL"))]
    pub mqtt: Option<Address>,
    /// With mqtts: trust the certificates in this file (PEM) instead of the system's
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub mqtt_ca: Option<PathBuf>,
    /// Append every verdict to this file, a line each: FILE.csv or FILE.jsonl
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub verdicts: Option<PathBuf>,
    /// Copy every image into this folder by its verdict: good, flaw/KIND
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub sorted: Option<PathBuf>,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            webhook: Vec::new(),
            webhook_secret_file: None,
            webhook_patience: Duration::from_secs(3600),
            mqtt: None,
            mqtt_ca: None,
            verdicts: None,
            sorted: None,
        }
    }
}

/// A time as people write it: `500ms`, `1h`.
fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "clap")]
    #[test]
    fn a_line_without_options_is_the_default() {
        use clap::{Args as _, FromArgMatches as _};
        let command = ReceiverOptions::augment_args(clap::Command::new("serve"));
        command.clone().debug_assert();
        let parse = |line: &[&str]| {
            let matches = command.clone().try_get_matches_from(line).unwrap();
            ReceiverOptions::from_arg_matches(&matches).unwrap()
        };
        assert_eq!(parse(&["serve"]), ReceiverOptions::default());
        let options = parse(&["serve", "--webhook", "http://a/", "--webhook=http://b/"]);
        assert_eq!(options.webhook, ["http://a/".into(), "http://b/".into()]);
    }

    #[test]
    fn options_are_read_from_a_file_too() {
        let json = r#"{"webhook": ["http://me:s3cret@a/"], "webhook-patience": "5min"}"#;
        let options: ReceiverOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.webhook_patience, Duration::from_secs(300));
        assert!(!format!("{options:?}").contains("s3cret"));
        assert_eq!(
            serde_json::from_str::<ReceiverOptions>("{}").unwrap(),
            ReceiverOptions::default()
        );
    }
}
