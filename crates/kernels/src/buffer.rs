//! Cache-line aligned buffers of f32 and of other four-byte numbers.

use std::ops::{Deref, DerefMut};

/// Numbers per line: of four bytes each, one 64-byte cache line.
pub(crate) const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; LINE]);

/// A `Vec` of four-byte numbers whose first element lies on a cache line.
#[derive(Clone)]
pub(crate) struct Buffer<T = f32> {
    lines: Vec<Line<T>>,
    len: usize,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0 }
    }
}

impl<T: Copy + Default> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([T::default(); LINE]); len.div_ceil(LINE)], len }
    }

    /// Makes it `len` long, keeping the allocation where it suffices; the contents are unspecified numbers.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(LINE), Line([T::default(); LINE]));
        self.len = len;
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        const { assert!(size_of::<Line<T>>() == LINE * size_of::<T>(), "a line has no padding") };
        // SAFETY: `lines` holds at least `len` initialised numbers in one allocation: `Line` is 16 of them without
        // padding, as checked above, and `len ≤ 16·lines.len()` by construction.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        const { assert!(size_of::<Line<T>>() == LINE * size_of::<T>(), "a line has no padding") };
        // SAFETY: as in `deref`, and `&mut self` makes the view unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<T>(), self.len) }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} numbers)", self.len)
    }
}
