//! `<category>_comparison.json`: the adapted features against zero-shot, on the same test images.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use serde::{Deserialize, Serialize};

use super::metrics::MetricError;
use super::rows::{Column, Evaluation, RowType, relative};
pub use super::rows::{Improvement, ScorerMetrics};
use super::statistics::{BootstrapOptions, Rate, StatisticsError};

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
    #[error("cannot write {}: {source}\nhint: choose another output folder or make room", path.display())]
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
        let column = |scorer, scored, against: Option<usize>| Column {
            scorer,
            taught: against.is_some(),
            scored,
            against,
        };
        let columns = [
            column("prompt_tuned", adapted, Some(1)),
            column("zero_shot", zero_shot, None),
        ];
        let evaluation = Evaluation::of(test, false, &columns, bootstrap)?;
        Ok(Self::of_rows(&evaluation, [0, 1], test, adapted.scores))
    }

    /// Two rows of an evaluation as the recipe's file holds them: `rows[0]`, with `scores` and a difference to `rows[1]`, as
    /// `prompt_tuned` and the other as `zero_shot`.
    ///
    /// # Panics
    /// If there are no such rows, or the first is held against none.
    pub fn of_rows(
        evaluation: &Evaluation,
        rows: [usize; 2],
        test: &TestSet<'_>,
        scores: &[f64],
    ) -> Self {
        let [adapted, base] = rows.map(|row| &evaluation.rows[row]);
        let split = &evaluation.split;
        Self {
            category: evaluation.category.clone(),
            prompt_tuned: adapted.metrics.clone(),
            zero_shot: base.metrics.clone(),
            improvement: adapted.difference.clone().expect("rows that are compared"),
            protocol: split.protocol.clone(),
            seed: split.seed,
            shots: split.shots,
            test_normals: split.good,
            test_defects: split.defects,
            test_set_hash: split.test_set_hash.clone(),
            bootstrap: evaluation.bootstrap,
            per_defect_type: per_type(&adapted.by_type, &base.by_type),
            worst_false_alarms: worst_errors(test.ids, test.defect_types, scores, false),
            worst_misses: worst_errors(test.ids, test.defect_types, scores, true),
        }
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

fn per_type(
    adapted: &BTreeMap<String, RowType>,
    zero_shot: &BTreeMap<String, RowType>,
) -> BTreeMap<String, TypeMetrics> {
    let both = adapted.iter().zip(zero_shot.values());
    both.map(|((name, adapted), zero_shot)| {
        let metrics = TypeMetrics {
            images: adapted.images,
            prompt_tuned_auroc: adapted.auroc,
            zero_shot_auroc: zero_shot.auroc,
            prompt_tuned_found: adapted.found,
            zero_shot_found: zero_shot.found,
        };
        (name.clone(), metrics)
    })
    .collect()
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
