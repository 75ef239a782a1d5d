//! Scores one image against a bank of generated unit patches, through the code that `predict` runs, in turns with the
//! machine's yardsticks.
//!
//! ```text
//! bank PATCHES [GRID_SIDE] [f16|f32] [THREADS] [ROUNDS]
//! ```
//!
//! Prints medians: seconds, GFLOP/s (2 · bank patches · image patches · 384, every product counted), their share of both
//! yardsticks of the same rounds; and the most memory that was resident, less what was before there was a bank, beside the
//! bank's bytes.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use flawtune::bundle::{BankBuilder, PatchOptions, Precision, ScorerKind, TokenScorer};
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::machine::Memory;
use flawtune::score::Aggregate;
use flawtune::score::Scorer as _;
use flawtune::unit::normalise_rows;
use flawtune_kernels::peak;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 384;
const YARDSTICK: Duration = Duration::from_millis(100);
/// Patches that are generated at a time.
const AT_ONCE: usize = 1000;

/// Patches about a common direction, as those of one kind of part are: `[patches, DIM]`, not normalised.
fn patches(random: &mut ChaCha8Rng, count: usize, rows: &mut Vec<f32>) {
    rows.clear();
    rows.extend((0..count * DIM).map(|i| {
        let common = ((i % DIM) as f32 * 0.7).sin();
        common + 0.6 * (2.0 * random.random::<f32>() - 1.0)
    }));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (count, side) = (number(0, 1_000_000)?, number(1, 28)?);
    let precision = match args.get(2).map(String::as_str) {
        Some("f32") => Precision::F32,
        Some("f16") | None => Precision::F16,
        Some(other) => return Err(format!("{other:?}: name f16 or f32").into()),
    };
    let (threads, rounds) = (number(3, 2)?, number(4, 5)?);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut rows = Vec::new();
    patches(&mut random, side * side, &mut rows);
    let image = ImageTokens::owned([&[0.0; DIM], &rows[..]].concat(), side * side, DIM);
    let test = TokenSet {
        grid: (side, side),
        dim: DIM,
        images: vec![image],
    };
    // what the yardsticks themselves need is not part of the bank
    peak::attainable(YARDSTICK);
    let resident = || Memory::here().peak_resident_mib.unwrap_or(f64::NAN);
    let before = resident();

    let mut builder = BankBuilder::new(count, DIM, precision);
    for first in (0..count).step_by(AT_ONCE) {
        let count = AT_ONCE.min(count - first);
        patches(&mut random, count, &mut rows);
        normalise_rows(&mut rows, DIM, &mut vec![0.0; count]);
        builder.push(&rows);
    }
    let bank = builder.finish();
    let scorer = ScorerKind::PatchBank {
        aggregate: Aggregate::Max,
    };
    let start = Instant::now();
    let scorer = TokenScorer::new(
        Path::new("generated"),
        scorer,
        PatchOptions::default(),
        (side, side),
        &bank,
        &[],
        None,
    )?;
    let opened = start.elapsed().as_secs_f64();
    drop(bank);

    let (mut seconds, mut fma, mut attainable, mut score) = (vec![], vec![], vec![], f64::NAN);
    for round in 0..=rounds {
        fma.push(peak::fma_peak(YARDSTICK));
        attainable.push(peak::attainable(YARDSTICK));
        let start = Instant::now();
        score = scorer.score(&test)?[0].score;
        seconds.push(start.elapsed().as_secs_f64());
        if round == 0 {
            // the first touches memory for the first time
            (seconds, fma, attainable) = (vec![], vec![], vec![]);
        }
    }
    let bytes = (count * DIM * precision.bytes()) as f64 / f64::from(1 << 20);
    let peak = resident() - before;
    let (seconds, fma, attainable) = (
        median(&mut seconds),
        median(&mut fma),
        median(&mut attainable),
    );
    let gflops = 2.0 * (count * side * side * DIM) as f64 / seconds / 1e9;
    println!(
        "{count} x {DIM} {precision:?}, {} patches, {threads} threads, median of {rounds}",
        side * side
    );
    println!("opened in {opened:.3} s, answered in {seconds:.4} s, score {score:?}");
    println!(
        "{gflops:.1} GFLOP/s: {:.3} of FMA {fma:.1}, {:.3} of attainable {attainable:.1}",
        gflops / fma,
        gflops / attainable
    );
    println!(
        "peak {peak:.1} MiB above {before:.1}, bank {bytes:.1} MiB: {:.3}",
        peak / bytes
    );
    Ok(())
}
