//! Portable lanes: the fallback, the reference of the conformance tests, and what Miri runs.

use super::{Eight, Simd};

/// Eight f32 in an array.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

const LANES: usize = 8;
type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

// SAFETY of the pointer methods: the caller vouches for `LANES` numbers at each pointer (see the trait).
impl Simd for Scalar {
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    type V = V;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        // SAFETY: the caller vouches for LANES numbers at `p`.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        // SAFETY: the caller vouches for LANES numbers at `p`.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        let mut out = c;
        for i in 0..LANES {
            out[i] = a[i].mul_add(b[i], c[i]);
        }
        out
    }
    #[inline(always)]
    unsafe fn fnma(a: V, b: V, c: V) -> V {
        let mut out = c;
        for i in 0..LANES {
            out[i] = (-a[i]).mul_add(b[i], c[i]);
        }
        out
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn look_up(table: &Eight, index: V) -> V {
        index.map(|x| table.0[(x.to_bits() & 7) as usize])
    }
    #[inline(always)]
    unsafe fn select_gt(a: V, b: V, x: V, y: V) -> V {
        let mut out = y;
        for i in 0..LANES {
            if a[i] > b[i] {
                out[i] = x[i];
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: V, n: V) -> V {
        zip(x, n, |x, n| {
            f32::from_bits(x.to_bits().wrapping_add(((n as i32) << 23) as u32))
        })
    }
    #[inline(always)]
    unsafe fn store_grouped(base: *mut f32, l0: usize, stride: usize, v: V) {
        for (l, x) in v.into_iter().enumerate() {
            let at = l0 + l;
            // SAFETY: the caller vouches for the groups that `l0..l0 + LANES` falls into.
            unsafe { *base.add(at / Self::ROWS * stride + at % Self::ROWS) = x };
        }
    }
}
