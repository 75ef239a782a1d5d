//! The nearest of a bank's patches, found in the bank as it is stored.
//!
//! Some rows at a time are widened and laid out for matching in a thread's own buffer (in bytes first where the machine has a
//! coarse pass, see [`Frame`]), and all asking patches search them while they are in its cache: so the search needs no memory
//! to speak of beside the bank. What that costs is shared by all images that are scored together. A distance depends on
//! neither the blocks nor the threads, because the maximum of the same products is the same in any order.

use std::ops::Range;
use std::sync::Arc;

use flawtune_kernels::matching::{Frame, Matches, PackedPatches, raise_matches, raise_similarity};
use rayon::prelude::*;

use super::bank::Bank;
use crate::score::search::{Found, Placed, both_ways, keep, raise};

/// Rows that are packed at a time: with 384 numbers each they and a panel of asking patches fit a second-level cache.
const BLOCK_ROWS: usize = 192;
/// Rows that the centre of the coarse pass is the mean of, at most.
const SAMPLES: usize = 1024;
/// Rows that are held in f32, twice, while parts are compared with each other: whole parts, at least one.
const COMPARED_ROWS: usize = if cfg!(test) { 64 } else { 16_384 };
/// Blocks that the coarse pass may leave unsettled before it is given up for a test.
const FAILURES: usize = 2;
/// Pieces of work for each thread.
const PIECES: usize = 8;

/// Patches that others are compared with.
#[derive(Debug)]
pub(crate) struct RowBank {
    bank: Bank,
    /// Rows of each part, such as the patches of an image.
    parts: Vec<usize>,
    /// The first row of each.
    firsts: Vec<usize>,
    blocks: Vec<Block>,
    frame: Option<Arc<Frame>>,
}

/// Rows of one part.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    rows: usize,
    part: usize,
}

/// Working memory of a thread.
struct Room {
    rows: Vec<f32>,
    packed: PackedPatches,
    /// Without sketches.
    plain: PackedPatches,
}

impl Room {
    fn new(dim: usize) -> Self {
        let empty = PackedPatches::pack(&[], dim);
        Self {
            rows: Vec::new(),
            packed: empty.clone(),
            plain: empty,
        }
    }
}

impl RowBank {
    /// Of a bank whose rows belong together in parts of these lengths; their sum is the number of rows.
    pub(crate) fn new(bank: Bank, parts: Vec<usize>) -> Self {
        let (mut blocks, mut firsts, mut first) = (Vec::new(), Vec::with_capacity(parts.len()), 0);
        for (part, &rows) in parts.iter().enumerate() {
            firsts.push(first);
            let starts = (first..first + rows).step_by(BLOCK_ROWS);
            blocks.extend(starts.map(|at| Block {
                first: at,
                rows: BLOCK_ROWS.min(first + rows - at),
                part,
            }));
            first += rows;
        }
        let frame = frame(&bank);
        Self {
            bank,
            parts,
            firsts,
            blocks,
            frame,
        }
    }

    /// The bank, and the frame of the coarse pass.
    pub(super) fn into_bank(self) -> (Bank, Option<Arc<Frame>>) {
        (self.bank, self.frame)
    }

    /// One patch of the bank.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn row<'a>(&'a self, row: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
        self.bank.read(row, 1, room)
    }

    /// The part that a row is of; `u32::MAX` for one that is not there.
    pub(crate) fn part_of(&self, row: u32) -> u32 {
        let part = self.firsts.partition_point(|first| *first <= row as usize);
        if (row as usize) < self.bank.rows() {
            part as u32 - 1
        } else {
            u32::MAX
        }
    }

    /// The first row of a part.
    ///
    /// # Panics
    /// If there is no such part.
    pub(crate) fn first_row(&self, part: usize) -> usize {
        self.firsts[part]
    }

    /// Parts.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The patches of a part, `[patches · dim]`.
    ///
    /// # Panics
    /// If there is no such part.
    pub(crate) fn part_rows(&self, part: usize) -> Vec<f32> {
        self.bank.decode(self.firsts[part], self.parts[part])
    }

    /// Lays out unit patches (`[patches, dim]`) as the bank's own are for matching.
    pub(crate) fn pack(&self, rows: &[f32]) -> PackedPatches {
        let mut packed = PackedPatches::pack(&[], self.bank.dim());
        self.repack(rows, &mut packed);
        packed
    }

    fn repack(&self, rows: &[f32], packed: &mut PackedPatches) {
        match &self.frame {
            Some(frame) => packed.repack_in(frame, rows, self.bank.dim()),
            None => packed.repack(rows, self.bank.dim()),
        }
    }

    /// `1 − max cos` of every patch of each test to all parts of the bank but the one that `left_out` names for it; 2 where there
    /// is none. Spread over the current rayon pool.
    pub(super) fn distances_without(
        &self,
        tests: &[PackedPatches],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Vec<f32>> {
        let nearest = self.search_without(tests, left_out, false);
        nearest
            .iter()
            .map(|n| n.best.iter().map(|n| 1.0 - n).collect())
            .collect()
    }

    /// The largest cosine of every patch of each test to all parts of the bank but the one that `left_out` names for it, and the
    /// row that it is reached by, the first among equals; −1 and `u32::MAX` where there is none. Spread over the current rayon
    /// pool.
    pub(crate) fn nearest_without(
        &self,
        tests: &[PackedPatches],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Matches> {
        self.search_without(tests, left_out, true)
    }

    fn search_without(
        &self,
        tests: &[PackedPatches],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
        rows: bool,
    ) -> Vec<Matches> {
        let pieces = PIECES * rayon::current_num_threads();
        let in_one = self.blocks.len().div_ceil(pieces).max(1);
        // a bank of few blocks is shared by searching it for some tests at a time
        let groups = pieces.div_ceil(self.blocks.len().div_ceil(in_one).max(1));
        let group = tests.len().div_ceil(groups).max(1);
        let work: Vec<(usize, &[Block])> = (0..tests.len())
            .step_by(group)
            .flat_map(|first| {
                self.blocks
                    .chunks(in_one)
                    .map(move |blocks| (first, blocks))
            })
            .collect();
        let best: Vec<Vec<Matches>> = work
            .par_iter()
            .map_init(
                || Room::new(self.bank.dim()),
                |room, &(first, blocks)| {
                    let tests = &tests[first..(first + group).min(tests.len())];
                    self.search(tests, blocks, |test| left_out(first + test), rows, room)
                },
            )
            .collect();
        let mut nearest: Vec<Matches> = none(tests);
        for ((first, _), best) in work.iter().zip(&best) {
            for (nearest, best) in nearest[*first..].iter_mut().zip(best) {
                if rows {
                    nearest.raise(best);
                } else {
                    raise(&mut nearest.best, &best.best);
                }
            }
        }
        nearest
    }

    /// The largest cosine of every patch of each test to some blocks, at least −1; with `rows` also which row reaches it.
    fn search(
        &self,
        tests: &[PackedPatches],
        blocks: &[Block],
        left_out: impl Fn(usize) -> Option<usize>,
        wants_rows: bool,
        room: &mut Room,
    ) -> Vec<Matches> {
        let mut best = none(tests);
        let raise = |test: &PackedPatches, rows: &PackedPatches, first, best: &mut Matches| {
            if wants_rows {
                raise_matches(test, rows, first, best)
            } else {
                raise_similarity(test, rows, &mut best.best)
            }
        };
        // tests for which the coarse pass settles nothing, as where all patches are alike, without sketches
        let mut plain: Vec<Option<PackedPatches>> = vec![None; tests.len()];
        let mut failed = vec![0; tests.len()];
        for block in blocks {
            let rows = self.bank.read(block.first, block.rows, &mut room.rows);
            if plain.iter().any(Option::is_none) {
                self.repack(rows, &mut room.packed);
            }
            if plain.iter().any(Option::is_some) {
                room.plain.repack(rows, self.bank.dim());
            }
            // rows of a bank are fewer than 2³²: they are held in memory
            let first = block.first as u32;
            for (i, (test, best)) in tests.iter().zip(&mut best).enumerate() {
                if left_out(i) == Some(block.part) || best.best.is_empty() {
                    continue;
                }
                if let Some(test) = &plain[i] {
                    raise(test, &room.plain, first, best);
                } else if !raise(test, &room.packed, first, best) && self.frame.is_some() {
                    failed[i] += 1;
                    if failed[i] == FAILURES {
                        plain[i] = Some(PackedPatches::pack(&test.rows(), self.bank.dim()));
                    }
                }
            }
        }
        best
    }

    /// `1 − max cos` of every patch of the bank's own parts, each part against the others; 2 where there is none.
    pub(super) fn left_out_distances(&self, on_share: &mut dyn FnMut(f64)) -> Vec<Vec<f32>> {
        let matches = self.left_out_matches(on_share);
        let distances = |part: &Matches| part.best.iter().map(|best| 1.0 - best).collect();
        matches.iter().map(distances).collect()
    }

    /// [`Self::nearest_without`] of the bank's own parts, each against the others. Both directions of a pair come from one product,
    /// so it takes half the time.
    fn left_out_matches(&self, on_share: &mut dyn FnMut(f64)) -> Vec<Matches> {
        let all: Vec<usize> = (0..self.parts()).collect();
        self.compared(&all, &[], on_share).among
    }

    /// Compares `asked` parts of the bank with each other and with `others`, both directions of a pair by one product. `on_share`
    /// hears which share of the work is done.
    pub(crate) fn compared<F: Found>(
        &self,
        asked: &[usize],
        others: &[usize],
        on_share: &mut dyn FnMut(f64),
    ) -> Compared<F> {
        let none =
            |parts: &[usize]| -> Vec<F> { parts.iter().map(|&p| F::none(self.parts[p])).collect() };
        let mut found = Compared {
            among: none(asked),
            beyond: none(asked),
            back: none(others),
        };
        let (groups, other_groups) = (self.groups(asked), self.groups(others));
        let pairs = (asked.len() * asked.len()) as f64 / 2.0 + (asked.len() * others.len()) as f64;
        let mut done = 0.0;
        let mut compared = |pairs_more: f64| {
            done += pairs_more;
            on_share((done / pairs.max(1.0)).min(1.0));
        };
        for (i, group) in groups.iter().enumerate() {
            let own = self.packed(&asked[group.clone()]);
            let own = placed(&own);
            let (there, back) = both_ways(&own, None);
            keep(&mut found.among[group.clone()], &there);
            keep(&mut found.among[group.clone()], &back);
            let own_count = group.len() as f64;
            compared(own_count * own_count / 2.0);
            for other in &groups[i + 1..] {
                let packed = self.packed(&asked[other.clone()]);
                let (there, back) = both_ways(&own, Some(&placed(&packed)));
                keep(&mut found.among[group.clone()], &there);
                keep(&mut found.among[other.clone()], &back);
                compared(own_count * other.len() as f64);
            }
            for other in &other_groups {
                let packed = self.packed(&others[other.clone()]);
                let (there, back) = both_ways(&own, Some(&placed(&packed)));
                keep(&mut found.beyond[group.clone()], &there);
                keep(&mut found.back[other.clone()], &back);
                compared(own_count * other.len() as f64);
            }
        }
        found
    }

    /// Places, among such parts, of those that are held in f32 together.
    fn groups(&self, parts: &[usize]) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut held = COMPARED_ROWS;
        for (place, &part) in parts.iter().enumerate() {
            let rows = self.parts[part];
            if held + rows > COMPARED_ROWS {
                groups.push(place..place);
                held = 0;
            }
            if let Some(group) = groups.last_mut() {
                group.end = place + 1;
            }
            held += rows;
        }
        groups
    }

    /// Parts laid out for matching, each with its first row.
    fn packed(&self, parts: &[usize]) -> Vec<(PackedPatches, u32)> {
        let one = |&part: &usize| {
            let first = self.firsts[part];
            let mut packed = self.bank.pack(first, &self.parts[part..=part]).remove(0);
            if let Some(frame) = &self.frame {
                packed.sketch(frame);
            }
            // rows of a bank are fewer than 2³²: they are held in memory
            (packed, first as u32)
        };
        parts.par_iter().map(one).collect()
    }
}

/// What was found of parts of a bank in other parts of it.
pub(crate) struct Compared<F> {
    /// Of each asked part in the other asked ones.
    pub(crate) among: Vec<F>,
    /// Of each asked part in the others.
    pub(crate) beyond: Vec<F>,
    /// Of each other part in the asked ones.
    pub(crate) back: Vec<F>,
}

fn placed(packed: &[(PackedPatches, u32)]) -> Vec<Placed<'_>> {
    packed.iter().map(|(part, first)| (part, *first)).collect()
}

/// No match yet of any patch.
fn none(tests: &[PackedPatches]) -> Vec<Matches> {
    tests
        .iter()
        .map(|t| Matches::none(t.patches(), -1.0))
        .collect()
}

/// A frame around rows spread evenly over the bank, where a coarse pass is worth it.
fn frame(bank: &Bank) -> Option<Arc<Frame>> {
    let step = bank.rows().div_ceil(SAMPLES).max(1);
    let (mut samples, mut room) = (Vec::new(), Vec::new());
    for row in (0..bank.rows()).step_by(step) {
        samples.extend_from_slice(bank.read(row, 1, &mut room));
    }
    Frame::around(&samples, bank.dim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Precision;
    use crate::score::search::left_out_distances;
    use crate::unit::normalise_rows;
    use flawtune_kernels::matching::max_similarity;

    /// Numbers a patch that a coarse pass is made for, where the machine has one.
    const WITH_COARSE_PASS: usize = 128;

    fn rows(count: usize, dim: usize, seed: usize) -> Vec<f32> {
        let mut rows: Vec<f32> = (0..count * dim)
            .map(|v| ((v * 37 + seed * 101) % 89) as f32 / 40.0 - 1.0)
            .collect();
        normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
        rows
    }

    fn bank(parts: &[Vec<f32>], dim: usize, precision: Precision) -> RowBank {
        let lengths = parts.iter().map(|p| p.len() / dim).collect();
        RowBank::new(Bank::of(&parts.concat(), dim, precision), lengths)
    }

    fn distances(bank: &RowBank, tests: &[PackedPatches]) -> Vec<Vec<f32>> {
        bank.distances_without(tests, |_| None)
    }

    #[test]
    fn parts_change_no_bit_and_leaving_out_equals_a_bank_without() {
        for dim in [12, WITH_COARSE_PASS] {
            check_parts(dim);
        }
    }

    fn check_parts(dim: usize) {
        // one of several blocks, an empty one, and more blocks than pieces of work
        let lengths = [7, 2 * BLOCK_ROWS + 3, 0, 5].into_iter().chain([2; 100]);
        let parts: Vec<Vec<f32>> = lengths.enumerate().map(|(i, n)| rows(n, dim, i)).collect();
        let tests = [rows(40, dim, 77), rows(1, dim, 5)];
        for precision in [Precision::F16, Precision::F32] {
            let parted = bank(&parts, dim, precision);
            let whole = bank(&[parts.concat()], dim, precision);
            let tests = tests.each_ref().map(|rows| parted.pack(rows));
            let again = tests.each_ref().map(|t| whole.pack(&t.rows()));
            assert_eq!(distances(&parted, &tests), distances(&whole, &again));
            let plain = PackedPatches::pack(&parted.bank.decode(0, parted.bank.rows()), dim);
            for (test, found) in tests.iter().zip(distances(&parted, &tests)) {
                let mut best = vec![0.0; test.patches()];
                max_similarity(&PackedPatches::pack(&test.rows(), dim), &plain, &mut best);
                assert_eq!(best.iter().map(|b| 1.0 - b).collect::<Vec<_>>(), found);
            }
            let all = parted.left_out_distances(&mut |_| {});
            let own = parted.bank.pack(0, &parted.parts);
            assert_eq!(all, left_out_distances(&own));
            assert_eq!(all, parted.distances_without(&own, Some));
            let matches = parted.left_out_matches(&mut |_| {});
            for (found, wanted) in matches.iter().zip(parted.nearest_without(&own, Some)) {
                assert_eq!((&found.best, &found.index), (&wanted.best, &wanted.index));
            }
            for (i, part) in own.iter().enumerate().take(5) {
                let others: Vec<Vec<f32>> = (0..parts.len())
                    .filter(|j| *j != i)
                    .map(|j| parts[j].clone())
                    .collect();
                let others = bank(&others, dim, precision);
                assert_eq!(
                    all[i],
                    distances(&others, std::slice::from_ref(part))[0],
                    "part {i}"
                );
            }
        }
        let none = bank(&[], dim, Precision::F32);
        assert_eq!(distances(&none, &[none.pack(&tests[1])]), [[2.0]]);
        assert!(distances(&bank(&parts, dim, Precision::F32), &[]).is_empty());
    }

    #[test]
    fn patches_that_are_all_alike_are_found_without_the_coarse_pass() {
        let dim = WITH_COARSE_PASS;
        let one = rows(1, dim, 3);
        // blocks of one row many times over, then others, of which some are nearer to the second test
        let parts = [one.repeat(40 * BLOCK_ROWS), rows(3 * BLOCK_ROWS, dim, 4)];
        let bank = bank(&parts, dim, Precision::F32);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let tests = [one.repeat(20), rows(20, dim, 4)].map(|rows| bank.pack(&rows));
        let found = pool.install(|| distances(&bank, &tests));
        let plain = PackedPatches::pack(&parts.concat(), dim);
        for (test, found) in tests.iter().zip(found) {
            let mut best = vec![0.0; test.patches()];
            max_similarity(&PackedPatches::pack(&test.rows(), dim), &plain, &mut best);
            assert_eq!(best.iter().map(|b| 1.0 - b).collect::<Vec<_>>(), found);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let dim = WITH_COARSE_PASS;
        let bank = bank(&[rows(5 * BLOCK_ROWS + 1, dim, 3)], dim, Precision::F16);
        let tests: Vec<_> = (0..5).map(|i| bank.pack(&rows(20, dim, 50 + i))).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| distances(&bank, &tests))
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(3));
    }
}
