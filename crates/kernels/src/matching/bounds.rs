//! Upper bounds of an image similarity, from a few numbers a patch.
//!
//! Patches of one kind of part lie near a subspace of few dimensions. With orthonormal rows `Q` that span it,
//! `a·b = Qa·Qb + a⊥·b⊥ ≤ Qa·Qb + ‖a⊥‖·‖b⊥‖` by Cauchy and Schwarz. The right side is the dot product of `[Qa, ‖a⊥‖]`
//! and `[Qb, ‖b⊥‖]`: so the bounds of all patches of two images are themselves a patch matching, with 16 or 64 numbers
//! a patch in place of 384, and the same kernel computes them.
//!
//! # Rounding
//! Write `u = 2⁻²⁴`, `γ_n = n·u/(1 − n·u)` for the relative error of an f32 sum of n products in any order, `D` for the
//! numbers per patch, and `V` for the rows that are stored: `V·Vᵀ = I + E` with `‖E‖ ≤ ε`, measured in f64.
//!
//! 1. With `Q = (V·Vᵀ)^(−½)·V`, whose rows are orthonormal, `‖Va − Qa‖ ≤ ε‖a‖`. What is computed for `Va` is off by at most
//!    `γ_D·‖v_i‖·‖a‖` in component i. So the coefficients `c_a = Qa + e_a` have `‖e_a‖ ≤ η‖a‖` with
//!    `η = ε + √(r(1 + ε))·γ_D`.
//! 2. Hence `Qa·Qb ≤ c_a·c_b + (2η(1 + η) + η²)·‖a‖‖b‖`, and `‖a⊥‖² = ‖a‖² − ‖Qa‖² ≤ ‖a‖² − (‖c_a‖ − η‖a‖)²`, whose root,
//!    rounded up, is the residual that is stored.
//! 3. The bound's own dot product of `r + 1` numbers is off by at most `γ_(r+1)·(‖c_a‖‖c_b‖ + R_a·R_b)`, at most
//!    `γ_(r+1)·2(1 + η)²·‖a‖‖b‖`; the product that it bounds, by at most `γ_D·‖a‖‖b‖`.
//!
//! Maximum and mean keep an inequality, so the margin of an image similarity is the sum of the factors in 2 and 3 times the
//! largest norms of both images. Sums in f64 and steps that round once are covered by a relative [`SLOP`]. Norms
//! outside [`NORMS`] would leave the relative error model (overflow, numbers below the normal range): images with such patches
//! get no bound.

use std::ops::RangeInclusive;

use super::{PackedPatches, max_similarity};
use crate::matmul::{Op, matmul};

/// Relative error that is allowed to everything computed in f64 (about 1e-13) and to single roundings.
const SLOP: f64 = 1e-9;
/// Norms of patches that are not zero.
const NORMS: RangeInclusive<f64> = 1e-6..=1e6;
/// Patches that the subspace is fitted to, spread evenly over all.
const SAMPLES: usize = 2048;
/// Rounds of the power iteration; any subspace gives valid bounds, a better one tighter bounds.
const ROUNDS: usize = 8;

/// Rows that nearly span the patches of a set of images, the most important first.
#[derive(Debug)]
pub(super) struct Subspace {
    /// `[rank, dim]`.
    rows: Vec<f32>,
    dim: usize,
    rank: usize,
    /// `ε` of the module's text.
    error: f64,
}

/// The patches of one image at every level of detail.
#[derive(Debug)]
pub(super) struct Outline {
    /// `[patches, rank + 1]` for each level.
    levels: Vec<PackedPatches>,
    /// Largest norm of a patch; infinite if the image can't be bounded.
    norm: f64,
}

impl Subspace {
    /// Fits `rank` rows to the images; none if they have no direction at all.
    pub(super) fn fit(images: &[PackedPatches], rank: usize) -> Option<Self> {
        let dim = images.first()?.dim;
        let moment = second_moment(images, dim);
        // a fixed sequence of odd multiples fills the start; the iteration turns it towards the images
        let mut rows: Vec<f32> = (1..=(rank.min(dim) * dim) as u64)
            .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / 8_388_608.0 - 1.0)
            .collect();
        let mut room = Vec::new();
        for _ in 0..ROUNDS {
            let count = rows.len() / dim;
            room.resize(rows.len(), 0.0);
            matmul(
                count,
                dim,
                dim,
                &rows,
                Op::None,
                &moment,
                Op::None,
                &mut room,
                false,
            );
            rows = orthonormal(&room, dim);
        }
        let rank = rows.len() / dim;
        if rank == 0 {
            return None;
        }
        let mut square = 0.0;
        for i in 0..rank {
            for j in 0..rank {
                let product = dot(&rows[i * dim..][..dim], &rows[j * dim..][..dim]);
                square += (product - f64::from(u8::from(i == j))).powi(2);
            }
        }
        let error = square.sqrt() + SLOP;
        (error < 1e-2).then_some(Self {
            rows,
            dim,
            rank,
            error,
        })
    }

    /// The image at the given numbers per patch (each at least 2, ascending), residual included.
    pub(super) fn outline(&self, image: &PackedPatches, levels: &[usize]) -> Outline {
        let (dim, count) = (self.dim, image.patches());
        let rows = image.rows();
        let mut all = vec![0.0; count * self.rank];
        matmul(
            count,
            self.rank,
            dim,
            &rows,
            Op::None,
            &self.rows,
            Op::Transpose,
            &mut all,
            false,
        );
        let norms: Vec<f64> = rows
            .chunks_exact(dim)
            .map(|row| dot(row, row).sqrt())
            .collect();
        let bounded = norms.iter().all(|n| *n == 0.0 || NORMS.contains(n));
        let norm = if bounded {
            norms.iter().copied().fold(0.0, f64::max)
        } else {
            f64::INFINITY
        };
        let level = |&numbers: &usize| {
            let rank = self.rank_of(numbers);
            let shift = self.shift(rank);
            let mut out = Vec::with_capacity(count * (rank + 1));
            for (all, &n) in all.chunks_exact(self.rank).zip(&norms) {
                let kept = &all[..rank];
                let seen = (dot(kept, kept).sqrt() - shift * n).max(0.0);
                let residual = (n * n * (1.0 + SLOP) - seen * seen).max(0.0).sqrt();
                out.extend_from_slice(kept);
                out.push((residual * (1.0 + 1e-6)) as f32);
            }
            PackedPatches::pack_with(image.kernels, &out, rank + 1)
        };
        Outline {
            levels: levels.iter().map(level).collect(),
            norm,
        }
    }

    /// At least `mean_p max_q a_p · b_q` as f32 dot products give it, from level `level` of `levels`.
    pub(super) fn bound(
        &self,
        a: &Outline,
        b: &Outline,
        levels: &[usize],
        level: usize,
        room: &mut Vec<f32>,
    ) -> f64 {
        let norms = a.norm * b.norm;
        if !norms.is_finite() {
            return f64::INFINITY;
        }
        let (a, b) = (&a.levels[level], &b.levels[level]);
        room.resize(a.patches(), 0.0);
        max_similarity(a, b, room);
        let rank = self.rank_of(levels[level]);
        let shift = self.shift(rank);
        let factor = 2.0 * shift * (1.0 + shift)
            + shift * shift
            + gamma(rank + 1) * 2.0 * (1.0 + shift).powi(2)
            + gamma(self.dim);
        let bound = mean(room) + norms * (factor + 2.0 * SLOP);
        if bound.is_nan() { f64::INFINITY } else { bound }
    }

    fn rank_of(&self, numbers: usize) -> usize {
        (numbers - 1).min(self.rank)
    }

    /// `η` of the module's text.
    fn shift(&self, rank: usize) -> f64 {
        self.error + (rank as f64 * (1.0 + self.error)).sqrt() * gamma(self.dim) + SLOP
    }
}

/// `γ_n` of the module's text.
fn gamma(n: usize) -> f64 {
    let nu = n as f64 / f64::from(1 << 24);
    nu / (1.0 - nu)
}

/// The mean of f32 numbers in f64, as similarities are averaged.
pub(super) fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
}

/// `x · y` in f64.
fn dot(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for (x, y) in x.chunks(8).zip(y.chunks(8)) {
        for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *s += f64::from(x) * f64::from(y);
        }
    }
    sums.iter().sum()
}

/// `Σ x·xᵀ` over patches spread evenly over the images, `[dim, dim]`.
fn second_moment(images: &[PackedPatches], dim: usize) -> Vec<f32> {
    let count: usize = images.iter().map(PackedPatches::patches).sum();
    let step = count.div_ceil(SAMPLES).max(1);
    let (mut samples, mut before) = (Vec::new(), 0);
    for image in images {
        let first = (step - before % step) % step;
        for patch in (first..image.patches()).step_by(step) {
            let from = samples.len();
            image.copy_row(patch, &mut samples);
            samples[from..]
                .iter_mut()
                .filter(|x| !x.is_finite())
                .for_each(|x| *x = 0.0);
        }
        before += image.patches();
    }
    let mut moment = vec![0.0; dim * dim];
    matmul(
        dim,
        dim,
        samples.len() / dim,
        &samples,
        Op::Transpose,
        &samples,
        Op::None,
        &mut moment,
        false,
    );
    moment
}

/// Orthonormal rows with the span of the given ones, those that depend on earlier ones left out.
fn orthonormal(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut done: Vec<f64> = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(dim) {
        let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let before = length(&row);
        // the second pass takes away what rounding left of the first
        for _ in 0..2 {
            for other in done.chunks_exact(dim) {
                let along: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let after = length(&row);
        // what is left of an f32 row that depends on others is rounding
        if after.is_finite() && after > before * 1e-4 {
            done.extend(row.iter().map(|x| x / after));
        }
    }
    done.into_iter().map(|x| x as f32).collect()
}
