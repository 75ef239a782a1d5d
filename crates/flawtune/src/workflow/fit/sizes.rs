//! At which sizes a detector looks at images: the best there are, or those that a time an image allows.

use std::time::{Duration, Instant};

use flawtune_backbone::models;

use super::{FitRequest, Shape};
use crate::bundle::{Bank, BankBuilder};
use crate::features::{Forward as _, ImageTokens};
use crate::image_size::ImageSize;
use crate::score::residual::{BlockBanks, DEFAULT_SIZES};
use crate::workflow::{Engine, Event, OnEvent, WorkflowError};

/// Rows of the bank that searching is timed with.
const TIMED_ROWS: usize = 8192;
/// How often a pass is timed; the fastest counts.
const RUNS: usize = 2;

/// The engine with the sizes of the default, or those of `request.options.budget`; what the user named stays.
///
/// The default is two sizes, whose scores are averaged: each sees what the other misses (docs/evidence/sizes.md).
pub(super) fn with_sizes(
    request: &FitRequest,
    engine: Engine,
    shape: &Shape<'_>,
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    let demo = engine.config().name == models::DEMO;
    let named = !request.backbone.image_size.is_empty() || demo || engine.options().tiles.is_some();
    let engine = if named {
        engine
    } else {
        engine.with_sizes(&DEFAULT_SIZES.map(ImageSize::square))?
    };
    let engine = shape.given_to(engine, on_event)?;
    let good = shape.support;
    let Some(budget) = request.options.budget else {
        return Ok(engine);
    };
    let (sizes, best) = (engine.sizes(), engine.sizes_text(" and "));
    let costs = sizes.iter().map(|&size| seconds(&engine, size, good));
    let costs: Vec<f64> = costs.collect::<Result<_, _>>()?;
    let all: f64 = costs.iter().sum();
    if named || all <= budget.as_secs_f64() {
        tell(&engine, all, budget, on_event);
        return Ok(engine);
    }
    let engine = engine.with_sizes(&sizes[1..])?;
    let cost = costs[1..].iter().sum();
    tell(&engine, cost, budget, on_event);
    on_event(Event::Note(format!(
        "next best, beyond it: {best} px, about {:.0} ms",
        1e3 * all
    )));
    Ok(engine)
}

fn tell(engine: &Engine, cost: f64, budget: Duration, on_event: OnEvent<'_>) {
    let sizes = format!("{} px", engine.sizes_text(" and "));
    let (cost, budget) = (1e3 * cost, 1e3 * budget.as_secs_f64());
    if cost <= budget {
        on_event(Event::Note(format!(
            "{sizes}: about {cost:.0} ms an image on this machine, {budget:.0} ms are allowed"
        )));
    } else {
        on_event(Event::Warning(format!(
            "{sizes} take about {cost:.0} ms an image on this machine, more than the {budget:.0} ms that are allowed; nothing \
             smaller is tried, because a thinned bank loses more than it saves\nhint: name a smaller image size, or fewer good \
             images"
        )));
    }
}

/// Seconds that an image takes, one at a time, at a size with so many good images in its bank: the forward pass, and the search of
/// every block's bank, timed on a part of it.
fn seconds(engine: &Engine, size: ImageSize, good: usize) -> Result<f64, WorkflowError> {
    let blocks = engine.options().layers.len().max(1);
    let dim = engine.dim() / blocks;
    let (height, width) = engine.preprocess_at(size).size;
    let patches = engine.patches_at(size);
    let pixels = vec![0.0; 3 * height * width];
    let pass = || engine.tokens(&pixels, 1, height, width);
    pass()?;
    let (forward, tokens) = fastest(pass)?;
    let image = ImageTokens::owned(tokens, patches, engine.dim());
    let rows = TIMED_ROWS.min(patches * good).max(1);
    let banks = BlockBanks::new(&noise(rows, dim), 1, &[rows]);
    let one = ImageTokens::owned(image.patches()[..patches * dim].to_vec(), patches - 1, dim);
    let (search, _) = fastest(|| Ok(banks.look(&[&one])))?;
    Ok(forward + search * (blocks * good * patches) as f64 / rows as f64)
}

/// The least seconds of some runs, and what the last gave.
fn fastest<T>(
    mut run: impl FnMut() -> Result<T, WorkflowError>,
) -> Result<(f64, T), WorkflowError> {
    let mut least = f64::INFINITY;
    let mut timed = || {
        let start = Instant::now();
        let found = run()?;
        least = least.min(start.elapsed().as_secs_f64());
        Ok::<T, WorkflowError>(found)
    };
    for _ in 1..RUNS {
        timed()?;
    }
    let last = timed()?;
    Ok((least, last))
}

/// Rows of numbers from -1 to 1, always the same, whose nearest are as hard to find as those of patches.
fn noise(rows: usize, dim: usize) -> Bank {
    let mut builder = BankBuilder::new(rows, dim, crate::bundle::Precision::F16);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..rows {
        let mut row: Vec<f32> = (0..dim)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        crate::unit::normalise_rows(&mut row, dim, &mut [0.0]);
        builder.push(&row);
    }
    builder.finish()
}
