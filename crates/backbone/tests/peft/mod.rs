//! What the tests of the backward pass share.

pub mod golden;
pub mod loss;
