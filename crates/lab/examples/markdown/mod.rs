//! Cells of the tables that examples print.

use std::error::Error;

use flawtune::evaluate::metrics::{auroc, average_precision};
use flawtune::evaluate::statistics::{
    BootstrapOptions, RankingMetric, SeedScores, paired_bootstrap_over_seeds,
};
use flawtune_lab::ablate::Spread;

/// The metric of one run.
pub(crate) fn metric(
    labels: &[bool],
    scores: &[f64],
    which: RankingMetric,
) -> Result<f64, Box<dyn Error>> {
    match which {
        RankingMetric::Auroc => auroc(labels, scores)?.ok_or_else(|| "one class only".into()),
        RankingMetric::AveragePrecision => Ok(average_precision(labels, scores)?),
    }
}

/// Mean ± standard deviation.
pub(crate) fn mean_and_deviation(spread: &Spread) -> String {
    format!(
        "{:.3} ± {:.3}",
        spread.mean,
        spread.deviation.unwrap_or(0.0)
    )
}

/// Difference of AUROC over the runs together with its 95 % interval; bold where that leaves out 0.
pub(crate) fn difference(runs: &[SeedScores<'_>]) -> Result<String, Box<dyn Error>> {
    let found =
        paired_bootstrap_over_seeds(runs, RankingMetric::Auroc, &BootstrapOptions::default())?;
    let text = format!(
        "{:+.3} [{:+.3}, {:+.3}]",
        found.difference, found.low, found.high
    )
    .replace('-', "−");
    Ok(if found.low > 0.0 || found.high < 0.0 {
        format!("**{text}**")
    } else {
        text
    })
}
