//! Several runs side by side: one table, plots of all, and what must be said before they are compared.

use std::collections::{BTreeMap, BTreeSet};

use super::super::WorkflowError;
use super::build::LEAKY;
use super::read::RunData;
use super::scorers::{self, Scorer};
use flawtune::evaluate::metrics::roc_curve_corners;
use flawtune::evaluate::statistics::Rate;
use flawtune::report::page::{Cell, Gallery, Page, RunReport, Table};
use flawtune::report::plot::{Axis, Bar, BarSeries, Chart, Line, Plot};

/// Lines in one plot that can still be told apart.
const MOST_LINES: usize = 6;

/// The page of some runs; for one run only what it has itself.
pub(super) fn page(runs: Vec<RunReport>, data: &[RunData]) -> Result<Page, WorkflowError> {
    if runs.len() < 2 {
        return Ok(Page {
            title: runs.first().map(|r| r.title.clone()).unwrap_or_default(),
            runs,
            ..Page::default()
        });
    }
    Ok(Page {
        title: format!("{} runs", runs.len()),
        summary: "Results side by side, then each run on its own.".to_owned(),
        warnings: warnings(&runs, data),
        findings: findings(&runs),
        table: table(&runs, data),
        curves: curves(&runs, data)?,
        runs,
    })
}

/// What each run found first, for the top of the page.
fn findings(runs: &[RunReport]) -> Vec<Gallery> {
    let mut all: Vec<Gallery> = Vec::new();
    for (run, first) in runs
        .iter()
        .filter_map(|run| Some((run, run.findings.first()?)))
    {
        let note = if all.is_empty() {
            first.note.clone()
        } else {
            String::new()
        };
        all.push(Gallery {
            title: run.title.clone(),
            note,
            examples: first.examples.clone(),
        });
    }
    all
}

/// Whether the runs' numbers may be compared.
fn warnings(runs: &[RunReport], data: &[RunData]) -> Vec<String> {
    let mut out = Vec::new();
    // nobody compares categories with each other
    let mut sets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in data {
        sets.entry(&one.files.category)
            .or_default()
            .extend(tested(one));
    }
    if let Some(sets) = sets.values().find(|sets| sets.len() > 1) {
        out.push(format!(
            "The runs were tested on {} different test sets. Numbers of different test sets cannot be compared with each \
             other; the column 'test set' tells which belong together.",
            sets.len()
        ));
    }
    let leaky: Vec<&str> = runs
        .iter()
        .filter(|r| r.mark == LEAKY)
        .map(|r| r.title.as_str())
        .collect();
    if !leaky.is_empty() {
        out.push(format!(
            "Leaky: {}. Images that were learned from are among the tested; these numbers are not a result.",
            leaky.join(", ")
        ));
    }
    out
}

/// Hashes of the test sets of a run.
fn tested(data: &RunData) -> impl Iterator<Item = &str> {
    let comparison = data
        .evaluation
        .as_ref()
        .map(|e| e.comparison.test_set_hash.as_str());
    let bundle = data
        .detection
        .as_ref()
        .map(|d| d.evaluation.split.test_set_hash.as_str());
    comparison.into_iter().chain(bundle)
}

fn table(runs: &[RunReport], data: &[RunData]) -> Table {
    let mut rows = Vec::new();
    let text = |text: &str| Cell::Text(text.to_owned());
    for (run, data) in runs.iter().zip(data) {
        let marked = |protocol: &str| {
            if run.mark.is_empty() || protocol == run.mark {
                protocol.to_owned()
            } else {
                format!("{protocol}, {}", run.mark)
            }
        };
        // a number of a leaky run is never without that word
        let shown = |v: Option<f64>, interval| {
            if run.mark.is_empty() {
                Cell::Estimate(scorers::estimate(v, interval))
            } else {
                Cell::Text(v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3} {}", run.mark)))
            }
        };
        for scorer in scorers::scorers(data) {
            let Scorer {
                name,
                comparison: c,
                ..
            } = scorer;
            let (a, z) = (&c.prompt_tuned, &c.zero_shot);
            rows.push(vec![
                text(&run.title),
                text(name),
                Cell::Number(c.shots as f64),
                text(&marked(&c.protocol)),
                Cell::Number(c.seed as f64),
                shown(z.auroc, z.auroc_interval.as_ref()),
                shown(a.auroc, a.auroc_interval.as_ref()),
                shown(c.improvement.auroc, None),
                shown(Some(a.average_precision), None),
                share(a.found),
                share(a.false_alarms),
                text(&short(&c.test_set_hash)),
            ]);
        }
        if let Some(d) = &data.detection {
            let (split, own) = (&d.evaluation.split, &d.shipped().metrics);
            // the same file without its defects, where it learned from some
            let tested = &d.evaluation.rows;
            let against = d.shipped().against.as_ref();
            let without = tested.iter().find(|row| Some(&row.scorer) == against);
            let without = without.map(|row| &row.metrics);
            let difference = d.shipped().difference.as_ref().and_then(|i| i.auroc);
            rows.push(vec![
                text(&run.title),
                text(&format!("detector ({})", d.shipped().scorer)),
                Cell::Number(split.shots as f64),
                text(&marked(&split.protocol)),
                Cell::Number(split.seed as f64),
                shown(
                    without.and_then(|m| m.auroc),
                    without.and_then(|m| m.auroc_interval.as_ref()),
                ),
                shown(own.auroc, own.auroc_interval.as_ref()),
                shown(difference, None),
                shown(Some(own.average_precision), None),
                share(own.found),
                share(own.false_alarms),
                text(&short(&split.test_set_hash)),
            ]);
        }
    }
    let columns = [
        "run",
        "scorer",
        "shots",
        "protocol",
        "seed",
        "zero-shot AUROC",
        "adapted AUROC",
        "difference",
        "average precision",
        "found",
        "false alarms",
        "test set",
    ];
    Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows,
        ..Table::default()
    }
}

/// How many of how many.
fn share(rate: Option<Rate>) -> Cell {
    Cell::Text(rate.map_or_else(
        || "–".to_owned(),
        |r| format!("{}\u{a0}of\u{a0}{}", r.count, r.of),
    ))
}

/// The first digits of a hash, to compare by eye.
fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

fn curves(runs: &[RunReport], data: &[RunData]) -> Result<Vec<Plot>, WorkflowError> {
    let mut plots = Vec::new();
    let (mut labels, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut lines = Vec::new();
    for (run, data) in runs.iter().zip(data) {
        let mark = if run.mark.is_empty() {
            String::new()
        } else {
            format!(" ({})", run.mark)
        };
        for scorer in scorers::scorers(data).iter().filter(|s| s.main) {
            let c = scorer.comparison;
            let bar = |m: &flawtune::evaluate::comparison::ScorerMetrics| {
                m.auroc.map(|value| Bar {
                    value,
                    interval: m.auroc_interval.map(|i| [i.low, i.high]),
                })
            };
            let name = format!("{}, {}{mark}", run.title, scorer.name);
            before.push(bar(&c.zero_shot));
            after.push(bar(&c.prompt_tuned));
            let scores = data
                .scores
                .as_ref()
                .filter(|s| s.ids.len() == c.test_normals + c.test_defects);
            if let Some((scores, values)) = scores.and_then(|s| Some((s, scorer.column(s)?)))
                && c.test_normals > 0
                && c.test_defects > 0
            {
                let found = roc_curve_corners(&scores.labels(), values)?;
                let points = found
                    .fpr
                    .iter()
                    .zip(&found.tpr)
                    .map(|(x, y)| [*x, *y])
                    .collect();
                lines.push(Line::new(name.clone(), points));
            }
            labels.push(name);
        }
    }
    if !labels.is_empty() {
        let series = |name: &str, bars| BarSeries {
            name: name.to_owned(),
            bars,
        };
        plots.push(Plot::new(
            "AUROC with its interval",
            Axis::new("AUROC").range(0.0, 1.0),
            Axis::new("run"),
            Chart::Bars {
                labels,
                series: vec![series("zero-shot", before), series("adapted", after)],
                guide: Some(("chance".to_owned(), 0.5)),
            },
        ));
    }
    if (2..=MOST_LINES).contains(&lines.len()) {
        plots.push(Plot::roc("ROC, adapted", lines));
    }
    Ok(plots)
}
