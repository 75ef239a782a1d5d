//! 16-bit and 8-bit weights: near the f32 tokens, and the same bits whatever runs them.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::vit::{Backbone, LayerSelection, Precision, Tokens};
use flawtune_backbone::weights;

fn config(feed_forward: FeedForward, hidden: usize, position: Position) -> VitConfig {
    VitConfig {
        name: "small".to_owned(),
        family: Family::DinoV3,
        patch_size: 8,
        dim: 48,
        depth: 3,
        heads: 4,
        registers: 2,
        feed_forward,
        hidden,
        norm_eps: 1e-6,
        position,
        normalization: Normalization::IMAGENET,
    }
}

/// Plain and gated, with a hidden width that fills neither a word nor a tile, rotary and learned positions.
fn configs() -> Vec<VitConfig> {
    let rotary = Position::Rope {
        base: 100.0,
        round_periods: false,
    };
    vec![
        config(FeedForward::Mlp, 192, rotary),
        config(FeedForward::SwiGlu, 130, rotary),
        VitConfig {
            registers: 0,
            ..config(FeedForward::Mlp, 50, Position::Learned { grid: 5 })
        },
    ]
}

const IMAGES: usize = 3;
const SIDE: usize = 40;

fn pixels() -> Vec<f32> {
    (0..IMAGES * 3 * SIDE * SIDE)
        .map(|i| ((i * 7919) % 1021) as f32 / 300.0 - 1.7)
        .collect()
}

fn tokens(backbone: &Backbone, pixels: &[f32], images: usize) -> Vec<f32> {
    let layers = LayerSelection::last(backbone.config().depth);
    backbone
        .forward(pixels, images, SIDE, SIDE, &layers)
        .unwrap()
        .data
}

/// Smallest cosine of two token lists.
fn least_cosine(a: &[f32], b: &[f32], dim: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    a.chunks_exact(dim)
        .zip(b.chunks_exact(dim))
        .map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
        .fold(1.0, f64::min)
}

#[test]
fn every_precision_stays_near_f32() {
    // 1 − cosine is half the squared relative error: 2^-11, 2^-8 and a 255th of a range of about 6 deviations, times the
    // few roundings that three blocks add up
    let least = [
        (Precision::F16, 0.999_999),
        (Precision::Bf16, 0.9999),
        (Precision::Int8, 0.998),
    ];
    for config in configs() {
        let weights = weights::random(&config, 5);
        let plain = tokens(
            &Backbone::new(&config, &weights).unwrap(),
            &pixels(),
            IMAGES,
        );
        for (precision, least) in least {
            let backbone = Backbone::with_precision(&config, &weights, precision).unwrap();
            assert_eq!(backbone.precision(), precision);
            let found = tokens(&backbone, &pixels(), IMAGES);
            let cosine = least_cosine(&plain, &found, config.dim);
            assert!(
                cosine > least,
                "{precision}: cosine {cosine}, {:?} {}",
                config.feed_forward,
                config.hidden
            );
            assert_ne!(plain, found, "{precision} rounds something");
        }
    }
}

#[test]
fn neither_threads_nor_the_batch_change_a_bit() {
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let three = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    for config in configs() {
        let weights = weights::random(&config, 6);
        for precision in Precision::ALL {
            let backbone = Backbone::with_precision(&config, &weights, precision).unwrap();
            let together = one.install(|| tokens(&backbone, &pixels(), IMAGES));
            assert_eq!(
                together,
                three.install(|| tokens(&backbone, &pixels(), IMAGES)),
                "{precision}"
            );
            let image = pixels().len() / IMAGES;
            let apart: Vec<f32> = pixels()
                .chunks_exact(image)
                .flat_map(|p| tokens(&backbone, p, 1))
                .collect();
            assert_eq!(together, apart, "{precision}");
        }
    }
}

#[test]
fn smaller_numbers_take_less_memory() {
    let config = config(
        FeedForward::Mlp,
        192,
        Position::Rope {
            base: 100.0,
            round_periods: false,
        },
    );
    let weights = weights::random(&config, 7);
    let bytes = Precision::ALL.map(|p| {
        Backbone::with_precision(&config, &weights, p)
            .unwrap()
            .weight_bytes() as f64
    });
    assert!(
        bytes[1] < 0.7 * bytes[0] && bytes[2] < 0.7 * bytes[0] && bytes[3] < 0.7 * bytes[0],
        "{bytes:?}"
    );
}

#[test]
fn bytes_of_pictures_give_the_bits_of_normalised_pixels() {
    for config in configs() {
        let weights = weights::random(&config, 8);
        let backbone = Backbone::new(&config, &weights).unwrap();
        let pictures: Vec<u8> = (0..IMAGES * SIDE * SIDE * 3)
            .map(|i| (i * 7919 % 256) as u8)
            .collect();
        let normalization = config.normalization;
        let mut pixels = vec![];
        for picture in pictures.chunks_exact(SIDE * SIDE * 3) {
            for channel in 0..3 {
                pixels.extend(picture.iter().skip(channel).step_by(3).map(|&b| {
                    (f32::from(b) / 255.0 - normalization.mean[channel])
                        / normalization.std[channel]
                }));
            }
        }
        let layers = LayerSelection::last(config.depth);
        let mut found = Tokens::default();
        backbone
            .forward_bytes_into(&pictures, IMAGES, SIDE, SIDE, &layers, &mut found)
            .unwrap();
        assert_eq!(
            found,
            backbone
                .forward(&pixels, IMAGES, SIDE, SIDE, &layers)
                .unwrap()
        );
        let short = &pictures[1..];
        let error = backbone
            .forward_bytes_into(short, IMAGES, SIDE, SIDE, &layers, &mut found)
            .unwrap_err();
        assert!(error.to_string().contains("14399"), "{error}");
    }
}
