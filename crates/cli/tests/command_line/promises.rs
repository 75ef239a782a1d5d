//! What is promised of files: detectors of the format versions so far, opened by this program.
//!
//! `tests/detectors` has a detector of each version, written by the program that introduced it, of drawn images and the network of
//! `golden/ckpt/tiny_mlp`; beside it what that program said of four images.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::world::{World, golden};

/// Format versions of detectors so far but 4: no program that wrote it is at hand.
const VERSIONS: [u32; 5] = [1, 2, 3, 5, 6];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/detectors")
        .join(name)
}

fn lines(text: &str) -> Vec<Json> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn detectors_of_every_version_say_what_they_said() {
    let w = World::new();
    let weights = golden("ckpt/tiny_mlp/hf.safetensors");
    for version in VERSIONS {
        let file = kept(&format!("v{version}.flaw"));
        let bytes = fs::read(&file).unwrap();
        let written = format!("\"format_version\":\"{version}\"");
        let head = String::from_utf8_lossy(&bytes[..4096]);
        assert!(head.contains(&written), "{version}: {head}");
        let said = lines(&fs::read_to_string(kept(&format!("v{version}.jsonl"))).unwrap());
        let images: Vec<String> = said
            .iter()
            .map(|line| {
                let path = line["path"].as_str().unwrap();
                kept(path.rsplit('/').next().unwrap()).display().to_string()
            })
            .collect();
        assert_eq!(images.len(), 4);
        let line = format!(
            "predict {} {} --weights {} --format jsonl",
            file.display(),
            images.join(" "),
            weights.display()
        );
        let now = lines(&w.run(&line).succeeds().stdout);
        for (then, now) in said.iter().zip(&now) {
            for key in ["score", "probability", "verdict", "box"] {
                assert_eq!(now[key], then[key], "version {version}: {key} of {then}");
            }
        }
        w.run(&format!("info {}", file.display())).succeeds();
    }
}

#[test]
fn a_detector_of_a_later_version_is_refused_by_name() {
    let w = World::new();
    let bytes = fs::read(kept("v6.flaw")).unwrap();
    let at = bytes
        .windows(20)
        .position(|b| b == b"\"format_version\":\"6\"")
        .unwrap();
    let mut later = bytes.clone();
    later[at + 18] = b'9';
    fs::write(w.path("later.flaw"), later).unwrap();
    w.run(&format!(
        "predict {{}}/later.flaw {}",
        kept("good.png").display()
    ))
    .refuses(&["later.flaw", "format 9 is newer", "hint:"]);
}
