//! Stratified bootstrap: resample the defective and the normal test images apart, with replacement.

#[cfg(feature = "clap")]
use crate::values::count;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::StatisticsError;
use crate::evaluate::metrics::{MetricError, Tally, dense_ranks};
use crate::random::draws::{below, generator};

/// Which metric is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankingMetric {
    /// Area under the ROC curve.
    Auroc,
    /// Average precision.
    AveragePrecision,
}

impl RankingMetric {
    fn of(self, tally: &Tally) -> f64 {
        match self {
            // both classes are present in every stratified resample
            Self::Auroc => tally.auroc().unwrap_or(f64::NAN),
            Self::AveragePrecision => tally.average_precision(),
        }
    }
}

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct BootstrapOptions {
    /// Resamples of the bootstrap intervals
    #[cfg_attr(feature = "clap", arg(id = "bootstrap", long = "bootstrap", value_name = "N",
                                     default_value_t = Self::default().replicates, value_parser = count(100..)))]
    pub replicates: usize,
    /// Coverage of the interval, in (0, 1).
    #[cfg_attr(feature = "clap", arg(skip = Self::default().level))]
    pub level: f64,
    /// Seed of the draws.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub seed: u64,
}

impl Default for BootstrapOptions {
    /// 2000 resamples, 95 %, seed 0.
    fn default() -> Self {
        Self {
            replicates: 2000,
            level: 0.95,
            seed: 0,
        }
    }
}

impl BootstrapOptions {
    pub(super) fn check(&self) -> Result<(), StatisticsError> {
        if self.replicates == 0 {
            return Err(StatisticsError::Option {
                name: "replicates",
                value: "0".into(),
                wanted: "at least 1 resample is needed",
            });
        }
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(StatisticsError::Option {
                name: "level",
                value: self.level.to_string(),
                wanted: "a coverage strictly between 0 and 1, such as 0.95",
            });
        }
        Ok(())
    }
}

/// An estimate and its percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The metric of the images as they are.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A difference (first minus second) on the same images and its percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedInterval {
    /// The difference on the images as they are.
    pub difference: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Twice the share of resamples on the rarer side of zero, at least 1 / (resamples + 1), at most 1.
    pub p_value: f64,
}

/// Positions of the defective and of the normal images.
pub(super) struct Strata {
    defective: Vec<usize>,
    normal: Vec<usize>,
}

impl Strata {
    pub(super) fn of(labels: &[bool], wanted: usize) -> Result<Self, StatisticsError> {
        let side = |value| {
            (0..labels.len())
                .filter(|&i| labels[i] == value)
                .collect::<Vec<_>>()
        };
        let strata = Self {
            defective: side(true),
            normal: side(false),
        };
        for (class, found) in [
            ("defective", strata.defective.len()),
            ("normal", strata.normal.len()),
        ] {
            if found < wanted {
                return Err(StatisticsError::TooFew {
                    class,
                    found,
                    wanted,
                });
            }
        }
        Ok(strata)
    }

    /// How often each image is drawn in one resample.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, times: &mut [u32]) {
        times.fill(0);
        for side in [&self.defective, &self.normal] {
            for _ in 0..side.len() {
                times[side[below(rng, side.len())]] += 1;
            }
        }
    }
}

/// Ranks of one scorer's scores, ready to be counted under any weights.
pub(super) struct Ranked {
    ranks: Vec<usize>,
    distinct: usize,
}

impl Ranked {
    pub(super) fn new(labels: &[bool], scores: &[f64]) -> Result<Self, MetricError> {
        if labels.len() != scores.len() {
            return Err(MetricError::Length {
                labels: labels.len(),
                scores: scores.len(),
            });
        }
        let (ranks, distinct) = dense_ranks(scores)?;
        Ok(Self {
            ranks,
            distinct: distinct.len(),
        })
    }

    pub(super) fn tally(&self, labels: &[bool], times: impl Fn(usize) -> u32) -> Tally {
        let mut groups = vec![(0u64, 0u64); self.distinct];
        for (i, &rank) in self.ranks.iter().enumerate() {
            let count = u64::from(times(i));
            if labels[i] {
                groups[rank].0 += count;
            } else {
                groups[rank].1 += count;
            }
        }
        Tally { groups }
    }
}

/// Runs `measure` on every resample; each has its own stream of random bits, so threads change nothing.
pub(super) fn resample(
    strata: &Strata,
    images: usize,
    options: &BootstrapOptions,
    measure: impl Fn(&[u32]) -> f64 + Sync,
) -> Vec<f64> {
    let mut values: Vec<f64> = (0..options.replicates)
        .into_par_iter()
        .map_init(
            || vec![0u32; images],
            |times, replicate| {
                strata.draw(&mut generator(options.seed, replicate as u64), times);
                measure(times)
            },
        )
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Quantile of ascending values, linear between neighbours (numpy's default).
pub(super) fn quantile(ascending: &[f64], q: f64) -> f64 {
    let at = q * (ascending.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(ascending.len() - 1);
    ascending[below] + (ascending[above] - ascending[below]) * (at - below as f64)
}

pub(super) fn paired_interval(difference: f64, values: &[f64], level: f64) -> PairedInterval {
    let tail = (1.0 - level) / 2.0;
    let not_above = values.iter().filter(|v| **v <= 0.0).count();
    let not_below = values.iter().filter(|v| **v >= 0.0).count();
    let rarer = not_above.min(not_below);
    let p_value = (2.0 * (rarer + 1) as f64 / (values.len() + 1) as f64).min(1.0);
    PairedInterval {
        difference,
        low: quantile(values, tail),
        high: quantile(values, 1.0 - tail),
        p_value,
    }
}

/// Percentile interval of a metric of one scorer.
///
/// # Errors
/// Unusable labels or scores, a class without images, options that make no sense.
pub fn bootstrap_interval(
    labels: &[bool],
    scores: &[f64],
    metric: RankingMetric,
    options: &BootstrapOptions,
) -> Result<Interval, StatisticsError> {
    options.check()?;
    let ranked = Ranked::new(labels, scores)?;
    let strata = Strata::of(labels, 1)?;
    let values = resample(&strata, labels.len(), options, |times| {
        metric.of(&ranked.tally(labels, |i| times[i]))
    });
    let tail = (1.0 - options.level) / 2.0;
    Ok(Interval {
        estimate: metric.of(&ranked.tally(labels, |_| 1)),
        low: quantile(&values, tail),
        high: quantile(&values, 1.0 - tail),
    })
}

/// Percentile interval of the difference (`first` minus `second`) of a metric on the same images.
///
/// # Errors
/// Unusable labels or scores, a class without images, options that make no sense.
pub fn paired_bootstrap(
    labels: &[bool],
    first: &[f64],
    second: &[f64],
    metric: RankingMetric,
    options: &BootstrapOptions,
) -> Result<PairedInterval, StatisticsError> {
    options.check()?;
    let (a, b) = (Ranked::new(labels, first)?, Ranked::new(labels, second)?);
    let strata = Strata::of(labels, 1)?;
    let difference = |times: &dyn Fn(usize) -> u32| {
        metric.of(&a.tally(labels, times)) - metric.of(&b.tally(labels, times))
    };
    let values = resample(&strata, labels.len(), options, |times| {
        difference(&|i| times[i])
    });
    Ok(paired_interval(difference(&|_| 1), &values, options.level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_as_numpy_does() {
        // numpy.quantile([1, 2, 4, 8], [0, .1, .5, .975, 1])
        let v = [1.0, 2.0, 4.0, 8.0];
        let got: Vec<f64> = [0.0, 0.1, 0.5, 0.975, 1.0]
            .iter()
            .map(|q| quantile(&v, *q))
            .collect();
        let want = [1.0, 1.3, 3.0, 7.7, 8.0];
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{got:?}"
        );
    }

    #[test]
    fn bad_options_and_missing_classes_are_refused() {
        let run = |labels: &[bool], options| {
            bootstrap_interval(
                labels,
                &vec![0.5; labels.len()],
                RankingMetric::Auroc,
                &options,
            )
        };
        let good = BootstrapOptions::default();
        assert!(matches!(
            run(&[true, true], good),
            Err(StatisticsError::TooFew {
                class: "normal",
                found: 0,
                ..
            })
        ));
        assert!(matches!(
            run(&[true, false], BootstrapOptions { level: 1.0, ..good }),
            Err(StatisticsError::Option { name: "level", .. })
        ));
        assert!(matches!(
            run(
                &[true, false],
                BootstrapOptions {
                    replicates: 0,
                    ..good
                }
            ),
            Err(StatisticsError::Option {
                name: "replicates",
                ..
            })
        ));
    }

    #[test]
    fn a_scorer_does_not_differ_from_itself() {
        let labels = [true, false, true, false, false];
        let scores = [0.9, 0.2, 0.4, 0.5, 0.1];
        let result = paired_bootstrap(
            &labels,
            &scores,
            &scores,
            RankingMetric::Auroc,
            &BootstrapOptions::default(),
        )
        .unwrap();
        assert_eq!(
            (result.difference, result.low, result.high, result.p_value),
            (0.0, 0.0, 0.0, 1.0)
        );
    }
}
