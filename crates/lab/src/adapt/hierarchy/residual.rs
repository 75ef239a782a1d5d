//! What is odd about an image: how its oddest patches differ from the good patches most like them.

use flawtune_kernels::matmul::{Op, matmul};
use rayon::prelude::*;

use flawtune::features::{ImageTokens, TokenSet};
use flawtune::unit::normalise_rows;

/// Share of an image's patches, the oddest, that speak for it; never fewer than [`LEAST_PATCHES`].
const ODD_SHARE: f64 = 0.02;
/// Patches that speak for an image at the least.
const LEAST_PATCHES: usize = 3;

/// Positions of the patches of an image that lie furthest from those of good images, the furthest first.
pub fn oddest(distances: &[f32]) -> Vec<usize> {
    let count = ((distances.len() as f64 * ODD_SHARE).round() as usize).max(LEAST_PATCHES);
    let mut order: Vec<usize> = (0..distances.len()).collect();
    order.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// The patches of good images, for residuals to them.
#[derive(Debug)]
pub struct GoodPatches {
    /// Unit rows of each image, `[P, D]`.
    images: Vec<Vec<f32>>,
    dim: usize,
}

impl GoodPatches {
    /// Of these images.
    pub fn new(normals: &TokenSet) -> Self {
        let unit = |image: &ImageTokens| {
            let mut rows = image.patches().to_vec();
            let mut norms = vec![0.0; rows.len() / normals.dim];
            normalise_rows(&mut rows, normals.dim, &mut norms);
            rows
        };
        Self {
            images: normals.images.par_iter().map(unit).collect(),
            dim: normals.dim,
        }
    }

    /// Residuals of the oddest patches of images, `[R, D]` each, of unit length: a patch less the most similar patch of a good
    /// image, both of unit length. `distances` are those of each image's patches to the good ones. With `own` the images are
    /// the good images themselves, each compared with the others.
    pub fn residuals(
        &self,
        images: &[ImageTokens],
        distances: &[Vec<f32>],
        own: bool,
    ) -> Vec<Vec<f32>> {
        images
            .par_iter()
            .zip(distances)
            .enumerate()
            .map(|(i, (image, distances))| self.residual(image, distances, own.then_some(i)))
            .collect()
    }

    fn residual(
        &self,
        image: &ImageTokens,
        distances: &[f32],
        leave_out: Option<usize>,
    ) -> Vec<f32> {
        let dim = self.dim;
        let odd = oddest(distances);
        let mut rows: Vec<f32> = odd
            .iter()
            .flat_map(|&p| image.patches()[p * dim..(p + 1) * dim].iter().copied())
            .collect();
        normalise_rows(&mut rows, dim, &mut vec![0.0; odd.len()]);
        let mut best: Vec<(f32, &[f32])> = vec![(f32::NEG_INFINITY, &[]); odd.len()];
        let mut cosines = Vec::new();
        for (i, good) in self.images.iter().enumerate() {
            if leave_out == Some(i) {
                continue;
            }
            let count = good.len() / dim;
            cosines.resize(odd.len() * count, 0.0);
            matmul(
                odd.len(),
                count,
                dim,
                &rows,
                Op::None,
                good,
                Op::Transpose,
                &mut cosines,
                false,
            );
            for (best, cosines) in best.iter_mut().zip(cosines.chunks_exact(count)) {
                for (cosine, patch) in cosines.iter().zip(good.chunks_exact(dim)) {
                    if *cosine > best.0 {
                        *best = (*cosine, patch);
                    }
                }
            }
        }
        for (row, (_, nearest)) in rows.chunks_exact_mut(dim).zip(best) {
            row.iter_mut().zip(nearest).for_each(|(v, n)| *v -= n);
        }
        normalise_rows(&mut rows, dim, &mut vec![0.0; odd.len()]);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oddest_patches_come_first_and_are_never_too_few() {
        assert_eq!(oddest(&[0.1, 0.9, 0.3, 0.9, 0.2]), [1, 3, 2]);
        let many: Vec<f32> = (0..400).map(|i| i as f32).collect();
        assert_eq!(oddest(&many), [399, 398, 397, 396, 395, 394, 393, 392]);
        assert_eq!(oddest(&[0.5]), [0]);
    }

    #[test]
    fn residuals_by_hand_and_never_to_the_image_itself() {
        let image = |patch: [f32; 2]| ImageTokens::owned([[0.0, 0.0], patch].concat(), 1, 2);
        let images = vec![image([2.0, 0.0]), image([0.0, 3.0])];
        let good = GoodPatches::new(&TokenSet {
            images: images.clone(),
            grid: (1, 1),
            dim: 2,
        });
        // (0.8, 0.6) is nearest to (1, 0): (−0.2, 0.6), made unit length
        let length = (0.04f32 + 0.36).sqrt();
        let found = good.residuals(&[image([4.0, 3.0])], &[vec![0.2]], false);
        assert!(
            (found[0][0] + 0.2 / length).abs() < 1e-6 && (found[0][1] - 0.6 / length).abs() < 1e-6
        );
        let own = good.residuals(&images, &[vec![1.0], vec![1.0]], true);
        let half = 0.5f32.sqrt();
        assert!(
            (own[0][0] - half).abs() < 1e-6 && (own[0][1] + half).abs() < 1e-6,
            "{own:?}"
        );
    }
}
