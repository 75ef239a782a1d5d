//! `features`: tokens of images and of ready pixels, against the golden ones.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::world::{World, golden};

/// The bound on the forward pass in f32 against the reference's; see the backbone's golden tests.
const TOLERANCE: f32 = 1e-4;

fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let values = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    (view.shape().to_vec(), values)
}

fn write(path: &Path, name: &str, shape: &[usize], values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
    fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

fn weights() -> String {
    format!(
        "--weights {}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    )
}

#[test]
fn tokens_of_pixels_are_the_golden_ones() {
    let w = World::new();
    for input in ["sq", "rect", "ragged"] {
        let (shape, pixels) = tensor(&golden("backbone/inputs.safetensors"), input);
        write(&w.path("pixels.safetensors"), "pixels", &shape, &pixels);
        let line = format!(
            "features --pixels {{}}/pixels.safetensors --output {{}}/t.safetensors --batch-size 1 {}",
            weights()
        );
        w.run(&line).succeeds();
        let (wanted_shape, wanted) = tensor(
            &golden("backbone/tiny_mlp.safetensors"),
            &format!("{input}.normed"),
        );
        let (class_shape, class) = tensor(&w.path("t.safetensors"), "class_tokens");
        let (patch_shape, patches) = tensor(&w.path("t.safetensors"), "patch_tokens");
        let (images, tokens, dim) = (wanted_shape[0], wanted_shape[1], wanted_shape[2]);
        let count = patch_shape[1];
        assert_eq!(
            (class_shape, patch_shape),
            (vec![images, dim], vec![images, count, dim])
        );
        assert_eq!(count, (shape[2] / 16) * (shape[3] / 16));
        let far = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max)
        };
        for i in 0..images {
            let image = &wanted[i * tokens * dim..][..tokens * dim];
            let d = far(&class[i * dim..][..dim], &image[..dim]);
            assert!(d < TOLERANCE, "{input}, class token of image {i}: {d}");
            // the class token and the registers come first
            let d = far(
                &patches[i * count * dim..][..count * dim],
                &image[(tokens - count) * dim..],
            );
            assert!(d < TOLERANCE, "{input}, patch tokens of image {i}: {d}");
        }
    }
}

#[test]
fn tokens_of_pictures() {
    let w = World::new();
    let pictures = "{}/data/cloth/train/good/000.png {}/data/cloth/test/hole/001.png";
    let line = format!(
        "features {pictures} --output {{}}/t.safetensors --image-size 32 --json {}",
        weights()
    );
    let found = w.run(&line).succeeds().json();
    assert_eq!(found["images"], 2);
    assert_eq!(found["grid"], serde_json::json!([2, 2]));
    let (shape, patches) = tensor(&w.path("t.safetensors"), "patch_tokens");
    assert_eq!(shape, [2, 4, 64]);
    assert!(patches.iter().all(|v| v.is_finite()));
    assert_ne!(patches[..4 * 64], patches[4 * 64..]);

    // an image among them that cannot be read
    fs::write(w.path("bad.png"), "not an image").unwrap();
    let line = line
        .replace("features ", "features {}/bad.png ")
        .replace("t.safetensors", "u.safetensors");
    w.run(&line).refuses(&["bad.png", "--skip-bad-images"]);
    assert!(!w.path("u.safetensors").exists());
    let run = w.run(&format!("{line} --skip-bad-images")).succeeds();
    assert!(run.stderr.contains("bad.png"), "{}", run.stderr);
    assert_eq!(run.json()["images"], 2);
}

#[test]
fn pixel_files_that_make_no_sense() {
    let w = World::new();
    let path = w.path("p.safetensors");
    let line = format!(
        "features --pixels {{}}/p.safetensors --output {{}}/out/t.safetensors {}",
        weights()
    );
    w.run(&line).refuses(&["p.safetensors"]);
    write(&path, "other", &[1, 3, 16, 16], &[0.0; 768]);
    w.run(&line)
        .refuses(&["p.safetensors", "'pixels'", "other"]);
    write(&path, "pixels", &[3, 16, 16], &[0.0; 768]);
    w.run(&line)
        .refuses(&["p.safetensors", "[3, 16, 16]", "[images, 3, height, width]"]);
    write(&path, "pixels", &[0, 3, 16, 16], &[]);
    w.run(&line).refuses(&["p.safetensors", "no image"]);
    write(&path, "pixels", &[1, 3, 8, 16], &[0.0; 384]);
    w.run(&line).refuses(&["8x16"]);
    write(&path, "pixels", &[1, 3, 0, 16], &[]);
    w.run(&line).refuses(&["0x16"]);
    let bytes = fs::read(golden("backbone/inputs.safetensors")).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    w.run(&line).refuses(&["p.safetensors"]);
    w.run(&format!("{line} {{}}/data/cloth/train/good/000.png"))
        .refuses(&["--pixels"]);
    w.run(&format!(
        "features --output {{}}/t.safetensors {}",
        weights()
    ))
    .refuses(&["IMAGE"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}
