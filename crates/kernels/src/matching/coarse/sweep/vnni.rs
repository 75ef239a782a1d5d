//! AVX-512 with dot products of bytes.

use std::arch::x86_64::{
    __m512i, _CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512,
    _mm512_reduce_add_ps, _mm512_set1_epi32,
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

passes!(
    PASSES,
    Isa::Avx512,
    Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
);
