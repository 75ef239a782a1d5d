//! Compares zero-shot scorers, supervised heads and the default ensemble on cached tokens, as Markdown.
//!
//! ```text
//! find train test -type f | LC_ALL=C sort > IDS            (in the category's folder)
//! flawtune features --layers 8 -o TOKENS.safetensors $(cat IDS)
//! heads_study TOKENS.safetensors IDS [--seeds N] [--hard | --development] [--image-level]
//! ```
//!
//! `IDS` names the images of the file, one path a line, relative to the category, such as `test/crack/003.png`. Every
//! method sees all of train/good and the first M images of the seed's pool; all are tested on the same images. `--hard`
//! runs the hard protocol over all types; `--image-level` leaves out what needs patch distances (minutes instead of
//! seconds).
//!
//! `--development` touches no test image of its seed: M ≤ 10 shots are the first of the pool, the rest of the pool is
//! ranked against a quarter of train/good that nothing was fitted to. Methods are chosen there. (Their patch distances
//! are to all other images of train/good, as those of the normals that are learned from.)
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;

use flawtune::adapt::heads::{
    BANK_SHARE, DefectMemory, Ensemble, EnsembleOptions, Evidence, ImageHead, LogisticOptions, PatchBank,
    PatchExample, PatchHead, PatchHeadOptions, image_features,
};
use flawtune::evaluate::metrics::{auroc, average_precision};
use flawtune::evaluate::protocol::{Protocol, SampleInfo, Split, SplitOptions};
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};
use flawtune::features::ImageTokens;
use safetensors::SafeTensors;

/// The ensemble without defects.
const OWN_BASE: &str = "zero-shot: the ensemble's base";
const SHOTS: [usize; 4] = [1, 5, 10, 20];
/// Shots of a development draw: what is left of a pool of 20 is ranked.
const DEVELOPMENT_SHOTS: [usize; 3] = [1, 5, 10];
/// Share of train/good that a development draw ranks the defects against.
const DEVELOPMENT_NORMALS: f64 = 0.25;

/// Scores of the test images by method.
type Named = Vec<(&'static str, Vec<f64>)>;

struct Category {
    ids: Vec<String>,
    images: Vec<ImageTokens>,
    features: Vec<Vec<f32>>,
    dim: usize,
    normals: Vec<usize>,
    /// Distance of each patch to the patches of train/good, the image itself left out; empty with `--image-level`.
    distances: Vec<Vec<f32>>,
}

fn load(path: &str, ids: &str, patch_level: bool) -> Result<Category, Box<dyn Error>> {
    let ids: Vec<String> = std::fs::read_to_string(ids)?.lines().map(str::to_owned).collect();
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let (classes, patches) = (tensors.tensor("class_tokens")?, tensors.tensor("patch_tokens")?);
    let &[count, rows, dim] = patches.shape() else {
        return Err("patch_tokens are [images, patches, dim]".into());
    };
    if count != ids.len() || classes.shape() != [count, dim] {
        return Err(format!("{count} images, {} ids, class tokens {:?}", ids.len(), classes.shape()).into());
    }
    let mut images = Vec::with_capacity(count);
    let per_image = classes.data().chunks_exact(dim * 4).zip(patches.data().chunks_exact(rows * dim * 4));
    for (class, patches) in per_image {
        let mut values = Vec::with_capacity((1 + rows) * dim);
        for b in class.chunks_exact(4).chain(patches.chunks_exact(4)) {
            values.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        }
        images.push(ImageTokens::owned(values, rows, dim));
    }
    let normals: Vec<usize> = (0..count).filter(|&i| ids[i].starts_with("train/good/")).collect();
    let mut distances = Vec::new();
    if patch_level {
        let bank = PatchBank::new(&pick(&images, &normals), dim);
        let others: Vec<usize> = (0..count).filter(|i| !normals.contains(i)).collect();
        distances.resize(count, Vec::new());
        for (i, d) in normals.iter().zip(bank.left_out_distances()) {
            distances[*i] = d;
        }
        for (i, d) in others.iter().zip(bank.distances(&pick(&images, &others))) {
            distances[*i] = d;
        }
    }
    let features = images.iter().map(image_features).collect();
    Ok(Category { ids, images, features, dim, normals, distances })
}

fn pick<T: Clone>(from: &[T], which: &[usize]) -> Vec<T> {
    which.iter().map(|&i| from[i].clone()).collect()
}

impl Category {
    fn example(&self, i: usize) -> PatchExample<'_> {
        PatchExample { tokens: &self.images[i], distances: &self.distances[i], mask: None }
    }

    fn examples(&self, which: &[usize]) -> Vec<PatchExample<'_>> {
        which.iter().map(|&i| self.example(i)).collect()
    }

    fn evidence(&self, which: &[usize]) -> Vec<Evidence> {
        let bank = |i: usize| self.distances.get(i).map(|d| mean_of_top(d, BANK_SHARE));
        which.iter().map(|&i| Evidence { features: self.features[i].clone(), bank: bank(i) }).collect()
    }

    /// Scores that need no defect, for the test images.
    fn zero_shot(&self, normals: &[usize], test: &[usize]) -> Vec<(&'static str, Vec<f64>)> {
        let mut rows = Vec::new();
        if !self.distances.is_empty() {
            let top = |share: f64| -> Vec<f64> {
                test.iter().map(|&i| mean_of_top(&self.distances[i], share)).collect()
            };
            rows.push(("zero-shot: patch bank, top 1 %", top(0.01)));
            rows.push(("zero-shot: patch bank, mean", top(1.0)));
        }
        let nearest = |i: &usize| {
            let own = self.images[*i].cls();
            1.0 - normals.iter().map(|&n| cosine(own, self.images[n].cls())).fold(-1.0, f64::max)
        };
        rows.push(("zero-shot: class token, nearest", test.iter().map(nearest).collect()));
        rows
    }

    /// Scores after learning from the shots.
    fn supervised(
        &self,
        normals: &[usize],
        shots: &[usize],
        test: &[usize],
    ) -> Result<Named, Box<dyn Error>> {
        let mut rows = Vec::new();
        let slices = |which: &[usize]| which.iter().map(|&i| self.features[i].as_slice()).collect::<Vec<_>>();
        let probe = ImageHead::fit(&slices(shots), &slices(normals), &LogisticOptions::with_penalty(1.0))?;
        rows.push(("linear probe", test.iter().map(|&i| probe.score(&self.features[i])).collect()));
        if !self.distances.is_empty() {
            let (defects, good) = (self.examples(shots), self.examples(normals));
            for (name, rounds) in [("patch head", 0), ("patch head, positives re-picked twice", 2)] {
                let options = PatchHeadOptions { rounds, ..PatchHeadOptions::default() };
                let head = PatchHead::fit(&defects, &good, self.dim, &options)?;
                rows.push((name, head.scores(&pick(&self.images, test))));
            }
            let memory = DefectMemory::new(&defects, self.dim, 0.05);
            rows.push(("defect memory", memory.scores(&self.examples(test), 0.05)));
        }
        for (name, guard) in [("ensemble, no guard", false), ("ensemble (default)", true)] {
            let options = EnsembleOptions { guard, ..EnsembleOptions::default() };
            let fitted = Ensemble::fit(&self.evidence(normals), &self.evidence(shots), &options)?;
            let scores = fitted.scores(&self.evidence(test))?;
            if !guard {
                rows.push((OWN_BASE, scores.iter().map(|s| s.zero_shot).collect()));
            }
            rows.push((name, scores.iter().map(|s| s.adapted).collect()));
        }
        Ok(rows)
    }
}

fn mean_of_top(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let count = ((share * sorted.len() as f64).round() as usize).max(1);
    sorted[..count].iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt() + 1e-8)
}

/// One method's scores on the test set of one run (a seed, or a type and a seed).
struct Run {
    ids: Vec<String>,
    labels: Vec<bool>,
    scores: Vec<f64>,
}

fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let [path, ids, ..] = &arguments[..] else {
        return Err("which tokens, and whose? heads_study TOKENS.safetensors IDS".into());
    };
    let seeds: u64 = match arguments.iter().position(|a| a == "--seeds") {
        Some(at) => arguments.get(at + 1).ok_or("--seeds needs a number")?.parse()?,
        None => 5,
    };
    let category = load(path, ids, !has("--image-level"))?;
    let types: Vec<Option<&str>> = category
        .ids
        .iter()
        .map(|id| id.strip_prefix("test/").and_then(|rest| rest.split('/').next()).filter(|t| *t != "good"))
        .collect();
    let samples: Vec<SampleInfo<'_>> = category
        .ids
        .iter()
        .zip(&types)
        .map(|(id, &defect_type)| SampleInfo {
            id,
            is_train: id.starts_with("train/"),
            defect_type,
            content: blake3::hash(id.as_bytes()),
        })
        .collect();
    let development = has("--development");
    if development && has("--hard") {
        return Err("--development is of the held-out protocol: leave --hard out".into());
    }
    let counts: &[usize] = if development { &DEVELOPMENT_SHOTS } else { &SHOTS };
    let mut protocols = vec![Protocol::HeldOut];
    if has("--hard") {
        let mut names: Vec<&str> = types.iter().copied().flatten().collect();
        names.sort_unstable();
        names.dedup();
        protocols = names.into_iter().map(|t| Protocol::Hard { defect_type: t.to_owned() }).collect();
    }

    let mut runs: BTreeMap<(&str, usize), Vec<Run>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    let mut fallbacks: BTreeMap<usize, usize> = BTreeMap::new();
    for protocol in &protocols {
        for seed in 0..seeds {
            for &shots in counts {
                // the same pool for every type, small ones included: under the hard protocol a type that is learned is
                // not tested, so a pool may take all of it
                let pool = (*protocol != Protocol::HeldOut).then_some(20);
                let mut options =
                    SplitOptions { protocol: protocol.clone(), pool, ..SplitOptions::held_out(seed, shots) };
                if development {
                    options.holdout_fraction = DEVELOPMENT_NORMALS;
                }
                let split = Split::new(path, &samples, &options)?;
                let (normals, test) = if development {
                    let learned = DEVELOPMENT_SHOTS[DEVELOPMENT_SHOTS.len() - 1];
                    let left = split.pool.iter().skip(learned);
                    (split.train_normals, split.holdout_normals.iter().chain(left).copied().collect())
                } else {
                    (category.normals.clone(), split.test)
                };
                let mut rows = category.zero_shot(&normals, &test);
                rows.extend(category.supervised(&normals, &split.shots, &test)?);
                let scores_of = |name| rows.iter().find(|r| r.0 == name).map(|r| r.1.clone());
                if scores_of("ensemble (default)") == scores_of(OWN_BASE) {
                    *fallbacks.entry(shots).or_default() += 1;
                }
                for (name, scores) in rows {
                    if !order.contains(&name) {
                        order.push(name);
                    }
                    let ids = test.iter().map(|&i| category.ids[i].clone()).collect();
                    let labels = test.iter().map(|&i| types[i].is_some()).collect();
                    runs.entry((name, shots)).or_default().push(Run { ids, labels, scores });
                }
            }
        }
    }

    let metric = |name, shots, which: RankingMetric| -> Result<Vec<f64>, Box<dyn Error>> {
        let of = |run: &Run| match which {
            RankingMetric::Auroc => auroc(&run.labels, &run.scores)?.ok_or("one class only".into()),
            RankingMetric::AveragePrecision => Ok(average_precision(&run.labels, &run.scores)?),
        };
        runs[&(name, shots)].iter().map(of).collect()
    };
    let mut strongest = ("", f64::NEG_INFINITY);
    for name in order.iter().filter(|n| n.starts_with("zero-shot")) {
        let (mean, _) = mean_std(&metric(name, counts[0], RankingMetric::Auroc)?);
        if mean > strongest.1 {
            strongest = (name, mean);
        }
    }
    println!("strongest zero-shot scorer: {}; guard fell back (runs per M): {fallbacks:?}\n", strongest.0);
    for which in [RankingMetric::Auroc, RankingMetric::AveragePrecision] {
        let heading: Vec<String> = counts.iter().map(|m| format!("M = {m}")).collect();
        println!("| {which:?} | {} |", heading.join(" | "));
        println!("|---|{}", "---|".repeat(counts.len()));
        for name in &order {
            let mut cells = Vec::new();
            for &shots in counts {
                let (mean, std) = mean_std(&metric(name, shots, which)?);
                cells.push(format!("{mean:.3} ± {std:.3}"));
            }
            println!("| {name} | {} |", cells.join(" | "));
        }
        println!();
    }
    println!(
        "difference of AUROC against the strongest zero-shot scorer, 95 % paired bootstrap over the runs\n"
    );
    for name in order.iter().filter(|n| !n.starts_with("zero-shot") || **n == OWN_BASE) {
        let mut cells = Vec::new();
        for &shots in counts {
            let (own, base) = (&runs[&(*name, shots)], &runs[&(strongest.0, shots)]);
            let ids: Vec<Vec<&str>> =
                own.iter().map(|r| r.ids.iter().map(String::as_str).collect()).collect();
            let pairs: Vec<SeedScores<'_>> = own
                .iter()
                .zip(base)
                .zip(&ids)
                .map(|((a, b), ids)| SeedScores {
                    ids,
                    labels: &a.labels,
                    first: &a.scores,
                    second: &b.scores,
                })
                .collect();
            let interval =
                paired_bootstrap_over_seeds(&pairs, RankingMetric::Auroc, &BootstrapOptions::default())?;
            cells.push(format!("{:+.3} [{:+.3}, {:+.3}]", interval.difference, interval.low, interval.high));
        }
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}
