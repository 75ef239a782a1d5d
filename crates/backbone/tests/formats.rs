//! Files of many formats against the readers that the rest of the world uses: `golden/make_formats.py` says which.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::{
    DecodeOptions, Kind, decode, decode_looked, facts, kind, read_file,
};
use safetensors::SafeTensors;
use serde_json::Value as Json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/formats")
}

/// What the judges read: (rows, columns) and RGB bytes, by file name.
fn expected() -> BTreeMap<String, ((usize, usize), Vec<u8>)> {
    let bytes = fs::read(folder().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let all = tensors.tensors().into_iter().map(|(name, tensor)| {
        let shape = tensor.shape();
        (name, ((shape[0], shape[1]), tensor.data().to_vec()))
    });
    all.collect()
}

fn about() -> Json {
    serde_json::from_str(&fs::read_to_string(folder().join("formats.json")).unwrap()).unwrap()
}

/// Most levels that a byte may differ by. All is exact but what has loss and another decoder: JPEG inside of TIFF.
fn tolerance(name: &str) -> u8 {
    u8::from(name == "tiff_jpeg.tif")
}

#[test]
fn every_format_is_read_as_its_judge_reads_it() {
    let options = DecodeOptions::default();
    let mut wrong = Vec::new();
    for (name, (size, wanted)) in expected() {
        let path = folder().join(&name);
        let bytes = read_file(&path, &options).unwrap();
        let image = match decode(&bytes, &path, &options) {
            Ok(image) => image,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        if (image.height(), image.width()) != size {
            wrong.push(format!("{name}: {}x{}", image.height(), image.width()));
            continue;
        }
        let differences = image
            .pixels()
            .iter()
            .zip(&wanted)
            .map(|(a, b)| a.abs_diff(*b));
        let most = differences.max().unwrap();
        if most > tolerance(&name) {
            wrong.push(format!("{name}: differs by {most}"));
        }
        assert_eq!(kind(&bytes), Kind::Readable, "{name}");
        let facts = facts(&bytes).unwrap();
        assert_eq!((facts.height, facts.width), size, "{name}");
        assert_eq!(
            facts.wide,
            name.contains("16") && !name.contains("16x"),
            "{name}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn orientations_are_seen_and_followed_if_asked() {
    let expected = expected();
    let about = about();
    let turned = about["orientation"].as_object().unwrap();
    assert!(turned.len() >= 8);
    for (name, value) in turned {
        let path = folder().join(name);
        let bytes = fs::read(&path).unwrap();
        let value = value.as_u64().unwrap() as u8;
        let as_stored = DecodeOptions::default();
        let (image, looked) = decode_looked(&bytes, &path, &as_stored).unwrap();
        assert_eq!(looked.orientation, value, "{name}");
        let ((height, width), wanted) = &expected[name];
        let applied = DecodeOptions {
            apply_exif_orientation: true,
            ..as_stored
        };
        let upright = decode(&bytes, &path, &applied).unwrap();
        // where a stored pixel comes to lie
        for (y, x) in [
            (0, 0),
            (0, width - 1),
            (height - 1, 0),
            (height / 2, width / 3),
        ] {
            let (down, right) = (height - 1 - y, width - 1 - x);
            let (row, column) = match value {
                1 => (y, x),
                2 => (y, right),
                3 => (down, right),
                4 => (down, x),
                5 => (x, y),
                6 => (x, down),
                7 => (right, down),
                _ => (right, y),
            };
            let at = |i: usize| 3 * i..3 * i + 3;
            assert_eq!(
                upright.pixels()[at(row * upright.width() + column)],
                wanted[at(y * width + x)],
                "{name} at {y}, {x}"
            );
        }
        assert_eq!(image.height(), *height, "{name}");
    }
}

#[test]
fn the_rest_is_refused_by_name() {
    let options = DecodeOptions::default();
    let about = about();
    for (name, word) in about["refused"].as_object().unwrap() {
        let path = folder().join(name);
        let bytes = fs::read(&path).unwrap();
        let text = decode(&bytes, &path, &options).unwrap_err().to_string();
        let word = word.as_str().unwrap();
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{text}");
        assert!(text.contains("is not supported\nhint: "), "{text}");
    }
}
