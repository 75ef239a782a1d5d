//! Distances of patches to those of normal images, with the image itself left out where it is one of them.
//!
//! A normal image whose own patches lie in the bank would be at distance 0 of itself; whatever is learned or
//! standardised on such distances is too optimistic. So every distance here can leave one image out.

use flawtune_kernels::matching::{PackedPatches, max_similarity};
use rayon::prelude::*;

use crate::adapt::normalise_rows;
use crate::features::ImageTokens;

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
        Self { images: images.par_iter().map(|i| pack_unit(i.patches(), dim)).collect(), dim }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether it holds no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    fn nearest(&self, image: &PackedPatches, leave_out: Option<usize>) -> Vec<f32> {
        let mut best = vec![-1.0f32; image.patches()];
        let mut room = vec![0.0; image.patches()];
        for (_, other) in self.images.iter().enumerate().filter(|(i, _)| Some(*i) != leave_out) {
            max_similarity(image, other, &mut room);
            best.iter_mut().zip(&room).for_each(|(b, &s)| *b = b.max(s));
        }
        for b in &mut best {
            *b = 1.0 - *b;
        }
        best
    }

    /// `1 − max cos` of every patch to the bank, one list per image; 2 from an empty bank.
    pub fn distances(&self, images: &[ImageTokens]) -> Vec<Vec<f32>> {
        images.par_iter().map(|i| self.nearest(&pack_unit(i.patches(), self.dim), None)).collect()
    }

    /// The same for the bank's own images, each against the others.
    pub fn left_out_distances(&self) -> Vec<Vec<f32>> {
        (0..self.len()).into_par_iter().map(|i| self.nearest(&self.images[i], Some(i))).collect()
    }
}
