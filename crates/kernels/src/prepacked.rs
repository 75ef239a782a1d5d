//! Products of row-major activations, on the calling thread: for code that already runs one image per thread.
//!
//! The right operand lies in panels of lanes, the rows of the left one are the rows of the register tile, so a
//! tile's result is written straight into the row-major output.

use crate::buffer::Buffer;
use crate::dispatch;
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use crate::matmul::Op;
use crate::simd::Simd;
use crate::tile::{tile, with_vectors};

/// A right operand `[k, n]` packed once, such as a frozen weight, with what is added to every row of the result.
#[derive(Debug, Clone)]
pub struct Prepacked {
    kernels: &'static Kernels,
    lanes: Lanes,
    k: usize,
    panels: Buffer,
    /// `[n]` padded to whole vectors; empty for none.
    bias: Buffer,
}

/// Memory for packing operands; reused from product to product.
#[derive(Debug, Default)]
pub struct Scratch {
    tiles: Buffer,
    panels: Buffer,
}

impl Prepacked {
    /// Packs `b`, `[k, n]` as stored or `[n, k]` to be transposed; `bias` is `[n]` or empty.
    ///
    /// # Panics
    /// If a slice is not as long as its shape says.
    pub fn new(n: usize, k: usize, b: &[f32], op_b: Op, bias: &[f32]) -> Self {
        Self::new_with(dispatch::active(), n, k, b, op_b, bias)
    }

    fn new_with(
        kernels: &'static Kernels,
        n: usize,
        k: usize,
        b: &[f32],
        op_b: Op,
        bias: &[f32],
    ) -> Self {
        let lanes = Lanes {
            columns: n,
            width: kernels.lanes,
        };
        let mut padded = Buffer::zeroed(if bias.is_empty() { 0 } else { lanes.padded() });
        if !bias.is_empty() {
            padded[..n].copy_from_slice(bias);
        }
        let mut panels = Buffer::zeroed(lanes.padded() * k);
        pack_right(lanes, k, b, op_b, &mut panels);
        Self {
            kernels,
            lanes,
            k,
            panels,
            bias: padded,
        }
    }

    /// Columns of the result, n.
    pub fn columns(&self) -> usize {
        self.lanes.columns
    }

    /// Columns of the left operand, k.
    pub fn inner(&self) -> usize {
        self.k
    }

    /// `c = a · b + bias` (`+ c` when `accumulate`) for row-major `a` `[m, k]` and `c` `[m, n]`.
    ///
    /// Each element is summed by fused multiply-adds in ascending `k` from zero; then the bias and then `c` are
    /// added.
    ///
    /// # Panics
    /// If `a` and `c` are not whole numbers of rows, equally many.
    pub fn multiply(&self, a: &[f32], c: &mut [f32], accumulate: bool, scratch: &mut Scratch) {
        let m = c.len() / self.lanes.columns.max(1);
        assert_eq!(a.len(), m * self.k, "a is [m, k]");
        assert_eq!(c.len(), m * self.lanes.columns, "c is [m, n]");
        if c.is_empty() {
            return;
        }
        pack_left(self.kernels, m, self.k, a, Op::None, &mut scratch.tiles);
        let product = Product {
            tiles: &scratch.tiles,
            rows: m,
            k: self.k,
            lanes: self.lanes,
            panels: &self.panels,
            bias: &self.bias,
            c,
            accumulate,
        };
        // SAFETY: `dispatch` handed out kernels of an instruction set that is present; the buffers have the sizes
        // that `Product` asks for.
        unsafe { (self.kernels.product)(product) };
    }
}

/// [`matmul`](crate::matmul::matmul) on the calling thread alone, with the same bits.
///
/// # Panics
/// If a slice is not as long as its shape says.
pub fn multiply(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    c: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    multiply_with(
        dispatch::active(),
        m,
        n,
        k,
        a,
        op_a,
        b,
        op_b,
        c,
        accumulate,
        scratch,
    );
}

pub(crate) fn multiply_with(
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
    scratch: &mut Scratch,
) {
    assert_eq!(a.len(), m * k, "a is [m, k]");
    assert_eq!(b.len(), k * n, "b is [k, n]");
    assert_eq!(c.len(), m * n, "c is [m, n]");
    if m == 0 || n == 0 {
        return;
    }
    let lanes = Lanes {
        columns: n,
        width: kernels.lanes,
    };
    let Scratch { tiles, panels } = scratch;
    panels.resize(lanes.padded() * k);
    pack_right(lanes, k, b, op_b, panels);
    pack_left(kernels, m, k, a, op_a, tiles);
    let product = Product {
        tiles,
        rows: m,
        k,
        lanes,
        panels,
        bias: &[],
        c,
        accumulate,
    };
    // SAFETY: as in `Prepacked::multiply`.
    unsafe { (kernels.product)(product) };
}

fn pack_right(lanes: Lanes, k: usize, b: &[f32], op: Op, panels: &mut [f32]) {
    match op {
        Op::None => lanes.pack_columns(b, k, panels),
        Op::Transpose => lanes.pack_rows(b, k, panels),
    }
}

/// Packs the left operand `[m, k]` into tiles `[m/rows][k][rows]`; the rows past the end hold zeros.
fn pack_left(kernels: &Kernels, m: usize, k: usize, a: &[f32], op: Op, tiles: &mut Buffer) {
    tiles.resize(m.next_multiple_of(kernels.rows) * k);
    match kernels.rows {
        4 => pack_tiles::<4>(m, k, a, op, tiles),
        8 => pack_tiles::<8>(m, k, a, op, tiles),
        rows => unreachable!("register tiles have 4 or 8 rows, not {rows}"),
    }
}

fn pack_tiles<const ROWS: usize>(m: usize, k: usize, a: &[f32], op: Op, tiles: &mut [f32]) {
    if k == 0 {
        return;
    }
    for (i, tile) in tiles.chunks_exact_mut(ROWS * k).enumerate() {
        let first = i * ROWS;
        let valid = ROWS.min(m - first);
        match op {
            Op::None if valid == ROWS => {
                let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &a[(first + r) * k..][..k]);
                for (t, to) in tile.chunks_exact_mut(ROWS).enumerate() {
                    for (to, row) in to.iter_mut().zip(&rows) {
                        *to = row[t];
                    }
                }
            }
            Op::None => {
                tile.fill(0.0);
                for r in 0..valid {
                    for (t, &x) in a[(first + r) * k..][..k].iter().enumerate() {
                        tile[t * ROWS + r] = x;
                    }
                }
            }
            Op::Transpose => {
                for (to, from) in tile.chunks_exact_mut(ROWS).zip(a.chunks_exact(m)) {
                    to[..valid].copy_from_slice(&from[first..first + valid]);
                    to[valid..].fill(0.0);
                }
            }
        }
    }
}

/// A product of packed operands: `tiles` is `[rows/tile][k][tile]`, `panels` those of `lanes` with `k` features,
/// `bias` `[padded columns]` or empty, `c` `[rows, lanes.columns]`.
pub(crate) struct Product<'a> {
    tiles: &'a [f32],
    rows: usize,
    k: usize,
    lanes: Lanes,
    panels: &'a [f32],
    bias: &'a [f32],
    c: &'a mut [f32],
    accumulate: bool,
}

/// Computes a [`Product`].
///
/// # Safety
/// `S` must be available, `M = S::ROWS`, and the slices as long as [`Product`] says.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, const M: usize>(product: Product<'_>) {
    let Product {
        tiles,
        rows,
        k,
        lanes,
        panels,
        bias,
        c,
        accumulate,
    } = product;
    debug_assert!(tiles.len() >= rows.next_multiple_of(M) * k && c.len() == rows * lanes.columns);
    for p in 0..lanes.panels() {
        let panel = lanes.panel(p);
        let columns = lanes.columns_of(panel);
        for i in (0..rows).step_by(M) {
            let out = Out {
                a: tiles[i * k..].as_ptr(),
                b: panels[lanes.offset(panel, k)..].as_ptr(),
                bias: if bias.is_empty() {
                    std::ptr::null()
                } else {
                    bias[columns.start..].as_ptr()
                },
                c: c[i * lanes.columns + columns.start..].as_mut_ptr(),
                stride: lanes.columns,
                rows: M.min(rows - i),
                columns: columns.len(),
                accumulate,
            };
            // SAFETY: `a` is `[k][M]`, `b` is `[k][vectors·LANES]`, `bias` (padded) has as many lanes or is null,
            // and `c` has `rows` rows of `columns` numbers, `stride` apart.
            unsafe {
                with_vectors!(panel.vectors, write::<S, M>(k, &out));
            }
        }
    }
}

/// Where one register tile comes from and goes to.
struct Out {
    a: *const f32,
    b: *const f32,
    bias: *const f32,
    c: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    accumulate: bool,
}

/// One tile.
///
/// # Safety
/// As [`tile`]; `out.bias` null or valid for `NV·LANES` reads, `out.c` for `rows` rows of `columns ≤ NV·LANES`.
#[inline(always)]
unsafe fn write<S: Simd, const M: usize, const NV: usize>(k: usize, out: &Out) {
    // SAFETY: passed on from the caller; `spill` holds NV·LANES ≤ 48 numbers.
    unsafe {
        let mut acc = tile::<S, M, NV>(k, out.a, M, out.b, NV * S::LANES);
        if !out.bias.is_null() {
            for row in &mut acc {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = S::add(*x, S::load(out.bias.add(v * S::LANES)));
                }
            }
        }
        let whole = out.columns == NV * S::LANES;
        for (r, row) in acc.iter().enumerate().take(out.rows) {
            let c = out.c.add(r * out.stride);
            if whole {
                for (v, &x) in row.iter().enumerate() {
                    let at = c.add(v * S::LANES);
                    S::store(
                        at,
                        if out.accumulate {
                            S::add(S::load(at), x)
                        } else {
                            x
                        },
                    );
                }
            } else {
                let mut spill = [0.0f32; 48];
                for (v, &x) in row.iter().enumerate() {
                    S::store(spill.as_mut_ptr().add(v * S::LANES), x);
                }
                for (j, x) in spill.iter().enumerate().take(out.columns) {
                    let at = c.add(j);
                    *at = if out.accumulate { *at + x } else { *x };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;
    use crate::matmul::matmul_with;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / 8_388_608.0 - 1.0)
            .collect()
    }

    #[test]
    fn serial_products_have_the_bits_of_the_parallel_ones() {
        let mut scratch = Scratch::default();
        let shapes = [(1, 1, 1), (5, 3, 2), (13, 26, 0), (4, 24, 5), (9, 49, 7)];
        for &(m, n, k) in &shapes[..if cfg!(miri) { 3 } else { 5 }] {
            for op_a in [Op::None, Op::Transpose] {
                for op_b in [Op::None, Op::Transpose] {
                    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
                    for kernels in Isa::available().filter_map(Isa::kernels) {
                        for accumulate in [false, true] {
                            let (mut x, mut y) = (vec![0.5; m * n], vec![0.5; m * n]);
                            matmul_with(kernels, m, n, k, &a, op_a, &b, op_b, &mut x, accumulate);
                            multiply_with(
                                kernels,
                                m,
                                n,
                                k,
                                &a,
                                op_a,
                                &b,
                                op_b,
                                &mut y,
                                accumulate,
                                &mut scratch,
                            );
                            assert_eq!(
                                x, y,
                                "{} {m}x{n}x{k} {op_a:?} {op_b:?} {accumulate}",
                                kernels.isa
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_prepacked_operand_adds_its_bias() {
        let (m, n, k) = (6, 29, 11);
        let (a, b, bias) = (numbers(m * k, 3), numbers(n * k, 4), numbers(n, 5));
        let mut wanted = vec![0.0; m * n];
        for (i, w) in wanted.iter_mut().enumerate() {
            let (a, b) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
            *w = a
                .iter()
                .zip(b)
                .fold(0.0f32, |sum, (x, y)| x.mul_add(*y, sum))
                + bias[i % n];
        }
        let mut scratch = Scratch::default();
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let packed = Prepacked::new_with(kernels, n, k, &b, Op::Transpose, &bias);
            assert_eq!((packed.columns(), packed.inner()), (n, k));
            let mut c = vec![9.0; m * n];
            packed.multiply(&a, &mut c, false, &mut scratch);
            assert_eq!(c, wanted, "{}", kernels.isa);
            packed.multiply(&a, &mut c, true, &mut scratch);
            assert_eq!(
                c,
                wanted.iter().map(|x| x + x).collect::<Vec<_>>(),
                "{}",
                kernels.isa
            );
        }
    }
}
