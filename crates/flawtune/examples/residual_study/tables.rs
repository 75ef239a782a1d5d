//! The tables of a category.

use std::collections::BTreeSet;

use flawtune::dataset::read_mask;
use flawtune::evaluate::metrics::{HistogramMetrics, PixelHistogram, PixelImage, auroc};
use flawtune::evaluate::protocol::{Protocol, SplitOptions};
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};
use flawtune::score::Finding;
use flawtune::score::map::{DEFAULT_SIGMA, Renderer};
use flawtune::score::threshold::{Method, from_good};

use super::{Failure, Study};

/// Shots that are learned from.
const SHOTS: [usize; 4] = [1, 5, 10, 20];
/// Shots of the tables of types and of pixels.
const SOME_SHOTS: usize = 10;
/// Share of good images that may be stopped.
const FALSE_ALARMS: f64 = 0.02;
/// False positive rate up to which overlaps are integrated.
const AUPRO_LIMIT: f64 = 0.3;
/// The span that the maps of the scorer tell apart.
const SPAN: (f32, f32) = (-16.0, 48.0);

/// What one seed's detector says of some images.
#[derive(Default)]
struct Seed {
    ids: Vec<String>,
    labels: Vec<bool>,
    taught: Vec<f64>,
    untaught: Vec<f64>,
}

impl Seed {
    /// Of the tested images that are good or of `kinds`, if any are given.
    fn of(
        study: &Study,
        tested: &[usize],
        found: &[Finding],
        keeps: impl Fn(&str) -> bool,
    ) -> Self {
        let infos = study.category.infos();
        let mut seed = Self::default();
        for (&i, found) in tested.iter().zip(found) {
            let kind = infos[i].defect_type;
            if kind.is_none_or(&keeps) {
                seed.ids.push(infos[i].id.to_owned());
                seed.labels.push(kind.is_some());
                seed.taught.push(found.score);
                let untaught = found.untaught.as_ref();
                seed.untaught
                    .push(untaught.map_or(found.score, |u| u.score));
            }
        }
        seed
    }
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let square: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
    (mean, (square / (n - 1.0).max(1.0)).sqrt())
}

/// AUROC with and without what was learned, and the difference, as columns.
fn compared(seeds: &[Seed]) -> Result<String, Failure> {
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
    Ok(format!(
        "{:.4} ± {:.4} | {:.4} ± {:.4} | {:+.4} [{:+.4}, {:+.4}]",
        taught.0,
        taught.1,
        untaught.0,
        untaught.1,
        taught.0 - untaught.0,
        interval.low,
        interval.high,
    ))
}

/// A row a number of shots.
pub(super) fn shots(study: &Study) -> Result<(), Failure> {
    println!(
        "| shots | AUROC taught | AUROC of good images alone | difference | found | stopped |"
    );
    println!("|---|---|---|---|---|---|");
    for shots in SHOTS {
        let (mut seeds, mut shares) = (Vec::new(), Vec::new());
        for seed in 0..study.options.seeds {
            let split = study.split(&SplitOptions::held_out(seed, shots))?;
            let [good, judged] = study.judge(seed, &split.shots, &split.test)?;
            let scores: Vec<f64> = good.iter().map(|f| f.score).collect();
            let threshold = from_good(&scores, FALSE_ALARMS, Method::Auto)?;
            let seed = Seed::of(study, &split.test, &judged, |_| true);
            shares.push([true, false].map(|of| {
                let scores = seed.taught.iter().zip(&seed.labels);
                let scores = scores.filter(|(_, label)| **label == of);
                mean(scores.map(|(score, _)| f64::from(u8::from(threshold.is_flaw(*score))))).0
            }));
            seeds.push(seed);
        }
        println!(
            "| {shots} | {} | {:.1} % | {:.1} % |",
            compared(&seeds)?,
            100.0 * mean(shares.iter().map(|s| s[0])).0,
            100.0 * mean(shares.iter().map(|s| s[1])).0,
        );
    }
    Ok(())
}

/// The hard protocol: a row a type that alone was shown, with the others and with itself.
pub(super) fn types(study: &Study) -> Result<(), Failure> {
    let infos = study.category.infos();
    let types: BTreeSet<&str> = infos.iter().filter_map(|i| i.defect_type).collect();
    println!("| shown | shots | tested | AUROC taught | AUROC of good images alone | difference |");
    println!("|---|---|---|---|---|---|");
    if types.len() < 2 {
        println!("| not run: one type only | | | | | |");
        return Ok(());
    }
    let (mut unseen, mut seen) = (Vec::new(), Vec::new());
    for kind in types {
        let all = infos.iter().filter(|i| i.defect_type == Some(kind)).count();
        let shots = SOME_SHOTS.min(all / 2);
        let (mut others, mut same) = (Vec::new(), Vec::new());
        for seed in 0..study.options.seeds {
            let split = study.split(&SplitOptions {
                protocol: Protocol::Hard {
                    defect_type: kind.to_owned(),
                },
                ..SplitOptions::held_out(seed, shots)
            })?;
            let tested = [&split.test[..], &split.seen_type_test[..]].concat();
            let [_, found] = study.judge(seed, &split.shots, &tested)?;
            others.push(Seed::of(study, &tested, &found, |k| k != kind));
            same.push(Seed::of(study, &tested, &found, |k| k == kind));
        }
        println!(
            "| {kind} | {shots} | other types | {} |",
            compared(&others)?
        );
        if same.iter().all(|s| s.labels.contains(&true)) {
            println!("| {kind} | {shots} | itself | {} |", compared(&same)?);
            seen.append(&mut same);
        }
        unseen.append(&mut others);
    }
    println!("| any | | other types | {} |", compared(&unseen)?);
    println!("| any | | itself | {} |", compared(&seen)?);
    Ok(())
}

/// Pixels at ten shots: a row each with and without what was learned.
pub(super) fn pixels(study: &Study) -> Result<(), Failure> {
    println!("| scorer | shots | pixel AUROC | AUPRO | pixel average precision |");
    println!("|---|---|---|---|---|");
    let mut rows: [Vec<HistogramMetrics>; 2] = [Vec::new(), Vec::new()];
    for seed in 0..study.options.seeds {
        let split = study.split(&SplitOptions::held_out(seed, SOME_SHOTS))?;
        let [_, found] = study.judge(seed, &split.shots, &split.test)?;
        for (row, of) in rows.iter_mut().zip([true, false]) {
            row.extend(counted(study, &split.test, &found, of)?);
        }
    }
    if rows[0].is_empty() {
        println!("| not run: no masks | | | | |");
        return Ok(());
    }
    for (row, name) in rows.iter().zip(["residual", "good images alone"]) {
        let of = |value: fn(&HistogramMetrics) -> f64| {
            let (mean, deviation) = mean(row.iter().map(value));
            format!("{mean:.4} ± {deviation:.4}")
        };
        println!(
            "| {name} | {SOME_SHOTS} | {} | {} | {} |",
            of(|m| m.auroc.unwrap_or(f64::NAN)),
            of(|m| m.aupro.unwrap_or(f64::NAN)),
            of(|m| m.average_precision),
        );
    }
    Ok(())
}

/// Pixel metrics of images whose flaws are marked, and of good ones; `None` without any mask.
fn counted(
    study: &Study,
    tested: &[usize],
    found: &[Finding],
    taught: bool,
) -> Result<Option<HistogramMetrics>, Failure> {
    let size = &study.sizes[0];
    let decode = size.preprocess.decode_options();
    let mut pixels = PixelHistogram::spanning(SPAN);
    let mut masked = 0;
    let mut renderer: Option<Renderer> = None;
    for (&i, found) in tested.iter().zip(found) {
        let sample = &study.category.dataset.samples[i];
        if sample.is_defect() && sample.masks.is_empty() {
            continue;
        }
        let (width, height) = image::image_dimensions(&sample.path)?;
        let (width, height) = (width as usize, height as usize);
        if renderer.as_ref().map(Renderer::size) != Some((height, width)) {
            let drawn = Renderer::new(size.tokens.grid, (height, width), DEFAULT_SIGMA)?;
            renderer = Some(drawn);
        }
        let Some(renderer) = &renderer else { continue };
        let untaught = found.untaught.as_ref().filter(|_| !taught);
        let map = renderer.render(untaught.map_or(&found.distances, |u| &u.distances))?;
        let mask = if sample.masks.is_empty() {
            None
        } else {
            masked += 1;
            let size = (height, width);
            Some(read_mask(&sample.path, &sample.masks, size, &decode)?)
        };
        pixels.add(&PixelImage {
            width,
            height,
            mask: mask.as_deref(),
            map: map.values(),
        })?;
    }
    Ok((masked > 0).then(|| pixels.metrics(AUPRO_LIMIT)))
}
