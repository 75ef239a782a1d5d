//! Layer norm over the features of every lane.

use crate::simd::Simd;
use crate::tile::with_vectors;

/// One panel: `out = (x - mean) / sqrt(variance + eps)` per lane; gain and bias live in the next weights.
pub(crate) struct Norm {
    /// `[features][vectors·LANES]`
    pub(crate) x: *const f32,
    /// As `x`.
    pub(crate) out: *mut f32,
    pub(crate) features: usize,
    pub(crate) vectors: usize,
    pub(crate) eps: f32,
}

/// Runs a [`Norm`].
///
/// # Safety
/// `S` must be available; `x` and `out` as long as [`Norm`] says, `out` not touched by other threads.
#[inline(always)]
pub(crate) unsafe fn norm<S: Simd, const M: usize>(n: Norm) {
    // SAFETY: passed on from the caller.
    unsafe { with_vectors!(n.vectors, norm_panel::<S, M>(&n)) }
}

/// Partial sums per lane: short chains for the machine, smaller rounding errors for the result.
const CHAINS: usize = 4;

#[inline(always)]
unsafe fn norm_panel<S: Simd, const M: usize, const NV: usize>(n: &Norm) {
    // SAFETY: `norm`'s contract.
    unsafe {
        let width = NV * S::LANES;
        let (mean, scale) = statistics::<S, NV>(n.x, n.features, n.eps);
        for f in 0..n.features {
            for v in 0..NV {
                let at = f * width + v * S::LANES;
                S::store(
                    n.out.add(at),
                    S::mul(S::sub(S::load(n.x.add(at)), mean[v]), scale[v]),
                );
            }
        }
    }
}

/// Mean per lane of a panel `[features][NV·LANES]`.
///
/// # Safety
/// `S` must be available and `x` valid for the panel.
#[inline(always)]
pub(super) unsafe fn mean<S: Simd, const NV: usize>(x: *const f32, features: usize) -> [S::V; NV] {
    // SAFETY: passed on from the caller.
    unsafe {
        let count = S::splat(features as f32);
        let mut mean = sum::<S, NV>(x, features, |x, _| x, &[S::splat(0.0); NV]);
        for m in &mut mean {
            *m = S::div(*m, count);
        }
        mean
    }
}

/// Mean and `1 / sqrt(variance + eps)` per lane of a panel `[features][NV·LANES]`.
///
/// # Safety
/// `S` must be available and `x` valid for the panel.
#[inline(always)]
unsafe fn statistics<S: Simd, const NV: usize>(
    x: *const f32,
    features: usize,
    eps: f32,
) -> ([S::V; NV], [S::V; NV]) {
    // SAFETY: passed on from the caller.
    unsafe {
        let count = S::splat(features as f32);
        let mean = mean::<S, NV>(x, features);
        let mut scale = sum::<S, NV>(
            x,
            features,
            |x, m| {
                let d = S::sub(x, m);
                S::mul(d, d)
            },
            &mean,
        );
        for s in &mut scale {
            let variance = S::div(*s, count);
            *s = S::div(S::splat(1.0), S::sqrt(S::add(variance, S::splat(eps))));
        }
        (mean, scale)
    }
}

/// `Σ_f term(x_f, m)` per lane.
///
/// # Safety
/// As [`statistics`].
#[inline(always)]
unsafe fn sum<S: Simd, const NV: usize>(
    x: *const f32,
    features: usize,
    term: impl Fn(S::V, S::V) -> S::V,
    m: &[S::V; NV],
) -> [S::V; NV] {
    // SAFETY: passed on from the caller.
    unsafe {
        let width = NV * S::LANES;
        let mut sums = [[S::splat(0.0); NV]; CHAINS];
        let whole = features / CHAINS * CHAINS;
        for f in (0..whole).step_by(CHAINS) {
            for (c, sums) in sums.iter_mut().enumerate() {
                for v in 0..NV {
                    let x = S::load(x.add((f + c) * width + v * S::LANES));
                    sums[v] = S::add(sums[v], term(x, m[v]));
                }
            }
        }
        for f in whole..features {
            for v in 0..NV {
                let x = S::load(x.add(f * width + v * S::LANES));
                sums[0][v] = S::add(sums[0][v], term(x, m[v]));
            }
        }
        let mut total = sums[0];
        for v in 0..NV {
            total[v] = S::add(
                S::add(sums[0][v], sums[1][v]),
                S::add(sums[2][v], sums[3][v]),
            );
        }
        total
    }
}
