//! An approximate index over a bank: its patches sorted into cells about centres, of which the nearest few are searched.
//!
//! The centres come from k-means on directions, over patches spread evenly over the bank. Everything is decided by the same
//! exact products as a search, in a fixed order: one seed gives the same cells on any number of threads.

mod search;

use std::sync::Arc;

use flawtune_kernels::matching::{Frame, Matches, PackedPatches, match_patches};
use rayon::prelude::*;

use super::bank::{Bank, Precision};
use crate::random::draws::{generator, shuffle};

pub(super) use search::CellBank;

/// Stream of the seed that the first centres are drawn with; the split has 0 and 1, the support 2.
const STREAM: u64 = 3;
/// Most cells.
const MOST: usize = 1 << 16;
/// Patches a cell that the centres are learned from, at most.
const SAMPLES: usize = 64;
/// Rounds of k-means.
const ROUNDS: usize = 8;
/// Rows that are widened and packed at a time.
const BLOCK_ROWS: usize = 192;
/// Bytes a row that sorting takes beside the bank: its cell, its old place, whether it was moved.
const SORTING: usize = 4 + size_of::<usize>() + 1;

/// Which rows of a bank lie about which centre: the bank holds them cell by cell.
#[derive(Debug, Clone)]
pub struct Cells {
    /// One row a cell, of unit length.
    centres: Bank,
    /// First row of each cell, and the number of rows.
    starts: Vec<usize>,
}

impl Cells {
    /// How many cells there are for so many rows: about as many as each holds rows.
    pub fn count(rows: usize) -> usize {
        ((rows as f64).sqrt().round() as usize).clamp(1, MOST)
    }

    /// Bytes of memory for the index of so many rows, beside the bank, and while it is made.
    pub(crate) fn memory(rows: usize, dim: usize) -> (usize, usize) {
        // as stored and laid out for matching; sums in f64 while they are learned
        let centres = Self::count(rows).saturating_mul(dim).saturating_mul(4 + 4);
        (
            centres,
            centres
                .saturating_mul(2)
                .saturating_add(rows.saturating_mul(SORTING)),
        )
    }

    /// Bytes of the index of so many rows in a file.
    pub(crate) fn file_size(rows: usize, dim: usize) -> usize {
        Self::count(rows).saturating_mul(dim.saturating_mul(4).saturating_add(8))
    }

    /// Sorts a bank's rows into cells, within a cell in the order they had; gives for each row where it was.
    #[must_use]
    pub fn sort(bank: Bank, seed: u64) -> (Bank, Self, Vec<usize>) {
        let centres = learned(&bank, Self::count(bank.rows()), seed);
        let blocks: Vec<usize> = (0..bank.rows()).step_by(BLOCK_ROWS).collect();
        let nearest = Centres::new(&centres, bank.dim());
        let cell_of = blocks.par_iter().flat_map_iter(|&first| {
            let rows = BLOCK_ROWS.min(bank.rows() - first);
            nearest.of(bank.read(first, rows, &mut Vec::new()))
        });
        let cell_of: Vec<u32> = cell_of.collect();
        let mut counts = vec![0; centres.len() / bank.dim()];
        for &cell in &cell_of {
            counts[cell as usize] += 1;
        }
        // where each cell's next row goes; cells that no row is nearest to are left out
        let (mut starts, mut kept, mut next) =
            (vec![0], Vec::new(), Vec::with_capacity(counts.len()));
        for (centre, &count) in centres.chunks_exact(bank.dim()).zip(&counts) {
            let first = starts.last().copied().unwrap_or(0);
            next.push(first);
            if count > 0 {
                kept.extend_from_slice(centre);
                starts.push(first + count);
            }
        }
        let mut order = vec![0; bank.rows()];
        for (row, &cell) in cell_of.iter().enumerate() {
            let place = &mut next[cell as usize];
            order[*place] = row;
            *place += 1;
        }
        let cells = Self {
            centres: Bank::of(&kept, bank.dim(), Precision::F32),
            starts,
        };
        (bank.reordered(&order), cells, order)
    }

    /// Cells of these centres that hold so many rows each; what is wrong with them where they cannot be those of a bank of
    /// `rows` rows.
    pub(super) fn checked(
        centres: Bank,
        lengths: impl Iterator<Item = u64>,
        rows: usize,
    ) -> Result<Self, String> {
        let mut starts = vec![0usize];
        for length in lengths {
            let last = starts.last().copied().unwrap_or(0);
            let end = usize::try_from(length)
                .ok()
                .filter(|n| *n > 0)
                .and_then(|n| last.checked_add(n));
            match end {
                Some(end) if end <= rows => starts.push(end),
                _ => return Err(format!("has a cell of {length} of {rows} patches")),
            }
        }
        if starts.last() != Some(&rows) || starts.len() != centres.rows() + 1 {
            return Err(format!(
                "does not share {rows} patches among {} cells",
                centres.rows()
            ));
        }
        if !centres.is_plausible() {
            return Err("holds a centre with a number that no unit vector has".into());
        }
        Ok(Self { centres, starts })
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.centres.rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of the largest.
    pub fn largest(&self) -> usize {
        self.starts
            .windows(2)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or(0)
    }

    pub(super) fn centres(&self) -> &Bank {
        &self.centres
    }

    /// Rows of each cell.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.starts.windows(2).map(|w| (w[1] - w[0]) as u64)
    }
}

/// Centres, laid out for finding the nearest.
struct Centres {
    packed: PackedPatches,
    frame: Option<Arc<Frame>>,
}

impl Centres {
    fn new(centres: &[f32], dim: usize) -> Self {
        let frame = Frame::around(centres, dim);
        let mut packed = PackedPatches::pack(centres, dim);
        if let Some(frame) = &frame {
            packed.sketch(frame);
        }
        Self { packed, frame }
    }

    /// The nearest centre of each row, the first among equals.
    fn of(&self, rows: &[f32]) -> Vec<u32> {
        let mut asking = PackedPatches::pack(rows, self.packed.dim());
        if let Some(frame) = &self.frame {
            asking.sketch(frame);
        }
        let mut found = Matches::default();
        match_patches(&asking, &self.packed, &mut found);
        found.index
    }
}

/// Centres of unit length, `[cells, dim]`.
fn learned(bank: &Bank, cells: usize, seed: u64) -> Vec<f32> {
    let (rows, dim) = (bank.rows(), bank.dim());
    let samples = cells.saturating_mul(SAMPLES).min(rows);
    let place = |sample: usize| (sample as u128 * rows as u128 / samples as u128) as usize;
    let mut room = Vec::new();
    let mut order: Vec<usize> = (0..samples).collect();
    shuffle(&mut generator(seed, STREAM), &mut order);
    let mut centres = Vec::with_capacity(cells * dim);
    for &sample in order.iter().take(cells) {
        centres.extend_from_slice(bank.read(place(sample), 1, &mut room));
    }
    let blocks: Vec<usize> = (0..samples).step_by(BLOCK_ROWS).collect();
    for _ in 0..ROUNDS {
        let nearest = Centres::new(&centres, dim);
        let cell_of = blocks.par_iter().flat_map_iter(|&first| {
            let (mut block, mut room) = (Vec::new(), Vec::new());
            for sample in first..(first + BLOCK_ROWS).min(samples) {
                block.extend_from_slice(bank.read(place(sample), 1, &mut room));
            }
            nearest.of(&block)
        });
        let cell_of: Vec<u32> = cell_of.collect();
        // one row after the other: the same sums on any number of threads
        let mut sums = vec![0.0f64; centres.len()];
        for (sample, &cell) in cell_of.iter().enumerate() {
            let row = bank.read(place(sample), 1, &mut room);
            let sum = &mut sums[cell as usize * dim..][..dim];
            sum.iter_mut()
                .zip(row)
                .for_each(|(sum, v)| *sum += f64::from(*v));
        }
        for (centre, sum) in centres.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)) {
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            // a centre that no patch is nearest to stays where it is
            if norm > 0.0 {
                centre
                    .iter_mut()
                    .zip(sum)
                    .for_each(|(c, v)| *c = (v / norm) as f32);
            }
        }
    }
    centres
}

#[cfg(test)]
mod tests;
