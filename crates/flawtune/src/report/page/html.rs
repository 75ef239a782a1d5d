//! Lays a run report out as HTML. Whatever comes from data is escaped by the templates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::numbers::{number, plain, uncertainty, value};
use super::{
    Cell, Comparison, Estimate, Example, Gallery, Page, Picture, RunReport, SplitPart, Table,
    TypeResult,
};
use crate::report::plot::{Plot, Theme, page_colours};

const STYLE: &str = include_str!("style.css");
const SORT: &str = include_str!("sort.js");
/// Nothing may be fetched; the page's own style, script and images may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";
const FOUND: &str = "What was found, and where";

/// A page about one run.
pub(super) fn page(report: &RunReport) -> String {
    let sections = sections(report, 2);
    document(
        &report.title,
        &html! {
            header {
                (head(&report.title, &report.summary, &report.warnings))
                @if sections.len() > 1 {
                    (links(sections.iter().map(|(id, title, _)| (*id, *title))))
                }
            }
            @for (id, title, section) in &sections {
                section id=(id) { h2 { (title) } (section) }
            }
        },
    )
}

/// A page about several runs: what they have side by side, then one after the other.
pub(super) fn several(page: &Page) -> String {
    let ids: Vec<String> = (1..=page.runs.len()).map(|n| format!("run-{n}")).collect();
    let runs = || ids.iter().zip(&page.runs);
    let found = galleries(&page.findings, "", 3);
    let first = [("found", FOUND), ("together", "Side by side")];
    let first = first
        .into_iter()
        .filter(|(id, _)| *id != "found" || !found.0.is_empty());
    let titles = runs().map(|(id, run)| (id.as_str(), run.title.as_str()));
    document(
        &page.title,
        &html! {
            header {
                (head(&page.title, &page.summary, &page.warnings))
                (links(first.chain(titles)))
            }
            @if !found.0.is_empty() {
                section id="found" { h2 { (FOUND) } (found) }
            }
            section id="together" {
                h2 { "Side by side" }
                (table(&page.table, "", 3))
                (plots(&page.curves))
            }
            @for (id, run) in runs() {
                section id=(id) class="run" {
                    h2 { (run.title) }
                    (opening(&run.summary, &run.warnings))
                    @for (part, title, section) in sections(run, 3) {
                        section id={ (id) "-" (part) } { h3 { (title) } (section) }
                    }
                }
            }
        },
    )
}

/// Id, title and content of every part that is not empty; the headings inside are one below `level`.
fn sections(report: &RunReport, level: u8) -> Vec<(&'static str, &'static str, Markup)> {
    let (mark, inner) = (report.mark.as_str(), level + 1);
    let tables = html! { @for one in &report.tables { (table(one, mark, inner)) } };
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
    sections.retain(|(_, _, body)| !body.0.is_empty());
    sections
}

fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) (PreEscaped(page_colours())) }
            }
            body {
                main {
                    (body)
                    footer { "This page is one file and asks the network for nothing." }
                }
                script { (PreEscaped(SORT)) }
            }
        }
    };
    page.into_string()
}

/// Title, summary and warnings.
fn head(title: &str, summary: &str, warnings: &[String]) -> Markup {
    html! {
        p class="kicker" { "flawtune report" }
        h1 { (title) }
        (opening(summary, warnings))
    }
}

fn opening(summary: &str, warnings: &[String]) -> Markup {
    html! {
        @if !summary.is_empty() { p { (summary) } }
        @for warning in warnings {
            div class="warning" role="note" { (warning) }
        }
    }
}

fn links<'a>(to: impl Iterator<Item = (&'a str, &'a str)>) -> Markup {
    html! {
        nav aria-label="Sections" {
            @for (id, title) in to { a href={ "#" (id) } { (title) } }
        }
    }
}

fn heading(level: u8, text: &str) -> Markup {
    html! {
        @match level {
            ..=3 => h3 { (text) },
            4 => h4 { (text) },
            _ => h5 { (text) },
        }
    }
}

fn muted(text: &str) -> Markup {
    html! { p class="muted" { (text) } }
}

fn headline(comparisons: &[Comparison], mark: &str) -> Markup {
    html! {
        @if !comparisons.is_empty() {
            div class="tiles" { @for one in comparisons { (tile(one, mark)) } }
        }
    }
}

/// A number with what it is compared with.
fn tile(comparison: &Comparison, mark: &str) -> Markup {
    // a scorer without a baseline is measured, not compared
    let compared = comparison.zero_shot != Estimate::default();
    let step = comparison.difference.value.filter(|v| v.is_finite());
    html! {
        div class="tile" {
            div class="name" { (comparison.metric) }
            div class="value" { (value(comparison.adapted.value)) (badge(mark)) }
            div class="detail" {
                @if let Some(text) = uncertainty(&comparison.adapted) {
                    @if compared { "adapted, " (text) br; } @else { (text) }
                }
                @if compared { "zero-shot " (estimate(&comparison.zero_shot, mark)) }
            }
            @if let Some(step) = step {
                div class="step" {
                    span class=(direction(step)) {
                        @if step > 0.0 { "+" } (number(step, 3))
                    }
                    " against zero-shot" (badge(mark))
                }
                div class="detail" { (details(comparison)) }
            }
        }
    }
}

fn direction(step: f64) -> &'static str {
    if step > 0.0 {
        "up"
    } else if step < 0.0 {
        "down"
    } else {
        "same"
    }
}

/// How certain a difference is, and by which method.
fn details(comparison: &Comparison) -> String {
    let p = comparison.p_value.filter(|p| p.is_finite());
    let p = p.map(|p| {
        if p < 0.001 {
            "p < 0.001".to_owned()
        } else {
            format!("p = {}", number(p, 3))
        }
    });
    let method = Some(comparison.method.clone()).filter(|m| !m.is_empty());
    let parts = [uncertainty(&comparison.difference), p, method];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(" · ")
}

fn per_type(report: &RunReport, level: u8) -> Markup {
    let results = &report.per_type;
    let Some(first) = results.first() else {
        return html! {};
    };
    let has = |of: &dyn Fn(&TypeResult) -> bool| results.iter().any(of);
    let scorers = has(&|r| r.scorer != first.scorer);
    let seen = has(&|r| r.seen.is_some());
    let found = has(&|r| !r.found.is_empty());
    let columns = [
        (scorers, "scorer"),
        (true, "defect type"),
        (true, "test images"),
        (seen, "in training"),
        (true, "zero-shot AUROC"),
        (true, "adapted AUROC"),
        (true, "difference"),
        (found, "found at the threshold"),
    ];
    let row = |result: &TypeResult| {
        let word = match result.seen {
            Some(true) => "seen",
            Some(false) => "unseen",
            None => "",
        };
        // formatting, not statistics: the gap between two numbers shown side by side
        let (after, before) = (result.adapted.value, result.zero_shot.value);
        let gap = after.zip(before).map(|(after, before)| after - before);
        let cells = [
            Cell::Text(result.scorer.clone()),
            Cell::Text(result.defect_type.clone()),
            Cell::Number(result.images as f64),
            Cell::Text(word.to_owned()),
            Cell::Estimate(result.zero_shot),
            Cell::Estimate(result.adapted),
            Cell::Estimate(Estimate {
                value: gap,
                ..Estimate::default()
            }),
            Cell::Text(result.found.clone()),
        ];
        let shown = cells
            .into_iter()
            .zip(columns)
            .filter(|(_, (shown, _))| *shown);
        shown.map(|(cell, _)| cell).collect()
    };
    let titles = columns.iter().filter(|(shown, _)| *shown);
    let all = Table {
        columns: titles.map(|(_, title)| (*title).to_owned()).collect(),
        rows: results.iter().map(row).collect(),
        ..Table::default()
    };
    table(&all, &report.mark, level)
}

fn table(table: &Table, mark: &str, level: u8) -> Markup {
    if table.columns.is_empty() {
        return html! {};
    }
    let numeric = |column: usize| {
        let cells = table.rows.iter().filter_map(|row| row.get(column));
        let mut cells = cells.peekable();
        cells.peek().is_some() && cells.all(|cell| !matches!(cell, Cell::Text(_)))
    };
    let classes = (0..table.columns.len()).map(|c| numeric(c).then_some("number"));
    let classes: Vec<Option<&str>> = classes.collect();
    html! {
        @if !table.title.is_empty() { (heading(level, &table.title)) }
        @if !table.note.is_empty() { (muted(&table.note)) }
        div class="scroll" {
            table class="sortable" {
                thead {
                    tr {
                        @for (column, class) in table.columns.iter().zip(&classes) {
                            th scope="col" class=[*class] { (column) }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (column, class) in classes.iter().enumerate() {
                                (cell(row.get(column), *class, mark))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(cell: Option<&Cell>, class: Option<&str>, mark: &str) -> Markup {
    let (text, key) = match cell {
        None => (html! {}, None),
        Some(Cell::Text(text)) => (html! { (text) }, None),
        Some(Cell::Number(v)) => (html! { (plain(*v)) }, Some(*v)),
        Some(Cell::Estimate(e)) => (estimate(e, mark), e.value),
    };
    let key = key.filter(|v| v.is_finite());
    html! { td class=[class] data-value=[key] { (text) } }
}

fn plots(plots: &[Plot]) -> Markup {
    html! {
        @if !plots.is_empty() {
            div class="plots" {
                @for plot in plots { figure { (PreEscaped(plot.to_svg(Theme::Page))) } }
            }
        }
    }
}

fn galleries(galleries: &[Gallery], mark: &str, level: u8) -> Markup {
    html! {
        @for gallery in galleries {
            (heading(level, &gallery.title))
            @if !gallery.note.is_empty() { (muted(&gallery.note)) }
            @if gallery.examples.is_empty() {
                (muted("None."))
            } @else {
                (examples(gallery, &wide(gallery), mark))
            }
        }
    }
}

/// Room for the largest number of images side by side.
fn wide(gallery: &Gallery) -> String {
    let images = gallery
        .examples
        .iter()
        .map(|example| example.pictures.len());
    let most = images.max().unwrap_or(1).clamp(1, 4);
    format!("--wide:{}px", 130 * most.max(2))
}

/// Panels, one below the other, and the projections.
fn looks(report: &RunReport, level: u8) -> Markup {
    html! {
        @for gallery in &report.looks {
            (heading(level, &gallery.title))
            (muted(&gallery.note))
            (examples(gallery, "--wide:100%", &report.mark))
        }
        (plots(&report.projections))
    }
}

fn examples(gallery: &Gallery, style: &str, mark: &str) -> Markup {
    html! {
        div class="examples" style=(style) {
            @for example in &gallery.examples { (one_example(example, mark)) }
        }
    }
}

fn one_example(example: &Example, mark: &str) -> Markup {
    let score = example.score.filter(|v| v.is_finite());
    html! {
        figure class="example" {
            @if !example.pictures.is_empty() {
                div class="pictures" {
                    @for picture in &example.pictures {
                        figure class="picture" {
                            (image(picture, &example.path))
                            figcaption { (picture.caption) }
                        }
                    }
                }
            }
            figcaption {
                @if !example.verdict.is_empty() { span class="verdict" { (example.verdict) } }
                @if let Some(score) = score { " · score " (number(score, 4)) (badge(mark)) }
                br;
                code { (example.path) }
            }
        }
    }
}

/// Only images that lie in the page itself: no address can get into it.
fn image(picture: &Picture, path: &str) -> Markup {
    let inside = ["png", "jpeg", "webp"].iter().any(|kind| {
        picture
            .data_uri
            .strip_prefix(&format!("data:image/{kind};base64,"))
            .is_some_and(|data| !data.is_empty() && STANDARD.decode(data).is_ok())
    });
    html! {
        @if inside {
            img src=(picture.data_uri) alt={ (picture.caption) ": " (path) };
        } @else {
            div class="absent" { "no image" }
        }
    }
}

fn protocol(report: &RunReport, level: u8) -> Markup {
    let row = |part: &SplitPart| {
        vec![
            Cell::Text(part.name.clone()),
            Cell::Number(part.images as f64),
            Cell::Text(part.hash.clone()),
        ]
    };
    let parts = Table {
        columns: ["part", "images", "manifest hash"]
            .map(str::to_owned)
            .into(),
        rows: report.split.iter().map(row).collect(),
        ..Table::default()
    };
    html! {
        @if !report.protocol.is_empty() { p { (report.protocol) } }
        @if !report.split.is_empty() { (table(&parts, "", level)) }
        @for part in report.split.iter().filter(|part| !part.files.is_empty()) {
            details {
                summary { (part.name) ": " (part.files.len()) " files" }
                ul { @for file in &part.files { li { code { (file) } } } }
            }
        }
    }
}

fn repeat(report: &RunReport) -> Markup {
    html! {
        @if !report.command.is_empty() { pre { code { (report.command) } } }
        @if !report.facts.is_empty() {
            dl class="card" {
                @for (name, value) in &report.facts { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn notes(notes: &[String]) -> Markup {
    html! {
        @if !notes.is_empty() {
            ul { @for note in notes { li { (note) } } }
        }
    }
}

fn estimate(estimate: &Estimate, mark: &str) -> Markup {
    html! {
        (value(estimate.value))
        @if estimate.value.is_some_and(f64::is_finite) { (badge(mark)) }
        @if let Some(more) = uncertainty(estimate) { " " span class="muted" { (more) } }
    }
}

/// A word that a number must not be read without.
fn badge(mark: &str) -> Markup {
    html! {
        @if !mark.is_empty() { " " span class="mark" { (mark) } }
    }
}
