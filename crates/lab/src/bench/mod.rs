//! How fast this machine runs what flawtune is made of: forward pass, patch matching, a training step.
//!
//! Every rate stands beside two yardsticks that are measured in turns with it (`flawtune_kernels::peak`): a virtual
//! machine's speed changes from second to second, a share of what it could do then does not. Weights and tokens are random:
//! speed does not depend on what was learned.

mod forward;
mod method;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flawtune_backbone::models::UnknownModel;
use flawtune_backbone::vit::{Precision, VitError};
use flawtune_kernels::peak;
use serde::Serialize;

pub use forward::{ForwardCase, ForwardResult, OperatorResult};
pub use method::{MatchingResult, TrainingResult};

use crate::adapt::AdaptError;
use flawtune::machine::{Machine, Memory};

/// Time a yardstick is measured for, each round.
const YARDSTICK: Duration = Duration::from_millis(60);

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// Names of backbones.
    pub models: Vec<String>,
    /// Sides of square images, in pixels.
    pub image_sizes: Vec<usize>,
    /// Images a forward pass.
    pub batches: Vec<usize>,
    /// How weights are kept and multiplied.
    pub precisions: Vec<Precision>,
    /// Measurements of each thing; medians are reported.
    pub rounds: usize,
    /// Small matching and training problems, for a first look.
    pub quick: bool,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The name of a backbone.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// Its forward pass.
    #[error(transparent)]
    Vit(#[from] VitError),
    /// The training step.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// Stopped by the caller.
    #[error("stopped before everything was measured")]
    Cancelled,
}

/// What the machine could do while something was measured: medians, GFLOP/s of all threads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Yardsticks {
    /// A loop of multiply-adds on registers.
    pub fma_gflops: f64,
    /// The register tile on operands in the first-level cache.
    pub attainable_gflops: f64,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Where.
    pub machine: Machine,
    /// Threads that computed.
    pub threads: usize,
    /// Measurements of each thing.
    pub rounds: usize,
    /// Medians over the whole run.
    pub yardsticks: Yardsticks,
    /// Forward passes by model, size and batch.
    pub forward: Vec<ForwardResult>,
    /// Where the time of the first of each precision goes.
    pub operators: Vec<OperatorResult>,
    /// All-pairs patch matching.
    pub matching: MatchingResult,
    /// A training step on cached tokens.
    pub training: TrainingResult,
    /// Memory of the process.
    pub memory: Memory,
    /// Version of this program.
    pub flawtune_version: &'static str,
}

/// Measures everything on the current thread pool. `on_case` is told what is measured next; raising `cancel` ends it
/// between two cases.
///
/// # Errors
/// An unknown backbone, images smaller than a patch, a raised `cancel`.
pub fn run(
    options: &BenchOptions,
    cancel: &AtomicBool,
    on_case: &mut dyn FnMut(&str),
) -> Result<BenchReport, BenchError> {
    let cases = forward::cases(options)?;
    let mut rounds = Rounds {
        count: options.rounds.max(1),
        fma: Vec::new(),
        attainable: Vec::new(),
    };
    let mut next = |text: &str| {
        if cancel.load(Ordering::Relaxed) {
            return Err(BenchError::Cancelled);
        }
        on_case(text);
        Ok(())
    };
    let mut forward = Vec::new();
    let mut operators = Vec::new();
    for case in &cases {
        next(&case.to_string())?;
        let first = forward
            .iter()
            .all(|f: &ForwardResult| f.precision != case.precision());
        let (result, by_operator) = case.measure(&mut rounds, first)?;
        forward.push(result);
        operators.extend(by_operator);
    }
    next("patch matching")?;
    let matching = method::matching(&mut rounds, options.quick);
    next("training step")?;
    let training = method::training(&mut rounds, options.quick)?;
    Ok(BenchReport {
        machine: Machine::here(),
        threads: rayon::current_num_threads(),
        rounds: rounds.count,
        yardsticks: Yardsticks {
            fma_gflops: median(&rounds.fma),
            attainable_gflops: median(&rounds.attainable),
        },
        forward,
        operators,
        matching,
        training,
        memory: Memory::here(),
        flawtune_version: env!("CARGO_PKG_VERSION"),
    })
}

/// Takes turns between the yardsticks and a measurement, and keeps the yardsticks of the whole run.
struct Rounds {
    count: usize,
    fma: Vec<f64>,
    attainable: Vec<f64>,
}

impl Rounds {
    /// Median of `seconds()` after one call to warm up, and the yardsticks of the same rounds.
    fn measure<E>(
        &mut self,
        mut seconds: impl FnMut() -> Result<f64, E>,
    ) -> Result<(f64, Yardsticks), E> {
        seconds()?;
        let before = self.fma.len();
        let mut times = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            self.fma.push(peak::fma_peak(YARDSTICK));
            self.attainable.push(peak::attainable(YARDSTICK));
            times.push(seconds()?);
        }
        let here = Yardsticks {
            fma_gflops: median(&self.fma[before..]),
            attainable_gflops: median(&self.attainable[before..]),
        };
        Ok((median(&times), here))
    }
}

/// The middle value, the upper one of two; NaN of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
