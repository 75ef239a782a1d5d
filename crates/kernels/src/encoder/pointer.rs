//! A raw pointer that tasks of one phase share.

/// Points to a buffer that several threads write in disjoint places; the code that hands it out proves the
/// disjointness, see [`crate::encoder`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointer<T = f32>(*mut T);

// SAFETY: a pointer is only an address; every use of it is an `unsafe` block with its own argument.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    /// To the start of `buffer`.
    pub(crate) fn new(buffer: &mut [T]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// `offset` numbers after `start`.
    pub(crate) fn new_at(start: Self, offset: usize) -> Self {
        Self(start.0.wrapping_add(offset))
    }

    /// To nothing.
    pub(crate) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    /// The address.
    #[inline(always)]
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}
