//! `DeLong` and bootstrap against independent numbers.
//!
//! The references were computed in Python 3.11 with numpy 2.4.6, scipy 1.17.1 and scikit-learn 1.9.1 on the data that
//! [`data`] generates: `DeLong` by comparing every defective with every normal image (the O(n²) definition, not the
//! midrank form that is tested), AUROCs checked against `roc_auc_score`, the covariance by `numpy.cov`, the p-value by
//! `scipy.stats.norm.sf`; bootstrap quantiles from 20,000 stratified resamples drawn by numpy's PCG64.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, bootstrap_interval, delong_test, delong_variance,
    paired_bootstrap,
};
use flawtune_testing::Noise;

const DELONG_TOLERANCE: f64 = 1e-6;

/// A 64-bit congruential generator, simple enough to be the same in both languages.
fn uniform(count: usize, seed: u64) -> Vec<f64> {
    let mut noise = Noise(seed);
    (0..count).map(|_| noise.uniform()).collect()
}

/// Labels and two correlated scores; with `ties`, scores are multiples of 1/8.
fn data(images: usize, seed: u64, ties: bool) -> (Vec<bool>, Vec<f64>, Vec<f64>) {
    let u = uniform(3 * images, seed);
    let (x, rest) = u.split_at(images);
    let (y, z) = rest.split_at(images);
    let labels: Vec<bool> = x.iter().map(|v| *v < 0.4).collect();
    let step = |v: f64| if ties { (v * 8.0).floor() / 8.0 } else { v };
    let label = |i: usize| f64::from(u8::from(labels[i]));
    let first = (0..images)
        .map(|i| step(0.6 * y[i] + 0.4 * label(i) * x[i] * 2.0))
        .collect();
    let second = (0..images)
        .map(|i| step(0.7 * z[i] + 0.3 * y[i] + 0.1 * label(i)))
        .collect();
    (labels, first, second)
}

struct Case {
    images: usize,
    seed: u64,
    ties: bool,
    first: f64,
    second: f64,
    variances: [f64; 2],
    covariance: f64,
    z: f64,
    p: f64,
}

const CASES: [Case; 3] = [
    Case {
        images: 60,
        seed: 1,
        ties: false,
        first: 0.811_342_592_592_592_5,
        second: 0.723_379_629_629_629_7,
        variances: [0.003_326_930_583_246_001_5, 0.004_527_191_618_953_897],
        covariance: 0.002_016_154_047_278_242,
        z: 1.422_869_500_200_984_8,
        p: 0.154_773_989_268_964_13,
    },
    Case {
        images: 60,
        seed: 2,
        ties: true,
        first: 0.588_987_764_182_424_9,
        second: 0.585_650_723_025_584,
        variances: [0.005_356_513_151_696_529, 0.005_401_978_621_419_082],
        covariance: 0.002_097_259_398_165_979,
        z: 0.041_188_708_139_292_485,
        p: 0.967_145_455_634_208_4,
    },
    Case {
        images: 400,
        seed: 3,
        ties: true,
        first: 0.717_343_75,
        second: 0.601_171_875,
        variances: [0.000_662_967_109_675_156_1, 0.000_836_612_938_846_786_6],
        covariance: 0.000_187_866_149_190_107_1,
        z: 3.465_351_226_937_464_4,
        p: 0.000_529_539_417_362_617,
    },
];

#[test]
fn delong_equals_the_pairwise_definition() {
    for case in &CASES {
        let (labels, a, b) = data(case.images, case.seed, case.ties);
        let got = delong_test(&labels, &a, &b).unwrap();
        for (name, got, want) in [
            ("first", got.first, case.first),
            ("second", got.second, case.second),
            ("first variance", got.variance_first, case.variances[0]),
            ("second variance", got.variance_second, case.variances[1]),
            ("covariance", got.covariance, case.covariance),
            ("z", got.z.unwrap(), case.z),
            ("p", got.p_value.unwrap(), case.p),
        ] {
            assert!(
                (got - want).abs() < DELONG_TOLERANCE,
                "seed {}: {name} {got} for {want}",
                case.seed
            );
        }
        let (auroc, variance) = delong_variance(&labels, &a).unwrap();
        assert!((auroc - case.first).abs() < DELONG_TOLERANCE);
        assert!((variance - case.variances[0]).abs() < DELONG_TOLERANCE);
    }
}

#[test]
fn delong_says_when_it_cannot_tell() {
    let labels = [true, true, false, false];
    let (right, wrong) = ([0.9, 0.8, 0.2, 0.1], [0.1, 0.2, 0.8, 0.9]);
    let same = delong_test(&labels, &right, &right).unwrap();
    assert_eq!((same.z, same.p_value), (None, Some(1.0)));
    let opposite = delong_test(&labels, &right, &wrong).unwrap();
    assert_eq!(
        (opposite.first, opposite.second, opposite.p_value),
        (1.0, 0.0, None)
    );
    assert!(
        delong_test(&labels[1..], &right[1..], &wrong[1..]).is_err(),
        "one defective image has no variance"
    );
}

#[test]
fn bootstrap_quantiles_agree_within_monte_carlo_error() {
    let (labels, a, b) = data(400, 3, true);
    let options = BootstrapOptions {
        replicates: 20_000,
        level: 0.95,
        seed: 7,
    };
    // a 2.5 % quantile of 20,000 draws of standard deviation s scatters by about 2.6 s / sqrt(20,000) = 0.02 s in
    // either run; four of these for the two runs together: 0.1 s
    let auroc = bootstrap_interval(&labels, &a, RankingMetric::Auroc, &options).unwrap();
    near(
        "AUROC",
        [auroc.low, auroc.high],
        [0.666_483_07, 0.767_175_46],
        0.0026,
    );
    assert!((auroc.estimate - 0.717_343_75).abs() < 1e-12);
    let ap = bootstrap_interval(&labels, &a, RankingMetric::AveragePrecision, &options).unwrap();
    near(
        "AP",
        [ap.low, ap.high],
        [0.593_489_22, 0.695_214_94],
        0.0026,
    );
    assert!((ap.estimate - 0.643_311_360_866_723_8).abs() < 1e-12);
    let difference = paired_bootstrap(&labels, &a, &b, RankingMetric::Auroc, &options).unwrap();
    near(
        "difference",
        [difference.low, difference.high],
        [0.050_442_06, 0.181_866_21],
        0.0034,
    );
    assert!((difference.difference - (0.717_343_75 - 0.601_171_875)).abs() < 1e-12);
    assert!(difference.p_value < 0.005);
}

fn near(name: &str, got: [f64; 2], want: [f64; 2], tolerance: f64) {
    assert!(
        got.iter().zip(want).all(|(g, w)| (g - w).abs() < tolerance),
        "{name}: {got:?} for {want:?}"
    );
}

#[test]
fn bootstrap_does_not_depend_on_the_number_of_threads() {
    let (labels, a, b) = data(100, 5, false);
    let options = BootstrapOptions {
        replicates: 300,
        ..Default::default()
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            paired_bootstrap(&labels, &a, &b, RankingMetric::AveragePrecision, &options).unwrap()
        })
    };
    assert_eq!(with(1), with(4));
}
