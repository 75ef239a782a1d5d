//! Decoding, resizing and normalising against the reference vectors of PIL, torchvision, timm and Hugging Face.
//!
//! The folder is `FLAWTUNE_GOLDEN`, by default the copy in the repository; every name and size comes from its files.

#![allow(clippy::unwrap_used)] // a test may stop

use std::path::{Path, PathBuf};

use flawtune_backbone::config::Normalization;
use flawtune_backbone::preprocess::{
    Arithmetic, DecodeOptions, Filter, Preprocess, RgbImage8, decode, read_file, resize_u8,
};
use flawtune_testing::golden;
use safetensors::{Dtype, SafeTensors};

/// PNG is lossless and the resampling is integer arithmetic: nothing may differ.
const EXACT: u8 = 0;

/// JPEG leaves the inverse transform, chroma upsampling and colour conversion to the decoder. Measured against
/// libjpeg-turbo on the reference file (4:2:0): 25 % of the bytes differ, nearly all by 1 or 2 levels, at most by 4.
const JPEG_LEVELS: u8 = 4;

/// Largest share of bytes that may differ for a JPEG, decoded or resized from the file.
const JPEG_SHARE: f64 = 0.4;

/// The same three f32 operations in the same order; at most the compiler's contraction may differ.
const NORMALIZED: f32 = 1e-6;

/// torchvision computes the window centres of float tensors in f32, where a position near 300 is rounded by 1.5e-5
/// pixels; ours are f64. Measured 1.3e-5 on normalised values.
const FLOAT_RESIZE: f32 = 5e-5;

struct Golden(flawtune_testing::Golden);

impl Golden {
    fn open() -> Self {
        Self(flawtune_testing::Golden::open(
            "preprocess/preprocess.safetensors",
        ))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        self.0.tensors()
    }

    /// Names below `group/`, as (full name, image).
    fn group(&self, group: &str) -> Vec<(String, String)> {
        let mut names: Vec<_> = self
            .tensors()
            .names()
            .iter()
            .filter_map(|n| {
                n.strip_prefix(&format!("{group}/"))
                    .map(|rest| (n.to_string(), rest.to_string()))
            })
            .map(|(n, rest)| (n, rest.split('/').next().unwrap().to_string()))
            .collect();
        names.sort();
        assert!(!names.is_empty(), "no reference vectors in {group}/");
        names
    }

    /// Bytes as `[H, W, 3]`; one-channel tensors are repeated.
    fn picture(&self, name: &str) -> RgbImage8 {
        let tensors = self.tensors();
        let t = tensors.tensor(name).unwrap();
        assert_eq!(t.dtype(), Dtype::U8, "{name}");
        let shape = t.shape();
        let pixels = if shape.len() == 2 {
            t.data().iter().flat_map(|v| [*v; 3]).collect()
        } else {
            assert_eq!(shape[2], 3, "{name}");
            t.data().to_vec()
        };
        RgbImage8::from_pixels(shape[0], shape[1], pixels)
    }

    fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = self.tensors();
        let t = tensors.tensor(name).unwrap();
        let values = match t.dtype() {
            Dtype::F32 => t
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            Dtype::F64 => t
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32)
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (t.shape().to_vec(), values)
    }
}

fn picture(name: &str) -> RgbImage8 {
    let path = golden("images").join(name);
    let options = DecodeOptions::default();
    decode(&read_file(&path, &options).unwrap(), &path, &options).unwrap()
}

fn is_jpeg(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("jpg"))
}

/// Largest difference and the share of bytes that differ.
fn difference(a: &RgbImage8, b: &RgbImage8) -> (u8, f64) {
    assert_eq!((a.height(), a.width()), (b.height(), b.width()));
    let levels: Vec<u8> = a
        .pixels()
        .iter()
        .zip(b.pixels())
        .map(|(x, y)| x.abs_diff(*y))
        .collect();
    let differing = levels.iter().filter(|l| **l > 0).count();
    (
        levels.iter().copied().max().unwrap(),
        differing as f64 / levels.len() as f64,
    )
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f32::max)
}

#[test]
fn decoded_pictures_match() {
    let golden = Golden::open();
    for (tensor, name) in golden.group("decoded") {
        if tensor.ends_with("pil_clip_L") {
            // Pillow clips 16-bit grey at 255; we round to 8 bits instead
            continue;
        }
        let (levels, share) = difference(&picture(&name), &golden.picture(&tensor));
        let (allowed, allowed_share) = if is_jpeg(&name) {
            (JPEG_LEVELS, JPEG_SHARE)
        } else {
            (EXACT, 0.0)
        };
        assert!(
            levels <= allowed && share <= allowed_share,
            "{tensor}: {levels} levels in {share} of the bytes"
        );
    }
}

#[test]
fn resized_pictures_match_pillow_to_the_bit() {
    let golden = Golden::open();
    for (group, filter) in [
        ("resized_bicubic", Filter::Bicubic),
        ("resized_bilinear", Filter::Bilinear),
    ] {
        for (tensor, name) in golden.group(group) {
            let expected = golden.picture(&tensor);
            // for JPEG start from the reference's own pixels: this test is about resizing alone
            let source = if is_jpeg(&name) {
                golden.picture(&format!("decoded/{name}"))
            } else {
                picture(&name)
            };
            let (height, width) = (expected.height(), expected.width());
            let ours = resize_u8(&source, height, width, filter, Arithmetic::Pillow);
            let (levels, share) = difference(&ours, &expected);
            assert!(
                levels == EXACT,
                "{tensor}: {levels} levels in {share} of the bytes"
            );
            if is_jpeg(&name) {
                let ours = resize_u8(&picture(&name), height, width, filter, Arithmetic::Pillow);
                let (levels, share) = difference(&ours, &expected);
                assert!(
                    levels <= JPEG_LEVELS && share <= JPEG_SHARE,
                    "{tensor} from the file: {levels} levels"
                );
            }
        }
    }
}

#[test]
fn normalized_pixels_match() {
    let golden = Golden::open();
    for (tensor, name) in golden.group("normalized_bicubic") {
        let (shape, expected) = golden.floats(&tensor);
        let recipe = Preprocess::squash(shape[1], shape[2], Normalization::IMAGENET);
        let pixels = recipe.load(&golden_image(&name)).unwrap();
        let d = largest(&pixels.data, &expected);
        assert!(d <= NORMALIZED, "{tensor}: {d}");
    }
}

fn golden_image(name: &str) -> PathBuf {
    golden("images").join(name)
}

#[test]
fn the_other_published_recipes_match() {
    let golden = Golden::open();
    for (tensor, name) in golden.group("official_v2_u8") {
        let expected = golden.picture(&tensor);
        let recipe =
            Preprocess::tensor_u8(expected.height(), expected.width(), Normalization::IMAGENET);
        let (levels, share) = difference(&recipe.resized(&picture(&name)), &expected);
        assert!(
            levels == EXACT,
            "{tensor}: {levels} levels in {share} of the bytes"
        );
    }
    for (tensor, name) in golden.group("timm_eval_112_u8") {
        let expected = golden.picture(&tensor);
        let recipe =
            Preprocess::centre_crop(expected.height(), expected.width(), Normalization::IMAGENET);
        let (levels, share) = difference(&recipe.resized(&picture(&name)), &expected);
        assert!(
            levels == EXACT,
            "{tensor}: {levels} levels in {share} of the bytes"
        );
    }
    for (tensor, name) in golden.group("hf_processor_112") {
        let (shape, expected) = golden.floats(&tensor);
        let recipe = Preprocess::float(shape[1], shape[2], Normalization::IMAGENET);
        let d = largest(&recipe.load(&golden_image(&name)).unwrap().data, &expected);
        assert!(d <= FLOAT_RESIZE, "{tensor}: {d}");
    }
}

#[test]
fn normalization_constants_match() {
    let golden = Golden::open();
    for (suffix, normalization) in [
        ("lvd", Normalization::IMAGENET),
        ("sat", Normalization::SAT493M),
    ] {
        assert_eq!(
            golden.floats(&format!("mean_{suffix}")).1,
            normalization.mean
        );
        assert_eq!(golden.floats(&format!("std_{suffix}")).1, normalization.std);
    }
}
