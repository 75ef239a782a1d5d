//! A bank of patches of unit length, whole images or a part of each.
//!
//! The parts only spread the work and say which rows belong together; a distance depends on neither them nor the threads.

use flawtune_kernels::matching::{PackedPatches, max_similarity};
use rayon::prelude::*;

use crate::adapt::heads::left_out_distances;

/// Rows of a bank in one piece of work.
const PART_ROWS: usize = 512;

/// Patches that others are compared with, packed for matching; `[rows, dim]` in parts.
#[derive(Debug)]
pub struct RowBank {
    parts: Vec<PackedPatches>,
}

impl RowBank {
    /// Of parts, such as the patches of each image; they are of one width.
    pub fn new(parts: Vec<PackedPatches>) -> Self {
        Self { parts }
    }

    /// How many rows a part takes where nothing else decides it.
    pub fn part_rows() -> usize {
        PART_ROWS
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(PackedPatches::patches).sum()
    }

    /// `1 − max cos` of every patch of each test to the bank; 2 from an empty bank. Spread over tests and parts on the
    /// current rayon pool.
    pub fn distances(&self, tests: &[PackedPatches]) -> Vec<Vec<f32>> {
        self.distances_without(tests, |_| None)
    }

    /// The same, each test compared with all parts but the one that `left_out` names.
    pub fn distances_without(
        &self,
        tests: &[PackedPatches],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Vec<f32>> {
        if self.parts.is_empty() {
            return tests.iter().map(|t| vec![2.0; t.patches()]).collect();
        }
        let count = self.parts.len();
        let best: Vec<Vec<f32>> = (0..tests.len() * count)
            .into_par_iter()
            .map(|i| {
                let (test, part) = (i / count, i % count);
                let mut best = vec![-1.0f32; tests[test].patches()];
                if left_out(test) != Some(part) && self.parts[part].patches() > 0 && !best.is_empty() {
                    max_similarity(&tests[test], &self.parts[part], &mut best);
                }
                best
            })
            .collect();
        best.chunks_exact(count)
            .map(|parts| {
                let nearest = |p: usize| parts.iter().map(|b| b[p]).fold(-1.0f32, f32::max);
                (0..parts[0].len()).map(|p| 1.0 - nearest(p)).collect()
            })
            .collect()
    }

    /// The same for the bank's own parts, each against the others; both directions of a pair come from one product.
    pub fn left_out_distances(&self) -> Vec<Vec<f32>> {
        left_out_distances(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::normalise_rows;

    fn rows(count: usize, dim: usize, seed: usize) -> Vec<f32> {
        let mut rows: Vec<f32> =
            (0..count * dim).map(|v| ((v * 37 + seed * 101) % 89) as f32 / 40.0 - 1.0).collect();
        normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
        rows
    }

    #[test]
    fn parts_change_no_bit_and_leaving_out_equals_a_bank_without() {
        let dim = 12;
        let parts: Vec<Vec<f32>> = [7, 3, 0, 5].iter().enumerate().map(|(i, n)| rows(*n, dim, i)).collect();
        let pack = |rows: &[f32]| PackedPatches::pack(rows, dim);
        let bank = RowBank::new(parts.iter().map(|p| pack(p)).collect());
        let whole = RowBank::new(vec![pack(&parts.concat())]);
        let tests = [pack(&rows(9, dim, 77)), pack(&rows(1, dim, 5))];
        assert_eq!(bank.distances(&tests), whole.distances(&tests));
        assert_eq!((bank.rows(), whole.rows()), (15, 15));
        let all = bank.left_out_distances();
        let own: Vec<PackedPatches> = parts.iter().map(|p| pack(p)).collect();
        assert_eq!(all, bank.distances_without(&own, Some));
        for (i, part) in own.iter().enumerate() {
            let others =
                RowBank::new((0..parts.len()).filter(|j| *j != i).map(|j| pack(&parts[j])).collect());
            assert_eq!(all[i], others.distances(std::slice::from_ref(part))[0], "part {i}");
        }
        assert_eq!(RowBank::new(Vec::new()).distances(&tests[1..]), [[2.0]]);
    }
}
