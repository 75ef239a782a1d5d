//! Scorers against a plain f64 reading of their formulas, and their independence of threads and company.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::features::{ImageTokens, TokenSet};
use flawtune::random::{Purpose, Stream};
use flawtune::score::{
    Aggregate, ImageScores, ScoreError, SupportSet, TokenChange, TokenKind, class_token,
    image_pair, patch_bank,
};
use flawtune_lab::adapt::{Adaptation, AdaptationOptions, ModulationType, Tape, rows_of};

const DIM: usize = 12;
/// f32 dot products of unit vectors of 12 numbers against f64.
const TOLERANCE: f64 = 1e-6;

fn tokens(count: usize, grid: (usize, usize), seed: u64) -> TokenSet {
    let patches = grid.0 * grid.1;
    let mut stream = Stream::new(seed, Purpose::Init);
    let mut image = || {
        (0..(1 + patches) * DIM)
            .map(|_| (2.0 * stream.uniform() - 0.7) as f32)
            .collect()
    };
    TokenSet {
        grid,
        dim: DIM,
        images: (0..count)
            .map(|_| ImageTokens::owned(image(), patches, DIM))
            .collect(),
    }
}

fn change(adaptation: Option<&Adaptation>) -> Option<&dyn TokenChange> {
    adaptation.map(|a| a as &dyn TokenChange)
}

/// `best[p] = max_q cos(a_p, b_q)` in f64.
fn best(a: &[f32], b: &[f32]) -> Vec<f64> {
    let unit = |x: &[f32]| -> Vec<f64> {
        let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        x.iter().map(|&v| f64::from(v) / (norm + 1e-8)).collect()
    };
    let others: Vec<Vec<f64>> = b.chunks(DIM).map(unit).collect();
    let cos = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.chunks(DIM)
        .map(|x| {
            others
                .iter()
                .map(|y| cos(&unit(x), y))
                .fold(f64::NEG_INFINITY, f64::max)
        })
        .collect()
}

fn rows(set: &TokenSet, adaptation: Option<&Adaptation>, use_cls: bool) -> Vec<Vec<f32>> {
    let apply = |image: &ImageTokens| {
        let rows = rows_of(image, use_cls);
        let mut out = rows.to_vec();
        if let Some(a) = adaptation {
            a.apply(&[rows], &mut out, &mut Tape::default());
        }
        out
    };
    set.images.iter().map(apply).collect()
}

fn close(what: &str, found: f64, wanted: f64) {
    assert!(
        (found - wanted).abs() < TOLERANCE,
        "{what}: {found} against {wanted}"
    );
}

fn adaptations(use_cls: bool) -> Vec<Option<Adaptation>> {
    let build = |modulation| {
        let o = AdaptationOptions {
            modulation,
            num_prompts: 3,
            scaling_factor: 0.8,
            use_cls,
            seed: 4,
            ..Default::default()
        };
        Some(Adaptation::new(o, DIM).unwrap())
    };
    [None]
        .into_iter()
        .chain(ModulationType::ALL.map(build))
        .collect()
}

#[test]
fn image_pairs_follow_the_formula() {
    let (support, test) = (tokens(7, (3, 3), 1), tokens(37, (2, 5), 2));
    for use_cls in [false, true] {
        for adaptation in adaptations(use_cls) {
            let a = adaptation.as_ref();
            let (s, t) = (rows(&support, a, use_cls), rows(&test, a, use_cls));
            for k in [1, 3, 7] {
                let scorer = if use_cls { class_token } else { image_pair };
                let found = scorer(&support, &test, change(a), k).unwrap();
                assert_eq!(found.maps.is_some(), !use_cls);
                for (i, image) in t.iter().enumerate() {
                    let mut pairs: Vec<(f64, Vec<f64>)> = s
                        .iter()
                        .map(|s| best(image, s))
                        .map(|b| (b.iter().sum::<f64>() / b.len() as f64, b))
                        .collect();
                    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
                    let wanted = 1.0 - pairs[..k].iter().map(|p| p.0).sum::<f64>() / k as f64;
                    close("score", found.scores[i], wanted);
                    let Some(maps) = &found.maps else { continue };
                    for (p, &value) in maps[i].iter().enumerate() {
                        let wanted =
                            1.0 - pairs[..k].iter().map(|x| x.1[p]).sum::<f64>() / k as f64;
                        close("map", f64::from(value), wanted);
                    }
                    let mean =
                        maps[i].iter().map(|&v| f64::from(v)).sum::<f64>() / maps[i].len() as f64;
                    close("mean of the map", mean, found.scores[i]);
                }
            }
        }
    }
}

#[test]
fn the_patch_bank_follows_the_formula() {
    let (support, test) = (tokens(35, (3, 3), 1), tokens(34, (4, 5), 2));
    for adaptation in adaptations(false) {
        let a = adaptation.as_ref();
        let bank = rows(&support, a, false).concat();
        let wanted: Vec<Vec<f64>> = rows(&test, a, false)
            .iter()
            .map(|i| best(i, &bank).iter().map(|b| 1.0 - b).collect())
            .collect();
        for (aggregate, count) in [
            (Aggregate::TopFraction(0.01), 1),
            (Aggregate::TopFraction(0.2), 4),
            (Aggregate::TopFraction(1.0), 20),
            (Aggregate::Max, 1),
            (Aggregate::Mean, 20),
        ] {
            let found = patch_bank(&support, &test, change(a), aggregate).unwrap();
            let maps = found.maps.unwrap();
            for (i, distances) in wanted.iter().enumerate() {
                distances
                    .iter()
                    .zip(&maps[i])
                    .for_each(|(&w, &f)| close("distance", f64::from(f), w));
                let mut sorted = distances.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                close(
                    "score",
                    found.scores[i],
                    sorted[..count].iter().sum::<f64>() / count as f64,
                );
            }
        }
    }
}

#[test]
fn a_support_image_scores_zero() {
    let support = tokens(4, (3, 3), 1);
    for scores in [
        image_pair(&support, &support, None, 1),
        patch_bank(&support, &support, None, Aggregate::Max),
    ] {
        scores
            .unwrap()
            .scores
            .iter()
            .for_each(|&s| close("own score", s, 0.0));
    }
}

#[test]
fn scores_depend_on_neither_threads_nor_company() {
    let (support, test) = (tokens(40, (3, 3), 1), tokens(40, (3, 3), 2));
    let adaptation = adaptations(false).pop().unwrap();
    let run = |threads: usize, test: &TokenSet| -> Vec<ImageScores> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            vec![
                image_pair(&support, test, change(adaptation.as_ref()), 2).unwrap(),
                patch_bank(
                    &support,
                    test,
                    change(adaptation.as_ref()),
                    Aggregate::default(),
                )
                .unwrap(),
            ]
        })
    };
    let one = run(1, &test);
    for threads in [2, 3, 8] {
        assert_eq!(one, run(threads, &test), "{threads} threads");
    }
    for i in [0, 17, 39] {
        let alone = TokenSet {
            images: vec![test.images[i].clone()],
            ..test.clone()
        };
        for (alone, all) in run(2, &alone).iter().zip(&one) {
            assert_eq!(alone.scores[0], all.scores[i]);
            assert_eq!(
                alone.maps.as_ref().unwrap()[0],
                all.maps.as_ref().unwrap()[i]
            );
        }
    }
}

#[test]
fn wrong_requests_are_typed_errors() {
    let support = tokens(3, (3, 3), 1);
    let none = TokenSet {
        images: vec![],
        ..support.clone()
    };
    assert!(matches!(
        image_pair(&none, &support, None, 1),
        Err(ScoreError::NoSupport)
    ));
    assert!(matches!(
        image_pair(&support, &support, None, 4),
        Err(ScoreError::Neighbours { k: 4, support: 3 })
    ));
    assert!(matches!(
        image_pair(&support, &support, None, 0),
        Err(ScoreError::Neighbours { .. })
    ));
    let wide = TokenSet {
        dim: 24,
        ..none.clone()
    };
    assert!(matches!(
        image_pair(&support, &wide, None, 1),
        Err(ScoreError::Width {
            test: 24,
            support: 12
        })
    ));
    for fraction in [0.0, 1.5, f64::NAN] {
        let found = patch_bank(&support, &support, None, Aggregate::TopFraction(fraction));
        assert!(matches!(found, Err(ScoreError::Fraction(_))));
    }
    let cls = adaptations(true).pop().unwrap();
    assert!(matches!(
        image_pair(&support, &support, change(cls.as_ref()), 1),
        Err(ScoreError::Kind { .. })
    ));
    let other = Adaptation::new(AdaptationOptions::default(), 384).unwrap();
    assert!(matches!(
        image_pair(&support, &support, Some(&other), 1),
        Err(ScoreError::Change(_))
    ));
    assert!(
        image_pair(&support, &none, None, 1)
            .unwrap()
            .scores
            .is_empty()
    );
}

#[test]
fn left_out_scores_are_those_of_a_support_without_the_image() {
    let normals = tokens(6, (3, 3), 11);
    let own = [4, 0, 5];
    let held = TokenSet {
        images: own.iter().map(|&i| normals.images[i].clone()).collect(),
        ..normals.clone()
    };
    for adaptation in adaptations(false) {
        let all =
            SupportSet::new(&normals, TokenKind::Patches, change(adaptation.as_ref())).unwrap();
        for k in [1, 3, 5] {
            let found = all.score_left_out(&held, &own, k).unwrap();
            for (position, &i) in own.iter().enumerate() {
                let mut others = normals.clone();
                others.images.remove(i);
                let one = TokenSet {
                    images: vec![normals.images[i].clone()],
                    ..normals.clone()
                };
                let wanted = image_pair(&others, &one, change(adaptation.as_ref()), k)
                    .unwrap()
                    .scores[0];
                close(&format!("image {i}, k = {k}"), found[position], wanted);
            }
        }
        assert!(matches!(
            all.score_left_out(&held, &own, 6),
            Err(ScoreError::Neighbours { k: 6, support: 5 })
        ));
    }
}
