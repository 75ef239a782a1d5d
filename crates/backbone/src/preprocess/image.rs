//! A decoded image.

/// An image of 8-bit RGB pixels, `[height, width, 3]`, row-major; at least one pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage8 {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl RgbImage8 {
    /// Reads an image file, as its pixels lie in it.
    ///
    /// # Errors
    /// A file that cannot be read or decoded.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, super::ImageError> {
        let (path, options) = (path.as_ref(), super::DecodeOptions::default());
        super::decode(&super::read_file(path, &options)?, path, &options)
    }

    /// An image from its pixels, `[height, width, 3]`.
    ///
    /// # Panics
    /// If the length is not `height · width · 3` or either side is 0.
    pub fn from_pixels(height: usize, width: usize, pixels: Vec<u8>) -> Self {
        assert!(height > 0 && width > 0, "an image has at least one pixel");
        assert_eq!(
            pixels.len(),
            height * width * 3,
            "pixels are [height, width, 3]"
        );
        Self {
            height,
            width,
            pixels,
        }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The part of `height`×`width` pixels whose top left corner is at (`top`, `left`); where it reaches outside,
    /// black.
    ///
    /// # Panics
    /// If `height` or `width` is 0.
    #[must_use]
    pub fn cropped(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let mut pixels = vec![0; height * width * 3];
        let columns = self.width.saturating_sub(left).min(width);
        let rows = self.pixels.chunks_exact(self.width * 3).skip(top);
        for (out, row) in pixels.chunks_exact_mut(width * 3).zip(rows) {
            out[..columns * 3].copy_from_slice(&row[left.min(self.width) * 3..][..columns * 3]);
        }
        Self::from_pixels(height, width, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_the_right_pixels_and_black_outside() {
        let image = RgbImage8::from_pixels(3, 4, (1..=36).collect());
        let inside = image.cropped(1, 2, 2, 2);
        assert_eq!(
            inside.pixels(),
            [19, 20, 21, 22, 23, 24, 31, 32, 33, 34, 35, 36]
        );
        let outside = image.cropped(2, 3, 2, 2);
        assert_eq!(outside.pixels(), [34, 35, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
