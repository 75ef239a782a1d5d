//! The mean difference over several seeds, whose test sets overlap.

use std::collections::BTreeMap;

use super::StatisticsError;
use super::bootstrap::{
    BootstrapOptions, PairedInterval, Ranked, RankingMetric, Strata, paired_interval, resample,
};

/// Two scorers on the test set of one seed.
#[derive(Debug, Clone, Copy)]
pub struct SeedScores<'a> {
    /// Id of each test image.
    pub ids: &'a [&'a str],
    /// Whether each is defective.
    pub labels: &'a [bool],
    /// Scores of the first scorer.
    pub first: &'a [f64],
    /// Scores of the second scorer.
    pub second: &'a [f64],
}

/// Interval of the mean over seeds of the difference (`first` minus `second`) of a metric.
///
/// The seeds' test sets share most of their images, so they are not independent evidence. Here the images are
/// resampled (all that any seed tests, defective and normal apart) and an image drawn twice counts twice in every
/// seed that tests it: the interval covers the choice of the test images; each seed's training stays as it was.
///
/// # Errors
/// Unusable labels or scores, a seed without one of the classes, an image with two labels, options that make no
/// sense.
pub fn paired_bootstrap_over_seeds(
    seeds: &[SeedScores<'_>],
    metric: RankingMetric,
    options: &BootstrapOptions,
) -> Result<PairedInterval, StatisticsError> {
    options.check()?;
    let mut images: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for seed in seeds {
        Strata::of(seed.labels, 1)?;
        for (&id, &label) in seed.ids.iter().zip(seed.labels) {
            let next = images.len();
            let (_, known) = *images.entry(id).or_insert((next, label));
            if known != label {
                return Err(StatisticsError::Labels { id: id.to_owned() });
            }
        }
    }
    let mut labels = vec![false; images.len()];
    for &(at, label) in images.values() {
        labels[at] = label;
    }
    let strata = Strata::of(&labels, 1)?;
    let mut ready = Vec::with_capacity(seeds.len());
    for seed in seeds {
        let (a, b) = (
            Ranked::new(seed.labels, seed.first)?,
            Ranked::new(seed.labels, seed.second)?,
        );
        let at: Vec<usize> = seed.ids.iter().map(|id| images[id].0).collect();
        ready.push((seed.labels, a, b, at));
    }
    let mean_difference = |times: &dyn Fn(usize) -> u32| {
        let (mut sum, mut counted) = (0.0, 0usize);
        for (labels, a, b, at) in &ready {
            let one = |ranked: &Ranked| metric_of(metric, ranked, labels, &|i| times(at[i]));
            // a resample may miss a class of a small seed's test set altogether: that seed has no say in it
            if let (Some(x), Some(y)) = (one(a), one(b)) {
                sum += x - y;
                counted += 1;
            }
        }
        if counted == 0 {
            0.0
        } else {
            sum / counted as f64
        }
    };
    let values = resample(&strata, labels.len(), options, |times| {
        mean_difference(&|i| times[i])
    });
    Ok(paired_interval(
        mean_difference(&|_| 1),
        &values,
        options.level,
    ))
}

fn metric_of(
    metric: RankingMetric,
    ranked: &Ranked,
    labels: &[bool],
    times: &dyn Fn(usize) -> u32,
) -> Option<f64> {
    let tally = ranked.tally(labels, times);
    let auroc = tally.auroc()?;
    Some(match metric {
        RankingMetric::Auroc => auroc,
        RankingMetric::AveragePrecision => tally.average_precision(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::statistics::paired_bootstrap;

    #[test]
    fn one_seed_is_the_plain_paired_bootstrap_and_copies_of_it_add_no_certainty() {
        let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let labels = [true, true, true, true, false, false, false, false];
        let first = [0.9, 0.8, 0.3, 0.7, 0.1, 0.4, 0.2, 0.6];
        let second = [0.5, 0.9, 0.2, 0.1, 0.3, 0.4, 0.6, 0.0];
        let options = BootstrapOptions {
            replicates: 500,
            ..Default::default()
        };
        let seed = SeedScores {
            ids: &ids,
            labels: &labels,
            first: &first,
            second: &second,
        };
        let plain =
            paired_bootstrap(&labels, &first, &second, RankingMetric::Auroc, &options).unwrap();
        for copies in [1, 5] {
            let got =
                paired_bootstrap_over_seeds(&vec![seed; copies], RankingMetric::Auroc, &options)
                    .unwrap();
            assert!((got.difference - plain.difference).abs() < 1e-12);
            assert!((got.low - plain.low).abs() < 1e-12 && (got.high - plain.high).abs() < 1e-12);
        }
    }

    #[test]
    fn an_image_with_two_labels_is_refused() {
        let scores = [0.1, 0.2];
        let (x, y) = ([true, false], [false, true]);
        let seed = |labels| SeedScores {
            ids: &["a", "b"],
            labels,
            first: &scores,
            second: &scores,
        };
        let result = paired_bootstrap_over_seeds(
            &[seed(&x), seed(&y)],
            RankingMetric::Auroc,
            &BootstrapOptions::default(),
        );
        assert_eq!(result, Err(StatisticsError::Labels { id: "a".into() }));
    }
}
