//! How a prediction is printed.

use flawtune::dataset::Ledger;
use flawtune::workflow::Predicted;
use serde_json::json;

use crate::args::FormatArg;
use crate::console::sent;

/// Prints results as they come.
pub(super) struct Printer {
    format: FormatArg,
    started: bool,
    /// What was left out since the line before, for programs.
    pub(super) intake: Ledger,
}

const COLUMNS: [&str; 8] = [
    "path",
    "score",
    "probability",
    "verdict",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
];

pub(super) fn verdict(p: &Predicted) -> &'static str {
    if p.prediction.flaw { "flaw" } else { "good" }
}

impl Printer {
    pub(super) fn new(format: FormatArg, intake: Ledger) -> Self {
        Self {
            format,
            started: false,
            intake,
        }
    }

    /// The line before all results, which a run that fails at once does not print; false if no one reads any more.
    pub(super) fn start(&mut self) -> bool {
        if std::mem::replace(&mut self.started, true) {
            return true;
        }
        match self.format {
            FormatArg::Table => sent(&format!(
                "{:<8}{:>10}{:>13}  {:<20}{}",
                "verdict", "score", "probability", "box", "image"
            )),
            FormatArg::Csv => sent(&COLUMNS.join(",")),
            FormatArg::Jsonl => true,
        }
    }

    /// The end: with `last`, what was left out after the last line has one of its own.
    pub(super) fn end(&mut self, last: bool) {
        self.start();
        if last && self.format == FormatArg::Jsonl && !self.intake.is_empty() {
            sent(&json!({"intake": self.intake}).to_string());
        }
    }

    /// One result; false if no one reads any more.
    pub(super) fn prediction(&mut self, p: &Predicted) -> bool {
        if !self.start() {
            return false;
        }
        let region = p.prediction.regions.first();
        match self.format {
            FormatArg::Table => {
                let place = region.map_or_else(String::new, |r| {
                    format!("{},{} {}×{}", r.left, r.top, r.width, r.height)
                });
                let kind = p.prediction.kind.as_ref();
                let kind = kind.map_or_else(String::new, |kind| format!("  {kind}"));
                sent(&format!(
                    "{:<8}{:>10.4}{:>13.4}  {place:<20}{}{kind}",
                    verdict(p),
                    p.prediction.score,
                    p.prediction.probability,
                    p.path.display()
                ))
            }
            FormatArg::Jsonl => {
                let place = region.map(
                    |r| json!({"x": r.left, "y": r.top, "width": r.width, "height": r.height}),
                );
                let mut line = json!({
                    "path": p.path.to_string_lossy(),
                    "score": p.prediction.score,
                    "probability": p.prediction.probability,
                    "verdict": verdict(p),
                    "box": place,
                    "kind": p.prediction.kind,
                    "drift": p.prediction.drift,
                });
                if !p.oddities.is_empty() {
                    line["oddities"] = json!(p.oddities);
                }
                let intake = std::mem::take(&mut self.intake);
                if !intake.is_empty() {
                    line["intake"] = json!(intake);
                }
                sent(&line.to_string())
            }
            FormatArg::Csv => {
                let place = region.map_or_else(
                    || ",,,".to_owned(),
                    |r| format!("{},{},{},{}", r.left, r.top, r.width, r.height),
                );
                let path = quoted(&p.path.to_string_lossy());
                sent(&format!(
                    "{path},{},{},{},{place}",
                    p.prediction.score,
                    p.prediction.probability,
                    verdict(p)
                ))
            }
        }
    }
}

/// A field of CSV, quoted where it must be (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("a b.png"), "a b.png");
        assert_eq!(quoted("a,\"b\".png"), "\"a,\"\"b\"\".png\"");
    }
}
