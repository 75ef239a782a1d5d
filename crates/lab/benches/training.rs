//! A training step and all-pairs scoring on features of the size of `MVTec` screw.
//!
//! `cargo bench -p flawtune-lab --bench training`; 100 epochs of one step each are a hundred times `step`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::random::{Purpose, Stream};
use flawtune::score::{Aggregate, image_pair, patch_bank};
use flawtune_lab::adapt::{
    Adam, Adaptation, AdaptationOptions, BatchPass, Gradients, Loss, ModulationType, rows_of,
};

const GRID: (usize, usize) = (14, 14);
const DIM: usize = 384;
/// Normals, and defects, in a batch.
const BATCH: usize = 16;

fn tokens(count: usize, seed: u64) -> TokenSet {
    let patches = GRID.0 * GRID.1;
    let mut stream = Stream::new(seed, Purpose::Init);
    let mut image = || {
        (0..(1 + patches) * DIM)
            .map(|_| (2.0 * stream.uniform() - 1.0) as f32)
            .collect()
    };
    TokenSet {
        grid: GRID,
        dim: DIM,
        images: (0..count)
            .map(|_| ImageTokens::owned(image(), patches, DIM))
            .collect(),
    }
}

fn benchmark(c: &mut Criterion) {
    let batch = tokens(2 * BATCH, 1);
    let mut group = c.benchmark_group("training");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    for modulation in ModulationType::ALL {
        let options = AdaptationOptions {
            modulation,
            num_prompts: 20,
            ..Default::default()
        };
        let mut adaptation = Adaptation::new(options, DIM).expect("valid options");
        let mut adam = Adam::new(adaptation.parameters());
        let mut gradients = Gradients::zeros_for(adaptation.parameters());
        let mut pass = BatchPass::new();
        group.bench_function(format!("step/{modulation}"), |b| {
            b.iter(|| {
                let images: Vec<&[f32]> = batch.images.iter().map(|i| rows_of(i, false)).collect();
                let m = adaptation.modulation();
                let loss = pass
                    .forward(Some(m), &images, BATCH, DIM, Loss::Separability)
                    .expect("enough images");
                gradients.clear();
                pass.backward(m, &images, &mut gradients, None);
                let parameters = adaptation.modulation_mut().parameters_mut();
                adam.step(parameters, &gradients.parameters, 1e-3)
                    .expect("same layout");
                black_box(loss)
            });
        });
    }
    let (support, test) = (tokens(64, 2), tokens(16, 3));
    group.bench_function("score/image_pair 16x64", |b| {
        b.iter(|| image_pair(&support, &test, None, 1));
    });
    group.bench_function("score/patch_bank 16x64", |b| {
        b.iter(|| patch_bank(&support, &test, None, Aggregate::default()));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
