//! The product of one panel of patches with all patches of another image, reduced to maxima on the fly.

use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::tile::tile;

/// One panel of asking patches against all rows of `data`.
pub(crate) struct Search<'a> {
    /// Numbers per patch.
    pub(crate) dim: usize,
    /// The asking patches, `[dim][vectors·LANES]`.
    pub(crate) panel: &'a [f32],
    /// Vectors of the panel.
    pub(crate) vectors: usize,
    /// Layout of the answering patches.
    pub(crate) rows: Lanes,
    /// The answering patches, packed.
    pub(crate) data: &'a [f32],
    /// Receives the maximum of each lane, `[vectors·LANES]`.
    pub(crate) best: &'a mut [f32],
    /// Receives the row that reached it, as a whole number (exact below 2^24); empty if not wanted.
    pub(crate) index: &'a mut [f32],
    /// Receives the largest product of each lane with any other row than that; empty if not wanted, and only with `index`.
    pub(crate) second: &'a mut [f32],
}

/// One dot product for each patch of one image with a chosen patch of another, see [`products`].
pub(crate) struct Products<'a> {
    /// Numbers per patch.
    pub(crate) dim: usize,
    /// `[patches, dim]`.
    pub(crate) a: &'a [f32],
    /// `[other patches, dim]`.
    pub(crate) b: &'a [f32],
    /// Which patch of `b` for each of `a`; all in range.
    pub(crate) index: &'a [u32],
    /// Receives the products, one a patch of `a`.
    pub(crate) out: &'a mut [f32],
}

/// Patches whose sums run side by side, to hide the latency of a multiply-add.
const CHAINS: usize = 8;

/// Dot products summed as the tile sums them: fused multiply-adds in ascending feature order.
#[inline(always)]
pub(crate) fn products(p: Products<'_>) {
    let Products {
        dim,
        a,
        b,
        index,
        out,
    } = p;
    let mut first = 0;
    while first < index.len() {
        // the last block repeats earlier patches rather than being narrow
        let from = if index.len() < CHAINS {
            first
        } else {
            first.min(index.len() - CHAINS)
        };
        let rows: [(&[f32], &[f32]); CHAINS] = std::array::from_fn(|l| {
            let patch = (from + l).min(index.len() - 1);
            (
                &a[patch * dim..][..dim],
                &b[index[patch] as usize * dim..][..dim],
            )
        });
        let mut sums = [0.0f32; CHAINS];
        for f in 0..dim {
            for l in 0..CHAINS {
                sums[l] = rows[l].0[f].mul_add(rows[l].1[f], sums[l]);
            }
        }
        for (out, sum) in out[from..].iter_mut().zip(sums) {
            *out = sum;
        }
        first = from + CHAINS;
    }
}

/// [`Search`] that also keeps the maxima of each row over the lanes.
pub(crate) struct Both<'a> {
    /// The lane direction.
    pub(crate) search: Search<'a>,
    /// Column of lane 0.
    pub(crate) first_column: usize,
    /// Lanes that are columns; the rest is padding and never a maximum.
    pub(crate) columns: usize,
    /// Running maxima `[rows][LANES]`: lane `l` over the columns congruent to `l`.
    pub(crate) row_best: &'a mut [f32],
    /// Their columns.
    pub(crate) row_index: &'a mut [f32],
}

/// Calls `body(tile rows, first row, valid rows, A, lda)` for all tiles of `rows`; a last tile of at most half
/// the height goes to `half`.
macro_rules! for_each_tile {
    ($rows:expr, $data:expr, $dim:expr, $m:expr, $h:expr, |$first:ident, $valid:ident, $a:ident, $lda:ident| $full:expr, $half:expr) => {
        for p in 0..$rows.panels() {
            let panel = $rows.panel(p);
            let columns = $rows.columns_of(panel);
            let $lda = panel.vectors * $rows.width;
            let base = $data.as_ptr().add($rows.offset(panel, $dim));
            let mut lane = 0;
            while lane < columns.len() {
                let $first = columns.start + lane;
                let $valid = (columns.len() - lane).min($m);
                let $a = base.add(lane);
                if $valid <= $h {
                    $half;
                } else {
                    $full;
                }
                lane += $m;
            }
        }
    };
}

/// As `with_vectors!` with two tile heights.
macro_rules! with_vectors3 {
    ($vectors:expr, $f:ident :: <$S:ty, $M:tt, $H:tt> ( $($arg:expr),* )) => {
        match $vectors {
            1 => $f::<$S, $M, $H, 1>($($arg),*),
            2 => $f::<$S, $M, $H, 2>($($arg),*),
            _ => $f::<$S, $M, $H, 3>($($arg),*),
        }
    };
}

/// Runs a [`Search`].
///
/// # Safety
/// `S` must be available, `M = S::ROWS`, `H = M/2`, LANES a multiple of `H`, and the slices as long as [`Search`] says.
#[inline(always)]
pub(crate) unsafe fn search<S: Simd, const M: usize, const H: usize>(s: Search<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        if s.index.is_empty() {
            with_vectors3!(s.vectors, max_panel::<S, M, H>(s));
        } else if !s.second.is_empty() {
            with_vectors3!(s.vectors, second_panel::<S, M, H>(s));
        } else {
            with_vectors3!(s.vectors, argmax_panel::<S, M, H>(s));
        }
    }
}

/// Runs a [`Both`].
///
/// # Safety
/// As [`search`].
#[inline(always)]
pub(crate) unsafe fn both<S: Simd, const M: usize, const H: usize>(b: Both<'_>) {
    // SAFETY: passed on from the caller.
    unsafe { with_vectors3!(b.search.vectors, both_panel::<S, M, H>(b)) }
}

/// Running maximum per lane of the tile's first `valid` rows.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
unsafe fn max_tile<S: Simd, const M: usize, const NV: usize>(
    acc: &[[S::V; NV]; M],
    valid: usize,
    best: &mut [S::V; NV],
) {
    // SAFETY: passed on from the caller.
    unsafe {
        for (r, row) in acc.iter().enumerate() {
            if r < valid {
                for (best, &x) in best.iter_mut().zip(row) {
                    *best = S::max(x, *best);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn max_panel<S: Simd, const M: usize, const H: usize, const NV: usize>(s: Search<'_>) {
    // SAFETY: `search`'s contract: all pointers stay inside the slices of `Search`; padding lanes of a panel of
    // rows exist in memory, so a tile may read past the valid rows of its panel but not past the panel.
    unsafe {
        let b = s.panel.as_ptr();
        let mut best = [S::splat(f32::NEG_INFINITY); NV];
        for_each_tile!(
            s.rows,
            s.data,
            s.dim,
            M,
            H,
            |_first, valid, a, lda| {
                let acc = tile::<S, M, NV>(s.dim, a, lda, b, NV * S::LANES);
                max_tile::<S, M, NV>(&acc, valid, &mut best);
            },
            {
                let acc = tile::<S, H, NV>(s.dim, a, lda, b, NV * S::LANES);
                max_tile::<S, H, NV>(&acc, valid, &mut best);
            }
        );
        for (v, &best) in best.iter().enumerate() {
            S::store(s.best.as_mut_ptr().add(v * S::LANES), best);
        }
    }
}

/// As [`max_tile`], with the row of each maximum.
///
/// # Safety
/// As [`max_tile`].
#[inline(always)]
unsafe fn argmax_tile<S: Simd, const M: usize, const NV: usize>(
    acc: &[[S::V; NV]; M],
    first: usize,
    valid: usize,
    best: &mut [S::V; NV],
    index: &mut [S::V; NV],
) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        for (r, row) in acc.iter().enumerate() {
            if r < valid {
                let here = S::splat((first + r) as f32);
                for v in 0..NV {
                    index[v] = S::select_gt(row[v], best[v], here, index[v]);
                    best[v] = S::max(row[v], best[v]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn argmax_panel<S: Simd, const M: usize, const H: usize, const NV: usize>(s: Search<'_>) {
    // SAFETY: as `max_panel`.
    unsafe {
        let b = s.panel.as_ptr();
        let mut best = [S::splat(f32::NEG_INFINITY); NV];
        let mut index = [S::splat(0.0); NV];
        for_each_tile!(
            s.rows,
            s.data,
            s.dim,
            M,
            H,
            |first, valid, a, lda| {
                let acc = tile::<S, M, NV>(s.dim, a, lda, b, NV * S::LANES);
                argmax_tile::<S, M, NV>(&acc, first, valid, &mut best, &mut index);
            },
            {
                let acc = tile::<S, H, NV>(s.dim, a, lda, b, NV * S::LANES);
                argmax_tile::<S, H, NV>(&acc, first, valid, &mut best, &mut index);
            }
        );
        for v in 0..NV {
            S::store(s.best.as_mut_ptr().add(v * S::LANES), best[v]);
            S::store(s.index.as_mut_ptr().add(v * S::LANES), index[v]);
        }
    }
}

/// As [`argmax_tile`], with the largest product of all rows but that one.
///
/// # Safety
/// As [`max_tile`].
#[inline(always)]
unsafe fn second_tile<S: Simd, const M: usize, const NV: usize>(
    acc: &[[S::V; NV]; M],
    first: usize,
    valid: usize,
    best: &mut [S::V; NV],
    index: &mut [S::V; NV],
    second: &mut [S::V; NV],
) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        for (r, row) in acc.iter().enumerate() {
            if r < valid {
                let here = S::splat((first + r) as f32);
                for v in 0..NV {
                    second[v] = S::max(S::min(row[v], best[v]), second[v]);
                    index[v] = S::select_gt(row[v], best[v], here, index[v]);
                    best[v] = S::max(row[v], best[v]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn second_panel<S: Simd, const M: usize, const H: usize, const NV: usize>(s: Search<'_>) {
    // SAFETY: as `max_panel`.
    unsafe {
        let b = s.panel.as_ptr();
        let mut best = [S::splat(f32::NEG_INFINITY); NV];
        let mut second = [S::splat(f32::NEG_INFINITY); NV];
        let mut index = [S::splat(0.0); NV];
        for_each_tile!(
            s.rows,
            s.data,
            s.dim,
            M,
            H,
            |first, valid, a, lda| {
                let acc = tile::<S, M, NV>(s.dim, a, lda, b, NV * S::LANES);
                second_tile::<S, M, NV>(&acc, first, valid, &mut best, &mut index, &mut second);
            },
            {
                let acc = tile::<S, H, NV>(s.dim, a, lda, b, NV * S::LANES);
                second_tile::<S, H, NV>(&acc, first, valid, &mut best, &mut index, &mut second);
            }
        );
        for v in 0..NV {
            S::store(s.best.as_mut_ptr().add(v * S::LANES), best[v]);
            S::store(s.index.as_mut_ptr().add(v * S::LANES), index[v]);
            S::store(s.second.as_mut_ptr().add(v * S::LANES), second[v]);
        }
    }
}

/// Merges a tile into the running row maxima.
///
/// # Safety
/// `row_best` and `row_index` valid for `valid` rows of LANES numbers.
#[inline(always)]
unsafe fn row_maxima<S: Simd, const M: usize, const NV: usize>(
    acc: &[[S::V; NV]; M],
    valid: usize,
    columns: &[S::V; NV],
    limit: &[S::V; NV],
    row_best: *mut f32,
    row_index: *mut f32,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        for (r, row) in acc.iter().enumerate() {
            if r < valid {
                let (pb, pi) = (row_best.add(r * S::LANES), row_index.add(r * S::LANES));
                let (mut best, mut index) = (S::load(pb), S::load(pi));
                for v in 0..NV {
                    let x = S::min(row[v], limit[v]);
                    index = S::select_gt(x, best, columns[v], index);
                    best = S::max(x, best);
                }
                S::store(pb, best);
                S::store(pi, index);
            }
        }
    }
}

#[inline(always)]
unsafe fn both_panel<S: Simd, const M: usize, const H: usize, const NV: usize>(b: Both<'_>) {
    let Both {
        search: s,
        first_column,
        columns,
        row_best,
        row_index,
    } = b;
    // SAFETY: as `max_panel`; the row buffers hold LANES numbers per row.
    unsafe {
        let panel = s.panel.as_ptr();
        let mut best = [S::splat(f32::NEG_INFINITY); NV];
        let mut index = [S::splat(0.0); NV];
        let mut column = [S::splat(0.0); NV];
        let mut limit = [S::splat(f32::INFINITY); NV];
        for v in 0..NV {
            let mut ids = [0.0f32; 16];
            let mut limits = [f32::INFINITY; 16];
            for l in 0..S::LANES {
                ids[l] = (first_column + v * S::LANES + l) as f32;
                if v * S::LANES + l >= columns {
                    limits[l] = f32::NEG_INFINITY;
                }
            }
            column[v] = S::load(ids.as_ptr());
            limit[v] = S::load(limits.as_ptr());
        }
        let (rb, ri) = (row_best.as_mut_ptr(), row_index.as_mut_ptr());
        for_each_tile!(
            s.rows,
            s.data,
            s.dim,
            M,
            H,
            |first, valid, a, lda| {
                let acc = tile::<S, M, NV>(s.dim, a, lda, panel, NV * S::LANES);
                argmax_tile::<S, M, NV>(&acc, first, valid, &mut best, &mut index);
                let at = first * S::LANES;
                row_maxima::<S, M, NV>(&acc, valid, &column, &limit, rb.add(at), ri.add(at));
            },
            {
                let acc = tile::<S, H, NV>(s.dim, a, lda, panel, NV * S::LANES);
                argmax_tile::<S, H, NV>(&acc, first, valid, &mut best, &mut index);
                let at = first * S::LANES;
                row_maxima::<S, H, NV>(&acc, valid, &column, &limit, rb.add(at), ri.add(at));
            }
        );
        for v in 0..NV {
            S::store(s.best.as_mut_ptr().add(v * S::LANES), best[v]);
            S::store(s.index.as_mut_ptr().add(v * S::LANES), index[v]);
        }
    }
}
