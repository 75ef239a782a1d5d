//! Where images shall come from: each option once, with its default and the words that help prints.

// backticks would stand in what a terminal shows
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::receivers::Address;

/// Where images shall come from, beside the page and programs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, rename_all = "kebab-case")]
pub struct SourceOptions {
    /// Take every image that arrives in this folder, once it is whole; also in the folders in it
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub watch: Option<PathBuf>,
    /// Take images of a camera, a stream or a film: rtsp://…, http://…, /dev/video0, film.mp4; ffmpeg reads it
    #[cfg_attr(feature = "clap", arg(long, value_name = "SOURCE"))]
    pub source: Option<Address>,
    /// With --source: take an image so often, such as 500ms
    #[cfg_attr(feature = "clap", arg(long, value_name = "TIME", conflicts_with = "on_trigger",
                                     value_parser = humantime::parse_duration))]
    #[serde(deserialize_with = "duration")]
    pub every: Option<Duration>,
    /// With --source: take an image whenever a program asks for it
    #[cfg_attr(feature = "clap", arg(long))]
    pub on_trigger: bool,
    /// With --source: the program ffmpeg [default: the one in PATH]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub ffmpeg: Option<PathBuf>,
}

/// A time as people write it: `500ms`, `1h`.
fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let time = text.map(|text| humantime::parse_duration(&text));
    time.transpose().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "clap")]
    #[test]
    fn a_line_without_options_is_the_default() {
        use clap::{Args as _, FromArgMatches as _};
        let command = SourceOptions::augment_args(clap::Command::new("serve"));
        command.clone().debug_assert();
        let parse = |line: &[&str]| {
            let matches = command.clone().try_get_matches_from(line)?;
            SourceOptions::from_arg_matches(&matches)
        };
        assert_eq!(parse(&["serve"]).unwrap(), SourceOptions::default());
        let line = ["serve", "--source", "/dev/video0", "--every", "500ms"];
        let options = parse(&line).unwrap();
        assert_eq!(options.every, Some(Duration::from_millis(500)));
        assert!(parse(&[&line[..], &["--on-trigger"]].concat()).is_err());
    }

    #[test]
    fn options_are_read_from_a_file_too() {
        let json = r#"{"source": "rtsp://me:s3cret@a/1", "every": "2s", "on-trigger": false}"#;
        let options: SourceOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.every, Some(Duration::from_secs(2)));
        assert!(!format!("{options:?}").contains("s3cret"));
        assert_eq!(
            serde_json::from_str::<SourceOptions>("{}").unwrap(),
            SourceOptions::default()
        );
    }
}
