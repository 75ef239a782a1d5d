//! Elements of an SVG as text, with colours either named by the page or written out.

use std::fmt::Write as _;

use super::Theme;

/// What a thing is for; its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Text,
    Muted,
    Grid,
    Axis,
    Surface,
    Series(usize),
}

/// Series colours, told apart also with the common colour-vision deficiencies; a seventh series
/// starts again.
const LIGHT: [&str; 6] = [
    "#2463c4", "#d4600c", "#12805c", "#8a3fb5", "#9a7400", "#c2255c",
];
const DARK: [&str; 6] = [
    "#6ea8fe", "#ff9d4d", "#4cc9a0", "#c792ea", "#e0b54a", "#ff7eb0",
];

/// `(name, light, dark)` of every colour a plot uses, as custom properties of the page.
fn named() -> Vec<(String, &'static str, &'static str)> {
    let mut colours = vec![
        ("--plot-text".to_owned(), "#1c2128", "#e6e9ee"),
        ("--plot-muted".to_owned(), "#59636e", "#9aa4b1"),
        ("--plot-grid".to_owned(), "#e6e8ec", "#2a313a"),
        ("--plot-axis".to_owned(), "#8b949e", "#6b7683"),
        ("--plot-surface".to_owned(), "#ffffff", "#161b21"),
    ];
    for (index, (light, dark)) in LIGHT.into_iter().zip(DARK).enumerate() {
        colours.push((format!("--plot-{index}"), light, dark));
    }
    colours
}

/// Declarations of the custom properties that plots drawn with [`Theme::Page`] refer to.
pub(super) fn declarations(dark: bool) -> String {
    named()
        .into_iter()
        .fold(String::new(), |mut css, (name, light, night)| {
            let _ = write!(css, "{name}:{};", if dark { night } else { light });
            css
        })
}

impl Role {
    fn index(self) -> usize {
        match self {
            Self::Text => 0,
            Self::Muted => 1,
            Self::Grid => 2,
            Self::Axis => 3,
            Self::Surface => 4,
            Self::Series(series) => 5 + series % LIGHT.len(),
        }
    }

    fn colour(self, property: &str, theme: Theme) -> String {
        let (name, light, dark) = named().swap_remove(self.index());
        match theme {
            Theme::Light => format!(" {property}=\"{light}\""),
            Theme::Dark => format!(" {property}=\"{dark}\""),
            Theme::Page => format!(" style=\"{property}:var({name})\""),
        }
    }
}

/// An SVG being written. Coordinates are pixels, rounded to a hundredth.
pub(super) struct Svg {
    body: String,
    theme: Theme,
}

/// How text is set against its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(theme: Theme) -> Self {
        Self {
            body: String::new(),
            theme,
        }
    }

    pub(super) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        role: Role,
        width: f64,
        dashes: &str,
    ) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke-width=\"{}\"{}{}/>",
            short(from.0),
            short(from.1),
            short(to.0),
            short(to.1),
            short(width),
            dash(dashes),
            role.colour("stroke", self.theme),
        );
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], role: Role, width: f64, dashes: &str) {
        let _ = writeln!(
            self.body,
            "<path d=\"{}\" fill=\"none\" stroke-width=\"{}\" stroke-linejoin=\"round\" stroke-linecap=\"round\"{}{}/>",
            trace(points),
            short(width),
            dash(dashes),
            role.colour("stroke", self.theme),
        );
    }

    pub(super) fn area(&mut self, points: &[(f64, f64)], role: Role, opacity: f64) {
        let _ = writeln!(
            self.body,
            "<path d=\"{}Z\" fill-opacity=\"{}\"{}/>",
            trace(points),
            short(opacity),
            role.colour("fill", self.theme),
        );
    }

    pub(super) fn rect(
        &mut self,
        corner: (f64, f64),
        size: (f64, f64),
        role: Role,
        opacity: f64,
        tip: &str,
    ) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill-opacity=\"{}\"{}>{}</rect>",
            short(corner.0),
            short(corner.1),
            short(size.0.max(0.0)),
            short(size.1.max(0.0)),
            short(opacity),
            role.colour("fill", self.theme),
            title(tip),
        );
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, role: Role, tip: &str) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\"{}>{}</circle>",
            short(at.0),
            short(at.1),
            short(radius),
            role.colour("fill", self.theme),
            title(tip),
        );
    }

    pub(super) fn text(
        &mut self,
        at: (f64, f64),
        anchor: Anchor,
        role: Role,
        size: f64,
        bold: bool,
        text: &str,
    ) {
        let _ = writeln!(
            self.body,
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\"{}{}{}>{}</text>",
            short(at.0),
            short(at.1),
            short(size),
            match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            },
            if bold { " font-weight=\"600\"" } else { "" },
            role.colour("fill", self.theme),
            escape(text),
        );
    }

    /// Text that runs upward, centred on its point.
    pub(super) fn text_up(&mut self, at: (f64, f64), role: Role, size: f64, text: &str) {
        let _ = writeln!(
            self.body,
            "<text transform=\"translate({} {}) rotate(-90)\" font-size=\"{}\" text-anchor=\"middle\"{}>{}</text>",
            short(at.0),
            short(at.1),
            short(size),
            role.colour("fill", self.theme),
            escape(text),
        );
    }

    /// The whole document; `name` and `summary` are what a screen reader says.
    pub(super) fn finish(self, width: f64, height: f64, name: &str, summary: &str) -> String {
        let (w, h) = (short(width), short(height));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" role=\"img\">\n\
             <title>{}</title>\n<desc>{}</desc>\n",
            escape(name),
            escape(summary),
        );
        if self.theme != Theme::Page {
            let fill = Role::Surface.colour("fill", self.theme);
            let _ = writeln!(out, "<rect width=\"{w}\" height=\"{h}\"{fill}/>");
        }
        out.push_str(&self.body);
        out.push_str("</svg>\n");
        out
    }
}

/// Estimated width of text in pixels: no font can be measured here. Errs on the wide side: as wide as in
/// `DejaVu` Sans, the widest of the usual fonts.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | '\'' | '|' | ':' | ';' | '!' => 0.34,
            'f' | 't' | 'r' | ' ' | '(' | ')' | '-' | '/' => 0.42,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.99,
            'A'..='Z' => 0.74,
            // ideographs and other wide scripts fill the square
            c if u32::from(c) > 0x2e80 => 1.0,
            _ => 0.64,
        })
        .sum();
    ems * size
}

/// Text for element content and quoted attributes; characters that XML forbids are dropped.
pub(in crate::report) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

fn title(tip: &str) -> String {
    if tip.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(tip))
    }
}

fn dash(dashes: &str) -> String {
    if dashes.is_empty() {
        String::new()
    } else {
        format!(" stroke-dasharray=\"{dashes}\"")
    }
}

fn trace(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (index, point) in points.iter().enumerate() {
        let _ = write!(
            d,
            "{}{} {}",
            if index == 0 { 'M' } else { 'L' },
            short(point.0),
            short(point.1)
        );
    }
    d
}

/// A coordinate rounded to a hundredth of a pixel, without trailing zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}
