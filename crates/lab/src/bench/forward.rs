//! The forward pass: images a second, and where the time goes.

use std::fmt;
use std::time::Instant;

use flawtune_backbone::config::{VitConfig, Work};
use flawtune_backbone::models;
use flawtune_backbone::vit::{Backbone, LayerSelection, Precision, Tokens, VitError};
use flawtune_backbone::weights;
use flawtune_kernels::profile;
use serde::Serialize;

use super::{BenchError, BenchOptions, Rounds, Yardsticks};

/// A backbone, a size and a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardCase {
    config: VitConfig,
    image_size: usize,
    batch: usize,
    precision: Precision,
}

impl fmt::Display for ForwardCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            image_size,
            batch,
            precision,
        } = self;
        write!(
            f,
            "{} {precision}, {image_size} px, batch {batch}",
            config.name
        )
    }
}

/// One forward pass, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForwardResult {
    /// Backbone.
    pub model: String,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Images at once.
    pub batch: usize,
    /// How its weights are kept and multiplied.
    pub precision: &'static str,
    /// What multiplies them.
    pub kernels: String,
    /// Memory that they take.
    pub weights_mib: f64,
    /// Threads.
    pub threads: usize,
    /// Median.
    pub images_per_s: f64,
    /// The same in arithmetic.
    pub gflops: f64,
    /// Share of the f32 multiply-add loop of the same rounds; bytes can exceed 1.
    pub peak_fraction: f64,
    /// Share of the attainable f32 rate of the same rounds; bytes can exceed 1.
    pub attainable_fraction: f64,
}

/// One operator of a forward pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatorResult {
    /// Precision of the forward pass.
    pub precision: &'static str,
    /// Its name, as `FLAWTUNE_PROFILE=1` prints it.
    pub operator: &'static str,
    /// Milliseconds a forward pass, summed over threads.
    pub milliseconds: f64,
    /// Share of the time of all operators.
    pub share: f64,
    /// Rate of one thread; `null` for what is not a product.
    pub gflops: Option<f64>,
    /// Share of one thread's attainable rate; `null` for what is not a product.
    pub attainable_fraction: Option<f64>,
}

/// All cases, checked.
pub(super) fn cases(options: &BenchOptions) -> Result<Vec<ForwardCase>, BenchError> {
    let mut cases = Vec::new();
    for model in &options.models {
        let config = models::find(model)?.config();
        for &image_size in &options.image_sizes {
            if image_size < config.patch_size {
                return Err(VitError::TooSmall {
                    height: image_size,
                    width: image_size,
                    patch: config.patch_size,
                }
                .into());
            }
            for &batch in &options.batches {
                cases.extend(options.precisions.iter().map(|&precision| ForwardCase {
                    config: config.clone(),
                    image_size,
                    batch,
                    precision,
                }));
            }
        }
    }
    Ok(cases)
}

impl ForwardCase {
    pub(super) fn precision(&self) -> &'static str {
        self.precision.name()
    }

    pub(super) fn measure(
        &self,
        rounds: &mut Rounds,
        by_operator: bool,
    ) -> Result<(ForwardResult, Vec<OperatorResult>), BenchError> {
        let backbone = Backbone::with_precision(
            &self.config,
            &weights::random(&self.config, 1),
            self.precision,
        )?;
        let layers = LayerSelection::last(self.config.depth);
        let side = self.image_size;
        let pixels: Vec<f32> = (0..self.batch * 3 * side * side)
            .map(|i| ((i * 7919) % 1021) as f32 / 300.0 - 1.7)
            .collect();
        let mut tokens = Tokens::default();
        let mut forward = || -> Result<f64, VitError> {
            let start = Instant::now();
            backbone.forward_into(&pixels, self.batch, side, side, &layers, &mut tokens)?;
            Ok(start.elapsed().as_secs_f64())
        };
        let (seconds, yardsticks) = rounds.measure(&mut forward)?;
        let work = self.config.work(side, side);
        let gflops = (work.total() * self.batch as u64) as f64 / seconds / 1e9;
        let threads = rayon::current_num_threads();
        let result = ForwardResult {
            model: self.config.name.clone(),
            image_size: side,
            batch: self.batch,
            precision: self.precision.name(),
            kernels: backbone.kernels(),
            weights_mib: backbone.weight_bytes() as f64 / f64::from(1 << 20),
            threads,
            images_per_s: self.batch as f64 / seconds,
            gflops,
            peak_fraction: gflops / yardsticks.fma_gflops,
            attainable_fraction: gflops / yardsticks.attainable_gflops,
        };
        let operators = if by_operator {
            let (done, report) =
                profile::collect(|| (0..rounds.count).try_for_each(|_| forward().map(drop)));
            done?;
            operators(&report, self, &work, rounds.count, threads, yardsticks)
        } else {
            Vec::new()
        };
        Ok((result, operators))
    }
}

fn operators(
    report: &profile::Report,
    case: &ForwardCase,
    work: &Work,
    rounds: usize,
    threads: usize,
    yardsticks: Yardsticks,
) -> Vec<OperatorResult> {
    let total: f64 = report.entries.iter().map(|e| e.seconds).sum();
    let flops = |operator: &str| match operator {
        "embed" => Some(work.embed),
        "qkv" => Some(work.qkv),
        "attention" => Some(work.attention),
        "projection" => Some(work.projection),
        "expand" => Some(work.expand),
        "contract" => Some(work.contract),
        _ => None,
    };
    let one = |e: &profile::Entry| {
        let seconds = e.seconds / rounds as f64;
        let gflops = flops(e.operator).map(|f| (f * case.batch as u64) as f64 / seconds / 1e9);
        OperatorResult {
            precision: case.precision(),
            operator: e.operator,
            milliseconds: seconds * 1e3,
            share: e.seconds / total,
            gflops,
            attainable_fraction: gflops
                .map(|g| g / (yardsticks.attainable_gflops / threads as f64)),
        }
    };
    report.entries.iter().map(one).collect()
}
