//! Formats a run report as HTML.

use std::fmt::Write as _;

use super::base64::is_base64;
use super::{Cell, Comparison, Estimate, Example, Gallery, Picture, RunReport, SplitPart, Table, TypeResult};
use crate::report::plot::{Plot, Theme, escape, page_colours};

const STYLE: &str = include_str!("style.css");
const SORT: &str = include_str!("sort.js");
/// Nothing may be fetched; the page's own style, script and pictures may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

pub(super) fn page(report: &RunReport) -> String {
    let mut sections: Vec<(&str, &str, String)> = Vec::new();
    let mut add = |id, title, body: String| {
        if !body.is_empty() {
            sections.push((id, title, body));
        }
    };
    add("result", "Result", headline(&report.headline));
    add("found", "What was found, and where", galleries(&report.findings));
    add("types", "By defect type", per_type(&report.per_type));
    add("curves", "Curves", plots(&report.curves));
    add("scores", "Image scores", plots(&report.histograms));
    add("errors", "Most wrong images", galleries(&report.errors));
    add("training", "Training", plots(&report.training));
    add("tables", "Further tables", report.tables.iter().map(table).collect());
    add("protocol", "Protocol and split", protocol(report));
    add("repeat", "Repeat this run", repeat(report));
    add("notes", "Notes", notes(&report.notes));

    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}{colours}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kicker\">flawtune report</p>\n<h1>{title}</h1>\n",
        title = escape(&report.title),
        colours = page_colours(),
    );
    if !report.summary.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(&report.summary));
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "<div class=\"warning\" role=\"note\">{}</div>", escape(warning));
    }
    if sections.len() > 1 {
        out.push_str("<nav aria-label=\"Sections\">");
        for (id, title, _) in &sections {
            let _ = write!(out, "<a href=\"#{id}\">{title}</a>");
        }
        out.push_str("</nav>\n");
    }
    out.push_str("</header>\n");
    for (id, title, body) in &sections {
        let _ = writeln!(out, "<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>");
    }
    let _ = write!(
        out,
        "<footer>This page is one file and asks the network for nothing.</footer>\n</main>\n<script>\n{SORT}</script>\n\
         </body>\n</html>\n"
    );
    out
}

fn headline(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"tiles\">\n");
    for comparison in comparisons {
        let _ = write!(
            out,
            "<div class=\"tile\">\n<div class=\"name\">{}</div>\n<div class=\"value\">{}</div>\n\
             <div class=\"detail\">{}zero-shot {}</div>\n",
            escape(&comparison.metric),
            value(comparison.adapted.value),
            uncertainty(&comparison.adapted).map(|text| format!("adapted, {text}<br>")).unwrap_or_default(),
            estimate(&comparison.zero_shot),
        );
        if let Some(step) = comparison.difference.value.filter(|v| v.is_finite()) {
            let class = if step > 0.0 {
                "up"
            } else if step < 0.0 {
                "down"
            } else {
                "same"
            };
            let _ = write!(
                out,
                "<div class=\"step\"><span class=\"{class}\">{}{}</span> against zero-shot</div>\n<div class=\"detail\">",
                if step > 0.0 { "+" } else { "" },
                number(step, 3),
            );
            let mut details: Vec<String> = uncertainty(&comparison.difference).into_iter().collect();
            details.extend(comparison.p_value.filter(|p| p.is_finite()).map(p_value));
            if !comparison.method.is_empty() {
                details.push(escape(&comparison.method));
            }
            let _ = writeln!(out, "{}</div>", details.join(" · "));
        }
        out.push_str("</div>\n");
    }
    out + "</div>\n"
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "p &lt; 0.001".to_owned() } else { format!("p = {}", number(p, 3)) }
}

fn per_type(results: &[TypeResult]) -> String {
    if results.is_empty() {
        return String::new();
    }
    let seen = results.iter().any(|result| result.seen.is_some());
    let mut columns = vec!["defect type".to_owned(), "test images".to_owned()];
    if seen {
        columns.push("in training".to_owned());
    }
    columns.extend(["zero-shot AUROC", "adapted AUROC", "difference"].map(str::to_owned));
    let rows = results
        .iter()
        .map(|result| {
            let mut row = vec![Cell::Text(result.defect_type.clone()), Cell::Number(result.images as f64)];
            if seen {
                let word = match result.seen {
                    Some(true) => "seen",
                    Some(false) => "unseen",
                    None => "",
                };
                row.push(Cell::Text(word.to_owned()));
            }
            // formatting, not statistics: the gap between two numbers shown side by side
            let gap = result.adapted.value.zip(result.zero_shot.value).map(|(after, before)| after - before);
            row.push(Cell::Estimate(result.zero_shot));
            row.push(Cell::Estimate(result.adapted));
            row.push(Cell::Estimate(Estimate { value: gap, ..Estimate::default() }));
            row
        })
        .collect();
    table(&Table { title: String::new(), columns, rows })
}

fn table(table: &Table) -> String {
    let numeric = |column: usize| {
        let mut cells = table.rows.iter().filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(|cell| !matches!(cell, Cell::Text(_)))
    };
    let numeric: Vec<bool> = (0..table.columns.len()).map(numeric).collect();
    let mut out = String::new();
    if !table.title.is_empty() {
        let _ = writeln!(out, "<h3>{}</h3>", escape(&table.title));
    }
    out.push_str("<div class=\"scroll\"><table class=\"sortable\">\n<thead><tr>");
    for (column, &numeric) in table.columns.iter().zip(&numeric) {
        let class = if numeric { " class=\"number\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escape(column));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (column, &numeric) in numeric.iter().enumerate() {
            let (text, key) = match row.get(column) {
                None => (String::new(), None),
                Some(Cell::Text(text)) => (escape(text), None),
                Some(Cell::Number(v)) => (plain(*v), Some(*v)),
                Some(Cell::Estimate(e)) => (estimate(e), e.value),
            };
            let class = if numeric { " class=\"number\"" } else { "" };
            let key =
                key.filter(|v| v.is_finite()).map(|v| format!(" data-value=\"{v}\"")).unwrap_or_default();
            let _ = write!(out, "<td{class}{key}>{text}</td>");
        }
        out.push_str("</tr>\n");
    }
    out + "</tbody></table></div>\n"
}

fn plots(plots: &[Plot]) -> String {
    if plots.is_empty() {
        return String::new();
    }
    let figures: String =
        plots.iter().map(|plot| ["<figure>", &plot.to_svg(Theme::Page), "</figure>\n"].concat()).collect();
    format!("<div class=\"plots\">\n{figures}</div>\n")
}

fn galleries(galleries: &[Gallery]) -> String {
    let mut out = String::new();
    for gallery in galleries {
        let _ = writeln!(out, "<h3>{}</h3>", escape(&gallery.title));
        if !gallery.note.is_empty() {
            let _ = writeln!(out, "<p class=\"muted\">{}</p>", escape(&gallery.note));
        }
        if gallery.examples.is_empty() {
            out.push_str("<p class=\"muted\">None.</p>\n");
            continue;
        }
        // room for the largest number of pictures side by side
        let most =
            gallery.examples.iter().map(|example| example.pictures.len()).max().unwrap_or(1).clamp(1, 4);
        let _ = writeln!(out, "<div class=\"examples\" style=\"--wide:{}px\">", 130 * most.max(2));
        for example in &gallery.examples {
            out.push_str(&one_example(example));
        }
        out.push_str("</div>\n");
    }
    out
}

fn one_example(example: &Example) -> String {
    let mut out = String::from("<figure class=\"example\">");
    if !example.pictures.is_empty() {
        out.push_str("<div class=\"pictures\">");
        for picture in &example.pictures {
            let _ = write!(out, "<figure class=\"picture\">{}", image(picture, &example.path));
            let _ = write!(out, "<figcaption>{}</figcaption></figure>", escape(&picture.caption));
        }
        out.push_str("</div>");
    }
    out.push_str("<figcaption>");
    if !example.verdict.is_empty() {
        let _ = write!(out, "<span class=\"verdict\">{}</span>", escape(&example.verdict));
    }
    if let Some(score) = example.score.filter(|v| v.is_finite()) {
        let _ = write!(out, " · score {}", number(score, 4));
    }
    let _ = writeln!(out, "<br><code>{}</code></figcaption></figure>", escape(&example.path));
    out
}

/// Only pictures that lie in the page itself: no address can get into it.
fn image(picture: &Picture, path: &str) -> String {
    let inside = ["png", "jpeg", "webp"].iter().any(|kind| {
        picture
            .data_uri
            .strip_prefix(&format!("data:image/{kind};base64,"))
            .is_some_and(|data| !data.is_empty() && is_base64(data))
    });
    if inside {
        let alt = escape(&format!("{}: {path}", picture.caption));
        format!("<img src=\"{}\" alt=\"{alt}\">", picture.data_uri)
    } else {
        "<div class=\"absent\">no picture</div>".to_owned()
    }
}

fn protocol(report: &RunReport) -> String {
    let mut out = String::new();
    if !report.protocol.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(&report.protocol));
    }
    if report.split.is_empty() {
        return out;
    }
    let rows = report
        .split
        .iter()
        .map(|part| {
            vec![
                Cell::Text(part.name.clone()),
                Cell::Number(part.images as f64),
                Cell::Text(part.hash.clone()),
            ]
        })
        .collect();
    let columns = ["part", "images", "manifest hash"].map(str::to_owned).to_vec();
    out.push_str(&table(&Table { title: String::new(), columns, rows }));
    for part in report.split.iter().filter(|part| !part.files.is_empty()) {
        out.push_str(&files(part));
    }
    out
}

fn files(part: &SplitPart) -> String {
    let items: String =
        part.files.iter().map(|file| ["<li><code>", &escape(file), "</code></li>"].concat()).collect();
    format!(
        "<details><summary>{}: {} files</summary><ul>{items}</ul></details>\n",
        escape(&part.name),
        part.files.len()
    )
}

fn repeat(report: &RunReport) -> String {
    let mut out = String::new();
    if !report.command.is_empty() {
        let _ = writeln!(out, "<pre><code>{}</code></pre>", escape(&report.command));
    }
    if !report.facts.is_empty() {
        out.push_str("<dl class=\"card\">\n");
        for (name, value) in &report.facts {
            let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        out.push_str("</dl>\n");
    }
    out
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| ["<li>", &escape(note), "</li>\n"].concat()).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn estimate(estimate: &Estimate) -> String {
    let mut text = value(estimate.value);
    if let Some(more) = uncertainty(estimate) {
        let _ = write!(text, " <span class=\"muted\">{more}</span>");
    }
    text
}

/// `± deviation` and `[low, high]`, as far as known.
fn uncertainty(estimate: &Estimate) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(estimate.deviation.filter(|v| v.is_finite()).map(|v| format!("± {}", number(v, 3))));
    if let Some([low, high]) = estimate.interval.filter(|ends| ends.iter().all(|v| v.is_finite())) {
        parts.push(format!("[{}, {}]", number(low, 3), number(high, 3)));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn value(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "–".to_owned(), |v| number(v, 3))
}

/// A number of unknown kind: whole as it is, else at most four decimals.
fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = number(value, 4);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    // −0.000 says more than is known
    if text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) {
        return text.trim_start_matches('-').to_owned();
    }
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::super::{
        Cell, Comparison, Estimate, Example, Gallery, Picture, RunReport, SplitPart, Table, TypeResult,
    };
    use super::{number, plain};
    use crate::report::plot::{Line, Plot, Population};

    fn full() -> RunReport {
        let nasty = "<script>alert('x')</script> & \"quotes\" https://example.org/x.png".to_owned();
        RunReport {
            title: nasty.clone(),
            summary: nasty.clone(),
            warnings: vec![nasty.clone()],
            headline: vec![Comparison {
                metric: "AUROC".to_owned(),
                zero_shot: Estimate::with_interval(0.714, 0.62, 0.79),
                adapted: Estimate {
                    value: Some(0.889),
                    interval: Some([0.82, 0.94]),
                    deviation: Some(0.012),
                },
                difference: Estimate::with_interval(0.175, 0.09, 0.26),
                p_value: Some(0.0004),
                method: "95 % paired bootstrap".to_owned(),
            }],
            per_type: vec![
                TypeResult {
                    defect_type: "scratch".to_owned(),
                    images: 12,
                    seen: Some(true),
                    zero_shot: Estimate::new(0.6),
                    adapted: Estimate::new(f64::NAN),
                },
                TypeResult {
                    defect_type: nasty.clone(),
                    images: 9,
                    seen: Some(false),
                    zero_shot: Estimate::new(0.6),
                    adapted: Estimate::new(0.8),
                },
            ],
            tables: vec![Table {
                title: "T".to_owned(),
                columns: vec!["a".to_owned(), "b".to_owned()],
                rows: vec![vec![Cell::Number(1.5)], vec![Cell::Number(-2.0), Cell::Text(nasty.clone())]],
            }],
            findings: vec![Gallery {
                title: "Found".to_owned(),
                note: String::new(),
                examples: vec![Example {
                    path: nasty.clone(),
                    verdict: "defect".to_owned(),
                    score: Some(0.41),
                    pictures: vec![
                        Picture::png("image", b"bytes"),
                        Picture {
                            caption: "bad".to_owned(),
                            data_uri: "https://example.org/x.png".to_owned(),
                        },
                        Picture {
                            caption: "bad".to_owned(),
                            data_uri: "data:image/png;base64,AA\" onload=\"x".to_owned(),
                        },
                    ],
                }],
            }],
            curves: vec![Plot::roc(
                nasty.clone(),
                vec![Line::new(nasty.clone(), vec![[0.0, 0.0], [1.0, 1.0]])],
            )],
            histograms: vec![Plot::scores(
                "Scores",
                vec![Population { name: "good".to_owned(), values: vec![0.1, 0.4] }],
                Some(0.3),
            )],
            errors: vec![Gallery { title: "Missed".to_owned(), ..Gallery::default() }],
            protocol: "held-out".to_owned(),
            split: vec![SplitPart {
                name: "test".to_owned(),
                images: 2,
                hash: "abc".to_owned(),
                files: vec![nasty.clone()],
            }],
            command: nasty.clone(),
            facts: vec![("seed".to_owned(), "7".to_owned())],
            notes: vec![nasty],
            ..RunReport::default()
        }
    }

    #[test]
    fn nothing_of_the_data_becomes_markup_or_an_address() {
        let page = full().to_html();
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(!page.contains("alert('x')"));
        assert!(!page.contains("onload=\""));
        for attribute in ["src=\"", "href=\""] {
            for rest in page.split(attribute).skip(1) {
                assert!(
                    rest.starts_with("data:") || rest.starts_with('#'),
                    "{}",
                    &rest[..40.min(rest.len())]
                );
            }
        }
        assert_eq!(page.matches("<img ").count(), 1);
        assert_eq!(page.matches("no picture").count(), 2);
        assert!(!page.contains("url(") && !page.contains("@import"));
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn numbers_are_shown_with_their_uncertainty() {
        let page = full().to_html();
        for text in [
            "0.889",
            "± 0.012 [0.820, 0.940]",
            "+0.175",
            "p &lt; 0.001",
            "unseen",
            "data-value=\"-2\"",
            "−2",
            "held-out",
            "1.5",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("NaN"));
        assert_eq!(number(-0.0001, 3), "0.000");
        assert_eq!(plain(12.0), "12");
        assert_eq!(plain(100.0), "100");
        assert_eq!(plain(f64::NAN), "–");
    }

    #[test]
    fn elements_are_balanced_and_empty_parts_left_out() {
        for report in [full(), RunReport::default()] {
            let page = report.to_html();
            for element in [
                "div", "section", "table", "figure", "p", "ul", "li", "details", "svg", "tr", "td", "th",
                "code", "main", "header",
            ] {
                let open = page.matches(&format!("<{element} ")).count()
                    + page.matches(&format!("<{element}>")).count();
                assert_eq!(open, page.matches(&format!("</{element}>")).count(), "{element}");
            }
            assert_eq!(page, report.to_html());
        }
        assert!(!RunReport::default().to_html().contains("<section"));
    }

    #[test]
    fn reports_round_trip_through_json() {
        let mut report = full();
        // JSON has no NaN: an absent value is `None`
        report.per_type[0].adapted.value = None;
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
        assert_eq!(serde_json::from_str::<RunReport>("{}").unwrap(), RunReport::default());
    }
}
