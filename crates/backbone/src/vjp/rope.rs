//! Rotary position embedding of the patch tokens (`DINOv3`), forward and backward.

use crate::config::{Position, VitConfig};

/// Cosine and sine of every patch's angles: `[patches, head_dim / 2]` each.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotation {
    /// The table for a `rows`×`columns` grid of patches; `None` for a backbone with learned positions.
    ///
    /// Angles are `2π·y/period_j` then `2π·x/period_j`, with `y = 2(r + ½)/rows − 1` and likewise `x`. Coordinates and
    /// inverse periods are rounded to f32 as in the released models; the angle itself is computed in f64.
    pub(super) fn new(config: &VitConfig, grid: (usize, usize)) -> Option<Self> {
        let Position::Rope { base, round_periods } = config.position else {
            return None;
        };
        let head_dim = config.head_dim();
        let quarter = head_dim / 4;
        let inverse: Vec<f64> = (0..quarter)
            .map(|j| {
                let period = base.powf((4 * j) as f32 / head_dim as f32);
                let period = if round_periods { half::bf16::from_f32(period).to_f32() } else { period };
                f64::from(1.0 / period)
            })
            .collect();
        let coordinate = |i: usize, n: usize| f64::from(2.0 * ((i as f32 + 0.5) / n as f32) - 1.0);
        let half = 2 * quarter;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for r in 0..grid.0 {
            for c in 0..grid.1 {
                for at in [coordinate(r, grid.0), coordinate(c, grid.1)] {
                    for inv in &inverse {
                        let angle = std::f64::consts::TAU * at * inv;
                        cos.push(angle.cos() as f32);
                        sin.push(angle.sin() as f32);
                    }
                }
            }
        }
        Some(Self { cos, sin, half })
    }

    /// Rotates row `patch` of one head, `[head_dim]`; backwards (the transpose) with `inverse`.
    pub(super) fn rotate(&self, patch: usize, row: &mut [f32], inverse: bool) {
        let at = patch * self.half..(patch + 1) * self.half;
        let (low, high) = row.split_at_mut(self.half);
        let sign = if inverse { -1.0 } else { 1.0 };
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            let s = sign * s;
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}
