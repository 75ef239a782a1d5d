//! Tokens of images, extracted once and kept.

mod tokens;

pub use tokens::{ImageTokens, TokenSet};
