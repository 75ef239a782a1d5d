//! The register tile: the inner loop that every product in this crate runs.

use crate::simd::Simd;

/// `acc[r][v] = Σ_k a[k·lda + r] · b[k·ldb + v·LANES ..]`: `M` rows by `NV` vectors, summed by fused
/// multiply-adds in ascending `k` from zero.
///
/// # Safety
/// `S` must be available; `a` valid for `(k-1)·lda + M` reads and `b` for `(k-1)·ldb + NV·LANES`.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
) -> [[S::V; NV]; M] {
    // SAFETY: passed on from the caller.
    unsafe {
        run::<S, M, NV, false>(
            k,
            a,
            lda,
            b,
            ldb,
            Ahead {
                rows: a,
                out: Target::dense::<M>(a, 0),
            },
        )
    }
}

/// What to bring near while a tile is computed, because it is needed next and lies far.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// The rows of the next tile, `[k][M]`.
    pub(crate) rows: *const f32,
    /// Where this tile's result goes: were its lines not near when it is done, all of them would be waited for at once.
    pub(crate) out: Target,
}

/// Cache lines that a tile of `M` rows is written to, in groups of `M·M` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The first of them.
    pub(crate) start: *const f32,
    /// Numbers from one group to the next.
    pub(crate) stride: usize,
    /// How many lines.
    pub(crate) lines: usize,
}

impl Target {
    /// `numbers` numbers side by side.
    #[inline(always)]
    pub(crate) fn dense<const M: usize>(start: *const f32, numbers: usize) -> Self {
        Self {
            start,
            stride: group::<M>() * LINE,
            lines: numbers / LINE,
        }
    }

    /// Line `i`.
    #[inline(always)]
    pub(crate) fn line<const M: usize>(self, i: usize) -> *const f32 {
        self.start
            .wrapping_add(i / group::<M>() * self.stride + i % group::<M>() * LINE)
    }
}

/// Cache lines in a group of a [`Target`].
#[inline(always)]
const fn group<const M: usize>() -> usize {
    if M * M > LINE { M * M / LINE } else { 1 }
}

/// [`tile`] on dense row tiles (`lda = M`) that fetches ahead.
///
/// # Safety
/// As [`tile`]; the addresses in `ahead` need not exist.
#[inline(always)]
pub(crate) unsafe fn tile_ahead<S: Simd, const M: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
    ldb: usize,
    ahead: Ahead,
) -> [[S::V; NV]; M] {
    // SAFETY: passed on from the caller.
    unsafe { run::<S, M, NV, true>(k, a, M, b, ldb, ahead) }
}

/// Values of `k` handled per turn of the loop.
const UNROLL: usize = 4;
/// Numbers per cache line.
const LINE: usize = 16;

#[inline(always)]
unsafe fn run<S: Simd, const M: usize, const NV: usize, const AHEAD: bool>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    mut ahead: Ahead,
) -> [[S::V; NV]; M] {
    // SAFETY: the caller vouches for the instruction set and for both operands; all offsets stay below `k` rows.
    unsafe {
        if let Some(acc) = S::tile_by_hand::<M, NV>(k, a, lda, b, ldb) {
            return acc;
        }
        let mut acc = [[S::splat(0.0); NV]; M];
        let (mut a, mut b) = (a, b);
        for turn in 0..k / UNROLL {
            if AHEAD {
                for line in (0..UNROLL * M).step_by(LINE) {
                    S::prefetch(ahead.rows.wrapping_add(line));
                }
                ahead.rows = ahead.rows.wrapping_add(UNROLL * M);
                if turn < ahead.out.lines {
                    S::prefetch_near(ahead.out.line::<M>(turn));
                }
            }
            for step in 0..UNROLL {
                fma_step::<S, M, NV>(&mut acc, a.add(step * lda), b.add(step * ldb));
            }
            a = a.add(UNROLL * lda);
            b = b.add(UNROLL * ldb);
        }
        for step in 0..k % UNROLL {
            fma_step::<S, M, NV>(&mut acc, a.add(step * lda), b.add(step * ldb));
        }
        acc
    }
}

/// One value of `k`: `NV` loads, `M` broadcasts, `M · NV` multiply-adds.
///
/// # Safety
/// As [`tile`], for one `k`.
#[inline(always)]
unsafe fn fma_step<S: Simd, const M: usize, const NV: usize>(
    acc: &mut [[S::V; NV]; M],
    a: *const f32,
    b: *const f32,
) {
    // SAFETY: the caller vouches for `M` numbers at `a` and `NV` vectors at `b`.
    unsafe {
        let mut column = [S::splat(0.0); NV];
        for (v, c) in column.iter_mut().enumerate() {
            *c = S::load(b.add(v * S::LANES));
        }
        for (r, row) in acc.iter_mut().enumerate() {
            let x = S::splat(*a.add(r));
            for (sum, c) in row.iter_mut().zip(&column) {
                *sum = S::fma(x, *c, *sum);
            }
        }
    }
}

/// Calls `$f::<$S, $M, NV>` with the const `NV` that equals `$vectors` (1 to 3).
macro_rules! with_vectors {
    ($vectors:expr, $f:ident :: <$S:ty, $M:tt> ( $($arg:expr),* $(,)? )) => {
        match $vectors {
            1 => $f::<$S, $M, 1>($($arg),*),
            2 => $f::<$S, $M, 2>($($arg),*),
            _ => $f::<$S, $M, 3>($($arg),*),
        }
    };
}
pub(crate) use with_vectors;
