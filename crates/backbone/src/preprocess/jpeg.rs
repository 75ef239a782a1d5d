//! JPEG, decoded as libjpeg-turbo does, which Pillow, `OpenCV` and browsers use: equal to it to the bit.
//!
//! The standard leaves inverse transform and chroma upsampling to the decoder, and features of a backbone see the
//! difference. The decoder is libjpeg-turbo's own C code, by the crate `mozjpeg`: its accurate integer transform and
//! its triangle filter. It reports success for damaged data, filling what is missing with grey; half an image of a
//! part would then be scored as a defect. So the marker structure is walked first (a file that ends before its
//! end-of-image marker was cut short), and where the decoder had something to remark, a second one, which stops at
//! what it can't decode, has to agree that the data are whole.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;

use image::ImageDecoder as _;
use image::codecs::jpeg::JpegDecoder;
use mozjpeg::{ColorSpace, Decompress};
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr};

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
/// Scans that a file may have: a progressive one of a coefficient each has some 200. Each goes over all of the image.
const MOST_SCANS: usize = 500;
/// Level of a message about damaged data (`jerror.h`).
const WARNING: c_int = -1;

thread_local! {
    /// Warnings of the decoder that runs on this thread.
    static WARNINGS: Cell<usize> = const { Cell::new(0) };
}

/// RGB pixels, row by row, of a JPEG of 8 bits a channel; on failure what the decoder says.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if !is_complete(bytes)? {
        return Err("the file ends before the end-of-image marker".to_owned());
    }
    WARNINGS.set(0);
    // the decoder ends by unwinding; its own message needs its own error manager
    let decoded = catch_unwind(AssertUnwindSafe(|| pixels(bytes, Some(counting()))));
    let Ok(decoded) = decoded else {
        let again = catch_unwind(AssertUnwindSafe(|| pixels(bytes, None)));
        return Err(match again {
            Err(message) => message
                .downcast_ref::<String>()
                .map_or("the decoder stopped", |m| m)
                .trim_start_matches("libjpeg fatal error: ")
                .to_owned(),
            Ok(Err(message)) => message,
            Ok(Ok(_)) => "the decoder stopped".to_owned(),
        });
    };
    let decoded = decoded?;
    if WARNINGS.get() > 0 {
        whole(bytes)?;
    }
    Ok(decoded)
}

/// Whether a decoder that stops at damaged data comes to the end.
fn whole(bytes: &[u8]) -> Result<(), String> {
    let decoder = JpegDecoder::new(std::io::Cursor::new(bytes)).map_err(|e| e.to_string())?;
    let total = usize::try_from(decoder.total_bytes()).map_err(|e| e.to_string())?;
    let mut pixels = vec![0; total];
    decoder.read_image(&mut pixels).map_err(|e| e.to_string())
}

/// An error manager that counts warnings and unwinds on errors.
fn counting() -> jpeg_error_mgr {
    extern "C-unwind" fn exit(_: &mut jpeg_common_struct) {
        // as the crate's own: no panic hook is called
        resume_unwind(Box::new(String::new()));
    }
    extern "C-unwind" fn emit(_: &mut jpeg_common_struct, level: c_int) {
        if level == WARNING {
            WARNINGS.set(WARNINGS.get() + 1);
        }
    }
    extern "C-unwind" fn nothing(_: &mut jpeg_common_struct) {}
    extern "C-unwind" fn no_text(_: &mut jpeg_common_struct, _: &[u8; 80]) {}
    jpeg_error_mgr {
        error_exit: Some(exit),
        emit_message: Some(emit),
        output_message: Some(nothing),
        format_message: Some(no_text),
        reset_error_mgr: Some(nothing),
        msg_code: 0,
        msg_parm: mozjpeg_sys::msg_parm_union::default(),
        trace_level: 0,
        num_warnings: 0,
        jpeg_message_table: null(),
        last_jpeg_message: 0,
        addon_message_table: null(),
        first_addon_message: 0,
        last_addon_message: 0,
    }
}

fn pixels(bytes: &[u8], errors: Option<jpeg_error_mgr>) -> Result<Vec<u8>, String> {
    let decoder = match errors {
        Some(errors) => Decompress::with_err(errors).from_mem(bytes),
        None => Decompress::new_mem(bytes),
    };
    let decoder = decoder.map_err(|e| e.to_string())?;
    let (channels, to) = match decoder.components().len() {
        1 => (1, ColorSpace::JCS_GRAYSCALE),
        3 => (3, ColorSpace::JCS_RGB),
        4 => (4, ColorSpace::JCS_CMYK),
        n => return Err(format!("{n} channels")),
    };
    let mut started = decoder.to_colorspace(to).map_err(|e| e.to_string())?;
    let pixels: Vec<u8> = started.read_scanlines().map_err(|e| e.to_string())?;
    Ok(match channels {
        1 => pixels.iter().flat_map(|v| [*v; 3]).collect(),
        3 => pixels,
        _ => pixels
            .chunks_exact(4)
            .flat_map(|p| rgb_of_cmyk([p[0], p[1], p[2], p[3]]))
            .collect(),
    })
}

/// Pillow's conversion of the inverted values that such files hold.
fn rgb_of_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = i32::from(k);
    [c, m, y].map(|ink| {
        let product = (255 - i32::from(ink)) * light + 128;
        (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// Markers without a length: TEM, RST0..7 and SOI.
fn stands_alone(marker: u8) -> bool {
    marker == 0x01 || (0xd0..=0xd8).contains(&marker)
}

/// Whether the end-of-image marker is reached when the segments are walked from the start; an error for more scans than
/// an image has.
fn is_complete(bytes: &[u8]) -> Result<bool, String> {
    let (mut at, mut scans) = (0, 0);
    loop {
        // the next marker: in entropy-coded data 0xff is followed by 0x00 or by a restart marker
        let Some(found) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|b| *b == 0xff))
        else {
            return Ok(false);
        };
        at += found + 1;
        let Some(marker) = bytes.get(at).copied() else {
            return Ok(false);
        };
        match marker {
            // a fill byte: look at the next one
            0xff => {}
            END_OF_IMAGE => return Ok(true),
            0x00 => at += 1,
            m if stands_alone(m) => at += 1,
            _ => {
                scans += usize::from(marker == START_OF_SCAN);
                if scans > MOST_SCANS {
                    return Err(format!("more than {MOST_SCANS} scans"));
                }
                let Some(length) = bytes.get(at + 1..at + 3) else {
                    return Ok(false);
                };
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                at += 1 + length.max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_inside_a_segment_does_not_count() {
        // SOI, APP1 holding a thumbnail's "ff d9", SOS, data with a stuffed ff and a restart
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9];
        bytes.extend([0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4]);
        assert!(!is_complete(&bytes).unwrap());
        bytes.extend([0xff, 0xff, 0xd9]);
        assert!(is_complete(&bytes).unwrap());
        for keep in 0..bytes.len() {
            assert!(!is_complete(&bytes[..keep]).unwrap(), "{keep}");
        }
    }

    #[test]
    fn more_scans_than_coefficients_are_refused() {
        let mut bytes = vec![0xff, 0xd8];
        for _ in 0..=MOST_SCANS {
            bytes.extend([0xff, 0xda, 0, 2]);
        }
        assert!(decode(&bytes).unwrap_err().contains("scans"));
    }

    #[test]
    fn cmyk_becomes_rgb_as_pillow_has_it() {
        // Image.new("CMYK", (1, 1), (c, m, y, k)).convert("RGB"), the file's values being inverted
        let of = |c: u8, m: u8, y: u8, k: u8| rgb_of_cmyk([255 - c, 255 - m, 255 - y, 255 - k]);
        assert_eq!(of(0, 0, 0, 0), [255, 255, 255]);
        assert_eq!(of(255, 128, 0, 0), [0, 127, 255]);
        assert_eq!(of(10, 20, 30, 40), [207, 198, 190]);
        assert_eq!(of(200, 100, 50, 255), [0, 0, 0]);
    }
}
