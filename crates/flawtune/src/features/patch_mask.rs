//! Which patches a defect covers, from ground-truth masks.

use std::path::Path;

use flawtune_backbone::preprocess::{ImageError, Part, Preprocess, Resize, RgbImage8, facts_of};

use crate::dataset::load_mask;

/// Which patches of a `grid` (rows, columns) of `patch_size` pixels over the preprocessed image show a pixel that any of
/// the masks of `image` marks ([`load_mask`]), row-major. Masks need not have the image's size, only its shape; what preprocessing or
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
    let covered = patch_cover(image, masks, preprocess, grid, patch_size)?;
    Ok(covered.iter().map(|share| *share > 0.0).collect())
}

/// The share of each patch that pixels which are not black in the masks cover, 0 to 1; otherwise as [`patch_mask`]. Of several
/// masks the one that covers most of a patch counts.
///
/// # Errors
/// A mask that cannot be read.
pub fn patch_cover<P: AsRef<Path>>(
    image: &Path,
    masks: &[P],
    preprocess: &Preprocess,
    grid: (usize, usize),
    patch_size: usize,
) -> Result<Vec<f32>, ImageError> {
    let mut covered = vec![0.0f32; grid.0 * grid.1];
    let options = preprocess.decode_options();
    for path in masks {
        let mask = load_mask(image, path.as_ref(), &options)?;
        let part = part_of(&mask, image, preprocess);
        let of_mask = cover(&mask, part, preprocess, grid, patch_size);
        for (all, one) in covered.iter_mut().zip(of_mask) {
            *all = all.max(one);
        }
    }
    Ok(covered)
}

/// The part of a mask that lies over what is looked at of its image. A mask may have another size than its image.
fn part_of(mask: &RgbImage8, image: &Path, preprocess: &Preprocess) -> Part {
    let size = (mask.height(), mask.width());
    let whole = Part::whole(size.0, size.1);
    if preprocess.roi.is_none() {
        return whole;
    }
    let facts = facts_of(image);
    let turned = preprocess.apply_exif_orientation;
    let of = facts.map_or(size, |facts| facts.size(turned));
    preprocess.part(of.0, of.1).scaled(of, size)
}

/// In patches: edges of pixels that fall on edges of patches must not spill over.
const ROUNDING: f64 = 1e-9;

/// The share of each patch that the mask's pixels cover, of the `part` of it that is looked at.
fn cover(
    mask: &RgbImage8,
    part: Part,
    preprocess: &Preprocess,
    grid: (usize, usize),
    patch_size: usize,
) -> Vec<f32> {
    let mut covered = vec![0.0f64; grid.0 * grid.1];
    let (width, height) = (part.width as f64, part.height as f64);
    let (to_height, to_width) = (preprocess.size.0 as f64, preprocess.size.1 as f64);
    let (mut scale_y, mut scale_x) = (to_height / height, to_width / width);
    if preprocess.resize == Resize::CentreCrop {
        scale_y = scale_y.max(scale_x);
        scale_x = scale_y;
    }
    // the cells that a pixel lies in, each with the length that it has in common with it
    let cells = |pixel: usize, scale: f64, from: f64, to: f64, cells: usize| {
        let edge = |at: f64| ((at - from / 2.0) * scale + to / 2.0) / patch_size as f64;
        let (first, last) = (
            edge(pixel as f64) + ROUNDING,
            edge(pixel as f64 + 1.0) - ROUNDING,
        );
        let cells = (first.max(0.0) as usize)..(last.ceil().max(0.0) as usize).min(cells);
        cells.map(move |cell| {
            let common = last.min(cell as f64 + 1.0) - first.max(cell as f64);
            (cell, common)
        })
    };
    let lines = mask.pixels().chunks_exact(3 * mask.width()).skip(part.top);
    for (y, line) in lines.take(part.height).enumerate() {
        let pixels = line.chunks_exact(3).skip(part.left).take(part.width);
        for (x, pixel) in pixels.enumerate() {
            let at = (part.top + y, part.left + x);
            let shown = || preprocess.shows(at.0, at.1, (mask.height(), mask.width()));
            if pixel.iter().all(|v| *v == 0) || !shown() {
                continue;
            }
            for (row, down) in cells(y, scale_y, height, to_height, grid.0) {
                for (column, across) in cells(x, scale_x, width, to_width, grid.1) {
                    covered[row * grid.1 + column] += down * across;
                }
            }
        }
    }
    covered.iter().map(|share| share.min(1.0) as f32).collect()
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
        let mask = RgbImage8::from_pixels(height, width, pixels);
        let part = preprocess.part(height, width);
        let covered = cover(&mask, part, preprocess, grid, 8);
        (0..covered.len()).filter(|&i| covered[i] > 0.0).collect()
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

    #[test]
    fn a_mask_is_cut_with_its_image() {
        // rows 16 to 47 and columns 64 to 127 of 64 × 128
        let region = Preprocess {
            roi: "50%,25%,50%,50%".parse().ok(),
            ..Preprocess::squash(32, 32, PLAIN)
        };
        assert_eq!(
            found((64, 128), &[(15, 64), (16, 63), (48, 127)], &region, (4, 4)),
            [0usize; 0]
        );
        assert_eq!(
            found((64, 128), &[(16, 64), (47, 127), (24, 79)], &region, (4, 4)),
            [0, 4, 15]
        );
        // a mask of half the size, over an image of which pixels are named
        let folder = tempfile::tempdir().unwrap();
        let (image, mask) = (folder.path().join("i.png"), folder.path().join("m.png"));
        image::GrayImage::new(128, 64).save(&image).unwrap();
        let marked =
            image::GrayImage::from_fn(64, 32, |x, y| image::Luma([u8::from((x, y) == (33, 9))]));
        marked.save(&mask).unwrap();
        let pixels = Preprocess {
            roi: "64,16,64,32".parse().ok(),
            ..region
        };
        for preprocess in [region, pixels] {
            let covered = patch_mask(&image, &[&mask], &preprocess, (4, 4), 8).unwrap();
            // columns 2 and 3 and rows 2 and 3 of the part
            assert_eq!(covered.iter().position(|c| *c), Some(0));
            assert_eq!(covered.iter().filter(|c| **c).count(), 1);
        }
    }

    #[test]
    fn a_share_is_that_of_the_area() {
        let mask = |height: usize, width: usize, set: &[usize]| {
            let mut pixels = vec![0; height * width * 3];
            for i in set {
                pixels[3 * i] = 255;
            }
            RgbImage8::from_pixels(height, width, pixels)
        };
        let share = |mask: &RgbImage8, preprocess: &Preprocess| {
            let part = Part::whole(mask.height(), mask.width());
            cover(mask, part, preprocess, (2, 2), 8)
        };
        let near = |found: Vec<f32>, wanted: [f32; 4]| {
            // edges are moved by ROUNDING
            let close = found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-5);
            assert!(close, "{found:?} {wanted:?}");
        };
        let squash = Preprocess::squash(16, 16, PLAIN);
        // pixels of 4 × 8 in the preprocessed image: half a patch each
        near(share(&mask(4, 2, &[0, 3]), &squash), [0.5, 0.5, 0.0, 0.0]);
        // one pixel that lies in all four
        near(share(&mask(3, 3, &[4]), &squash), [0.111_111; 4]);
        near(share(&mask(1, 1, &[0]), &squash), [1.0; 4]);
        // the outer quarters of the columns are cut off
        let crop = Preprocess::centre_crop(16, 16, PLAIN);
        near(share(&mask(2, 4, &[0, 1, 4]), &crop), [1.0, 0.0, 0.0, 0.0]);
    }
}
