//! The metric against each axis of a study.

use std::path::PathBuf;

use super::grid::joined;
use super::{AblateError, Axis as GridAxis, Study, Summary, SummaryRow, io_error};
use flawtune::report::plot::{Axis, Bar, BarSeries, Chart, Guide, Line, Plot, Theme};

/// Writes `plots/<category>_<axis>.svg` (AUROC, with one standard deviation over seeds) and
/// `plots/<category>_<axis>_difference.svg` (difference to the strongest zero-shot scorer, with its 95 % interval) for each
/// axis of several values. Where a grid has further axes, the others stand at the best setting of the category.
///
/// # Errors
/// [`AblateError::Io`].
pub fn plots(study: &Study, summary: &Summary) -> Result<Vec<PathBuf>, AblateError> {
    let folder = study.folder.join("plots");
    let mut written = Vec::new();
    for category in &study.categories {
        for axis in study.axes.iter().filter(|a| a.values.len() > 1) {
            let rows: Vec<&SummaryRow> = summary
                .rows
                .iter()
                .filter(|r| &r.category == category)
                .collect();
            let series = series(axis, &rows);
            if series.is_empty() {
                continue;
            }
            std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
            let held = held(axis, &series);
            for (suffix, plot) in [
                ("", absolute(category, axis, &series, &held)),
                ("_difference", difference(category, axis, &series, &held)),
            ] {
                let path = folder.join(format!("{category}_{}{suffix}.svg", axis.name));
                plot.save(&path, Theme::Light).map_err(io_error(&path))?;
                written.push(path);
            }
        }
    }
    Ok(written)
}

/// What a row is measured against.
type Baseline<'a> = &'a dyn Fn(&SummaryRow) -> Option<f64>;

/// One scorer along an axis: a row for each value that has one.
type Series<'a> = (&'a str, Vec<(&'a str, &'a SummaryRow)>);

/// The scorers that learned from defects, with the other axes at the scorer's best setting.
fn series<'a>(axis: &'a GridAxis, rows: &[&'a SummaryRow]) -> Vec<Series<'a>> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|r| r.against.is_some()) {
        if !names.contains(&row.scorer.as_str()) {
            names.push(&row.scorer);
        }
    }
    let one = |name: &'a str| {
        let of: Vec<&&SummaryRow> = rows.iter().filter(|r| r.scorer == name).collect();
        let best = of.iter().find(|r| r.best)?;
        let along = |value: &'a String| {
            let fits = |row: &SummaryRow| {
                row.settings.iter().zip(&best.settings).all(|(s, b)| {
                    if s.name == axis.name {
                        s.value == *value
                    } else {
                        s == b
                    }
                })
            };
            of.iter().find(|r| fits(r)).map(|r| (value.as_str(), **r))
        };
        Some((name, axis.values.iter().filter_map(along).collect()))
    };
    names.into_iter().filter_map(one).collect()
}

/// What the other axes are held at, for a label.
fn held(axis: &GridAxis, series: &[Series<'_>]) -> String {
    let Some((_, row)) = series.first().and_then(|s| s.1.first()) else {
        return String::new();
    };
    let others = joined(row.settings.iter().filter(|s| s.name != axis.name), ", ");
    if others.is_empty() {
        String::new()
    } else {
        format!(" ({others})")
    }
}

/// The values as numbers, if they all are.
fn numbers(axis: &GridAxis) -> Option<Vec<f64>> {
    axis.values
        .iter()
        .map(|v| v.parse::<f64>().ok().filter(|v| v.is_finite()))
        .collect()
}

fn absolute(category: &str, axis: &GridAxis, series: &[Series<'_>], held: &str) -> Plot {
    let band = |row: &SummaryRow| {
        let d = row.auroc.deviation.unwrap_or(0.0);
        [row.auroc.mean - d, (row.auroc.mean + d).min(1.0)]
    };
    let baseline = |row: &SummaryRow| row.against.as_ref().map(|a| a.auroc.mean);
    let title = format!("{category}: AUROC by {}", axis.name);
    draw(
        &title,
        ["AUROC, ± 1 std over seeds", held],
        axis,
        series,
        |r| r.auroc.mean,
        band,
        Some(&baseline),
    )
}

fn difference(category: &str, axis: &GridAxis, series: &[Series<'_>], held: &str) -> Plot {
    let of = |row: &SummaryRow| {
        row.against
            .as_ref()
            .map_or(f64::NAN, |a| a.difference.difference)
    };
    let band = |row: &SummaryRow| {
        row.against
            .as_ref()
            .map_or([f64::NAN; 2], |a| [a.difference.low, a.difference.high])
    };
    let title = format!("{category}: gain over zero-shot by {}", axis.name);
    draw(
        &title,
        ["AUROC difference, 95 % interval", held],
        axis,
        series,
        of,
        band,
        None,
    )
}

/// Lines over an axis of numbers, bars over an axis of words; `held` says what the other axes are at.
fn draw(
    title: &str,
    [label, held]: [&str; 2],
    axis: &GridAxis,
    series: &[Series<'_>],
    value: impl Fn(&SummaryRow) -> f64,
    band: impl Fn(&SummaryRow) -> [f64; 2],
    baseline: Option<Baseline<'_>>,
) -> Plot {
    let Some(marks) = numbers(axis) else {
        let bar = |rows: &[(&str, &SummaryRow)], at: &str| {
            rows.iter().find(|r| r.0 == at).map(|(_, row)| Bar {
                value: value(row),
                interval: Some(band(row)),
            })
        };
        let bars = series
            .iter()
            .map(|(name, rows)| BarSeries {
                name: (*name).to_owned(),
                bars: axis.values.iter().map(|v| bar(rows, v)).collect(),
            })
            .collect();
        let base = series
            .first()
            .and_then(|s| s.1.first())
            .and_then(|(_, row)| baseline.and_then(|b| b(row)));
        let guide = base.map(|b| ("zero-shot".to_owned(), b));
        let chart = Chart::Bars {
            labels: axis.values.clone(),
            series: bars,
            guide,
        };
        return Plot::new(
            title,
            Axis::new(format!("{label}{held}")),
            Axis::new(&axis.name),
            chart,
        );
    };
    let at = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    let mut lines: Vec<Line> = series
        .iter()
        .map(|(name, rows)| Line {
            name: (*name).to_owned(),
            points: rows.iter().map(|(x, row)| [at(x), value(row)]).collect(),
            band: rows.iter().map(|(_, row)| band(row)).collect(),
            dots: true,
            dashed: false,
        })
        .collect();
    let mut guides = Vec::new();
    let (low, high) = marks
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &m| {
            (l.min(m), h.max(m))
        });
    if let (Some(baseline), Some((_, rows))) = (baseline, series.first()) {
        lines.push(Line {
            name: "strongest zero-shot".to_owned(),
            points: rows
                .iter()
                .map(|(x, row)| [at(x), baseline(row).unwrap_or(f64::NAN)])
                .collect(),
            dashed: true,
            ..Line::default()
        });
    } else {
        guides.push(Guide {
            label: "zero-shot".to_owned(),
            from: [low, 0.0],
            to: [high, 0.0],
        });
    }
    for line in &mut lines {
        let mut order: Vec<usize> = (0..line.points.len()).collect();
        order.sort_by(|&a, &b| line.points[a][0].total_cmp(&line.points[b][0]));
        line.points = order.iter().map(|&i| line.points[i]).collect();
        if !line.band.is_empty() {
            line.band = order.iter().map(|&i| line.band[i]).collect();
        }
    }
    let logarithmic = low > 0.0 && high / low >= 10.0;
    let x = Axis {
        logarithmic,
        ..Axis::new(format!("{}{held}", axis.name)).marks(marks)
    };
    Plot::new(title, x, Axis::new(label), Chart::Lines { lines, guides })
}
