//! The nearest of a bank's patches, found in the bank as it is stored.
//!
//! Some rows at a time are widened and packed in a thread's own buffer, and all asking patches search them while they are in its
//! cache: so the search needs no memory to speak of beside the bank. Widening and packing cost a few hundredths of the products
//! for one picture and are shared by all pictures that are scored together. A distance depends on neither the blocks nor the threads,
//! because the maximum of the same products is the same in any order.

use flawtune_kernels::matching::{PackedPatches, raise_similarity};
use rayon::prelude::*;

use super::bank::Bank;
use crate::adapt::heads::left_out_distances;

/// Rows that are packed at a time: with 384 numbers each they and a panel of asking patches fit a second-level cache.
const BLOCK_ROWS: usize = 192;
/// Pieces of work for each thread.
const PIECES: usize = 8;

/// Patches that others are compared with.
#[derive(Debug)]
pub(super) struct RowBank {
    bank: Bank,
    /// Rows of each part, such as the patches of an image.
    parts: Vec<usize>,
    blocks: Vec<Block>,
}

/// Rows of one part.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    rows: usize,
    part: usize,
}

impl RowBank {
    /// Of a bank whose rows belong together in parts of these lengths; their sum is the number of rows.
    pub(super) fn new(bank: Bank, parts: Vec<usize>) -> Self {
        let (mut blocks, mut first) = (Vec::new(), 0);
        for (part, &rows) in parts.iter().enumerate() {
            let starts = (first..first + rows).step_by(BLOCK_ROWS);
            blocks.extend(starts.map(|at| Block {
                first: at,
                rows: BLOCK_ROWS.min(first + rows - at),
                part,
            }));
            first += rows;
        }
        Self { bank, parts, blocks }
    }

    /// `1 − max cos` of every patch of each test to the bank; 2 from an empty bank. Spread over the current rayon pool.
    pub(super) fn distances(&self, tests: &[PackedPatches]) -> Vec<Vec<f32>> {
        self.distances_without(tests, |_| None)
    }

    /// The same, each test compared with all parts but the one that `left_out` names.
    pub(super) fn distances_without(
        &self,
        tests: &[PackedPatches],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Vec<f32>> {
        let none = || tests.iter().map(|t| vec![-1.0f32; t.patches()]).collect::<Vec<_>>();
        let pieces = PIECES * rayon::current_num_threads();
        let in_one = self.blocks.len().div_ceil(pieces).max(1);
        // a bank of few blocks is shared by searching it for some tests at a time
        let groups = pieces.div_ceil(self.blocks.len().div_ceil(in_one).max(1));
        let group = tests.len().div_ceil(groups).max(1);
        let work: Vec<(usize, &[Block])> = (0..tests.len())
            .step_by(group)
            .flat_map(|first| self.blocks.chunks(in_one).map(move |blocks| (first, blocks)))
            .collect();
        let best: Vec<Vec<Vec<f32>>> = work
            .par_iter()
            .map_init(
                || (Vec::new(), PackedPatches::pack(&[], self.bank.dim())),
                |(rows, packed), &(first, blocks)| {
                    let tests = &tests[first..(first + group).min(tests.len())];
                    let mut best: Vec<Vec<f32>> = tests.iter().map(|t| vec![-1.0; t.patches()]).collect();
                    for block in blocks {
                        self.bank.decode_into(block.first, block.rows, rows);
                        packed.repack(rows, self.bank.dim());
                        for (i, (test, best)) in tests.iter().zip(&mut best).enumerate() {
                            if left_out(first + i) != Some(block.part) && !best.is_empty() {
                                raise_similarity(test, packed, best);
                            }
                        }
                    }
                    best
                },
            )
            .collect();
        let mut nearest = none();
        for ((first, _), best) in work.iter().zip(&best) {
            for (nearest, best) in nearest[*first..].iter_mut().zip(best) {
                nearest.iter_mut().zip(best).for_each(|(n, &b)| *n = n.max(b));
            }
        }
        nearest.iter().map(|n| n.iter().map(|n| 1.0 - n).collect()).collect()
    }

    /// The same for the bank's own parts, each against the others; both directions of a pair come from one product. Holds all
    /// rows in f32 meanwhile.
    pub(super) fn left_out_distances(&self) -> Vec<Vec<f32>> {
        left_out_distances(&self.bank.pack(&self.parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::normalise_rows;
    use crate::bundle::Precision;

    fn rows(count: usize, dim: usize, seed: usize) -> Vec<f32> {
        let mut rows: Vec<f32> =
            (0..count * dim).map(|v| ((v * 37 + seed * 101) % 89) as f32 / 40.0 - 1.0).collect();
        normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
        rows
    }

    fn bank(parts: &[Vec<f32>], dim: usize, precision: Precision) -> RowBank {
        let lengths = parts.iter().map(|p| p.len() / dim).collect();
        RowBank::new(Bank::of(&parts.concat(), dim, precision), lengths)
    }

    #[test]
    fn parts_change_no_bit_and_leaving_out_equals_a_bank_without() {
        let dim = 12;
        // one of several blocks, an empty one, and more blocks than pieces of work
        let lengths = [7, 2 * BLOCK_ROWS + 3, 0, 5].into_iter().chain([2; 100]);
        let parts: Vec<Vec<f32>> = lengths.enumerate().map(|(i, n)| rows(n, dim, i)).collect();
        let tests = [PackedPatches::pack(&rows(9, dim, 77), dim), PackedPatches::pack(&rows(1, dim, 5), dim)];
        for precision in [Precision::F16, Precision::F32] {
            let parted = bank(&parts, dim, precision);
            let whole = bank(&[parts.concat()], dim, precision);
            assert_eq!(parted.distances(&tests), whole.distances(&tests));
            let plain = PackedPatches::pack(&parted.bank.decode(0, parted.bank.rows()), dim);
            for (test, found) in tests.iter().zip(whole.distances(&tests)) {
                let mut best = vec![0.0; test.patches()];
                flawtune_kernels::matching::max_similarity(test, &plain, &mut best);
                assert_eq!(best.iter().map(|b| 1.0 - b).collect::<Vec<_>>(), found);
            }
            let all = parted.left_out_distances();
            let own = parted.bank.pack(&parted.parts);
            assert_eq!(all, parted.distances_without(&own, Some));
            for (i, part) in own.iter().enumerate().take(5) {
                let others: Vec<Vec<f32>> =
                    (0..parts.len()).filter(|j| *j != i).map(|j| parts[j].clone()).collect();
                let others = bank(&others, dim, precision);
                assert_eq!(all[i], others.distances(std::slice::from_ref(part))[0], "part {i}");
            }
        }
        assert_eq!(bank(&[], dim, Precision::F32).distances(&tests[1..]), [[2.0]]);
        assert!(bank(&parts, dim, Precision::F32).distances(&[]).is_empty());
    }

    #[test]
    fn threads_change_no_bit() {
        let dim = 12;
        let bank = bank(&[rows(5 * BLOCK_ROWS + 1, dim, 3)], dim, Precision::F16);
        let tests: Vec<_> = (0..5).map(|i| PackedPatches::pack(&rows(20, dim, 50 + i), dim)).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bank.distances(&tests))
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(3));
    }
}
