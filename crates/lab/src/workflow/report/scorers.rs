//! What a run's numbers and scores become on the page, scorer by scorer.

use super::super::{DetectorEvaluation, HeldOutThresholds, WorkflowError};
use super::read::RunData;
use flawtune::evaluate::comparison::{Comparison, ScorerMetrics, WorstError, worst_errors};
use flawtune::evaluate::metrics::{auroc, pr_curve, roc_curve_corners};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::{Interval, Rate};
use flawtune::report::page::{self, Cell, Estimate, Table, TypeResult};
use flawtune::report::plot::{Line, Plot, Population};

/// AUROC of a column may differ from the file's by rounding only.
const SAME: f64 = 1e-9;

/// Scores with and without what was learned, and what `evaluate` made of them.
pub(super) struct Scorer<'a> {
    /// In words.
    pub(super) name: &'static str,
    /// Columns of the scores.
    adapted: &'static str,
    zero_shot: &'static str,
    pub(super) comparison: &'a Comparison,
    pub(super) thresholds: Option<&'a HeldOutThresholds>,
    /// Shown with curves, decisions and images, not only as a number.
    pub(super) main: bool,
}

/// The scorers of a comparison, the prompts first.
pub(super) fn scorers(data: &RunData) -> Vec<Scorer<'_>> {
    let Some(evaluation) = &data.evaluation else {
        return Vec::new();
    };
    let mut found = vec![Scorer {
        name: "prompts",
        adapted: "prompt_tuned",
        zero_shot: "zero_shot",
        comparison: &evaluation.comparison,
        thresholds: evaluation.thresholds.as_ref(),
        main: true,
    }];
    if let Some(ensemble) = &evaluation.ensemble {
        found.push(Scorer {
            name: "ensemble",
            adapted: "ensemble",
            zero_shot: "ensemble_zero_shot",
            comparison: &ensemble.comparison,
            thresholds: ensemble.thresholds.as_ref(),
            main: true,
        });
    }
    if let Some(tokens) = &evaluation.adapted_tokens {
        let of = |name, adapted, comparison| Scorer {
            name,
            adapted,
            zero_shot: "zero_shot_bank",
            comparison,
            thresholds: None,
            main: false,
        };
        found.extend([
            of("patch bank on adapted tokens", "adapted_bank", &tokens.bank),
            of(
                "ensemble on adapted tokens",
                "adapted_ensemble",
                &tokens.ensemble,
            ),
            of(
                "ensemble on frozen tokens",
                "frozen_ensemble",
                &tokens.frozen_ensemble,
            ),
        ]);
    }
    found
}

impl Scorer<'_> {
    /// AUROC and average precision beside zero-shot.
    pub(super) fn headline(&self) -> Vec<page::Comparison> {
        let (c, name) = (self.comparison, self.name);
        let level = 100.0 * c.bootstrap.level;
        let difference = |value: Option<f64>, interval: Option<[f64; 2]>| Estimate {
            value,
            interval,
            deviation: None,
        };
        let paired = |i: &flawtune::evaluate::statistics::PairedInterval| [i.low, i.high];
        let mut all = vec![page::Comparison {
            metric: format!("AUROC, {name}"),
            zero_shot: estimate(c.zero_shot.auroc, c.zero_shot.auroc_interval.as_ref()),
            adapted: estimate(c.prompt_tuned.auroc, c.prompt_tuned.auroc_interval.as_ref()),
            difference: difference(
                c.improvement.auroc,
                c.improvement.auroc_interval.as_ref().map(paired),
            ),
            p_value: c.improvement.delong.and_then(|d| d.p_value),
            method: format!("{level:.0} % paired bootstrap, DeLong's test"),
        }];
        if self.main {
            let (a, z) = (&c.prompt_tuned, &c.zero_shot);
            all.push(page::Comparison {
                metric: format!("Average precision, {name}"),
                zero_shot: estimate(
                    Some(z.average_precision),
                    z.average_precision_interval.as_ref(),
                ),
                adapted: estimate(
                    Some(a.average_precision),
                    a.average_precision_interval.as_ref(),
                ),
                difference: difference(
                    Some(c.improvement.average_precision),
                    c.improvement
                        .average_precision_interval
                        .as_ref()
                        .map(paired),
                ),
                p_value: c
                    .improvement
                    .average_precision_interval
                    .as_ref()
                    .map(|i| i.p_value),
                method: format!("{level:.0} % paired bootstrap"),
            });
        }
        all
    }

    /// Rows by defect type; `unseen` where no type of the test set was learned from.
    pub(super) fn types(&self, seen: Option<bool>) -> Vec<TypeResult> {
        let one = |(kind, m): (&String, &flawtune::evaluate::comparison::TypeMetrics)| TypeResult {
            defect_type: kind.clone(),
            images: m.images,
            seen,
            zero_shot: Estimate {
                value: m.zero_shot_auroc,
                ..Estimate::default()
            },
            adapted: Estimate {
                value: m.prompt_tuned_auroc,
                ..Estimate::default()
            },
            found: m.prompt_tuned_found.map(|r| rate(&r)).unwrap_or_default(),
            scorer: self.name.to_owned(),
        };
        self.comparison.per_defect_type.iter().map(one).collect()
    }

    /// Right and wrong decisions, adapted and zero-shot.
    pub(super) fn decisions(&self) -> Vec<Vec<Cell>> {
        let of = |what: &str, m: &ScorerMetrics| {
            let (threshold, counts) = (m.threshold?, m.confusion?);
            let text = |r: &Option<Rate>| Cell::Text(r.map(|r| percent(&r)).unwrap_or_default());
            Some(vec![
                Cell::Text(format!("{}, {what}", self.name)),
                Cell::Number(threshold),
                Cell::Number(counts.true_positives as f64),
                Cell::Number(counts.false_negatives as f64),
                Cell::Number(counts.false_positives as f64),
                Cell::Number(counts.true_negatives as f64),
                text(&m.found),
                text(&m.false_alarms),
            ])
        };
        let c = self.comparison;
        [
            of("adapted", &c.prompt_tuned),
            of("zero-shot", &c.zero_shot),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// ROC, precision-recall and histograms; says what is wrong where the scores are not those of the comparison.
    pub(super) fn plots(&self, scores: &ScoreTable) -> Result<Plots, WorkflowError> {
        let labels = scores.labels();
        let (Some(adapted), Some(zero_shot)) =
            (scores.column(self.adapted), scores.column(self.zero_shot))
        else {
            return Ok(Plots::wrong(format!(
                "the scores have no column {} or {}",
                self.adapted, self.zero_shot
            )));
        };
        let c = self.comparison;
        for (values, metrics) in [(adapted, &c.prompt_tuned), (zero_shot, &c.zero_shot)] {
            let found = if labels.is_empty() {
                None
            } else {
                auroc(&labels, values)?
            };
            let same = match (found, metrics.auroc) {
                (Some(a), Some(b)) => (a - b).abs() < SAME,
                (a, b) => a.is_some() == b.is_some(),
            };
            if !same || labels.len() != c.test_normals + c.test_defects {
                return Ok(Plots::wrong(
                    "the scores are not those of the comparison (its AUROC or number of images is another)"
                        .to_owned(),
                ));
            }
        }
        let pairs = [("adapted", adapted, false), ("zero-shot", zero_shot, true)];
        let (curves, mut histograms) = (curves(self.name, &labels, &pairs)?, Vec::new());
        for (what, values, metrics) in [
            ("adapted", adapted, &c.prompt_tuned),
            ("zero-shot", zero_shot, &c.zero_shot),
        ] {
            histograms.push(histogram(
                &format!("{}, {what}", self.name),
                &labels,
                values,
                metrics.threshold,
            ));
        }
        Ok(Plots {
            curves,
            histograms,
            wrong: None,
        })
    }

    /// The most wrong images: false alarms, then misses.
    pub(super) fn worst(&self) -> [(&'static str, &[WorstError]); 2] {
        [
            ("false alarms", &self.comparison.worst_false_alarms),
            ("misses", &self.comparison.worst_misses),
        ]
    }

    pub(super) fn column<'a>(&self, scores: &'a ScoreTable) -> Option<&'a [f64]> {
        scores.column(self.adapted)
    }
}

/// The plots of a scorer, or why there are none.
#[derive(Default)]
pub(super) struct Plots {
    pub(super) curves: Vec<Plot>,
    pub(super) histograms: Vec<Plot>,
    pub(super) wrong: Option<String>,
}

impl Plots {
    fn wrong(why: String) -> Self {
        Self {
            wrong: Some(why),
            ..Self::default()
        }
    }
}

/// ROC and precision-recall of some scores of one test set: name, scores, and whether they are a baseline.
pub(super) fn curves(
    name: &str,
    labels: &[bool],
    lines: &[(&str, &[f64], bool)],
) -> Result<Vec<Plot>, WorkflowError> {
    let defects = labels.iter().filter(|l| **l).count();
    if defects == 0 || defects == labels.len() {
        return Ok(Vec::new());
    }
    let (mut roc, mut pr) = (Vec::new(), Vec::new());
    for (what, scores, dashed) in lines {
        let found = roc_curve_corners(labels, scores)?;
        let points = found
            .fpr
            .iter()
            .zip(&found.tpr)
            .map(|(x, y)| [*x, *y])
            .collect();
        roc.push(Line {
            dashed: *dashed,
            ..Line::new(*what, points)
        });
        let found = pr_curve(labels, scores)?;
        let points = found
            .recall
            .iter()
            .zip(&found.precision)
            .map(|(x, y)| [*x, *y])
            .collect();
        pr.push(Line {
            dashed: *dashed,
            ..Line::new(*what, points)
        });
    }
    let prevalence = defects as f64 / labels.len() as f64;
    Ok(vec![
        Plot::roc(format!("ROC: {name}"), roc),
        Plot::precision_recall(format!("Precision and recall: {name}"), pr, prevalence),
    ])
}

pub(super) fn histogram(
    name: &str,
    labels: &[bool],
    scores: &[f64],
    threshold: Option<f64>,
) -> Plot {
    let of = |label: bool, name: &str| Population {
        name: name.to_owned(),
        values: labels
            .iter()
            .zip(scores)
            .filter(|(l, _)| **l == label)
            .map(|(_, s)| *s)
            .collect(),
    };
    Plot::scores(
        format!("Scores: {name}"),
        vec![of(false, "good"), of(true, "defective")],
        threshold,
    )
}

/// Columns of [`Scorer::decisions`].
pub(super) fn decision_columns() -> Vec<String> {
    [
        "scorer",
        "threshold",
        "found",
        "missed",
        "false alarms",
        "good passed",
        "share found",
        "share of false alarms",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// How thresholds were chosen, in words.
pub(super) fn threshold_note(scorers: &[Scorer<'_>]) -> String {
    let mut notes: Vec<String> = Vec::new();
    for scorer in scorers {
        let Some(t) = scorer.thresholds else { continue };
        let promise = if t.reachable > t.max_false_alarm {
            format!(
                "; so few images can promise {:.1} % at best",
                100.0 * t.reachable
            )
        } else {
            String::new()
        };
        notes.push(format!(
            "{}: from {} good images that it had not seen, for at most {} % false alarms{promise}.",
            scorer.name,
            t.images,
            100.0 * t.max_false_alarm
        ));
    }
    if notes.is_empty() {
        return String::new();
    }
    format!(
        "Thresholds were chosen without a tested image: {}",
        notes.join(" ")
    )
}

/// The result of a bundle as a tile.
pub(super) fn bundle_headline(found: &DetectorEvaluation) -> Vec<page::Comparison> {
    let tile = |metric: String, adapted| page::Comparison {
        metric,
        adapted,
        ..page::Comparison::default()
    };
    let mut tiles = vec![tile(
        format!("AUROC, detector ({})", found.shipped().scorer),
        estimate(
            found.shipped().metrics.auroc,
            found.shipped().metrics.auroc_interval.as_ref(),
        ),
    )];
    if let Some(pixels) = &found.shipped().pixels {
        let value = |value| Estimate {
            value,
            ..Estimate::default()
        };
        tiles.push(tile(
            "Pixel AUROC, detector".to_owned(),
            value(pixels.metrics.auroc),
        ));
        tiles.push(tile(
            format!("AUPRO to {}, detector", pixels.aupro_limit),
            value(pixels.metrics.aupro),
        ));
    }
    tiles
}

/// A bundle by defect type.
pub(super) fn bundle_types(found: &DetectorEvaluation) -> Table {
    let value = |value| {
        Cell::Estimate(Estimate {
            value,
            ..Estimate::default()
        })
    };
    let rows = found.shipped().by_type.iter().map(|(kind, t)| {
        let pixels = t.pixels.as_ref().map(|p| &p.metrics);
        vec![
            Cell::Text(kind.clone()),
            Cell::Number(t.images as f64),
            value(t.auroc),
            Cell::Text(t.found.map(|r| rate(&r)).unwrap_or_default()),
            value(pixels.and_then(|p| p.auroc)),
            value(pixels.and_then(|p| p.aupro)),
        ]
    });
    Table {
        title: "Detector, by defect type".to_owned(),
        note: format!(
            "Threshold {:.4}, chosen when the detector was fitted.",
            found.shipped().metrics.threshold.unwrap_or(f64::NAN)
        ),
        columns: [
            "defect type",
            "test images",
            "AUROC",
            "found at the threshold",
            "pixel AUROC",
            "AUPRO",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

/// The most wrong images of a bundle's scores: false alarms, then misses.
pub(super) fn bundle_worst(scores: &ScoreTable) -> Vec<(&'static str, Vec<WorstError>)> {
    let Some(values) = scores.column("score") else {
        return Vec::new();
    };
    let ids: Vec<&str> = scores.ids.iter().map(String::as_str).collect();
    let kinds: Vec<Option<&str>> = scores.defect_types.iter().map(Option::as_deref).collect();
    let of = |defective| worst_errors(&ids, &kinds, values, defective);
    vec![("false alarms", of(false)), ("misses", of(true))]
}

/// `12 of 30, 40.0 % [24.6, 57.7]`.
pub(super) fn rate(rate: &Rate) -> String {
    format!("{} of {}, {}", rate.count, rate.of, percent(rate))
}

/// `40.0 % [24.6, 57.7]`, on one line.
fn percent(rate: &Rate) -> String {
    format!(
        "{:.1}\u{a0}% [{:.1},\u{a0}{:.1}]",
        100.0 * rate.share,
        100.0 * rate.low,
        100.0 * rate.high
    )
}

pub(super) fn estimate(value: Option<f64>, interval: Option<&Interval>) -> Estimate {
    Estimate {
        value,
        interval: interval.map(|i| [i.low, i.high]),
        deviation: None,
    }
}
