//! What the prompts' guard decided, run by run, beside what the test images say; as Markdown.
//!
//! ```text
//! guard_table RUNS
//! ```
//!
//! `RUNS` holds `<run>/train.json`, as `flawtune train --json` prints it, and `<run>/<category>_scores.csv`, as `flawtune
//! evaluate --no-guard` writes it. A verdict is right that keeps a gain of the patch bank, or falls back from a loss.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::score_table::ScoreTable;
use flawtune_lab::adapt::guard::PromptGuard;

/// One training and its test.
struct Verdict {
    guard: PromptGuard,
    zero_shot: f64,
    adapted: f64,
}

impl Verdict {
    fn read(run: &Path) -> Result<Self, Box<dyn Error>> {
        let said: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run.join("train.json"))?)?;
        let category = said["category"]
            .as_str()
            .ok_or("train.json names no category")?;
        let scores = ScoreTable::read(&run.join(format!("{category}_scores.csv")), None)?;
        let of = |name: &str| -> Result<f64, Box<dyn Error>> {
            let column = scores
                .column(name)
                .ok_or_else(|| format!("no column {name}"))?;
            auroc(&scores.labels(), column)?.ok_or_else(|| "one class only".into())
        };
        let guard = serde_json::from_value(said["guard"].clone())?;
        Ok(Self {
            guard,
            zero_shot: of("zero_shot_bank")?,
            adapted: of("adapted_bank")?,
        })
    }

    fn says(&self) -> &'static str {
        match (self.guard.fallback, self.adapted > self.zero_shot) {
            (false, true) => "kept a gain",
            (false, false) if self.adapted < self.zero_shot => "kept a loss",
            (true, true) => "gave a gain away",
            (true, false) if self.adapted < self.zero_shot => "fell back from a loss",
            _ => "no difference",
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .ok_or("which runs? guard_table RUNS")?,
    );
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        if path.join("train.json").is_file() {
            runs.push(path);
        }
    }
    runs.sort();
    println!(
        "| run | cross-validated: zero-shot → adapted | verdict | test: zero-shot bank → adapted bank | |"
    );
    println!("|---|---|---|---|---|");
    let mut count: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in &runs {
        let verdict = Verdict::read(run).map_err(|e| format!("{}: {e}", run.display()))?;
        let (guard, says) = (&verdict.guard, verdict.says());
        let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.3}"));
        println!(
            "| {} | {} → {} ± {} | {} | {:.3} → {:.3} | {says} |",
            run.file_name().unwrap_or_default().to_string_lossy(),
            number(guard.zero_shot),
            number(guard.adapted),
            number(guard.standard_error),
            if guard.fallback { "fall back" } else { "keep" },
            verdict.zero_shot,
            verdict.adapted,
        );
        count
            .entry(says)
            .or_default()
            .push(verdict.adapted - verdict.zero_shot);
    }
    println!();
    for (says, differences) in count {
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        println!(
            "- {says}: {} of {} (mean {mean:+.3})",
            differences.len(),
            runs.len()
        );
    }
    Ok(())
}
