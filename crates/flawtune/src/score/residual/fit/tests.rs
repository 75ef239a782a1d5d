use super::*;
use crate::bundle::Precision;
use crate::score::residual::{ResidualScorer, block_bank};

const BLOCKS: usize = 2;
const DIM: usize = 8;
const PATCHES: usize = 16;

/// Good patches point along a few directions with some noise; a known kind of flaw departs along the last feature, an unknown
/// kind along the one before.
fn image(seed: u64, flaw: Option<usize>) -> ImageTokens {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    let mut values = vec![0.0; BLOCKS * DIM];
    for patch in 0..PATCHES {
        for _ in 0..BLOCKS {
            let mut token: Vec<f32> = (0..DIM).map(|_| 0.12 * noise()).collect();
            token[patch % 3] += 1.0;
            if let Some(feature) = flaw.filter(|_| patch < 3) {
                token[feature] += 0.35;
            }
            values.extend(token);
        }
    }
    ImageTokens::owned(values, PATCHES, BLOCKS * DIM)
}

const KNOWN: usize = DIM - 1;
const UNKNOWN: usize = DIM - 2;

struct World {
    count: usize,
    banks: BlockBanks,
}

fn world(count: u64) -> World {
    let good: Vec<ImageTokens> = (0..count).map(|i| image(i + 1, None)).collect();
    let bank = block_bank(&good, BLOCKS, DIM, Precision::F32);
    let banks = BlockBanks::new(&bank, BLOCKS, &vec![PATCHES; good.len()]);
    World {
        count: good.len(),
        banks,
    }
}

fn learned(
    banks: &BlockBanks,
    good: &[Good<'_>],
    shots: &[Shot<'_>],
) -> Result<ResidualFit, HeadError> {
    let looks = look_at_good(banks, good, &mut |_| {});
    let shown: Vec<&ImageTokens> = shots.iter().map(|shot| shot.image).collect();
    let of_shots = banks.look(&shown);
    let options = ResidualOptions::default();
    learn_residual(banks, (good, &looks), (shots, &of_shots), 2, &options)
}

impl World {
    fn fit(&self, shots: &[Shot<'_>]) -> ResidualFit {
        let good: Vec<_> = (0..self.count).map(Good::Own).collect();
        learned(&self.banks, &good, shots).unwrap()
    }
}

fn masked(image: &ImageTokens) -> Shot<'_> {
    let covered = (0..PATCHES).map(|p| if p < 3 { 0.8 } else { 0.0 });
    Shot {
        image,
        covered: Some(covered.collect()),
        kind: "known",
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn good_images_are_standardised_without_themselves() {
    let world = world(12);
    let fit = world.fit(&[]);
    let scores: Vec<f64> = fit.good.iter().map(|j| j.score).collect();
    let centre = mean(scores.iter().copied());
    assert!(centre.abs() < 1e-9, "{centre}");
    let square = mean(scores.iter().map(|s| s * s));
    assert!((square - 1.0).abs() < 1e-9, "{square}");
    assert!(fit.model.head.is_none() && fit.shots.is_empty());
    // a good image that is not part of the bank is like those that are
    let other = image(99, None);
    let scorer = ResidualScorer::new(world.banks, fit.model, (4, 4));
    let judged = &scorer.judge(&[&other])[0];
    assert!(judged.score.abs() < 4.0, "{}", judged.score);
    assert_eq!(judged.score, judged.untaught);
}

#[test]
fn shots_raise_their_kind_and_do_not_lower_others() {
    let world = world(16);
    let shots: Vec<ImageTokens> = (0..6).map(|i| image(200 + i, Some(KNOWN))).collect();
    let tested: Vec<ImageTokens> = (0..6)
        .map(|i| image(300 + i, Some(KNOWN)))
        .chain((0..6).map(|i| image(400 + i, Some(UNKNOWN))))
        .chain((0..6).map(|i| image(500 + i, None)))
        .collect();
    let tested: Vec<&ImageTokens> = tested.iter().collect();
    for with_mask in [true, false] {
        let given: Vec<Shot<'_>> = shots
            .iter()
            .map(|image| Shot {
                image,
                covered: masked(image).covered.filter(|_| with_mask),
                kind: "known",
            })
            .collect();
        let fit = world.fit(&given);
        let head = fit.model.head.as_ref().unwrap();
        assert_eq!(head.shots, 6);
        assert_eq!(head.masked_shots, if with_mask { 6 } else { 0 });
        // with masks what they mark, and what is odd besides
        assert_eq!(head.positives, if with_mask { 18 + 6 } else { 6 });
        assert_eq!((fit.good.len(), fit.shots.len()), (16, 6));
        // also by heads that have not seen the shot
        let gained = mean(fit.shots.iter().map(|j| j.score - j.untaught));
        assert!(gained > 2.0, "masks {with_mask}: {gained}");
        let world = self::world(16);
        let scorer = ResidualScorer::new(world.banks, fit.model.clone(), (4, 4));
        let judged = scorer.judge(&tested);
        let gain = |of: &[Judged]| mean(of.iter().map(|j| j.score - j.untaught));
        let (known, unknown, good) = (
            gain(&judged[..6]),
            gain(&judged[6..12]),
            gain(&judged[12..]),
        );
        assert!(known > 2.0, "masks {with_mask}: {known}");
        assert!(
            known > good + 2.0 && unknown > good - 2.0,
            "{unknown} {good}"
        );
        // and it names the type, where it is that
        let named = |of: &[Judged]| {
            of.iter()
                .filter(|j| j.kind.as_deref() == Some("known"))
                .count()
        };
        assert!(named(&judged[..6]) >= 5, "{:?}", judged[0].kind);
        assert!(named(&judged[6..12]) <= 1, "{:?}", judged[6].kind);
        // good images as a whole are as good images are
        assert!(judged[12..].iter().all(|j| j.drift < 1.0));
        // and it says where
        for j in &judged[..6] {
            let (flaw, rest) = j.map.split_at(3);
            let least = flaw.iter().copied().fold(f32::MAX, f32::min);
            assert!(rest.iter().all(|r| *r < least), "{:?}", j.map);
        }
    }
}

#[test]
fn threads_and_company_change_no_bit() {
    let shots: Vec<ImageTokens> = (0..3).map(|i| image(200 + i, Some(KNOWN))).collect();
    let tested = [image(300, Some(KNOWN)), image(301, None)];
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let world = world(9);
            let fit = world.fit(&shots.iter().map(masked).collect::<Vec<_>>());
            let scorer = ResidualScorer::new(world.banks, fit.model.clone(), (4, 4));
            let both = scorer.judge(&tested.iter().collect::<Vec<_>>());
            assert_eq!(scorer.judge(&[&tested[1]])[0], both[1]);
            (fit, both)
        })
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(3));
}

#[test]
fn one_shot_counts_little_and_ten_count_fully() {
    let options = ResidualOptions::default();
    assert!((options.weight_of(1) - 0.3).abs() < 1e-12);
    assert!((options.weight_of(10) - 1.0).abs() < 1e-12);
    assert!((options.weight_of(20) - 1.0).abs() < 1e-12);
    assert!(options.weight_of(5) > options.weight_of(2));
    let world = world(4);
    let shot = image(200, Some(KNOWN));
    let fit = world.fit(&[masked(&shot)]);
    assert!((fit.model.head.unwrap().weight - 0.3).abs() < 1e-12);
    assert!(fit.shots.is_empty());
}

#[test]
fn a_thin_flaw_counts_where_it_covers_most() {
    let world = world(6);
    let defect = image(200, Some(KNOWN));
    let mut shot = masked(&defect);
    shot.covered = Some(
        (0..PATCHES)
            .map(|p| [0.1, 0.09, 0.01].get(p).copied().unwrap_or(0.0))
            .collect(),
    );
    // and the oddest patch of all
    assert_eq!(world.fit(&[shot]).model.head.unwrap().positives, 2 + 1);
}

#[test]
fn one_good_image_can_be_scored_and_none_is_refused() {
    let world = world(1);
    let judged = world.fit(&[]);
    assert!(judged.good[0].score.is_finite());
    let none = learned(&world.banks, &[], &[]);
    assert!(matches!(none, Err(HeadError::TooFew { .. })));
}

#[test]
fn an_image_that_is_odd_everywhere_does_not_look_like_good_ones() {
    let world = world(12);
    let fit = world.fit(&[]);
    let values = (0..(1 + PATCHES) * BLOCKS * DIM).map(|v| ((v * 7919) % 101) as f32 / 50.0 - 1.0);
    let strange = ImageTokens::owned(values.collect(), PATCHES, BLOCKS * DIM);
    let scorer = ResidualScorer::new(world.banks, fit.model, (4, 4));
    let usual = image(99, None);
    let judged = scorer.judge(&[&strange, &usual]);
    assert!(judged[0].drift > 1.0 && judged[1].drift < 1.0, "{judged:?}");
    assert!(fit.good.iter().all(|j| j.drift < 1.0));
}
