//! Turns the per-image scores of many evaluations into a Markdown table with intervals.
//!
//! ```text
//! scores_table RUNS
//! ```
//!
//! `RUNS` holds `<method>/<category>_<seed>/<category>_scores.csv`, as `flawtune evaluate` writes them; scorers that a method
//! has no column of are left out. Every column is compared with the stronger of the two zero-shot
//! scorers (by mean AUROC over the seeds, on the very images tested); paired bootstrap over the seeds together.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use flawtune::ablate::Spread;
use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};

const ZERO_SHOT: [&str; 2] = ["zero_shot", "zero_shot_bank"];
const COLUMNS: [(&str, &str); 8] = [
    ("zero_shot", "zero-shot, image pairs"),
    ("zero_shot_bank", "zero-shot, patch bank top 1 %"),
    ("prompt_tuned", "adapted, image pairs"),
    ("adapted_bank", "adapted, patch bank"),
    ("flat_bank", "shared prompts, patch bank"),
    ("hierarchical_bank", "at the level of the type, patch bank"),
    ("frozen_ensemble", "ensemble on frozen tokens"),
    ("adapted_ensemble", "ensemble on adapted tokens"),
];

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

fn column<'a>(run: &'a ScoreTable, name: &str) -> Result<&'a [f64], Box<dyn Error>> {
    run.column(name).ok_or_else(|| format!("no column {name}").into())
}

fn spread(runs: &[ScoreTable], name: &str) -> Result<Spread, Box<dyn Error>> {
    let mut values = Vec::new();
    for run in runs {
        values.push(auroc(&run.labels(), column(run, name)?)?.ok_or("one class only")?);
    }
    Spread::of(&values).ok_or_else(|| "no runs".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::args_os().nth(1).ok_or("which runs? scores_table RUNS")?);
    for method in folders(&root)? {
        let mut by_category: BTreeMap<String, Vec<ScoreTable>> = BTreeMap::new();
        for folder in folders(&method)? {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if let Some(category) = name_of(&path).strip_suffix("_scores.csv") {
                    by_category.entry(category.to_owned()).or_default().push(ScoreTable::read(&path, None)?);
                }
            }
        }
        for (category, runs) in by_category {
            println!("\n### {}, {category}, {} runs\n", name_of(&method), runs.len());
            let mut strongest = (ZERO_SHOT[0], f64::NEG_INFINITY);
            let has = |name: &&str| runs.iter().all(|r| r.column(name).is_some());
            for name in ZERO_SHOT.into_iter().filter(has) {
                let auroc = spread(&runs, name)?;
                if auroc.mean > strongest.1 {
                    strongest = (name, auroc.mean);
                }
            }
            println!("| scorer | AUROC | difference to the stronger zero-shot, 95 % |\n|---|---|---|");
            for (name, words) in COLUMNS.into_iter().filter(|(name, _)| has(name)) {
                let auroc = spread(&runs, name)?;
                let tested: Vec<(Vec<&str>, Vec<bool>)> =
                    runs.iter().map(|r| (r.ids.iter().map(String::as_str).collect(), r.labels())).collect();
                let mut pairs = Vec::new();
                for (run, (ids, labels)) in runs.iter().zip(&tested) {
                    let (first, second) = (column(run, name)?, column(run, strongest.0)?);
                    pairs.push(SeedScores { ids, labels, first, second });
                }
                let found =
                    paired_bootstrap_over_seeds(&pairs, RankingMetric::Auroc, &BootstrapOptions::default())?;
                println!(
                    "| {words} | {:.3} ± {:.3} | {:+.3} [{:+.3}, {:+.3}] |",
                    auroc.mean,
                    auroc.deviation.unwrap_or(0.0),
                    found.difference,
                    found.low,
                    found.high
                );
            }
        }
    }
    Ok(())
}
