//! A run's data as a page: which numbers, plots and images, and what must be said beside them.

mod galleries;

use flawtune_backbone::models;
use serde_json::Value as Json;

use self::galleries::galleries;
use super::super::{Evaluation, WorkflowError};
use super::pictures::Pictures;
use super::read::RunData;
use super::scorers::{self, Scorer};
use flawtune::evaluate::protocol::{ImageRef, SplitManifest};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::report::page::{Cell, Estimate, RunReport, SplitPart, Table, TypeResult};
use flawtune::report::plot::{Axis, Chart, Guide, Line, Plot};

/// The word beside numbers of images that were learned from.
pub(super) const LEAKY: &str = "leaky";
/// Files that a part of the split lists on the page.
const MOST_FILES: usize = 500;

/// The page of a run; `thumbnails` images at most in each row of examples.
pub(super) fn build(
    data: &RunData,
    records: &[flawtune::record::RunRecord],
    pictures: &mut Pictures<'_>,
    thumbnails: usize,
) -> Result<RunReport, WorkflowError> {
    let category = data.files.category.clone();
    let leaky = data.evaluation.as_ref().is_some_and(|e| e.leaky)
        || data
            .detection
            .as_ref()
            .is_some_and(|d| d.evaluation.split.leaky);
    let mut report = RunReport {
        title: title(data),
        summary: summary(data),
        mark: if leaky {
            LEAKY.to_owned()
        } else {
            String::new()
        },
        protocol: protocol(data, leaky),
        command: super::recorded::commands(records),
        facts: facts(data),
        ..RunReport::default()
    };
    report.facts.extend(super::recorded::facts(records));
    warnings(data, leaky, &mut report.warnings);

    let scorers = scorers::scorers(data);
    report.headline = scorers.iter().flat_map(Scorer::headline).collect();
    let hard = data.evaluation.as_ref().and_then(|e| e.seen_type.as_ref());
    for scorer in scorers.iter().filter(|s| s.main) {
        report.per_type.extend(scorer.types(hard.map(|_| false)));
        report.decisions.rows.extend(scorer.decisions());
        if let Some(scores) = &data.scores {
            let plots = scorer.plots(scores)?;
            report.curves.extend(plots.curves);
            report.histograms.extend(plots.histograms);
            report.warnings.extend(
                plots
                    .wrong
                    .map(|why| format!("No curves of the {} of {category}: {why}.", scorer.name)),
            );
        }
    }
    if let Some(seen) = hard {
        report.per_type.push(TypeResult {
            defect_type: seen.defect_type.clone(),
            images: seen.images,
            seen: Some(true),
            zero_shot: Estimate {
                value: seen.zero_shot_auroc,
                ..Estimate::default()
            },
            adapted: Estimate {
                value: seen.prompt_tuned_auroc,
                ..Estimate::default()
            },
            scorer: "prompts".to_owned(),
            ..TypeResult::default()
        });
    }
    if !report.decisions.rows.is_empty() {
        report.decisions.columns = scorers::decision_columns();
        report.decisions.note = scorers::threshold_note(&scorers);
    }
    bundle(data, &mut report)?;
    report.training = data
        .history
        .as_ref()
        .map(|h| training(h, data))
        .unwrap_or_default();
    report.tables.extend(other_scorers(data));
    report.tables.extend(super::recorded::options(records));
    report.split = split(data);
    if thumbnails > 0 {
        galleries(data, &scorers, pictures, thumbnails, &mut report);
    }
    if let Some((folder, found)) = &data.looks {
        report.projections = found.projections.iter().map(|p| p.plot.clone()).collect();
        if thumbnails > 0 {
            report
                .looks
                .push(super::looks::gallery(folder, found, pictures, thumbnails));
        }
    }
    if leaky {
        for plot in report.curves.iter_mut().chain(&mut report.histograms) {
            plot.title = format!("{} ({LEAKY})", plot.title);
        }
    }
    report.notes.extend(pictures.notes());
    Ok(report)
}

fn title(data: &RunData) -> String {
    let folder = data
        .files
        .folder
        .canonicalize()
        .unwrap_or_else(|_| data.files.folder.clone());
    let place = folder
        .file_name()
        .map_or_else(String::new, |n| format!(" ({})", n.to_string_lossy()));
    format!("{}{place}", data.files.category)
}

fn summary(data: &RunData) -> String {
    let models = [
        data.evaluation.as_ref().map(|e| &e.model_name),
        data.detection.as_ref().map(|d| &d.model_name),
        data.baseline.as_ref().map(|b| &b.model_name),
    ];
    let mut text = done(data);
    if models
        .into_iter()
        .flatten()
        .any(|name| name == models::DEMO)
    {
        text.push_str(
            " The backbone is a small one for demonstrations: these numbers show what flawtune does, not how good it is with a \
             real one.",
        );
    }
    text
}

/// What was done to what.
fn done(data: &RunData) -> String {
    let category = &data.files.category;
    if let Some(Evaluation {
        comparison: c,
        model_name,
        ..
    }) = &data.evaluation
    {
        return format!(
            "{category}: {model_name} with {} defect images learned from, tested on {} good and {} defective images \
             (protocol {}, seed {}).",
            c.shots, c.test_normals, c.test_defects, c.protocol, c.seed
        );
    }
    if let Some(d) = &data.detection {
        return format!(
            "{category}: a detector of {} good images and {} defects, tested on {} good and {} defective images (protocol {}, seed {}).",
            d.support_images,
            d.evaluation.split.shots,
            d.evaluation.split.good,
            d.evaluation.split.defects,
            d.evaluation.split.protocol,
            d.evaluation.split.seed
        );
    }
    if let Some(b) = &data.baseline {
        return format!(
            "{category}: the untouched {} with {} good images, tested on {} good and {} defective images.",
            b.model_name, b.support_images, b.test_normals, b.test_defects
        );
    }
    format!("{category}: trained, not evaluated yet.")
}

fn protocol(data: &RunData, leaky: bool) -> String {
    let name = data
        .evaluation
        .as_ref()
        .map(|e| e.comparison.protocol.clone())
        .or_else(|| {
            data.detection
                .as_ref()
                .map(|d| d.evaluation.split.protocol.clone())
        })
        .or_else(|| data.manifest.as_ref().map(|m| m.protocol.to_string()));
    let Some(name) = name else {
        return String::new();
    };
    let meaning = if leaky {
        "images that were learned from are among the tested, as in the original recipe; such numbers are not a result"
    } else if name.starts_with("hard") {
        "the defect images learned from are of one type, and that whole type is left out of the test"
    } else {
        "the pool of defects that may be learned from is left out of the test, for the baseline too"
    };
    format!("Protocol {name}: {meaning}.")
}

fn warnings(data: &RunData, leaky: bool, out: &mut Vec<String>) {
    let category = &data.files.category;
    if leaky {
        out.push(format!(
            "{category}: leaky protocol. Images that were learned from are among the tested; every number marked '{LEAKY}' \
             is for comparison with the original recipe only and is not a result."
        ));
    }
    let Some(evaluation) = &data.evaluation else {
        if data.detection.is_none() && data.baseline.is_none() {
            out.push(format!(
                "{category} was trained but not evaluated: there are no test results. Run 'flawtune evaluate'."
            ));
        }
        return;
    };
    if data.scores.is_none() {
        out.push(format!(
            "{category}: {category}_scores.csv is missing, so there are no curves and no histograms; 'flawtune evaluate' \
             writes it again."
        ));
    }
    if evaluation.prompt_guard.is_some_and(|g| g.fallback) {
        let same = evaluation.comparison.improvement.auroc == Some(0.0);
        out.push(format!(
            "{category}: images left out of training showed no gain by the prompts{}.",
            if same {
                ", so their scores are the zero-shot ones"
            } else {
                "; the guard was switched off"
            }
        ));
    }
    if evaluation
        .ensemble
        .as_ref()
        .is_some_and(|e| e.guard.fallback)
    {
        out.push(format!(
            "{category}: cross-validated over the shots the ensemble lost by them, so its scores are the zero-shot ones."
        ));
    }
    if let Some(manifest) = &data.manifest {
        let c = &evaluation.comparison;
        let other_weights = data
            .checkpoint
            .as_ref()
            .and_then(|p| p.weights_hash.as_ref())
            .is_some_and(|hash| *hash != evaluation.weights_hash);
        if manifest.seed != c.seed || manifest.shots != c.shots || other_weights {
            out.push(format!(
                "{category}: checkpoint and comparison are not of one run (seed {} and {}, {} and {} shots{}); training \
                 curves and split are the checkpoint's, results the comparison's.",
                manifest.seed,
                c.seed,
                manifest.shots,
                c.shots,
                if other_weights { ", other weights" } else { "" }
            ));
        }
    }
}

/// The parts of the page about a bundle.
fn bundle(data: &RunData, report: &mut RunReport) -> Result<(), WorkflowError> {
    let Some(found) = &data.detection else {
        return Ok(());
    };
    report.headline.extend(scorers::bundle_headline(found));
    report.tables.push(scorers::bundle_types(found));
    let Some(scores) = &data.predictions else {
        return Ok(());
    };
    let Some(values) = scores.column("score") else {
        return Ok(());
    };
    let labels = scores.labels();
    report.curves.extend(scorers::curves(
        "detector",
        &labels,
        &[("detector", values, false)],
    )?);
    report.histograms.push(scorers::histogram(
        "detector",
        &labels,
        values,
        found.shipped().metrics.threshold,
    ));
    Ok(())
}

/// Scorers that are told by a number only: the zero-shot banks, supervised heads, the baseline command.
fn other_scorers(data: &RunData) -> Option<Table> {
    let mut rows = Vec::new();
    let value = |value| {
        Cell::Estimate(Estimate {
            value,
            ..Estimate::default()
        })
    };
    let mut row = |name: String, auroc: Cell, precision: f64, learns: &str| {
        rows.push(vec![
            Cell::Text(name),
            auroc,
            value(Some(precision)),
            Cell::Text(learns.to_owned()),
        ]);
    };
    if let Some(ensemble) = data.evaluation.as_ref().and_then(|e| e.ensemble.as_ref()) {
        for one in &ensemble.zero_shot_scorers {
            row(
                one.scorer.clone(),
                value(one.auroc),
                one.average_precision,
                "no",
            );
        }
        for head in &ensemble.supervised {
            let m = &head.comparison.prompt_tuned;
            let auroc = Cell::Estimate(scorers::estimate(m.auroc, m.auroc_interval.as_ref()));
            row(head.scorer.to_string(), auroc, m.average_precision, "yes");
        }
    }
    for one in data.baseline.iter().flat_map(|b| &b.scorers) {
        let auroc = Cell::Estimate(scorers::estimate(one.auroc, one.auroc_interval.as_ref()));
        row(
            format!("{} (baseline)", one.scorer),
            auroc,
            one.average_precision,
            "no",
        );
    }
    (!rows.is_empty()).then(|| Table {
        title: "Other scorers on the same test images".to_owned(),
        columns: [
            "scorer",
            "AUROC",
            "average precision",
            "learns from defects",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
        ..Table::default()
    })
}

/// Loss, separability, similarities and hold-out by epoch.
fn training(history: &Json, data: &RunData) -> Vec<Plot> {
    let list = |name: &str| -> Option<Vec<f64>> {
        let values = history.get(name)?.as_array()?;
        Some(
            values
                .iter()
                .map(|v| v.as_f64().unwrap_or(f64::NAN))
                .collect(),
        )
    };
    let points = |values: Vec<f64>| -> Vec<[f64; 2]> {
        values
            .into_iter()
            .enumerate()
            .map(|(i, v)| [(i + 1) as f64, v])
            .collect()
    };
    let guard = data.evaluation.as_ref().and_then(|e| e.prompt_guard);
    let mut plots = Vec::new();
    for (title, label, columns) in [
        ("Training loss", "loss", &[("loss", "loss")][..]),
        (
            "Separability",
            "separability",
            &[("separability", "separability")],
        ),
        (
            "Mean similarities",
            "cosine similarity",
            &[("mu_nn", "normal to normal"), ("mu_nd", "normal to defect")],
        ),
        (
            "Hold-out",
            "AUROC of held-out images",
            &[("hold_out", "hold-out")],
        ),
    ] {
        let mut lines = Vec::new();
        for (column, name) in columns {
            let Some(values) = list(column) else { continue };
            // an epoch that was not measured is not a gap in the line
            let points: Vec<_> = points(values)
                .into_iter()
                .filter(|p| p[1].is_finite())
                .collect();
            lines.push(Line {
                dots: points.len() <= 60,
                ..Line::new(*name, points)
            });
        }
        if lines.iter().all(|line| line.points.is_empty()) {
            continue;
        }
        let ends = |f: fn(f64, f64) -> f64, start| {
            lines
                .iter()
                .flat_map(|l| &l.points)
                .map(|p| p[0])
                .fold(start, f)
        };
        let (first, last) = (ends(f64::min, f64::INFINITY), ends(f64::max, 1.0));
        let mut guides = Vec::new();
        if let (true, Some(before)) = (
            *columns == [("hold_out", "hold-out")],
            guard.and_then(|g| g.zero_shot),
        ) {
            guides.push(Guide {
                label: "zero-shot".to_owned(),
                from: [first, before],
                to: [last.max(first + 1.0), before],
            });
        }
        let mut x = Axis::new("epoch");
        if first == last {
            x = x.range(first - 0.5, last + 0.5);
        }
        plots.push(Plot::new(
            title,
            x,
            Axis::new(label),
            Chart::Lines { lines, guides },
        ));
    }
    plots
}

fn split(data: &RunData) -> Vec<SplitPart> {
    let part = |name: &str, images: &[ImageRef]| SplitPart {
        name: name.to_owned(),
        images: images.len(),
        hash: ImageRef::digest(images),
        files: some(images.iter().map(|i| i.id.clone()), images.len()),
    };
    let mut parts = Vec::new();
    if let Some(SplitManifest {
        pool,
        shots,
        train_normals,
        holdout_normals,
        ..
    }) = &data.manifest
    {
        let (used, kept) = pool.split_at((*shots).min(pool.len()));
        parts.extend([
            part("defects learned from (shots)", used),
            part(
                "defects kept out of the test with them (rest of the pool)",
                kept,
            ),
            part("good images learned from", train_normals),
            part("good images held out of training", holdout_normals),
        ]);
    }
    let tested = |name: &str, images: usize, hash: &str, scores: Option<&ScoreTable>| SplitPart {
        name: name.to_owned(),
        images,
        hash: hash.to_owned(),
        files: scores
            .map(|s| some(s.ids.iter().cloned(), s.ids.len()))
            .unwrap_or_default(),
    };
    if let Some(Evaluation { comparison: c, .. }) = &data.evaluation {
        let images = c.test_normals + c.test_defects;
        parts.push(tested(
            "tested images",
            images,
            &c.test_set_hash,
            data.scores.as_ref(),
        ));
    }
    if let Some(d) = &data.detection {
        let split = &d.evaluation.split;
        let images = split.good + split.defects;
        parts.push(tested(
            "images tested with the detector",
            images,
            &split.test_set_hash,
            data.predictions.as_ref(),
        ));
    }
    parts
}

/// The first names, and how many more there are.
fn some(names: impl Iterator<Item = String>, all: usize) -> Vec<String> {
    let mut shown: Vec<String> = names.take(MOST_FILES).collect();
    if all > shown.len() {
        shown.push(format!("… and {} more", all - shown.len()));
    }
    shown
}

fn facts(data: &RunData) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    let hash = |hash: &str| hash.to_owned();
    if let Some(e) = &data.evaluation {
        add("flawtune (evaluate)", e.flawtune_version.clone());
        add("backbone", e.model_name.clone());
        add("weights", hash(&e.weights_hash));
        add(
            "support",
            format!(
                "{} good images, {} nearest averaged",
                e.support_images, e.k_neighbors
            ),
        );
        let b = &e.comparison.bootstrap;
        add(
            "intervals",
            format!(
                "{} resamples, {} % level, seed {}",
                b.replicates,
                100.0 * b.level,
                b.seed
            ),
        );
    }
    if let Some(d) = &data.detection {
        add("flawtune (evaluate)", d.flawtune_version.clone());
        add("detector", d.detector.display().to_string());
        add("detector: backbone", d.model_name.clone());
        add("detector: weights", hash(&d.weights_hash));
        add(
            "detector: bank",
            format!(
                "{} good images, {} patches",
                d.support_images, d.bank_patches
            ),
        );
    }
    if let Some(c) = &data.checkpoint {
        if let Some(path) = &data.files.checkpoint {
            add("checkpoint", path.display().to_string());
        }
        let more = [
            ("preprocessing", c.preprocessing.clone()),
            ("layers", c.layers.clone()),
            ("kept epoch", c.best_epoch.map(|e| e.to_string())),
            ("modulation", Some(c.options.modulation.name().to_owned())),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                add(name, value);
            }
        }
        if let Json::Object(args) = crate::adapt::json(&c.args) {
            for (name, value) in args.iter().filter(|(_, v)| !v.is_object() && !v.is_null()) {
                add(
                    &format!("trained with {name}"),
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned),
                );
            }
        }
    }
    facts
}
