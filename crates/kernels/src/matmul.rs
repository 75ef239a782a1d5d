//! General f32 matrix products on row-major slices.

use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::dispatch;
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::tile::{tile, with_vectors};

/// Whether an operand is read as stored or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// As stored.
    None,
    /// Transposed.
    Transpose,
}

/// Multiply-adds below which a product runs on the calling thread.
const SERIAL: usize = 1 << 18;
/// Rows of the result per task, at most.
const ROWS_PER_TASK: usize = 48;

/// `c = op(a) · op(b)` (`+ c` when `accumulate`), `op(a)` is `[m, k]`, `op(b)` is `[k, n]`, `c` is `[m, n]`; all
/// row-major and dense as stored.
///
/// Each element is summed by fused multiply-adds in ascending `k` from zero and `c` is added last, so the
/// result does not depend on the number of threads or on the instruction set.
///
/// # Panics
/// If a slice is not as long as its shape says.
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    c: &mut [f32],
    accumulate: bool,
) {
    matmul_with(dispatch::active(), m, n, k, a, op_a, b, op_b, c, accumulate);
}

/// [`matmul`] on given kernels.
pub(crate) fn matmul_with(
    kernels: &Kernels,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    c: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(a.len(), m * k, "a is [m, k]");
    assert_eq!(b.len(), k * n, "b is [k, n]");
    assert_eq!(c.len(), m * n, "c is [m, n]");
    if m == 0 || n == 0 {
        return;
    }
    let lanes = Lanes::panels_of(n, kernels.lanes);
    let mut packed = Buffer::zeroed(lanes.padded() * k);
    match op_b {
        Op::None => lanes.pack_columns(b, k, &mut packed),
        Op::Transpose => lanes.pack_rows(b, k, &mut packed),
    }
    let block = |start: usize, c: &mut [f32]| {
        let rows = c.len() / n;
        let mut tiles = Buffer::zeroed(rows.next_multiple_of(kernels.rows) * k);
        match op_a {
            Op::None => pack_tiles(kernels.rows, rows, k, &mut tiles, |r, t| {
                a[(start + r) * k + t]
            }),
            Op::Transpose => pack_tiles(kernels.rows, rows, k, &mut tiles, |r, t| {
                a[t * m + start + r]
            }),
        }
        let args = Block {
            tiles: &tiles,
            rows,
            k,
            lanes,
            packed: &packed,
            c,
            accumulate,
        };
        // SAFETY: `dispatch` hands out only kernels of an instruction set that is present, and the buffers
        // have the sizes that `Block` asks for.
        unsafe { (kernels.matmul)(args) };
    };
    let step = m
        .div_ceil(m.div_ceil(ROWS_PER_TASK))
        .next_multiple_of(kernels.rows);
    if m * n * k <= SERIAL {
        block(0, c);
    } else {
        c.par_chunks_mut(step * n)
            .enumerate()
            .for_each(|(i, c)| block(i * step, c));
    }
}

/// Packs `rows` rows of `value(row, k)` into tiles `[rows/tile][k][tile]`; rows past the end stay zero.
fn pack_tiles(
    tile: usize,
    rows: usize,
    k: usize,
    out: &mut [f32],
    value: impl Fn(usize, usize) -> f32,
) {
    for (i, block) in out.chunks_exact_mut((tile * k).max(1)).enumerate() {
        for r in 0..tile.min(rows - i * tile) {
            for t in 0..k {
                block[t * tile + r] = value(i * tile + r, t);
            }
        }
    }
}

/// Some rows of a product: `tiles` is `[rows/tile][k][tile]`, `packed` the panels of `lanes` with `k` features,
/// `c` is `[rows, lanes.columns]`.
pub(crate) struct Block<'a> {
    tiles: &'a [f32],
    rows: usize,
    k: usize,
    lanes: Lanes,
    packed: &'a [f32],
    c: &'a mut [f32],
    accumulate: bool,
}

/// Computes a [`Block`].
///
/// # Safety
/// `S` must be available, `M = S::ROWS`, and the slices as long as [`Block`] says.
#[inline(always)]
pub(crate) unsafe fn matmul_block<S: Simd, const M: usize>(block: Block<'_>) {
    let Block {
        tiles,
        rows,
        k,
        lanes,
        packed,
        c,
        accumulate,
    } = block;
    for p in 0..lanes.panels() {
        let panel = lanes.panel(p);
        let columns = lanes.columns_of(panel);
        let b = &packed[lanes.offset(panel, k)..][..panel.vectors * lanes.width * k];
        for (i, a) in (0..rows).step_by(M).zip(
            tiles
                .chunks_exact((M * k).max(1))
                .chain(std::iter::repeat(&[][..])),
        ) {
            let mut sums = [0.0f32; 16 * 48];
            // SAFETY: `a` is `[k][M]`, `b` is `[k][vectors·LANES]`, `sums` holds M ≤ 16 rows of ≤ 48 lanes.
            unsafe {
                with_vectors!(
                    panel.vectors,
                    product::<S, M>(k, a.as_ptr(), b.as_ptr(), sums.as_mut_ptr())
                );
            }
            let width = panel.vectors * S::LANES;
            for r in 0..M.min(rows - i) {
                let out = &mut c[(i + r) * lanes.columns..][columns.clone()];
                let sums = &sums[r * width..][..out.len()];
                if accumulate {
                    out.iter_mut().zip(sums).for_each(|(o, s)| *o += s);
                } else {
                    out.copy_from_slice(sums);
                }
            }
        }
    }
}

/// One tile, written to `out` `[M][NV·LANES]`.
///
/// # Safety
/// As [`tile`]; `out` valid for `M·NV·LANES` writes.
#[inline(always)]
unsafe fn product<S: Simd, const M: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        let acc = tile::<S, M, NV>(k, a, M, b, NV * S::LANES);
        for (r, row) in acc.iter().enumerate() {
            for (v, &x) in row.iter().enumerate() {
                S::store(out.add((r * NV + v) * S::LANES), x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;
    use proptest::prelude::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    fn naive(m: usize, n: usize, k: usize, a: &[f32], op_a: Op, b: &[f32], op_b: Op) -> Vec<f32> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                let mut sum = 0.0f32;
                for t in 0..k {
                    let x = if op_a == Op::None {
                        a[i * k + t]
                    } else {
                        a[t * m + i]
                    };
                    let y = if op_b == Op::None {
                        b[t * n + j]
                    } else {
                        b[j * k + t]
                    };
                    sum = x.mul_add(y, sum);
                }
                c[i * n + j] = sum;
            }
        }
        c
    }

    fn check(m: usize, n: usize, k: usize, op_a: Op, op_b: Op) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let wanted = naive(m, n, k, &a, op_a, &b, op_b);
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let mut c = vec![7.0; m * n];
            matmul_with(kernels, m, n, k, &a, op_a, &b, op_b, &mut c, false);
            assert_eq!(c, wanted, "{} {m}x{n}x{k} {op_a:?} {op_b:?}", kernels.isa);
            matmul_with(kernels, m, n, k, &a, op_a, &b, op_b, &mut c, true);
            let twice: Vec<f32> = wanted.iter().map(|x| x + x).collect();
            assert_eq!(c, twice, "{} accumulate", kernels.isa);
        }
    }

    #[test]
    fn small_products_equal_the_definition() {
        // also run under Miri
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 2),
            (9, 17, 3),
            (5, 1, 7),
            (2, 3, 0),
            (0, 4, 2),
        ] {
            for op_a in [Op::None, Op::Transpose] {
                for op_b in [Op::None, Op::Transpose] {
                    check(m, n, k, op_a, op_b);
                }
            }
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn large_products_equal_the_definition() {
        check(131, 77, 65, Op::None, Op::Transpose);
        check(97, 203, 33, Op::Transpose, Op::None);
    }

    #[cfg(not(miri))]
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_have_the_same_bits_on_every_instruction_set(
            m in 1usize..40, n in 1usize..70, k in 0usize..40, ta in any::<bool>(), tb in any::<bool>(),
        ) {
            let op = |t| if t { Op::Transpose } else { Op::None };
            check(m, n, k, op(ta), op(tb));
        }
    }
}
