//! Anomaly maps laid over the images they belong to.

mod colour;
mod contour;

pub use colour::ColourMap;

use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file::AtomicFile;
use image::{ImageFormat, RgbImage};

use crate::score::map::{AnomalyMap, Region};

/// The numbers at the two ends of the colour map. One scale serves all images of a set, so that a colour
/// means the same in each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Shown as the colour map's low end.
    pub low: f32,
    /// Shown as the colour map's high end.
    pub high: f32,
}

impl Scale {
    /// From the smallest to the largest number of all `maps`; `None` if there is no number.
    pub fn across<'a>(maps: impl IntoIterator<Item = &'a AnomalyMap>) -> Option<Self> {
        let ranges = maps.into_iter().filter_map(AnomalyMap::range);
        ranges
            .reduce(|(low, high), (l, h)| (low.min(l), high.max(h)))
            .map(|(low, high)| Self { low, high })
    }

    /// Where `value` lies on the scale, 0 to 1, clamped; 0 for NaN or if the scale has no width.
    pub fn level(self, value: f32) -> f32 {
        let width = self.high - self.low;
        let level = if width > 0.0 {
            (value - self.low) / width
        } else {
            0.0
        };
        if level.is_nan() {
            0.0
        } else {
            level.clamp(0.0, 1.0)
        }
    }
}

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// The colours.
    pub colours: ColourMap,
    /// Share of the colour in the mix at the high end of the scale, 0 to 1.
    pub alpha_high: f32,
    /// The same at the low end; between, it grows with the level, so that the image shows where nothing is.
    pub alpha_low: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            colours: ColourMap::Magma,
            alpha_high: 0.75,
            alpha_low: 0.35,
        }
    }
}

/// Why an overlay could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The map belongs to another image.
    #[error(
        "the image is {picture_width}×{picture_height} pixels, its anomaly map {map_width}×{map_height}"
    )]
    Size {
        /// Columns of the image.
        picture_width: u32,
        /// Rows of the image.
        picture_height: u32,
        /// Columns of the map.
        map_width: usize,
        /// Rows of the map.
        map_height: usize,
    },
    /// The image could not be written.
    #[error("cannot write the overlay {path}: {source}")]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Lays `map` over `picture` in the colours of `scale`, but where it holds no number, draws the outline of everything at or above
/// `threshold` and the box of `region` where they are given. Lines are white with a dark edge, as wide as a
/// four-hundredth of the shorter side, and lie outside of what they surround.
///
/// # Errors
/// [`OverlayError::Size`] if image and map differ in size.
pub fn overlay(
    picture: &RgbImage,
    map: &AnomalyMap,
    scale: Scale,
    threshold: Option<f32>,
    region: Option<&Region>,
    style: Style,
) -> Result<RgbImage, OverlayError> {
    let (width, height) = picture.dimensions();
    if (width as usize, height as usize) != (map.width(), map.height()) {
        return Err(OverlayError::Size {
            picture_width: width,
            picture_height: height,
            map_width: map.width(),
            map_height: map.height(),
        });
    }
    let mut out = picture.clone();
    for (pixel, &value) in out.pixels_mut().zip(map.values()) {
        if value.is_nan() {
            continue;
        }
        let level = scale.level(value);
        let alpha =
            (style.alpha_low + (style.alpha_high - style.alpha_low) * level).clamp(0.0, 1.0);
        for (channel, colour) in pixel.0.iter_mut().zip(style.colours.colour(level)) {
            *channel =
                (f32::from(*channel) * (1.0 - alpha) + f32::from(colour) * alpha).round() as u8;
        }
    }
    if let Some(threshold) = threshold {
        let inside: Vec<bool> = map.values().iter().map(|v| *v >= threshold).collect();
        contour::outline(&mut out, &inside);
    }
    if let Some(region) = region {
        contour::frame(&mut out, region);
    }
    Ok(out)
}

/// Writes `picture` as PNG, whole or not at all.
///
/// # Errors
/// [`OverlayError::Write`] with the path and the cause.
pub fn write_png(picture: &RgbImage, path: &Path) -> Result<(), OverlayError> {
    let attempt = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut file = AtomicFile::create(path)?;
        picture.write_to(&mut file, ImageFormat::Png)?;
        Ok(file.commit()?)
    };
    attempt().map_err(|source| OverlayError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::map::worst_region;
    use image::Rgb;

    fn map(width: usize, height: usize, value: impl Fn(usize, usize) -> f32) -> AnomalyMap {
        let values = (0..width * height)
            .map(|i| value(i % width, i / width))
            .collect();
        AnomalyMap::new(height, width, values).unwrap()
    }

    #[test]
    fn one_scale_serves_all_maps() {
        let (a, b) = (
            map(2, 2, |x, _| x as f32),
            map(2, 2, |_, y| y as f32 * 5.0 - 1.0),
        );
        let scale = Scale::across([&a, &b]).unwrap();
        assert_eq!(
            scale,
            Scale {
                low: -1.0,
                high: 4.0
            }
        );
        assert_eq!(
            [scale.level(1.5), scale.level(9.0), scale.level(f32::NAN)],
            [0.5, 1.0, 0.0]
        );
        assert_eq!(
            Scale {
                low: 2.0,
                high: 2.0
            }
            .level(2.0),
            0.0
        );
        assert_eq!(Scale::across([]), None);
    }

    #[test]
    fn colours_mix_by_alpha() {
        let picture = RgbImage::from_pixel(2, 1, Rgb([100, 200, 50]));
        let m = map(2, 1, |x, _| x as f32);
        let scale = Scale {
            low: 0.0,
            high: 1.0,
        };
        let style = Style {
            colours: ColourMap::Viridis,
            alpha_low: 0.0,
            alpha_high: 0.5,
        };
        let out = overlay(&picture, &m, scale, None, None, style).unwrap();
        assert_eq!(out.get_pixel(0, 0).0, [100, 200, 50]);
        // half of [100, 200, 50] and half of viridis' last colour [253, 231, 37]
        assert_eq!(out.get_pixel(1, 0).0, [177, 216, 44]);
        let style = Style {
            alpha_low: 1.0,
            alpha_high: 1.0,
            ..style
        };
        let none = map(2, 1, |x, _| if x == 0 { f32::NAN } else { 1.0 });
        let out = overlay(&picture, &none, scale, None, None, style).unwrap();
        assert_eq!(out.get_pixel(0, 0).0, [100, 200, 50]);
    }

    #[test]
    fn lines_surround_what_is_above_the_threshold() {
        let picture = RgbImage::from_pixel(20, 20, Rgb([90, 90, 90]));
        let m = map(20, 20, |x, y| {
            if (8..12).contains(&x) && (8..12).contains(&y) {
                1.0
            } else {
                0.0
            }
        });
        let style = Style {
            alpha_low: 0.0,
            alpha_high: 0.0,
            ..Style::default()
        };
        let scale = Scale {
            low: 0.0,
            high: 1.0,
        };
        let drawn = overlay(&picture, &m, scale, Some(0.5), None, style).unwrap();
        let white = |p: &RgbImage| p.pixels().filter(|p| p.0 == [255; 3]).count();
        assert_eq!(
            white(&drawn),
            4 * 4 + 4,
            "a ring of one pixel round 4 × 4 pixels"
        );
        assert_eq!(drawn.get_pixel(9, 9).0, [90; 3]);
        let region = worst_region(&m, 0.5).unwrap();
        let framed = overlay(&picture, &m, scale, None, Some(&region), style).unwrap();
        assert!(white(&framed) > 20 && framed.get_pixel(9, 9).0 == [90; 3]);
        assert_eq!(
            overlay(&picture, &m, scale, Some(2.0), None, style).unwrap(),
            picture
        );
    }

    #[test]
    fn a_map_of_another_size_is_refused_and_a_png_reads_back() {
        let picture = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8 * 80, y as u8 * 90, 7]));
        let wrong = overlay(
            &picture,
            &map(2, 3, |_, _| 0.0),
            Scale {
                low: 0.0,
                high: 1.0,
            },
            None,
            None,
            Style::default(),
        );
        assert!(matches!(
            wrong,
            Err(OverlayError::Size { map_width: 2, .. })
        ));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o.png");
        write_png(&picture, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), picture);
        assert!(write_png(&picture, &folder.path().join("none/o.png")).is_err());
    }
}
