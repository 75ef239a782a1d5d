//! Attention of one head for one panel of queries; the scores never leave the core's cache.
//!
//! Queries lie in the lanes, so the softmax over the keys runs down each lane, and the exponentials are already
//! the right operand of the product with the values.

use crate::math;
use crate::simd::Simd;
use crate::tile::{tile, with_vectors};

/// Some queries of one head against all keys of their image.
pub(crate) struct Attention {
    /// Packed queries of this head, `[rotary_dim][stride]`, scaled by `log2(e)/√head_dim`.
    pub(crate) q: *const f32,
    /// Lanes from one feature of a query to the next.
    pub(crate) stride: usize,
    /// Vectors of queries.
    pub(crate) vectors: usize,
    /// Keys of this head, `[key/rows][rotary_dim][rows]`.
    pub(crate) k: *const f32,
    /// Values of this head, `[dim/rows][keys][rows]`.
    pub(crate) v: *const f32,
    /// Keys of `v`, with padding and of all images.
    pub(crate) keys: usize,
    /// First key of the image.
    pub(crate) first: usize,
    /// Keys of the image.
    pub(crate) count: usize,
    pub(crate) rotary_dim: usize,
    /// Numbers per head.
    pub(crate) head_dim: usize,
    /// Scratch of `(count + 2·rows) · vectors · LANES` numbers.
    pub(crate) strip: *mut f32,
    /// Output features of this head `[head_dim][stride]`.
    pub(crate) out: *mut f32,
    /// Lanes of `out` to write; the others belong to another image.
    pub(crate) lanes: std::ops::Range<usize>,
}

/// Runs an [`Attention`].
///
/// # Safety
/// `S` must be available, `M = S::ROWS`, all buffers as long as [`Attention`] says; nobody else touches `strip` or
/// the lanes of `out`.
#[inline(always)]
pub(crate) unsafe fn attention<S: Simd, const M: usize>(a: Attention) {
    // SAFETY: passed on from the caller.
    unsafe { with_vectors!(a.vectors, attention_panel::<S, M>(&a)) }
}

#[inline(always)]
unsafe fn attention_panel<S: Simd, const M: usize, const NV: usize>(a: &Attention) {
    // SAFETY: `attention`'s contract. The strip holds whole tiles of keys from the one that holds `first`.
    unsafe {
        let width = NV * S::LANES;
        let (first_tile, end) = (a.first / M, a.first + a.count);
        let mut top = [S::splat(f32::NEG_INFINITY); NV];
        for t in first_tile..end.div_ceil(M) {
            let keys = a.k.add(t * a.rotary_dim * M);
            let acc = tile::<S, M, NV>(a.rotary_dim, keys, M, a.q, a.stride);
            let strip = a.strip.add((t - first_tile) * M * width);
            let inside = t * M >= a.first && t * M + M <= end;
            for (r, row) in acc.iter().enumerate() {
                let counts = inside || (a.first..end).contains(&(t * M + r));
                for (v, &x) in row.iter().enumerate() {
                    S::store(strip.add(r * width + v * S::LANES), x);
                    if counts {
                        top[v] = S::max(x, top[v]);
                    }
                }
            }
        }
        let weights = a.strip.add((a.first - first_tile * M) * width);
        let mut total = [S::splat(0.0); NV];
        for key in 0..a.count {
            for v in 0..NV {
                let p = weights.add(key * width + v * S::LANES);
                let e = math::exp2::<S>(S::sub(S::load(p), top[v]));
                total[v] = S::add(total[v], e);
                S::store(p, e);
            }
        }
        for t in &mut total {
            *t = S::div(S::splat(1.0), *t);
        }
        let whole = a.lanes.start == 0 && a.lanes.end == width;
        for d in (0..a.head_dim).step_by(M) {
            let values = a.v.add(d * a.keys + a.first * M);
            let acc = tile::<S, M, NV>(a.count, values, M, weights, width);
            for (r, row) in acc.iter().enumerate().take(a.head_dim - d) {
                let out = a.out.add((d + r) * a.stride);
                let mut spilled = [0.0f32; 48];
                for (v, &x) in row.iter().enumerate() {
                    let x = S::mul(x, total[v]);
                    if whole {
                        S::store(out.add(v * S::LANES), x);
                    } else {
                        S::store(spilled.as_mut_ptr().add(v * S::LANES), x);
                    }
                }
                if !whole {
                    for l in a.lanes.clone() {
                        *out.add(l) = spilled[l];
                    }
                }
            }
        }
    }
}
