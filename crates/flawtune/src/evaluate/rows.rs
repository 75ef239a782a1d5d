//! One result for whatever scores: an [`Evaluation`] holds the test set and a [`Row`] a scorer.
//!
//! A detector is a row, and so is the same detector without what it learned from defects; prompts and the untouched model are two
//! rows of which the recipe's [`Comparison`](super::comparison::Comparison) is written. Every row is made by [`Evaluation::of`],
//! from the scores of the same images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::{ComparisonError, Scored, TestSet};
use super::metrics::{
    Confusion, HistogramMetrics, MetricError, auroc, average_precision, confusion_at, f1_max,
};
use super::statistics::{
    BootstrapOptions, DelongTest, Interval, PairedInterval, RankingMetric, Rate,
    bootstrap_interval, delong_test, paired_bootstrap,
};

/// Metrics of one scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorerMetrics {
    /// Area under the ROC curve; `null` with only one class.
    pub auroc: Option<f64>,
    /// Average precision.
    pub average_precision: f64,
    /// Bootstrap interval of the AUROC; `null` with only one class.
    pub auroc_interval: Option<Interval>,
    /// Bootstrap interval of the average precision; `null` with only one class.
    pub average_precision_interval: Option<Interval>,
    /// Threshold chosen without a tested image.
    pub threshold: Option<f64>,
    /// Right and wrong decisions at that threshold.
    pub confusion: Option<Confusion>,
    /// Good images at or above it.
    pub false_alarms: Option<Rate>,
    /// Defects at or above it.
    pub found: Option<Rate>,
}

/// One scorer minus another. Relative numbers are shares of the other's value, 0.1 = 10 % better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Improvement {
    /// Difference of the AUROCs.
    pub auroc: Option<f64>,
    /// That difference over the other's AUROC.
    pub auroc_relative: Option<f64>,
    /// Difference of the average precisions.
    pub average_precision: f64,
    /// That difference over the other's average precision.
    pub ap_relative: Option<f64>,
    /// Paired bootstrap interval of the difference of the AUROCs.
    pub auroc_interval: Option<PairedInterval>,
    /// Paired bootstrap interval of the difference of the average precisions.
    pub average_precision_interval: Option<PairedInterval>,
    /// `DeLong`'s test of the difference of the AUROCs.
    pub delong: Option<DelongTest>,
}

/// Pixel metrics over the good images and the defects that have a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PixelMetrics {
    /// Defects with a mask.
    pub masked_images: usize,
    /// Defects without one, left out here.
    pub unmasked_images: usize,
    /// Bound of the false positive rate for the per-region overlap.
    pub aupro_limit: f64,
    /// The metrics.
    #[serde(flatten)]
    pub metrics: HistogramMetrics,
}

/// One defect type against all good test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowType {
    /// Images of the type.
    pub images: usize,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// How many of them reach the threshold.
    pub found: Option<Rate>,
    /// Pixel metrics, where masks exist.
    pub pixels: Option<PixelMetrics>,
}

/// One scorer on the test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// The scorer's name.
    pub scorer: String,
    /// Whether it learned from defects; false: zero-shot.
    pub taught: bool,
    /// Its metrics.
    pub metrics: ScorerMetrics,
    /// Largest F1 over all thresholds, chosen on the tested images; `null` without defects.
    pub f1_max: Option<f64>,
    /// The row that it is held against, by its scorer's name.
    pub against: Option<String>,
    /// It minus that row.
    pub difference: Option<Improvement>,
    /// By defect type.
    pub by_type: BTreeMap<String, RowType>,
    /// Pixel metrics, where it has maps and masks exist.
    pub pixels: Option<PixelMetrics>,
}

/// What was tested, and how it was kept apart from what was learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestedSplit {
    /// Protocol in words, as its `Display` gives it.
    pub protocol: String,
    /// Whether images that were learned from are among the tested: such numbers are not a result.
    pub leaky: bool,
    /// Seed of the split.
    pub seed: u64,
    /// Defects learned from.
    pub shots: usize,
    /// Good images tested.
    pub good: usize,
    /// Defects tested.
    pub defects: usize,
    /// Hash over the tested images.
    pub test_set_hash: String,
}

/// Scorers on one test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Category.
    pub category: String,
    /// What was tested.
    pub split: TestedSplit,
    /// A row a scorer; the one that is asked about comes first.
    pub rows: Vec<Row>,
    /// How intervals were made.
    pub bootstrap: BootstrapOptions,
}

/// The scores of one scorer, for a row.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    /// The scorer's name.
    pub scorer: &'a str,
    /// Whether it learned from defects.
    pub taught: bool,
    /// Its scores and threshold.
    pub scored: Scored<'a>,
    /// The column, by its place, that it is held against.
    pub against: Option<usize>,
}

impl Evaluation {
    /// Rows of `columns`, all of them scores of the images of `test`.
    ///
    /// A test set with only one class gives rows whose AUROCs, intervals and tests are `null`.
    ///
    /// # Errors
    /// Scores that are missing, too many or not finite; bootstrap options that make no sense.
    ///
    /// # Panics
    /// If a column is held against one that does not exist.
    pub fn of(
        test: &TestSet<'_>,
        leaky: bool,
        columns: &[Column<'_>],
        bootstrap: BootstrapOptions,
    ) -> Result<Self, ComparisonError> {
        let labels = labels(test)?;
        let defects = labels.iter().filter(|l| **l).count();
        let rows = columns
            .iter()
            .map(|column| -> Result<Row, ComparisonError> {
                let against = column.against.map(|other| &columns[other]);
                let metrics = metrics(&labels, column.scored, &bootstrap)?;
                let f1_max = if defects > 0 {
                    Some(f1_max(&labels, column.scored.scores)?.f1)
                } else {
                    None
                };
                Ok(Row {
                    scorer: column.scorer.to_owned(),
                    taught: column.taught,
                    metrics,
                    f1_max,
                    against: against.map(|other| other.scorer.to_owned()),
                    difference: against
                        .map(|other| difference(&labels, column.scored, other.scored, &bootstrap))
                        .transpose()?,
                    by_type: by_type(test, column.scored)?,
                    pixels: None,
                })
            });
        Ok(Self {
            category: test.category.to_owned(),
            split: TestedSplit {
                protocol: test.protocol.to_owned(),
                leaky,
                seed: test.seed,
                shots: test.shots,
                good: labels.len() - defects,
                defects,
                test_set_hash: test.hash.to_owned(),
            },
            rows: rows.collect::<Result<_, _>>()?,
            bootstrap,
        })
    }
}

/// Which of the tested images are defects.
///
/// # Errors
/// Ids and types that are not equally many.
fn labels(test: &TestSet<'_>) -> Result<Vec<bool>, MetricError> {
    let labels: Vec<bool> = test.defect_types.iter().map(Option::is_some).collect();
    if test.ids.len() != labels.len() {
        return Err(MetricError::Length {
            labels: labels.len(),
            scores: test.ids.len(),
        });
    }
    Ok(labels)
}

fn both_classes(labels: &[bool], least: usize) -> bool {
    let defects = labels.iter().filter(|l| **l).count();
    defects >= least && labels.len() - defects >= least
}

/// Metrics of one scorer's scores.
///
/// # Errors
/// Scores that are missing, too many or not finite; bootstrap options that make no sense.
fn metrics(
    labels: &[bool],
    scored: Scored<'_>,
    bootstrap: &BootstrapOptions,
) -> Result<ScorerMetrics, ComparisonError> {
    let confusion = scored
        .threshold
        .map(|t| confusion_at(labels, scored.scores, t))
        .transpose()?;
    let mut metrics = ScorerMetrics {
        auroc: auroc(labels, scored.scores)?,
        average_precision: average_precision(labels, scored.scores)?,
        auroc_interval: None,
        average_precision_interval: None,
        threshold: scored.threshold,
        confusion,
        false_alarms: confusion
            .and_then(|c| Rate::new(c.false_positives, c.false_positives + c.true_negatives)),
        found: confusion
            .and_then(|c| Rate::new(c.true_positives, c.true_positives + c.false_negatives)),
    };
    if both_classes(labels, 1) {
        let interval = |metric| bootstrap_interval(labels, scored.scores, metric, bootstrap);
        metrics.auroc_interval = Some(interval(RankingMetric::Auroc)?);
        metrics.average_precision_interval = Some(interval(RankingMetric::AveragePrecision)?);
    }
    Ok(metrics)
}

/// `scored` minus `other`, on the same images.
///
/// # Errors
/// As [`metrics`].
fn difference(
    labels: &[bool],
    scored: Scored<'_>,
    other: Scored<'_>,
    bootstrap: &BootstrapOptions,
) -> Result<Improvement, ComparisonError> {
    let (a, b) = (scored.scores, other.scores);
    let aurocs = auroc(labels, a)?.zip(auroc(labels, b)?);
    let precisions = (average_precision(labels, a)?, average_precision(labels, b)?);
    let mut difference = Improvement {
        auroc: aurocs.map(|(x, y)| x - y),
        auroc_relative: aurocs.and_then(|(x, y)| relative(x, y)),
        average_precision: precisions.0 - precisions.1,
        ap_relative: relative(precisions.0, precisions.1),
        auroc_interval: None,
        average_precision_interval: None,
        delong: None,
    };
    if both_classes(labels, 1) {
        let interval = |metric| paired_bootstrap(labels, a, b, metric, bootstrap);
        difference.auroc_interval = Some(interval(RankingMetric::Auroc)?);
        difference.average_precision_interval = Some(interval(RankingMetric::AveragePrecision)?);
    }
    if both_classes(labels, 2) {
        difference.delong = Some(delong_test(labels, a, b)?);
    }
    Ok(difference)
}

pub(super) fn relative(value: f64, base: f64) -> Option<f64> {
    (base != 0.0).then(|| (value - base) / base)
}

/// Each defect type of the test set against its good images.
///
/// # Errors
/// As [`metrics`].
fn by_type(
    test: &TestSet<'_>,
    scored: Scored<'_>,
) -> Result<BTreeMap<String, RowType>, MetricError> {
    let mut types = BTreeMap::new();
    for name in test.defect_types.iter().flatten() {
        if types.contains_key(*name) {
            continue;
        }
        let of: Vec<usize> = (0..test.defect_types.len())
            .filter(|&i| test.defect_types[i].is_none_or(|t| t == *name))
            .collect();
        let labels: Vec<bool> = of.iter().map(|&i| test.defect_types[i].is_some()).collect();
        let scores: Vec<f64> = of.iter().map(|&i| scored.scores[i]).collect();
        let images = labels.iter().filter(|l| **l).count();
        let found = scored.threshold.and_then(|threshold| {
            let reach = labels.iter().zip(&scores);
            Rate::new(
                reach.filter(|(l, s)| **l && **s >= threshold).count(),
                images,
            )
        });
        types.insert(
            (*name).to_owned(),
            RowType {
                images,
                auroc: auroc(&labels, &scores)?,
                found,
                pixels: None,
            },
        );
    }
    Ok(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [Option<&str>; 6] = [None, None, None, Some("a"), Some("a"), Some("b")];
    const IDS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

    fn test() -> TestSet<'static> {
        TestSet {
            category: "c",
            protocol: "held-out",
            seed: 3,
            shots: 2,
            hash: "h",
            ids: &IDS,
            defect_types: &TYPES,
        }
    }

    fn column<'a>(scorer: &'a str, scores: &'a [f64], against: Option<usize>) -> Column<'a> {
        Column {
            scorer,
            taught: against.is_some(),
            scored: Scored {
                scores,
                threshold: Some(0.5),
            },
            against,
        }
    }

    #[test]
    fn rows_are_held_against_each_other() {
        let (taught, plain) = (
            [0.1, 0.2, 0.6, 0.7, 0.8, 0.9],
            [0.1, 0.2, 0.6, 0.55, 0.8, 0.0],
        );
        let columns = [
            column("residual", &taught, Some(1)),
            column("bank", &plain, None),
        ];
        let found = Evaluation::of(&test(), false, &columns, BootstrapOptions::default()).unwrap();
        assert_eq!((found.split.good, found.split.defects), (3, 3));
        let [a, b] = &found.rows[..] else { panic!() };
        assert!(a.taught && !b.taught);
        assert_eq!(a.metrics.auroc, Some(1.0));
        // 2 of 3 below .55, all below .8, none below 0
        assert_eq!(b.metrics.auroc, Some(5.0 / 9.0));
        let difference = a.difference.as_ref().unwrap();
        assert!((difference.auroc.unwrap() - 4.0 / 9.0).abs() < 1e-12);
        assert_eq!(a.against.as_deref(), Some("bank"));
        assert_eq!(b.difference, None);
        assert_eq!(a.metrics.false_alarms.unwrap().count, 1);
        assert_eq!(b.metrics.found.unwrap().count, 2);
        assert_eq!(a.by_type["a"].images, 2);
        assert_eq!(b.by_type["b"].auroc, Some(0.0));
        assert_eq!(b.by_type["b"].found.unwrap().count, 0);
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), found);
    }

    #[test]
    fn one_class_has_no_curve_and_missing_scores_are_refused() {
        let good = TestSet {
            ids: &IDS[..3],
            defect_types: &TYPES[..3],
            ..test()
        };
        let scores = [0.1, 0.2, 0.6];
        let columns = [column("bank", &scores, None)];
        let found = Evaluation::of(&good, false, &columns, BootstrapOptions::default()).unwrap();
        assert_eq!(found.rows[0].metrics.auroc, None);
        assert_eq!(found.rows[0].f1_max, None);
        let short = Evaluation::of(&test(), false, &columns, BootstrapOptions::default());
        assert!(short.is_err());
    }
}
