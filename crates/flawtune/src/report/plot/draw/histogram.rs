//! Histograms.

use super::super::svg::{Anchor, Role, Svg};
use super::super::{Axis, Plot, Population};
use super::{Frame, SMALL, Swatch, axis_ticks, frame, head, no_data, tidy};

/// Histograms of populations, as shares of each in percent.
pub(super) fn draw(
    svg: &mut Svg,
    plot: &Plot,
    populations: &[Population],
    bins: usize,
    threshold: Option<f64>,
) -> (f64, String) {
    let threshold = threshold.filter(|t| t.is_finite());
    let labels: Vec<String> = populations
        .iter()
        .map(|p| {
            format!(
                "{} ({})",
                p.name,
                p.values.iter().filter(|v| v.is_finite()).count()
            )
        })
        .collect();
    let names: Vec<_> = labels
        .iter()
        .map(|label| (label.as_str(), Swatch::Area))
        .collect();
    let top = head(svg, plot, &names) + if threshold.is_some() { 12.0 } else { 0.0 };
    let all = || {
        populations
            .iter()
            .flat_map(|p| p.values.iter().copied())
            .filter(|v| v.is_finite())
    };
    let (low, high) = all()
        .chain(threshold)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
    let (low, high) = plot.x.range.map_or((low, high), |[l, h]| (l, h));
    let x = Axis {
        range: Some([low, high]),
        ..plot.x.clone()
    };
    let x = axis_ticks(&x, all(), 7);
    let (low, high) = (x.low, x.high);
    let width = (high - low) / bins as f64;
    let shares: Vec<Vec<f64>> = populations
        .iter()
        .map(|p| shares_of(p, (low, high), bins))
        .collect();
    let y = axis_ticks(&plot.y, shares.iter().flatten().copied().chain([0.0]), 4);
    let (frame, height) = frame(svg, plot, top, x, y);
    outlines(svg, &frame, populations, &shares, (low, width));
    if all().next().is_none() {
        no_data(svg, &frame);
    }
    if let Some(threshold) = threshold {
        mark(svg, &frame, threshold);
    }
    (
        height,
        format!(
            "{} over {}: {}",
            plot.y.text(),
            plot.x.text(),
            labels.join(", ")
        ),
    )
}

/// The share of a population in each bin, in percent of all of it.
fn shares_of(population: &Population, (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    let width = (high - low) / bins as f64;

    let mut counts = vec![0_u32; bins];
    let mut total = 0_u32;
    for &value in population.values.iter().filter(|v| v.is_finite()) {
        total += 1;
        if value >= low && value <= high {
            counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
        }
    }
    counts
        .iter()
        .map(|&count| 100.0 * f64::from(count) / f64::from(total.max(1)))
        .collect()
}

/// The bars of each population, and the line round them; bins begin at `low` and have a `width`.
fn outlines(
    svg: &mut Svg,
    frame: &Frame,
    populations: &[Population],
    shares: &[Vec<f64>],
    (low, width): (f64, f64),
) {
    for (index, (population, shares)) in populations.iter().zip(shares).enumerate() {
        let mut outline = Vec::new();
        for (bin, &share) in shares.iter().enumerate() {
            let (from, to) = (low + bin as f64 * width, low + (bin + 1) as f64 * width);
            let (a, b) = (frame.inside([from, share]), frame.inside([to, 0.0]));
            outline.extend([a, (b.0, a.1)]);
            if share > 0.0 {
                let tip = format!(
                    "{}: {} % from {} to {}",
                    population.name,
                    tidy(share),
                    tidy(from),
                    tidy(to)
                );
                svg.rect(a, (b.0 - a.0, b.1 - a.1), Role::Series(index), 0.4, &tip);
            }
        }
        if shares.iter().any(|&share| share > 0.0) {
            svg.path(&outline, Role::Series(index), 1.5, "");
        }
    }
}

/// The threshold, as a line with its value.
fn mark(svg: &mut Svg, frame: &Frame, threshold: f64) {
    let (x, y) = frame.inside([threshold, frame.y.high]);
    svg.line((x, y - 4.0), (x, frame.bottom), Role::Text, 1.5, "5 3");
    let right_half = x > f64::midpoint(frame.left, frame.right);
    let anchor = if right_half {
        Anchor::End
    } else {
        Anchor::Start
    };
    svg.text(
        (x, y - 8.0),
        anchor,
        Role::Text,
        SMALL,
        false,
        &format!("threshold {}", tidy(threshold)),
    );
}
