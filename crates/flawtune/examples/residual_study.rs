//! What defects teach the residual head, over seeds and numbers of shots: the same split, banks, heads and scores as
//! `flawtune fit --num-defect-samples M --seed S` and `flawtune evaluate`, with every image looked at once.
//!
//! ```sh
//! cargo run --release -p flawtune --example residual_study -- WEIGHTS ROOT CATEGORY CACHE [--image-size 448,224]
//!     [--blocks 5,7,9,11] [--top N] [--no-masks] [--penalty X] [--seeds N] [--judged N]
//! ```
//!
//! A row a number of shots: mean and standard deviation of the AUROC over seeds, with and without what was learned, their
//! difference with a paired bootstrap interval over all seeds, and the share of defects found and of good images stopped at the
//! threshold for 2 % false alarms that good images alone choose.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use flawtune::bundle::Precision;
use flawtune::dataset::Source;
use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::protocol::SplitOptions;
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};
use flawtune::features::{FeatureCache, TokenSet, patch_cover};
use flawtune::score::Finding;
use flawtune::score::residual::{
    BlockBanks, DEFAULT_SIZES, Good, Look, LookedAt, ResidualOptions, Shot, block_bank,
    default_blocks, default_top, joined, learn_residual, look_at_good,
};
use flawtune::score::threshold::{Method, from_good};
use flawtune::workflow::{BackboneOptions, Category, CategoryOptions, Engine};
use flawtune_backbone::preprocess::Preprocess;
use flawtune_backbone::vit::Combine;

type Failure = Box<dyn std::error::Error>;

/// Shots that are learned from.
const SHOTS: [usize; 4] = [1, 5, 10, 20];
/// Share of good images that may be stopped.
const FALSE_ALARMS: f64 = 0.02;

struct Options {
    weights: PathBuf,
    root: PathBuf,
    category: String,
    cache: PathBuf,
    image_sizes: Vec<usize>,
    judged: usize,
    blocks: Option<Vec<i32>>,
    top: Option<usize>,
    masks: bool,
    seeds: u64,
    learning: ResidualOptions,
}

fn options() -> Result<Options, Failure> {
    let mut given = std::env::args().skip(1);
    let mut next = |what: &'static str| given.next().ok_or(format!("{what} is missing"));
    let mut options = Options {
        weights: next("WEIGHTS")?.into(),
        root: next("ROOT")?.into(),
        category: next("CATEGORY")?,
        cache: next("CACHE")?.into(),
        image_sizes: DEFAULT_SIZES.to_vec(),
        judged: usize::MAX,
        blocks: None,
        top: None,
        masks: true,
        seeds: 5,
        learning: ResidualOptions::default(),
    };
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--image-size" => {
                let sizes = value()?;
                let sizes = sizes.split(',').map(str::parse::<usize>);
                options.image_sizes = sizes.collect::<Result<_, _>>()?;
            }
            "--judged" => options.judged = value()?.parse()?,
            "--blocks" => {
                let blocks = value()?;
                let from_zero = blocks.split(',').map(|b| b.parse::<i32>().map(|b| b - 1));
                options.blocks = Some(from_zero.collect::<Result<_, _>>()?);
            }
            "--top" => options.top = Some(value()?.parse()?),
            "--no-masks" => options.masks = false,
            "--penalty" => options.learning.penalty = value()?.parse()?,
            "--weight" => options.learning.weight = Some(value()?.parse()?),
            "--seeds" => options.seeds = value()?.parse()?,
            _ => return Err(format!("{flag}: unknown").into()),
        }
    }
    Ok(options)
}

/// What one seed's detector says of its test set.
struct Seed {
    ids: Vec<String>,
    labels: Vec<bool>,
    taught: Vec<f64>,
    untaught: Vec<f64>,
    found: f64,
    stopped: f64,
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let square: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
    (mean, (square / (n - 1.0).max(1.0)).sqrt())
}

/// Everything that is seen at one size, once.
struct AtSize {
    preprocess: Preprocess,
    tokens: TokenSet,
    banks: BlockBanks,
    good: Vec<Good<'static>>,
    looked_at: LookedAt,
    looks: Vec<Look>,
    patch: usize,
}

impl AtSize {
    fn look(
        options: &Options,
        category: &Category,
        size: usize,
        (good, others): (&[usize], &[usize]),
    ) -> Result<Self, Failure> {
        let silent = &mut |_: flawtune::workflow::Event<'_>| {};
        let base = BackboneOptions {
            weights: Some(options.weights.clone()),
            image_size: size.into(),
            combine_layers: Combine::Concat,
            ..BackboneOptions::default()
        };
        let depth = Engine::open(base.clone(), silent)?.config().depth;
        let layers = options.blocks.clone().unwrap_or_else(|| {
            let blocks = default_blocks(depth).into_iter();
            blocks.map(|b| b as i32).collect()
        });
        let blocks = layers.len();
        let engine = Engine::open(BackboneOptions { layers, ..base }, silent)?;
        let all: Vec<usize> = (0..category.dataset.samples.len()).collect();
        let (_, tokens) = category.tokens(&engine, &all, silent)?;
        let (dim, patches) = (tokens.dim / blocks, tokens.patches());
        let images = |of: &[usize]| of.iter().map(|&i| &tokens.images[i]).collect::<Vec<_>>();
        let bank = block_bank(images(good), blocks, dim, Precision::F16);
        let banks = BlockBanks::new(&bank, blocks, &vec![patches; good.len()]);
        let start = std::time::Instant::now();
        // of several sizes a part of the good images is judged, as fit does
        let judged = if options.image_sizes.len() > 1 {
            options.judged.min(good.len())
        } else {
            good.len()
        };
        let own: Vec<usize> = (0..judged).map(|i| i * good.len() / judged).collect();
        let good: Vec<Good<'static>> = own.into_iter().map(Good::Own).collect();
        let looked_at = look_at_good(&banks, &good, &mut |_| {});
        let looks = banks.look(&images(others));
        eprintln!(
            "{} of {size} px looked at in {:.1} s",
            judged + others.len(),
            start.elapsed().as_secs_f64()
        );
        Ok(Self {
            preprocess: engine.preprocess(),
            patch: engine.config().patch_size,
            good,
            tokens,
            banks,
            looked_at,
            looks,
        })
    }

    /// What a head that learned from `shots` says of the good images and of `test`.
    fn judge(
        &self,
        options: &Options,
        category: &Category,
        others: &[usize],
        (seed, shots, test): (u64, &[usize], &[usize]),
    ) -> Result<[Vec<Finding>; 2], Failure> {
        let look_of = |i: usize| &self.looks[others.binary_search(&i).unwrap_or(0)];
        let mut given = Vec::new();
        for &i in shots {
            let sample = &category.dataset.samples[i];
            let masks = &sample.masks;
            let covered = if masks.is_empty() || !options.masks {
                None
            } else {
                let grid = self.tokens.grid;
                let path = &sample.path;
                Some(patch_cover(
                    path,
                    masks,
                    &self.preprocess,
                    grid,
                    self.patch,
                )?)
            };
            given.push(Shot {
                image: &self.tokens.images[i],
                covered,
                kind: "",
            });
        }
        let of_shots: Vec<Look> = shots.iter().map(|&i| look_of(i).clone()).collect();
        let mut learning = options.learning.clone();
        learning.seed = seed;
        let top = options
            .top
            .unwrap_or_else(|| default_top(self.tokens.patches()));
        let fit = learn_residual(
            &self.banks,
            (&self.good, &self.looked_at),
            (&given, &of_shots),
            top,
            &learning,
        )?;
        let model = &fit.model;
        let tested = test.iter().map(|&i| {
            let judged = model.judge_looked(&self.banks, &self.tokens.images[i], look_of(i));
            model.finding(judged)
        });
        Ok([
            fit.good.iter().cloned().map(|j| model.finding(j)).collect(),
            tested.collect(),
        ])
    }
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    let silent = &mut |_: flawtune::workflow::Event<'_>| {};
    let category = Category::open(
        &CategoryOptions {
            source: Source::root(&options.root),
            category: options.category.clone(),
            needs_test: true,
            skip_bad_images: false,
            strict: false,
            exclude: Vec::new(),
            cache: Some(FeatureCache::at(&options.cache)),
            batch_size: 32,
        },
        silent,
    )?;
    let infos = category.infos();
    let (good, others): (Vec<usize>, Vec<usize>) =
        (0..category.dataset.samples.len()).partition(|&i| infos[i].is_train);
    let mut sizes = Vec::new();
    for &size in &options.image_sizes {
        sizes.push(AtSize::look(&options, &category, size, (&good, &others))?);
    }
    println!("{} at {:?} px", options.category, options.image_sizes);
    println!(
        "| shots | AUROC taught | AUROC of good images alone | difference | found | stopped |"
    );
    println!("|---|---|---|---|---|---|");
    for shots in SHOTS {
        let mut seeds = Vec::new();
        for seed in 0..options.seeds {
            let split = category.split(&SplitOptions::held_out(seed, shots))?;
            let (mut good, mut tested) = (Vec::new(), Vec::new());
            for size in &sizes {
                let asked = (seed, &split.shots[..], &split.test[..]);
                let [own, test] = size.judge(&options, &category, &others, asked)?;
                good.push((size.tokens.grid, own));
                tested.push((size.tokens.grid, test));
            }
            let scores: Vec<f64> = joined(good).iter().map(|f| f.score).collect();
            let judged = joined(tested);
            let threshold = from_good(&scores, FALSE_ALARMS, Method::Auto)?;
            let labels: Vec<bool> = split
                .test
                .iter()
                .map(|&i| infos[i].defect_type.is_some())
                .collect();
            let share = |of: bool| {
                let scores = judged.iter().zip(&labels).filter(|(_, l)| **l == of);
                let (n, over) = scores.fold((0.0, 0.0), |(n, over), (j, _)| {
                    (
                        n + 1.0,
                        over + f64::from(u8::from(threshold.is_flaw(j.score))),
                    )
                });
                over / n
            };
            let untaught = |f: &Finding| f.untaught.as_ref().map_or(f.score, |u| u.score);
            seeds.push(Seed {
                ids: split.test.iter().map(|&i| infos[i].id.to_owned()).collect(),
                taught: judged.iter().map(|j| j.score).collect(),
                untaught: judged.iter().map(untaught).collect(),
                found: share(true),
                stopped: share(false),
                labels,
            });
        }
        row(shots, &seeds)?;
    }
    Ok(())
}

fn row(shots: usize, seeds: &[Seed]) -> Result<(), Failure> {
    let ids: Vec<Vec<&str>> = seeds
        .iter()
        .map(|s| s.ids.iter().map(String::as_str).collect())
        .collect();
    let pairs: Vec<SeedScores<'_>> = seeds
        .iter()
        .zip(&ids)
        .map(|(s, ids)| SeedScores {
            ids,
            labels: &s.labels,
            first: &s.taught,
            second: &s.untaught,
        })
        .collect();
    let interval =
        paired_bootstrap_over_seeds(&pairs, RankingMetric::Auroc, &BootstrapOptions::default())?;
    let of = |scores: fn(&Seed) -> &Vec<f64>| {
        let values = seeds
            .iter()
            .map(|s| auroc(&s.labels, scores(s)).ok().flatten());
        mean(values.map(|v| v.unwrap_or(f64::NAN)))
    };
    let (taught, untaught) = (of(|s| &s.taught), of(|s| &s.untaught));
    println!(
        "| {shots} | {:.4} ± {:.4} | {:.4} ± {:.4} | {:+.4} [{:+.4}, {:+.4}] | {:.1} % | {:.1} % |",
        taught.0,
        taught.1,
        untaught.0,
        untaught.1,
        taught.0 - untaught.0,
        interval.low,
        interval.high,
        100.0 * mean(seeds.iter().map(|s| s.found)).0,
        100.0 * mean(seeds.iter().map(|s| s.stopped)).0,
    );
    Ok(())
}
