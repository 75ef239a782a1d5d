//! Tokens of images, extracted once and kept.
//!
//! [`Extractor::extract`] takes a list of image files and returns their tokens in the same order. On the way each
//! distinct image (by its bytes) is looked up in the [`FeatureCache`]; what is not there is decoded, prepared and
//! sent through the backbone in batches, the next batch being decoded while the current one is computed. A second
//! run on the same images makes no forward pass.

mod cache;
mod entry;
mod error;
mod extract;
mod forward;
mod inputs;
mod patch_mask;
mod tokens;
mod turn;

pub use cache::{CacheReport, FeatureCache, ModelUsage, Source};
pub use entry::{Entry, EntryError, encode_entry, open_entry};
pub use error::{BadImage, FeatureError};
pub use extract::{ExtractReport, Extraction, Extractor, Progress, Stage};
pub use forward::{Forward, ForwardError};
pub use inputs::Inputs;
pub use patch_mask::{patch_cover, patch_mask};
pub use tokens::{ImageTokens, TokenSet};
pub use turn::Turn;
