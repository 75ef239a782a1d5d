//! Image similarity of every test image with every support image.

use rayon::prelude::*;

use super::{PackedPatches, Search, check, max_similarity};
use crate::buffer::Buffer;
use crate::lanes::{Lanes, PANEL_VECTORS, Panel};
use crate::profile::{Operator, time};

/// Test patches that are matched together: enough that the padding of the last vector is lost in them.
const LANES_PER_GROUP: usize = 2400;
/// Numbers of test patches that stay in the second-level cache while all support images pass by (400 KiB).
const RESIDENT: usize = 100 << 10;

/// `out[t·supports + s] = mean_p max_q tests[t]_p · supports[s]_q`, row-major `[tests, supports]`.
///
/// With patches of unit norm that is the image similarity `sim(test → support)`. Patches that are all sketched in one frame are
/// matched by contest, others in full. Runs on the current rayon
/// pool; each number is computed whole by one task, so the result does not depend on the number of threads. An
/// image without patches gives NaN as a test, and negative infinity as a support.
///
/// # Panics
/// If the dims differ.
pub fn mean_max_all_pairs(tests: &[PackedPatches], supports: &[PackedPatches]) -> Vec<f32> {
    let mut out = vec![0.0; tests.len() * supports.len()];
    let Some(first) = tests.first() else {
        return out;
    };
    for image in tests.iter().chain(supports) {
        check(first, image);
    }
    if supports.is_empty() {
        return out;
    }
    if tests
        .iter()
        .chain(supports)
        .all(|image| first.contest(image).is_some())
    {
        let rows = out.par_chunks_exact_mut(supports.len()).zip(tests);
        rows.for_each_init(Vec::new, |best, (row, test)| {
            best.resize(test.patches(), 0.0);
            for (o, support) in row.iter_mut().zip(supports) {
                time(Operator::Match, || max_similarity(test, support, best));
                *o = mean(best);
            }
        });
        return out;
    }
    let group = (LANES_PER_GROUP / first.patches().max(1)).clamp(1, tests.len());
    for (tests, out) in tests
        .chunks(group)
        .zip(out.chunks_mut(group * supports.len()))
    {
        let bank = Flat::new(tests);
        let best = bank.max(supports);
        for (t, row) in out.chunks_exact_mut(supports.len()).enumerate() {
            let patches = bank.starts[t]..bank.starts[t + 1];
            for (o, best) in row.iter_mut().zip(best.chunks_exact(bank.lanes.padded())) {
                *o = mean(&best[patches.clone()]);
            }
        }
    }
    out
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// The patches of several images side by side in one set of panels.
struct Flat<'a> {
    lanes: Lanes,
    data: Buffer,
    starts: Vec<usize>,
    like: &'a PackedPatches,
}

impl<'a> Flat<'a> {
    fn new(images: &'a [PackedPatches]) -> Self {
        let like = &images[0];
        let mut starts = vec![0];
        for image in images {
            starts.push(starts[starts.len() - 1] + image.patches());
        }
        let lanes = Lanes::panels_of(starts[images.len()], like.lanes.width);
        let (mut data, mut room) = (Buffer::zeroed(lanes.padded() * like.dim), Buffer::default());
        for (image, &start) in images.iter().zip(&starts) {
            image
                .lanes
                .copy(image.panels(&mut room), like.dim, lanes, start, &mut data);
        }
        Self {
            lanes,
            data,
            starts,
            like,
        }
    }

    /// The largest product of each of our patches with those of each support image, `[supports, padded patches]`.
    fn max(&self, supports: &[PackedPatches]) -> Buffer {
        let dim = self.like.dim;
        let width = self.lanes.padded();
        let mut best = Buffer::zeroed(supports.len() * width);
        if width == 0 {
            return best;
        }
        let panels = self.lanes.panels();
        let resident = (RESIDENT / (PANEL_VECTORS * self.lanes.width * dim)).max(1);
        for first in (0..panels).step_by(resident) {
            let part = first..(first + resident).min(panels);
            let pairs = best.par_chunks_exact_mut(width).zip(supports);
            pairs.for_each_init(Buffer::default, |room, (best, support)| {
                time(Operator::Match, || {
                    let rows = support.panels(room);
                    for p in part.clone() {
                        self.max_panel(self.lanes.panel(p), support.lanes, rows, best);
                    }
                });
            });
        }
        best
    }

    fn max_panel(&self, panel: Panel, rows: Lanes, data: &[f32], best: &mut [f32]) {
        let dim = self.like.dim;
        let range =
            panel.first * self.lanes.width..(panel.first + panel.vectors) * self.lanes.width;
        let search = Search {
            dim,
            panel: &self.data[self.lanes.offset(panel, dim)..][..range.len() * dim],
            vectors: panel.vectors,
            rows,
            data,
            best: &mut best[range],
            index: &mut [],
            second: &mut [],
        };
        // SAFETY: packed patches hold kernels of an instruction set that is present (see `dispatch`), and the
        // slices have the lengths that `Search` asks for.
        unsafe { (self.like.kernels.search)(search) };
    }
}
