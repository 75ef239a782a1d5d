//! Pictures of parts, and maps to lay over them.

use std::io::Cursor;

use flawtune::bundle::Finding;
use flawtune::{AnomalyMap, Image};
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageEncoder as _, RgbImage, RgbaImage};

use crate::compute::Live;
use crate::refusal::Refusal;

/// Where a flaw begins, and where it is strongest: amber and red, which are told apart without colour by how they cover.
const FROM: [f32; 4] = [255.0, 176.0, 0.0, 96.0];
const TO: [f32; 4] = [214.0, 0.0, 28.0, 208.0];

/// The map of a part as a PNG with alpha, at most so large on its longer side: clear where the part is good.
///
/// # Errors
/// Patches of another detector.
pub(crate) fn map(
    live: &Live,
    size: (usize, usize),
    flaw: bool,
    patches: &[f32],
    longest: usize,
) -> Result<Vec<u8>, Refusal> {
    let found = Finding {
        score: f64::NEG_INFINITY,
        distances: patches.to_vec(),
        drift: 0.0,
        kind: None,
        untaught: None,
    };
    let pixels = pixels(size, longest);
    let said = live.detector.verdict(size, &found, Some(pixels))?;
    let map = said
        .map
        .ok_or_else(|| Refusal::missing("there is no map of this part"))?;
    png_rgba(&coloured(live, &map, flaw))
}

/// Most pixels of a picture of `size` that is so long on its longer side.
fn pixels(size: (usize, usize), longest: usize) -> usize {
    let (height, width) = size;
    let most = height.max(width).max(1);
    let part = (longest as f64 / most as f64).min(1.0);
    ((height as f64 * part).ceil() * (width as f64 * part).ceil()).max(1.0) as usize
}

fn coloured(live: &Live, map: &AnomalyMap, flaw: bool) -> RgbaImage {
    let scale = &live.detector.header().map;
    let peak = map.range().map_or(scale.threshold, |(_, peak)| peak);
    // a part can be flawed although no point of its map is: then the highest point is shown
    let from = if flaw && peak < scale.threshold {
        scale.low.midpoint(peak).min(peak)
    } else {
        scale.threshold
    };
    let to = scale.high.max(peak).max(from + f32::EPSILON);
    let mut picture = RgbaImage::new(map.width() as u32, map.height() as u32);
    for (pixel, value) in picture.pixels_mut().zip(map.values()) {
        if *value >= from {
            let level = ((value - from) / (to - from)).clamp(0.0, 1.0);
            for ((channel, a), b) in pixel.0.iter_mut().zip(FROM).zip(TO) {
                *channel = (a + level * (b - a)).round() as u8;
            }
        }
    }
    picture
}

/// An image as PNG, at most so large on its longer side.
///
/// # Errors
/// Memory.
pub(crate) fn picture(image: &Image, longest: usize) -> Result<Vec<u8>, Refusal> {
    let (height, width) = (image.height() as u32, image.width() as u32);
    let whole = RgbImage::from_raw(width, height, image.pixels().to_vec())
        .ok_or_else(|| Refusal::missing("the image has no pixels"))?;
    let part = longest as f64 / f64::from(height.max(width));
    let small = if part < 1.0 {
        let of = |side: u32| ((f64::from(side) * part).round() as u32).max(1);
        image::imageops::resize(&whole, of(width), of(height), FilterType::Triangle)
    } else {
        whole
    };
    png(
        small.as_raw(),
        (small.width(), small.height()),
        ExtendedColorType::Rgb8,
    )
}

fn png_rgba(picture: &RgbaImage) -> Result<Vec<u8>, Refusal> {
    png(
        picture.as_raw(),
        (picture.width(), picture.height()),
        ExtendedColorType::Rgba8,
    )
}

fn png(pixels: &[u8], size: (u32, u32), colour: ExtendedColorType) -> Result<Vec<u8>, Refusal> {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(pixels, size.0, size.1, colour)
        .map_err(|e| Refusal::machine(&e))?;
    Ok(bytes.into_inner())
}
