//! Bits that a file says its values have.

use image::ImageFormat;

/// Tag of TIFF with the largest value that is used.
const MAX_SAMPLE_VALUE: u16 = 281;

/// Bits that 16-bit values are said to have: by the chunk sBIT of a PNG, by the tag `MaxSampleValue` of a TIFF.
pub(super) fn said(bytes: &[u8], format: ImageFormat) -> Option<u8> {
    let bits = match format {
        ImageFormat::Png => png(bytes)?,
        ImageFormat::Tiff => tiff(bytes)?,
        _ => return None,
    };
    (1..16).contains(&bits).then_some(bits)
}

/// The most of the channels in the chunk sBIT, which stands before the pixels.
fn png(bytes: &[u8]) -> Option<u8> {
    let mut at = 8;
    loop {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        let data = bytes.get(at + 8..(at + 8).checked_add(length)?)?;
        match bytes.get(at + 4..at + 8)? {
            b"sBIT" => return data.iter().take(4).copied().max(),
            b"IDAT" | b"IEND" => return None,
            // length, name, checksum
            _ => at += 12 + length,
        }
    }
}

/// Of the first page of a TIFF of 32-bit offsets.
fn tiff(bytes: &[u8]) -> Option<u8> {
    let little = match bytes.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let b: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(b)
        } else {
            u16::from_be_bytes(b)
        })
    };
    let offset: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let first = if little {
        u32::from_le_bytes(offset)
    } else {
        u32::from_be_bytes(offset)
    } as usize;
    let entries = usize::from(short(first)?);
    let entry = (0..entries)
        .map(|i| first + 2 + 12 * i)
        .find(|&at| short(at) == Some(MAX_SAMPLE_VALUE))?;
    // one or two values of 16 bits stand in the entry itself
    let most = short(entry + 8)?;
    Some((u16::BITS - most.leading_zeros()) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_tags_are_read_and_rubbish_is_not() {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.extend(b"\0\0\0\x01gAMA\x05crc_\0\0\0\x03sBIT\x0a\x0c\x0bcrc_");
        assert_eq!(said(&bytes, ImageFormat::Png), Some(12));
        for cut in 0..bytes.len() - 4 {
            assert_eq!(said(&bytes[..cut], ImageFormat::Png), None, "{cut}");
        }
        bytes[8..12].copy_from_slice(&[0xff; 4]);
        assert_eq!(said(&bytes, ImageFormat::Png), None);

        let little = b"II\x2a\0\x08\0\0\0\x01\0\x19\x01\x03\0\x01\0\0\0\xff\x0f\0\0";
        assert_eq!(said(little, ImageFormat::Tiff), Some(12));
        let big = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x19\0\x03\0\0\0\x01\x03\xff\0\0";
        assert_eq!(said(big, ImageFormat::Tiff), Some(10));
        assert_eq!(said(b"II\x2a\0\xff\xff\xff\xff", ImageFormat::Tiff), None);
        assert_eq!(said(little, ImageFormat::Bmp), None);
    }
}
