//! From an image file to the numbers a backbone reads.
//!
//! A [`Preprocess`] names everything that decides those numbers: the size, how the image is fitted to it, the
//! interpolation filter, whose rounding is followed, the normalisation. Published recipes differ in all of these,
//! so its [`id`](Preprocess::id) goes into checkpoints and into the keys of the feature cache.
//!
//! | recipe | constructor | agrees with |
//! |---|---|---|
//! | squash, bicubic, bytes | [`Preprocess::squash`] (default) | torchvision `Resize((h, w), BICUBIC)` on a PIL image, Pillow up to 12 |
//! | shorter side, centre crop, bicubic, bytes | [`Preprocess::centre_crop`] | timm's evaluation transform, Meta's evaluation code |
//! | squash, bilinear, byte tensor | [`Preprocess::tensor_u8`] | the DINOv3 README (`v2.ToImage`, `v2.Resize((h, w))`) |
//! | squash, bilinear, float | [`Preprocess::float`] | the Hugging Face `DINOv3ViTImageProcessor` |
//!
//! ```
//! use flawtune_backbone::config::Normalization;
//! use flawtune_backbone::preprocess::{Preprocess, RgbImage8};
//!
//! let recipe = Preprocess::squash(224, 224, Normalization::IMAGENET);
//! let grey = RgbImage8::from_pixels(300, 200, vec![127; 300 * 200 * 3]);
//! let pixels = recipe.apply(&grey);
//! assert_eq!(pixels.data.len(), 3 * 224 * 224);
//! assert!((pixels.data[0] - (127.0 / 255.0 - 0.485) / 0.229).abs() < 1e-6);
//! ```

mod decode;
mod depth;
mod facts;
mod image;
mod jpeg;
mod resample;
mod roi;
mod tiff_jpeg;

use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::decode::{
    DecodeOptions, ImageError, Looked, MAX_PIXELS, decode, decode_looked, limit_pixels, narrow,
    read_file, turned,
};
pub use self::facts::{Facts, KIND_BYTES, Kind, facts, facts_of, kind};
pub use self::image::RgbImage8;
pub use self::resample::{Arithmetic, Filter, resize_f32, resize_u8};
pub use self::roi::{Length, Part, Rectangle, Roi, RoiMask};

use crate::config::Normalization;

/// How an image is fitted to the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Both sides are resized to the wanted ones; the aspect is not kept.
    Squash,
    /// Resized so that the wanted size is just covered, aspect kept, then the centre is cut out.
    CentreCrop,
}

/// A recipe that turns an image into backbone input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Rows and columns of the result.
    pub size: (usize, usize),
    /// Fitting.
    pub resize: Resize,
    /// Interpolation.
    pub filter: Filter,
    /// Whose rounding.
    pub arithmetic: Arithmetic,
    /// Per-channel mean and standard deviation.
    pub normalization: Normalization,
    /// Turn the image as its EXIF orientation says before anything else; PIL-based loaders do not.
    #[serde(default)]
    pub apply_exif_orientation: bool,
    /// Bits in use of those a 16-bit file has; see [`DecodeOptions::bit_depth`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u8>,
    /// Cut out of the image before anything else of it is seen; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roi: Option<Roi>,
}

/// Backbone input: `[3, height, width]`, normalised, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[3, height, width]`
    pub data: Vec<f32>,
}

impl Preprocess {
    /// The default recipe: squash to `height`×`width`, bicubic, Pillow's arithmetic.
    pub fn squash(height: usize, width: usize, normalization: Normalization) -> Self {
        Self {
            size: (height, width),
            resize: Resize::Squash,
            filter: Filter::Bicubic,
            arithmetic: Arithmetic::Pillow,
            normalization,
            apply_exif_orientation: false,
            bit_depth: None,
            roi: None,
        }
    }

    /// Shorter side (of a square target) and centre crop, bicubic: timm's evaluation transform with `crop_pct` 1.
    pub fn centre_crop(height: usize, width: usize, normalization: Normalization) -> Self {
        Self {
            resize: Resize::CentreCrop,
            ..Self::squash(height, width, normalization)
        }
    }

    /// Squash, bilinear, torchvision's byte-tensor arithmetic: the transform of the DINOv3 README.
    pub fn tensor_u8(height: usize, width: usize, normalization: Normalization) -> Self {
        let filter = Filter::Bilinear;
        Self {
            filter,
            arithmetic: Arithmetic::TensorU8,
            ..Self::squash(height, width, normalization)
        }
    }

    /// Squash, bilinear, on floats: the Hugging Face processor.
    pub fn float(height: usize, width: usize, normalization: Normalization) -> Self {
        let filter = Filter::Bilinear;
        Self {
            filter,
            arithmetic: Arithmetic::Float,
            ..Self::squash(height, width, normalization)
        }
    }

    /// A short, stable text that two recipes share only if they give the same numbers.
    ///
    /// The number at the end rises when the implementation changes its results.
    pub fn id(&self) -> String {
        let resize = match self.resize {
            Resize::Squash => "squash",
            Resize::CentreCrop => "centre-crop",
        };
        let filter = match self.filter {
            Filter::Bicubic => "bicubic",
            Filter::Bilinear => "bilinear",
        };
        let arithmetic = match self.arithmetic {
            Arithmetic::Pillow => "pillow",
            Arithmetic::TensorU8 => "tensor-u8",
            Arithmetic::Float => "float",
        };
        let list = |v: [f32; 3]| v.map(|x| x.to_string()).join(",");
        let exif = if self.apply_exif_orientation {
            "-exif"
        } else {
            ""
        };
        let bits = self
            .bit_depth
            .map_or_else(String::new, |bits| format!("-bits{bits}"));
        let roi = self
            .roi
            .map_or_else(String::new, |roi| format!("-roi{}", roi.id()));
        format!(
            "{resize}-{filter}-{arithmetic}-{}x{}-mean{}-std{}{exif}{bits}{roi}-v1",
            self.size.0,
            self.size.1,
            list(self.normalization.mean),
            list(self.normalization.std)
        )
    }

    /// One line for a person: "squash to 224×224, bicubic (Pillow)".
    pub fn describe(&self) -> String {
        let (height, width) = self.size;
        let fit = match self.resize {
            Resize::Squash => format!("squash to {height}×{width}"),
            Resize::CentreCrop => format!("shorter side and centre crop to {height}×{width}"),
        };
        let filter = match self.filter {
            Filter::Bicubic => "bicubic",
            Filter::Bilinear => "bilinear",
        };
        let arithmetic = match self.arithmetic {
            Arithmetic::Pillow => "Pillow",
            Arithmetic::TensorU8 => "torchvision bytes",
            Arithmetic::Float => "float",
        };
        let exif = if self.apply_exif_orientation {
            ", turned by EXIF"
        } else {
            ""
        };
        let bits = self
            .bit_depth
            .map_or_else(String::new, |bits| format!(", {bits} of 16 bits"));
        let roi = self
            .roi
            .map_or_else(String::new, |roi| format!(", the region {roi}"));
        format!("{fit}, {filter} ({arithmetic}){exif}{bits}{roi}")
    }

    /// The bounds of [`DecodeOptions::default`] with this recipe's choice about EXIF.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            apply_exif_orientation: self.apply_exif_orientation,
            bit_depth: self.bit_depth,
            ..DecodeOptions::default()
        }
    }

    /// The part of an image of this size that is looked at; all of it where a region reaches beyond it, which [`Self::check_size`] refuses.
    pub fn part(&self, height: usize, width: usize) -> Part {
        self.roi
            .and_then(|roi| roi.within(height, width))
            .unwrap_or_else(|| Part::whole(height, width))
    }

    /// Whether a pixel of the [part](Self::part) that is looked at, of an image of `size` (height, width), is seen: no mask hides it.
    pub fn shows(&self, y: usize, x: usize, size: (usize, usize)) -> bool {
        match &self.roi {
            Some(Roi::Mask(mask)) => mask.holds(y, x, size),
            _ => true,
        }
    }

    /// The pixels of a `part` of an image of `size` (height, width) that a mask hides: positions in the part, row by row; none without
    /// a mask.
    pub fn hidden(&self, part: Part, size: (usize, usize)) -> Vec<usize> {
        let Some(Roi::Mask(mask)) = &self.roi else {
            return Vec::new();
        };
        let is_hidden = |at: &usize| {
            let (y, x) = (part.top + at / part.width, part.left + at % part.width);
            !mask.holds(y, x, size)
        };
        (0..part.height * part.width).filter(is_hidden).collect()
    }

    /// Refuses an image of `size` (height, width) that the region of interest reaches beyond.
    ///
    /// # Errors
    /// [`ImageError::Outside`].
    pub fn check_size(&self, path: &Path, size: (usize, usize)) -> Result<(), ImageError> {
        match self.roi {
            Some(roi) if roi.within(size.0, size.1).is_none() => Err(ImageError::Outside {
                path: path.to_owned(),
                roi: Box::new(roi),
                image: size,
            }),
            _ => Ok(()),
        }
    }

    /// The part of an image that is looked at, in pixels of its own; what a mask does not mark has the mean colour, which the backbone
    /// sees as 0.
    pub fn cut<'a>(&self, image: &'a RgbImage8) -> Cow<'a, RgbImage8> {
        let size = (image.height(), image.width());
        let part = self.part(size.0, size.1);
        let cut = if part == Part::whole(size.0, size.1) {
            Cow::Borrowed(image)
        } else {
            Cow::Owned(image.cropped(part.top, part.left, part.height, part.width))
        };
        let hidden = self.hidden(part, size);
        if hidden.is_empty() {
            return cut;
        }
        let plain = self.normalization.mean.map(|m| (255.0 * m).round() as u8);
        let mut pixels = cut.pixels().to_vec();
        for at in hidden {
            pixels[3 * at..][..3].copy_from_slice(&plain);
        }
        Cow::Owned(RgbImage8::from_pixels(part.height, part.width, pixels))
    }

    /// Share of what is looked at of an image of this size, as it is decoded, that a centre crop leaves out; 0 with squash.
    pub fn unseen(&self, height: usize, width: usize) -> f64 {
        if self.resize == Resize::Squash || height == 0 || width == 0 {
            return 0.0;
        }
        let Part { height, width, .. } = self.part(height, width);
        let (to_height, to_width) = (self.size.0 as f64, self.size.1 as f64);
        let scale = (to_height / height as f64).max(to_width / width as f64);
        let seen = to_height * to_width / (scale * height as f64 * scale * width as f64);
        (1.0 - seen).max(0.0)
    }

    /// Reads, decodes and prepares the image at `path`.
    ///
    /// # Errors
    /// An [`ImageError`] that names the file.
    pub fn load(&self, path: &Path) -> Result<Pixels, ImageError> {
        let options = self.decode_options();
        Ok(self.apply(&decode(&read_file(path, &options)?, path, &options)?))
    }

    /// Prepares a decoded image.
    pub fn apply(&self, image: &RgbImage8) -> Pixels {
        let (height, width) = self.size;
        let mut data = vec![0.0; 3 * height * width];
        self.apply_into(image, &mut data);
        Pixels {
            height,
            width,
            data,
        }
    }

    /// Prepares a decoded image into `out`, `[3, height, width]`.
    ///
    /// # Panics
    /// If `out` has another length than `3 · size.0 · size.1`, or the size is 0.
    pub fn apply_into(&self, image: &RgbImage8, out: &mut [f32]) {
        let (height, width) = self.size;
        assert_eq!(
            out.len(),
            3 * height * width,
            "the result is [3, height, width]"
        );
        if self.arithmetic == Arithmetic::Float {
            self.float_into(&self.cut(image), out);
        } else {
            self.normalized_into(&self.resized(image), out);
        }
    }

    /// The image at the wanted size, before normalisation, as bytes ([`Arithmetic::Float`] has no such stage; it
    /// is given Pillow's).
    pub fn resized(&self, image: &RgbImage8) -> RgbImage8 {
        let (height, width) = self.size;
        let image = &*self.cut(image);
        match self.resize {
            Resize::Squash => resize_u8(image, height, width, self.filter, self.arithmetic),
            Resize::CentreCrop => {
                let (full_height, full_width) = covering(image, height, width);
                let full = resize_u8(image, full_height, full_width, self.filter, self.arithmetic);
                full.cropped(
                    half_to_even(full_height - height),
                    half_to_even(full_width - width),
                    height,
                    width,
                )
            }
        }
    }

    /// `(value / 255 − mean) / std`, channel by channel, of an image that has the wanted size already.
    ///
    /// # Panics
    /// If `out` is not three times the number of pixels.
    pub fn normalized_into(&self, image: &RgbImage8, out: &mut [f32]) {
        let area = image.height() * image.width();
        assert_eq!(out.len(), 3 * area, "the result is [3, height, width]");
        for (channel, plane) in out.chunks_exact_mut(area).enumerate() {
            // a byte has 256 values: the table makes it one load, with the exact operations
            let table = self.normalization.table(channel);
            for (value, pixel) in plane.iter_mut().zip(image.pixels().chunks_exact(3)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }

    fn float_into(&self, image: &RgbImage8, out: &mut [f32]) {
        let (height, width) = self.size;
        let (full_height, full_width) = match self.resize {
            Resize::Squash => (height, width),
            Resize::CentreCrop => covering(image, height, width),
        };
        let full = resize_f32(image, full_height, full_width, self.filter);
        let (top, left) = (
            half_to_even(full_height - height),
            half_to_even(full_width - width),
        );
        let Normalization { mean, std } = self.normalization;
        let planes = full.chunks_exact(full_height * full_width);
        for (channel, (plane, out)) in planes.zip(out.chunks_exact_mut(height * width)).enumerate()
        {
            let rows = plane.chunks_exact(full_width).skip(top);
            for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                for (o, v) in out.iter_mut().zip(&row[left..]) {
                    *o = (v - mean[channel]) / std[channel];
                }
            }
        }
    }
}

/// The smallest size of the image's aspect that covers `height`×`width`; the longer side is rounded down as
/// torchvision does.
fn covering(image: &RgbImage8, height: usize, width: usize) -> (usize, usize) {
    let (h, w) = (image.height(), image.width());
    if h * width >= w * height {
        ((h * width / w).max(height), width)
    } else {
        (height, (w * height / h).max(width))
    }
}

/// Half of `n`, halves rounded to the even neighbour: Python's `round(n / 2)`.
fn half_to_even(n: usize) -> usize {
    let half = n / 2;
    half + usize::from(n % 2 == 1 && half % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_covering_size_keeps_the_aspect_and_never_falls_short() {
        let image = |h, w| RgbImage8::from_pixels(h, w, vec![0; h * w * 3]);
        assert_eq!(covering(&image(200, 300), 112, 112), (112, 168));
        assert_eq!(covering(&image(300, 200), 112, 112), (168, 112));
        assert_eq!(covering(&image(213, 320), 224, 224), (224, 336));
        assert_eq!(covering(&image(100, 100), 64, 96), (96, 96));
        assert_eq!(covering(&image(3, 1000), 224, 224), (224, 74_666));
    }

    #[test]
    fn halves_round_as_python_does() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 7].map(half_to_even),
            [0, 0, 1, 2, 2, 2, 3, 4]
        );
    }

    #[test]
    fn a_region_is_all_that_is_seen() {
        let image = |value: &dyn Fn(usize) -> u8| {
            let pixels = (0..8 * 12 * 3).map(|i| value(i / 3)).collect();
            RgbImage8::from_pixels(8, 12, pixels)
        };
        // rows 2 to 5 and columns 3 to 8 of 8 × 12
        let seen = |at: usize| (2..6).contains(&(at / 12)) && (3..9).contains(&(at % 12));
        let outside = image(&|at| if seen(at) { 90 } else { (at % 256) as u8 });
        let inside = RgbImage8::from_pixels(4, 6, vec![90; 4 * 6 * 3]);
        for base in [
            Preprocess::squash(4, 4, Normalization::IMAGENET),
            Preprocess::centre_crop(4, 4, Normalization::IMAGENET),
            Preprocess::float(4, 4, Normalization::IMAGENET),
        ] {
            for roi in ["3,2,6,4", "25%,25%,50%,50%"] {
                let roi = Some(roi.parse().unwrap());
                let cut = Preprocess { roi, ..base };
                assert_eq!(cut.apply(&outside), base.apply(&inside), "{}", cut.id());
                assert_eq!(cut.unseen(8, 12), base.unseen(4, 6));
            }
        }
        // a mask over the same pixels, of which one is hidden: nothing of it is seen
        let marked = |at: usize| if seen(at) && at != 29 { 255 } else { 0 };
        let mask = RoiMask::of(&image(&marked)).map(Roi::Mask);
        let base = Preprocess::squash(4, 6, Normalization::IMAGENET);
        let masked = Preprocess { roi: mask, ..base };
        let changed = image(&|at| if marked(at) > 0 { 90 } else { 7 });
        assert_eq!(masked.apply(&outside), masked.apply(&changed));
        assert_eq!(
            (masked.part(8, 12).height, masked.part(8, 12).width),
            (4, 6)
        );
        let values = masked.apply(&outside).data;
        let of_rest = Normalization::IMAGENET.table(0)[90];
        let hidden = values[..24]
            .iter()
            .enumerate()
            .filter(|(_, v)| **v != of_rest);
        let hidden: Vec<(usize, f32)> = hidden.map(|(i, v)| (i, *v)).collect();
        assert!(
            hidden.len() == 1 && hidden[0].0 == 2 && hidden[0].1.abs() < 0.01,
            "{hidden:?}"
        );
        let beyond = Preprocess {
            roi: "3,2,6,7".parse().ok(),
            ..Preprocess::squash(4, 4, Normalization::IMAGENET)
        };
        let error = beyond.check_size(Path::new("a.png"), (8, 12)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("12×8") && text.contains("hint:"), "{text}");
        assert!(beyond.check_size(Path::new("a.png"), (9, 12)).is_ok());
    }

    #[test]
    fn ids_are_stable_and_tell_recipes_apart() {
        let base = Preprocess::squash(224, 224, Normalization::IMAGENET);
        assert_eq!(
            base.id(),
            "squash-bicubic-pillow-224x224-mean0.485,0.456,0.406-std0.229,0.224,0.225-v1"
        );
        let others = [
            Preprocess::centre_crop(224, 224, Normalization::IMAGENET),
            Preprocess::tensor_u8(224, 224, Normalization::IMAGENET),
            Preprocess::float(224, 224, Normalization::IMAGENET),
            Preprocess::squash(224, 448, Normalization::IMAGENET),
            Preprocess::squash(224, 224, Normalization::SAT493M),
            Preprocess {
                apply_exif_orientation: true,
                ..base
            },
            Preprocess {
                bit_depth: Some(12),
                ..base
            },
            Preprocess {
                filter: Filter::Bilinear,
                ..base
            },
            Preprocess {
                roi: "0,0,50%,50%".parse().ok(),
                ..base
            },
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(other.id(), base.id());
            assert!(
                others[..i].iter().all(|o| o.id() != other.id()),
                "{}",
                other.id()
            );
            let json = serde_json::to_string(other).unwrap();
            assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), *other);
        }
    }
}
