//! Supervised heads on made-up tokens whose flaws are known.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::evaluate::metrics::auroc;
use flawtune::features::ImageTokens;
use flawtune::score::heads::{
    DefectMemory, Ensemble, EnsembleOptions, Evidence, HeadError, PatchBank, PatchExample,
    PatchHead, PatchHeadOptions,
};
use flawtune_testing::Noise;

const DIM: usize = 24;
const PATCHES: usize = 16;

trait Images {
    fn image(&mut self, flaw: Option<(usize, f32)>) -> ImageTokens;
    fn images(&mut self, count: usize, flaw: Option<(usize, f32)>) -> Vec<ImageTokens>;
}

impl Images for Noise {
    /// An image around a fixed token; `flaw` adds `size` along one channel to patches 3 and 4 and the class token.
    fn image(&mut self, flaw: Option<(usize, f32)>) -> ImageTokens {
        let mut data: Vec<f32> = (0..(1 + PATCHES) * DIM)
            .map(|i| 1.0 + (i % DIM % 3) as f32 + self.centred())
            .collect();
        if let Some((channel, size)) = flaw {
            for row in [0, 4, 5] {
                data[row * DIM + channel] += size;
            }
        }
        ImageTokens::owned(data, PATCHES, DIM)
    }

    fn images(&mut self, count: usize, flaw: Option<(usize, f32)>) -> Vec<ImageTokens> {
        (0..count).map(|_| self.image(flaw)).collect()
    }
}

fn fit(
    train: &[ImageTokens],
    shots: &[ImageTokens],
    options: &EnsembleOptions,
) -> Result<Ensemble, HeadError> {
    Ensemble::fit(
        &Evidence::of_images(train),
        &Evidence::of_images(shots),
        options,
    )
}

fn measure(normal: &[f64], defective: &[f64]) -> f64 {
    let labels: Vec<bool> = normal
        .iter()
        .map(|_| false)
        .chain(defective.iter().map(|_| true))
        .collect();
    let scores: Vec<f64> = normal.iter().chain(defective).copied().collect();
    auroc(&labels, &scores).unwrap().unwrap()
}

/// A flaw about as large as the noise: found by distance alone only now and then.
const SEEN: Option<(usize, f32)> = Some((2, 0.5));
const UNSEEN: Option<(usize, f32)> = Some((7, 0.5));

#[test]
fn the_ensemble_learns_seen_flaws_and_never_lowers_a_score() {
    let mut noise = Noise(1);
    let (train, shots) = (noise.images(60, None), noise.images(8, SEEN));
    let ensemble = fit(&train, &shots, &EnsembleOptions::default()).unwrap();
    let (normal, seen, unseen) = (
        noise.images(60, None),
        noise.images(40, SEEN),
        noise.images(40, UNSEEN),
    );
    let scores = |images: &[ImageTokens]| ensemble.scores(&Evidence::of_images(images)).unwrap();
    let (normal, seen, unseen) = (scores(&normal), scores(&seen), scores(&unseen));
    for score in normal.iter().chain(&seen).chain(&unseen) {
        assert!(score.adapted >= score.zero_shot);
    }
    let both = |defective: &[flawtune::score::heads::EnsembleScore]| {
        let of = |f: fn(&flawtune::score::heads::EnsembleScore) -> f64| {
            measure(
                &normal.iter().map(f).collect::<Vec<_>>(),
                &defective.iter().map(f).collect::<Vec<_>>(),
            )
        };
        (of(|s| s.zero_shot), of(|s| s.adapted))
    };
    let (before, after) = both(&seen);
    assert!(
        after > before + 0.02,
        "seen flaws: {before} before, {after} after"
    );
    let (before, after) = both(&unseen);
    assert!(
        after > before - 0.1,
        "unseen flaws: {before} before, {after} after"
    );
    assert!(!ensemble.guard.fallback, "{:?}", ensemble.guard);
    assert_eq!(ensemble.trainable(), 2 * DIM + 1);
    assert_eq!(
        (
            ensemble.held_out_normals.len(),
            ensemble.held_out_shots.len()
        ),
        (60, 8)
    );
    assert!((ensemble.weight() - 0.4).abs() < 1e-12);
    // standardised on normals unseen by models of 4/5 of the images: new ones lie near 0, within the little that the
    // last fifth brings (most here, with about as many images as features); in-sample scaling would miss by far
    let mean = normal.iter().map(|s| s.zero_shot).sum::<f64>() / 60.0;
    assert!(mean.abs() < 1.5, "{mean}");
}

#[test]
fn without_shots_or_after_a_fallback_the_score_is_zero_shot() {
    let mut noise = Noise(2);
    let train = noise.images(30, None);
    let test = noise.images(20, SEEN);
    let none = fit(&train, &[], &EnsembleOptions::default()).unwrap();
    assert_eq!(
        (none.weight(), none.trainable(), none.guard.adapted),
        (0.0, 0, None)
    );
    let mut fell_back = 0;
    for seed in 0..12 {
        // "defects" that are none: there is nothing to gain, and a fold that shows a loss must switch off
        let shots = Noise(100 + seed).images(4, None);
        let ensemble = fit(&train, &shots, &EnsembleOptions::default()).unwrap();
        let guard = ensemble.guard;
        let gain = guard.adapted.unwrap() - guard.zero_shot.unwrap();
        assert_eq!(guard.fallback, gain < -guard.standard_error.unwrap());
        if ensemble.guard.fallback {
            fell_back += 1;
            for (a, b) in ensemble
                .scores(&Evidence::of_images(&test))
                .unwrap()
                .iter()
                .zip(none.scores(&Evidence::of_images(&test)).unwrap())
            {
                assert_eq!((a.adapted, a.zero_shot), (b.adapted, b.zero_shot));
            }
            let options = EnsembleOptions {
                guard: false,
                ..EnsembleOptions::default()
            };
            assert!(fit(&train, &shots, &options).unwrap().weight() > 0.0);
        }
    }
    assert!(fell_back > 0, "no guard ever switched off");
}

#[test]
fn the_ensemble_is_the_same_for_any_number_of_threads_and_after_json() {
    let mut noise = Noise(3);
    let (train, shots, test) = (
        noise.images(30, None),
        noise.images(3, SEEN),
        noise.images(5, SEEN),
    );
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let ensemble = fit(&train, &shots, &EnsembleOptions::default()).unwrap();
            let text = serde_json::to_string(&ensemble).unwrap();
            (ensemble.scores(&Evidence::of_images(&test)).unwrap(), text)
        })
    };
    let (scores, text) = with(1);
    assert_eq!((scores.clone(), text.clone()), with(4));
    let back: Ensemble = serde_json::from_str(&text).unwrap();
    assert_eq!(back.scores(&Evidence::of_images(&test)).unwrap(), scores);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let mut noise = Noise(4);
    let train = noise.images(3, None);
    let refused = |train: &[ImageTokens], shots: &[ImageTokens], options: &EnsembleOptions| {
        fit(train, shots, options).unwrap_err()
    };
    let options = EnsembleOptions::default();
    assert!(matches!(
        refused(&train, &[], &options),
        HeadError::TooFew {
            found: 3,
            wanted: 4,
            ..
        }
    ));
    let train = noise.images(6, None);
    let narrow = ImageTokens::owned(vec![1.0; 2 * DIM], 3, DIM / 2);
    assert!(matches!(
        refused(&train, &[narrow], &options),
        HeadError::Width {
            found: 12,
            wanted: DIM
        }
    ));
    let bad = ImageTokens::owned(vec![f32::NAN; 2 * DIM], 1, DIM);
    assert!(matches!(
        refused(&train, &[bad], &options),
        HeadError::NotFinite
    ));
    let one_fold = EnsembleOptions {
        folds: 1,
        ..EnsembleOptions::default()
    };
    assert!(matches!(
        refused(&train, &[], &one_fold),
        HeadError::Option {
            option: "folds",
            ..
        }
    ));
}

#[test]
fn a_bank_leaves_the_image_itself_out() {
    let images = Noise(5).images(4, None);
    let bank = PatchBank::new(&images, DIM);
    let (with, without) = (bank.distances(&images), bank.left_out_distances());
    for (w, wo) in with.iter().flatten().zip(without.iter().flatten()) {
        assert!(
            w.abs() < 1e-6,
            "an image in the bank is at distance 0 of itself, not {w}"
        );
        assert!(*wo > 1e-3, "left out, it is not: {wo}");
    }
}

#[test]
fn patch_distances_join_the_base_and_are_then_needed() {
    let mut noise = Noise(7);
    // in two patches and not in the class token: the mean hardly moves
    let spot = |image: ImageTokens| {
        let mut data = [image.cls(), image.patches()].concat();
        for row in [4, 5] {
            data[row * DIM + 2] += 1.2;
        }
        ImageTokens::owned(data, PATCHES, DIM)
    };
    let train = noise.images(40, None);
    let normal = noise.images(30, None);
    let spotted: Vec<ImageTokens> = noise.images(30, None).into_iter().map(spot).collect();
    let bank = PatchBank::new(&train, DIM);
    let evidence = |images: &[ImageTokens]| {
        Evidence::with_distances(images, &bank.distances(images), 0.125).unwrap()
    };
    let own = Evidence::with_distances(&train, &bank.left_out_distances(), 0.125).unwrap();
    let with = Ensemble::fit(&own, &[], &EnsembleOptions::default()).unwrap();
    let without = fit(&train, &[], &EnsembleOptions::default()).unwrap();
    let of = |e: &Ensemble, images: &[ImageTokens]| -> Vec<f64> {
        e.scores(&evidence(images))
            .unwrap()
            .iter()
            .map(|s| s.zero_shot)
            .collect()
    };
    let after = measure(&of(&with, &normal), &of(&with, &spotted));
    let before = measure(&of(&without, &normal), &of(&without, &spotted));
    assert!(
        after > before + 0.1,
        "{before} without patch distances, {after} with"
    );
    assert!(with.needs_bank() && !without.needs_bank());
    assert_eq!(
        with.scores(&Evidence::of_images(&normal)),
        Err(HeadError::NoBank)
    );
    assert!(Evidence::with_distances(&train, &[], 0.125).is_err());
}

#[test]
fn patch_methods_find_the_flawed_patches_and_prefer_a_mask() {
    let mut noise = Noise(6);
    let big = Some((2, 2.5));
    let (train, shots, test) = (
        noise.images(20, None),
        noise.images(4, big),
        noise.image(big),
    );
    let bank = PatchBank::new(&train, DIM);
    let (of_train, of_shots) = (bank.left_out_distances(), bank.distances(&shots));
    let examples = |images: &'static [ImageTokens],
                    distances: &'static [Vec<f32>]|
     -> Vec<PatchExample<'static>> {
        images
            .iter()
            .zip(distances)
            .map(|(tokens, distances)| PatchExample {
                tokens,
                distances,
                mask: None,
            })
            .collect()
    };
    // leaked for one test: examples borrow tokens and distances of different lists
    let normals = examples(Vec::leak(train), Vec::leak(of_train));
    let defects = examples(Vec::leak(shots), Vec::leak(of_shots));
    let top_two = |values: &[f32]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        order.truncate(2);
        order.sort_unstable();
        order
    };
    let options = PatchHeadOptions {
        positive_share: 0.125,
        score_share: 0.125,
        rounds: 1,
        ..Default::default()
    };
    let head = PatchHead::fit(&defects, &normals, DIM, &options).unwrap();
    assert_eq!(top_two(&head.logits(&test)), [3, 4]);
    assert_eq!(head.trainable(), DIM + 1);
    assert!(head.score(&test) > head.score(normals[0].tokens) + 1.0);

    let memory = DefectMemory::new(&defects, DIM, 0.125);
    assert_eq!(memory.len(), 8);
    let distances = bank.distances(std::slice::from_ref(&test)).remove(0);
    let example = PatchExample {
        tokens: &test,
        distances: &distances,
        mask: None,
    };
    assert_eq!(top_two(&memory.contrast(&example)), [3, 4]);

    // a mask over other patches is believed, and the head then learns nothing about the flaw
    let mask: Vec<bool> = (0..PATCHES).map(|p| p >= 8).collect();
    let masked: Vec<PatchExample<'_>> = defects
        .iter()
        .map(|d| PatchExample {
            mask: Some(&mask),
            ..*d
        })
        .collect();
    assert_eq!(DefectMemory::new(&masked, DIM, 0.125).len(), 4 * 8);
    let misled = PatchHead::fit(&masked, &normals, DIM, &options).unwrap();
    assert!(misled.head.weight[2] < 0.5 * head.head.weight[2]);

    let wrong = PatchHeadOptions {
        positive_share: 0.0,
        ..Default::default()
    };
    assert!(matches!(
        PatchHead::fit(&defects, &normals, DIM, &wrong),
        Err(HeadError::Option {
            option: "positive share",
            ..
        })
    ));
    assert!(matches!(
        PatchHead::fit(&[], &normals, DIM, &options),
        Err(HeadError::TooFew { .. })
    ));
}
