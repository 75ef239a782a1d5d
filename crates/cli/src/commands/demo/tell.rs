//! The numbers of the commands, in words and tables.

use std::fmt;
use std::fmt::Write as _;

use flawtune::score::threshold::DEFAULT_FALSE_ALARMS;
use serde_json::{Value, json};

use super::SHOTS;
use crate::failure::Failure;

/// What `evaluate` counted of one detector at its threshold.
pub(super) struct Counted {
    found: u64,
    defects: u64,
    stopped: u64,
    good: u64,
    auroc: f64,
    /// Everything that it said.
    said: Value,
}

impl Counted {
    /// From what `evaluate` printed.
    ///
    /// # Errors
    /// A result without counts.
    pub(super) fn of(said: &Value) -> Result<Self, Failure> {
        let metrics = &said["rows"][0]["metrics"];
        let whole = |value: &Value| value.as_u64();
        let read = || {
            Some(Self {
                found: whole(&metrics["found"]["count"])?,
                defects: whole(&metrics["found"]["of"])?,
                stopped: whole(&metrics["false_alarms"]["count"])?,
                good: whole(&metrics["false_alarms"]["of"])?,
                auroc: metrics["auroc"].as_f64()?,
                said: said.clone(),
            })
        };
        read().ok_or_else(|| Failure::Machine("the evaluation counted nothing".into()))
    }

    /// All of several draws.
    fn sum(all: &[Self]) -> (u64, u64, u64, u64) {
        all.iter().fold((0, 0, 0, 0), |sum, one| {
            (
                sum.0 + one.found,
                sum.1 + one.defects,
                sum.2 + one.stopped,
                sum.3 + one.good,
            )
        })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "finds {} of {} defects, stops {} of {} good images (AUROC {:.3})",
            self.found, self.defects, self.stopped, self.good, self.auroc
        )
    }
}

/// What is told of each category, before and after it learned from defects.
pub(super) struct Told<'a> {
    pub(super) names: &'a [&'a str],
    pub(super) before: &'a [Counted],
    /// Of each draw of the defects.
    pub(super) after: &'a [Vec<Counted>],
}

/// The share of good images that the default of `fit` lets be stopped.
pub(super) fn allowed() -> String {
    format!("{} %", 100.0 * DEFAULT_FALSE_ALARMS)
}

impl Told<'_> {
    fn each(&self) -> impl Iterator<Item = (&str, &Counted, &[Counted])> {
        let both = self.before.iter().zip(self.after);
        self.names
            .iter()
            .zip(both)
            .map(|(name, (before, after))| (*name, before, &after[..]))
    }

    /// A row a category, for `--json`.
    pub(super) fn rows(&self) -> Vec<Value> {
        self.each()
            .map(|(name, before, after)| {
                let after: Vec<&Value> = after.iter().map(|one| &one.said).collect();
                json!({"category": name, "before": before.said, "after": after})
            })
            .collect()
    }

    pub(super) fn table(&self) -> String {
        let draws = self.after.first().map_or(0, Vec::len);
        let many = if draws > 1 {
            format!(", over {draws} draws")
        } else {
            String::new()
        };
        let mut text = format!(
            "{:<12}{:>26}{:>32}\n{:<12}{:>26}{:>32}\n",
            "",
            "from good images alone",
            format!("with {SHOTS} defects{many}"),
            "",
            "defects found   stopped",
            "defects found   stopped",
        );
        let cells = |(found, defects, stopped, good): (u64, u64, u64, u64)| {
            [format!("{found} of {defects}"), format!("{stopped}/{good}")]
        };
        for (name, before, after) in self.each() {
            let (before, after) = (
                Counted::sum(std::slice::from_ref(before)),
                Counted::sum(after),
            );
            let ([found, stopped], [more, as_well]) = (cells(before), cells(after));
            let _ = writeln!(
                text,
                "{name:<12}{found:>16}{stopped:>10}{more:>22}{as_well:>10}"
            );
        }
        text
    }

    /// For the top of the page.
    pub(super) fn introduction(&self) -> String {
        let mut text = format!(
            "Drawn images of parts, with and without flaws, looked at by a small network that is part of flawtune. Each pair below \
             is an image and a map of what is wrong at each place: the brighter the surer, a box round what stands out. At a \
             threshold that lets {} of good parts be stopped, chosen without any of these images:",
            allowed()
        );
        for (name, before, after) in self.each() {
            let Some(after) = after.first() else {
                continue;
            };
            let _ = write!(
                text,
                " of {} defects of {name} the good images alone find {}, and with {SHOTS} other defects to learn from {} (of {} good \
                 ones {} are stopped, and {});",
                before.defects,
                before.found,
                after.found,
                before.good,
                before.stopped,
                after.stopped
            );
        }
        text.pop();
        text.push('.');
        text
    }
}
