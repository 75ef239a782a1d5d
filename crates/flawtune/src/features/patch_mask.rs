//! Which patches a defect covers, from ground-truth masks.

use std::path::Path;

use flawtune_backbone::preprocess::{ImageError, Preprocess, Resize, RgbImage8};

use crate::dataset::load_mask;

/// Which patches of a `grid` (rows, columns) of `patch_size` pixels over the preprocessed picture show a pixel that any of
/// the masks of `image` marks ([`load_mask`]), row-major. Masks need not have the picture's size, only its shape; what preprocessing or
/// the grid cuts off is left out.
///
/// A patch counts if a single pixel of it does: a scratch is thinner than a patch.
///
/// # Errors
/// A mask that cannot be read.
pub fn patch_mask<P: AsRef<Path>>(
    image: &Path,
    masks: &[P],
    preprocess: &Preprocess,
    grid: (usize, usize),
    patch_size: usize,
) -> Result<Vec<bool>, ImageError> {
    let mut covered = vec![false; grid.0 * grid.1];
    let options = preprocess.decode_options();
    for path in masks {
        mark(
            &load_mask(image, path.as_ref(), &options)?,
            preprocess,
            grid,
            patch_size,
            &mut covered,
        );
    }
    Ok(covered)
}

/// In patches: edges of pixels that fall on edges of patches must not spill over.
const ROUNDING: f64 = 1e-9;

fn mark(
    mask: &RgbImage8,
    preprocess: &Preprocess,
    grid: (usize, usize),
    patch_size: usize,
    covered: &mut [bool],
) {
    let (width, height) = (mask.width() as f64, mask.height() as f64);
    let (to_height, to_width) = (preprocess.size.0 as f64, preprocess.size.1 as f64);
    let (mut scale_y, mut scale_x) = (to_height / height, to_width / width);
    if preprocess.resize == Resize::CentreCrop {
        scale_y = scale_y.max(scale_x);
        scale_x = scale_y;
    }
    // the cells that a pixel lies in
    let cells = |pixel: usize, scale: f64, from: f64, to: f64, cells: usize| {
        let edge = |at: f64| ((at - from / 2.0) * scale + to / 2.0) / patch_size as f64;
        let (first, last) = (
            edge(pixel as f64) + ROUNDING,
            edge(pixel as f64 + 1.0) - ROUNDING,
        );
        (first.max(0.0) as usize)..(last.ceil().max(0.0) as usize).min(cells)
    };
    for (i, pixel) in mask.pixels().chunks_exact(3).enumerate() {
        if pixel.iter().all(|v| *v == 0) {
            continue;
        }
        for row in cells(i / mask.width(), scale_y, height, to_height, grid.0) {
            for column in cells(i % mask.width(), scale_x, width, to_width, grid.1) {
                covered[row * grid.1 + column] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flawtune_backbone::config::Normalization;

    use super::*;

    const PLAIN: Normalization = Normalization {
        mean: [0.5; 3],
        std: [0.5; 3],
    };

    /// A black mask of `height` × `width` with these pixels set.
    fn found(
        (height, width): (usize, usize),
        set: &[(usize, usize)],
        preprocess: &Preprocess,
        grid: (usize, usize),
    ) -> Vec<usize> {
        let mut pixels = vec![0; height * width * 3];
        for (y, x) in set {
            pixels[(y * width + x) * 3 + 1] = 1;
        }
        let mut covered = vec![false; grid.0 * grid.1];
        mark(
            &RgbImage8::from_pixels(height, width, pixels),
            preprocess,
            grid,
            8,
            &mut covered,
        );
        (0..covered.len()).filter(|&i| covered[i]).collect()
    }

    #[test]
    fn a_single_pixel_marks_its_patch() {
        let squash = Preprocess::squash(32, 32, PLAIN);
        // 64 × 128 pixels onto 4 × 4 patches: 16 × 32 pixels each
        assert_eq!(found((64, 128), &[(0, 0)], &squash, (4, 4)), [0]);
        assert_eq!(
            found((64, 128), &[(16, 31), (15, 32), (63, 127)], &squash, (4, 4)),
            [1, 4, 15]
        );
        // coarser than the grid
        assert_eq!(found((2, 2), &[(1, 0)], &squash, (4, 4)), [8, 9, 12, 13]);
    }

    #[test]
    fn what_is_cut_off_marks_nothing() {
        // the middle 64 columns of 128 are seen
        let crop = Preprocess::centre_crop(32, 32, PLAIN);
        assert_eq!(
            found((64, 128), &[(0, 31), (0, 96)], &crop, (4, 4)),
            [0usize; 0]
        );
        assert_eq!(
            found((64, 128), &[(0, 32), (63, 95)], &crop, (4, 4)),
            [0, 15]
        );
        // 36 pixels hold four patches of 8; the last four belong to none
        let ragged = Preprocess::squash(36, 36, PLAIN);
        assert_eq!(
            found((36, 36), &[(31, 31), (32, 0), (0, 35)], &ragged, (4, 4)),
            [15]
        );
    }
}
