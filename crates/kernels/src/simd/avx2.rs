//! AVX2 with FMA: eight lanes, sixteen registers.

use std::arch::asm;
use std::arch::x86_64::{
    __m256, _CMP_GT_OQ, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm_storeu_ps, _mm256_add_epi32,
    _mm256_add_ps, _mm256_andnot_ps, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_permutevar8x32_ps, _mm256_set1_ps, _mm256_shuffle_ps, _mm256_slli_epi32,
    _mm256_sqrt_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::{Eight, Simd};

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY of every block below: the trait's contract says that AVX2 and FMA are present and that the
// pointers are valid for the lanes named; the instructions used have no alignment requirement.
impl Simd for Avx2 {
    const LANES: usize = 8;
    // 4 rows × 3 vectors = 12 accumulators, 3 columns, 1 broadcast: all sixteen registers
    const ROWS: usize = 4;
    type V = __m256;

    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch faults on no address, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_near(p: *const f32) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    /// The full tile needs every one of the sixteen registers. The compiler, left to schedule it, moves accumulators
    /// out to memory in some places it is inlined into, and the loop runs at half speed; so this loop is written out.
    #[inline(always)]
    unsafe fn tile_by_hand<const M: usize, const NV: usize>(
        k: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        ldb: usize,
    ) -> Option<[[__m256; NV]; M]> {
        if M != 4 || NV != 3 {
            return None;
        }
        // SAFETY: see the top of the impl and `full_tile`.
        unsafe {
            let acc = full_tile(k, a, lda, b, ldb);
            let mut out = [[_mm256_set1_ps(0.0); NV]; M];
            for (to, from) in out.iter_mut().zip(acc) {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from;
                }
            }
            Some(out)
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &Eight, index: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe {
            _mm256_permutevar8x32_ps(
                _mm256_loadu_ps(table.0.as_ptr()),
                _mm256_castps_si256(index),
            )
        }
    }
    #[inline(always)]
    unsafe fn select_gt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: __m256, n: __m256) -> __m256 {
        // SAFETY: see the top of the impl.
        unsafe {
            let shift = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), shift))
        }
    }
    #[inline(always)]
    unsafe fn store_grouped(base: *mut f32, l0: usize, stride: usize, v: __m256) {
        // SAFETY: see the top of the impl; LANES = 2·ROWS, so `l0` starts a group.
        unsafe {
            let p = base.add(l0 / 4 * stride);
            _mm_storeu_ps(p, _mm256_castps256_ps128(v));
            _mm_storeu_ps(p.add(stride), _mm256_extractf128_ps::<1>(v));
        }
    }
    #[inline(always)]
    unsafe fn store_transposed<const M: usize>(p: *mut f32, rows: &[__m256; M]) {
        if M != 4 {
            // SAFETY: passed on from the caller.
            return unsafe { super::store_transposed_plainly::<Self, M>(p, rows) };
        }
        // SAFETY: see the top of the impl; `rows` has four entries and the caller gave 8·4 numbers at `p`.
        unsafe {
            let low = (
                _mm256_unpacklo_ps(rows[0], rows[1]),
                _mm256_unpacklo_ps(rows[2], rows[3]),
            );
            let high = (
                _mm256_unpackhi_ps(rows[0], rows[1]),
                _mm256_unpackhi_ps(rows[2], rows[3]),
            );
            // the lower half of lanes[i] is lane i of all rows, the upper half lane 4+i
            let lanes = [
                _mm256_shuffle_ps::<0b01_00_01_00>(low.0, low.1),
                _mm256_shuffle_ps::<0b11_10_11_10>(low.0, low.1),
                _mm256_shuffle_ps::<0b01_00_01_00>(high.0, high.1),
                _mm256_shuffle_ps::<0b11_10_11_10>(high.0, high.1),
            ];
            for (i, &lane) in lanes.iter().enumerate() {
                _mm_storeu_ps(p.add(i * 4), _mm256_castps256_ps128(lane));
                _mm_storeu_ps(p.add((4 + i) * 4), _mm256_extractf128_ps::<1>(lane));
            }
        }
    }
}

/// The tile of 4 rows and 3 vectors.
///
/// # Safety
/// As [`tile`](crate::tile::tile).
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn full_tile(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
) -> [[__m256; 3]; 4] {
    let mut acc = [[_mm256_set1_ps(0.0); 3]; 4];
    if k == 0 {
        return acc;
    }
    // SAFETY: the loop reads 4 numbers at `a` and 24 at `b` for each of `k` steps, as the contract of `tile` allows,
    // writes no memory, and keeps its counters in registers that it declares.
    unsafe {
        asm!(
            "2:",
            "vmovups {b0}, ymmword ptr [{b}]",
            "vmovups {b1}, ymmword ptr [{b} + 32]",
            "vmovups {b2}, ymmword ptr [{b} + 64]",
        "vbroadcastss {x}, dword ptr [{a} + 0]",
        "vfmadd231ps {c00}, {x}, {b0}",
        "vfmadd231ps {c01}, {x}, {b1}",
        "vfmadd231ps {c02}, {x}, {b2}",
        "vbroadcastss {x}, dword ptr [{a} + 4]",
        "vfmadd231ps {c10}, {x}, {b0}",
        "vfmadd231ps {c11}, {x}, {b1}",
        "vfmadd231ps {c12}, {x}, {b2}",
        "vbroadcastss {x}, dword ptr [{a} + 8]",
        "vfmadd231ps {c20}, {x}, {b0}",
        "vfmadd231ps {c21}, {x}, {b1}",
        "vfmadd231ps {c22}, {x}, {b2}",
        "vbroadcastss {x}, dword ptr [{a} + 12]",
        "vfmadd231ps {c30}, {x}, {b0}",
        "vfmadd231ps {c31}, {x}, {b1}",
        "vfmadd231ps {c32}, {x}, {b2}",
            "add {a}, {lda}",
            "add {b}, {ldb}",
            "dec {k}",
            "jnz 2b",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            k = inout(reg) k => _,
            lda = in(reg) lda * 4,
            ldb = in(reg) ldb * 4,
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            b2 = out(ymm_reg) _,
            x = out(ymm_reg) _,
        c00 = inout(ymm_reg) acc[0][0],
        c01 = inout(ymm_reg) acc[0][1],
        c02 = inout(ymm_reg) acc[0][2],
        c10 = inout(ymm_reg) acc[1][0],
        c11 = inout(ymm_reg) acc[1][1],
        c12 = inout(ymm_reg) acc[1][2],
        c20 = inout(ymm_reg) acc[2][0],
        c21 = inout(ymm_reg) acc[2][1],
        c22 = inout(ymm_reg) acc[2][2],
        c30 = inout(ymm_reg) acc[3][0],
        c31 = inout(ymm_reg) acc[3][1],
        c32 = inout(ymm_reg) acc[3][2],
            options(nostack, readonly),
        );
    }
    acc
}
