//! The part of an image that is looked at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

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

/// A region of interest: the rectangle of every image that is looked at. As text `left,top,width,height`, each in pixels or in
/// percent of its side: `100,50,640,480`, `10%,10%,80%,80%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roi {
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

impl Roi {
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

impl FromStr for Roi {
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

impl fmt::Display for Roi {
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

impl Serialize for Roi {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'a> Deserialize<'a> for Roi {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
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
}
