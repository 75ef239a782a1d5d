//! Measures the approximate index of a bank: time to make it, time to search by it beside the exact search, and recall.
//!
//! ```text
//! index PATCHES [GRID_SIDE] [THREADS] [PROBES,…] [BUNDLE]
//! ```
//!
//! Patches are generated about many directions, as those of a part's places are. With a bundle they are made of its real ones:
//! each is a patch of its bank, moved by a third of the difference of two others of the same image; its last images ask as
//! they are and give none. Prints medians of three runs; the searches take turns.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use flawtune::bundle::{
    Bank, BankBuilder, Bundle, Cells, PatchOptions, Precision, ScorerKind, TokenScorer,
};
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::machine::Memory;
use flawtune::score::Aggregate;
use flawtune::score::Scorer as _;
use flawtune::unit::normalise_rows;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Numbers of a generated patch, directions they lie about, and in how many ways they differ from them.
const DIM: usize = 384;
const KINDS: usize = 300;
const WAYS: usize = 24;
/// Patches that are generated at a time.
const AT_ONCE: usize = 1000;
/// Images that ask.
const ASKING: usize = 4;
const ROUNDS: usize = 3;

enum Source {
    Drawn {
        kinds: Vec<f32>,
        ways: Vec<f32>,
    },
    Bundle {
        bank: Bank,
        of_image: usize,
        images: usize,
    },
}

impl Source {
    fn drawn(random: &mut ChaCha8Rng) -> Self {
        let mut numbers = |count: usize| {
            (0..count)
                .map(|_| 2.0 * random.random::<f32>() - 1.0)
                .collect::<Vec<f32>>()
        };
        Self::Drawn {
            kinds: numbers(KINDS * DIM),
            ways: numbers(WAYS * DIM),
        }
    }

    fn dim(&self) -> usize {
        match self {
            Self::Drawn { .. } => DIM,
            Self::Bundle { bank, .. } => bank.dim(),
        }
    }

    /// Appends a patch.
    fn patch(&self, random: &mut ChaCha8Rng, rows: &mut Vec<f32>) {
        match self {
            Self::Drawn { kinds, ways } => {
                let kind = random.random_range(0..KINDS) * DIM;
                let first = rows.len();
                rows.extend(
                    kinds[kind..kind + DIM]
                        .iter()
                        .map(|v| v + 0.2 * (random.random::<f32>() - 0.5)),
                );
                for way in ways.chunks_exact(DIM) {
                    let weight = 0.3 * (2.0 * random.random::<f32>() - 1.0);
                    rows[first..]
                        .iter_mut()
                        .zip(way)
                        .for_each(|(r, w)| *r += weight * w);
                }
            }
            Self::Bundle {
                bank,
                of_image,
                images,
            } => {
                let image = random.random_range(0..*images) * of_image;
                let mut any = || bank.decode(image + random.random_range(0..*of_image), 1);
                let (row, from, to) = (any(), any(), any());
                rows.extend(
                    row.iter()
                        .zip(from.iter().zip(&to))
                        .map(|(v, (f, t))| v + (t - f) / 3.0),
                );
            }
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(
    clippy::too_many_lines,
    reason = "a program to read from top to bottom"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (count, side, threads) = (number(0, 1_000_000)?, number(1, 28)?, number(2, 2)?);
    let probes = args
        .get(3)
        .map_or("4,8,16,32", String::as_str)
        .split(',')
        .map(str::parse);
    let probes: Vec<usize> = probes.collect::<Result<_, _>>()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (source, side) = match args.get(4) {
        None => (Source::drawn(&mut random), side),
        Some(path) => {
            let bundle = Bundle::read(Path::new(path))?;
            let (grid, images) = (bundle.header.grid, bundle.header.support.len());
            let of_image = bundle.bank.rows() / images;
            if of_image != grid.0 * grid.1 || grid.0 != grid.1 || images <= ASKING {
                return Err(
                    "name a bundle of square images, fitted without mask, coreset, rotations, index".into(),
                );
            }
            (
                Source::Bundle {
                    bank: bundle.bank,
                    of_image,
                    images: images - ASKING,
                },
                grid.0,
            )
        }
    };
    let dim = source.dim();
    let image = |i: usize, random: &mut ChaCha8Rng| {
        let mut tokens = vec![0.0; dim];
        match &source {
            Source::Bundle {
                bank,
                of_image,
                images,
            } => {
                tokens.extend(bank.decode((images + i) * of_image, *of_image));
            }
            Source::Drawn { .. } => {
                (0..side * side).for_each(|_| source.patch(random, &mut tokens));
            }
        }
        ImageTokens::owned(tokens, side * side, dim)
    };
    let images = (0..ASKING).map(|i| image(i, &mut random)).collect();
    let tests = TokenSet {
        grid: (side, side),
        dim,
        images,
    };
    let one = TokenSet {
        images: tests.images[..1].to_vec(),
        ..tests.clone()
    };

    let mut builder = BankBuilder::new(count, dim, Precision::F16);
    let mut rows = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        let count = AT_ONCE.min(count - first);
        rows.clear();
        (0..count).for_each(|_| source.patch(&mut random, &mut rows));
        normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
        builder.push(&rows);
    }
    let bank = builder.finish();
    let resident = || Memory::here().peak_resident_mib.unwrap_or(f64::NAN);
    let before = resident();
    let start = Instant::now();
    let (bank, cells, _) = Cells::sort(bank, 0);
    let built = start.elapsed().as_secs_f64();
    let largest = cells.largest();
    println!(
        "{count} x {dim} f16 in {} cells of up to {largest}, {threads} threads",
        cells.len()
    );
    println!(
        "made in {built:.2} s, peak {:.1} MiB above {before:.1}",
        resident() - before
    );

    let open = |probes: Option<usize>| {
        let aggregate = Aggregate::TopFraction(0.01);
        let (scorer, options) = (ScorerKind::PatchBank { aggregate }, PatchOptions::default());
        let scorer = TokenScorer::new(
            Path::new("generated"),
            scorer,
            options,
            (side, side),
            &bank,
            &[],
            None,
        );
        scorer.map(|s| match probes {
            Some(probes) => s.with_cells(cells.clone(), probes.min(cells.len()), Vec::new()),
            None => s,
        })
    };
    let kinds: Vec<Option<usize>> = [None]
        .into_iter()
        .chain(probes.into_iter().map(Some))
        .collect();
    let scorers: Vec<TokenScorer> = kinds.iter().map(|p| open(*p)).collect::<Result<_, _>>()?;
    let mut seconds = vec![(Vec::new(), Vec::new()); scorers.len()];
    for _ in 0..ROUNDS {
        for (scorer, (alone, together)) in scorers.iter().zip(&mut seconds) {
            for (set, seconds) in [(&one, alone), (&tests, together)] {
                let start = Instant::now();
                scorer.score(set)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let exact = median(&mut seconds[0].0.clone());
    for ((kind, scorer), (alone, together)) in kinds.iter().zip(&scorers).zip(&mut seconds) {
        let (alone, together) = (median(alone), median(together));
        let name = kind.map_or_else(|| "exact".to_owned(), |probes| format!("{probes} cells"));
        let found = scorer.recall(&tests, false)?.map_or_else(String::new, |r| {
            let (distance, score) = (100.0 * r.distance_error, 100.0 * r.score_error);
            format!(
                ", recall@1 {:.4} of {}, distances {distance:.3} % and scores {score:.3} % too large",
                r.at_1, r.patches
            )
        });
        println!(
            "{name}: {} patches in {alone:.4} s ({:.1} x), {ASKING} images in {together:.4} s{found}",
            side * side,
            exact / alone
        );
    }
    Ok(())
}
