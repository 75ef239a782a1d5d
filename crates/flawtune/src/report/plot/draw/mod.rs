//! Lays a plot out: frame, axes, legend, and the marks of each kind of chart.

mod bars;
mod histogram;

use super::svg::{Anchor, Role, Svg, text_width};
use super::ticks::{self, Ticks};
use super::{Axis, Chart, Cloud, Guide, Line, Plot, Theme};

const WIDTH: f64 = 560.0;
const SQUARE: f64 = 400.0;
const HEIGHT: f64 = 320.0;
const SMALL: f64 = 11.0;
const NORMAL: f64 = 12.0;
const TITLE: f64 = 14.0;
const EDGE: f64 = 14.0;
const LEGEND_ROW: f64 = 18.0;

/// The data area, and how data become pixels.
struct Frame {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    x: Ticks,
    y: Ticks,
    log_x: bool,
    log_y: bool,
}

impl Frame {
    fn at(&self, point: [f64; 2]) -> (f64, f64) {
        let share = |v: f64, ticks: &Ticks, log: bool| {
            let (v, low, high) = if log {
                (
                    v.max(ticks.low).log10(),
                    ticks.low.log10(),
                    ticks.high.log10(),
                )
            } else {
                (v, ticks.low, ticks.high)
            };
            // far outside the frame every place looks the same
            ((v - low) / (high - low)).clamp(-4.0, 5.0)
        };
        (
            self.left + share(point[0], &self.x, self.log_x) * (self.right - self.left),
            self.bottom - share(point[1], &self.y, self.log_y) * (self.bottom - self.top),
        )
    }

    /// The nearest place inside the frame.
    fn inside(&self, point: [f64; 2]) -> (f64, f64) {
        let (x, y) = self.at(point);
        (
            x.clamp(self.left, self.right),
            y.clamp(self.top, self.bottom),
        )
    }
}

pub(super) fn draw(plot: &Plot, theme: Theme) -> String {
    let mut svg = Svg::new(theme);
    let (height, summary) = match &plot.chart {
        Chart::Lines { lines, guides } => draw_lines(&mut svg, plot, lines, guides),
        Chart::Histogram {
            populations,
            bins,
            threshold,
        } => histogram::draw(
            &mut svg,
            plot,
            populations,
            (*bins).clamp(1, 200),
            *threshold,
        ),
        Chart::Points { clouds } => draw_points(&mut svg, plot, clouds),
        Chart::Bars {
            labels,
            series,
            guide,
        } => bars::draw(&mut svg, plot, labels, series, guide.as_ref()),
    };
    svg.finish(width(plot), height, &plot.title, &summary)
}

fn width(plot: &Plot) -> f64 {
    if plot.square { SQUARE } else { WIDTH }
}

/// Title and legend; returns where the frame may begin.
fn head(svg: &mut Svg, plot: &Plot, names: &[(&str, Swatch)]) -> f64 {
    svg.text(
        (EDGE, 24.0),
        Anchor::Start,
        Role::Text,
        TITLE,
        true,
        &plot.title,
    );
    let mut at = (EDGE, 44.0);
    for (index, (name, swatch)) in names.iter().enumerate() {
        let wide = 22.0 + text_width(name, NORMAL) + 14.0;
        if at.0 > EDGE && at.0 + wide > width(plot) - EDGE {
            at = (EDGE, at.1 + LEGEND_ROW);
        }
        match swatch {
            Swatch::Line { dashes } => {
                svg.line(
                    (at.0, at.1 - 4.0),
                    (at.0 + 16.0, at.1 - 4.0),
                    Role::Series(index),
                    2.25,
                    dashes,
                );
            }
            Swatch::Area => svg.rect(
                (at.0 + 2.0, at.1 - 10.0),
                (12.0, 12.0),
                Role::Series(index),
                0.75,
                "",
            ),
        }
        svg.text(
            (at.0 + 22.0, at.1),
            Anchor::Start,
            Role::Text,
            NORMAL,
            false,
            name,
        );
        at.0 += wide;
    }
    if names.is_empty() { 38.0 } else { at.1 + 14.0 }
}

enum Swatch {
    Line { dashes: &'static str },
    Area,
}

fn axis_ticks(axis: &Axis, values: impl Iterator<Item = f64>, about: usize) -> Ticks {
    let usable = |v: &f64| v.is_finite() && (!axis.logarithmic || *v > 0.0);
    let (low, high) = match axis.range {
        Some([low, high]) => (low, high),
        None => values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                (l.min(v), h.max(v))
            }),
    };
    match &axis.marks {
        Some(marks) if axis.logarithmic => {
            let range = ticks::logarithmic(low, high);
            Ticks {
                marks: ticks::given(marks, range.low, range.high).marks,
                ..range
            }
        }
        Some(marks) => ticks::given(marks, low, high),
        None if axis.logarithmic => ticks::logarithmic(low, high),
        None => ticks::linear(low, high, about, axis.range.is_none()),
    }
}

/// Grid, marks and axis labels, around the data area.
fn frame(svg: &mut Svg, plot: &Plot, top: f64, x: Ticks, y: Ticks) -> (Frame, f64) {
    let widest = y
        .marks
        .iter()
        .map(|(_, label)| text_width(label, SMALL))
        .fold(0.0, f64::max);
    let left = EDGE + 16.0 + widest + 8.0;
    let right = width(plot) - EDGE - 6.0;
    let high = if plot.square {
        right - left
    } else {
        HEIGHT - 100.0
    };
    let bottom = top + high;
    let log_y = plot.y.logarithmic;
    let frame = Frame {
        left,
        top,
        right,
        bottom,
        x,
        y,
        log_x: plot.x.logarithmic,
        log_y,
    };
    for (value, label) in &frame.y.marks {
        let (_, y) = frame.at([frame.x.low, *value]);
        if y < top - 0.5 || y > bottom + 0.5 {
            continue;
        }
        svg.line((left, y), (right, y), Role::Grid, 1.0, "");
        svg.text(
            (left - 8.0, y + 4.0),
            Anchor::End,
            Role::Muted,
            SMALL,
            false,
            label,
        );
    }
    x_marks(svg, &frame);
    svg.line((left, bottom), (right, bottom), Role::Axis, 1.0, "");
    let middle = f64::midpoint(left, right);
    svg.text(
        (middle, bottom + 38.0),
        Anchor::Middle,
        Role::Text,
        NORMAL,
        false,
        &plot.x.text(),
    );
    svg.text_up(
        (EDGE + 10.0, f64::midpoint(top, bottom)),
        Role::Text,
        NORMAL,
        &plot.y.text(),
    );
    (frame, bottom + 50.0)
}

fn x_marks(svg: &mut Svg, frame: &Frame) {
    let mut free_from = f64::NEG_INFINITY;
    for (value, label) in &frame.x.marks {
        let (x, _) = frame.at([*value, frame.y.low]);
        if x < frame.left - 0.5 || x > frame.right + 0.5 {
            continue;
        }
        svg.line(
            (x, frame.bottom),
            (x, frame.bottom + 4.0),
            Role::Axis,
            1.0,
            "",
        );
        // labels never overlap: one without room is left out
        let half = 0.5 * text_width(label, SMALL);
        if x - half >= free_from {
            svg.text(
                (x, frame.bottom + 18.0),
                Anchor::Middle,
                Role::Muted,
                SMALL,
                false,
                label,
            );
            free_from = x + half + 5.0;
        }
    }
}

/// What a plot of these series shows, in words.
fn against<'a>(plot: &Plot, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let (x, y) = (plot.x.text(), plot.y.text());
    format!("{y} against {x}: {}", names.join(", "))
}

fn no_data(svg: &mut Svg, frame: &Frame) {
    let middle = (
        f64::midpoint(frame.left, frame.right),
        f64::midpoint(frame.top, frame.bottom),
    );
    svg.text(
        middle,
        Anchor::Middle,
        Role::Muted,
        NORMAL,
        false,
        "no data",
    );
}

fn draw_lines(svg: &mut Svg, plot: &Plot, lines: &[Line], guides: &[Guide]) -> (f64, String) {
    let names: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.name.as_str(),
                Swatch::Line {
                    dashes: if line.dashed { "6 4" } else { "" },
                },
            )
        })
        .collect();
    let top = head(svg, plot, &names);
    let xs = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|p| p[0]));
    let ys = lines.iter().flat_map(|line| {
        line.points
            .iter()
            .map(|p| p[1])
            .chain(line.band.iter().flatten().copied())
    });
    // lines run from edge to edge: the x range is not widened to the next mark
    let mut x_axis = plot.x.clone();
    if x_axis.range.is_none() && !x_axis.logarithmic {
        let (low, high) = xs
            .clone()
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                (l.min(v), h.max(v))
            });
        x_axis.range = Some([low, high]);
    }
    let (frame, height) = frame(
        svg,
        plot,
        top,
        axis_ticks(&x_axis, xs, 8),
        axis_ticks(&plot.y, ys, 5),
    );
    for guide in guides
        .iter()
        .filter(|g| g.from.iter().chain(&g.to).all(|v| v.is_finite()))
    {
        let (from, to) = (frame.inside(guide.from), frame.inside(guide.to));
        svg.line(from, to, Role::Axis, 1.0, "2 3");
        if !guide.label.is_empty() {
            let flat = (from.1 - to.1).abs() < 1.0;
            // precision ends at the level of chance: its name stands where curves begin, far above it
            let (at, anchor) = if flat {
                ((from.0 + 6.0, from.1 - 5.0), Anchor::Start)
            } else {
                ((to.0 - 8.0, to.1 + 66.0), Anchor::End)
            };
            svg.text(at, anchor, Role::Muted, SMALL, false, &guide.label);
        }
    }
    let finite = |p: &[f64; 2]| p[0].is_finite() && p[1].is_finite();
    for (index, line) in lines.iter().enumerate() {
        if line.band.len() == line.points.len() {
            for run in runs(line.points.len(), |i| {
                finite(&line.points[i]) && finite(&line.band[i])
            }) {
                let edge =
                    |side: usize, i: usize| frame.inside([line.points[i][0], line.band[i][side]]);
                let mut outline: Vec<_> = run.clone().map(|i| edge(0, i)).collect();
                outline.extend(run.rev().map(|i| edge(1, i)));
                svg.area(&outline, Role::Series(index), 0.16);
            }
        }
    }
    let mut drawn = 0;
    for (index, line) in lines.iter().enumerate() {
        for run in runs(line.points.len(), |i| finite(&line.points[i])) {
            let trace = seen(run.map(|i| frame.inside(line.points[i])));
            drawn += trace.len();
            svg.path(
                &trace,
                Role::Series(index),
                2.0,
                if line.dashed { "6 4" } else { "" },
            );
        }
        if line.dots {
            for point in line.points.iter().filter(|p| finite(p)) {
                let tip = format!("{}: {}, {}", line.name, tidy(point[0]), tidy(point[1]));
                svg.dot(frame.inside(*point), 3.2, Role::Series(index), &tip);
            }
        }
    }
    if drawn == 0 {
        no_data(svg, &frame);
    }
    let names = lines.iter().map(|line| line.name.as_str());
    (height, against(plot, names))
}

fn draw_points(svg: &mut Svg, plot: &Plot, clouds: &[Cloud]) -> (f64, String) {
    let names: Vec<_> = clouds
        .iter()
        .map(|cloud| (cloud.name.as_str(), Swatch::Area))
        .collect();
    let top = head(svg, plot, &names);
    let finite = |p: &&[f64; 2]| p[0].is_finite() && p[1].is_finite();
    let along = |axis: usize| {
        clouds
            .iter()
            .flat_map(move |c| c.points.iter().map(move |p| p[axis]))
    };
    let (frame, height) = frame(
        svg,
        plot,
        top,
        axis_ticks(&plot.x, along(0), 8),
        axis_ticks(&plot.y, along(1), 5),
    );
    let mut drawn = 0;
    for (index, cloud) in clouds.iter().enumerate() {
        let labelled = !cloud.labels.is_empty() && cloud.labels.len() == cloud.points.len();
        // few points among many must not drown
        let radius = match cloud.points.len() {
            _ if labelled => 4.5,
            0..=200 => 2.8,
            _ => 1.6,
        };
        for (i, point) in cloud.points.iter().enumerate().filter(|(_, p)| finite(p)) {
            let at = frame.inside(*point);
            let name = if labelled {
                &cloud.labels[i]
            } else {
                &cloud.name
            };
            let tip = format!("{name}: {}, {}", tidy(point[0]), tidy(point[1]));
            svg.dot(at, radius, Role::Series(index), &tip);
            if labelled {
                svg.text(
                    (at.0 + 6.0, at.1 - 5.0),
                    Anchor::Start,
                    Role::Text,
                    SMALL,
                    false,
                    name,
                );
            }
            drawn += 1;
        }
    }
    if drawn == 0 {
        no_data(svg, &frame);
    }
    let names = clouds.iter().map(|cloud| cloud.name.as_str());
    (height, against(plot, names))
}

/// The points of a line that can be told apart, and its last: a drawing stays small however many images were tested.
fn seen(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    const APART: f64 = 0.2;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut left_out = None;
    for point in points {
        let near = |last: &(f64, f64)| (point.0 - last.0).abs() + (point.1 - last.1).abs() < APART;
        if kept.last().is_some_and(near) {
            left_out = Some(point);
        } else {
            kept.push(point);
            left_out = None;
        }
    }
    kept.extend(left_out);
    kept
}

/// Maximal runs of indices for which `keep` holds.
fn runs(count: usize, keep: impl Fn(usize) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for index in (0..count).filter(|&i| keep(i)) {
        match found.last_mut() {
            Some(run) if run.end == index => run.end = index + 1,
            _ => found.push(index..index + 1),
        }
    }
    found
}

/// A value with at most four decimals and no trailing zeros.
fn tidy(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
