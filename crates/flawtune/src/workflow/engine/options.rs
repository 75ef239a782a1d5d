//! Which backbone, and how images get into it.

use std::path::PathBuf;

use flawtune_backbone::config::VitConfig;
use flawtune_backbone::models;
use flawtune_backbone::preprocess::{Filter, Resize, Roi};
use flawtune_backbone::vit::{Combine, Precision};
use serde::{Deserialize, Serialize};

use super::super::WorkflowError;
use super::super::tiles::TileOptions;
use crate::image_size::ImageSize;
#[cfg(feature = "clap")]
use crate::values::count;

/// How an image is given the backbone's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ResizeChoice {
    /// Shorter side to the size, the longer in the aspect that most good images have (fit, features)
    ///
    /// Chosen once, by `fit` and for the images of `features`: then [`BackboneOptions::image_size`] is what it came to, and images
    /// are squashed to that.
    Keep,
    /// Both sides to the size; the aspect is not kept
    Squash,
    /// Resized until the size is covered, then its centre; the rest is not seen
    CentreCrop,
}

impl ResizeChoice {
    /// What is done with an image once its size is known.
    pub(super) fn fitting(self) -> Resize {
        match self {
            Self::Keep | Self::Squash => Resize::Squash,
            Self::CentreCrop => Resize::CentreCrop,
        }
    }
}

/// Which backbone, and how images get into it. Saved in every checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackboneOptions {
    /// Name of the backbone; `None` with a weight file: told from the file.
    pub model_name: Option<String>,
    /// Weight file or folder; `None`: found or fetched by name.
    pub weights: Option<PathBuf>,
    /// The size that images are resized to.
    pub image_size: ImageSize,
    /// Smaller sizes that a detector looks at besides, such as 224 beside 448.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_sizes: Vec<ImageSize>,
    /// How they are given that size.
    pub resize: ResizeChoice,
    /// Width to height of most of the good images, where the aspect is kept: the sizes are of that shape. `None`: not kept, or not
    /// chosen yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aspect: Option<f64>,
    /// The part of every image that is looked at; `None`: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roi: Option<Roi>,
    /// Resampling filter.
    pub filter: Filter,
    /// Blocks whose normed tokens are the features; negative counts from the end.
    pub layers: Vec<i32>,
    /// How several layers are joined.
    pub combine_layers: Combine,
    /// Turn images by their EXIF orientation.
    pub exif_orientation: bool,
    /// Bits in use of those 16-bit files have; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u8>,
    /// Round rotary periods to bfloat16.
    pub round_rope_periods: bool,
    /// How the backbone's weights are kept and multiplied.
    #[serde(with = "precision_name")]
    pub precision: Precision,
    /// Cut images into tiles and join their tokens; `None`: images go through whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<TileOptions>,
}

/// A precision by its name.
mod precision_name {
    use flawtune_backbone::vit::Precision;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(
        precision: &Precision,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(precision.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Precision, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The block at three quarters of the depth, counted from 0: 8 of 0–11; of the demonstration backbone the last one, which
/// has learned to be that block of its teacher.
///
/// Chosen without a test image: left-out normals of train/good against pools of 20 defects (5 seeds), area under the
/// ROC curve of the patch bank by block, on three categories; `docs/evidence/results.md` has the numbers.
pub fn default_layers(name: &str, depth: usize) -> Vec<i32> {
    if name == models::DEMO {
        return vec![i32::try_from(depth.saturating_sub(1)).unwrap_or(-1)];
    }
    vec![i32::try_from((depth * 3 / 4).saturating_sub(1)).unwrap_or(-1)]
}

impl Default for BackboneOptions {
    fn default() -> Self {
        Self {
            model_name: None,
            weights: None,
            image_size: ImageSize::square(224),
            more_sizes: Vec::new(),
            resize: ResizeChoice::Squash,
            aspect: None,
            roi: None,
            filter: Filter::Bicubic,
            layers: vec![-1],
            combine_layers: Combine::Mean,
            exif_orientation: false,
            bit_depth: None,
            round_rope_periods: false,
            precision: Precision::F32,
            tiles: None,
        }
    }
}

/// The recipe's backbone, used where neither a name nor a file is given.
pub(super) const DEFAULT_MODEL: &str = "dinov3_vits16";

/// What a user set explicitly; the rest comes from a checkpoint or from the defaults.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
// backticks would stand in what a terminal shows
#[allow(clippy::doc_markdown)]
pub struct BackboneOverrides {
    /// Backbone: a name of `flawtune models` or a hub id [default: dinov3_vits16]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub model_name: Option<String>,
    /// Weight file (.safetensors, sharded index, .pth) or folder; nothing is downloaded
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH"))]
    pub weights: Option<PathBuf>,
    /// Size that images are resized to, in pixels: the side of a square, or WxH such as 448x224; fit can look at several, such as
    /// 448,224 [default: 224]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PIXELS", value_delimiter = ',')
    )]
    pub image_size: Vec<ImageSize>,
    /// How images become that size [default: squash]
    #[cfg_attr(feature = "clap", arg(long, value_name = "HOW"))]
    pub resize: Option<ResizeChoice>,
    /// The part of every image that is looked at; `None`: what it is without this option.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub roi: Option<Roi>,
    /// Resampling filter [default: bicubic]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILTER"))]
    pub filter: Option<Filter>,
    /// Blocks whose normed tokens are the features, from 0; negative counts from the end [default: -1]
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "LIST",
            value_delimiter = ',',
            allow_hyphen_values = true
        )
    )]
    pub layers: Option<Vec<i32>>,
    /// How tokens of several layers are joined [default: mean]
    #[cfg_attr(feature = "clap", arg(long, value_name = "HOW"))]
    pub combine_layers: Option<Combine>,
    /// Turn images by their EXIF orientation (loaders of the original recipe do not)
    #[cfg_attr(feature = "clap", arg(long))]
    pub exif_orientation: bool,
    /// Bits that 16-bit files really use, 8 to 16: 12 for a 12-bit camera that leaves the upper four at 0 [default: 16]
    #[cfg_attr(feature = "clap", arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(8..=16)))]
    pub bit_depth: Option<u8>,
    /// Round rotary periods to bfloat16, as the official code does after loading its own file
    #[cfg_attr(feature = "clap", arg(long))]
    pub round_rope_periods: bool,
    /// How the backbone's weights are kept and multiplied [default: f32]
    #[cfg_attr(feature = "clap", arg(long, value_name = "PRECISION"))]
    pub precision: Option<Precision>,
    /// Cut resized images into tiles of this side, in pixels, and join their tokens: for large --image-size
    #[cfg_attr(feature = "clap", arg(long, value_name = "PIXELS", value_parser = count(1..=8192)))]
    pub tile_size: Option<usize>,
    /// Pixels that neighbouring tiles have in common at least [default: a quarter of --tile-size]
    #[cfg_attr(feature = "clap", arg(long, value_name = "PIXELS", value_parser = count(..=8192)))]
    pub tile_overlap: Option<usize>,
}

impl BackboneOverrides {
    /// These options over `base`.
    pub fn over(&self, base: BackboneOptions) -> BackboneOptions {
        let mut sizes = self.image_size.clone();
        sizes.sort_unstable_by(ImageSize::larger_first);
        let (image_size, more_sizes) = match sizes.split_first() {
            Some((largest, others)) => (*largest, others.to_vec()),
            None => (base.image_size, base.more_sizes),
        };
        BackboneOptions {
            model_name: self.model_name.clone().or(base.model_name),
            weights: self.weights.clone().or(base.weights),
            image_size,
            more_sizes,
            resize: self.resize.unwrap_or(base.resize),
            aspect: base.aspect,
            roi: self.roi.or(base.roi),
            filter: self.filter.unwrap_or(base.filter),
            layers: self.layers.clone().unwrap_or(base.layers),
            combine_layers: self.combine_layers.unwrap_or(base.combine_layers),
            exif_orientation: self.exif_orientation || base.exif_orientation,
            bit_depth: self.bit_depth.or(base.bit_depth),
            round_rope_periods: self.round_rope_periods || base.round_rope_periods,
            precision: self.precision.unwrap_or(base.precision),
            tiles: TileOptions::over(base.tiles, self.tile_size, self.tile_overlap),
        }
    }
}

/// Every size shows a patch at least, and each is looked at once.
pub(super) fn check_sizes(
    options: &BackboneOptions,
    config: &VitConfig,
) -> Result<(), WorkflowError> {
    let mut sizes = vec![options.image_size];
    for &size in &options.more_sizes {
        if sizes.contains(&size) {
            return Err(WorkflowError::Input(format!(
                "`image_size` {size} is named twice\nhint: name each size once"
            )));
        }
        sizes.push(size);
    }
    if !sizes.is_sorted_by(|a, b| ImageSize::larger_first(a, b).is_le()) {
        return Err(WorkflowError::Input(format!(
            "the image sizes {} do not begin with the largest",
            ImageSize::join(&sizes, ", ")
        )));
    }
    if sizes.len() > 1 && options.tiles.is_some() {
        return Err(WorkflowError::Input(
            "images of several sizes are not cut into tiles\nhint: name one image size, or leave out the tiles".into(),
        ));
    }
    check_patches(&sizes, config)?;
    match sizes.iter().find(|s| s.shorter() < config.patch_size) {
        Some(size) => Err(WorkflowError::Input(format!(
            "`image_size` {size} is smaller than one patch of {} ({} pixels)",
            config.name, config.patch_size
        ))),
        None => Ok(()),
    }
}

/// A size with two sides is in whole patches; of a square whose side is not, the rest is not seen, and that is said.
fn check_patches(sizes: &[ImageSize], config: &VitConfig) -> Result<(), WorkflowError> {
    let patch = config.patch_size;
    let ragged = |size: &&ImageSize| {
        !size.is_square() && [size.height, size.width].iter().any(|s| s % patch > 0)
    };
    let Some(size) = sizes.iter().find(ragged) else {
        return Ok(());
    };
    let near = |side: usize| ((side + patch / 2) / patch).max(1) * patch;
    let nearest = ImageSize {
        height: near(size.height),
        width: near(size.width),
    };
    Err(WorkflowError::Input(format!(
        "`image_size` {size}: both sides are multiples of the patch size of {}, {patch}\nhint: take {nearest}",
        config.name
    )))
}
