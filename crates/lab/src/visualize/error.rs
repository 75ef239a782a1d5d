//! What can be wrong with the numbers handed to this module.

/// A list of numbers does not fit the others, or holds nothing to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisualizeError {
    /// A slice has the wrong length.
    #[error("{what}: found {found} numbers, wanted {wanted}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits.
        wanted: usize,
    },
    /// Nothing to compute from.
    #[error("{what}: there is nothing to look at\nhint: give at least one")]
    Empty {
        /// What is missing.
        what: &'static str,
    },
}

impl VisualizeError {
    pub(super) fn check(what: &'static str, found: usize, wanted: usize) -> Result<(), Self> {
        if found == wanted {
            Ok(())
        } else {
            Err(Self::Length {
                what,
                found,
                wanted,
            })
        }
    }

    /// Rows of `dim` numbers in a slice of `found`; there must be some, and whole ones.
    pub(super) fn rows(what: &'static str, found: usize, dim: usize) -> Result<usize, Self> {
        if found == 0 || dim == 0 {
            return Err(Self::Empty { what });
        }
        Self::check(what, found, found.div_ceil(dim) * dim)?;
        Ok(found / dim)
    }
}
