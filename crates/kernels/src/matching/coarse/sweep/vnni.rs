//! AVX-512 with dot products of bytes.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm_loadu_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_castps128_ps512, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_insertf32x4, _mm512_loadu_si512, _mm512_reduce_add_ps,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

#[allow(clippy::wildcard_imports)]
use super::*;
use crate::simd::avx512::Avx512;

/// The passes, if this machine has the instructions.
pub(super) fn passes() -> Option<&'static Passes> {
    let present = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vnni");
    present.then_some(&PASSES)
}

// SAFETY of every block below: the trait's contract says that the instructions are present (AVX-512 F and VNNI) and that
// pointers are valid for the lanes named; the instructions used have no alignment requirement.
impl Integers for Avx512 {
    type I = __m512i;
    #[inline(always)]
    unsafe fn splat_word(x: i32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_words(p: *const f32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_dpbusd_epi32(sum, x, y) }
    }
    #[inline(always)]
    unsafe fn to_f32(x: __m512i) -> Self::V {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn reached(a: Self::V, b: Self::V) -> u32 {
        // SAFETY: see the top of the impl.
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_reduce_add_ps(v) }
    }
}

/// Products in the order of the plain path, sixteen at a time: one product a lane, so that each is summed in ascending feature
/// order. Their features are brought into lanes four at a time.
///
/// # Safety
/// AVX-512 F must be present.
#[inline(always)]
unsafe fn exact(c: Chosen<'_>) {
    let Chosen {
        dim,
        lanes,
        rows,
        pairs,
        out,
    } = c;
    for (pairs, out) in pairs.chunks(16).zip(out.chunks_mut(16)) {
        let of = |l: usize| pairs[l.min(pairs.len() - 1)];
        let x: [*const f32; 16] =
            std::array::from_fn(|l| lanes[of(l).lane as usize * dim..][..dim].as_ptr());
        let y: [*const f32; 16] =
            std::array::from_fn(|l| rows[of(l).row as usize * dim..][..dim].as_ptr());
        // SAFETY: the caller vouches for the instructions; each pointer is valid for `dim` numbers, a multiple of 4.
        unsafe {
            let mut sum = _mm512_setzero_ps();
            for feature in (0..dim).step_by(4) {
                for (x, y) in four(&x, feature).into_iter().zip(four(&y, feature)) {
                    sum = _mm512_fmadd_ps(x, y, sum);
                }
            }
            let mut sums = [0.0f32; 16];
            _mm512_storeu_ps(sums.as_mut_ptr(), sum);
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

/// Four features of sixteen rows, one row a lane.
///
/// # Safety
/// AVX-512 F must be present and every pointer valid for `feature + 4` numbers.
#[inline(always)]
unsafe fn four(rows: &[*const f32; 16], feature: usize) -> [__m512; 4] {
    // SAFETY: passed on from the caller.
    unsafe {
        // 128-bit block k of the result holds row 4k + j
        let every_fourth = |j: usize| {
            let row = |k: usize| _mm_loadu_ps(rows[4 * k + j].add(feature));
            let v = _mm512_castps128_ps512(row(0));
            let v = _mm512_insertf32x4::<1>(v, row(1));
            let v = _mm512_insertf32x4::<2>(v, row(2));
            _mm512_insertf32x4::<3>(v, row(3))
        };
        let (a, b, c, d) = (
            every_fourth(0),
            every_fourth(1),
            every_fourth(2),
            every_fourth(3),
        );
        let pair = |a, b| {
            let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            (_mm512_castps_pd(low), _mm512_castps_pd(high))
        };
        let (ab, cd) = (pair(a, b), pair(c, d));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab.0, cd.0)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab.0, cd.0)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab.1, cd.1)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab.1, cd.1)),
        ]
    }
}

passes!(
    PASSES,
    Isa::Avx512,
    Avx512,
    exact,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
);
