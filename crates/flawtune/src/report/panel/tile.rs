//! One tile of a panel: the image, or numbers of its patches laid over it.

use image::{Rgb, RgbImage};

use super::SIDE;
use crate::report::overlay::ColourMap;

/// Colours of a scale and what stands at its ends.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) low: String,
    pub(super) high: String,
    pub(super) unit: String,
    /// Colour at a share of the bar's length.
    pub(super) colours: fn(f32) -> [u8; 3],
}

/// A view of the image with what it is.
#[derive(Debug, Clone)]
pub struct Tile {
    /// What it shows.
    pub caption: String,
    /// Numbers about it, in small print.
    pub note: String,
    pub(super) picture: RgbImage,
    pub(super) bar: Option<Bar>,
}

/// Share of the colour in the mix with the image.
const ALPHA: f32 = 0.72;

impl Tile {
    /// An image as it is, resized to [`SIDE`].
    pub fn plain(caption: impl Into<String>, note: impl Into<String>, picture: &RgbImage) -> Self {
        Self {
            caption: caption.into(),
            note: note.into(),
            picture: square(picture),
            bar: None,
        }
    }

    /// An image as it is, as large as the tile holds it without stretching it.
    pub fn whole(caption: impl Into<String>, note: impl Into<String>, picture: &RgbImage) -> Self {
        let longest = picture.width().max(picture.height()).max(1);
        let side = |side: u32| (side * SIDE / longest).max(1);
        let (width, height) = (side(picture.width()), side(picture.height()));
        let filter = image::imageops::FilterType::Triangle;
        let small = image::imageops::resize(picture, width, height, filter);
        let mut canvas = RgbImage::from_pixel(SIDE, SIDE, Rgb([255; 3]));
        let (x, y) = ((SIDE - width) / 2, (SIDE - height) / 2);
        image::imageops::replace(&mut canvas, &small, x.into(), y.into());
        Self {
            caption: caption.into(),
            note: note.into(),
            picture: canvas,
            bar: None,
        }
    }

    /// Numbers of the patches of `grid` (rows, columns), row-major, as colours over the image, from black through red to
    /// light yellow between the ends of `range`. Between patches they are interpolated.
    pub fn heat(
        caption: impl Into<String>,
        note: impl Into<String>,
        picture: &RgbImage,
        values: &[f32],
        grid: (usize, usize),
        range: (f32, f32),
        unit: &str,
    ) -> Self {
        let (low, high) = range;
        let level = |v: f32| {
            if high > low {
                ((v - low) / (high - low)).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        let colours: fn(f32) -> [u8; 3] = |level| ColourMap::Magma.colour(level);
        Self {
            picture: over(picture, |x, y| colours(level(between(values, grid, x, y)))),
            bar: Some(Bar {
                low: number(low),
                high: number(high),
                unit: unit.to_owned(),
                colours,
            }),
            caption: caption.into(),
            note: note.into(),
        }
    }

    /// The same of numbers with a sign: blue below 0, white at 0, red above, up to `limit` both ways.
    pub fn signed(
        caption: impl Into<String>,
        note: impl Into<String>,
        picture: &RgbImage,
        values: &[f32],
        grid: (usize, usize),
        limit: f32,
        unit: &str,
    ) -> Self {
        let level = |v: f32| if limit > 0.0 { v / limit } else { 0.0 };
        Self {
            picture: over(picture, |x, y| {
                diverging(level(between(values, grid, x, y)))
            }),
            bar: Some(Bar {
                low: number(-limit),
                high: number(limit),
                unit: unit.to_owned(),
                colours: |share| diverging(2.0 * share - 1.0),
            }),
            caption: caption.into(),
            note: note.into(),
        }
    }

    /// One colour a patch of `grid`, with hard edges and without the image.
    pub fn mosaic(
        caption: impl Into<String>,
        note: impl Into<String>,
        colours: &[[u8; 3]],
        grid: (usize, usize),
    ) -> Self {
        let at = |x: u32, y: u32| {
            let (row, column) = (
                y as usize * grid.0 / SIDE as usize,
                x as usize * grid.1 / SIDE as usize,
            );
            Rgb(colours
                .get(row * grid.1 + column)
                .copied()
                .unwrap_or_default())
        };
        Self {
            picture: RgbImage::from_fn(SIDE, SIDE, at),
            bar: None,
            caption: caption.into(),
            note: note.into(),
        }
    }
}

/// Blue (−1) through near-white (0) to red (1), linear in sRGB and clamped; NaN is near-white. Told apart also with the common
/// colour-vision deficiencies.
pub fn diverging(level: f32) -> [u8; 3] {
    const BLUE: [f32; 3] = [33.0, 102.0, 172.0];
    const MIDDLE: [f32; 3] = [247.0; 3];
    const RED: [f32; 3] = [178.0, 24.0, 43.0];
    let level = if level.is_nan() {
        0.0
    } else {
        level.clamp(-1.0, 1.0)
    };
    let end = if level < 0.0 { BLUE } else { RED };
    std::array::from_fn(|c| (MIDDLE[c] + (end[c] - MIDDLE[c]) * level.abs()).round() as u8)
}

fn square(picture: &RgbImage) -> RgbImage {
    image::imageops::resize(picture, SIDE, SIDE, image::imageops::FilterType::Triangle)
}

/// Colours over the image in grey, so that the image adds no colour of its own.
fn over(picture: &RgbImage, colour: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
    let mut out = square(picture);
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let [r, g, b] = pixel.0.map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        pixel.0 = colour(x, y).map(|c| (grey * (1.0 - ALPHA) + f32::from(c) * ALPHA).round() as u8);
    }
    out
}

/// Bilinear between the middles of the patches, clamped at the edges.
fn between(values: &[f32], (rows, columns): (usize, usize), x: u32, y: u32) -> f32 {
    let place = |at: u32, count: usize| {
        let p = ((at as f32 + 0.5) / SIDE as f32 * count as f32 - 0.5)
            .clamp(0.0, count.saturating_sub(1) as f32);
        (p as usize, p.fract())
    };
    let ((r, down), (c, right)) = (place(y, rows), place(x, columns));
    let value = |r: usize, c: usize| {
        values
            .get(r.min(rows - 1) * columns + c.min(columns - 1))
            .copied()
            .unwrap_or(0.0)
    };
    let line = |r: usize| value(r, c) * (1.0 - right) + value(r, c + 1) * right;
    line(r) * (1.0 - down) + line(r + 1) * down
}

/// A number for the end of a scale.
fn number(value: f32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = if (0.001..10_000.0).contains(&value.abs()) {
        let digits = if value.abs() >= 10.0 { 1 } else { 3 };
        format!("{value:.digits$}")
    } else {
        format!("{value:.1e}")
    };
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diverging_colours_are_white_at_zero() {
        assert_eq!(diverging(0.0), [247; 3]);
        assert_eq!(diverging(f32::NAN), [247; 3]);
        assert_eq!(
            [diverging(-1.0), diverging(5.0)],
            [[33, 102, 172], [178, 24, 43]]
        );
        // half way to red: (247 + 178) / 2, (247 + 24) / 2, (247 + 43) / 2
        assert_eq!(diverging(0.5), [213, 136, 145]);
    }

    #[test]
    fn a_whole_image_keeps_its_shape() {
        let tile = Tile::whole("", "", &RgbImage::from_pixel(8, 2, Rgb([9, 8, 7])));
        let at = |y: u32| tile.picture.get_pixel(SIDE / 2, y).0;
        assert_eq!(tile.picture.dimensions(), (SIDE, SIDE));
        assert_eq!([at(0), at(SIDE - 1)], [[255; 3]; 2]);
        assert_eq!(at(SIDE / 2), [9, 8, 7]);
        let dark = (0..SIDE).filter(|y| at(*y) == [9, 8, 7]).count();
        assert_eq!(dark, SIDE as usize / 4);
    }

    #[test]
    fn numbers_lie_over_their_patches() {
        let picture = RgbImage::from_pixel(4, 4, Rgb([0; 3]));
        let one = Tile::heat(
            "",
            "",
            &picture,
            &[0.0, 0.0, 0.0, 1.0],
            (2, 2),
            (0.0, 1.0),
            "",
        );
        let bright = |p: &RgbImage, x: u32, y: u32| {
            p.get_pixel(x, y)
                .0
                .iter()
                .map(|v| u32::from(*v))
                .sum::<u32>()
        };
        assert!(bright(&one.picture, SIDE - 1, SIDE - 1) > 450);
        assert!(bright(&one.picture, 2, SIDE - 1) < 20 && bright(&one.picture, SIDE - 1, 2) < 20);
        let half = bright(&one.picture, SIDE / 2, SIDE - 1);
        assert!(half > 100 && half < 450, "interpolated: {half}");
        let mosaic = Tile::mosaic("", "", &[[1, 2, 3], [4, 5, 6]], (1, 2));
        assert_eq!(mosaic.picture.get_pixel(SIDE / 2 - 1, 9).0, [1, 2, 3]);
        assert_eq!(mosaic.picture.get_pixel(SIDE / 2, 9).0, [4, 5, 6]);
        let signed = Tile::signed("", "", &picture, &[-1.0, 1.0], (1, 2), 2.0, "");
        let [r, _, b] = signed.picture.get_pixel(0, 0).0;
        assert!(b > r, "negative is blue");
        assert_eq!(number(-0.25), "\u{2212}0.250");
        assert_eq!(
            [number(0.0), number(0.000_02), number(12.34)],
            ["0", "2.0e\u{2212}5", "12.3"]
        );
    }
}
