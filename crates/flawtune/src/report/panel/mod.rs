//! Panels: views of one image, side by side, each with its caption and its scale.

mod tile;

pub use tile::{Tile, diverging};

use std::fmt::Write as _;

use image::{Rgb, RgbImage};

use super::plot::{PlotError, escape, rasterise};
use tile::Bar;

/// Side of a tile's image in pixels.
pub const SIDE: u32 = 208;
const GAP: u32 = 16;
const HEAD: u32 = 44;
/// Two lines of text above a tile.
const CAPTION: u32 = 36;
/// Scale below a tile: the bar and its ends.
const FOOT: u32 = 26;
const BAR: u32 = 7;
/// Characters of the small font that fit over a tile.
const NOTE_CHARACTERS: usize = 44;

/// Tiles under one title.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Above all of it.
    pub title: String,
    /// In reading order.
    pub tiles: Vec<Tile>,
    /// Tiles in a row.
    pub columns: usize,
}

impl Panel {
    /// The panel in pixels, dark text on white.
    ///
    /// # Errors
    /// [`PlotError::Draw`] if it is too large.
    pub fn draw(&self) -> Result<RgbImage, PlotError> {
        let columns = (self.columns.clamp(1, self.tiles.len().max(1))) as u32;
        let rows = (self.tiles.len() as u32).div_ceil(columns).max(1);
        let (wide, high) = (SIDE + GAP, CAPTION + SIDE + FOOT + GAP);
        let (width, height) = (GAP + columns * wide, HEAD + rows * high);
        let at = |i: usize| {
            (
                GAP + i as u32 % columns * wide,
                HEAD + i as u32 / columns * high,
            )
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\">\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
        );
        let mut text = |x: u32, y: u32, size: u32, colour: &str, anchor: &str, words: &str| {
            let _ = write!(
                svg,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{}</text>",
                escape(words)
            );
        };
        text(
            GAP,
            28,
            17,
            "#1c2128",
            "start",
            &short(&self.title, (width / 10) as usize),
        );
        for (i, tile) in self.tiles.iter().enumerate() {
            let (x, y) = at(i);
            text(x, y + 13, 13, "#1c2128", "start", &short(&tile.caption, 31));
            text(
                x,
                y + 29,
                10,
                "#59636e",
                "start",
                &short(&tile.note, NOTE_CHARACTERS),
            );
            if let Some(bar) = &tile.bar {
                let foot = y + CAPTION + SIDE + FOOT - 4;
                text(x, foot, 10, "#59636e", "start", &bar.low);
                text(x + SIDE / 2, foot, 10, "#59636e", "middle", &bar.unit);
                text(x + SIDE, foot, 10, "#59636e", "end", &bar.high);
            }
        }
        svg.push_str("</svg>");
        let drawn = rasterise(&svg, 1.0)?;
        let mut out = RgbImage::new(drawn.width(), drawn.height());
        for (to, from) in out.pixels_mut().zip(drawn.pixels()) {
            // everything lies on white: no pixel is see-through
            *to = Rgb([from.red(), from.green(), from.blue()]);
        }
        for (i, tile) in self.tiles.iter().enumerate() {
            let (x, y) = at(i);
            image::imageops::replace(&mut out, &tile.picture, x.into(), (y + CAPTION).into());
            if let Some(Bar { colours, .. }) = &tile.bar {
                for dx in 0..SIDE {
                    let colour = colours(dx as f32 / (SIDE - 1) as f32);
                    for dy in 0..BAR {
                        out.put_pixel(x + dx, y + CAPTION + SIDE + 3 + dy, Rgb(colour));
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Text of at most `most` characters.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_lie_in_rows_with_their_text_and_scale() {
        let red = RgbImage::from_pixel(SIDE, SIDE, Rgb([200, 0, 0]));
        let tile = |caption: &str| Tile::plain(caption, "", &red);
        let heat = Tile::heat("heat", "note", &red, &[0.0, 1.0], (1, 2), (0.0, 1.0), "");
        let panel = Panel {
            title: "t".to_owned(),
            tiles: vec![tile("a"), tile("b"), heat],
            columns: 2,
        };
        let drawn = panel.draw().unwrap();
        assert_eq!(
            drawn.dimensions(),
            (
                GAP + 2 * (SIDE + GAP),
                HEAD + 2 * (CAPTION + SIDE + FOOT + GAP)
            )
        );
        let tile_at = |i: u32, j: u32| {
            (
                GAP + i * (SIDE + GAP),
                HEAD + j * (CAPTION + SIDE + FOOT + GAP),
            )
        };
        let (x, y) = tile_at(1, 0);
        assert_eq!(drawn.get_pixel(x, y + CAPTION).0, [200, 0, 0]);
        assert_eq!(drawn.get_pixel(x + SIDE, y + CAPTION).0, [255; 3]);
        // the scale from dark to light below the third tile only
        let (x, y) = tile_at(0, 1);
        let bar = |dx: u32| drawn.get_pixel(x + dx, y + CAPTION + SIDE + 4).0;
        assert_eq!([bar(0), bar(SIDE - 1)], [[0, 0, 4], [252, 253, 191]]);
        let dark = |x: u32, y: u32| {
            let area = (0..SIDE).flat_map(|dx| (0..CAPTION).map(move |dy| (x + dx, y + dy)));
            area.filter(|&(x, y)| drawn.get_pixel(x, y).0.iter().all(|v| *v < 120))
                .count()
        };
        assert!(dark(x, y) > 40, "{} dark pixels of text", dark(x, y));
        assert_eq!(drawn, panel.draw().unwrap());
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("äöü", 3), "äöü");
    }
}
