//! The study's tables as files, and the summary for people.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;

use super::grid::joined;
use super::summary::{Against, Spread};
use super::{AblateError, RunResult, Status, Study, Summary, SummaryRow, io_error};

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// One row a run.
    pub runs: PathBuf,
    /// One row for each category, settings and scorer, for people.
    pub summary: PathBuf,
}

/// Writes `runs.csv`, `runs.jsonl`, `summary.csv` and `summary.md`. The same results give the same bytes.
///
/// # Errors
/// [`AblateError::Io`].
pub fn write_tables(
    study: &Study,
    results: &[Option<RunResult>],
    summary: &Summary,
) -> Result<Written, AblateError> {
    let put = |name: &str, bytes: &[u8]| -> Result<PathBuf, AblateError> {
        let path = study.folder.join(name);
        atomic_file::write(&path, bytes).map_err(io_error(&path))?;
        Ok(path)
    };
    let over: Vec<&RunResult> = results.iter().flatten().collect();
    let runs = put("runs.csv", &runs_csv(study, &over)?)?;
    put("runs.jsonl", runs_jsonl(&over, &study.folder)?.as_bytes())?;
    put("summary.csv", &summary_csv(study, summary)?)?;
    let summary = put("summary.md", summary.to_markdown().as_bytes())?;
    Ok(Written { runs, summary })
}

/// A CSV text of rows with as many fields as the header.
fn csv_of(
    folder: &Path,
    header: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<Vec<u8>, AblateError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| io_error(folder)(e.into());
    writer.write_record(header).map_err(failed)?;
    for row in rows {
        writer.write_record(row).map_err(failed)?;
    }
    writer
        .into_inner()
        .map_err(|e| io_error(folder)(e.into_error()))
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn runs_csv(study: &Study, results: &[&RunResult]) -> Result<Vec<u8>, AblateError> {
    let mut scorers: Vec<&str> = Vec::new();
    for scorer in results
        .iter()
        .filter_map(|r| r.finished())
        .flat_map(|f| &f.scorers)
    {
        if !scorers.contains(&scorer.scorer.as_str()) {
            scorers.push(&scorer.scorer);
        }
    }
    let fixed = [
        "status",
        "protocol",
        "shots",
        "test_normals",
        "test_defects",
        "test_set_hash",
        "trainable",
        "epochs",
        "kept_epoch",
        "guard_falls_back",
        "auroc_difference",
        "difference_low",
        "difference_high",
        "delong_p",
    ];
    let mut header = vec!["category".to_owned(), "seed".to_owned()];
    header.extend(study.axes.iter().map(|a| a.name.clone()));
    header.extend(fixed.map(str::to_owned));
    header.extend(
        scorers
            .iter()
            .flat_map(|s| [format!("{s}_auroc"), format!("{s}_ap")]),
    );
    header.push("error".to_owned());
    let row = |result: &&RunResult| {
        let mut row = vec![result.category.clone(), result.seed.to_string()];
        row.extend(result.settings.iter().map(|s| s.value.clone()));
        match &result.status {
            Status::Failed { error } => {
                row.push("failed".to_owned());
                row.resize(header.len() - 1, String::new());
                row.push(error.clone());
            }
            Status::Finished(f) => {
                let d = f.comparison.as_ref();
                row.extend([
                    if f.leaky { "leaky" } else { "finished" }.to_owned(),
                    f.protocol.clone(),
                    f.shots.to_string(),
                    f.test_normals.to_string(),
                    f.test_defects.to_string(),
                    f.test_set_hash.clone(),
                    f.trainable.to_string(),
                    f.epochs.to_string(),
                    f.kept_epoch.to_string(),
                    text(f.guard_falls_back),
                    text(d.map(|d| d.auroc)),
                    text(d.map(|d| d.low)),
                    text(d.map(|d| d.high)),
                    text(d.and_then(|d| d.delong_p)),
                ]);
                for scorer in &scorers {
                    let found = f.scorers.iter().find(|s| s.scorer == *scorer);
                    row.push(text(found.and_then(|s| s.auroc)));
                    row.push(text(found.map(|s| s.average_precision)));
                }
                row.push(String::new());
            }
        }
        row
    };
    let rows: Vec<Vec<String>> = results.iter().map(row).collect();
    csv_of(&study.folder, header, rows.into_iter())
}

/// One result a line, without what differs between two runs of one study.
fn runs_jsonl(results: &[&RunResult], folder: &Path) -> Result<String, AblateError> {
    let mut lines = String::new();
    for result in results {
        let mut value = serde_json::to_value(result).map_err(|e| io_error(folder)(e.into()))?;
        if let Some(fields) = value.as_object_mut() {
            for own in ["seconds", "key", "format"] {
                fields.shift_remove(own);
            }
        }
        let _ = writeln!(lines, "{value}");
    }
    Ok(lines)
}

fn summary_csv(study: &Study, summary: &Summary) -> Result<Vec<u8>, AblateError> {
    let mut header = vec!["category".to_owned()];
    header.extend(study.axes.iter().map(|a| a.name.clone()));
    header.extend(
        [
            "scorer",
            "seeds",
            "auroc_mean",
            "auroc_std",
            "ap_mean",
            "ap_std",
            "zero_shot_scorer",
            "zero_shot_auroc_mean",
            "difference",
            "difference_low",
            "difference_high",
            "p",
            "p_holm",
            "wins",
            "losses",
            "best",
            "leaky",
        ]
        .map(str::to_owned),
    );
    let row = |r: &SummaryRow| {
        let mut row = vec![r.category.clone()];
        row.extend(r.settings.iter().map(|s| s.value.clone()));
        let a = r.against.as_ref();
        row.extend([
            r.scorer.clone(),
            r.seeds.to_string(),
            r.auroc.mean.to_string(),
            text(r.auroc.deviation),
            r.average_precision.mean.to_string(),
            text(r.average_precision.deviation),
            text(a.map(|a| &a.scorer)),
            text(a.map(|a| a.auroc.mean)),
            text(a.map(|a| a.difference.difference)),
            text(a.map(|a| a.difference.low)),
            text(a.map(|a| a.difference.high)),
            text(a.map(|a| a.difference.p_value)),
            text(a.map(|a| a.p_holm)),
            text(a.map(|a| a.wins)),
            text(a.map(|a| a.losses)),
            r.best.to_string(),
            r.leaky.to_string(),
        ]);
        row
    };
    csv_of(&study.folder, header, summary.rows.iter().map(row))
}

fn spread(s: &Spread) -> String {
    match s.deviation {
        Some(d) => format!("{:.4} ± {d:.4}", s.mean),
        None => format!("{:.4}", s.mean),
    }
}

impl Summary {
    /// The summary as a Markdown table: scorers that learned from defects, each beside the strongest that did not. The
    /// best setting of a category is bold.
    pub fn to_markdown(&self) -> String {
        let mut out = String::from(
            "| category | settings | scorer | seeds | AUROC | AP | zero-shot AUROC | difference, 95 % | p (Holm) | won, lost |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in self.rows.iter().filter(|r| r.against.is_some()) {
            let Some(a) = &row.against else { continue };
            let settings = joined(&row.settings, ", ");
            let auroc = spread(&row.auroc);
            let _ = writeln!(
                out,
                "| {}{} | {} | {} | {} | {} | {} | {} ({}) | {} | {:.3} | {}, {} |",
                row.category,
                if row.leaky { " **(leaky)**" } else { "" },
                settings.replace('|', "\\|"),
                row.scorer,
                row.seeds,
                if row.best {
                    format!("**{auroc}**")
                } else {
                    auroc
                },
                spread(&row.average_precision),
                spread(&a.auroc),
                a.scorer,
                interval(a),
                a.p_holm,
                a.wins,
                a.losses,
            );
        }
        let _ = writeln!(
            out,
            "\nMean ± standard deviation over seeds. The difference is that of the AUROCs to the strongest scorer that \
             saw no defect, with a paired bootstrap interval of the test images over all seeds; p-values are \
             corrected by Holm's method for the categories. Bold: the highest mean AUROC of a scorer in a category."
        );
        if self.rows.iter().any(|r| r.leaky) {
            out.push_str(
                "Leaky: training images are among the tested, so these numbers are not a result.\n",
            );
        }
        if self.failed + self.open > 0 {
            let _ = writeln!(
                out,
                "{} runs failed, {} are not over.",
                self.failed, self.open
            );
        }
        out
    }
}

fn interval(a: &Against) -> String {
    let d = &a.difference;
    format!("{:+.4} [{:+.4}, {:+.4}]", d.difference, d.low, d.high)
}
