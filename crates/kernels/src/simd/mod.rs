//! One vector type per instruction set, behind one trait that every kernel is generic over.
//!
//! Lanes always hold different tokens (or different output columns), and every sum runs inside one lane, in
//! one fixed order. So a kernel gives the same bits on every instruction set, whatever its vector width.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod dot;
#[cfg(target_arch = "aarch64")]
pub(crate) mod dot_neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot_x86;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

/// A table of eight numbers, written twice so that it fills the widest vector.
#[repr(C, align(64))]
pub(crate) struct Eight([f32; 16]);

impl Eight {
    /// The table of these numbers.
    pub(crate) const fn new(values: [f32; 8]) -> Self {
        let mut twice = [0.0; 16];
        let mut i = 0;
        while i < 16 {
            twice[i] = values[i % 8];
            i += 1;
        }
        Self(twice)
    }
}

/// A vector of f32 lanes and the arithmetic that kernels need.
///
/// # Safety
/// Every method may only be called where the instruction set is known to be present; pointers must be valid
/// for the lanes they name. No alignment is required.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// f32 lanes of a vector.
    const LANES: usize;
    /// Rows of the register tile of the matrix kernels.
    const ROWS: usize;
    /// The vector.
    type V: Copy;

    /// Asks for the cache line of `p` to be brought near; any address is allowed.
    #[inline(always)]
    fn prefetch(_p: *const f32) {}
    /// As [`Self::prefetch`], but into the nearest cache.
    #[inline(always)]
    fn prefetch_near(_p: *const f32) {}
    /// The register tile of `M` rows and `NV` vectors without fetching ahead, see [`tile`](crate::tile::tile), where an
    /// instruction set does it better by hand.
    ///
    /// # Safety
    /// As [`tile`](crate::tile::tile).
    #[inline(always)]
    unsafe fn tile_by_hand<const M: usize, const NV: usize>(
        _k: usize,
        _a: *const f32,
        _lda: usize,
        _b: *const f32,
        _ldb: usize,
    ) -> Option<[[Self::V; NV]; M]> {
        None
    }
    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// Reads `LANES` numbers.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Writes `LANES` numbers.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a + b`
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, correctly rounded
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// Square root, correctly rounded.
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a · b`, rounded once.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a > b ? a : b` (so `b` where either is NaN).
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? a : b` (so `b` where either is NaN).
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a` without its sign.
    unsafe fn abs(a: Self::V) -> Self::V;
    /// The numbers of `table` at the places that the lowest three bits of each lane say.
    unsafe fn look_up(table: &Eight, index: Self::V) -> Self::V;
    /// `a > b ? x : y`, lane by lane.
    unsafe fn select_gt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `2^n · x` for whole `n` in -126..=127 whose product is a normal number.
    unsafe fn scale_by_power_of_two(x: Self::V, n: Self::V) -> Self::V;
    /// Writes lanes into groups of [`Self::ROWS`]: lane `l` goes to `base + (l0+l)/ROWS·stride + (l0+l)%ROWS`,
    /// `l0` a multiple of `LANES`.
    unsafe fn store_grouped(base: *mut f32, l0: usize, stride: usize, v: Self::V);
    /// Writes `rows.len()` vectors transposed: lane `l` of row `r` goes to `p + l·rows.len() + r`.
    #[inline(always)]
    unsafe fn store_transposed<const M: usize>(p: *mut f32, rows: &[Self::V; M]) {
        // SAFETY: passed on from the caller.
        unsafe { store_transposed_plainly::<Self, M>(p, rows) }
    }
}

/// [`Simd::store_transposed`] through memory, for any number of rows.
///
/// # Safety
/// As [`Simd::store_transposed`].
#[inline(always)]
unsafe fn store_transposed_plainly<S: Simd, const M: usize>(p: *mut f32, rows: &[S::V; M]) {
    let mut lanes = [0.0f32; 16];
    for (r, &row) in rows.iter().enumerate() {
        // SAFETY: `lanes` holds at least LANES (≤ 16) numbers; the caller gave LANES·M numbers at `p`.
        unsafe {
            S::store(lanes.as_mut_ptr(), row);
            for (l, &x) in lanes.iter().enumerate().take(S::LANES) {
                *p.add(l * M + r) = x;
            }
        }
    }
}
