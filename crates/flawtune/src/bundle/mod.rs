//! One file that scores pictures: backbone by name and hash, adaptation, bank of the support, scorer, threshold.
//!
//! [`Bundle`] is the file, [`TokenScorer`] what it does to tokens. Whatever scores with a bundle, `predict` or `evaluate`,
//! goes through [`TokenScorer::score`], so that both give the same bits.

mod bank;
mod cells;
mod error;
mod file;
mod header;
mod patches;
mod rows;
mod scorer;

pub use bank::{Bank, BankBuilder, Precision};
pub use cells::Cells;
pub use error::BundleError;
pub use file::{Bundle, FORMAT, FORMAT_VERSION};
pub use header::{
    BankInfo, CheckpointRef, Header, IndexInfo, IndexKind, MapScale, Recall, ScorerKind,
};
pub(crate) use patches::chosen;
pub use patches::{MOST_NEIGHBOURHOOD, PatchOptions};
pub(crate) use rows::RowBank;
pub use scorer::TokenScorer;

pub use crate::score::Finding;
