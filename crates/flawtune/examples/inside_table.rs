//! Turns the per-image scores of many evaluations into a Markdown table with intervals.
//!
//! ```text
//! inside_table RUNS
//! ```
//!
//! `RUNS` holds `<method>_M<shots>/<category>_<seed>/<category>_scores.csv`, as `flawtune evaluate` writes them for
//! checkpoints with tensors inside the transformer. Every column is compared with the stronger of the two zero-shot
//! scorers (by mean AUROC over the seeds, on the very images tested); paired bootstrap over the seeds together.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};

const ZERO_SHOT: [&str; 2] = ["zero_shot", "zero_shot_bank"];
const COLUMNS: [(&str, &str); 6] = [
    ("zero_shot", "zero-shot, image pairs"),
    ("zero_shot_bank", "zero-shot, patch bank top 1 %"),
    ("prompt_tuned", "adapted, image pairs"),
    ("adapted_bank", "adapted, patch bank"),
    ("frozen_ensemble", "ensemble on frozen tokens"),
    ("adapted_ensemble", "ensemble on adapted tokens"),
];

/// One run's test images and their scores by column.
struct Run {
    ids: Vec<String>,
    labels: Vec<bool>,
    scores: BTreeMap<String, Vec<f64>>,
}

fn read(path: &Path) -> Result<Run, Box<dyn Error>> {
    let mut reader = csv::Reader::from_path(path)?;
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut run = Run { ids: Vec::new(), labels: Vec::new(), scores: BTreeMap::new() };
    for row in reader.records() {
        let row = row?;
        run.ids.push(row[0].to_owned());
        run.labels.push(!row[1].is_empty());
        for (name, value) in names.iter().zip(&row).skip(2) {
            run.scores.entry(name.clone()).or_default().push(value.parse()?);
        }
    }
    Ok(run)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}

fn aurocs(runs: &[Run], column: &str) -> Result<Vec<f64>, Box<dyn Error>> {
    let one = |run: &Run| auroc(&run.labels, &run.scores[column])?.ok_or_else(|| "one class only".into());
    runs.iter().map(one).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::args_os().nth(1).ok_or("which runs? inside_table RUNS")?);
    for method in folders(&root)? {
        let mut by_category: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        for folder in folders(&method)? {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if let Some(category) = name_of(&path).strip_suffix("_scores.csv") {
                    by_category.entry(category.to_owned()).or_default().push(read(&path)?);
                }
            }
        }
        for (category, runs) in by_category {
            println!("\n### {}, {category}, {} runs\n", name_of(&method), runs.len());
            let mut strongest = (ZERO_SHOT[0], f64::NEG_INFINITY);
            for column in ZERO_SHOT {
                let (mean, _) = mean_std(&aurocs(&runs, column)?);
                if mean > strongest.1 {
                    strongest = (column, mean);
                }
            }
            println!("| scorer | AUROC | difference to the stronger zero-shot, 95 % |\n|---|---|---|");
            for (column, words) in COLUMNS {
                let (mean, std) = mean_std(&aurocs(&runs, column)?);
                let ids: Vec<Vec<&str>> =
                    runs.iter().map(|r| r.ids.iter().map(String::as_str).collect()).collect();
                let pairs: Vec<SeedScores<'_>> = runs
                    .iter()
                    .zip(&ids)
                    .map(|(r, ids)| SeedScores {
                        ids,
                        labels: &r.labels,
                        first: &r.scores[column],
                        second: &r.scores[strongest.0],
                    })
                    .collect();
                let found =
                    paired_bootstrap_over_seeds(&pairs, RankingMetric::Auroc, &BootstrapOptions::default())?;
                println!(
                    "| {words} | {mean:.3} ± {std:.3} | {:+.3} [{:+.3}, {:+.3}] |",
                    found.difference, found.low, found.high
                );
            }
        }
    }
    Ok(())
}
