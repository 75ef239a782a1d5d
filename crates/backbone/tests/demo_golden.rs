//! The embedded backbone against its own recipe: tokens of one image, made by `tools/distill/golden.py` (PyTorch 2.15.0; the
//! version stands in the file's metadata).

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune_backbone::models::{self, Origin};
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection};
use flawtune_backbone::weights;
use safetensors::SafeTensors;

/// Largest absolute difference between two computations in f32, of tokens of magnitude 1: sums of up to 1024 products in
/// another order, through six blocks.
const TOKENS: f32 = 2e-5;

#[test]
fn the_embedded_backbone_gives_the_recipes_tokens() {
    let variant = models::find(models::DEMO).unwrap();
    let Origin::Embedded(bytes) = variant.origin else {
        panic!("{:?}", variant.origin)
    };
    let config = variant.config();
    let loaded = weights::load_embedded(models::DEMO, bytes, Some(&config)).unwrap();
    let backbone = Backbone::new(&config, &loaded.weights).unwrap();

    let golden = SafeTensors::deserialize(include_bytes!("demo_golden.safetensors")).unwrap();
    let tensor = |name: &str| -> Vec<f32> {
        let tensor = golden.tensor(name).unwrap();
        tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let (pixels, wanted) = (tensor("pixels"), tensor("tokens"));
    let last = LayerSelection {
        layers: vec![config.depth - 1],
        combine: Combine::Concat,
    };
    let found = backbone.forward(&pixels, 1, 64, 64, &last).unwrap();
    assert_eq!(found.data.len(), (1 + 16) * 256);
    assert_eq!(wanted.len(), found.data.len());
    let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.05, "tokens of nothing: {largest}");
    let worst = found
        .data
        .iter()
        .zip(&wanted)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    assert!(worst <= TOKENS * largest.max(1.0), "{worst} of {largest}");
}
