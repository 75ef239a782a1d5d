//! A memory of defect patches: how much nearer is a patch to known defects than to normal images?

use rayon::prelude::*;

use super::bank::pack_unit;
use super::patch_head::PatchExample;
use crate::score::Aggregate;
use flawtune_kernels::matching::{PackedPatches, max_similarity};

/// The oddest patches of the known defects (or those under their masks), unit length. Nothing in it is trained.
#[derive(Debug)]
pub struct DefectMemory {
    patches: PackedPatches,
    dim: usize,
}

impl DefectMemory {
    /// Keeps `share` of each defect's patches, those farthest from the normal bank, or those under its mask.
    pub fn new(defective: &[PatchExample<'_>], dim: usize, share: f64) -> Self {
        let mut rows = Vec::new();
        for image in defective {
            let mut order: Vec<usize> = (0..image.distances.len()).collect();
            order.sort_by(|&a, &b| {
                image.distances[b]
                    .total_cmp(&image.distances[a])
                    .then(a.cmp(&b))
            });
            let count =
                ((share * order.len() as f64).round() as usize).clamp(1, order.len().max(1));
            let picked: Vec<usize> = match image.mask.filter(|m| m.iter().any(|covered| *covered)) {
                Some(mask) => (0..mask.len()).filter(|&p| mask[p]).collect(),
                None => order.into_iter().take(count).collect(),
            };
            rows.extend(
                picked
                    .into_iter()
                    .flat_map(|p| &image.tokens.patches()[p * dim..][..dim]),
            );
        }
        Self {
            patches: pack_unit(&rows, dim),
            dim,
        }
    }

    /// Patches remembered.
    pub fn len(&self) -> usize {
        self.patches.patches()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Distance to the normal bank minus distance to the nearest remembered defect patch, per patch: larger is more
    /// like a known defect.
    pub fn contrast(&self, image: &PatchExample<'_>) -> Vec<f32> {
        let packed = pack_unit(image.tokens.patches(), self.dim);
        let mut nearest = vec![0.0; packed.patches()];
        max_similarity(&packed, &self.patches, &mut nearest);
        image
            .distances
            .iter()
            .zip(nearest)
            .map(|(d, s)| d - (1.0 - s))
            .collect()
    }

    /// Mean of the top contrasts of each image.
    pub fn scores(&self, images: &[PatchExample<'_>], share: f64) -> Vec<f64> {
        images
            .par_iter()
            .map(|i| Aggregate::TopFraction(share).score(&self.contrast(i)))
            .collect()
    }
}
