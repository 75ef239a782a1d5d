//! `<category>_comparison.json`: the adapted features against zero-shot, on the same test images.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use serde::{Deserialize, Serialize};

use super::metrics::{Confusion, MetricError, auroc, average_precision, confusion_at};
use super::statistics::{
    BootstrapOptions, DelongTest, Interval, PairedInterval, RankingMetric, Rate, StatisticsError,
    bootstrap_interval, delong_test, paired_bootstrap,
};

/// How many of the most wrong images are listed each way.
pub const WORST_ERRORS: usize = 10;

/// Why a comparison could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// Labels or scores are unusable.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A statistic could not be computed.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// The file could not be written.
    #[error("cannot write {}: {source}; choose another output folder or make room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One scorer's test scores, in the order of [`TestSet`].
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// Image score per test image.
    pub scores: &'a [f64],
    /// Threshold chosen on held-out images, if one was.
    pub threshold: Option<f64>,
}

/// The images both scorers are tested on.
#[derive(Debug, Clone, Copy)]
pub struct TestSet<'a> {
    /// Category.
    pub category: &'a str,
    /// Protocol in words, as its `Display` gives it.
    pub protocol: &'a str,
    /// Seed of the split.
    pub seed: u64,
    /// Defect images learned from.
    pub shots: usize,
    /// Hash over the test images.
    pub hash: &'a str,
    /// Id per image.
    pub ids: &'a [&'a str],
    /// Folder name of the defect, `None` for normal images.
    pub defect_types: &'a [Option<&'a str>],
}

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
    /// Threshold chosen on held-out images.
    pub threshold: Option<f64>,
    /// Right and wrong decisions at that threshold.
    pub confusion: Option<Confusion>,
    /// Normal images at or above it.
    pub false_alarms: Option<Rate>,
    /// Defective images at or above it.
    pub found: Option<Rate>,
}

/// Adapted minus zero-shot. Relative numbers are shares of the zero-shot value, 0.1 = 10 % better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Improvement {
    /// Difference of the AUROCs.
    pub auroc: Option<f64>,
    /// That difference over the zero-shot AUROC.
    pub auroc_relative: Option<f64>,
    /// Difference of the average precisions.
    pub average_precision: f64,
    /// That difference over the zero-shot average precision.
    pub ap_relative: Option<f64>,
    /// Paired bootstrap interval of the difference of the AUROCs.
    pub auroc_interval: Option<PairedInterval>,
    /// Paired bootstrap interval of the difference of the average precisions.
    pub average_precision_interval: Option<PairedInterval>,
    /// `DeLong`'s test of the difference of the AUROCs.
    pub delong: Option<DelongTest>,
}

/// One defect type against all normal test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeMetrics {
    /// Images of the type in the test set.
    pub images: usize,
    /// AUROC of the adapted scores.
    pub prompt_tuned_auroc: Option<f64>,
    /// AUROC of the zero-shot scores.
    pub zero_shot_auroc: Option<f64>,
    /// How many of them reach the adapted scores' threshold.
    pub prompt_tuned_found: Option<Rate>,
    /// How many of them reach the zero-shot scores' threshold.
    pub zero_shot_found: Option<Rate>,
}

/// A wrongly ranked image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstError {
    /// Id of the image.
    pub id: String,
    /// Its defect type, `null` for a normal image.
    pub defect_type: Option<String>,
    /// Its adapted score.
    pub score: f64,
    /// Share of the images of the other class that it is on the wrong side of.
    pub wrong_share: f64,
}

/// The whole comparison, as the file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Category.
    pub category: String,
    /// Metrics with adaptation.
    pub prompt_tuned: ScorerMetrics,
    /// Metrics without.
    pub zero_shot: ScorerMetrics,
    /// The difference.
    pub improvement: Improvement,
    /// Protocol of the split.
    pub protocol: String,
    /// Seed of the split.
    pub seed: u64,
    /// Defect images learned from.
    pub shots: usize,
    /// Normal images tested.
    pub test_normals: usize,
    /// Defective images tested.
    pub test_defects: usize,
    /// Hash over the test images.
    pub test_set_hash: String,
    /// How the intervals were made.
    pub bootstrap: BootstrapOptions,
    /// By defect type.
    pub per_defect_type: BTreeMap<String, TypeMetrics>,
    /// Normal images with the highest scores.
    pub worst_false_alarms: Vec<WorstError>,
    /// Defective images with the lowest scores.
    pub worst_misses: Vec<WorstError>,
}

impl Comparison {
    /// Holds `adapted` against `zero_shot` on the images of `test`.
    ///
    /// A test set with only one class gives a comparison whose AUROCs, intervals and tests are `null`.
    ///
    /// # Errors
    /// Scores that are missing, too many or not finite; bootstrap options that make no sense.
    pub fn new(
        test: &TestSet<'_>,
        adapted: Scored<'_>,
        zero_shot: Scored<'_>,
        bootstrap: BootstrapOptions,
    ) -> Result<Self, ComparisonError> {
        let labels: Vec<bool> = test.defect_types.iter().map(Option::is_some).collect();
        if test.ids.len() != labels.len() {
            return Err(MetricError::Length {
                labels: labels.len(),
                scores: test.ids.len(),
            }
            .into());
        }
        let (mut prompt_tuned, mut base) =
            (metrics(&labels, adapted)?, metrics(&labels, zero_shot)?);
        let (a, b) = (adapted.scores, zero_shot.scores);
        let mut improvement = Improvement {
            auroc: prompt_tuned.auroc.zip(base.auroc).map(|(x, y)| x - y),
            auroc_relative: prompt_tuned
                .auroc
                .zip(base.auroc)
                .and_then(|(x, y)| relative(x, y)),
            average_precision: prompt_tuned.average_precision - base.average_precision,
            ap_relative: relative(prompt_tuned.average_precision, base.average_precision),
            auroc_interval: None,
            average_precision_interval: None,
            delong: None,
        };
        let test_defects = labels.iter().filter(|l| **l).count();
        let test_normals = labels.len() - test_defects;
        if test_defects > 0 && test_normals > 0 {
            for (metrics, scores) in [(&mut prompt_tuned, a), (&mut base, b)] {
                let interval = |metric| bootstrap_interval(&labels, scores, metric, &bootstrap);
                metrics.auroc_interval = Some(interval(RankingMetric::Auroc)?);
                metrics.average_precision_interval =
                    Some(interval(RankingMetric::AveragePrecision)?);
            }
            let interval = |metric| paired_bootstrap(&labels, a, b, metric, &bootstrap);
            improvement.auroc_interval = Some(interval(RankingMetric::Auroc)?);
            improvement.average_precision_interval =
                Some(interval(RankingMetric::AveragePrecision)?);
        }
        if test_defects > 1 && test_normals > 1 {
            improvement.delong = Some(delong_test(&labels, a, b)?);
        }
        Ok(Self {
            category: test.category.to_owned(),
            prompt_tuned,
            zero_shot: base,
            improvement,
            protocol: test.protocol.to_owned(),
            seed: test.seed,
            shots: test.shots,
            test_normals,
            test_defects,
            test_set_hash: test.hash.to_owned(),
            bootstrap,
            per_defect_type: per_type(test, adapted, zero_shot)?,
            worst_false_alarms: worst_errors(test.ids, test.defect_types, a, false),
            worst_misses: worst_errors(test.ids, test.defect_types, a, true),
        })
    }

    /// Writes the comparison as JSON, whole or not at all.
    ///
    /// # Errors
    /// Whatever creating, writing or renaming the file returns, with the path.
    pub fn write(&self, path: &Path) -> Result<(), ComparisonError> {
        let failed = |source| ComparisonError::Write {
            path: path.to_owned(),
            source,
        };
        let mut text = serde_json::to_string_pretty(self).map_err(|e| failed(e.into()))?;
        text.push('\n');
        atomic_file::write(path, text.as_bytes()).map_err(failed)
    }

    /// The comparison as a plain-text table: adapted, zero-shot, absolute and relative difference.
    pub fn table(&self) -> String {
        let number =
            |v: Option<f64>| v.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
        let signed =
            |v: Option<f64>| v.map_or_else(|| "undefined".to_owned(), |v| format!("{v:+.4}"));
        let percent = |v: Option<f64>| {
            v.map_or_else(
                || "undefined".to_owned(),
                |v| format!("{:+.2} %", 100.0 * v),
            )
        };
        let mut text = String::new();
        let mut line = |name: &str, cells: [String; 4]| {
            let [a, b, c, d] = cells;
            // writing to a String cannot fail
            let _ = writeln!(text, "{name:<20}{a:>10}{b:>12}{c:>12}{d:>12}");
        };
        line(
            "",
            ["adapted", "zero-shot", "difference", "relative"].map(str::to_owned),
        );
        line(
            "AUROC",
            [
                number(self.prompt_tuned.auroc),
                number(self.zero_shot.auroc),
                signed(self.improvement.auroc),
                percent(self.improvement.auroc_relative),
            ],
        );
        line(
            "average precision",
            [
                number(Some(self.prompt_tuned.average_precision)),
                number(Some(self.zero_shot.average_precision)),
                signed(Some(self.improvement.average_precision)),
                percent(self.improvement.ap_relative),
            ],
        );
        for (name, metrics) in &self.per_defect_type {
            let both = metrics.prompt_tuned_auroc.zip(metrics.zero_shot_auroc);
            line(
                &format!("  AUROC {name} ({})", metrics.images),
                [
                    number(metrics.prompt_tuned_auroc),
                    number(metrics.zero_shot_auroc),
                    signed(both.map(|(x, y)| x - y)),
                    percent(both.and_then(|(x, y)| relative(x, y))),
                ],
            );
        }
        let share = |rate: &Option<Rate>| {
            rate.map_or_else(
                || "undefined".to_owned(),
                |r| format!("{:.1} %", 100.0 * r.share),
            )
        };
        let points = |a: &Option<Rate>, b: &Option<Rate>| {
            a.zip(*b).map_or_else(String::new, |(a, b)| {
                format!("{:+.1} pt", 100.0 * (a.share - b.share))
            })
        };
        let (a, b) = (&self.prompt_tuned, &self.zero_shot);
        if a.confusion.is_some() && b.confusion.is_some() {
            for (name, a, b) in [
                ("found at threshold", &a.found, &b.found),
                ("false alarms there", &a.false_alarms, &b.false_alarms),
            ] {
                line(name, [share(a), share(b), points(a, b), String::new()]);
            }
        }
        let _ = writeln!(
            text,
            "{}: protocol {}, seed {}, {} shots, tested on {} normal and {} defective images",
            self.category,
            self.protocol,
            self.seed,
            self.shots,
            self.test_normals,
            self.test_defects
        );
        if let Some(interval) = &self.improvement.auroc_interval {
            let p = self.improvement.delong.and_then(|d| d.p_value);
            let _ = writeln!(
                text,
                "AUROC difference: {:.0} % interval [{:+.4}, {:+.4}] (paired bootstrap), p = {} (DeLong)",
                100.0 * self.bootstrap.level,
                interval.low,
                interval.high,
                p.map_or_else(|| "undefined".to_owned(), |p| format!("{p:.2e}")),
            );
        }
        text
    }
}

fn relative(value: f64, base: f64) -> Option<f64> {
    (base != 0.0).then(|| (value - base) / base)
}

fn metrics(labels: &[bool], scored: Scored<'_>) -> Result<ScorerMetrics, MetricError> {
    let confusion = scored
        .threshold
        .map(|t| confusion_at(labels, scored.scores, t))
        .transpose()?;
    Ok(ScorerMetrics {
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
    })
}

fn per_type(
    test: &TestSet<'_>,
    adapted: Scored<'_>,
    zero_shot: Scored<'_>,
) -> Result<BTreeMap<String, TypeMetrics>, MetricError> {
    let mut types = BTreeMap::new();
    for name in test.defect_types.iter().flatten() {
        if types.contains_key(*name) {
            continue;
        }
        let of: Vec<usize> = (0..test.defect_types.len())
            .filter(|&i| test.defect_types[i].is_none_or(|t| t == *name))
            .collect();
        let labels: Vec<bool> = of.iter().map(|&i| test.defect_types[i].is_some()).collect();
        let pick = |scores: &[f64]| of.iter().map(|&i| scores[i]).collect::<Vec<_>>();
        let images = labels.iter().filter(|l| **l).count();
        let found = |scored: Scored<'_>| {
            let threshold = scored.threshold?;
            let reach =
                |i: &&usize| test.defect_types[**i].is_some() && scored.scores[**i] >= threshold;
            Rate::new(of.iter().filter(reach).count(), images)
        };
        types.insert(
            (*name).to_owned(),
            TypeMetrics {
                images,
                prompt_tuned_auroc: auroc(&labels, &pick(adapted.scores))?,
                zero_shot_auroc: auroc(&labels, &pick(zero_shot.scores))?,
                prompt_tuned_found: found(adapted),
                zero_shot_found: found(zero_shot),
            },
        );
    }
    Ok(types)
}

/// The [`WORST_ERRORS`] normal images with the highest, or the defective ones with the lowest scores, the worst first.
///
/// # Panics
/// If there are not as many ids and defect types as scores.
pub fn worst_errors(
    ids: &[&str],
    defect_types: &[Option<&str>],
    scores: &[f64],
    defective: bool,
) -> Vec<WorstError> {
    let is = |i: &usize| defect_types[*i].is_some() == defective;
    let (mut own, others): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(is);
    own.sort_by(|&x, &y| {
        let order = scores[x].total_cmp(&scores[y]);
        (if defective { order } else { order.reverse() }).then_with(|| ids[x].cmp(ids[y]))
    });
    own.truncate(WORST_ERRORS);
    let entry = |i: usize| {
        let wrong = others
            .iter()
            .filter(|&&o| (scores[o] > scores[i]) == defective && scores[o] != scores[i])
            .count();
        WorstError {
            id: ids[i].to_owned(),
            defect_type: defect_types[i].map(str::to_owned),
            score: scores[i],
            wrong_share: if others.is_empty() {
                0.0
            } else {
                wrong as f64 / others.len() as f64
            },
        }
    };
    own.into_iter().map(entry).collect()
}
