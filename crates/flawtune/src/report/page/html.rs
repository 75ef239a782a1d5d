//! Formats a run report as HTML.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::numbers::{number, plain, uncertainty, value};
use super::{
    Cell, Comparison, Estimate, Example, Gallery, Page, Picture, RunReport, SplitPart, Table,
};
use crate::report::plot::{Plot, Theme, escape, page_colours};

const STYLE: &str = include_str!("style.css");
const SORT: &str = include_str!("sort.js");
/// Nothing may be fetched; the page's own style, script and images may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

/// A page about one run.
pub(super) fn page(report: &RunReport) -> String {
    let sections = sections(report, 2);
    let mut body = head(&report.title, &report.summary, &report.warnings);
    if sections.len() > 1 {
        body.push_str(&links(
            sections
                .iter()
                .map(|(id, title, _)| ((*id).to_owned(), (*title).to_owned())),
        ));
    }
    body.push_str("</header>\n");
    for (id, title, section) in &sections {
        let _ = writeln!(
            body,
            "<section id=\"{id}\">\n<h2>{title}</h2>\n{section}</section>"
        );
    }
    document(&report.title, &body)
}

const FOUND: &str = "What was found, and where";

/// A page about several runs: what they have side by side, then one after the other.
pub(super) fn several(page: &Page) -> String {
    let mut body = head(&page.title, &page.summary, &page.warnings);
    let runs = || {
        page.runs
            .iter()
            .enumerate()
            .map(|(i, run)| (format!("run-{}", i + 1), run))
    };
    let found = galleries(&page.findings, "", 3);
    let mut first = vec![("together", "Side by side")];
    if !found.is_empty() {
        first.insert(0, ("found", FOUND));
    }
    let first = first
        .into_iter()
        .map(|(id, title)| (id.to_owned(), title.to_owned()));
    body.push_str(&links(
        first.chain(runs().map(|(id, run)| (id, run.title.clone()))),
    ));
    body.push_str("</header>\n");
    if !found.is_empty() {
        let _ = writeln!(
            body,
            "<section id=\"found\">\n<h2>{FOUND}</h2>\n{found}</section>"
        );
    }
    let _ = writeln!(
        body,
        "<section id=\"together\">\n<h2>Side by side</h2>\n{}{}</section>",
        table(&page.table, "", 3),
        plots(&page.curves),
    );
    for (id, run) in runs() {
        let _ = writeln!(
            body,
            "<section id=\"{id}\" class=\"run\">\n<h2>{}</h2>",
            escape(&run.title)
        );
        body.push_str(&opening(&run.summary, &run.warnings));
        for (part, title, section) in sections(run, 3) {
            let _ = writeln!(
                body,
                "<section id=\"{id}-{part}\">\n<h3>{title}</h3>\n{section}</section>"
            );
        }
        body.push_str("</section>\n");
    }
    document(&page.title, &body)
}

/// Id, title and content of every part that is not empty; the headings inside are one below `level`.
fn sections(report: &RunReport, level: u8) -> Vec<(&'static str, &'static str, String)> {
    let (mark, inner) = (report.mark.as_str(), level + 1);
    let tables: String = report
        .tables
        .iter()
        .map(|one| table(one, mark, inner))
        .collect();
    let mut sections = vec![
        ("result", "Result", headline(&report.headline, mark)),
        (
            "decisions",
            "Decisions at the threshold",
            table(&report.decisions, mark, inner),
        ),
        ("found", FOUND, galleries(&report.findings, mark, inner)),
        ("types", "By defect type", per_type(report, inner)),
        ("curves", "Curves", plots(&report.curves)),
        ("scores", "Image scores", plots(&report.histograms)),
        (
            "looks",
            "What the prompts look at and change",
            looks(report, inner),
        ),
        (
            "errors",
            "Most wrong images",
            galleries(&report.errors, mark, inner),
        ),
        ("training", "Training", plots(&report.training)),
        ("tables", "Further tables", tables),
        ("protocol", "Protocol and split", protocol(report, inner)),
        ("repeat", "Repeat this run", repeat(report)),
        ("notes", "Notes", notes(&report.notes)),
    ];
    sections.retain(|(_, _, body)| !body.is_empty());
    sections
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}{colours}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>This page is one file and asks the network for nothing.</footer>\n</main>\n<script>\n{SORT}</script>\n\
         </body>\n</html>\n",
        title = escape(title),
        colours = page_colours(),
    )
}

/// Title, summary and warnings; the header is left open.
fn head(title: &str, summary: &str, warnings: &[String]) -> String {
    format!(
        "<header>\n<p class=\"kicker\">flawtune report</p>\n<h1>{}</h1>\n{}",
        escape(title),
        opening(summary, warnings)
    )
}

fn opening(summary: &str, warnings: &[String]) -> String {
    let mut out = String::new();
    if !summary.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(summary));
    }
    for warning in warnings {
        let _ = writeln!(
            out,
            "<div class=\"warning\" role=\"note\">{}</div>",
            escape(warning)
        );
    }
    out
}

fn links(to: impl Iterator<Item = (String, String)>) -> String {
    let mut out = String::from("<nav aria-label=\"Sections\">");
    for (id, title) in to {
        let _ = write!(out, "<a href=\"#{id}\">{}</a>", escape(&title));
    }
    out + "</nav>\n"
}

fn headline(comparisons: &[Comparison], mark: &str) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"tiles\">\n");
    for comparison in comparisons {
        let _ = write!(
            out,
            "<div class=\"tile\">\n<div class=\"name\">{}</div>\n<div class=\"value\">{}{}</div>\n",
            escape(&comparison.metric),
            value(comparison.adapted.value),
            badge(mark),
        );
        // a scorer without a baseline is measured, not compared
        let compared = comparison.zero_shot != Estimate::default();
        let mut lines = Vec::new();
        if let Some(text) = uncertainty(&comparison.adapted) {
            lines.push(if compared {
                format!("adapted, {text}")
            } else {
                text
            });
        }
        if compared {
            lines.push(format!(
                "zero-shot {}",
                estimate(&comparison.zero_shot, mark)
            ));
        }
        let _ = writeln!(out, "<div class=\"detail\">{}</div>", lines.join("<br>"));
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
                "<div class=\"step\"><span class=\"{class}\">{}{}</span> against zero-shot{}</div>\n<div class=\"detail\">",
                if step > 0.0 { "+" } else { "" },
                number(step, 3),
                badge(mark),
            );
            let mut details: Vec<String> =
                uncertainty(&comparison.difference).into_iter().collect();
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
    if p < 0.001 {
        "p &lt; 0.001".to_owned()
    } else {
        format!("p = {}", number(p, 3))
    }
}

fn per_type(report: &RunReport, level: u8) -> String {
    let results = &report.per_type;
    if results.is_empty() {
        return String::new();
    }
    let seen = results.iter().any(|result| result.seen.is_some());
    let scorers = results
        .iter()
        .any(|result| result.scorer != results[0].scorer);
    let mut columns = vec!["defect type".to_owned(), "test images".to_owned()];
    if scorers {
        columns.insert(0, "scorer".to_owned());
    }
    if seen {
        columns.push("in training".to_owned());
    }
    columns.extend(["zero-shot AUROC", "adapted AUROC", "difference"].map(str::to_owned));
    let found = results.iter().any(|result| !result.found.is_empty());
    if found {
        columns.push("found at the threshold".to_owned());
    }
    let rows = results
        .iter()
        .map(|result| {
            let mut row = vec![
                Cell::Text(result.defect_type.clone()),
                Cell::Number(result.images as f64),
            ];
            if scorers {
                row.insert(0, Cell::Text(result.scorer.clone()));
            }
            if seen {
                let word = match result.seen {
                    Some(true) => "seen",
                    Some(false) => "unseen",
                    None => "",
                };
                row.push(Cell::Text(word.to_owned()));
            }
            // formatting, not statistics: the gap between two numbers shown side by side
            let gap = result
                .adapted
                .value
                .zip(result.zero_shot.value)
                .map(|(after, before)| after - before);
            row.push(Cell::Estimate(result.zero_shot));
            row.push(Cell::Estimate(result.adapted));
            row.push(Cell::Estimate(Estimate {
                value: gap,
                ..Estimate::default()
            }));
            if found {
                row.push(Cell::Text(result.found.clone()));
            }
            row
        })
        .collect();
    table(
        &Table {
            columns,
            rows,
            ..Table::default()
        },
        &report.mark,
        level,
    )
}

fn table(table: &Table, mark: &str, level: u8) -> String {
    let numeric = |column: usize| {
        let mut cells = table
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .peekable();
        cells.peek().is_some() && cells.all(|cell| !matches!(cell, Cell::Text(_)))
    };
    let numeric: Vec<bool> = (0..table.columns.len()).map(numeric).collect();
    let mut out = String::new();
    if table.columns.is_empty() {
        return out;
    }
    if !table.title.is_empty() {
        let _ = writeln!(out, "<h{level}>{}</h{level}>", escape(&table.title));
    }
    if !table.note.is_empty() {
        let _ = writeln!(out, "<p class=\"muted\">{}</p>", escape(&table.note));
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
                Some(Cell::Estimate(e)) => (estimate(e, mark), e.value),
            };
            let class = if numeric { " class=\"number\"" } else { "" };
            let key = key
                .filter(|v| v.is_finite())
                .map(|v| format!(" data-value=\"{v}\""))
                .unwrap_or_default();
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
    let figures: String = plots
        .iter()
        .map(|plot| ["<figure>", &plot.to_svg(Theme::Page), "</figure>\n"].concat())
        .collect();
    format!("<div class=\"plots\">\n{figures}</div>\n")
}

fn galleries(galleries: &[Gallery], mark: &str, level: u8) -> String {
    let mut out = String::new();
    for gallery in galleries {
        let _ = writeln!(out, "<h{level}>{}</h{level}>", escape(&gallery.title));
        if !gallery.note.is_empty() {
            let _ = writeln!(out, "<p class=\"muted\">{}</p>", escape(&gallery.note));
        }
        if gallery.examples.is_empty() {
            out.push_str("<p class=\"muted\">None.</p>\n");
            continue;
        }
        // room for the largest number of images side by side
        let most = gallery
            .examples
            .iter()
            .map(|example| example.pictures.len())
            .max()
            .unwrap_or(1)
            .clamp(1, 4);
        let _ = writeln!(
            out,
            "<div class=\"examples\" style=\"--wide:{}px\">",
            130 * most.max(2)
        );
        for example in &gallery.examples {
            out.push_str(&one_example(example, mark));
        }
        out.push_str("</div>\n");
    }
    out
}

/// Panels, one below the other, and the projections.
fn looks(report: &RunReport, level: u8) -> String {
    let mut out = String::new();
    for gallery in &report.looks {
        let _ = writeln!(out, "<h{level}>{}</h{level}>", escape(&gallery.title));
        let _ = writeln!(out, "<p class=\"muted\">{}</p>", escape(&gallery.note));
        out.push_str("<div class=\"examples\" style=\"--wide:100%\">\n");
        for example in &gallery.examples {
            out.push_str(&one_example(example, &report.mark));
        }
        out.push_str("</div>\n");
    }
    out + &plots(&report.projections)
}

fn one_example(example: &Example, mark: &str) -> String {
    let mut out = String::from("<figure class=\"example\">");
    if !example.pictures.is_empty() {
        out.push_str("<div class=\"pictures\">");
        for picture in &example.pictures {
            let _ = write!(
                out,
                "<figure class=\"picture\">{}",
                image(picture, &example.path)
            );
            let _ = write!(
                out,
                "<figcaption>{}</figcaption></figure>",
                escape(&picture.caption)
            );
        }
        out.push_str("</div>");
    }
    out.push_str("<figcaption>");
    if !example.verdict.is_empty() {
        let _ = write!(
            out,
            "<span class=\"verdict\">{}</span>",
            escape(&example.verdict)
        );
    }
    if let Some(score) = example.score.filter(|v| v.is_finite()) {
        let _ = write!(out, " · score {}{}", number(score, 4), badge(mark));
    }
    let _ = writeln!(
        out,
        "<br><code>{}</code></figcaption></figure>",
        escape(&example.path)
    );
    out
}

/// Only images that lie in the page itself: no address can get into it.
fn image(picture: &Picture, path: &str) -> String {
    let inside = ["png", "jpeg", "webp"].iter().any(|kind| {
        picture
            .data_uri
            .strip_prefix(&format!("data:image/{kind};base64,"))
            .is_some_and(|data| !data.is_empty() && STANDARD.decode(data).is_ok())
    });
    if inside {
        let alt = escape(&format!("{}: {path}", picture.caption));
        format!("<img src=\"{}\" alt=\"{alt}\">", picture.data_uri)
    } else {
        "<div class=\"absent\">no image</div>".to_owned()
    }
}

fn protocol(report: &RunReport, level: u8) -> String {
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
    let columns = ["part", "images", "manifest hash"]
        .map(str::to_owned)
        .to_vec();
    out.push_str(&table(
        &Table {
            columns,
            rows,
            ..Table::default()
        },
        "",
        level,
    ));
    for part in report.split.iter().filter(|part| !part.files.is_empty()) {
        out.push_str(&files(part));
    }
    out
}

fn files(part: &SplitPart) -> String {
    let items: String = part
        .files
        .iter()
        .map(|file| ["<li><code>", &escape(file), "</code></li>"].concat())
        .collect();
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
    let items: String = notes
        .iter()
        .map(|note| ["<li>", &escape(note), "</li>\n"].concat())
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

fn estimate(estimate: &Estimate, mark: &str) -> String {
    let mut text = value(estimate.value);
    if estimate.value.is_some_and(f64::is_finite) {
        text.push_str(&badge(mark));
    }
    if let Some(more) = uncertainty(estimate) {
        let _ = write!(text, " <span class=\"muted\">{more}</span>");
    }
    text
}

/// A word that a number must not be read without.
fn badge(mark: &str) -> String {
    if mark.is_empty() {
        String::new()
    } else {
        format!(" <span class=\"mark\">{}</span>", escape(mark))
    }
}
