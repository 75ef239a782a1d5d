//! Patch matching: for every patch of one image, the most similar patch of another.
//!
//! The product of two patch sets is never stored; the maximum is kept in registers while it is computed. Patches
//! of the image that asks lie in the lanes, patches of the image that answers are the rows, and both read one
//! and the same packed form.
//!
//! Every dot product is summed by fused multiply-adds in ascending feature order, so results do not depend on
//! the number of threads or on the instruction set.

mod all_pairs;
mod bounds;
mod coarse;
mod kernel;
mod nearest;
mod pulls;
mod top;

pub use all_pairs::mean_max_all_pairs;
pub use coarse::Frame;
pub(crate) use kernel::{Both, Products, Search, both, products, search};
pub use nearest::{Nearest, NearestImages};
pub use pulls::add_weighted_rows;
pub(crate) use pulls::{Pulls, add_rows};
pub use top::{Neighbour, nearest_patches};

use std::cell::RefCell;

use coarse::{Contest, Room, Sketch, Winners};

use crate::buffer::Buffer;
use crate::dispatch;
use crate::kernels::Kernels;
use crate::lanes::Lanes;

/// The patches of one image, laid out for the matching kernel: `[patches, dim]` f32, any norm.
#[derive(Debug, Clone)]
pub struct PackedPatches {
    lanes: Lanes,
    dim: usize,
    /// Empty if there is a sketch, which holds the patches then.
    data: Buffer,
    sketch: Option<Box<Sketch>>,
    kernels: &'static Kernels,
}

/// Which patch of the other image each patch matched best, and how well.
#[derive(Debug, Clone, Default)]
pub struct Matches {
    /// Largest dot product, one per patch.
    pub best: Vec<f32>,
    /// Index of the patch that reached it (the lowest among equals).
    pub index: Vec<u32>,
}

impl PackedPatches {
    /// Packs row-major `rows` (`[patches, dim]`).
    ///
    /// # Panics
    /// If `dim` is 0 or `rows` is not a whole number of rows.
    pub fn pack(rows: &[f32], dim: usize) -> Self {
        Self::pack_with(dispatch::active(), rows, dim)
    }

    /// [`PackedPatches::pack`] for given kernels.
    pub(crate) fn pack_with(kernels: &'static Kernels, rows: &[f32], dim: usize) -> Self {
        let lanes = Lanes::panels_of(0, kernels.lanes);
        let mut packed = Self {
            lanes,
            dim,
            data: Buffer::default(),
            sketch: None,
            kernels,
        };
        packed.repack(rows, dim);
        packed
    }

    /// Packs other patches into the same buffer, which grows only if they are more than it ever held.
    ///
    /// # Panics
    /// As [`PackedPatches::pack`].
    pub fn repack(&mut self, rows: &[f32], dim: usize) {
        assert!(
            dim > 0 && rows.len().is_multiple_of(dim),
            "rows must be [patches, dim]"
        );
        self.dim = dim;
        self.sketch = None;
        self.lanes.columns = rows.len() / dim;
        self.data.resize(self.lanes.padded() * dim);
        self.lanes.pack_rows(rows, dim, &mut self.data);
    }

    /// Number of patches.
    pub fn patches(&self) -> usize {
        self.lanes.columns
    }

    /// Numbers per patch.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number `feature` of patch `patch`.
    ///
    /// # Panics
    /// If either is out of range.
    pub fn get(&self, patch: usize, feature: usize) -> f32 {
        assert!(patch < self.patches() && feature < self.dim);
        match &self.sketch {
            Some(sketch) => sketch.rows[patch * self.dim + feature],
            None => self.data[self.lanes.index(self.dim, feature, patch)],
        }
    }

    /// The patches row-major, `[patches, dim]`.
    pub fn rows(&self) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.patches() * self.dim);
        (0..self.patches()).for_each(|patch| self.copy_row(patch, &mut rows));
        rows
    }

    /// Appends one patch.
    fn copy_row(&self, patch: usize, to: &mut Vec<f32>) {
        if let Some(sketch) = &self.sketch {
            to.extend_from_slice(&sketch.rows[patch * self.dim..][..self.dim]);
        } else {
            let (start, apart) = self.lanes.column(self.dim, patch);
            to.extend(self.data[start..].iter().step_by(apart).take(self.dim));
        }
    }

    /// The patches in panels, packed in `room` if only a sketch is kept.
    fn panels<'a>(&'a self, room: &'a mut Buffer) -> &'a [f32] {
        let Some(sketch) = &self.sketch else {
            return &self.data;
        };
        room.resize(self.lanes.padded() * self.dim);
        self.lanes.pack_rows(&sketch.rows, self.dim, room);
        room
    }

    /// The coarse matching of the patches of this image in another, if both are sketched for it.
    fn contest<'a>(&'a self, other: &'a Self) -> Option<Contest<'a>> {
        let (a, b) = (self.sketch.as_deref()?, other.sketch.as_deref()?);
        a.comparable(b).then_some(Contest {
            lanes: self.lanes,
            a,
            b,
        })
    }
}

/// Working memory of one thread, kept between calls.
#[derive(Default)]
struct Scratch {
    best: Buffer,
    index: Buffer,
    second: Buffer,
    row_best: Buffer,
    row_index: Buffer,
    panels: [Buffer; 2],
    contest: Room,
    raised: Raised,
    raised_back: Raised,
    there: Matches,
    back: Matches,
}

/// What a contest that goes on from earlier matches starts with, and whom it finds.
#[derive(Default)]
struct Raised {
    before: Vec<f32>,
    found: Vec<u32>,
}

impl Raised {
    /// The winners of a contest that goes on from `matches`.
    fn winners<'a>(&'a mut self, matches: &'a mut Matches) -> Winners<'a> {
        self.before.clear();
        self.before.extend_from_slice(&matches.best);
        self.found.clear();
        self.found.resize(matches.best.len(), u32::MAX);
        Winners {
            best: &mut matches.best,
            index: &mut self.found,
        }
    }

    /// Keeps who was found, among patches that begin at `first`, where it is better than before, or as good and earlier.
    fn keep(&self, first: u32, matches: &mut Matches) {
        for (i, &found) in self.found.iter().enumerate() {
            if found != u32::MAX {
                let better = matches.best[i] > self.before[i];
                let place = first + found;
                matches.index[i] = if better {
                    place
                } else {
                    matches.index[i].min(place)
                };
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn check(a: &PackedPatches, b: &PackedPatches) {
    assert_eq!(a.dim, b.dim, "patches must have equal dim");
    assert!(
        std::ptr::eq(a.kernels, b.kernels),
        "patches must be packed by the same kernels"
    );
}

/// Runs the search of all panels of `a` in `b`; `best`, `index` and `second` (these may be empty) are padded.
fn search_all(
    a: &PackedPatches,
    b: &PackedPatches,
    room: &mut [Buffer; 2],
    best: &mut [f32],
    index: &mut [f32],
    second: &mut [f32],
) {
    let [room_a, room_b] = room;
    let (data, rows) = (a.panels(room_a), b.panels(room_b));
    for p in 0..a.lanes.panels() {
        let panel = a.lanes.panel(p);
        let range = panel.first * a.lanes.width..(panel.first + panel.vectors) * a.lanes.width;
        let search = Search {
            dim: a.dim,
            panel: &data[a.lanes.offset(panel, a.dim)..][..range.len() * a.dim],
            vectors: panel.vectors,
            rows: b.lanes,
            data: rows,
            best: &mut best[range.clone()],
            index: if index.is_empty() {
                &mut []
            } else {
                &mut index[range.clone()]
            },
            second: if second.is_empty() {
                &mut []
            } else {
                &mut second[range]
            },
        };
        // SAFETY: packed patches hold kernels of an instruction set that is present (see `dispatch`), and the
        // slices have the lengths that `Search` asks for.
        unsafe { (a.kernels.search)(search) };
    }
}

/// `best[p] = max_q a_p · b_q`; one number per patch of `a` (negative infinity if `b` has none).
///
/// # Panics
/// If the dims differ or `best` does not have one entry per patch of `a`.
pub fn max_similarity(a: &PackedPatches, b: &PackedPatches, best: &mut [f32]) {
    check(a, b);
    assert_eq!(best.len(), a.patches(), "one number per patch of a");
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(contest) = a.contest(b) {
            best.fill(f32::NEG_INFINITY);
            if contest.settle(
                &mut scratch.contest,
                Winners {
                    best,
                    index: &mut [],
                },
                None,
                None,
            ) {
                return;
            }
        }
        scratch.best.resize(a.lanes.padded());
        search_all(
            a,
            b,
            &mut scratch.panels,
            &mut scratch.best,
            &mut [],
            &mut [],
        );
        best.copy_from_slice(&scratch.best[..best.len()]);
    });
}

/// Raises `best[p]` to `max_q a_p · b_q` where that is larger: for the nearest patch of several images, one after the other. What
/// was found before saves work between sketched patches.
///
/// Gives whether the coarse pass of sketched patches settled it. Where it does not, because too many patches are as good as
/// the best, or for patches that are not sketched, every product was computed; then sketches only cost time.
///
/// # Panics
/// As [`max_similarity`].
pub fn raise_similarity(a: &PackedPatches, b: &PackedPatches, best: &mut [f32]) -> bool {
    check(a, b);
    assert_eq!(best.len(), a.patches(), "one number per patch of a");
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(contest) = a.contest(b)
            && contest.settle(
                &mut scratch.contest,
                Winners {
                    best,
                    index: &mut [],
                },
                None,
                None,
            )
        {
            return true;
        }
        scratch.best.resize(a.lanes.padded());
        search_all(
            a,
            b,
            &mut scratch.panels,
            &mut scratch.best,
            &mut [],
            &mut [],
        );
        best.iter_mut()
            .zip(&*scratch.best)
            .for_each(|(best, &found)| *best = best.max(found));
        false
    })
}

/// As [`raise_similarity`], and keeps which patch it was: where `b` has a larger product than `out.best`, or an equal one of a
/// patch that comes earlier, `out.index` becomes `first` and the patch's place in `b`. So `b` can be any part of a larger set that
/// begins at its patch `first`, and the parts can come in any order.
///
/// # Panics
/// If the dims differ or `out` does not hold one entry per patch of `a`.
pub fn raise_matches(a: &PackedPatches, b: &PackedPatches, first: u32, out: &mut Matches) -> bool {
    check(a, b);
    assert!(
        out.best.len() == a.patches() && out.index.len() == a.patches(),
        "one match per patch of a"
    );
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(contest) = a.contest(b) {
            let winners = scratch.raised.winners(out);
            if contest.settle(&mut scratch.contest, winners, None, None) {
                scratch.raised.keep(first, out);
                return true;
            }
        }
        scratch.best.resize(a.lanes.padded());
        scratch.index.resize(a.lanes.padded());
        search_all(
            a,
            b,
            &mut scratch.panels,
            &mut scratch.best,
            &mut scratch.index,
            &mut [],
        );
        for i in 0..a.patches() {
            let (found, place) = (scratch.best[i], first + scratch.index[i] as u32);
            if found > out.best[i] || (found == out.best[i] && place < out.index[i]) {
                (out.best[i], out.index[i]) = (found, place);
            }
        }
        false
    })
}

/// Best matches of the patches of `a` in `b`, with their indices (0 if `b` has none).
///
/// # Panics
/// If the dims differ.
pub fn match_patches(a: &PackedPatches, b: &PackedPatches, out: &mut Matches) {
    check(a, b);
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(contest) = a.contest(b)
            && contest.settle(&mut scratch.contest, out.winners(a.patches()), None, None)
        {
            return;
        }
        scratch.best.resize(a.lanes.padded());
        scratch.index.resize(a.lanes.padded());
        search_all(
            a,
            b,
            &mut scratch.panels,
            &mut scratch.best,
            &mut scratch.index,
            &mut [],
        );
        out.set(&scratch.best[..a.patches()], &scratch.index[..a.patches()]);
    });
}

/// As [`match_patches`], and in `second` for each patch at least its largest product with any other patch of `b` than its best
/// match (negative infinity if there is none). Between sketched patches that is an upper bound, otherwise the product itself.
///
/// # Panics
/// If the dims differ.
pub fn match_with_second(
    a: &PackedPatches,
    b: &PackedPatches,
    out: &mut Matches,
    second: &mut Vec<f32>,
) {
    check(a, b);
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(contest) = a.contest(b)
            && contest.settle(
                &mut scratch.contest,
                out.winners(a.patches()),
                None,
                Some(second),
            )
        {
            return;
        }
        scratch.best.resize(a.lanes.padded());
        scratch.index.resize(a.lanes.padded());
        scratch.second.resize(a.lanes.padded());
        let Scratch {
            best,
            index,
            second: found,
            panels,
            ..
        } = scratch;
        search_all(a, b, panels, best, index, found);
        out.set(&scratch.best[..a.patches()], &scratch.index[..a.patches()]);
        second.clear();
        second.extend_from_slice(&scratch.second[..a.patches()]);
    });
}

/// `out[p] = a_p · b_index[p]` for row-major `a` (`[patches, dim]`) and `b`, with the bits that a search finds.
///
/// # Panics
/// If the lengths do not fit together or an index is out of range.
pub fn chosen_products(a: &[f32], b: &[f32], dim: usize, index: &[u32], out: &mut [f32]) {
    chosen_products_with(dispatch::active(), a, b, dim, index, out);
}

fn chosen_products_with(
    kernels: &Kernels,
    a: &[f32],
    b: &[f32],
    dim: usize,
    index: &[u32],
    out: &mut [f32],
) {
    assert!(
        dim > 0 && a.len() == index.len() * dim && out.len() == index.len(),
        "one index a patch of a"
    );
    assert!(b.len().is_multiple_of(dim), "rows must be [patches, dim]");
    if coarse::chosen_products(kernels, (a, b), dim, index, out) {
        return;
    }
    // SAFETY: a table of kernels is handed out only where its instruction set is present; the kernel checks its indices.
    unsafe {
        (kernels.products)(Products {
            dim,
            a,
            b,
            index,
            out,
        });
    };
}

/// Best matches in both directions from one product: `ab` of the patches of `a` in `b`, `ba` the other way.
///
/// # Panics
/// If the dims differ.
pub fn match_both(a: &PackedPatches, b: &PackedPatches, ab: &mut Matches, ba: &mut Matches) {
    check(a, b);
    let settled = SCRATCH.with_borrow_mut(|scratch| {
        a.contest(b).is_some_and(|contest| {
            let back = Some(ba.winners(b.patches()));
            contest.settle(&mut scratch.contest, ab.winners(a.patches()), back, None)
        })
    });
    if !settled {
        match_plainly(a, b, ab, ba);
    }
}

/// [`match_both`] without the coarse pass.
fn match_plainly(a: &PackedPatches, b: &PackedPatches, ab: &mut Matches, ba: &mut Matches) {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch {
            best,
            index,
            row_best,
            row_index,
            panels: [room_a, room_b],
            ..
        } = scratch;
        let (data, rows) = (a.panels(room_a), b.panels(room_b));
        best.resize(a.lanes.padded());
        index.resize(a.lanes.padded());
        row_best.resize(b.patches() * a.lanes.width);
        row_index.resize(b.patches() * a.lanes.width);
        row_best.fill(f32::NEG_INFINITY);
        row_index.fill(0.0);
        for p in 0..a.lanes.panels() {
            let panel = a.lanes.panel(p);
            let range = panel.first * a.lanes.width..(panel.first + panel.vectors) * a.lanes.width;
            let both = Both {
                search: Search {
                    dim: a.dim,
                    panel: &data[a.lanes.offset(panel, a.dim)..][..range.len() * a.dim],
                    vectors: panel.vectors,
                    rows: b.lanes,
                    data: rows,
                    best: &mut best[range.clone()],
                    index: &mut index[range.clone()],
                    second: &mut [],
                },
                first_column: range.start,
                columns: a.lanes.columns_of(panel).len(),
                row_best,
                row_index,
            };
            // SAFETY: as in `search_all`; the row buffers hold LANES numbers per patch of `b`.
            unsafe { (a.kernels.both)(both) };
        }
        ab.set(&best[..a.patches()], &index[..a.patches()]);
        ba.best.clear();
        ba.index.clear();
        let width = a.lanes.width;
        for (bests, indices) in row_best
            .chunks_exact(width)
            .zip(row_index.chunks_exact(width))
        {
            let mut top = (bests[0], indices[0]);
            for (&best, &index) in bests.iter().zip(indices).skip(1) {
                if best > top.0 || (best == top.0 && index < top.1) {
                    top = (best, index);
                }
            }
            ba.best.push(top.0);
            ba.index.push(top.1 as u32);
        }
    });
}

/// As [`raise_matches`] in both directions from one product: `ab` of the patches of `a` in `b`, whose first is `first_b` of a larger
/// set, and `ba` of those of `b` in `a`, whose first is `first_a`.
///
/// # Panics
/// If the dims differ or `ab` and `ba` do not hold one entry per patch.
pub fn raise_both(
    (a, first_a): (&PackedPatches, u32),
    (b, first_b): (&PackedPatches, u32),
    ab: &mut Matches,
    ba: &mut Matches,
) -> bool {
    check(a, b);
    for (packed, matches) in [(a, &*ab), (b, &*ba)] {
        assert!(
            matches.best.len() == packed.patches() && matches.index.len() == packed.patches(),
            "one match per patch"
        );
    }
    if a.patches() == 0 || b.patches() == 0 {
        return true;
    }
    let settled = SCRATCH.with_borrow_mut(|scratch| {
        let Some(contest) = a.contest(b) else {
            return false;
        };
        let Scratch {
            contest: room,
            raised,
            raised_back,
            ..
        } = scratch;
        let (there, back) = (raised.winners(ab), raised_back.winners(ba));
        if !contest.settle(room, there, Some(back), None) {
            return false;
        }
        raised.keep(first_b, ab);
        raised_back.keep(first_a, ba);
        true
    });
    if settled {
        return true;
    }
    let take = |scratch: &mut Scratch| {
        let (there, back) = (&mut scratch.there, &mut scratch.back);
        (std::mem::take(there), std::mem::take(back))
    };
    let (mut there, mut back) = SCRATCH.with_borrow_mut(take);
    match_plainly(a, b, &mut there, &mut back);
    for (found, first, kept) in [(&mut there, first_b, ab), (&mut back, first_a, ba)] {
        found.index.iter_mut().for_each(|place| *place += first);
        kept.raise(found);
    }
    SCRATCH.with_borrow_mut(|scratch| (scratch.there, scratch.back) = (there, back));
    false
}

impl Matches {
    /// Room for the winners of a contest of so many patches.
    fn winners(&mut self, patches: usize) -> Winners<'_> {
        self.best.clear();
        self.best.resize(patches, f32::NEG_INFINITY);
        self.index.clear();
        self.index.resize(patches, 0);
        Winners {
            best: &mut self.best,
            index: &mut self.index,
        }
    }

    /// Nothing found yet for so many patches: a product of `least`, of no patch.
    pub fn none(patches: usize, least: f32) -> Self {
        Self {
            best: vec![least; patches],
            index: vec![u32::MAX; patches],
        }
    }

    /// Keeps the better of two for each patch, the earlier among equals.
    ///
    /// # Panics
    /// If they are not of as many patches.
    pub fn raise(&mut self, other: &Self) {
        assert_eq!(self.best.len(), other.best.len(), "matches of one image");
        for i in 0..self.best.len() {
            let (found, place) = (other.best[i], other.index[i]);
            if found > self.best[i] || (found == self.best[i] && place < self.index[i]) {
                (self.best[i], self.index[i]) = (found, place);
            }
        }
    }

    fn set(&mut self, best: &[f32], index: &[f32]) {
        self.best.clear();
        self.best.extend_from_slice(best);
        self.index.clear();
        self.index.extend(index.iter().map(|&i| i as u32));
    }
}

#[cfg(test)]
mod tests;
