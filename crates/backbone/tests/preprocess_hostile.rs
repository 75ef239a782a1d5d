//! Damaged, misnamed and oversized images: a typed error that names the file, no panic, no huge allocation.

#![allow(clippy::unwrap_used)] // a test may stop

use std::io::Cursor;
use std::path::{Path, PathBuf};

use flawtune_backbone::config::Normalization;
use flawtune_backbone::preprocess::{DecodeOptions, ImageError, Preprocess, RgbImage8, decode};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

fn gradient(width: u32, height: u32) -> DynamicImage {
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])
    }))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image
        .write_to(&mut Cursor::new(&mut bytes), format)
        .unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<RgbImage8, ImageError> {
    decode(
        bytes,
        Path::new("some/image.png"),
        &DecodeOptions::default(),
    )
}

fn message(bytes: &[u8]) -> String {
    let error = read(bytes).expect_err("must be refused");
    assert_eq!(error.path(), Path::new("some/image.png"));
    let text = error.to_string();
    assert!(text.starts_with("some/image.png: "), "{text}");
    text
}

const LOSSLESS: [ImageFormat; 4] = [
    ImageFormat::Png,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::WebP,
];

#[test]
fn every_format_decodes_whatever_the_name_says() {
    let image = gradient(37, 21);
    for format in LOSSLESS {
        let decoded = read(&encoded(&image, format)).unwrap();
        assert_eq!((decoded.height(), decoded.width()), (21, 37), "{format:?}");
        assert_eq!(decoded.pixels(), image.as_bytes(), "{format:?}");
    }
    let decoded = read(&encoded(&image, ImageFormat::Jpeg)).unwrap();
    assert_eq!((decoded.height(), decoded.width()), (21, 37));
}

#[test]
fn sixteen_bits_and_alpha_are_reduced_as_documented() {
    let values = [0u16, 127, 128, 385, 386, 32_768, 65_406, 65_407, 65_535];
    let wide = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(9, 1, values.to_vec()).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let decoded = read(&encoded(&DynamicImage::ImageLuma16(wide.clone()), format)).unwrap();
        let red: Vec<u8> = decoded.pixels().iter().step_by(3).copied().collect();
        assert_eq!(red, [0, 0, 0, 1, 2, 128, 254, 255, 255], "{format:?}");
    }
    let clear = image::RgbaImage::from_raw(2, 1, vec![9, 8, 7, 0, 200, 100, 50, 255]).unwrap();
    let decoded = read(&encoded(&DynamicImage::ImageRgba8(clear), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.pixels(), [9, 8, 7, 200, 100, 50]);
    let grey = image::GrayAlphaImage::from_raw(2, 1, vec![9, 0, 200, 255]).unwrap();
    let decoded = read(&encoded(&DynamicImage::ImageLumaA8(grey), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.pixels(), [9, 9, 9, 200, 200, 200]);
}

#[test]
fn float_pictures_are_refused() {
    let float = image::Rgb32FImage::from_raw(1, 1, vec![0.5; 3]).unwrap();
    let text = message(&encoded(
        &DynamicImage::ImageRgb32F(float),
        ImageFormat::Tiff,
    ));
    assert!(text.contains("not supported"), "{text}");
}

#[test]
fn empty_and_foreign_files_are_refused() {
    assert!(message(b"").contains("empty"));
    assert!(message(b"this is a text file, whatever its name says\n").contains("not an image"));
    assert!(message(b"\xff\x4f\xff\x51\0\0").contains("JPEG 2000 is not supported\nhint: "));
    assert!(message(b"GIF89a\x01\x00\x01\x00").contains("damaged"));
    assert!(message(&[0; 4096]).contains("not an image"));
}

#[test]
fn truncated_files_are_refused_at_any_length() {
    let image = gradient(64, 48);
    for format in LOSSLESS.into_iter().chain([ImageFormat::Jpeg]) {
        let bytes = encoded(&image, format);
        for keep in [9, 20, bytes.len() / 4, bytes.len() / 2, bytes.len() * 3 / 4] {
            let result = read(&bytes[..keep]);
            assert!(
                result.is_err(),
                "{format:?} cut to {keep} of {} bytes was accepted",
                bytes.len()
            );
        }
    }
}

/// A PNG whose header announces `width`×`height` and that has next to no data.
fn announced(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(&gradient(1, 1), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = 0xffff_ffff_u32;
    for byte in &bytes[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn a_huge_header_is_refused_before_anything_is_allocated() {
    let text = message(&announced(50_000, 50_000));
    assert!(
        text.contains("50000x50000") && text.contains("268435456"),
        "{text}"
    );
    message(&announced(u32::MAX >> 1, u32::MAX >> 1));
    assert!(message(&announced(0, 5)).contains("damaged"));
    let small = DecodeOptions {
        max_pixels: 99,
        ..DecodeOptions::default()
    };
    let bytes = encoded(&gradient(10, 10), ImageFormat::Png);
    let error = decode(&bytes, Path::new("a"), &small).unwrap_err();
    assert!(matches!(
        error,
        ImageError::TooManyPixels {
            width: 10,
            height: 10,
            limit: 99,
            ..
        }
    ));
}

#[test]
fn missing_files_and_folders_are_named() {
    let recipe = Preprocess::squash(32, 32, Normalization::IMAGENET);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no such.png");
    let error = recipe.load(&missing).unwrap_err();
    assert!(
        matches!(&error, ImageError::Read { path, .. } if *path == missing),
        "{error}"
    );
    assert!(matches!(
        recipe.load(folder.path()).unwrap_err(),
        ImageError::Read { .. }
    ));
    let empty = folder.path().join("empty.png");
    std::fs::write(&empty, b"").unwrap();
    assert!(matches!(
        recipe.load(&empty).unwrap_err(),
        ImageError::Empty { .. }
    ));
}

#[test]
fn exif_orientation_is_ignored_unless_asked_for() {
    // a JPEG with an APP1 segment that says "rotate 90° clockwise to show" (6)
    let jpeg = encoded(&gradient(32, 16), ImageFormat::Jpeg);
    let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend(((2 + 6 + tiff.len()) as u16).to_be_bytes());
    bytes.extend(b"Exif\0\0");
    bytes.extend(tiff);
    bytes.extend(&jpeg[2..]);
    let plain = read(&bytes).unwrap();
    assert_eq!((plain.height(), plain.width()), (16, 32));
    let options = DecodeOptions {
        apply_exif_orientation: true,
        ..DecodeOptions::default()
    };
    let turned = decode(&bytes, Path::new("a"), &options).unwrap();
    assert_eq!((turned.height(), turned.width()), (32, 16));
    // clockwise: the first row of the result is the first column, read upwards
    let first: Vec<&[u8]> = turned.pixels()[..16 * 3].chunks(3).collect();
    let column: Vec<&[u8]> = plain
        .pixels()
        .chunks(32 * 3)
        .rev()
        .map(|row| &row[..3])
        .collect();
    assert_eq!(first, column);
}

/// Damages valid files at pseudo-random places: any result is fine but a panic.
#[test]
fn damaged_bytes_never_panic() {
    let image = gradient(40, 30);
    let mut noise = flawtune_testing::Noise(1);
    let mut next = |n: usize| (noise.word() >> 33) as usize % n;
    let options = DecodeOptions {
        max_pixels: 1 << 20,
        ..DecodeOptions::default()
    };
    for format in LOSSLESS.into_iter().chain([ImageFormat::Jpeg]) {
        let good = encoded(&image, format);
        for round in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..=next(4) {
                // headers are where decoders trust most
                let range = if round % 2 == 0 {
                    bytes.len().min(64)
                } else {
                    bytes.len()
                };
                let at = next(range);
                bytes[at] = next(256) as u8;
            }
            let _ = decode(&bytes, &PathBuf::from("x"), &options);
        }
    }
}
