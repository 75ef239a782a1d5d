//! Plots as SVG text: lines with bands, histograms with a threshold, bars with intervals.
//!
//! A [`Plot`] is plain data; [`Plot::to_svg`] draws it. The text depends on the data alone. With
//! [`Theme::Page`] colours are CSS custom properties, declared light and dark by
//! [`page_colours`], so one inlined drawing follows the reader's scheme; saved files carry their
//! colours in themselves.
//!
//! ```
//! use flawtune::report::plot::{Axis, Chart, Line, Plot, Theme};
//!
//! let curve = Line::new("adapted", vec![[0.0, 0.0], [0.1, 0.8], [1.0, 1.0]]);
//! let plot = Plot::new("ROC", Axis::new("false positive rate"), Axis::new("true positive rate"),
//!     Chart::Lines { lines: vec![curve], guides: vec![] });
//! assert!(plot.to_svg(Theme::Light).starts_with("<svg"));
//! ```

mod draw;
mod png;
mod svg;
mod ticks;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use png::PlotError;
pub(in crate::report) use png::rasterise;
pub(in crate::report) use svg::escape;

/// Where a drawing's colours come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Custom properties of the page it is inlined in, see [`page_colours`].
    Page,
    /// Dark on white, in the drawing itself.
    Light,
    /// Light on near-black, in the drawing itself.
    Dark,
}

/// CSS that gives drawings with [`Theme::Page`] their colours: light, and dark where the reader's
/// system asks for it, but never on paper.
pub fn page_colours() -> String {
    format!(
        ":root{{{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        svg::declarations(false),
        svg::declarations(true)
    )
}

/// One axis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What is measured, in words.
    pub label: String,
    /// Its unit, written in brackets after the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Ends of the axis; without them the data decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// Places to mark, for an axis of few values; without them round numbers are marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Vec<f64>>,
    /// Equal distances are equal ratios; needs positive values.
    #[serde(default)]
    pub logarithmic: bool,
}

impl Axis {
    /// An axis that fits itself to the data.
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            ..Self::default()
        }
    }

    /// The same axis from `low` to `high`.
    #[must_use]
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some([low, high]);
        self
    }

    /// The same axis with a unit.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// The same axis marked at these values only.
    #[must_use]
    pub fn marks(mut self, marks: Vec<f64>) -> Self {
        self.marks = Some(marks);
        self
    }

    fn text(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{} [{unit}]", self.label),
            None => self.label.clone(),
        }
    }
}

/// One line of a [`Chart::Lines`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// `[x, y]` in drawing order; a point that is not finite breaks the line.
    pub points: Vec<[f64; 2]>,
    /// Lower and upper end of the interval at each point; as many as points, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub band: Vec<[f64; 2]>,
    /// Mark each point.
    #[serde(default)]
    pub dots: bool,
    /// Draw with dashes: for a baseline.
    #[serde(default)]
    pub dashed: bool,
}

impl Line {
    /// A solid line without band or dots.
    pub fn new(name: impl Into<String>, points: Vec<[f64; 2]>) -> Self {
        Self {
            name: name.into(),
            points,
            ..Self::default()
        }
    }
}

/// A thin reference line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guide {
    /// Written beside it; may be empty.
    pub label: String,
    /// First end, `[x, y]`.
    pub from: [f64; 2],
    /// Second end, `[x, y]`.
    pub to: [f64; 2],
}

/// Values of one population in a [`Chart::Histogram`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Population {
    /// Name in the legend.
    pub name: String,
    /// One value an image.
    pub values: Vec<f64>,
}

/// One bar with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Length of the bar.
    pub value: f64,
    /// Interval about it, lower and upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// Bars of one colour in a [`Chart::Bars`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    /// Name in the legend.
    pub name: String,
    /// One for each label; `None` leaves a gap.
    pub bars: Vec<Option<Bar>>,
}

/// Points of one colour in a [`Chart::Points`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cloud {
    /// Name in the legend.
    pub name: String,
    /// `[x, y]`; those that are not finite are left out.
    pub points: Vec<[f64; 2]>,
    /// Written beside each point; as many as points, or none. Labelled points are drawn larger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// What a plot shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Chart {
    /// Lines, each with an optional interval band.
    Lines {
        /// The lines, drawn in order.
        lines: Vec<Line>,
        /// Reference lines under them.
        #[serde(default)]
        guides: Vec<Guide>,
    },
    /// Overlaid histograms over shared bins; heights are per cent of each population.
    Histogram {
        /// The populations.
        populations: Vec<Population>,
        /// Number of bins, 1 to 200.
        bins: usize,
        /// Marked with a vertical line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f64>,
    },
    /// Scattered points.
    Points {
        /// One a colour, drawn in order.
        clouds: Vec<Cloud>,
    },
    /// Horizontal bars from zero, one group a label; the x axis is the value.
    Bars {
        /// One a group, from the top.
        labels: Vec<String>,
        /// One a colour.
        series: Vec<BarSeries>,
        /// A value to mark across all groups, with its name, for example chance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guide: Option<(String, f64)>,
    },
}

/// A plot: its axes and what it shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// Written above it.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis; bars have only its label.
    pub y: Axis,
    /// What it shows.
    pub chart: Chart,
    /// Draw one unit of both axes equally long (ROC and precision-recall curves).
    #[serde(default)]
    pub square: bool,
}

impl Plot {
    /// A plot of ordinary proportions.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, chart: Chart) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            chart,
            square: false,
        }
    }

    /// ROC curves, `[false positive rate, true positive rate]`, in a square with the diagonal of chance.
    pub fn roc(title: impl Into<String>, lines: Vec<Line>) -> Self {
        let chance = Guide {
            label: "chance".to_owned(),
            from: [0.0, 0.0],
            to: [1.0, 1.0],
        };
        Self {
            title: title.into(),
            x: Axis::new("false positive rate").range(0.0, 1.0),
            y: Axis::new("true positive rate").range(0.0, 1.0),
            chart: Chart::Lines {
                lines,
                guides: vec![chance],
            },
            square: true,
        }
    }

    /// Precision-recall curves, `[recall, precision]`, in a square; `prevalence` is the precision of
    /// chance, the share of defects in the test set.
    pub fn precision_recall(title: impl Into<String>, lines: Vec<Line>, prevalence: f64) -> Self {
        let chance = Guide {
            label: "chance".to_owned(),
            from: [0.0, prevalence],
            to: [1.0, prevalence],
        };
        Self {
            title: title.into(),
            x: Axis::new("recall").range(0.0, 1.0),
            y: Axis::new("precision").range(0.0, 1.0),
            chart: Chart::Lines {
                lines,
                guides: vec![chance],
            },
            square: true,
        }
    }

    /// Histograms of image scores with the threshold.
    pub fn scores(
        title: impl Into<String>,
        populations: Vec<Population>,
        threshold: Option<f64>,
    ) -> Self {
        Self::new(
            title,
            Axis::new("image score"),
            Axis::new("share of images").unit("%"),
            Chart::Histogram {
                populations,
                bins: 24,
                threshold,
            },
        )
    }

    /// The drawing as one `<svg>` element with its own size in pixels. Values that are not finite
    /// are left out; a plot without any says so.
    pub fn to_svg(&self, theme: Theme) -> String {
        draw::draw(self, theme)
    }

    /// Writes the drawing to a file, with an XML declaration; the file appears whole or not at all.
    ///
    /// # Errors
    /// What the system says when the folder or file cannot be written.
    pub fn save(&self, path: &Path, theme: Theme) -> io::Result<()> {
        // a file has no page to take colours from
        let theme = if theme == Theme::Page {
            Theme::Light
        } else {
            theme
        };
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}",
            self.to_svg(theme)
        );
        flawtune_backbone::atomic_file::write(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Plot> {
        let line = Line {
            name: "adapted <&>".to_owned(),
            points: vec![[0.0, 0.1], [1.0, f64::NAN], [2.0, 0.9], [3.0, 0.8]],
            band: vec![[0.0, 0.2], [0.0, 1.0], [0.8, 1.0], [0.7, f64::INFINITY]],
            dots: true,
            dashed: true,
        };
        vec![
            Plot::new(
                "Lines",
                Axis::new("step"),
                Axis::new("loss").unit("nats"),
                Chart::Lines {
                    lines: vec![line.clone()],
                    guides: vec![],
                },
            ),
            Plot::roc("ROC", vec![line]),
            Plot::scores(
                "Scores",
                vec![
                    Population {
                        name: "good".to_owned(),
                        values: vec![0.1, 0.2, f64::NAN, 0.2],
                    },
                    Population {
                        name: "none".to_owned(),
                        values: vec![],
                    },
                ],
                Some(0.15),
            ),
            Plot::new(
                "Bars",
                Axis::new("AUROC"),
                Axis::new("defect type"),
                Chart::Bars {
                    labels: vec![
                        "scratch".to_owned(),
                        "a very long defect type name".to_owned(),
                    ],
                    series: vec![BarSeries {
                        name: "zero-shot".to_owned(),
                        bars: vec![
                            Some(Bar {
                                value: 0.8,
                                interval: Some([0.7, 0.9]),
                            }),
                            None,
                        ],
                    }],
                    guide: Some(("chance".to_owned(), 0.5)),
                },
            ),
            Plot::new(
                "Points",
                Axis::new("first"),
                Axis::new("second"),
                Chart::Points {
                    clouds: vec![
                        Cloud {
                            name: "patches".to_owned(),
                            points: vec![[0.0, 1.0], [f64::NAN, 2.0], [3.0, -1.0]],
                            labels: vec![],
                        },
                        Cloud {
                            name: "prompts".to_owned(),
                            points: vec![[1.0, 1.0]],
                            labels: vec!["<1>".to_owned()],
                        },
                    ],
                },
            ),
            Plot::new(
                "Empty",
                Axis::default(),
                Axis::default(),
                Chart::Lines {
                    lines: vec![],
                    guides: vec![],
                },
            ),
        ]
    }

    #[test]
    fn drawings_are_well_formed_repeatable_and_finite() {
        for plot in samples() {
            for theme in [Theme::Page, Theme::Light, Theme::Dark] {
                let svg = plot.to_svg(theme);
                assert_eq!(svg, plot.to_svg(theme));
                assert!(
                    svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"")
                        && svg.ends_with("</svg>\n")
                );
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains("<&>"));
                assert_eq!(svg.contains("var(--plot-"), theme == Theme::Page);
                assert_eq!(svg.matches('<').count(), svg.matches('>').count());
                for element in ["text", "title", "desc", "svg", "circle", "rect"] {
                    let closed = svg.matches(&format!("</{element}>")).count();
                    let empty = svg.matches("/>").count();
                    let open = svg.matches(&format!("<{element} ")).count()
                        + svg.matches(&format!("<{element}>")).count();
                    assert!(open >= closed && open <= closed + empty, "{element}");
                }
            }
        }
    }

    #[test]
    fn a_line_of_many_points_is_a_small_drawing() {
        let line = |count: u32| {
            let at = |i| f64::from(i) / f64::from(count);
            Line::new("a", (0..=count).map(|i| [at(i), at(i).sqrt()]).collect())
        };
        let svg = Plot::roc("ROC", vec![line(1_000_000)]).to_svg(Theme::Light);
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
        // few points stay as they are: the guide is a line, the curve the only path
        let path = |svg: &str| {
            svg.split("<path d=\"M")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            path(&Plot::roc("ROC", vec![line(50)]).to_svg(Theme::Light))
                .matches('L')
                .count(),
            50
        );
        // both ends are there
        let (few, many) = (
            path(&Plot::roc("ROC", vec![line(1)]).to_svg(Theme::Light)),
            path(&svg),
        );
        let ends = |d: &str| {
            (
                d.split('L').next().unwrap().to_owned(),
                d.rsplit('L').next().unwrap().to_owned(),
            )
        };
        assert_eq!(ends(&few), ends(&many));
    }

    #[test]
    fn every_part_is_drawn() {
        let plots = samples();
        let bars = plots[3].to_svg(Theme::Light);
        for text in ["scratch", "AUROC", "zero-shot", "chance", "0.80"] {
            assert!(bars.contains(text), "{text} in {bars}");
        }
        let lines = plots[0].to_svg(Theme::Light);
        assert!(lines.contains("loss [nats]") && lines.contains("adapted &lt;&amp;&gt;"));
        // three finite points: three dots
        assert_eq!(lines.matches("<circle").count(), 3);
        assert!(lines.contains("stroke-dasharray"));
        // two finite patches and a prompt with its label
        let points = plots[4].to_svg(Theme::Light);
        assert_eq!(points.matches("<circle").count(), 3);
        assert!(points.contains("&lt;1&gt;</text>") && points.contains("prompts"));
        assert!(plots[5].to_svg(Theme::Light).contains("no data"));
        assert!(plots[2].to_svg(Theme::Light).contains("threshold 0.15"));
    }

    #[test]
    fn a_histogram_sums_to_a_hundred_per_cent() {
        let values: Vec<f64> = (0..50).map(|i| i as f64 / 49.0).collect();
        let plot = Plot::scores(
            "Scores",
            vec![Population {
                name: "good".to_owned(),
                values,
            }],
            None,
        );
        let svg = plot.to_svg(Theme::Light);
        let total: f64 = svg
            .split("<title>good: ")
            .skip(1)
            .map(|rest| rest.split(" %").next().unwrap().parse::<f64>().unwrap())
            .sum();
        assert!((total - 100.0).abs() < 0.6, "{total}");
    }

    #[test]
    fn saved_files_carry_their_colours_and_plots_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roc.svg");
        let plot = Plot::roc(
            "ROC",
            vec![Line::new("adapted", vec![[0.0, 0.0], [1.0, 1.0]])],
        );
        plot.save(&path, Theme::Page).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("<?xml") && !text.contains("var("));
        let again: Plot = serde_json::from_str(&serde_json::to_string(&plot).unwrap()).unwrap();
        assert_eq!(again, plot);
        assert!(
            plot.save(&folder.path().join("no/such/roc.svg"), Theme::Light)
                .is_err()
        );
    }
}
