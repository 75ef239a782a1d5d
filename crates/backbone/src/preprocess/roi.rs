//! The part of an image that is looked at.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::decode::{DecodeOptions, ImageError, decode, read_file};
use super::image::RgbImage8;

/// Along one side of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Pixels of the image as it is decoded.
    Pixels(usize),
    /// Hundredths of the side, 0 to 100.
    Percent(f64),
}

impl Length {
    /// In pixels of a side, not rounded.
    fn of(self, side: usize) -> f64 {
        match self {
            Self::Pixels(pixels) => pixels as f64,
            Self::Percent(percent) => percent * side as f64 / 100.0,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some(percent) = text.strip_suffix('%') else {
            let pixels = text.parse();
            return pixels
                .map(Self::Pixels)
                .map_err(|_| format!("'{text}' is neither whole pixels nor a percentage"));
        };
        match percent.trim_end().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
            _ => Err(format!("'{text}' is no percentage from 0% to 100%")),
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Pixels(pixels) => pixels == 0,
            Self::Percent(percent) => percent <= 0.0,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels(pixels) => write!(f, "{pixels}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A region of interest: the part of every image that is looked at.
#[expect(
    clippy::large_enum_variant,
    reason = "half a kilobyte, once for each way of preparing images, which stays Copy"
)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Roi {
    /// A rectangle.
    Rectangle(Rectangle),
    /// What a mask marks, of any shape.
    Mask(RoiMask),
}

impl Roi {
    /// What the image at `path` marks: white where to look, black elsewhere. See [`RoiMask`].
    ///
    /// # Errors
    /// An image that cannot be read, or that marks nothing.
    pub fn of_mask(path: &Path) -> Result<Self, ImageError> {
        let options = DecodeOptions::default();
        let image = decode(&read_file(path, &options)?, path, &options)?;
        let mask = RoiMask::of(&image).ok_or_else(|| ImageError::MarksNothing {
            path: path.to_owned(),
        })?;
        Ok(Self::Mask(mask))
    }

    /// The rectangle of an image of this size that holds it; `None` where it reaches beyond the image.
    pub fn within(&self, height: usize, width: usize) -> Option<Part> {
        match self {
            Self::Rectangle(rectangle) => rectangle.within(height, width),
            Self::Mask(mask) => mask.bounds(height, width),
        }
    }

    /// A short text that two regions share only if they are the same.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Rectangle(rectangle) => rectangle.to_string(),
            Self::Mask(mask) => {
                let hash = blake3::hash(mask.to_text().as_bytes());
                format!("mask{}", &hash.to_hex()[..16])
            }
        }
    }
}

impl FromStr for Roi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(MASK) {
            Some(cells) => RoiMask::parse(cells).map(Self::Mask),
            None => text.parse().map(Self::Rectangle),
        }
    }
}

impl fmt::Display for Roi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rectangle(rectangle) => rectangle.fmt(f),
            Self::Mask(mask) => write!(f, "of a mask ({:.0} % of an image)", 100.0 * mask.share()),
        }
    }
}

impl Serialize for Roi {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rectangle(rectangle) => to.collect_str(rectangle),
            Self::Mask(mask) => to.collect_str(&format_args!("{MASK}{}", mask.to_text())),
        }
    }
}

impl<'a> Deserialize<'a> for Roi {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What the text of a mask begins with.
const MASK: &str = "mask:";
/// Cells of a mask along each side.
const CELLS: usize = 64;

/// A region of any shape, in 64 by 64 cells over the image: half a patch where 448 pixels are cut into 32 patches. A cell is looked at
/// if at least half of the mask's pixels in it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoiMask {
    /// A row each; the first column is the highest bit.
    rows: [u64; CELLS],
}

impl RoiMask {
    /// Of an image that is brighter than half of its brightest where to look; `None` if that is nowhere.
    pub fn of(image: &RgbImage8) -> Option<Self> {
        let (height, width) = (image.height(), image.width());
        let bright: Vec<u8> = image
            .pixels()
            .chunks_exact(3)
            .map(|p| p[0].max(p[1]).max(p[2]))
            .collect();
        let half = bright.iter().copied().max().unwrap_or(0).div_ceil(2).max(1);
        // the pixels that `holds` asks a cell about; where there are fewer pixels than cells, the one in the cell's middle
        let range = |cell: usize, side: usize| {
            let edge = |cell: usize| (cell * side).div_ceil(CELLS);
            if edge(cell) < edge(cell + 1) {
                edge(cell)..edge(cell + 1)
            } else {
                let middle = (2 * cell + 1) * side / (2 * CELLS);
                middle..middle + 1
            }
        };
        let mut rows = [0; CELLS];
        for (y, row) in rows.iter_mut().enumerate() {
            for x in 0..CELLS {
                let (mut on, mut all) = (0, 0);
                for line in range(y, height) {
                    let cells = &bright[line * width..][range(x, width)];
                    on += cells.iter().filter(|v| **v >= half).count();
                    all += cells.len();
                }
                *row |= u64::from(2 * on >= all && on > 0) << (CELLS - 1 - x);
            }
        }
        rows.iter().any(|row| *row != 0).then_some(Self { rows })
    }

    fn cell(&self, y: usize, x: usize) -> bool {
        self.rows[y] >> (CELLS - 1 - x) & 1 == 1
    }

    /// Whether a pixel of an image of this size lies in a cell that is looked at.
    pub(super) fn holds(&self, y: usize, x: usize, (height, width): (usize, usize)) -> bool {
        let of = |at: usize, side: usize| (at * CELLS / side.max(1)).min(CELLS - 1);
        self.cell(of(y, height), of(x, width))
    }

    /// Share of an image that is looked at.
    fn share(&self) -> f64 {
        let on: u32 = self.rows.iter().map(|row| row.count_ones()).sum();
        f64::from(on) / (CELLS * CELLS) as f64
    }

    /// The rectangle that holds all pixels that are looked at.
    fn bounds(&self, height: usize, width: usize) -> Option<Part> {
        let all = self.rows.iter().fold(0, |all, row| all | row);
        let (first, last) = (all.leading_zeros(), CELLS as u32 - all.trailing_zeros());
        let top = self.rows.iter().position(|row| *row != 0)?;
        let bottom = CELLS - self.rows.iter().rev().position(|row| *row != 0)?;
        // the first pixel of a cell, as `holds` has it
        let axis = |from: usize, to: usize, side: usize| {
            let start = (from * side).div_ceil(CELLS).min(side.checked_sub(1)?);
            Some((
                start,
                (to * side).div_ceil(CELLS).clamp(start + 1, side) - start,
            ))
        };
        let (top, rows) = axis(top, bottom, height)?;
        let (left, columns) = axis(first as usize, last as usize, width)?;
        Some(Part {
            top,
            left,
            height: rows,
            width: columns,
        })
    }

    fn to_text(self) -> String {
        let mut text = String::with_capacity(CELLS * CELLS / 4);
        for row in self.rows {
            let _ = write!(text, "{row:016x}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("a mask is {} digits of base 16", CELLS * CELLS / 4);
        if text.len() != CELLS * CELLS / 4 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut rows = [0; CELLS];
        for (row, at) in rows.iter_mut().zip((0..text.len()).step_by(CELLS / 4)) {
            *row = u64::from_str_radix(&text[at..at + CELLS / 4], 16).map_err(|_| wrong())?;
        }
        if rows.iter().all(|row| *row == 0) {
            return Err("a mask that marks nothing".into());
        }
        Ok(Self { rows })
    }
}

/// The rectangle of every image that is looked at. As text `left,top,width,height`, each in pixels or in percent of its side:
/// `100,50,640,480`, `10%,10%,80%,80%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    /// First column.
    pub left: Length,
    /// First row.
    pub top: Length,
    /// Columns.
    pub width: Length,
    /// Rows.
    pub height: Length,
}

/// What percentages that add up to a whole side may be beyond it by rounding.
const ROUNDING: f64 = 1e-6;

impl Rectangle {
    /// The pixels of an image of this size; `None` where it reaches beyond the image.
    pub fn within(&self, height: usize, width: usize) -> Option<Part> {
        let axis = |start: Length, length: Length, side: usize| {
            let (from, to) = (start.of(side), start.of(side) + length.of(side));
            if to > side as f64 + ROUNDING {
                return None;
            }
            let from = (from.round() as usize).min(side.checked_sub(1)?);
            let to = (to.round() as usize).clamp(from + 1, side);
            Some((from, to - from))
        };
        let (top, rows) = axis(self.top, self.height, height)?;
        let (left, columns) = axis(self.left, self.width, width)?;
        Some(Part {
            top,
            left,
            height: rows,
            width: columns,
        })
    }
}

impl FromStr for Rectangle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lengths: Vec<Length> = text
            .split(',')
            .map(Length::parse)
            .collect::<Result<_, _>>()?;
        let &[left, top, width, height] = lengths.as_slice() else {
            return Err(
                "a region is left,top,width,height, such as 100,50,640,480 or 10%,10%,80%,80%"
                    .into(),
            );
        };
        if width.is_zero() || height.is_zero() {
            return Err("a region is at least one pixel wide and high".into());
        }
        for (what, start, length) in [("right", left, width), ("bottom", top, height)] {
            if let (Length::Percent(start), Length::Percent(length)) = (start, length)
                && start + length > 100.0 + ROUNDING
            {
                return Err(format!(
                    "a region that begins at {start}% and is {length}% long reaches beyond the {what} edge of the image"
                ));
            }
        }
        Ok(Self {
            left,
            top,
            width,
            height,
        })
    }
}

impl fmt::Display for Rectangle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            left,
            top,
            width,
            height,
        } = self;
        write!(f, "{left},{top},{width},{height}")
    }
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Part {
    /// All of an image.
    pub fn whole(height: usize, width: usize) -> Self {
        Self {
            top: 0,
            left: 0,
            height,
            width,
        }
    }

    /// The same in an image of size `from` (height, width) that is drawn at size `to`; at least one pixel.
    #[must_use]
    pub fn scaled(self, from: (usize, usize), to: (usize, usize)) -> Self {
        let axis = |start: usize, length: usize, from: usize, to: usize| {
            let at = |v: usize| (v as f64 * to as f64 / from as f64).round() as usize;
            let first = at(start).min(to.saturating_sub(1));
            (first, at(start + length).clamp(first + 1, to) - first)
        };
        let (top, height) = axis(self.top, self.height, from.0, to.0);
        let (left, width) = axis(self.left, self.width, from.1, to.1);
        Self {
            top,
            left,
            height,
            width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, height: usize, width: usize) -> Option<(usize, usize, usize, usize)> {
        let part = text.parse::<Roi>().unwrap().within(height, width)?;
        Some((part.left, part.top, part.width, part.height))
    }

    #[test]
    fn pixels_and_percentages_are_pixels_of_the_image() {
        assert_eq!(part("10,20,30,40", 100, 100), Some((10, 20, 30, 40)));
        assert_eq!(part("10%,20%,30%,40%", 100, 200), Some((20, 20, 60, 40)));
        assert_eq!(part("50%, 10, 50%, 5", 15, 33), Some((17, 10, 16, 5)));
        assert_eq!(part("0,0,100%,100%", 7, 5), Some((0, 0, 5, 7)));
        // thirds add up to all of the side, and a sliver is a pixel
        assert_eq!(part("66.67%,0%,33.33%,100%", 9, 9), Some((6, 0, 3, 9)));
        assert_eq!(part("99.9%,99.9%,0.1%,0.1%", 9, 9), Some((8, 8, 1, 1)));
    }

    #[test]
    fn what_reaches_beyond_the_image_is_no_part_of_it() {
        assert_eq!(part("0,0,101,100", 100, 100), None);
        assert_eq!(part("90,0,10,10", 100, 99), None);
        assert_eq!(part("200,0,1,1", 100, 100), None);
        for (text, why) in [
            ("1,2,3", "left,top,width,height"),
            ("1,2,3,4,5", "left,top,width,height"),
            ("a,2,3,4", "'a'"),
            ("-1,2,3,4", "'-1'"),
            ("1,2,0,4", "at least one pixel"),
            ("1,2,3,0%", "at least one pixel"),
            ("50%,0%,60%,10%", "right edge"),
            ("0%,50%,10%,60%", "bottom edge"),
            ("101%,0,1,1", "'101%'"),
            ("nan%,0,1,1", "'nan%'"),
        ] {
            let error = text.parse::<Roi>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn its_text_reads_back() {
        for text in ["100,50,640,480", "10%,12.5%,80%,75%"] {
            let roi: Roi = text.parse().unwrap();
            assert_eq!(roi.to_string(), text);
            let json = serde_json::to_string(&roi).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Roi>(&json).unwrap(), roi);
        }
    }

    #[test]
    fn a_part_is_drawn_smaller_with_its_image() {
        let part = Part {
            top: 10,
            left: 30,
            height: 1,
            width: 60,
        };
        assert_eq!(part.scaled((40, 90), (40, 90)), part);
        let half = Part {
            top: 5,
            left: 15,
            height: 1,
            width: 30,
        };
        assert_eq!(part.scaled((40, 90), (20, 45)), half);
        let whole = Part::whole(41, 91);
        assert_eq!(whole.scaled((41, 91), (21, 46)), Part::whole(21, 46));
    }

    #[test]
    fn a_mask_marks_cells_of_every_size_of_image() {
        // a disc of soft edge, brightest at 200
        let (height, width) = (128, 192);
        let inside = |y: usize, x: usize| {
            let (dy, dx) = (y as f64 / 128.0 - 0.5, x as f64 / 192.0 - 0.5);
            dy * dy + dx * dx < 0.09
        };
        let pixels = (0..height * width)
            .flat_map(|i| {
                [if inside(i / width, i % width) {
                    200
                } else {
                    40
                }; 3]
            })
            .collect();
        let mask = RoiMask::of(&RgbImage8::from_pixels(height, width, pixels)).unwrap();
        assert!((mask.share() - std::f64::consts::PI * 0.09).abs() < 0.01);
        let roi = Roi::Mask(mask);
        for size in [(640, 480), (64, 64), (63, 50), (448, 1000)] {
            let part = roi.within(size.0, size.1).unwrap();
            let held = |y, x| mask.holds(y, x, size);
            let all = || (0..size.0).flat_map(|y| (0..size.1).map(move |x| (y, x)));
            let of = |f: fn((usize, usize)) -> usize| {
                let on = all().filter(|&(y, x)| held(y, x)).map(f);
                (on.clone().min().unwrap(), on.max().unwrap())
            };
            let (rows, columns) = (of(|p| p.0), of(|p| p.1));
            assert_eq!((part.top, part.top + part.height - 1), rows, "{size:?}");
            assert_eq!((part.left, part.left + part.width - 1), columns, "{size:?}");
            assert!(held(size.0 / 2, size.1 / 2) && !held(0, 0));
        }
        let json = serde_json::to_string(&roi).unwrap();
        assert_eq!(serde_json::from_str::<Roi>(&json).unwrap(), roi);
        assert!(roi.id().len() == 20 && roi.to_string().contains(" % of an image"));
        assert!(RoiMask::of(&RgbImage8::from_pixels(3, 2, vec![0; 18])).is_none());
        let one = RoiMask::of(&RgbImage8::from_pixels(1, 1, vec![9; 3])).unwrap();
        assert!((one.share() - 1.0).abs() < 1e-12);
        for text in ["mask:", "mask:zz", &format!("mask:{}", "0".repeat(1024))] {
            text.parse::<Roi>().unwrap_err();
        }
    }
}
