//! TIFF with JPEG inside, in YCbCr, as cameras and scanners write it. The reader of TIFF decodes other colours only; the strips of
//! such a file are JPEG streams that share their tables, and are decoded as any JPEG.

use std::io::Cursor;
use std::ops::Range;

use image::ImageDecoder as _;
use image::codecs::jpeg::JpegDecoder;
use image::metadata::Orientation;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use super::jpeg;

/// Values of the tags that such a file has.
const JPEG: u32 = 7;
const YCBCR: u32 = 6;
/// Bytes of the marker at either end of a stream.
const MARKER: usize = 2;

/// The image of such a file.
pub(super) struct Inside {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// Places of the streams in the file, from the top.
    strips: Vec<Range<usize>>,
    /// Rows of each, but of the last.
    rows: u32,
    /// A stream of the tables that the strips share; empty where each has its own.
    tables: Vec<u8>,
}

impl Inside {
    /// The first image of a file, if it is in strips of that kind.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut file = Decoder::new(Cursor::new(bytes)).ok()?;
        let mut number = |tag| file.find_tag_unsigned::<u32>(tag).ok().flatten();
        if number(Tag::Compression)? != JPEG || number(Tag::PhotometricInterpretation)? != YCBCR {
            return None;
        }
        let orientation = number(Tag::Orientation).and_then(|o| u8::try_from(o).ok());
        let (width, height) = (number(Tag::ImageWidth)?, number(Tag::ImageLength)?);
        let rows = number(Tag::RowsPerStrip).unwrap_or(height).min(height);
        let mut numbers = |tag| file.get_tag_u64_vec(tag).ok();
        let offsets = numbers(Tag::StripOffsets)?;
        let lengths = numbers(Tag::StripByteCounts)?;
        let strips = offsets.iter().zip(&lengths).map(|(&offset, &length)| {
            let first = usize::try_from(offset).ok()?;
            let end = first.checked_add(usize::try_from(length).ok()?)?;
            (end <= bytes.len()).then_some(first..end)
        });
        let strips: Vec<Range<usize>> = strips.collect::<Option<_>>()?;
        let tables = file.find_tag(Tag::JPEGTables).ok().flatten();
        let tables = tables.and_then(|t| t.into_u8_vec().ok());
        (rows > 0 && strips.len() as u64 == u64::from(height.div_ceil(rows))).then_some(Self {
            width,
            height,
            orientation: orientation
                .and_then(Orientation::from_exif)
                .unwrap_or(Orientation::NoTransforms),
            strips,
            rows,
            tables: tables.unwrap_or_default(),
        })
    }

    /// RGB pixels, row by row; on failure what the decoder says.
    pub(super) fn pixels(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        for (i, place) in self.strips.iter().enumerate() {
            let own = &bytes[place.clone()];
            let stream = match self.tables.len().checked_sub(MARKER) {
                // the tables without their end, the strip without its start
                Some(end) => [&self.tables[..end], own.get(MARKER..).unwrap_or_default()].concat(),
                None => own.to_vec(),
            };
            let rows = self.rows.min(self.height - i as u32 * self.rows);
            let header = JpegDecoder::new(Cursor::new(&stream)).map_err(|e| e.to_string())?;
            let (width, height) = header.dimensions();
            // a strip may be padded to whole blocks
            let most = self.rows.next_multiple_of(16);
            if width != self.width || height < rows || height > most {
                return Err(format!("strip {i} is of {width}x{height} pixels"));
            }
            let mut pixels = jpeg::decode(&stream)?;
            pixels.truncate(3 * width as usize * rows as usize);
            all.extend(pixels);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::RgbImage;
    use image::codecs::jpeg::JpegEncoder;

    use crate::preprocess::{DecodeOptions, ImageError, decode, facts};

    use super::*;

    const WIDTH: u32 = 24;

    /// A JPEG stream of some rows, in YCbCr.
    fn stream(rows: u32, seed: u32) -> Vec<u8> {
        let image = RgbImage::from_fn(WIDTH, rows, |x, y| {
            image::Rgb([x * 9 + seed, y * 11, (x ^ y) * 7].map(|v| v as u8))
        });
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
        image.write_with_encoder(encoder).unwrap();
        bytes
    }

    /// A file of strips of sixteen rows, the last of fewer, turned by its orientation.
    fn file(strips: &[Vec<u8>], height: u32) -> Vec<u8> {
        let mut bytes = b"II\x2a\0\0\0\0\0".to_vec();
        let mut offsets = Vec::new();
        for strip in strips {
            offsets.push(bytes.len() as u32);
            bytes.extend(strip);
        }
        let list = |values: &[u32], bytes: &mut Vec<u8>| {
            // a single value stands where else its place does
            if let [value] = values {
                return *value;
            }
            bytes.resize(bytes.len().next_multiple_of(2), 0);
            let at = bytes.len() as u32;
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            at
        };
        let lengths: Vec<u32> = strips.iter().map(|s| s.len() as u32).collect();
        let offsets = list(&offsets, &mut bytes);
        let lengths = list(&lengths, &mut bytes);
        let bits = list(&[8 << 16 | 8, 8], &mut bytes);
        let directory = list(&[], &mut bytes);
        bytes[4..8].copy_from_slice(&directory.to_le_bytes());
        let count = strips.len() as u32;
        let entries: [(u16, u16, u32, u32); 10] = [
            (256, 4, 1, WIDTH),
            (257, 4, 1, height),
            (258, 3, 3, bits),
            (259, 3, 1, JPEG),
            (262, 3, 1, YCBCR),
            (273, 4, count, offsets),
            (274, 3, 1, 6),
            (277, 3, 1, 3),
            (278, 4, 1, 16),
            (279, 4, count, lengths),
        ];
        bytes.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn strips_are_decoded_as_jpeg() {
        let strips = [stream(16, 0), stream(16, 50), stream(8, 90)];
        let bytes = file(&strips, 40);
        let options = DecodeOptions::default();
        let image = decode(&bytes, Path::new("a.tif"), &options).unwrap();
        let wanted: Vec<u8> = strips
            .iter()
            .flat_map(|strip| jpeg::decode(strip).unwrap())
            .collect();
        assert_eq!(image.pixels(), wanted);
        let facts = facts(&bytes).unwrap();
        assert_eq!((facts.width, facts.height, facts.orientation), (24, 40, 6));
        let turned = DecodeOptions {
            apply_exif_orientation: true,
            ..options
        };
        let turned = decode(&bytes, Path::new("a.tif"), &turned).unwrap();
        assert_eq!((turned.height(), turned.width()), (24, 40));
    }

    #[test]
    fn strips_that_do_not_fit_are_refused() {
        let refused = |strips: &[Vec<u8>], height| {
            let bytes = file(strips, height);
            let found = decode(&bytes, Path::new("a.tif"), &DecodeOptions::default());
            match found.unwrap_err() {
                ImageError::Damaged { message, .. } => message,
                other => other.to_string(),
            }
        };
        // a stream that is larger than its strip, a short one, a broken one, and a strip too few
        assert!(refused(&[stream(64, 0)], 16).contains("24x64"));
        assert!(refused(&[stream(4, 0)], 16).contains("24x4"));
        assert!(!refused(&[stream(16, 0)[..60].to_vec()], 16).is_empty());
        assert!(!refused(&[stream(16, 0)], 40).is_empty());
    }
}
