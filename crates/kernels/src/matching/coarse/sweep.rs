//! The passes of a coarse matching, compiled once per instruction set that has them.

#[cfg(target_arch = "x86_64")]
mod vnni;

use super::digits::{self, Fill, TILE};
use crate::dispatch::Isa;
use crate::simd::Simd;

/// Integer arithmetic of a coarse pass.
///
/// # Safety
/// As [`Simd`].
pub(super) trait Integers: Simd {
    /// As many 32-bit integers as there are lanes.
    type I: Copy;
    /// All lanes `x`.
    unsafe fn splat_word(x: i32) -> Self::I;
    /// Reads a word a lane.
    unsafe fn load_words(p: *const f32) -> Self::I;
    /// In each lane `sum + Σ x·y` over its four bytes, those of `x` unsigned, those of `y` signed.
    unsafe fn dot(sum: Self::I, x: Self::I, y: Self::I) -> Self::I;
    /// To the nearest f32.
    unsafe fn to_f32(x: Self::I) -> Self::V;
    /// A bit for each lane where `a ≥ b`.
    unsafe fn reached(a: Self::V, b: Self::V) -> u32;
    /// The sum of all lanes, in any order.
    unsafe fn sum(v: Self::V) -> f32;
}

/// Independent sums of a fast product.
const CHAINS: usize = 4;
/// Features of a fast product that go to different sums, at least.
pub(super) const STRIDE: usize = CHAINS * 8;
/// Products in the plain order that run side by side.
#[cfg(test)]
const ABREAST: usize = 8;

/// Coarse products of one panel of asking patches with all rows of an image, and their bounds.
pub(super) struct Sweep<'a> {
    /// Words of a patch.
    pub(super) quads: usize,
    /// `[quads][vectors·LANES]` words.
    pub(super) panel: &'a [f32],
    /// Vectors of the panel.
    pub(super) vectors: usize,
    /// Scale, reach and offset of each lane.
    pub(super) scale: &'a [f32],
    pub(super) reach: &'a [f32],
    pub(super) offset: &'a [f32],
    /// Tiles of rows.
    pub(super) rows: &'a [f32],
    /// First sum, scale, offset and error of each row.
    pub(super) row_start: &'a [i32],
    pub(super) row_scale: &'a [f32],
    pub(super) row_offset: &'a [f32],
    pub(super) row_error: &'a [f32],
    /// Receives the upper bounds, `[rows][vectors·LANES]`.
    pub(super) upper: &'a mut [f32],
    /// Largest lower bound of each lane; goes on from what it holds.
    pub(super) lower: &'a mut [f32],
    /// Largest lower bound of each row, lane by lane, `[rows][LANES]`; goes on from what it holds; empty if not wanted.
    pub(super) row_lower: &'a mut [f32],
}

/// Finds the products whose upper bound reaches a limit.
pub(super) struct Scan<'a> {
    /// As in [`Sweep`].
    pub(super) upper: &'a [f32],
    pub(super) vectors: usize,
    /// Patch of lane 0.
    pub(super) first: usize,
    /// Limit of each lane.
    pub(super) limit: &'a [f32],
    /// Limit of each row; empty if rows do not ask.
    pub(super) row_limit: &'a [f32],
    /// Receives what was found, row by row.
    pub(super) found: &'a mut Vec<Contender>,
    /// Largest and second largest upper bound of each lane, `[2][vectors·LANES]`; empty if not wanted.
    pub(super) tops: &'a mut [f32],
}

/// A product that may be the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Contender {
    /// Patch of the image in the lanes.
    pub(super) lane: u32,
    /// Patch of the image in the rows.
    pub(super) row: u32,
    /// [`LANE_ASKS`], [`ROW_ASKS`] or both.
    pub(super) asks: u32,
    /// Upper bound of the product, rounding left out.
    pub(super) upper: f32,
}

/// The product may be the largest of its lane.
pub(super) const LANE_ASKS: u32 = 1;
/// The product may be the largest of its row.
pub(super) const ROW_ASKS: u32 = 2;

/// f32 products of chosen patches.
pub(super) struct Chosen<'a> {
    pub(super) dim: usize,
    /// `[patches, dim]`.
    pub(super) lanes: &'a [f32],
    /// `[patches, dim]`.
    pub(super) rows: &'a [f32],
    /// All in range.
    pub(super) pairs: &'a [Contender],
    /// Receives one product a pair.
    pub(super) out: &'a mut [f32],
}

/// The passes of one instruction set. Calling one is sound only where the set is present, which [`Passes::of`] checks.
#[derive(Debug)]
pub(super) struct Passes {
    pub(super) isa: Isa,
    pub(super) fill: unsafe fn(Fill<'_>) -> bool,
    pub(super) sweep: unsafe fn(Sweep<'_>),
    pub(super) scan: unsafe fn(Scan<'_>),
    /// Products in the fastest order.
    pub(super) dots: unsafe fn(Chosen<'_>),
    /// Products in the order of the plain path.
    pub(super) exact: unsafe fn(Chosen<'_>),
}

impl Passes {
    /// Those for kernels of an instruction set that is present, if it has any on this machine.
    pub(super) fn of(isa: Isa) -> Option<&'static Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => vnni::passes(),
            // slower than the plain path: the reference of the tests
            #[cfg(test)]
            Isa::Scalar => Some(&reference::PASSES),
            _ => None,
        }
    }
}

/// Runs a [`Sweep`].
///
/// # Safety
/// `S` must be available and the slices as long as [`Sweep`] says.
#[inline(always)]
pub(super) unsafe fn sweep<S: Integers>(s: Sweep<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        match (s.vectors, s.row_lower.is_empty()) {
            (1, true) => sweep_panel::<S, 1, false>(s),
            (2, true) => sweep_panel::<S, 2, false>(s),
            (_, true) => sweep_panel::<S, 3, false>(s),
            (1, false) => sweep_panel::<S, 1, true>(s),
            (2, false) => sweep_panel::<S, 2, true>(s),
            (_, false) => sweep_panel::<S, 3, true>(s),
        }
    }
}

#[inline(always)]
unsafe fn sweep_panel<S: Integers, const NV: usize, const BOTH: bool>(s: Sweep<'_>) {
    let (wide, count) = (NV * S::LANES, s.row_start.len());
    // SAFETY: `sweep`'s contract; a tile of rows exists whole in memory, what is written stays below `count` rows.
    unsafe {
        let load = |from: &[f32], v: usize| S::load(from.as_ptr().add(v * S::LANES));
        let mut lower: [S::V; NV] = std::array::from_fn(|v| load(s.lower, v));
        for first in (0..count).step_by(TILE) {
            let rows = s.rows.as_ptr().add(first * s.quads);
            let valid = (count - first).min(TILE);
            let mut start = [0i32; TILE];
            start[..valid].copy_from_slice(&s.row_start[first..first + valid]);
            let sums = integer_tile::<S, NV>(s.quads, &start, rows, s.panel.as_ptr());
            for (r, sums) in sums.iter().enumerate() {
                if r < valid {
                    let row = first + r;
                    let scale = S::splat(*s.row_scale.get_unchecked(row));
                    let offset = S::splat(*s.row_offset.get_unchecked(row));
                    let error = S::splat(*s.row_error.get_unchecked(row));
                    let mut row_lower = S::splat(f32::NEG_INFINITY);
                    for v in 0..NV {
                        let product = S::mul(S::to_f32(sums[v]), load(s.scale, v));
                        let product = S::fma(product, scale, S::add(load(s.offset, v), offset));
                        let reach = load(s.reach, v);
                        let at = row * wide + v * S::LANES;
                        S::store(s.upper.as_mut_ptr().add(at), S::fma(reach, error, product));
                        let least = S::fnma(reach, error, product);
                        lower[v] = S::max(least, lower[v]);
                        row_lower = S::max(least, row_lower);
                    }
                    if BOTH {
                        let kept = s.row_lower.as_mut_ptr().add(row * S::LANES);
                        S::store(kept, S::max(row_lower, S::load(kept)));
                    }
                }
            }
        }
        for (v, &lower) in lower.iter().enumerate() {
            S::store(s.lower.as_mut_ptr().add(v * S::LANES), lower);
        }
    }
}

/// `TILE` rows by `NV` vectors of integer products.
///
/// # Safety
/// `S` must be available; `rows` valid for `quads·TILE` words and `lanes` for `quads·NV·LANES`.
#[inline(always)]
unsafe fn integer_tile<S: Integers, const NV: usize>(
    quads: usize,
    start: &[i32; TILE],
    rows: *const f32,
    lanes: *const f32,
) -> [[S::I; NV]; TILE] {
    // SAFETY: the caller vouches for both operands.
    unsafe {
        let mut sums = [[S::splat_word(0); NV]; TILE];
        for (sums, &start) in sums.iter_mut().zip(start) {
            *sums = [S::splat_word(start); NV];
        }
        for quad in 0..quads {
            let mut column = [S::splat_word(0); NV];
            for (v, c) in column.iter_mut().enumerate() {
                *c = S::load_words(lanes.add((quad * NV + v) * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = S::splat_word(rows.cast::<i32>().add(quad * TILE + r).read());
                for (sum, &c) in sums.iter_mut().zip(&column) {
                    *sum = S::dot(*sum, c, x);
                }
            }
        }
        sums
    }
}

/// Runs a [`Scan`].
///
/// # Safety
/// `S` must be available and the slices as long as [`Scan`] says.
#[inline(always)]
pub(super) unsafe fn scan<S: Integers>(s: Scan<'_>) {
    let wide = s.vectors * S::LANES;
    for (row, upper) in s.upper.chunks_exact(wide).enumerate() {
        // SAFETY: rows of bounds, limits and tops are `wide` numbers, vectors of LANES each.
        unsafe {
            let row_limit = S::splat(s.row_limit.get(row).copied().unwrap_or(f32::INFINITY));
            for lane in (0..wide).step_by(S::LANES) {
                let bound = S::load(upper.as_ptr().add(lane));
                let lanes = S::reached(bound, S::load(s.limit.as_ptr().add(lane)));
                let rows = if s.row_limit.is_empty() {
                    0
                } else {
                    S::reached(bound, row_limit)
                };
                if !s.tops.is_empty() {
                    let (top, next) = (
                        s.tops.as_mut_ptr().add(lane),
                        s.tops.as_mut_ptr().add(wide + lane),
                    );
                    let best = S::load(top);
                    S::store(next, S::max(S::min(bound, best), S::load(next)));
                    S::store(top, S::max(bound, best));
                }
                let mut any = lanes | rows;
                while any != 0 {
                    let bit = any.trailing_zeros();
                    any &= any - 1;
                    let asks = (lanes >> bit & 1) * LANE_ASKS + (rows >> bit & 1) * ROW_ASKS;
                    let upper = *upper.get_unchecked(lane + bit as usize);
                    let lane = (s.first + lane) as u32 + bit;
                    s.found.push(Contender {
                        lane,
                        row: row as u32,
                        asks,
                        upper,
                    });
                }
            }
        }
    }
}

/// Runs a [`Chosen`] in the fastest order.
///
/// # Safety
/// `S` must be available, `dim` a multiple of `CHAINS·LANES`, and the slices as [`Chosen`] says.
#[inline(always)]
pub(super) unsafe fn dots<S: Integers>(c: Chosen<'_>) {
    for (pair, out) in c.pairs.iter().zip(c.out) {
        let x = c.lanes[pair.lane as usize * c.dim..][..c.dim].as_ptr();
        let y = c.rows[pair.row as usize * c.dim..][..c.dim].as_ptr();
        // SAFETY: both hold `dim` numbers, a whole number of rounds.
        unsafe {
            let mut sums = [S::splat(0.0); CHAINS];
            for at in (0..c.dim).step_by(CHAINS * S::LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = at + i * S::LANES;
                    *sum = S::fma(S::load(x.add(at)), S::load(y.add(at)), *sum);
                }
            }
            *out = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
        }
    }
}

/// Runs a [`Chosen`] in the order of the register tile: fused multiply-adds in ascending feature order.
///
/// # Safety
/// None needed; as the other passes.
#[cfg(test)]
#[inline(always)]
pub(super) unsafe fn exact(c: Chosen<'_>) {
    let Chosen {
        dim,
        lanes,
        rows,
        pairs,
        out,
    } = c;
    for (pairs, out) in pairs.chunks(ABREAST).zip(out.chunks_mut(ABREAST)) {
        let operands: [(&[f32], &[f32]); ABREAST] = std::array::from_fn(|l| {
            let pair = pairs[l.min(pairs.len() - 1)];
            (
                &lanes[pair.lane as usize * dim..][..dim],
                &rows[pair.row as usize * dim..][..dim],
            )
        });
        let mut sums = [0.0f32; ABREAST];
        for f in 0..dim {
            for l in 0..ABREAST {
                sums[l] = operands[l].0[f].mul_add(operands[l].1[f], sums[l]);
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// Compiles the passes for `$simd` under the given attributes.
macro_rules! passes {
    ($table:ident, $isa:expr, $simd:ty, $exact:path, $(#[$attr:meta])*) => {
        // SAFETY of each: the caller's contract is that of the generic pass.
        $(#[$attr])*
        unsafe fn fill_pass(args: Fill<'_>) -> bool {
            digits::fill(args)
        }
        $(#[$attr])*
        unsafe fn sweep_pass(args: Sweep<'_>) {
            // SAFETY: see above.
            unsafe { sweep::<$simd>(args) }
        }
        $(#[$attr])*
        unsafe fn scan_pass(args: Scan<'_>) {
            // SAFETY: see above.
            unsafe { scan::<$simd>(args) }
        }
        $(#[$attr])*
        unsafe fn dots_pass(args: Chosen<'_>) {
            // SAFETY: see above.
            unsafe { dots::<$simd>(args) }
        }
        $(#[$attr])*
        unsafe fn exact_pass(args: Chosen<'_>) {
            // SAFETY: see above.
            unsafe { $exact(args) }
        }
        pub(super) static $table: Passes = Passes {
            isa: $isa,
            fill: fill_pass,
            sweep: sweep_pass,
            scan: scan_pass,
            dots: dots_pass,
            exact: exact_pass,
        };
    };
}
use passes;

/// Portable lanes.
#[cfg(test)]
mod reference {
    #[allow(clippy::wildcard_imports)]
    use super::*;
    use crate::simd::scalar::Scalar;

    type I = [i32; Scalar::LANES];

    // SAFETY of the pointer methods: the caller vouches for as many words as lanes.
    impl Integers for Scalar {
        type I = I;
        unsafe fn splat_word(x: i32) -> I {
            [x; Scalar::LANES]
        }
        unsafe fn load_words(p: *const f32) -> I {
            // SAFETY: see above.
            unsafe { p.cast::<I>().read_unaligned() }
        }
        unsafe fn dot(mut sum: I, x: I, y: I) -> I {
            for (sum, (x, y)) in sum.iter_mut().zip(x.into_iter().zip(y)) {
                for (x, y) in x.to_le_bytes().into_iter().zip(y.to_le_bytes()) {
                    *sum += i32::from(x) * i32::from(y.cast_signed());
                }
            }
            sum
        }
        unsafe fn to_f32(x: I) -> Self::V {
            x.map(|x| x as f32)
        }
        unsafe fn reached(a: Self::V, b: Self::V) -> u32 {
            (0..Scalar::LANES)
                .map(|l| u32::from(a[l] >= b[l]) << l)
                .sum()
        }
        unsafe fn sum(v: Self::V) -> f32 {
            v.iter().sum()
        }
    }

    passes!(PASSES, Isa::Scalar, Scalar, exact,);
}
