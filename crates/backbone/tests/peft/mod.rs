//! What the tests of the backward pass share.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod golden;
pub(crate) mod loss;
pub(crate) mod reference;
pub(crate) mod tiny;
