//! Rotary position embedding of the patch tokens (`DINOv3`), forward and backward.

use crate::config::{Position, VitConfig};
use crate::vit::positions::rotation;

/// Cosine and sine of every patch's angles: `[patches, head_dim / 2]` each.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotation {
    /// The table for a `rows`×`columns` grid of patches; `None` for a backbone with learned positions.
    pub(super) fn new(config: &VitConfig, grid: (usize, usize)) -> Option<Self> {
        let Position::Rope {
            base,
            round_periods,
        } = config.position
        else {
            return None;
        };
        let (cos, sin) = rotation(grid, 0, config.head_dim(), base, round_periods);
        Some(Self {
            cos,
            sin,
            half: config.head_dim() / 2,
        })
    }

    /// Rotates row `patch` of one head, `[head_dim]`; backwards (the transpose) with `inverse`.
    pub(super) fn rotate(&self, patch: usize, row: &mut [f32], inverse: bool) {
        let at = patch * self.half..(patch + 1) * self.half;
        let (low, high) = row.split_at_mut(self.half);
        let sign = if inverse { -1.0 } else { 1.0 };
        for (((a, b), c), s) in low
            .iter_mut()
            .zip(high)
            .zip(&self.cos[at.clone()])
            .zip(&self.sin[at])
        {
            let s = sign * s;
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}
