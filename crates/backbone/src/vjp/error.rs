//! What can be wrong with the tensors handed to [`super::FrozenVit`].

use crate::vit::VitError;

/// An input of the forward or backward pass does not fit the backbone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VjpError {
    /// The weights or the configuration of the backbone itself.
    #[error(transparent)]
    Backbone(#[from] VitError),
    /// A tensor has the wrong shape.
    #[error("{tensor}: found shape {found:?}, wanted {wanted:?}\nhint: {hint}")]
    Shape {
        /// Which tensor.
        tensor: String,
        /// Its shape (one number, the length, where only that is known).
        found: Vec<usize>,
        /// The shape that fits.
        wanted: Vec<usize>,
        /// What to do.
        hint: &'static str,
    },
    /// A tensor that the insertions need is absent, or one is there that they do not have.
    #[error(
        "tensor {tensor:?} is {what}; the checkpoint was made with other `prompt_depth`, `use_adapters` or `learn_scaling` options\nhint: use those"
    )]
    Layout {
        /// Which tensor.
        tensor: String,
        /// "missing" or "not expected".
        what: &'static str,
    },
    /// A size that makes no sense.
    #[error("{option} is {found}\nhint: {hint}")]
    Size {
        /// Which size.
        option: &'static str,
        /// What it is.
        found: usize,
        /// What to do.
        hint: &'static str,
    },
}

impl VjpError {
    /// Checks that `tensor` has `wanted` elements in all.
    pub(super) fn check_len(
        tensor: &str,
        found: usize,
        wanted: &[usize],
        hint: &'static str,
    ) -> Result<(), Self> {
        if found == wanted.iter().product::<usize>() {
            return Ok(());
        }
        Err(Self::Shape {
            tensor: tensor.to_owned(),
            found: vec![found],
            wanted: wanted.to_vec(),
            hint,
        })
    }
}
