//! What runs on tokens: patch matching and a training step.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use flawtune_kernels::matching::{PackedPatches, mean_max_all_pairs};
use serde::Serialize;

use super::{BenchError, Rounds};
use crate::adapt::{
    Adam, AdaptError, Adaptation, AdaptationOptions, BatchPass, Gradients, Loss, ModulationType,
};
use flawtune::random::{Purpose, Stream};

/// Patches of an image and numbers a patch, as ViT-S/16 has them at 224 px.
const PATCHES: usize = 196;
const DIM: usize = 384;
/// Prompts of the training step.
const PROMPTS: usize = 20;

/// All-pairs matching: for every pair of images the mean over patches of the largest cosine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatchingResult {
    /// Images compared.
    pub tests: usize,
    /// Images they are compared with.
    pub support: usize,
    /// Patches an image.
    pub patches: usize,
    /// Numbers a patch.
    pub dim: usize,
    /// Median rate, every pair in full.
    pub gflops: f64,
    /// Pairs a second.
    pub pairs_per_s: f64,
    /// Share of the multiply-add loop.
    pub peak_fraction: f64,
    /// Share of the attainable rate.
    pub attainable_fraction: f64,
}

/// A training step on cached tokens: forward, backward, Adam; `per_patch`, every pair searched in full.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingResult {
    /// Normal images a step.
    pub normals: usize,
    /// Defect images a step.
    pub defects: usize,
    /// Prompts.
    pub prompts: usize,
    /// Patches an image.
    pub patches: usize,
    /// Numbers a patch.
    pub dim: usize,
    /// Median.
    pub milliseconds_per_step: f64,
    /// Its inverse.
    pub steps_per_s: f64,
}

fn images(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut stream = Stream::new(seed, Purpose::Init);
    (0..count)
        .map(|_| {
            (0..PATCHES * DIM)
                .map(|_| (2.0 * stream.uniform() - 1.0) as f32 * 0.1)
                .collect()
        })
        .collect()
}

pub(super) fn matching(rounds: &mut Rounds, quick: bool) -> MatchingResult {
    let (tests, support) = if quick { (4, 8) } else { (24, 64) };
    let pack = |count, seed| -> Vec<PackedPatches> {
        images(count, seed)
            .iter()
            .map(|i| PackedPatches::pack(i, DIM))
            .collect()
    };
    let (test, bank) = (pack(tests, 2), pack(support, 3));
    let Ok((seconds, yardsticks)) = rounds.measure(|| -> Result<f64, Infallible> {
        let start = Instant::now();
        black_box(mean_max_all_pairs(&test, &bank));
        Ok(start.elapsed().as_secs_f64())
    });
    let pairs = (tests * support) as f64;
    let gflops = pairs * (2 * PATCHES * PATCHES * DIM) as f64 / seconds / 1e9;
    MatchingResult {
        tests,
        support,
        patches: PATCHES,
        dim: DIM,
        gflops,
        pairs_per_s: pairs / seconds,
        peak_fraction: gflops / yardsticks.fma_gflops,
        attainable_fraction: gflops / yardsticks.attainable_gflops,
    }
}

pub(super) fn training(rounds: &mut Rounds, quick: bool) -> Result<TrainingResult, BenchError> {
    let each = if quick { 4 } else { 16 };
    let options = AdaptationOptions {
        modulation: ModulationType::PerPatch,
        num_prompts: PROMPTS,
        ..AdaptationOptions::default()
    };
    let mut adaptation = Adaptation::new(options, DIM)?;
    let mut adam = Adam::new(adaptation.parameters());
    let mut gradients = Gradients::zeros_for(adaptation.parameters());
    let mut pass = BatchPass::new();
    let batch = images(2 * each, 1);
    let batch: Vec<&[f32]> = batch.iter().map(Vec::as_slice).collect();
    let (seconds, _) = rounds.measure(|| -> Result<f64, AdaptError> {
        let start = Instant::now();
        let modulation = adaptation.modulation();
        pass.forward(Some(modulation), &batch, each, DIM, Loss::Separability)?;
        gradients.clear();
        pass.backward(modulation, &batch, &mut gradients, None);
        adam.step(
            adaptation.modulation_mut().parameters_mut(),
            &gradients.parameters,
            1e-3,
        )?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    Ok(TrainingResult {
        normals: each,
        defects: each,
        prompts: PROMPTS,
        patches: PATCHES,
        dim: DIM,
        milliseconds_per_step: seconds * 1e3,
        steps_per_s: 1.0 / seconds,
    })
}
