//! What a file says about its image before a pixel is decoded.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder as _, ImageFormat, ImageReader};

use super::decode::{FORMATS, HEADER_BYTES, at_most};
use super::tiff_jpeg::Inside;

/// Bytes from the start of a file that [`kind`] wants to see.
pub const KIND_BYTES: usize = 64;

/// What the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image of a format that is read here.
    Readable,
    /// An image of another format, by its name.
    Foreign(&'static str),
    /// Nothing that is known as an image.
    Unknown,
}

/// What the content is, from the first [`KIND_BYTES`] of it.
pub fn kind(start: &[u8]) -> Kind {
    match (foreign(start), format_of(start)) {
        (Some(name), _) => Kind::Foreign(name),
        (None, Some(_)) => Kind::Readable,
        (None, None) => Kind::Unknown,
    }
}

/// The format of these bytes, where it is read here.
pub(super) fn format_of(start: &[u8]) -> Option<ImageFormat> {
    // the reader of TIFF also reads offsets of 64 bits, but is not known by them
    if start.starts_with(b"II\x2b\0") || start.starts_with(b"MM\0\x2b") {
        return Some(ImageFormat::Tiff);
    }
    let format = image::guess_format(start).ok()?;
    let known = FORMATS.contains(&format) && (format != ImageFormat::Pnm || netpbm(start));
    known.then_some(format)
}

/// The name of an image format that is not read here.
pub(super) fn foreign(start: &[u8]) -> Option<&'static str> {
    let starts = |with: &[u8]| start.starts_with(with);
    let brand = start
        .get(8..12)
        .filter(|_| start.get(4..8) == Some(b"ftyp"));
    Some(match brand.map(|b| &b[..4]) {
        Some(b"avif" | b"avis") => "AVIF",
        Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => "HEIC",
        _ if starts(b"\0\0\0\x0cjP  \r\n\x87\n") || starts(b"\xff\x4f\xff\x51") => "JPEG 2000",
        _ if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL \r\n\x87\n") => "JPEG XL",
        _ if starts(b"#?RADIANCE") || starts(b"#?RGBE") => "Radiance HDR",
        _ if starts(b"\x76\x2f\x31\x01") => "OpenEXR",
        _ if starts(b"8BPS") => "Photoshop (PSD)",
        _ if starts(b"qoif") => "QOI",
        _ if starts(b"II\xbc\x01") => "JPEG XR",
        _ if starts(b"SIMPLE  =") => "FITS",
        _ => return None,
    })
}

fn netpbm(start: &[u8]) -> bool {
    matches!(start, [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace())
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Rows as they are stored.
    pub height: usize,
    /// Columns as they are stored.
    pub width: usize,
    /// EXIF orientation, 1 (as stored) to 8.
    pub orientation: u8,
    /// More than 8 bits a channel.
    pub wide: bool,
    /// Stored with loss, so that pixels of one value come back as several.
    pub jpeg: bool,
}

impl Facts {
    /// Height and width of the image as it is decoded, `turned` by its orientation or not.
    pub fn size(&self, turned: bool) -> (usize, usize) {
        if turned && self.lies() {
            (self.width, self.height)
        } else {
            (self.height, self.width)
        }
    }

    /// Whether orientation swaps rows and columns.
    pub fn lies(&self) -> bool {
        self.orientation >= 5
    }
}

/// What the header of an image says; none where it cannot be read.
pub fn facts(bytes: &[u8]) -> Option<Facts> {
    let format = format_of(bytes)?;
    if format == ImageFormat::Tiff
        && let Some(inside) = Inside::of(bytes)
    {
        return Some(Facts {
            height: inside.height as usize,
            width: inside.width as usize,
            orientation: inside.orientation.to_exif(),
            wide: false,
            jpeg: true,
        });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(at_most(HEADER_BYTES.saturating_add(4 * bytes.len() as u64)));
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Some(Facts {
        height: height as usize,
        width: width as usize,
        orientation: orientation.to_exif(),
        wide: is_wide(decoder.color_type()),
        jpeg: format == ImageFormat::Jpeg,
    })
}

/// As [`facts`], of a file; none where it cannot be read either.
pub fn facts_of(path: &Path) -> Option<Facts> {
    facts(&std::fs::read(path).ok()?)
}

pub(super) fn is_wide(color: ColorType) -> bool {
    matches!(
        color,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_kind() {
        for (start, wanted) in [
            (&b"\x89PNG\r\n\x1a\n"[..], Kind::Readable),
            (b"\xff\xd8\xff\xe0", Kind::Readable),
            (b"BM\0\0", Kind::Readable),
            (b"GIF89a", Kind::Readable),
            (b"\0\0\0\x1cftypavif", Kind::Foreign("AVIF")),
            (b"\0\0\0\x18ftypheic", Kind::Foreign("HEIC")),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Kind::Foreign("JPEG 2000")),
            (b"P5\n64 64\n255\n", Kind::Readable),
            (b"II\x2b\0", Kind::Readable),
            (b"P5x", Kind::Unknown),
            (b"# a note", Kind::Unknown),
            (b"", Kind::Unknown),
        ] {
            assert_eq!(kind(start), wanted, "{start:?}");
        }
    }
}
