//! Ground-truth masks at the size of their picture.

use std::path::Path;

use flawtune_backbone::preprocess::{DecodeOptions, ImageError, decode, read_file};

/// 1 where any of the masks is not black, 0 elsewhere, `[height, width]`. A mask of another size is resized by its nearest
/// pixel (that which holds the centre of the picture's pixel), and only then made 0 or 1.
///
/// # Errors
/// A mask that cannot be read.
pub fn read_mask<P: AsRef<Path>>(
    masks: &[P],
    (height, width): (usize, usize),
    options: &DecodeOptions,
) -> Result<Vec<u8>, ImageError> {
    let mut found = vec![0u8; height * width];
    for path in masks {
        let path = path.as_ref();
        let mask = decode(&read_file(path, options)?, path, options)?;
        // the pixel of the mask whose cell holds the centre
        let at = |i: usize, from: usize, to: usize| ((2 * i + 1) * from / (2 * to)).min(from - 1);
        for (y, row) in found.chunks_exact_mut(width).enumerate() {
            let line = at(y, mask.height(), height) * mask.width();
            for (x, out) in row.iter_mut().enumerate() {
                let pixel = line + at(x, mask.width(), width);
                *out |= u8::from(mask.pixels()[pixel * 3..][..3].iter().any(|v| *v > 0));
            }
        }
    }
    Ok(found)
}

/// Whether any pixel of a mask is not black.
///
/// # Errors
/// A mask that cannot be read.
pub(super) fn shows_anything(mask: &Path, options: &DecodeOptions) -> Result<bool, ImageError> {
    Ok(decode(&read_file(mask, options)?, mask, options)?
        .pixels()
        .iter()
        .any(|v| *v > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            read_mask(&[&a], (2, 4), &options).unwrap(),
            [0, 0, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            read_mask(&[&a, &b], (2, 4), &options).unwrap(),
            [1, 1, 0, 1, 1, 1, 0, 0]
        );
        // columns 0, 1, 2 of three lie over columns 0, 2 and 3 of four
        assert_eq!(read_mask(&[&a], (1, 3), &options).unwrap(), [0, 0, 0]);
        assert_eq!(
            read_mask(&[&a], (4, 3), &options).unwrap(),
            [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        assert!(read_mask(&[folder.path().join("none.png")], (1, 1), &options).is_err());
    }
}
