//! Regions that people drew.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, ImageReader, Limits};

use crate::refusal::Refusal;

/// Most pixels of a side of a mask.
const LARGEST: u32 = 1 << 14;

/// Reads a mask: a PNG file, white where the flaw is, as black and white.
///
/// # Errors
/// Something else than a PNG file; one without a white pixel.
pub(crate) fn read(bytes: &[u8]) -> Result<GrayImage, Refusal> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST);
    limits.max_image_height = Some(LARGEST);
    reader.limits(limits);
    let mask = reader
        .decode()
        .map_err(|e| Refusal::wrong(format!("the mask cannot be read as PNG: {e}")))?;
    let mut mask = mask.into_luma8();
    for pixel in mask.pixels_mut() {
        pixel.0 = [if pixel.0[0] >= 128 { 255 } else { 0 }];
    }
    if mask.pixels().all(|pixel| pixel.0[0] == 0) {
        return Err(Refusal::wrong("the mask is black: no flaw is drawn in it")
            .hint("draw one, or send no mask"));
    }
    Ok(mask)
}

/// A mask as large as its image, of `size` (height, width).
///
/// # Errors
/// As [`read`].
pub(crate) fn of_size(bytes: &[u8], size: (usize, usize)) -> Result<GrayImage, Refusal> {
    let (height, width) = (size.0 as u32, size.1 as u32);
    Ok(imageops::resize(
        &read(bytes)?,
        width,
        height,
        FilterType::Nearest,
    ))
}
