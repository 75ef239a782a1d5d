//! Turns comparison files into the table and plot of the original recipe in `docs/evidence/results.md`.
//!
//! `cargo run --release --example main_job_table -- RUNS [PLOT.svg]`, where `RUNS` holds
//! `<setting>/<category>/<seed>/<category>_comparison.json`. Prints a Markdown table: mean ± standard deviation (n − 1)
//! over the seeds.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flawtune::report::plot::{Axis, Bar, BarSeries, Chart, Plot, Theme};
use serde_json::Value;

/// Settings in the order of the table: folder, words.
const SETTINGS: [(&str, &str); 4] = [
    ("default", "default, held-out"),
    ("original_heldout", "original recipe, held-out"),
    ("default_leaky", "default, **leaky**"),
    ("original_leaky", "original recipe, **leaky**"),
];

#[derive(Default)]
struct Cell {
    zero_shot: Vec<f64>,
    adapted: Vec<f64>,
    zero_shot_ap: Vec<f64>,
    adapted_ap: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let runs = args.next().ok_or("usage: main_job_table RUNS [PLOT.svg]")?;
    let mut cells: BTreeMap<(String, &str), Cell> = BTreeMap::new();
    for (setting, _) in SETTINGS {
        for category in folders(&runs.join(setting)) {
            let name = category
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            for seed in folders(&category) {
                let path = seed.join(format!("{name}_comparison.json"));
                let Ok(text) = fs::read_to_string(&path) else {
                    continue;
                };
                let json: Value = serde_json::from_str(&text)?;
                let number = |part: &str, key: &str| {
                    json[part][key]
                        .as_f64()
                        .ok_or_else(|| format!("{}: no {part}.{key}", path.display()))
                };
                let cell = cells.entry((name.clone(), setting)).or_default();
                cell.zero_shot.push(number("zero_shot", "auroc")?);
                cell.adapted.push(number("prompt_tuned", "auroc")?);
                cell.zero_shot_ap
                    .push(number("zero_shot", "average_precision")?);
                cell.adapted_ap
                    .push(number("prompt_tuned", "average_precision")?);
            }
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| category | setting | seeds | AUROC zero-shot | AUROC adapted | difference | AP zero-shot | AP adapted |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    let mut categories: Vec<&String> = cells.keys().map(|(c, _)| c).collect();
    categories.dedup();
    for category in &categories {
        for (setting, words) in SETTINGS {
            let Some(cell) = cells.get(&((*category).clone(), setting)) else {
                continue;
            };
            let difference: Vec<f64> = cell
                .adapted
                .iter()
                .zip(&cell.zero_shot)
                .map(|(a, z)| a - z)
                .collect();
            let (mean, std) = spread(&difference);
            writeln!(
                out,
                "| {category} | {words} | {} | {} | {} | {mean:+.3} ± {std:.3} | {} | {} |",
                cell.adapted.len(),
                show(&cell.zero_shot),
                show(&cell.adapted),
                show(&cell.zero_shot_ap),
                show(&cell.adapted_ap)
            )?;
        }
    }
    if let Some(picture) = args.next() {
        let bars = |name: &str, setting: &str, pick: &dyn Fn(&Cell) -> Vec<f64>| BarSeries {
            name: name.to_owned(),
            bars: categories
                .iter()
                .map(|c| {
                    cells
                        .get(&((*c).clone(), setting_key(setting)))
                        .map(|cell| {
                            let (mean, std) = spread(&pick(cell));
                            Bar {
                                value: mean,
                                interval: Some([mean - std, mean + std]),
                            }
                        })
                })
                .collect(),
        };
        let plot = Plot::new(
            "Held-out AUROC, 10 shots: mean and standard deviation over seeds",
            Axis::new("AUROC"),
            Axis::new("category"),
            Chart::Bars {
                labels: categories.iter().map(|c| (*c).clone()).collect(),
                series: vec![
                    bars("zero-shot", "default", &|c| c.zero_shot.clone()),
                    bars("original recipe", "original_heldout", &|c| {
                        c.adapted.clone()
                    }),
                    bars("flawtune default", "default", &|c| c.adapted.clone()),
                ],
                guide: None,
            },
        );
        plot.save(&picture, Theme::Light)?;
    }
    Ok(())
}

fn setting_key(name: &str) -> &'static str {
    SETTINGS
        .iter()
        .find(|(key, _)| *key == name)
        .map_or("", |(key, _)| key)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs::read_dir(path)
        .map(|entries| {
            entries
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir())
                .collect()
        })
        .unwrap_or_default();
    list.sort();
    list
}

/// Mean and standard deviation (n − 1; 0 for one value).
fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (
        mean,
        if n > 1.0 {
            (squares / (n - 1.0)).sqrt()
        } else {
            0.0
        },
    )
}

fn show(values: &[f64]) -> String {
    let (mean, std) = spread(values);
    format!("{mean:.3} ± {std:.3}")
}
