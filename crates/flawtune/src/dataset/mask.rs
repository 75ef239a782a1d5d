//! Ground-truth masks at the size of their image.

use std::path::Path;

use flawtune_backbone::preprocess::{
    DecodeOptions, ImageError, RgbImage8, decode_looked, facts_of, read_file, turned,
};

/// More values than this beside black are not labels but shades.
const LABELS: usize = 8;
/// Share that a side may deviate by rounding.
const ROUNDING: f64 = 0.01;

/// White where a mask shows a defect, black elsewhere, as it lies over its image.
///
/// A mask of labels shows a defect where it is not black. One of many values (a JPEG, which rings round every edge, or
/// soft edges) does from half of its maximum on. A mask that fits its image only by the image's EXIF orientation is
/// turned to it.
///
/// # Errors
/// A mask that cannot be read, or lies across its image for no reason that the image names.
pub fn load_mask(
    image: &Path,
    mask: &Path,
    options: &DecodeOptions,
) -> Result<RgbImage8, ImageError> {
    let found = marked(mask, options)?;
    let Some(facts) = facts_of(image) else {
        return Ok(found);
    };
    let applied = options.apply_exif_orientation && facts.lies();
    let (height, width) = facts.size(options.apply_exif_orientation);
    let size = (found.height(), found.width());
    if fits(size, (height, width)) || !fits(size, (width, height)) {
        return Ok(found);
    }
    if !facts.lies() {
        return Err(ImageError::Across {
            path: mask.to_owned(),
            mask: size,
            image: (height, width),
        });
    }
    // the way back from upright is the same way, but for the two quarter turns
    let back = match facts.orientation {
        6 => 8,
        8 => 6,
        own => own,
    };
    Ok(turned(
        found,
        if applied { facts.orientation } else { back },
    ))
}

/// Whether two sizes (height, width) are of one shape.
pub(crate) fn fits(a: (usize, usize), b: (usize, usize)) -> bool {
    let wanted = a.1 as f64 * b.0 as f64 / b.1 as f64;
    (a.0 as f64 - wanted).abs() <= (a.0 as f64 * ROUNDING).max(1.0)
}

/// Black and white of a mask as it is stored.
fn marked(mask: &Path, options: &DecodeOptions) -> Result<RgbImage8, ImageError> {
    let bytes = read_file(mask, options)?;
    let mut as_stored = DecodeOptions {
        apply_exif_orientation: false,
        bit_depth: None,
        ..*options
    };
    let (mut found, looked) = decode_looked(&bytes, mask, &as_stored)?;
    if let Some(bits) = looked.narrow() {
        // labels 1, 2, … of 16 bits would all be black
        as_stored.bit_depth = Some(bits);
        found = decode_looked(&bytes, mask, &as_stored)?.0;
    }
    let values = found.pixels().chunks_exact(3);
    let values: Vec<u8> = values.map(|p| p[0].max(p[1]).max(p[2])).collect();
    let mut met = [false; 256];
    for value in &values {
        met[usize::from(*value)] = true;
    }
    let most = values.iter().copied().max().unwrap_or(0);
    let labels = met[1..].iter().filter(|m| **m).count() <= LABELS;
    let is_jpeg = bytes.starts_with(&[0xff, 0xd8]);
    let from = if labels && !is_jpeg {
        1
    } else {
        most.div_ceil(2).max(1)
    };
    let white = values.iter().flat_map(|v| [u8::from(*v >= from) * 255; 3]);
    Ok(RgbImage8::from_pixels(
        found.height(),
        found.width(),
        white.collect(),
    ))
}

/// 1 where any of the masks of `image` shows a defect (see [`load_mask`]), 0 elsewhere, `[height, width]`. A mask of another
/// size is resized by its nearest pixel (that which holds the centre of the image's pixel).
///
/// # Errors
/// As [`load_mask`].
pub fn read_mask<P: AsRef<Path>>(
    image: &Path,
    masks: &[P],
    (height, width): (usize, usize),
    options: &DecodeOptions,
) -> Result<Vec<u8>, ImageError> {
    let mut found = vec![0u8; height * width];
    for path in masks {
        let mask = load_mask(image, path.as_ref(), options)?;
        // the pixel of the mask whose cell holds the centre
        let at = |i: usize, from: usize, to: usize| ((2 * i + 1) * from / (2 * to)).min(from - 1);
        for (y, row) in found.chunks_exact_mut(width).enumerate() {
            let line = at(y, mask.height(), height) * mask.width();
            for (x, out) in row.iter_mut().enumerate() {
                let pixel = line + at(x, mask.width(), width);
                *out |= u8::from(mask.pixels()[pixel * 3] > 0);
            }
        }
    }
    Ok(found)
}

/// Whether a mask shows anything.
///
/// # Errors
/// A mask that cannot be read.
pub(super) fn shows_anything(mask: &Path, options: &DecodeOptions) -> Result<bool, ImageError> {
    Ok(marked(mask, options)?.pixels().iter().any(|v| *v > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "no image";

    #[test]
    fn masks_are_joined_and_resized_by_the_nearest_pixel() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.png"), folder.path().join("b.png"));
        image::GrayImage::from_fn(4, 2, |x, y| image::Luma([u8::from(x == 3 && y == 0)]))
            .save(&a)
            .unwrap();
        image::GrayImage::from_fn(2, 1, |x, _| image::Luma([u8::from(x == 0) * 255]))
            .save(&b)
            .unwrap();
        let options = DecodeOptions::default();
        assert_eq!(
            read_mask(Path::new(NONE), &[&a], (2, 4), &options).unwrap(),
            [0, 0, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            read_mask(Path::new(NONE), &[&a, &b], (2, 4), &options).unwrap(),
            [1, 1, 0, 1, 1, 1, 0, 0]
        );
        // columns 0, 1, 2 of three lie over columns 0, 2 and 3 of four
        assert_eq!(
            read_mask(Path::new(NONE), &[&a], (1, 3), &options).unwrap(),
            [0, 0, 0]
        );
        assert_eq!(
            read_mask(Path::new(NONE), &[&a], (4, 3), &options).unwrap(),
            [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        assert!(
            read_mask(
                Path::new(NONE),
                &[folder.path().join("none.png")],
                (1, 1),
                &options
            )
            .is_err()
        );
    }
    /// A mask of `height` × `width` whose left third is marked.
    fn left_third(path: &Path, height: u32, width: u32, of: impl Fn(u32) -> u8) {
        image::GrayImage::from_fn(width, height, |x, _| {
            image::Luma([if x < width / 3 { of(x) } else { 0 }])
        })
        .save(path)
        .unwrap();
    }

    #[test]
    fn shades_count_from_half_of_the_maximum_and_labels_all() {
        let folder = tempfile::tempdir().unwrap();
        let options = DecodeOptions::default();
        let area = |name: &str| {
            let mask = load_mask(Path::new(NONE), &folder.path().join(name), &options).unwrap();
            mask.pixels().iter().filter(|v| **v > 0).count() / 3
        };
        // a JPEG rings
        left_third(&folder.path().join("a.jpg"), 24, 60, |_| 255);
        assert!(area("a.jpg").abs_diff(24 * 20) <= 24, "{}", area("a.jpg"));
        // a ramp of 20 shades
        left_third(&folder.path().join("b.png"), 2, 60, |x| 10 * (x as u8 + 1));
        assert_eq!(area("b.png"), 2 * 11);
        left_third(&folder.path().join("c.png"), 2, 60, |x| 1 + x as u8 / 5);
        assert_eq!(area("c.png"), 2 * 20);
        // a label of 16 bits
        image::ImageBuffer::<image::Luma<u16>, _>::from_fn(4, 1, |x, _| {
            image::Luma([u16::from(x == 0)])
        })
        .save(folder.path().join("d.png"))
        .unwrap();
        assert_eq!(area("d.png"), 1);
    }

    #[test]
    fn a_mask_across_its_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (image, mask) = (folder.path().join("a.png"), folder.path().join("m.png"));
        image::GrayImage::new(30, 20).save(&image).unwrap();
        left_third(&mask, 30, 20, |_| 255);
        let error = load_mask(&image, &mask, &DecodeOptions::default()).unwrap_err();
        assert!(error.to_string().contains("20x30"), "{error}");
        // of another size, or a little off by rounding, it fits
        assert!(fits((10, 15), (20, 30)));
        assert!(fits((67, 100), (20, 30)));
        assert!(!fits((30, 20), (20, 30)));
    }
}
