//! AVX-512 F: sixteen lanes, thirty-two registers.

use std::arch::x86_64::{
    __m512, _CMP_GT_OQ, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_castpd_ps, _mm256_storeu_pd,
    _mm256_storeu_ps, _mm512_abs_ps, _mm512_add_ps, _mm512_castpd512_pd256, _mm512_castps_pd,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_cmp_ps_mask, _mm512_div_ps,
    _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutex2var_pd,
    _mm512_permutexvar_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setr_epi64, _mm512_sqrt_ps,
    _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
    _mm512_unpacklo_ps,
};

use super::{Eight, Simd};

/// AVX-512 foundation.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY of every block below: the trait's contract says that AVX-512 F is present and that the pointers
// are valid for the lanes named; the instructions used have no alignment requirement.
impl Simd for Avx512 {
    const LANES: usize = 16;
    // 8 rows × 3 vectors = 24 accumulators, 3 columns, 1 broadcast of 32 registers
    const ROWS: usize = 8;
    type V = __m512;

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
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &Eight, index: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe {
            _mm512_permutexvar_ps(
                _mm512_castps_si512(index),
                _mm512_loadu_ps(table.0.as_ptr()),
            )
        }
    }
    #[inline(always)]
    unsafe fn select_gt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: __m512, n: __m512) -> __m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_scalef_ps(x, n) }
    }
    #[inline(always)]
    unsafe fn store_grouped(base: *mut f32, l0: usize, stride: usize, v: __m512) {
        // SAFETY: see the top of the impl; LANES = 2·ROWS, so `l0` starts a group.
        unsafe {
            let p = base.add(l0 / 8 * stride);
            _mm256_storeu_ps(p, _mm512_castps512_ps256(v));
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
            _mm256_storeu_ps(p.add(stride), _mm256_castpd_ps(high));
        }
    }
    #[inline(always)]
    unsafe fn store_transposed<const M: usize>(p: *mut f32, rows: &[__m512; M]) {
        if M != 8 {
            // SAFETY: passed on from the caller.
            return unsafe { super::store_transposed_plainly::<Self, M>(p, rows) };
        }
        // SAFETY: see the top of the impl; `rows` has eight entries and the caller gave 16·8 numbers at `p`.
        unsafe {
            // after the two unpacking rounds, 128-bit block q of first[i] holds lane 4q+i of rows 0..4, of last[i] that
            // of rows 4..8
            let quarter = |a: usize| {
                let low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[a], rows[a + 1]));
                let high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[a], rows[a + 1]));
                (low, high)
            };
            let (a, b, c, d) = (quarter(0), quarter(2), quarter(4), quarter(6));
            let first = [
                _mm512_unpacklo_pd(a.0, b.0),
                _mm512_unpackhi_pd(a.0, b.0),
                _mm512_unpacklo_pd(a.1, b.1),
                _mm512_unpackhi_pd(a.1, b.1),
            ];
            let last = [
                _mm512_unpacklo_pd(c.0, d.0),
                _mm512_unpackhi_pd(c.0, d.0),
                _mm512_unpacklo_pd(c.1, d.1),
                _mm512_unpackhi_pd(c.1, d.1),
            ];
            // blocks 0 and 1, then 2 and 3, of both interleaved
            let near = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
            let far = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
            for i in 0..4 {
                let lanes = _mm512_permutex2var_pd(first[i], near, last[i]);
                _mm256_storeu_pd(p.add(i * 8).cast(), _mm512_castpd512_pd256(lanes));
                _mm256_storeu_pd(
                    p.add((4 + i) * 8).cast(),
                    _mm512_extractf64x4_pd::<1>(lanes),
                );
                let lanes = _mm512_permutex2var_pd(first[i], far, last[i]);
                _mm256_storeu_pd(p.add((8 + i) * 8).cast(), _mm512_castpd512_pd256(lanes));
                _mm256_storeu_pd(
                    p.add((12 + i) * 8).cast(),
                    _mm512_extractf64x4_pd::<1>(lanes),
                );
            }
        }
    }
}
