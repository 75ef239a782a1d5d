//! Scores test images by their nearest support images, on features from files, with and without bounds.
//!
//! ```text
//! matching SUPPORT.safetensors TEST.safetensors [--k K] [--threads N]
//! ```
//!
//! The files are those of `flawtune features`. Answers each line on standard input with one line: `pruned`, `plain` and
//! `bank` do the work once and give the seconds it took, `check` compares the first two bit by bit and says how many pairs were
//! compared in full. So that `bench/peers/matching.py` can take turns with another engine.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::time::Instant;

use flawtune::features::{ImageTokens, TokenSet};
use flawtune::score::{SupportSet, TokenKind};
use flawtune::unit::normalise_rows;
use flawtune_kernels::matching::{NearestImages, PackedPatches, max_similarity};
use rayon::prelude::*;
use safetensors::SafeTensors;

struct Images {
    rows: Vec<Vec<f32>>,
    dim: usize,
}

fn load(path: &str) -> Result<Images, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let tokens = tensors.tensor("patch_tokens")?;
    let &[_, patches, dim] = tokens.shape() else {
        return Err("patch_tokens are [images, patches, dim]".into());
    };
    let rows = tokens
        .data()
        .chunks_exact(patches * dim * 4)
        .map(|image| {
            image
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        })
        .collect();
    Ok(Images { rows, dim })
}

impl Images {
    fn pack(&self) -> Vec<PackedPatches> {
        let pack = |rows: &Vec<f32>| {
            let mut rows = rows.clone();
            let mut norms = vec![0.0; rows.len() / self.dim];
            normalise_rows(&mut rows, self.dim, &mut norms);
            PackedPatches::pack(&rows, self.dim)
        };
        self.rows.par_iter().map(pack).collect()
    }

    fn tokens(&self) -> TokenSet {
        let patches = self.rows[0].len() / self.dim;
        let image = |rows: &Vec<f32>| {
            ImageTokens::owned(
                [&vec![0.0; self.dim], &rows[..]].concat(),
                patches,
                self.dim,
            )
        };
        TokenSet {
            grid: (1, patches),
            dim: self.dim,
            images: self.rows.iter().map(image).collect(),
        }
    }
}

/// All similarities, `[tests, supports]`, as they were computed before there were bounds.
fn plain(tests: &[PackedPatches], supports: &[PackedPatches]) -> Vec<f64> {
    (0..tests.len() * supports.len())
        .into_par_iter()
        .map_init(Vec::new, |best, i| {
            let test = &tests[i / supports.len()];
            best.resize(test.patches(), 0.0);
            max_similarity(test, &supports[i % supports.len()], best);
            best.iter().map(|&b| f64::from(b)).sum::<f64>() / best.len() as f64
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [support, test, ..] = &args[..] else {
        return Err("matching SUPPORT.safetensors TEST.safetensors [--k K] [--threads N]".into());
    };
    let option = |name: &str, default: usize| -> Result<usize, Box<dyn Error>> {
        match args
            .iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
        {
            Some(value) => Ok(value.parse()?),
            None => Ok(default),
        }
    };
    let k = option("--k", 1)?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(option("--threads", 2)?)
        .build_global()?;
    let (support, test) = (load(support)?, load(test)?);
    let (supports, tests) = (support.pack(), test.pack());
    let bank = SupportSet::new(&support.tokens(), TokenKind::Patches, None)?;
    let test_tokens = test.tokens();
    println!(
        "ready {} {} {}",
        supports.len(),
        tests.len(),
        supports[0].patches()
    );
    for line in io::stdin().lock().lines() {
        let start = Instant::now();
        match line?.as_str() {
            "pruned" => {
                // bounds are prepared anew each time
                let images = NearestImages::new(supports.clone());
                std::hint::black_box(images.nearest(&tests, k));
                println!("{}", start.elapsed().as_secs_f64());
            }
            "plain" => {
                std::hint::black_box(plain(&tests, &supports));
                println!("{}", start.elapsed().as_secs_f64());
            }
            "bank" => {
                std::hint::black_box(bank.patch_distances(&test_tokens)?);
                println!("{}", start.elapsed().as_secs_f64());
            }
            "check" => {
                let found = NearestImages::new(supports.clone()).nearest(&tests, k);
                let all = plain(&tests, &supports);
                for (found, row) in found.iter().zip(all.chunks_exact(supports.len())) {
                    let mut row: Vec<(usize, f64)> = row.iter().copied().enumerate().collect();
                    row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    if found.images[..] != row[..k] {
                        return Err("the pruned result differs".into());
                    }
                }
                let compared: usize = found.iter().map(|f| f.compared).sum();
                println!("{compared}");
            }
            other => return Err(format!("no such work: {other:?}").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}
