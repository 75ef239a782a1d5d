//! What the tests of the backward pass share.

pub(crate) mod golden;
pub(crate) mod loss;
