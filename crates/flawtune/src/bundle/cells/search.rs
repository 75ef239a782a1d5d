//! The nearest of a bank's patches among those of the cells whose centres are nearest.
//!
//! A product is the one that a search of the whole bank computes, to the last bit: what is found is the nearest patch or one
//! farther away, and with all cells searched it is the same. The patches of all images that ask for a cell search it
//! together, while its rows are laid out for matching; rows of cells that none asks for are not read.

use std::ops::Range;
use std::sync::Arc;

use flawtune_kernels::matching::{
    Frame, Neighbour, PackedPatches, nearest_patches, raise_similarity,
};
use rayon::prelude::*;

use super::{BLOCK_ROWS, Cells};
use crate::bundle::bank::Bank;

/// Asking patches of a cell from which a pass over bytes earns its layout back.
const WITH_COARSE_PASS: usize = 128;

/// A bank in cells.
#[derive(Debug)]
pub(in crate::bundle) struct CellBank {
    bank: Bank,
    cells: Cells,
    centres: PackedPatches,
    /// Cells that are searched for each patch.
    probes: usize,
    frame: Option<Arc<Frame>>,
    /// The image that each row is of, ascending within a cell; empty where none is ever left out.
    owners: Vec<u32>,
    /// For each cell that holds rows of one image only, which.
    only: Vec<Option<u32>>,
}

/// A patch that asks: its image and its place there.
type Asking = (u32, u32);

/// Which patches search which cell.
enum Asked {
    /// All of them every cell.
    All(Vec<Asking>),
    /// By cell, in the order of tests and patches.
    ByCell(Vec<Vec<Asking>>),
}

impl Asked {
    fn of(&self, cell: usize) -> &[Asking] {
        match self {
            Self::All(asking) => asking,
            Self::ByCell(cells) => &cells[cell],
        }
    }
}

/// Those of a cell's asking patches that leave the same image out.
struct Group<'a> {
    asking: &'a [Asking],
    packed: PackedPatches,
    coarse: bool,
    leaves: Option<u32>,
    best: Vec<f32>,
}

/// Working memory.
struct Room {
    rows: Vec<f32>,
    others: Vec<f32>,
    plain: PackedPatches,
    coarse: PackedPatches,
    part: PackedPatches,
}

impl CellBank {
    /// Of a bank sorted into `cells`; `owners` says which image each row is of (empty: none is left out).
    pub(in crate::bundle) fn new(
        bank: Bank,
        frame: Option<Arc<Frame>>,
        cells: Cells,
        probes: usize,
        owners: Vec<u32>,
    ) -> Self {
        let centres = PackedPatches::pack(&cells.centres().decode(0, cells.len()), bank.dim());
        let only = |bounds: &[usize]| {
            let owners = owners.get(bounds[0]..bounds[1])?;
            owners
                .first()
                .filter(|first| Some(*first) == owners.last())
                .copied()
        };
        let only = cells.starts.windows(2).map(only).collect();
        Self {
            bank,
            cells,
            centres,
            probes,
            frame,
            owners,
            only,
        }
    }

    #[cfg(test)]
    pub(super) fn bank(&self) -> &Bank {
        &self.bank
    }

    /// Cells that are searched for each patch.
    pub(in crate::bundle) fn probes(&self) -> usize {
        self.probes
    }

    /// For every patch of each test `1 − max cos` to the patches of the `probes` cells whose centres are nearest to it, those of
    /// the image that `left_out` names for the test left out; 2 where there is none. Cells that hold nothing else than what
    /// is left out are as if there were no such cells. Spread over the current rayon pool.
    pub(in crate::bundle) fn distances_without(
        &self,
        tests: &[PackedPatches],
        probes: usize,
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Vec<f32>> {
        let left_out = |test: usize| left_out(test).and_then(|image| u32::try_from(image).ok());
        let asked = self.asked(tests, probes, &left_out);
        let rows: Vec<Vec<f32>> = tests.par_iter().map(PackedPatches::rows).collect();
        let none = || {
            tests
                .iter()
                .map(|t| vec![-1.0f32; t.patches()])
                .collect::<Vec<_>>()
        };
        // the largest of the same numbers, whatever the order
        let nearest = (0..self.cells.len())
            .into_par_iter()
            .fold(
                || (none(), Room::new(self.bank.dim())),
                |(mut best, mut room), cell| {
                    self.search(cell, asked.of(cell), &rows, &left_out, &mut room, &mut best);
                    (best, room)
                },
            )
            .map(|(best, _)| best)
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
                    *a = a.max(*b);
                }
                a
            });
        nearest
            .iter()
            .map(|n| n.iter().map(|n| 1.0 - n).collect())
            .collect()
    }

    fn asked(
        &self,
        tests: &[PackedPatches],
        probes: usize,
        left_out: &(impl Fn(usize) -> Option<u32> + Sync),
    ) -> Asked {
        let cells = self.cells.len();
        if probes >= cells {
            let of = |(t, test): (usize, &PackedPatches)| {
                (0..test.patches()).map(move |p| (t as u32, p as u32))
            };
            return Asked::All(tests.iter().enumerate().flat_map(of).collect());
        }
        let near = |(t, test): (usize, &PackedPatches)| {
            let gone = |cell: usize| left_out(t).is_some() && self.only[cell] == left_out(t);
            let wanted = probes + (0..cells).filter(|&cell| gone(cell)).count();
            let near =
                nearest_patches(test, std::slice::from_ref(&self.centres), wanted.min(cells));
            let cells_of = |near: Vec<Neighbour>| {
                near.iter()
                    .map(|n| n.patch)
                    .filter(|&cell| !gone(cell))
                    .take(probes)
                    .collect::<Vec<_>>()
            };
            near.into_iter().map(cells_of).collect::<Vec<_>>()
        };
        let near: Vec<Vec<Vec<usize>>> = tests.par_iter().enumerate().map(near).collect();
        let mut asked = vec![Vec::new(); cells];
        for (t, patches) in near.iter().enumerate() {
            for (p, cells) in patches.iter().enumerate() {
                for &cell in cells {
                    asked[cell].push((t as u32, p as u32));
                }
            }
        }
        Asked::ByCell(asked)
    }

    /// Raises `best` of those that ask to their largest cosine to a cell's rows.
    fn search(
        &self,
        cell: usize,
        asking: &[Asking],
        rows: &[Vec<f32>],
        left_out: &impl Fn(usize) -> Option<u32>,
        room: &mut Room,
        best: &mut [Vec<f32>],
    ) {
        let dim = self.bank.dim();
        let leaves = |asking: &Asking| left_out(asking.0 as usize);
        let mut groups: Vec<Group<'_>> = asking
            .chunk_by(|a, b| leaves(a) == leaves(b))
            .map(|asking| {
                room.others.clear();
                for &(test, patch) in asking {
                    room.others
                        .extend_from_slice(&rows[test as usize][patch as usize * dim..][..dim]);
                }
                let coarse = asking.len() >= WITH_COARSE_PASS && self.frame.is_some();
                let mut packed = PackedPatches::pack(&[], dim);
                self.repack(&room.others, coarse, &mut packed);
                let best = asking
                    .iter()
                    .map(|&(test, patch)| best[test as usize][patch as usize])
                    .collect();
                Group {
                    asking,
                    packed,
                    coarse,
                    leaves: asking.first().and_then(leaves),
                    best,
                }
            })
            .collect();
        let (first, end) = (self.cells.starts[cell], self.cells.starts[cell + 1]);
        for first in (first..end).step_by(BLOCK_ROWS) {
            let block = first..end.min(first + BLOCK_ROWS);
            if groups.is_empty() {
                return;
            }
            let read = self.bank.read(block.start, block.len(), &mut room.rows);
            if groups.iter().any(|g| !g.coarse) {
                self.repack(read, false, &mut room.plain);
            }
            if groups.iter().any(|g| g.coarse) {
                self.repack(read, true, &mut room.coarse);
            }
            for group in &mut groups {
                let own = self.rows_of(group.leaves, &block);
                if own.is_empty() {
                    let packed = if group.coarse {
                        &room.coarse
                    } else {
                        &room.plain
                    };
                    raise_similarity(&group.packed, packed, &mut group.best);
                } else if own.len() < block.len() {
                    room.others.clear();
                    room.others.extend_from_slice(&read[..own.start * dim]);
                    room.others.extend_from_slice(&read[own.end * dim..]);
                    self.repack(&room.others, group.coarse, &mut room.part);
                    raise_similarity(&group.packed, &room.part, &mut group.best);
                }
            }
        }
        for group in groups {
            for (&(test, patch), found) in group.asking.iter().zip(group.best) {
                best[test as usize][patch as usize] = found;
            }
        }
    }

    /// Rows of an image in a block, counted from the block's first: they lie together.
    fn rows_of(&self, image: Option<u32>, block: &Range<usize>) -> Range<usize> {
        let (Some(image), Some(owners)) = (image, self.owners.get(block.clone())) else {
            return 0..0;
        };
        owners.partition_point(|o| *o < image)..owners.partition_point(|o| *o <= image)
    }

    fn repack(&self, rows: &[f32], coarse: bool, packed: &mut PackedPatches) {
        match self.frame.as_ref().filter(|_| coarse) {
            Some(frame) => packed.repack_in(frame, rows, self.bank.dim()),
            None => packed.repack(rows, self.bank.dim()),
        }
    }
}

impl Room {
    fn new(dim: usize) -> Self {
        let empty = PackedPatches::pack(&[], dim);
        Self {
            rows: Vec::new(),
            others: Vec::new(),
            plain: empty.clone(),
            coarse: empty.clone(),
            part: empty,
        }
    }
}
