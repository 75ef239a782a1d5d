//! Distances of patches to those of normal images, with the image itself left out where it is one of them.
//!
//! A normal image whose own patches lie in the bank would be at distance 0 of itself; whatever is learned or
//! standardised on such distances is too optimistic. So every distance here can leave one image out.

use flawtune_kernels::matching::PackedPatches;
use rayon::prelude::*;

use crate::features::ImageTokens;
use crate::score::search::{largest_cosine, left_out_distances};
use crate::unit::normalise_rows;

/// Unit-length patch tokens of images, packed for matching.
#[derive(Debug)]
pub struct PatchBank {
    images: Vec<PackedPatches>,
    dim: usize,
}

pub(super) fn pack_unit(rows: &[f32], dim: usize) -> PackedPatches {
    let mut rows = rows.to_vec();
    let mut norms = vec![0.0; rows.len() / dim];
    normalise_rows(&mut rows, dim, &mut norms);
    PackedPatches::pack(&rows, dim)
}

impl PatchBank {
    /// Packs the patches of `images`, `dim` numbers each.
    pub fn new(images: &[ImageTokens], dim: usize) -> Self {
        Self {
            images: images
                .par_iter()
                .map(|i| pack_unit(i.patches(), dim))
                .collect(),
            dim,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether it holds no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    fn nearest(&self, image: &PackedPatches) -> Vec<f32> {
        let mut best = largest_cosine(image, &self.images, -1.0);
        for b in &mut best {
            *b = 1.0 - *b;
        }
        best
    }

    /// `1 − max cos` of every patch to the bank, one list per image; 2 from an empty bank.
    pub fn distances(&self, images: &[ImageTokens]) -> Vec<Vec<f32>> {
        images
            .par_iter()
            .map(|i| self.nearest(&pack_unit(i.patches(), self.dim)))
            .collect()
    }

    /// The same for the bank's own images, each against the others. Both directions of a pair come from one product.
    pub fn left_out_distances(&self) -> Vec<Vec<f32>> {
        left_out_distances(&self.images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_out_equals_a_bank_without_the_image() {
        let (patches, dim) = (7, 12);
        let images: Vec<ImageTokens> = (0..9)
            .map(|i| {
                let values =
                    (0..(1 + patches) * dim).map(|v| ((v * 37 + i * 101) % 89) as f32 / 40.0 - 1.0);
                ImageTokens::owned(values.collect(), patches, dim)
            })
            .collect();
        let all = PatchBank::new(&images, dim).left_out_distances();
        for (i, image) in images.iter().enumerate() {
            let others: Vec<ImageTokens> = images
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .map(|(_, o)| o.clone())
                .collect();
            let without = PatchBank::new(&others, dim).distances(std::slice::from_ref(image));
            assert_eq!(all[i], without[0], "image {i}");
        }
        assert_eq!(
            PatchBank::new(&images[..1], dim).left_out_distances(),
            [vec![2.0; patches]]
        );
    }
}
