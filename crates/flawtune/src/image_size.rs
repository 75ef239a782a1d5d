//! Sizes that images are given before the backbone sees them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The longest side that can be named.
pub const LONGEST_SIDE: usize = 8192;

/// Size of an image in pixels. A square is the number of its side, as text and in JSON; anything else is `448x224`: width, then
/// height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// A square of `side` pixels.
    pub const fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// Whether it is as wide as it is high.
    pub fn is_square(self) -> bool {
        self.height == self.width
    }

    /// The shorter side.
    pub fn shorter(self) -> usize {
        self.height.min(self.width)
    }

    /// Several as text, with something between them.
    pub fn join(sizes: &[Self], between: &str) -> String {
        let texts: Vec<String> = sizes.iter().map(Self::to_string).collect();
        texts.join(between)
    }

    /// Larger first: by area, then by height.
    pub fn larger_first(a: &Self, b: &Self) -> Ordering {
        let key = |size: &Self| (size.height * size.width, size.height);
        key(b).cmp(&key(a))
    }
}

impl From<usize> for ImageSize {
    fn from(side: usize) -> Self {
        Self::square(side)
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_square() {
            write!(f, "{}", self.height)
        } else {
            write!(f, "{}x{}", self.width, self.height)
        }
    }
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| match text.trim().parse::<usize>() {
            Ok(side) if (1..=LONGEST_SIDE).contains(&side) => Ok(side),
            _ => Err(format!(
                "'{}' is not a number of pixels from 1 to {LONGEST_SIDE}; a size is 448, or width and height as 448x224",
                text.trim()
            )),
        };
        match text.split_once(['x', 'X', '×']) {
            None => side(text).map(Self::square),
            Some((width, height)) => Ok(Self {
                height: side(height)?,
                width: side(width)?,
            }),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.is_square() {
            to.serialize_u64(self.height as u64)
        } else {
            to.collect_str(self)
        }
    }
}

impl<'a> Deserialize<'a> for ImageSize {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Side(usize),
            Sides(String),
        }
        match Text::deserialize(from)? {
            Text::Side(side) => Ok(Self::square(side)),
            Text::Sides(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_is_a_number_and_anything_else_width_and_height() {
        let wide = ImageSize {
            height: 224,
            width: 448,
        };
        for (text, size, json) in [
            ("224", ImageSize::square(224), "224"),
            ("448x224", wide, "\"448x224\""),
        ] {
            assert_eq!(text.parse(), Ok(size));
            assert_eq!(size.to_string(), text);
            assert_eq!(serde_json::to_string(&size).unwrap(), json);
            assert_eq!(serde_json::from_str::<ImageSize>(json).unwrap(), size);
        }
        assert_eq!("448 × 224".parse(), Ok(wide));
        assert_eq!("224x224".parse(), Ok(ImageSize::square(224)));
        for wrong in ["", "0", "8193", "448x", "x224", "1x2x3", "-4", "a"] {
            assert!(wrong.parse::<ImageSize>().is_err(), "{wrong}");
        }
        let mut sizes = [ImageSize::square(224), wide, ImageSize::square(448)];
        sizes.sort_by(ImageSize::larger_first);
        assert_eq!(sizes.map(|s| s.width), [448, 448, 224]);
    }
}
