//! Turns the per-image scores of many evaluations into a Markdown table with intervals: a row for each category, number of
//! shots and method.
//!
//! ```text
//! scores_table RUNS [--against METHOD]
//! ```
//!
//! `RUNS` holds `<method>_M<shots>/<category>_<seed>/<category>_scores.csv`, as `flawtune evaluate` writes them; scorers that a method
//! has no column of are left out. Every column is compared with the stronger of the two zero-shot
//! scorers (by mean AUROC over the seeds, on the very images tested); paired bootstrap over the seeds together.
//!
//! With `--against` the adapted scores of every `<method>_M<shots>` are compared with those of `METHOD_M<shots>` instead.
#![allow(clippy::print_stdout)]

mod markdown;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};
use flawtune_lab::ablate::Spread;

use self::markdown::{difference, mean_and_deviation, metric};

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
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn column<'a>(run: &'a ScoreTable, name: &str) -> Result<&'a [f64], Box<dyn Error>> {
    run.column(name)
        .ok_or_else(|| format!("no column {name}").into())
}

fn spread(runs: &[ScoreTable], name: &str, which: RankingMetric) -> Result<Spread, Box<dyn Error>> {
    let mut values = Vec::new();
    for run in runs {
        values.push(metric(&run.labels(), column(run, name)?, which)?);
    }
    Spread::of(&values).ok_or_else(|| "no runs".into())
}

/// By category: folder and scores of every run.
type Runs = BTreeMap<String, Vec<(String, ScoreTable)>>;

fn runs_of(method: &Path) -> Result<Runs, Box<dyn Error>> {
    let mut by_category = Runs::new();
    for folder in folders(method)? {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if let Some(category) = name_of(&path).strip_suffix("_scores.csv") {
                let table = ScoreTable::read(&path, None)?;
                by_category
                    .entry(category.to_owned())
                    .or_default()
                    .push((name_of(&folder), table));
            }
        }
    }
    Ok(by_category)
}

/// `NAME_M5` as name and the rest.
fn parts(method: &str) -> (&str, &str) {
    method
        .rfind("_M")
        .map_or((method, ""), |at| method.split_at(at))
}

/// Every method's adapted scores against those of `other` with as many shots, on the runs that both have.
fn against(root: &Path, other: &str) -> Result<(), Box<dyn Error>> {
    const ADAPTED: &str = "prompt_tuned";
    println!(
        "| category | method | runs | AUROC | {other} | difference, 95 % |\n|---|---|---|---|---|---|"
    );
    for method in folders(root)? {
        let name = name_of(&method);
        let (base, shots) = parts(&name);
        if base == other {
            continue;
        }
        let others = runs_of(&root.join(format!("{other}{shots}")))?;
        for (category, runs) in runs_of(&method)? {
            let Some(theirs) = others.get(&category) else {
                continue;
            };
            let pairs: Vec<(&ScoreTable, &ScoreTable)> = runs
                .iter()
                .filter_map(|(run, table)| Some((table, &theirs.iter().find(|(r, _)| r == run)?.1)))
                .collect();
            if pairs.iter().any(|(a, b)| a.ids != b.ids) {
                return Err(format!("{name}, {category}: other test images than {other}").into());
            }
            let tested: Vec<(Vec<&str>, Vec<bool>)> = pairs
                .iter()
                .map(|(a, _)| (a.ids.iter().map(String::as_str).collect(), a.labels()))
                .collect();
            let mut seeds = Vec::new();
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for ((a, b), (ids, labels)) in pairs.iter().zip(&tested) {
                let (x, y) = (column(a, ADAPTED)?, column(b, ADAPTED)?);
                first.push(metric(labels, x, RankingMetric::Auroc)?);
                second.push(metric(labels, y, RankingMetric::Auroc)?);
                seeds.push(SeedScores {
                    ids,
                    labels,
                    first: x,
                    second: y,
                });
            }
            let found = paired_bootstrap_over_seeds(
                &seeds,
                RankingMetric::Auroc,
                &BootstrapOptions::default(),
            )?;
            let text = |values: &[f64]| {
                Spread::of(values)
                    .as_ref()
                    .map(mean_and_deviation)
                    .ok_or("no runs")
            };
            println!(
                "| {category} | {name} | {} | {} | {} | {:+.3} [{:+.3}, {:+.3}] |",
                seeds.len(),
                text(&first)?,
                text(&second)?,
                found.difference,
                found.low,
                found.high
            );
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .ok_or("which runs? scores_table RUNS")?,
    );
    if std::env::args().nth(2).as_deref() == Some("--against") {
        return against(
            &root,
            &std::env::args().nth(3).ok_or("against which method?")?,
        );
    }
    let mut rows = Vec::new();
    for method in folders(&root)? {
        let name = name_of(&method);
        let (base, shots) = parts(&name);
        let shots: usize = shots.trim_start_matches("_M").parse().unwrap_or(0);
        for (category, runs) in runs_of(&method)? {
            let runs: Vec<ScoreTable> = runs.into_iter().map(|(_, table)| table).collect();
            rows.push(Row {
                category,
                shots,
                method: base.to_owned(),
                runs,
            });
        }
    }
    rows.sort_by(|a, b| (&a.category, a.shots, &a.method).cmp(&(&b.category, b.shots, &b.method)));
    let shown: Vec<(&str, &str)> = COLUMNS
        .into_iter()
        .filter(|(name, _)| !ZERO_SHOT.contains(name) && rows.iter().any(|row| row.has(name)))
        .collect();
    print!("| category | M | method | runs | strongest zero-shot: AUROC (AP) |");
    for (_, words) in &shown {
        print!(" {words}: AUROC (AP) | difference |");
    }
    println!("\n|---|---|---|---|---|{}", "---|---|".repeat(shown.len()));
    for row in &rows {
        let strongest = row.strongest()?;
        let zero_shot = row.cell(strongest)?;
        print!(
            "| {} | {} | {} | {} | {} {zero_shot} |",
            row.category,
            row.shots,
            row.method,
            row.runs.len(),
            if strongest == "zero_shot" {
                "image pairs"
            } else {
                "patch bank"
            }
        );
        for (name, _) in &shown {
            if row.has(name) {
                print!(
                    " {} | {} |",
                    row.cell(name)?,
                    row.difference(name, strongest)?
                );
            } else {
                print!(" | |");
            }
        }
        println!();
    }
    Ok(())
}

/// The runs of one method, with so many shots.
struct Row {
    category: String,
    shots: usize,
    method: String,
    runs: Vec<ScoreTable>,
}

impl Row {
    fn has(&self, name: &str) -> bool {
        self.runs.iter().all(|run| run.column(name).is_some())
    }

    /// The zero-shot scorer with the higher mean AUROC.
    fn strongest(&self) -> Result<&'static str, Box<dyn Error>> {
        let mut strongest = (ZERO_SHOT[0], f64::NEG_INFINITY);
        for name in ZERO_SHOT.into_iter().filter(|name| self.has(name)) {
            let mean = spread(&self.runs, name, RankingMetric::Auroc)?.mean;
            if mean > strongest.1 {
                strongest = (name, mean);
            }
        }
        Ok(strongest.0)
    }

    /// AUROC and AP, mean ± standard deviation over the runs.
    fn cell(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let text = |which| -> Result<String, Box<dyn Error>> {
            Ok(mean_and_deviation(&spread(&self.runs, name, which)?))
        };
        Ok(format!(
            "{} ({})",
            text(RankingMetric::Auroc)?,
            text(RankingMetric::AveragePrecision)?
        ))
    }

    /// Difference of AUROC and its 95 % interval; bold where that leaves out 0.
    fn difference(&self, name: &str, base: &str) -> Result<String, Box<dyn Error>> {
        let tested: Vec<(Vec<&str>, Vec<bool>)> = self
            .runs
            .iter()
            .map(|r| (r.ids.iter().map(String::as_str).collect(), r.labels()))
            .collect();
        let mut pairs = Vec::new();
        for (run, (ids, labels)) in self.runs.iter().zip(&tested) {
            let (first, second) = (column(run, name)?, column(run, base)?);
            pairs.push(SeedScores {
                ids,
                labels,
                first,
                second,
            });
        }
        difference(&pairs)
    }
}
