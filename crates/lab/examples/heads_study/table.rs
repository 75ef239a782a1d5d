//! What the runs of a study came to, as Markdown.

use std::collections::BTreeMap;
use std::error::Error;

use flawtune::evaluate::statistics::{RankingMetric, SeedScores};
use flawtune_lab::ablate::Spread;

use crate::markdown::{difference, mean_and_deviation, metric};
use crate::methods::{DEFAULT, Named, OWN_BASE, UNGUARDED};

/// One method's scores on the test set of one run (a seed, or a type and a seed).
struct Run {
    ids: Vec<String>,
    labels: Vec<bool>,
    scores: Vec<f64>,
}

/// Runs that are averaged: every method with every number of shots on the same test sets.
#[derive(Default)]
pub(crate) struct Study {
    /// By method and shots.
    runs: BTreeMap<(&'static str, usize), Vec<Run>>,
    order: Vec<&'static str>,
    counts: Vec<usize>,
}

impl Study {
    /// Adds one run of all methods, tested on `ids` with these labels (true: a defect).
    pub(crate) fn add(&mut self, shots: usize, ids: &[String], labels: &[bool], rows: &Named) {
        if !self.counts.contains(&shots) {
            self.counts.push(shots);
        }
        for (name, scores) in rows {
            if !self.order.contains(name) {
                self.order.push(name);
            }
            let run = Run {
                ids: ids.to_vec(),
                labels: labels.to_vec(),
                scores: scores.clone(),
            };
            self.runs.entry((name, shots)).or_default().push(run);
        }
    }

    fn metric(
        &self,
        name: &'static str,
        shots: usize,
        which: RankingMetric,
    ) -> Result<Vec<f64>, Box<dyn Error>> {
        let of = |run: &Run| metric(&run.labels, &run.scores, which);
        self.runs[&(name, shots)].iter().map(of).collect()
    }

    fn spread(
        &self,
        name: &'static str,
        shots: usize,
        which: RankingMetric,
    ) -> Result<Spread, Box<dyn Error>> {
        Spread::of(&self.metric(name, shots, which)?).ok_or_else(|| "no runs".into())
    }

    /// The zero-shot scorer with the highest mean AUROC.
    fn strongest(&self) -> Result<&'static str, Box<dyn Error>> {
        let mut strongest = ("", f64::NEG_INFINITY);
        for &name in self.order.iter().filter(|n| n.starts_with("zero-shot")) {
            let mean = self
                .spread(name, self.counts[0], RankingMetric::Auroc)?
                .mean;
            if mean > strongest.1 {
                strongest = (name, mean);
            }
        }
        Ok(strongest.0)
    }

    fn difference(
        &self,
        name: &'static str,
        base: &'static str,
        shots: usize,
    ) -> Result<String, Box<dyn Error>> {
        let (own, base) = (&self.runs[&(name, shots)], &self.runs[&(base, shots)]);
        let ids: Vec<Vec<&str>> = own
            .iter()
            .map(|r| r.ids.iter().map(String::as_str).collect())
            .collect();
        let pairs: Vec<SeedScores<'_>> = own
            .iter()
            .zip(base)
            .zip(&ids)
            .map(|((a, b), ids)| SeedScores {
                ids,
                labels: &a.labels,
                first: &a.scores,
                second: &b.scores,
            })
            .collect();
        difference(&pairs)
    }

    fn heading(&self, first: &str) -> String {
        let counts: Vec<String> = self.counts.iter().map(|m| format!("M = {m}")).collect();
        format!(
            "| {first} | {} |\n|---|{}",
            counts.join(" | "),
            "---|".repeat(counts.len())
        )
    }

    /// One row of the table: `name` and a cell for each number of shots.
    fn row(
        &self,
        name: &str,
        cell: impl Fn(usize) -> Result<String, Box<dyn Error>>,
    ) -> Result<String, Box<dyn Error>> {
        let cells: Vec<String> = self
            .counts
            .iter()
            .map(|&m| cell(m))
            .collect::<Result<_, _>>()?;
        Ok(format!("| {name} | {} |", cells.join(" | ")))
    }

    /// AUROC and AP of everything, and differences to the strongest zero-shot scorer.
    pub(crate) fn print(&self) -> Result<(), Box<dyn Error>> {
        let strongest = self.strongest()?;
        println!(
            "Strongest zero-shot scorer: {}.\n",
            strongest.trim_start_matches("zero-shot: ")
        );
        for (which, name) in [
            (RankingMetric::Auroc, "AUROC"),
            (RankingMetric::AveragePrecision, "AP"),
        ] {
            println!("{}", self.heading(name));
            for &name in &self.order {
                let cell = |shots| Ok(mean_and_deviation(&self.spread(name, shots, which)?));
                println!("{}", self.row(name, cell)?);
            }
            println!();
        }
        println!("AUROC difference against that scorer, 95 % interval:\n");
        println!("{}", self.heading(""));
        for &name in self
            .order
            .iter()
            .filter(|n| !n.starts_with("zero-shot") || **n == OWN_BASE)
        {
            println!(
                "{}",
                self.row(name, |shots| self.difference(name, strongest, shots))?
            );
        }
        println!();
        Ok(())
    }

    /// Rows of one type in a table of types: differences to the type's strongest zero-shot scorer.
    pub(crate) fn print_type(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let strongest = self.strongest()?;
        let spread = self.spread(strongest, self.counts[0], RankingMetric::Auroc)?;
        println!(
            "{}",
            self.heading(&format!(
                "{name}: {} {}",
                strongest.trim_start_matches("zero-shot: "),
                mean_and_deviation(&spread)
            ))
        );
        for &name in self.order.iter().filter(|n| !n.starts_with("zero-shot")) {
            println!(
                "{}",
                self.row(name, |shots| self.difference(name, strongest, shots))?
            );
        }
        println!();
        Ok(())
    }

    /// What the guard decided against what the test set says: the ensemble without it and its base.
    pub(crate) fn print_guard(&self) -> Result<(), Box<dyn Error>> {
        println!(
            "{}",
            self.heading("guard's verdict, and what it was worth on the test set (runs)")
        );
        let runs = |shots: usize| -> Result<Vec<(bool, f64)>, Box<dyn Error>> {
            let base = self.metric(OWN_BASE, shots, RankingMetric::Auroc)?;
            let adapted = self.metric(UNGUARDED, shots, RankingMetric::Auroc)?;
            let kept = self.runs[&(DEFAULT, shots)]
                .iter()
                .zip(&self.runs[&(OWN_BASE, shots)])
                .map(|(guarded, base)| guarded.scores != base.scores);
            Ok(kept
                .zip(adapted.iter().zip(&base))
                .map(|(kept, (a, b))| (kept, a - b))
                .collect())
        };
        // a draw costs nothing to who kept it, and none to who fell back
        let gains = |kept: bool, gain: f64| gain > 0.0 || (kept && gain == 0.0);
        for (name, kept, gained) in [
            ("kept a gain or a draw", true, true),
            ("kept a loss", true, false),
            ("fell back from a loss or a draw", false, false),
            ("fell back from a gain", false, true),
        ] {
            let cell = |shots| {
                let found: Vec<f64> = runs(shots)?
                    .into_iter()
                    .filter(|&(keeps, gain)| keeps == kept && gains(kept, gain) == gained)
                    .map(|(_, gain)| gain)
                    .collect();
                let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
                Ok(match found.len() {
                    0 => "0".to_owned(),
                    count => format!("{count} (mean {mean:+.3})").replace('-', "−"),
                })
            };
            println!("{}", self.row(name, cell)?);
        }
        println!();
        Ok(())
    }
}
