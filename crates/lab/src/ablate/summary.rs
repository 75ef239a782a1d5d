//! Over the seeds: mean and spread of each scorer, and its difference to the strongest one that saw no defect.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{AblateError, RunResult, Setting, Study, is_zero_shot};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::{
    BootstrapOptions, PairedInterval, RankingMetric, SeedScores, holm, paired_bootstrap_over_seeds,
};

/// Mean and unbiased standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation; `None` of one seed.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        Some(Self {
            mean,
            deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
        })
    }
}

/// A scorer against the strongest zero-shot scorer, over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// Column of the zero-shot scorer with the highest mean AUROC on these test sets.
    pub scorer: String,
    /// Its AUROC.
    pub auroc: Spread,
    /// Mean difference of the AUROCs with the paired bootstrap interval over all seeds, and its p-value.
    pub difference: PairedInterval,
    /// That p-value corrected by Holm's method for the categories of the study.
    pub p_holm: f64,
    /// Seeds whose AUROC is higher than the zero-shot scorer's.
    pub wins: usize,
    /// Seeds whose AUROC is lower.
    pub losses: usize,
}

/// One scorer in one category under one setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SummaryRow {
    /// Category.
    pub category: String,
    /// The grid's settings.
    pub settings: Vec<Setting>,
    /// Column of the table of scores.
    pub scorer: String,
    /// Seeds that finished.
    pub seeds: usize,
    /// Area under the ROC curve.
    pub auroc: Spread,
    /// Average precision.
    pub average_precision: Spread,
    /// Against the strongest zero-shot scorer; `None` for zero-shot scorers.
    pub against: Option<Against>,
    /// Whether no other setting has a higher mean AUROC by this scorer in this category.
    pub best: bool,
    /// Whether training images are among the tested: such numbers are not a result.
    pub leaky: bool,
}

/// The rows of a study, and what is missing from them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Rows, in the study's order.
    pub rows: Vec<SummaryRow>,
    /// Runs that failed.
    pub failed: usize,
    /// Runs that are not over.
    pub open: usize,
}

/// Sums up the runs that are over.
///
/// # Errors
/// Tables of scores that cannot be read, or that do not fit together.
pub fn summarise(
    study: &Study,
    results: &[Option<RunResult>],
    bootstrap: &BootstrapOptions,
) -> Result<Summary, AblateError> {
    let mut summary = Summary {
        failed: results
            .iter()
            .flatten()
            .filter(|r| r.finished().is_none())
            .count(),
        open: results.iter().filter(|r| r.is_none()).count(),
        ..Summary::default()
    };
    // the runs of one category and point stand together
    for (specs, results) in study
        .runs
        .chunks(study.seeds.len())
        .zip(results.chunks(study.seeds.len()))
    {
        let mut tables = Vec::new();
        let mut leaky = false;
        for (spec, result) in specs.iter().zip(results) {
            if let Some(found) = result.as_ref().and_then(RunResult::finished) {
                let file = format!("{}_scores.csv", spec.category);
                tables.push((
                    found,
                    ScoreTable::read(&study.folder.join(spec.folder()).join(file), None)?,
                ));
                leaky |= found.leaky;
            }
        }
        let Some(spec) = specs.first().filter(|_| !tables.is_empty()) else {
            continue;
        };
        let group = Group::new(&tables);
        for scorer in group.scorers() {
            let Some((auroc, precision)) = group.spreads(&scorer) else {
                continue;
            };
            summary.rows.push(SummaryRow {
                category: spec.category.clone(),
                settings: spec.point.clone(),
                against: if is_zero_shot(&scorer) {
                    None
                } else {
                    group.against(&scorer, bootstrap)?
                },
                scorer,
                seeds: tables.len(),
                auroc,
                average_precision: precision,
                best: false,
                leaky,
            });
        }
    }
    correct(&mut summary.rows);
    mark_best(&mut summary.rows);
    Ok(summary)
}

/// The seeds of one category and point.
struct Group<'a> {
    seeds: &'a [(&'a super::result::Finished, ScoreTable)],
    /// AUROC and average precision of each seed, by scorer, of scorers that every seed has.
    metrics: BTreeMap<&'a str, Vec<(f64, f64)>>,
}

impl<'a> Group<'a> {
    fn new(seeds: &'a [(&'a super::result::Finished, ScoreTable)]) -> Self {
        let mut metrics: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for (found, _) in seeds {
            for scorer in &found.scorers {
                if let Some(auroc) = scorer.auroc {
                    metrics
                        .entry(&scorer.scorer)
                        .or_default()
                        .push((auroc, scorer.average_precision));
                }
            }
        }
        metrics.retain(|_, values| values.len() == seeds.len());
        Self { seeds, metrics }
    }

    /// In the order of the first seed's columns.
    fn scorers(&self) -> Vec<String> {
        let columns = self
            .seeds
            .first()
            .map_or(&[][..], |(_, table)| &table.columns);
        columns
            .iter()
            .map(|c| c.0.clone())
            .filter(|c| self.metrics.contains_key(c.as_str()))
            .collect()
    }

    fn spreads(&self, scorer: &str) -> Option<(Spread, Spread)> {
        let values = self.metrics.get(scorer)?;
        let of = |f: fn(&(f64, f64)) -> f64| Spread::of(&values.iter().map(f).collect::<Vec<_>>());
        of(|v| v.0).zip(of(|v| v.1))
    }

    /// The zero-shot scorer with the highest mean AUROC; the first of equals.
    fn strongest(&self) -> Option<(String, Spread)> {
        let mut best: Option<(String, Spread)> = None;
        for scorer in self.scorers().into_iter().filter(|s| is_zero_shot(s)) {
            let (auroc, _) = self.spreads(&scorer)?;
            if best.as_ref().is_none_or(|(_, b)| auroc.mean > b.mean) {
                best = Some((scorer, auroc));
            }
        }
        best
    }

    fn against(
        &self,
        scorer: &str,
        bootstrap: &BootstrapOptions,
    ) -> Result<Option<Against>, AblateError> {
        let Some((base, auroc)) = self.strongest() else {
            return Ok(None);
        };
        let rows: Vec<(Vec<&str>, Vec<bool>)> = self
            .seeds
            .iter()
            .map(|(_, t)| (t.ids.iter().map(String::as_str).collect(), t.labels()))
            .collect();
        let mut pairs = Vec::new();
        for ((_, table), (ids, labels)) in self.seeds.iter().zip(&rows) {
            let (Some(first), Some(second)) = (table.column(scorer), table.column(&base)) else {
                return Ok(None);
            };
            pairs.push(SeedScores {
                ids,
                labels,
                first,
                second,
            });
        }
        let difference = paired_bootstrap_over_seeds(&pairs, RankingMetric::Auroc, bootstrap)?;
        let (own, other) = (&self.metrics[scorer], &self.metrics[base.as_str()]);
        let count =
            |f: fn(f64, f64) -> bool| own.iter().zip(other).filter(|(a, b)| f(a.0, b.0)).count();
        Ok(Some(Against {
            wins: count(|a, b| a > b),
            losses: count(|a, b| a < b),
            scorer: base,
            auroc,
            p_holm: difference.p_value,
            difference,
        }))
    }
}

/// Corrects the p-values of one scorer at one point for the categories they are asked of.
fn correct(rows: &mut [SummaryRow]) {
    let mut families: BTreeMap<(String, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate().filter(|(_, r)| r.against.is_some()) {
        let settings = row.settings.iter().map(Setting::to_string).collect();
        families
            .entry((row.scorer.clone(), settings))
            .or_default()
            .push(at);
    }
    for family in families.values() {
        let p: Vec<f64> = family
            .iter()
            .filter_map(|&at| rows[at].against.as_ref())
            .map(|a| a.difference.p_value)
            .collect();
        for (&at, corrected) in family.iter().zip(holm(&p)) {
            if let Some(against) = &mut rows[at].against {
                against.p_holm = corrected;
            }
        }
    }
}

fn mark_best(rows: &mut [SummaryRow]) {
    let mut best: BTreeMap<(String, String), usize> = BTreeMap::new();
    for at in 0..rows.len() {
        let key = (rows[at].category.clone(), rows[at].scorer.clone());
        let so_far = *best.entry(key.clone()).or_insert(at);
        if rows[at].auroc.mean > rows[so_far].auroc.mean {
            best.insert(key, at);
        }
    }
    for at in best.into_values() {
        rows[at].best = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablate::result::{Finished, ScorerResult, Status};
    use std::path::Path;

    /// Ten images: the lower a seed, the more of its `adapted` scores are right; `zero_shot` ranks half of them right.
    fn table(seed: u64) -> ScoreTable {
        let ids = (0..10).map(|i| format!("test/{i}.png")).collect();
        let defect_types = (0..10)
            .map(|i| (i >= 5).then(|| "hole".to_owned()))
            .collect();
        let good: Vec<f64> = (0..10)
            .map(|i| {
                if i == 5 && seed == 1 {
                    0.5
                } else {
                    f64::from(i)
                }
            })
            .collect();
        let weak: Vec<f64> = (0..10).map(|i| f64::from(i % 5)).collect();
        ScoreTable {
            ids,
            defect_types,
            columns: vec![("zero_shot".into(), weak), ("prompt_tuned".into(), good)],
        }
    }

    fn finished(study: &Study, at: usize) -> RunResult {
        let spec = &study.runs[at];
        let folder = study.folder.join(spec.folder());
        std::fs::create_dir_all(&folder).unwrap();
        let table = table(spec.seed);
        table
            .write(&folder.join(format!("{}_scores.csv", spec.category)))
            .unwrap();
        let found = Finished {
            protocol: "held-out".into(),
            leaky: false,
            shots: 1,
            test_normals: 5,
            test_defects: 5,
            test_set_hash: "h".into(),
            trainable: 1,
            epochs: 1,
            kept_epoch: 1,
            guard_falls_back: None,
            comparison: None,
            scorers: ScorerResult::of_table(&table).unwrap(),
        };
        RunResult::new(spec, Status::Finished(Box::new(found)), vec![], 1.0)
    }

    fn study(folder: &Path) -> Study {
        let categories = vec!["x".into(), "y".into()];
        Study::new(
            folder.to_owned(),
            vec!["a=1,2".parse().unwrap()],
            categories,
            vec![0, 1],
        )
        .unwrap()
    }

    #[test]
    fn means_differences_and_wins_are_those_worked_out_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let study = study(folder.path());
        let results: Vec<Option<RunResult>> = (0..8).map(|i| Some(finished(&study, i))).collect();
        let options = BootstrapOptions {
            replicates: 200,
            ..BootstrapOptions::default()
        };
        let summary = summarise(&study, &results, &options).unwrap();
        assert_eq!(
            (summary.rows.len(), summary.failed, summary.open),
            (8, 0, 0)
        );
        let row = &summary.rows[1];
        assert_eq!(
            (row.category.as_str(), row.scorer.as_str(), row.seeds),
            ("x", "prompt_tuned", 2)
        );
        // seed 0 ranks all 25 pairs right; in seed 1 one defect lies below four good images: 21 of 25
        assert!((row.auroc.mean - 0.92).abs() < 1e-12);
        assert!((row.auroc.deviation.unwrap() - 0.16 / 2f64.sqrt()).abs() < 1e-12);
        let against = row.against.as_ref().unwrap();
        assert_eq!(
            (against.scorer.as_str(), against.wins, against.losses),
            ("zero_shot", 2, 0)
        );
        assert!((against.auroc.mean - 0.5).abs() < 1e-12);
        assert!((against.difference.difference - 0.42).abs() < 1e-12);
        // two categories with the same p-value: the correction doubles it
        assert!((against.p_holm - (2.0 * against.difference.p_value).min(1.0)).abs() < 1e-12);
        assert!(
            summary.rows[0].against.is_none(),
            "zero-shot has nothing to be compared with"
        );
        // both points are alike: the first is the best
        let best: Vec<bool> = summary.rows.iter().map(|r| r.best).collect();
        assert_eq!(best, [true, true, false, false, true, true, false, false]);
    }

    #[test]
    fn failed_and_open_runs_are_counted_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let study = study(folder.path());
        let mut results: Vec<Option<RunResult>> =
            (0..8).map(|i| Some(finished(&study, i))).collect();
        results[1] = Some(RunResult::new(
            &study.runs[1],
            Status::Failed { error: "no".into() },
            vec![],
            0.0,
        ));
        results[2] = None;
        results[3] = None;
        let options = BootstrapOptions {
            replicates: 50,
            ..BootstrapOptions::default()
        };
        let summary = summarise(&study, &results, &options).unwrap();
        assert_eq!(
            (summary.failed, summary.open, summary.rows.len()),
            (1, 2, 6)
        );
        assert_eq!(
            (summary.rows[0].seeds, summary.rows[0].auroc.deviation),
            (1, None)
        );
    }

    #[test]
    fn a_spread_is_unbiased() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(
            Spread::of(&[2.0]),
            Some(Spread {
                mean: 2.0,
                deviation: None
            })
        );
        let got = Spread::of(&[1.0, 2.0, 4.0]).unwrap();
        assert!((got.deviation.unwrap() - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
