//! The numbers of the commands, in words and tables.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::ADAPTED;
use crate::failure::Failure;

/// What a study said of one category.
pub(super) struct OverSeeds {
    /// A row a category, as they are printed as JSON.
    pub(super) rows: Vec<Value>,
}

/// The rows of the ensemble.
///
/// # Errors
/// A study without one: a run of it failed.
pub(super) fn over_seeds(study: &Value, names: &[&str], seeds: u32) -> Result<OverSeeds, Failure> {
    let rows = study["rows"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let of = |name: &&str| {
        let row = rows
            .iter()
            .find(|r| r["category"] == **name && r["scorer"] == ADAPTED && r["seeds"] == seeds)?;
        Some(json!({
            "category": name,
            "zero_shot": row["against"]["auroc"],
            "zero_shot_scorer": row["against"]["scorer"],
            "adapted": row["auroc"],
            "difference": row["against"]["difference"],
        }))
    };
    let found: Option<Vec<Value>> = names.iter().map(of).collect();
    let rows =
        found.ok_or_else(|| Failure::Machine("the study has no result of the ensemble".into()))?;
    Ok(OverSeeds { rows })
}

impl OverSeeds {
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "  {:<12}{:>18}{:>18}   difference, 95 % paired bootstrap\n",
            "", "without defects*", "with defects"
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "  {:<12}{:>18}{:>18}   {}",
                word(&row["category"]),
                spread(&row["zero_shot"]),
                spread(&row["adapted"]),
                difference(&row["difference"])
            );
        }
        text
    }

    /// Whether learning from the defects was worth it, as the intervals say.
    pub(super) fn verdict(&self) -> String {
        let mut parts = Vec::new();
        for row in &self.rows {
            let (low, high) = (
                row["difference"]["low"].as_f64(),
                row["difference"]["high"].as_f64(),
            );
            let mean = row["difference"]["difference"].as_f64();
            let said = match (low, high, mean) {
                (Some(low), ..) if low > 0.0 => "learning from the defects made it better",
                (_, Some(high), _) if high < 0.0 => "learning from the defects made it worse",
                (.., Some(mean)) if mean > 0.0 => "better, but that may be chance on so few images",
                _ => "no better with the defects (what it lost may be chance on so few images)",
            };
            parts.push(format!("{}: {said}", word(&row["category"])));
        }
        format!(
            "  {}.\n  * the best of all scorers that know no defect, chosen on these very images: the strictest comparison",
            parts.join("; ")
        )
    }

    /// For the top of the page.
    pub(super) fn introduction(&self, seeds: u32) -> String {
        let mut text = format!(
            "Generated images of parts, with and without flaws, looked at by a small network that is part of flawtune. Each pair \
             below is an image and a map of how unlike good parts it is at each place: the brighter the odder, a box round \
             what stands out. How often a defective image was ranked above a good one (AUROC, 1 is always, 0.5 is chance), on \
             images that nothing was learned from, over {seeds} draws of the defects learned from:"
        );
        for row in &self.rows {
            let _ = write!(
                text,
                " {} {} without those defects, {} with them (difference {});",
                word(&row["category"]),
                spread(&row["zero_shot"]),
                spread(&row["adapted"]),
                difference(&row["difference"])
            );
        }
        text.pop();
        text.push('.');
        text
    }
}

/// The zero-shot scorer with the highest AUROC.
pub(super) fn best(scorers: &Value) -> &Value {
    let all = scorers.as_array().map(Vec::as_slice).unwrap_or_default();
    let auroc = |s: &Value| s["auroc"].as_f64().unwrap_or(f64::NEG_INFINITY);
    all.iter()
        .max_by(|a, b| auroc(a).total_cmp(&auroc(b)))
        .unwrap_or(&Value::Null)
}

/// `0.875 ± 0.012`.
fn spread(value: &Value) -> String {
    match value["deviation"].as_f64() {
        Some(deviation) => format!("{} ± {deviation:.3}", number(&value["mean"])),
        None => number(&value["mean"]),
    }
}

/// `+0.031 [−0.002, +0.060]`.
fn difference(value: &Value) -> String {
    let signed = |v: &Value| {
        v.as_f64()
            .map_or_else(|| "–".to_owned(), |v| format!("{v:+.3}").replace('-', "−"))
    };
    format!(
        "{} [{}, {}]",
        signed(&value["difference"]),
        signed(&value["low"]),
        signed(&value["high"])
    )
}

pub(super) fn number(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "undefined".to_owned(), |v| format!("{v:.3}"))
}

pub(super) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
