//! What 16-bit and 8-bit weights change in the features of real images.
//!
//! `cargo run --release -p flawtune-backbone --example precision -- WEIGHTS SIDE BLOCK IMAGE…`: cosines with the f32
//! features (patch tokens: mean, 1st percentile, least; class token: mean) after the final norm of block BLOCK (from 0).
#![allow(clippy::print_stdout, reason = "it reports measurements")]

use std::path::Path;

use flawtune_backbone::preprocess::Preprocess;
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection, Precision};
use flawtune_backbone::weights;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, side, block, pictures @ ..] = &arguments[..] else {
        return Err("usage: precision WEIGHTS SIDE BLOCK IMAGE…".into());
    };
    let (side, block): (usize, usize) = (side.parse()?, block.parse()?);
    let loaded = weights::load(Path::new(weights), None)?;
    let preprocess = Preprocess::squash(side, side, loaded.config.normalization);
    let layers = LayerSelection {
        layers: vec![block],
        combine: Combine::Mean,
    };
    let mut features: Vec<Vec<f32>> = vec![];
    for precision in Precision::ALL {
        let backbone = Backbone::with_precision(&loaded.config, &loaded.weights, precision)?;
        let mut tokens = vec![];
        for picture in pictures {
            let pixels = preprocess.load(Path::new(picture))?;
            tokens.extend(backbone.forward(&pixels.data, 1, side, side, &layers)?.data);
        }
        features.push(tokens);
        let dim = loaded.config.dim;
        let (rows, columns) = loaded.config.grid(side, side);
        let (mut patches, mut classes) = (vec![], vec![]);
        for (i, (a, b)) in features[0]
            .chunks_exact(dim)
            .zip(features[features.len() - 1].chunks_exact(dim))
            .enumerate()
        {
            let of = if i % (1 + rows * columns) == 0 {
                &mut classes
            } else {
                &mut patches
            };
            of.push(cosine(a, b));
        }
        patches.sort_by(f64::total_cmp);
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
        println!(
            "{:<5} {:<32} weights {:>6.1} MiB  patches: mean {:.6}, 1 % {:.6}, least {:.6}  class token: {:.6}",
            precision.name(),
            backbone.kernels(),
            backbone.weight_bytes() as f64 / f64::from(1 << 20),
            mean(&patches),
            patches
                .get(patches.len() / 100)
                .copied()
                .unwrap_or(f64::NAN),
            patches.first().copied().unwrap_or(f64::NAN),
            mean(&classes),
        );
    }
    Ok(())
}
