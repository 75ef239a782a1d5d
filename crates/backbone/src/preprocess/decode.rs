//! From the bytes of a file to 8-bit RGB pixels, within bounds.
//!
//! The format is told by the content, never by the file's name. What each kind of pixel becomes:
//!
//! | stored | becomes |
//! |---|---|
//! | grey | the value in all three channels |
//! | palette | looked up |
//! | alpha | dropped, not blended |
//! | 16 bits a channel | `(v + 128) / 257`, rounded (Pillow clips such grey images at 255, which turns them white) |
//! | the same, of which only N bits are used ([`DecodeOptions::bit_depth`]) | `v · 255 / (2^N − 1)`, rounded, at most 255 |
//! | CMYK and YCCK JPEG | RGB, by Pillow's formula |
//! | 32-bit float | refused: its range is not known |
//!
//! JPEG is decoded to the same bits as by libjpeg-turbo, which Pillow uses. Palette TIFF is refused by the decoder.
//!
//! ICC profiles and gamma are not applied, as in PIL-based loaders. Neither is the EXIF orientation, unless asked
//! for ([`DecodeOptions::apply_exif_orientation`]). Of several pages or frames the first is read.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use image::error::{ImageFormatHint, UnsupportedError, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits,
    RgbImage,
};

use super::depth;
use super::facts::{foreign, format_of, is_wide};
use super::image::RgbImage8;
use super::jpeg;
use super::roi::Roi;
use super::tiff_jpeg::Inside;

pub(super) const FORMATS: [ImageFormat; 7] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Pnm,
];

/// Memory that reading a header may take besides a few times the file's own size.
pub(super) const HEADER_BYTES: u64 = 1 << 26;

/// Why an image could not be read; every message starts with the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file is missing or cannot be opened or read.
    #[error("{}: cannot read the file: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty (0 bytes)\nhint: copy it again or remove it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The content is none of the formats read here.
    #[error(
        "{}: not an image: the content is neither PNG, JPEG, BMP, TIFF, WebP, GIF nor PNM, whatever the name says",
        path.display()
    )]
    NotAnImage {
        /// The file.
        path: PathBuf,
    },
    /// More bytes than any image within the limit needs.
    #[error("{}: the file has {bytes} bytes, more than the limit of {limit}", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The header announces more pixels than the limit; nothing was allocated.
    #[error(
        "{}: {width}x{height} pixels are more than the limit of {limit} pixels\n\
         hint: `max_megapixels` raises the limit, where there is memory for it; or cut the image into several",
        path.display()
    )]
    TooManyPixels {
        /// The file.
        path: PathBuf,
        /// Columns in the header.
        width: u32,
        /// Rows in the header.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// A header or the pixel data are damaged or cut short.
    #[error("{}: damaged or cut short: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        message: String,
    },
    /// A mask lies across its image.
    #[error(
        "{}: the mask has {}x{} pixels and its image {}x{}: one lies across the other\n\
         hint: save the mask as the image is stored",
        path.display(), mask.1, mask.0, image.1, image.0
    )]
    Across {
        /// The mask.
        path: PathBuf,
        /// Its rows and columns.
        mask: (usize, usize),
        /// Those of the image.
        image: (usize, usize),
    },
    /// The region of interest reaches beyond the image.
    #[error(
        "{}: the region {roi} (left, top, width, height) reaches beyond the image, which has {}×{} pixels\n\
         hint: `roi` names the part of every image that is looked at, in pixels or in percent such as 10%,10%,80%,80%, or a mask",
        path.display(), image.1, image.0
    )]
    Outside {
        /// The image.
        path: PathBuf,
        /// The region.
        roi: Box<Roi>,
        /// Rows and columns of the image.
        image: (usize, usize),
    },
    /// A mask of what to look at is black.
    #[error(
        "{}: marks nothing to look at\nhint: a mask for `roi` is white where to look and black elsewhere",
        path.display()
    )]
    MarksNothing {
        /// The mask.
        path: PathBuf,
    },
    /// A valid file of a kind that is not read.
    #[error("{}: {what} is not supported\nhint: save the image as 8- or 16-bit PNG", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported feature.
        what: String,
    },
}

impl ImageError {
    /// The file it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::NotAnImage { path }
            | Self::FileTooLarge { path, .. }
            | Self::TooManyPixels { path, .. }
            | Self::Damaged { path, .. }
            | Self::Across { path, .. }
            | Self::Outside { path, .. }
            | Self::MarksNothing { path }
            | Self::Unsupported { path, .. } => path,
        }
    }
}

/// Bounds of decoding and the one choice it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels an image may have (default [`MAX_PIXELS`], or what [`limit_pixels`] set).
    pub max_pixels: u64,
    /// Most bytes a file may have (default 4 GiB).
    pub max_file_bytes: u64,
    /// Turn and mirror the image as its EXIF orientation says. Off by default: PIL-based loaders ignore it, and
    /// so did the training of published results.
    pub apply_exif_orientation: bool,
    /// Bits in use of those a 16-bit file has, 8 to 16: a camera of 12 bits may leave the upper four at 0. `None` takes
    /// all 16 to be in use.
    pub bit_depth: Option<u8>,
}

/// Most pixels an image may have where nothing else is said: 16,384×16,384.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The default of [`DecodeOptions::max_pixels`] in this process.
static LIMIT: AtomicU64 = AtomicU64::new(MAX_PIXELS);

/// Sets the default of [`DecodeOptions::max_pixels`] for all that this process decodes from now on. The limit guards the
/// machine's memory, and no result depends on it, so it is the program's to say, not that of each job.
pub fn limit_pixels(most: u64) {
    LIMIT.store(most, Ordering::Relaxed);
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            max_pixels: LIMIT.load(Ordering::Relaxed),
            max_file_bytes: 1 << 32,
            apply_exif_orientation: false,
            bit_depth: None,
        }
    }
}

/// What was seen of an image while it was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Its EXIF orientation, 1 (as stored) to 8, whether or not it was applied.
    pub orientation: u8,
    /// The largest value in an image of 16 bits a channel; none of one of 8 bits.
    pub largest: Option<u16>,
    /// Bits that the file says its 16-bit values have: sBIT of a PNG, `MaxSampleValue` of a TIFF.
    pub said: Option<u8>,
}

impl Looked {
    /// Bits that the values take, where they take fewer than the file has and detail is lost by that: a value of more than
    /// a quarter of the range shows that the range is in use.
    pub fn narrow(&self) -> Option<u8> {
        narrow(self.largest?, self.said)
    }
}

/// As [`Looked::narrow`], of the largest value of several images, and of the bits that they say to have.
///
/// What a file says counts only where its values keep to it: writers that follow the standard of PNG spread their values over
/// all 16 bits, and say by sBIT how many were measured.
pub fn narrow(largest: u16, said: Option<u8>) -> Option<u8> {
    let bits = (u16::BITS - largest.leading_zeros()) as u8;
    if largest == 0 {
        return None;
    }
    match said.filter(|said| (bits..16).contains(said)) {
        Some(said) => Some(said.max(8)),
        // cameras have even numbers of bits
        None if bits <= 14 => Some((bits + bits % 2).max(8)),
        None => None,
    }
}

/// Reads a whole file within [`DecodeOptions::max_file_bytes`].
///
/// # Errors
/// [`ImageError::Read`], [`ImageError::Empty`] or [`ImageError::FileTooLarge`].
pub fn read_file(path: &Path, options: &DecodeOptions) -> Result<Vec<u8>, ImageError> {
    let failed = |source| ImageError::Read {
        path: path.to_path_buf(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    if metadata.len() > options.max_file_bytes {
        let (bytes, limit) = (metadata.len(), options.max_file_bytes);
        return Err(ImageError::FileTooLarge {
            path: path.to_path_buf(),
            bytes,
            limit,
        });
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    if bytes.is_empty() {
        return Err(ImageError::Empty {
            path: path.to_path_buf(),
        });
    }
    Ok(bytes)
}

/// Decodes the bytes of an image; `path` only appears in errors.
///
/// Memory is bounded by [`DecodeOptions::max_pixels`]: a header that announces more is refused before its pixels
/// are allocated.
///
/// # Errors
/// Every [`ImageError`] but `Read` and `FileTooLarge`.
pub fn decode(bytes: &[u8], path: &Path, options: &DecodeOptions) -> Result<RgbImage8, ImageError> {
    decode_looked(bytes, path, options).map(|(image, _)| image)
}

/// As [`decode`], and says what was seen on the way.
///
/// # Errors
/// As [`decode`].
pub fn decode_looked(
    bytes: &[u8],
    path: &Path,
    options: &DecodeOptions,
) -> Result<(RgbImage8, Looked), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty {
            path: path.to_path_buf(),
        });
    }
    let failed = |error| from_decoder(error, path);
    if let Some(what) = foreign(bytes) {
        return Err(ImageError::Unsupported {
            path: path.to_path_buf(),
            what: what.to_owned(),
        });
    }
    let Some(format) = format_of(bytes) else {
        return Err(ImageError::NotAnImage {
            path: path.to_path_buf(),
        });
    };
    if format == ImageFormat::Tiff
        && let Some(inside) = Inside::of(bytes)
    {
        return decode_inside(&inside, bytes, path, options);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // until the size is known: room for metadata, however well it is compressed
    reader.limits(at_most(HEADER_BYTES.saturating_add(4 * bytes.len() as u64)));
    let mut decoder = reader.into_decoder().map_err(failed)?;

    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        let message = format!("the header says {width}x{height} pixels");
        return Err(ImageError::Damaged {
            path: path.to_path_buf(),
            message,
        });
    }
    check_pixels(width, height, path, options)?;
    // the widest pixel is four 16-bit channels; decoders keep a second copy or tables beside the result
    let pixels = u64::from(width) * u64::from(height);
    decoder
        .set_limits(at_most(HEADER_BYTES.saturating_add(16 * pixels)))
        .map_err(failed)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let Ok(total) = usize::try_from(decoder.total_bytes()) else {
        let limit = options.max_pixels;
        return Err(ImageError::TooManyPixels {
            path: path.to_path_buf(),
            width,
            height,
            limit,
        });
    };
    let (color, raw) = if format == ImageFormat::Jpeg {
        let pixels = jpeg::decode(bytes).map_err(|message| ImageError::Damaged {
            path: path.to_path_buf(),
            message,
        })?;
        if pixels.len() as u64 != 3 * u64::from(width) * u64::from(height) {
            let message = "its headers contradict each other".to_owned();
            return Err(ImageError::Damaged {
                path: path.to_path_buf(),
                message,
            });
        }
        (ColorType::Rgb8, pixels)
    } else {
        let mut raw = vec![0; total];
        decoder.read_image(&mut raw).map_err(failed)?;
        (color, raw)
    };
    let looked = Looked {
        orientation: orientation.to_exif(),
        largest: is_wide(color).then(|| largest(color, &raw)),
        said: depth::said(bytes, format).filter(|_| is_wide(color)),
    };
    let Some(pixels) = to_rgb8(color, raw, options.bit_depth) else {
        let what = format!("pixel type {color:?}");
        return Err(ImageError::Unsupported {
            path: path.to_path_buf(),
            what,
        });
    };
    Ok((upright(width, height, pixels, orientation, options), looked))
}

/// Refuses a header that announces more pixels than may be.
fn check_pixels(
    width: u32,
    height: u32,
    path: &Path,
    options: &DecodeOptions,
) -> Result<(), ImageError> {
    let limit = options.max_pixels;
    if u64::from(width) * u64::from(height) > limit {
        return Err(ImageError::TooManyPixels {
            path: path.to_path_buf(),
            width,
            height,
            limit,
        });
    }
    Ok(())
}

/// Decodes a TIFF with JPEG inside.
fn decode_inside(
    inside: &Inside,
    bytes: &[u8],
    path: &Path,
    options: &DecodeOptions,
) -> Result<(RgbImage8, Looked), ImageError> {
    check_pixels(inside.width, inside.height, path, options)?;
    let pixels = inside
        .pixels(bytes)
        .map_err(|message| ImageError::Damaged {
            path: path.to_path_buf(),
            message,
        })?;
    let looked = Looked {
        orientation: inside.orientation.to_exif(),
        largest: None,
        said: None,
    };
    let (width, height) = (inside.width, inside.height);
    let image = upright(width, height, pixels, inside.orientation, options);
    Ok((image, looked))
}

/// The image of RGB pixels, turned by its orientation where that is asked for.
fn upright(
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    orientation: Orientation,
    options: &DecodeOptions,
) -> RgbImage8 {
    let applied = if options.apply_exif_orientation {
        orientation
    } else {
        Orientation::NoTransforms
    };
    oriented(width, height, pixels, applied)
}

/// The largest value of a 16-bit image, alpha left out.
fn largest(color: ColorType, raw: &[u8]) -> u16 {
    let channels = usize::from(color.channel_count());
    let keep = channels - usize::from(color.has_alpha());
    let values = raw
        .chunks_exact(2 * channels)
        .flat_map(|pixel| pixel[..2 * keep].chunks_exact(2));
    values
        .map(|b| u16::from_ne_bytes([b[0], b[1]]))
        .max()
        .unwrap_or(0)
}

pub(super) fn at_most(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

/// What a decoder does not read.
fn unsupported(error: &UnsupportedError) -> String {
    let format = match error.format_hint() {
        ImageFormatHint::Exact(format) => format!("{} with ", format!("{format:?}").to_uppercase()),
        _ => String::new(),
    };
    match error.kind() {
        // colours of TIFF that its reader has no name for: YCbCr, mostly of a JPEG inside
        UnsupportedErrorKind::Color(ExtendedColorType::Unknown(bits)) => {
            format!("{format}colours other than grey, RGB and CMYK ({bits} bits a pixel)")
        }
        UnsupportedErrorKind::Color(color) => format!("{format}pixel type {color:?}"),
        UnsupportedErrorKind::GenericFeature(feature) => {
            // decoders say of some features that they are not supported, and so does the message
            let feature = feature
                .trim_end_matches(" is unsupported")
                .trim_end_matches(" is not supported");
            format!("{format}{feature}")
        }
        _ => error.to_string(),
    }
}

fn from_decoder(error: image::ImageError, path: &Path) -> ImageError {
    let path = path.to_path_buf();
    match error {
        image::ImageError::Unsupported(e) => ImageError::Unsupported {
            path,
            what: unsupported(&e),
        },
        image::ImageError::Limits(_) => {
            let message =
                "decoding takes more memory than an image of its size may need".to_string();
            ImageError::Damaged { path, message }
        }
        e => ImageError::Damaged {
            path,
            message: e.to_string(),
        },
    }
}

/// The first `keep` of every `channels` values, repeated to three channels; `keep` is 1 or 3.
fn rgb_of<T: Copy>(values: &[T], channels: usize, keep: usize, byte: impl Fn(T) -> u8) -> Vec<u8> {
    let mut out = vec![0; values.len() / channels * 3];
    for (out, pixel) in out.chunks_exact_mut(3).zip(values.chunks_exact(channels)) {
        for (channel, value) in out.iter_mut().enumerate() {
            *value = byte(pixel[channel.min(keep - 1)]);
        }
    }
    out
}

fn to_rgb8(color: ColorType, raw: Vec<u8>, bit_depth: Option<u8>) -> Option<Vec<u8>> {
    let most = (1_u32 << bit_depth.unwrap_or(16).clamp(8, 16)) - 1;
    let wide = |channels, keep| {
        let values: Vec<u16> = raw
            .chunks_exact(2)
            .map(|b| u16::from_ne_bytes([b[0], b[1]]))
            .collect();
        rgb_of(&values, channels, keep, |v| match bit_depth {
            None => ((u32::from(v) + 128) / 257) as u8,
            Some(_) => ((u32::from(v) * 255 + most / 2) / most).min(255) as u8,
        })
    };
    Some(match color {
        ColorType::Rgb8 => raw,
        ColorType::L8 => rgb_of(&raw, 1, 1, |v| v),
        ColorType::La8 => rgb_of(&raw, 2, 1, |v| v),
        ColorType::Rgba8 => rgb_of(&raw, 4, 3, |v| v),
        ColorType::L16 => wide(1, 1),
        ColorType::La16 => wide(2, 1),
        ColorType::Rgb16 => wide(3, 3),
        ColorType::Rgba16 => wide(4, 3),
        _ => return None,
    })
}

/// An image turned and mirrored as an EXIF orientation from 1 to 8 says.
pub fn turned(image: RgbImage8, orientation: u8) -> RgbImage8 {
    let orientation = Orientation::from_exif(orientation).unwrap_or(Orientation::NoTransforms);
    if orientation == Orientation::NoTransforms {
        return image;
    }
    let (width, height) = (image.width() as u32, image.height() as u32);
    oriented(width, height, image.pixels().to_vec(), orientation)
}

fn oriented(width: u32, height: u32, pixels: Vec<u8>, orientation: Orientation) -> RgbImage8 {
    if orientation == Orientation::NoTransforms {
        return RgbImage8::from_pixels(height as usize, width as usize, pixels);
    }
    let image = RgbImage::from_raw(width, height, pixels).unwrap_or_default();
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    RgbImage8::from_pixels(height, width, image.into_rgb8().into_raw())
}
