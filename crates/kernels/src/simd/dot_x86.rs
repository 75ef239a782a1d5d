//! Dot products of bytes on x86-64.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_and_si256, _mm256_castps_si256, _mm256_cvtepi32_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_or_si256, _mm256_set1_epi32, _mm256_slli_epi32,
    _mm256_storeu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_madd_epi16,
    _mm512_or_si512, _mm512_set1_epi32, _mm512_slli_epi32, _mm512_storeu_si512,
};

use super::avx2::Avx2;
use super::avx512::Avx512;
use super::dot::Dot;

/// AVX-512 VNNI: four products of bytes a lane in one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vnni;

/// AVX-512 BW: two products of 16-bit numbers a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs512;

/// AVX2: two products of 16-bit numbers a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs256;

// SAFETY of every block below: the trait's contract says that the instructions are present and that the pointers are
// valid for the lanes named; the instructions used have no alignment requirement.
impl Dot for Vnni {
    type S = Avx512;
    type W = __m512i;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, w: __m512i) {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_storeu_si512(p.cast(), w) }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, activations: __m512i, weights: *const u32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_dpbusd_epi32(sums, activations, _mm512_set1_epi32(*weights as i32)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m512i) -> std::arch::x86_64::__m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
    #[inline(always)]
    unsafe fn join(features: [std::arch::x86_64::__m512; 4]) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe {
            let byte = |i: usize| {
                _mm512_and_si512(_mm512_castps_si512(features[i]), _mm512_set1_epi32(0xff))
            };
            let low = _mm512_or_si512(byte(0), _mm512_slli_epi32::<8>(byte(1)));
            let high = _mm512_slli_epi32::<24>(_mm512_castps_si512(features[3]));
            _mm512_or_si512(low, _mm512_or_si512(_mm512_slli_epi32::<16>(byte(2)), high))
        }
    }
}

// SAFETY of every block below: as for `Vnni`.
impl Dot for Pairs512 {
    type S = Avx512;
    type W = __m512i;
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, w: __m512i) {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_storeu_si512(p.cast(), w) }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, activations: __m512i, weights: *const u32) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe {
            let products = _mm512_madd_epi16(activations, _mm512_set1_epi32(*weights as i32));
            _mm512_add_epi32(sums, products)
        }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m512i) -> std::arch::x86_64::__m512 {
        // SAFETY: see the top of the impl.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
    #[inline(always)]
    unsafe fn join(features: [std::arch::x86_64::__m512; 4]) -> __m512i {
        // SAFETY: see the top of the impl.
        unsafe {
            let byte = |i: usize| {
                _mm512_and_si512(_mm512_castps_si512(features[i]), _mm512_set1_epi32(0xff))
            };
            _mm512_or_si512(byte(0), _mm512_slli_epi32::<16>(byte(1)))
        }
    }
}

// SAFETY of every block below: as for `Vnni`.
impl Dot for Pairs256 {
    type S = Avx2;
    type W = __m256i;
    const GROUP: usize = 2;
    // 4 rows × 2 vectors of sums, 2 columns, 1 weight and the products: sixteen registers do not hold a third vector
    const AT_ONCE: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m256i {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> __m256i {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, w: __m256i) {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_storeu_si256(p.cast(), w) }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m256i, activations: __m256i, weights: *const u32) -> __m256i {
        // SAFETY: see the top of the impl.
        unsafe {
            let products = _mm256_madd_epi16(activations, _mm256_set1_epi32(*weights as i32));
            _mm256_add_epi32(sums, products)
        }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m256i) -> std::arch::x86_64::__m256 {
        // SAFETY: see the top of the impl.
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
    #[inline(always)]
    unsafe fn join(features: [std::arch::x86_64::__m256; 4]) -> __m256i {
        // SAFETY: see the top of the impl.
        unsafe {
            let byte = |i: usize| {
                _mm256_and_si256(_mm256_castps_si256(features[i]), _mm256_set1_epi32(0xff))
            };
            _mm256_or_si256(byte(0), _mm256_slli_epi32::<16>(byte(1)))
        }
    }
}
