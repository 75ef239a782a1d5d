//! NEON on aarch64 (always present there): four lanes, thirty-two registers.

use std::arch::aarch64::{
    float32x4_t, vabsq_f32, vaddq_f32, vaddq_s32, vandq_u32, vbslq_f32, vcgtq_f32, vcltq_f32,
    vcvtq_s32_f32, vdivq_f32, vdupq_n_f32, vdupq_n_u32, vfmaq_f32, vfmsq_f32, vld1q_f32,
    vld1q_u8_x2, vmlaq_n_u32, vmulq_f32, vqtbl2q_u8, vreinterpretq_f32_s32, vreinterpretq_f32_u8,
    vreinterpretq_s32_f32, vreinterpretq_u8_u32, vreinterpretq_u32_f32, vshlq_n_s32, vsqrtq_f32,
    vst1q_f32, vsubq_f32,
};

use super::{Eight, Simd};

/// NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY of every block below: NEON is part of every aarch64 target this crate builds for, and the trait's
// contract says that the pointers are valid for the lanes named.
impl Simd for Neon {
    const LANES: usize = 4;
    // 8 rows × 3 vectors = 24 accumulators, 3 columns, 1 broadcast of 32 registers
    const ROWS: usize = 8;
    type V = float32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        // SAFETY: see the top of the impl.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vsqrtq_f32(a) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vfmsq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl. A comparison, not FMAX, so that NaN goes the way the trait says.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vabsq_f32(a) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &Eight, index: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe {
            // byte numbers of the four bytes of entry `i`: 4i + 0, 1, 2, 3
            let entry = vandq_u32(vreinterpretq_u32_f32(index), vdupq_n_u32(7));
            let bytes = vmlaq_n_u32(vdupq_n_u32(0x0302_0100), entry, 0x0404_0404);
            let table = vld1q_u8_x2(table.0.as_ptr().cast());
            vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn select_gt(
        a: float32x4_t,
        b: float32x4_t,
        x: float32x4_t,
        y: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vbslq_f32(vcgtq_f32(a, b), x, y) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: float32x4_t, n: float32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe {
            let shift = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), shift))
        }
    }
    #[inline(always)]
    unsafe fn store_grouped(base: *mut f32, l0: usize, stride: usize, v: float32x4_t) {
        // SAFETY: see the top of the impl; ROWS = 2·LANES, so the lanes stay in one group.
        unsafe { vst1q_f32(base.add(l0 / 8 * stride + l0 % 8), v) }
    }
}
