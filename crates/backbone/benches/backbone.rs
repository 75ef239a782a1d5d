//! The forward pass of ViT-S/16 with random weights, and the way of one image to it. In the forward pass an element is a
//! floating-point operation, so Gelem/s are GFLOP/s.
//!
//! `cargo bench -p flawtune-backbone`; `FLAWTUNE_KERNELS=` chooses the instruction set, `RAYON_NUM_THREADS=` the threads.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flawtune_backbone::config::Normalization;
use flawtune_backbone::models;
use flawtune_backbone::preprocess::{Preprocess, RgbImage8};
use flawtune_backbone::vit::{Backbone, LayerSelection, Tokens};
use flawtune_backbone::weights::random;

const SIDE: usize = 224;

fn forward(c: &mut Criterion) {
    let config = models::find("dinov3_vits16")
        .expect("a model of the table")
        .config();
    let backbone = Backbone::new(&config, &random(&config, 1)).expect("random weights fit");
    let layers = LayerSelection::last(config.depth);
    let work = config.work(SIDE, SIDE);
    let mut group = c.benchmark_group("forward");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    for batch in [1, 8] {
        let pixels: Vec<f32> = (0..batch * 3 * SIDE * SIDE)
            .map(|i| (i % 509) as f32 / 254.0 - 1.0)
            .collect();
        let mut tokens = Tokens::default();
        group.throughput(Throughput::Elements(batch as u64 * work.total()));
        group.bench_function(format!("ViT-S-16 {SIDE} px/batch {batch}"), |b| {
            b.iter(|| {
                backbone
                    .forward_into(&pixels, batch, SIDE, SIDE, &layers, &mut tokens)
                    .expect("valid input");
            });
        });
    }
    group.finish();
}

fn preprocess(c: &mut Criterion) {
    let (height, width) = (1024, 1024);
    let pixels = (0..height * width * 3)
        .map(|i| ((i * 2_654_435_761) >> 13) as u8)
        .collect();
    let picture = RgbImage8::from_pixels(height, width, pixels);
    let mut group = c.benchmark_group("preprocess");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    for (name, recipe) in [
        (
            "squash",
            Preprocess::squash(SIDE, SIDE, Normalization::IMAGENET),
        ),
        (
            "float",
            Preprocess::float(SIDE, SIDE, Normalization::IMAGENET),
        ),
    ] {
        group.throughput(Throughput::Elements((height * width) as u64));
        group.bench_function(format!("{name} {width} px"), |b| {
            b.iter(|| black_box(recipe.apply(&picture)));
        });
    }
    group.finish();
}

criterion_group!(benches, forward, preprocess);
criterion_main!(benches);
