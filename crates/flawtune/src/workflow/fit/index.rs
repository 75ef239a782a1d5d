//! The approximate index of a bundle: whether there is one, and how well it finds.

use super::{FitRequest, ScorerChoice};
use crate::bundle::{Bank, Cells, IndexInfo, IndexKind, TokenScorer};
use crate::features::TokenSet;
use crate::workflow::{Event, OnEvent, WorkflowError};

/// How the nearest patch is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum IndexChoice {
    /// Exact up to a million patches, approximate beyond
    ///
    /// To the patch: [`EXACT_UP_TO`].
    Auto,
    /// Compare with every patch
    Exact,
    /// Compare with the patches of the nearest cells
    Approximate,
}

/// Patches up to which every one is compared, where [`IndexChoice::Auto`] decides.
pub const EXACT_UP_TO: usize = 1_000_000;

/// A bank as it is searched.
pub(super) struct Sorted {
    pub(super) bank: Bank,
    pub(super) cells: Option<Cells>,
    /// The support image of each row, where the bank is sorted.
    pub(super) owners: Vec<u32>,
}

/// Refuses what cannot be had.
pub(super) fn check(request: &FitRequest, choice: ScorerChoice) -> Result<(), WorkflowError> {
    if request.options.index == IndexChoice::Approximate && choice == ScorerChoice::ImagePair {
        return Err(WorkflowError::Input(
            "`index` approximate finds the nearest patches; image pairs compare whole images\nhint: omit it, or use `scorer` \
             patch-bank"
                .into(),
        ));
    }
    if request.options.index_probes == 0 {
        return Err(WorkflowError::Input(
            "`index_probes` 0: at least one cell is searched for each patch".into(),
        ));
    }
    Ok(())
}

/// Whether a bank of so many patches is searched by an index.
pub(super) fn wanted(request: &FitRequest, choice: ScorerChoice, rows: usize) -> bool {
    choice != ScorerChoice::ImagePair
        && match request.options.index {
            IndexChoice::Auto => rows > EXACT_UP_TO,
            IndexChoice::Exact => false,
            IndexChoice::Approximate => true,
        }
}

/// Sorts a bank, whose images gave it so many rows each, into cells where an index is wanted.
pub(super) fn sorted(indexed: bool, bank: Bank, parts: &[usize], seed: u64) -> Sorted {
    if !indexed {
        return Sorted {
            bank,
            cells: None,
            owners: Vec::new(),
        };
    }
    let (bank, cells, order) = Cells::sort(bank, seed);
    let mut end = 0;
    let end_of = |rows: &usize| {
        end += rows;
        end
    };
    let ends: Vec<usize> = parts.iter().map(end_of).collect();
    let owners = order
        .iter()
        .map(|&row| ends.partition_point(|end| *end <= row) as u32)
        .collect();
    Sorted {
        bank,
        cells: Some(cells),
        owners,
    }
}

/// Measures the index and says what it found; `own`: the images are the bank's, each is left out of it.
pub(super) fn info(
    scorer: &TokenScorer,
    cells: &Cells,
    probes: usize,
    tokens: &TokenSet,
    own: bool,
    on_event: OnEvent<'_>,
) -> Result<Option<IndexInfo>, WorkflowError> {
    let Some(recall) = scorer.recall(tokens, own)? else {
        return Ok(None);
    };
    let info = IndexInfo {
        kind: IndexKind::Cells,
        cells: cells.len(),
        probes,
        recall,
    };
    on_event(Event::Note(format!("index: {}", info.text())));
    Ok(Some(info))
}
