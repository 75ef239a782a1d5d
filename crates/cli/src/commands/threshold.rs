//! `flawtune threshold`

use flawtune::bundle::{Bundle, Header};
use flawtune::evaluate::statistics::Rate;
use flawtune::score::threshold::{TradeOff, trade_offs};
use flawtune::workflow::{NewThreshold, WorkflowError, set_threshold};
use serde_json::json;

use crate::Context;
use crate::args::ThresholdArgs;
use crate::console::{out, out_json};
use crate::failure::Failure;

pub(crate) fn run(args: &ThresholdArgs, context: Context) -> Result<(), Failure> {
    let new = args
        .false_alarms
        .map(NewThreshold::FalseAlarms)
        .or_else(|| args.find.map(NewThreshold::Find))
        .or_else(|| args.value.map(NewThreshold::Value));
    let failed = |e: WorkflowError| Failure::from_error(&e);
    let header = match new {
        None => {
            Bundle::read(&args.file)
                .map_err(|e| failed(e.into()))?
                .header
        }
        Some(new) => {
            let output = args.output.as_ref().unwrap_or(&args.file);
            let header = set_threshold(&args.file, new, output).map_err(failed)?;
            context
                .console
                .note(&format!("written to {}", output.display()));
            header
        }
    };
    let all = trade_offs(&header.threshold.good, &header.threshold.defects)
        .map_err(|e| failed(e.into()))?;
    if context.json {
        let scores = &header.threshold;
        return out_json(&json!({
            "threshold": scores.value,
            "good": scores.good.len(),
            "defects": scores.defects.len(),
            "trade_offs": all,
        }));
    }
    for line in table(&header, &all) {
        out(&line);
    }
    Ok(())
}

/// What thresholds stop and find, a line each.
pub(crate) fn table(header: &Header, all: &[TradeOff]) -> Vec<String> {
    let chosen = &header.threshold;
    let over = |scores: &[f64]| {
        let count = scores.iter().filter(|s| chosen.is_flaw(**s)).count();
        Rate::new(count, scores.len())
    };
    let text = |rate: Option<Rate>| {
        rate.map_or_else(
            || "–".to_owned(),
            |r| {
                let [share, low, high] = [r.share, r.low, r.high].map(|v| 100.0 * v);
                format!("{share:.1} % [{low:.0}, {high:.0}] of {}", r.of)
            },
        )
    };
    let line = |wanted: &str, threshold: f64, stopped: Option<Rate>, found: Option<Rate>| {
        format!(
            "{wanted:<14}{threshold:>10.4}   {:<26}{}",
            text(stopped),
            text(found)
        )
    };
    let head = format!(
        "{:<14}{:>10}   {:<26}finds",
        "false alarms", "threshold", "stops"
    );
    let mut lines = vec![head];
    lines.extend(all.iter().map(|t| {
        let wanted = format!("{} %", 100.0 * t.false_alarms);
        line(&wanted, t.threshold, t.stopped, t.found)
    }));
    lines.push(line(
        "in the file",
        chosen.value,
        over(&chosen.good),
        over(&chosen.defects),
    ));
    lines
}
