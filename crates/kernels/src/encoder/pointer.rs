//! A raw pointer that tasks of one phase share.

/// Points to a buffer that several threads write in disjoint places; the code that hands it out proves the
/// disjointness, see [`crate::encoder`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointer(*mut f32);

// SAFETY: a pointer is only an address; every use of it is an `unsafe` block with its own argument.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    /// To the start of `buffer`.
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
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
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}
