//! Rows of images: the most wrong ones, and what was found where.

use std::collections::BTreeSet;

use super::super::pictures::Pictures;
use super::super::read::RunData;
use super::super::scorers::{self, Scorer};
use flawtune::evaluate::comparison::WorstError;
use flawtune::report::page::{Example, Gallery, RunReport};

/// Maps are of the detector that `predict` ran, whatever scorer the row is about.
const OF_PREDICT: &str = "In a map the outline is what reaches the map's threshold, the \
                          box its largest part.";

/// Worst errors of every scorer, and overlays of the oddest images.
pub(super) fn galleries(
    data: &RunData,
    scorers: &[Scorer<'_>],
    pictures: &mut Pictures<'_>,
    thumbnails: usize,
    report: &mut RunReport,
) {
    let rows = |name: &str,
                threshold: Option<f64>,
                worst: &[(&str, &[WorstError])],
                pictures: &mut Pictures<'_>| {
        let mut galleries = Vec::new();
        for (what, errors) in worst {
            let good = *what == "false alarms";
            let note = if pictures.any_overlay() {
                OF_PREDICT
            } else {
                ""
            };
            let example = |e: &WorstError| Example {
                path: e.id.clone(),
                verdict: verdict(e, threshold),
                score: Some(e.score),
                pictures: pictures.of(&e.id),
            };
            let title = if good {
                format!("Good images with the highest scores: {name}")
            } else {
                format!("Defective images with the lowest scores: {name}")
            };
            galleries.push(Gallery {
                title,
                note: note.to_owned(),
                examples: errors.iter().take(thumbnails).map(example).collect(),
            });
        }
        galleries
    };
    for scorer in scorers.iter().filter(|s| s.main) {
        let threshold = scorer.comparison.prompt_tuned.threshold;
        report
            .errors
            .extend(rows(scorer.name, threshold, &scorer.worst(), pictures));
    }
    if let (Some(found), Some(scores)) = (&data.detection, &data.predictions) {
        let worst = scorers::bundle_worst(scores);
        let worst: Vec<(&str, &[WorstError])> = worst
            .iter()
            .map(|(what, list)| (*what, &list[..]))
            .collect();
        report.errors.extend(rows(
            "detector",
            found.shipped().metrics.threshold,
            &worst,
            pictures,
        ));
    }
    report
        .findings
        .extend(findings(data, scorers, pictures, thumbnails));
}

fn verdict(error: &WorstError, threshold: Option<f64>) -> String {
    let kind = error.defect_type.as_deref().unwrap_or("good");
    let called = called(error.score, threshold);
    let share = 100.0 * error.wrong_share;
    match error.defect_type {
        Some(_) => format!("{kind}{called}: lower than {share:.0} % of the good"),
        None => format!("{kind}{called}: higher than {share:.0} % of the defects"),
    }
}

/// The images with the highest scores that have an overlay: one of each kind, then whatever comes first.
fn findings(
    data: &RunData,
    scorers: &[Scorer<'_>],
    pictures: &mut Pictures<'_>,
    thumbnails: usize,
) -> Vec<Gallery> {
    let detection = data.detection.as_ref();
    let found = match (
        &data.predictions,
        &data.scores,
        scorers.iter().rfind(|s| s.main),
    ) {
        (Some(p), _, _) => p.column("score").map(|v| {
            (
                "detector",
                p,
                v,
                detection.and_then(|d| d.shipped().metrics.threshold),
            )
        }),
        (None, Some(s), Some(scorer)) => scorer
            .column(s)
            .map(|v| (scorer.name, s, v, scorer.comparison.prompt_tuned.threshold)),
        _ => None,
    };
    let Some((name, scores, values, threshold)) = found else {
        return Vec::new();
    };
    let mut order: Vec<usize> = (0..values.len())
        .filter(|&i| pictures.has_overlay(&scores.ids[i]))
        .collect();
    order.sort_by(|&a, &b| {
        values[b]
            .total_cmp(&values[a])
            .then_with(|| scores.ids[a].cmp(&scores.ids[b]))
    });
    let kind = |i: usize| scores.defect_types[i].as_deref().unwrap_or("good");
    let mut example = |&i: &usize| Example {
        path: scores.ids[i].clone(),
        verdict: format!("{}{}", kind(i), called(values[i], threshold)),
        score: Some(values[i]),
        pictures: pictures.of(&scores.ids[i]),
    };
    let mut kinds = BTreeSet::new();
    let firsts: Vec<usize> = order
        .iter()
        .copied()
        .filter(|&i| kinds.insert(kind(i)))
        .collect();
    let mut galleries = Vec::new();
    for (title, chosen) in [
        ("The highest score of each kind", &firsts),
        ("Highest scores", &order),
    ] {
        let examples: Vec<Example> = chosen.iter().take(thumbnails).map(&mut example).collect();
        if !examples.is_empty() {
            let note = if galleries.is_empty() { OF_PREDICT } else { "" };
            galleries.push(Gallery {
                title: format!("{title}: {name}"),
                note: note.to_owned(),
                examples,
            });
        }
    }
    galleries
}

/// What a score is taken for, in a verdict.
fn called(score: f64, threshold: Option<f64>) -> &'static str {
    match threshold {
        Some(t) if score >= t => ", called defective",
        Some(_) => ", called good",
        None => "",
    }
}
