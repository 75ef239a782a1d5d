//! One file that scores images: backbone by name and hash, adaptation, bank of the support, scorer, threshold.
//!
//! [`Bundle`] is the file, [`TokenScorer`] what most of them do to tokens
//! ([`ResidualScorer`](crate::score::residual::ResidualScorer) what the others do). Whatever scores with a bundle, `predict` or
//! `evaluate`, goes through [`Scorer::score`](crate::score::Scorer::score), so that both give the same bits.

mod bank;
mod cells;
mod error;
mod file;
mod header;
mod kept;
mod patches;
mod rows;
mod scorer;
pub(crate) mod spacings;

pub use bank::{Bank, BankBuilder, Precision};
pub use cells::Cells;
pub use error::BundleError;
pub use file::{Bundle, FORMAT, FORMAT_VERSION, Keeping};
pub use header::{
    BankInfo, Candidate, CheckpointRef, Header, IndexInfo, IndexKind, MapScale, Recall, ScorerKind,
    SearchRecord, SizeInfo,
};
pub use kept::{Kept, KeptImages, KeptSize};
pub(crate) use patches::chosen;
pub use patches::{MOST_NEIGHBOURHOOD, PatchOptions};
pub(crate) use rows::RowBank;
pub use scorer::TokenScorer;

pub use crate::score::Finding;
