//! The patch-bank score of one image and its gradient with respect to the image's tokens.

use flawtune_kernels::matching::{Matches, PackedPatches, match_patches};
use rayon::prelude::*;

use super::VisualizeError;
use flawtune::score::Aggregate;
use flawtune::unit::{normalise_rows, unit_backward};

/// Patches of support images as unit vectors, to be searched for the nearest.
#[derive(Debug)]
pub struct PatchBank {
    dim: usize,
    /// Unit rows of each image, and the same laid out for matching.
    images: Vec<(Vec<f32>, PackedPatches)>,
}

/// The score of an image, and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchScore {
    /// Mean of the largest distances; larger is more anomalous.
    pub score: f64,
    /// 1 − cosine to the nearest patch of the bank, `[P]`.
    pub distances: Vec<f32>,
    /// The patches whose distances are averaged, the largest first.
    pub top: Vec<usize>,
    /// Gradient of the score with respect to the image's patch tokens, `[P, D]`: zero but for the patches in `top`. The
    /// nearest patch of the bank stays the nearest.
    pub gradient: Vec<f32>,
}

impl PatchBank {
    /// Of patch tokens `[P, D]`, one slice an image.
    ///
    /// # Errors
    /// [`VisualizeError`] without images, or for rows that are not of `dim` numbers.
    pub fn new<'a>(images: &[&'a [f32]], dim: usize) -> Result<Self, VisualizeError> {
        if images.is_empty() {
            return Err(VisualizeError::Empty {
                what: "support images",
            });
        }
        for image in images {
            VisualizeError::rows("patches of a support image", image.len(), dim)?;
        }
        let pack = |image: &&'a [f32]| {
            let mut units = image.to_vec();
            normalise_rows(&mut units, dim, &mut vec![0.0; image.len() / dim]);
            let pack = PackedPatches::pack(&units, dim);
            (units, pack)
        };
        Ok(Self {
            dim,
            images: images.par_iter().map(pack).collect(),
        })
    }

    /// Images in it.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// The score of an image from its patch tokens `[P, D]`, with the support image `left_out` not looked at (it is the
    /// image itself). The largest `fraction · P` distances are averaged, as [`Aggregate::TopFraction`] does.
    ///
    /// # Errors
    /// [`VisualizeError`] for tokens of another width, or if no support image remains.
    pub fn score(
        &self,
        patches: &[f32],
        left_out: Option<usize>,
        fraction: f64,
    ) -> Result<PatchScore, VisualizeError> {
        let (rows, dim) = (
            VisualizeError::rows("patches", patches.len(), self.dim)?,
            self.dim,
        );
        let mut units = patches.to_vec();
        let mut norms = vec![0.0; rows];
        normalise_rows(&mut units, dim, &mut norms);
        let pack = PackedPatches::pack(&units, dim);
        let looked_at: Vec<usize> = (0..self.images.len())
            .filter(|&i| Some(i) != left_out)
            .collect();
        if looked_at.is_empty() {
            return Err(VisualizeError::Empty {
                what: "support images other than the image itself",
            });
        }
        let matches: Vec<Matches> = looked_at
            .par_iter()
            .map(|&i| {
                let mut found = Matches::default();
                match_patches(&pack, &self.images[i].1, &mut found);
                found
            })
            .collect();
        let mut nearest = vec![(f32::NEG_INFINITY, 0, 0); rows];
        for (&image, found) in looked_at.iter().zip(&matches) {
            for (to, (&best, &index)) in nearest.iter_mut().zip(found.best.iter().zip(&found.index))
            {
                if best > to.0 {
                    *to = (best, image, index as usize);
                }
            }
        }
        let distances: Vec<f32> = nearest.iter().map(|n| 1.0 - n.0).collect();
        let count = ((fraction * rows as f64).round() as usize).clamp(1, rows);
        let mut top: Vec<usize> = (0..rows).collect();
        // stable: of equal distances the first patch
        top.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]));
        top.truncate(count);
        let mut gradient = vec![0.0; patches.len()];
        for &p in &top {
            let (_, image, q) = nearest[p];
            let row = &mut gradient[p * dim..][..dim];
            let near = &self.images[image].0[q * dim..][..dim];
            row.iter_mut()
                .zip(near)
                .for_each(|(g, b)| *g = -b / count as f32);
            unit_backward(&units[p * dim..][..dim], norms[p], row);
        }
        let score = Aggregate::TopFraction(fraction).score(&distances);
        Ok(PatchScore {
            score,
            distances,
            top,
            gradient,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bank: the axes of the plane. (3, 4) is nearest to the second, cosine 0.8; (5, 0) lies on the first.
    #[test]
    fn distances_and_gradient_by_hand() {
        let bank = PatchBank::new(&[&[1.0, 0.0], &[0.0, 2.0]], 2).unwrap();
        let found = bank.score(&[3.0, 4.0, 5.0, 0.0], None, 0.5).unwrap();
        assert!((found.distances[0] - 0.2).abs() < 1e-6 && found.distances[1].abs() < 1e-6);
        assert!((found.score - 0.2).abs() < 1e-6);
        assert_eq!(found.top, [0]);
        // −(b − u (u·b)) / ‖x‖ with u = (.6, .8), b = (0, 1): −((0, 1) − .8 (.6, .8)) / 5
        for (g, w) in found.gradient.iter().zip([0.096, -0.072, 0.0, 0.0]) {
            assert!((g - w).abs() < 1e-6, "{:?}", found.gradient);
        }
    }

    #[test]
    fn an_image_is_not_compared_with_itself() {
        let bank = PatchBank::new(&[&[1.0, 0.0], &[0.0, 1.0]], 2).unwrap();
        assert_eq!(bank.score(&[1.0, 0.0], None, 1.0).unwrap().score, 0.0);
        assert_eq!(bank.score(&[1.0, 0.0], Some(0), 1.0).unwrap().score, 1.0);
        let alone = PatchBank::new(&[&[1.0, 0.0]], 2).unwrap();
        assert!(matches!(
            alone.score(&[1.0, 0.0], Some(0), 1.0),
            Err(VisualizeError::Empty { .. })
        ));
        assert!(matches!(
            alone.score(&[1.0], None, 1.0),
            Err(VisualizeError::Length { .. })
        ));
        assert!(matches!(
            PatchBank::new(&[], 2),
            Err(VisualizeError::Empty { .. })
        ));
    }
}
