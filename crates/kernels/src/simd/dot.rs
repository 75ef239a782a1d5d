//! Whole-number dot products of small groups of features, lane by lane: what products of eight-bit numbers are made of.
//!
//! A word of 32 bits holds [`Dot::GROUP`] consecutive features of one column, so that words lie in the lanes as f32
//! numbers do. Activations are unsigned bytes, weights signed ones; sums of their products are exact, so every
//! implementation gives the same bits.

use std::marker::PhantomData;

use super::Simd;

/// Vectors of words beside the f32 vectors of `S`.
///
/// # Safety
/// As [`Simd`]: methods may only be called where the instructions are known to be present, with pointers valid for
/// `LANES` words.
pub(crate) trait Dot: Copy + Send + Sync + 'static {
    /// The f32 vectors.
    type S: Simd;
    /// `LANES` words.
    type W: Copy;
    /// Features of a word: four bytes, or two 16-bit numbers where the machine multiplies those.
    const GROUP: usize;

    /// What is taken from every activation byte so that it fits the machine's products: sums start at
    /// `OFFSET · Σ weights`.
    const OFFSET: i32 = 0;

    /// Vectors of columns whose sums the registers hold beside what a step needs; a wider tile is made of parts.
    const AT_ONCE: usize = 3;

    /// All lanes `x`.
    unsafe fn splat(x: i32) -> Self::W;
    /// Reads `LANES` words.
    unsafe fn load(p: *const u32) -> Self::W;
    /// Writes `LANES` words.
    unsafe fn store(p: *mut u32, w: Self::W);
    /// `sums + Σ activations · weights` over the features of a word; `weights` is one word for all lanes.
    unsafe fn dot(sums: Self::W, activations: Self::W, weights: *const u32) -> Self::W;
    /// Sums as f32, rounded to nearest even.
    unsafe fn to_float(sums: Self::W) -> <Self::S as Simd>::V;
    /// Words of the low bytes of the first `GROUP` vectors' f32 bits, less `OFFSET` each.
    unsafe fn join(features: [<Self::S as Simd>::V; 4]) -> Self::W;
}

/// The word that holds up to four signed weights, `group` of them.
pub(crate) fn weight_word(group: usize, weights: &[i8]) -> u32 {
    let mut word = 0u32;
    for (i, &w) in weights.iter().enumerate() {
        word |= match group {
            2 => u32::from(i16::from(w) as u16) << (16 * i),
            _ => u32::from(w as u8) << (8 * i),
        };
    }
    word
}

/// Plain code on arrays, beside any f32 vectors: the reference, and the fallback where a machine has nothing better.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable<S>(PhantomData<S>);

/// As many lanes as the widest vector has; the rest is not used.
const MOST: usize = 16;

impl<S: Simd> Dot for Portable<S> {
    type S = S;
    type W = [i32; MOST];
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::W {
        [x; MOST]
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self::W {
        let mut words = [0; MOST];
        for (l, w) in words.iter_mut().enumerate().take(S::LANES) {
            // SAFETY: the caller vouches for LANES words.
            *w = unsafe { *p.add(l) } as i32;
        }
        words
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, w: Self::W) {
        for (l, w) in w.iter().enumerate().take(S::LANES) {
            // SAFETY: the caller vouches for LANES words.
            unsafe { *p.add(l) = *w as u32 };
        }
    }
    #[inline(always)]
    unsafe fn dot(mut sums: Self::W, activations: Self::W, weights: *const u32) -> Self::W {
        // SAFETY: the caller vouches for the word.
        let weights = unsafe { *weights }
            .to_le_bytes()
            .map(|b| i32::from(b as i8));
        for (sum, activations) in sums.iter_mut().zip(activations).take(S::LANES) {
            for (a, w) in activations.to_le_bytes().iter().zip(weights) {
                *sum += i32::from(*a) * w;
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_float(sums: Self::W) -> S::V {
        let floats = sums.map(|s| s as f32);
        // SAFETY: `floats` holds LANES (≤ 16) numbers; the caller vouches for the instruction set.
        unsafe { S::load(floats.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn join(features: [S::V; 4]) -> Self::W {
        let mut words = [0; MOST];
        for (i, v) in features.into_iter().enumerate() {
            let mut lanes = [0.0f32; MOST];
            // SAFETY: `lanes` holds LANES (≤ 16) numbers; the caller vouches for the instruction set.
            unsafe { S::store(lanes.as_mut_ptr(), v) };
            for (w, x) in words.iter_mut().zip(lanes) {
                *w |= ((x.to_bits() & 0xff) << (8 * i)) as i32;
            }
        }
        words
    }
}
