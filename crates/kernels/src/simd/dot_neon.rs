//! Dot products of bytes on aarch64 with the dot-product extension.

use std::arch::aarch64::{
    float32x4_t, int32x4_t, vandq_s32, vcvtq_f32_s32, vdupq_n_s32, veorq_s32, vld1q_s32, vorrq_s32,
    vreinterpretq_s32_f32, vshlq_n_s32, vst1q_s32,
};
use std::arch::asm;

use super::dot::Dot;
use super::neon::Neon;

/// `sdot`: four products of signed bytes a lane.
///
/// The instruction wants both sides signed, so words of activations hold each byte less 128.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sdot;

/// `sums + Σ a · b` over the four signed bytes of every lane.
///
/// # Safety
/// The dot-product extension must be present.
#[inline(always)]
unsafe fn sdot(mut sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: a register-only instruction that the caller vouches for.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {s:v}.4s, {a:v}.16b, {b:v}.16b",
            s = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

// SAFETY of every block below: the trait's contract says that the extension is present and that the pointers are valid
// for four words.
impl Dot for Sdot {
    type S = Neon;
    type W = int32x4_t;
    const GROUP: usize = 4;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn splat(x: i32) -> int32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> int32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vld1q_s32(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, w: int32x4_t) {
        // SAFETY: see the top of the impl.
        unsafe { vst1q_s32(p.cast(), w) }
    }
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, activations: int32x4_t, weights: *const u32) -> int32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { sdot(sums, activations, vdupq_n_s32(*weights as i32)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: see the top of the impl.
        unsafe { vcvtq_f32_s32(sums) }
    }
    #[inline(always)]
    unsafe fn join(features: [float32x4_t; 4]) -> int32x4_t {
        // SAFETY: see the top of the impl.
        unsafe {
            let byte = |i: usize| vandq_s32(vreinterpretq_s32_f32(features[i]), vdupq_n_s32(0xff));
            let low = vorrq_s32(byte(0), vshlq_n_s32::<8>(byte(1)));
            let high = vorrq_s32(vshlq_n_s32::<16>(byte(2)), vshlq_n_s32::<24>(byte(3)));
            veorq_s32(vorrq_s32(low, high), vdupq_n_s32(0x8080_8080_u32 as i32))
        }
    }
}
