//! Bars with their intervals.

use super::super::svg::{Anchor, Role, Svg, text_width};
use super::super::{Axis, Bar, BarSeries, Plot, ticks};
use super::{
    EDGE, Frame, NORMAL, SMALL, Swatch, WIDTH, axis_ticks, head, no_data, tidy, width, x_marks,
};

const BAR: f64 = 13.0;
const GAP: f64 = 12.0;

/// Bars, a row a label, a bar a series.
pub(super) fn draw(
    svg: &mut Svg,
    plot: &Plot,
    labels: &[String],
    series: &[BarSeries],
    guide: Option<&(String, f64)>,
) -> (f64, String) {
    let names: Vec<_> = series
        .iter()
        .map(|s| (s.name.as_str(), Swatch::Area))
        .collect();
    let top = head(svg, plot, &names) + if guide.is_some() { 12.0 } else { 0.0 };
    let bars = || {
        series
            .iter()
            .flat_map(|s| s.bars.iter().flatten())
            .filter(|bar| bar.value.is_finite())
    };
    // a bar's length is its value: zero belongs to the axis
    let values = bars().flat_map(|bar| {
        [bar.value]
            .into_iter()
            .chain(bar.interval.into_iter().flatten())
    });
    let axis = Axis {
        range: plot
            .x
            .range
            .map(|[low, high]| [low.min(0.0), high.max(0.0)]),
        ..plot.x.clone()
    };
    let axis = Axis {
        logarithmic: false,
        ..axis
    };
    let x = axis_ticks(&axis, values.chain([0.0]), 6);
    let room = labels
        .iter()
        .map(|label| text_width(label, NORMAL))
        .fold(0.0, f64::max)
        .min(0.42 * WIDTH);
    let left = EDGE + room + 10.0;
    // values are written to the right of the area
    let right = width(plot) - EDGE - 40.0;
    let group = BAR * series.len().max(1) as f64 + GAP;
    let bottom = top + group * labels.len().max(1) as f64 + 4.0;
    let y = ticks::given(&[], 0.0, 1.0);
    let frame = Frame {
        left,
        top,
        right,
        bottom,
        x,
        y,
        log_x: false,
        log_y: false,
    };
    for (value, _) in &frame.x.marks {
        let (x, _) = frame.at([*value, 0.0]);
        svg.line((x, top), (x, bottom), Role::Grid, 1.0, "");
    }
    x_marks(svg, &frame);
    for (row, label) in labels.iter().enumerate() {
        let start = top + group * row as f64 + 0.5 * GAP;
        let middle = start + 0.5 * (group - GAP);
        svg.text(
            (left - 10.0, middle + 4.0),
            Anchor::End,
            Role::Text,
            NORMAL,
            false,
            &cut(label, room),
        );
        for (index, series) in series.iter().enumerate() {
            let Some(bar) = series
                .bars
                .get(row)
                .copied()
                .flatten()
                .filter(|bar| bar.value.is_finite())
            else {
                continue;
            };
            let y = start + BAR * index as f64;
            one(svg, &frame, (label, &series.name, index), y, bar);
        }
    }
    if bars().next().is_none() {
        no_data(svg, &frame);
    }
    let zero = frame.inside([0.0, 0.0]).0;
    svg.line((zero, top), (zero, bottom), Role::Axis, 1.0, "");
    if let Some((name, value)) = guide.filter(|(_, value)| value.is_finite()) {
        guided(svg, &frame, name, *value);
    }
    let middle = f64::midpoint(left, right);
    svg.text(
        (middle, bottom + 38.0),
        Anchor::Middle,
        Role::Text,
        NORMAL,
        false,
        &plot.x.text(),
    );
    (
        bottom + 50.0,
        format!("{} of each {}", plot.x.text(), plot.y.text()),
    )
}

/// A value that all bars are held against, with its name.
fn guided(svg: &mut Svg, frame: &Frame, name: &str, value: f64) {
    let (x, top) = (frame.inside([value, 0.0]).0, frame.top);
    svg.line((x, top - 2.0), (x, frame.bottom), Role::Muted, 1.25, "4 3");
    let at = (x, top - 6.0);
    svg.text(at, Anchor::Middle, Role::Muted, SMALL, false, name);
}

/// One bar of a row at `y`: its length, its interval, its value.
fn one(
    svg: &mut Svg,
    frame: &Frame,
    (label, series, index): (&str, &str, usize),
    y: f64,
    bar: Bar,
) {
    let (zero, end) = (frame.inside([0.0, 0.0]).0, frame.inside([bar.value, 0.0]).0);
    let mut tip = format!("{label}, {}: {}", series, tidy(bar.value));
    if let Some([low, high]) = bar.interval {
        tip = format!("{tip} ({} to {})", tidy(low), tidy(high));
    }
    svg.rect(
        (zero.min(end), y + 1.0),
        ((end - zero).abs(), BAR - 2.0),
        Role::Series(index),
        0.75,
        &tip,
    );
    if let Some([low, high]) = bar.interval.filter(|i| i.iter().all(|v| v.is_finite())) {
        let (low, high) = (frame.inside([low, 0.0]).0, frame.inside([high, 0.0]).0);
        let mid = y + 0.5 * BAR;
        svg.line((low, mid), (high, mid), Role::Text, 1.25, "");
        for end in [low, high] {
            svg.line((end, mid - 3.0), (end, mid + 3.0), Role::Text, 1.25, "");
        }
    }
    let at = (frame.right + 8.0, y + 0.5 * BAR + 4.0);
    svg.text(
        at,
        Anchor::Start,
        Role::Text,
        SMALL,
        false,
        &number(bar.value),
    );
}

/// A label cut to the room there is.
fn cut(label: &str, room: f64) -> String {
    if text_width(label, NORMAL) <= room + 0.5 {
        return label.to_owned();
    }
    let mut kept = String::new();
    for c in label.chars() {
        kept.push(c);
        if text_width(&kept, NORMAL) > room - NORMAL {
            kept.pop();
            break;
        }
    }
    kept + "…"
}

/// A value beside its bar: three decimals for shares of one, fewer for larger numbers.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v <= 1.0 && v > 0.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}").replace('-', "\u{2212}")
}
