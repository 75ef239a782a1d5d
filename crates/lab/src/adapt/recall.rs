//! Best matches kept from a pair's last visit, where a bound proves that they still hold.
//!
//! Training moves patches little between two visits of the same pair of images. Let `q*` be the best match of patch `a` at the
//! last full search and `s` its largest product with any other patch. Since then the patch has moved by at most `δ_a` and
//! every patch of the other image by at most `δ_b`; with norms of at most N, every other patch now has a product of at most
//! `s + N·(δ_a + δ_b)` with it. If the product with `q*` is larger than that, `q*` is still the best match, and one product
//! was computed instead of one with every patch. Patches for which nothing is proven are searched in full.
//!
//! Movements are added up from visit to visit (the triangle inequality), so a pair needs no copy of its images: `rest` holds
//! `s` less both sums at the time of the search. Rounding: a computed product is off by at most `γ_D·N²` with
//! `γ_D = D·2⁻²⁴/(1 − D·2⁻²⁴)`, at the search and now; [`NORM`] bounds the norm of an f32 unit vector and covers what is computed in
//! f64. The result is that of a full search to the last bit: a proven match is strictly larger than all others, and
//! its product is summed as the search sums it.

use flawtune_kernels::matching::{Matches, PackedPatches, chosen_products, match_with_second};
use rayon::prelude::*;

/// Largest norm of an f32 unit vector, with room for rounding in f64.
const NORM: f64 = 1.0 + 1e-6;
/// Tokens and matches that are kept at most; a training that needs more searches in full.
const BYTES: usize = 256 << 20;

/// What is remembered of the images of a training and of its pairs of a normal and a defect.
#[derive(Debug)]
pub struct MatchMemory {
    /// Numbers per image; batches of other images are not looked up.
    size: usize,
    normals: usize,
    defects: usize,
    images: Vec<Visit>,
    pairs: Vec<Kept>,
    /// Patches that were looked up, and those of them that were proven.
    asked: usize,
    proven: usize,
}

/// An image as it was at its last visit.
#[derive(Debug, Default)]
struct Visit {
    units: Vec<f32>,
    /// How far each patch has moved in all.
    paths: Vec<f64>,
    /// At least how far any patch has moved between two visits.
    longest: f64,
}

/// The last matches of a pair.
#[derive(Debug, Default)]
pub(super) struct Kept {
    index: Vec<u32>,
    /// Largest product with any other patch, less the movements until then.
    rest: Vec<f64>,
    proven: usize,
}

/// One image of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked<'a> {
    pub(super) units: &'a [f32],
    pub(super) pack: &'a PackedPatches,
    pub(super) image: usize,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(super) struct Room {
    second: Vec<f32>,
    open: Vec<usize>,
    rows: Vec<f32>,
    pack: Option<PackedPatches>,
    found: Matches,
}

impl MatchMemory {
    /// For so many images of `[rows, dim]` tokens; none if that would take too much memory.
    pub fn new(normals: usize, defects: usize, rows: usize, dim: usize) -> Option<Self> {
        let bytes = (normals + defects) * rows * (4 * dim + 8) + normals * defects * rows * 12;
        (bytes <= BYTES).then(|| Self {
            size: rows * dim,
            normals,
            defects,
            images: (0..normals + defects).map(|_| Visit::default()).collect(),
            pairs: (0..normals * defects).map(|_| Kept::default()).collect(),
            asked: 0,
            proven: 0,
        })
    }

    /// Whether images of so many numbers are those it is for.
    pub(super) fn fits(&self, size: usize) -> bool {
        self.size == size
    }

    /// Where a defect's image is kept.
    pub(super) fn defect(&self, defect: usize) -> usize {
        self.normals + defect
    }

    /// Part of the patches looked up again whose match was proven.
    pub fn proven_share(&self) -> f64 {
        self.proven as f64 / self.asked.max(1) as f64
    }

    /// Notes where the patches of some images (`[images, rows, dim]`, unit vectors) have moved.
    pub(super) fn visit(&mut self, images: &[usize], units: &[f32], dim: usize) {
        let size = units.len() / images.len().max(1);
        let mut visits: Vec<Visit> = images
            .iter()
            .map(|&i| std::mem::take(&mut self.images[i]))
            .collect();
        visits
            .par_iter_mut()
            .zip(units.par_chunks_exact(size))
            .for_each(|(visit, units)| visit.moved(units, dim));
        for (&i, visit) in images.iter().zip(visits) {
            self.images[i] = visit;
        }
    }

    /// Takes out what is known of a pair.
    pub(super) fn take(&mut self, normal: usize, defect: usize) -> Kept {
        std::mem::take(&mut self.pairs[normal * self.defects + defect])
    }

    /// Puts it back.
    pub(super) fn put(&mut self, normal: usize, defect: usize, kept: Kept) {
        self.asked += kept.index.len();
        self.proven += kept.proven;
        self.pairs[normal * self.defects + defect] = kept;
    }

    /// What [`match_patches`](flawtune_kernels::matching::match_patches) finds for the patches of `a` in `b`.
    pub(super) fn search(
        &self,
        a: Looked<'_>,
        b: Looked<'_>,
        kept: &mut Kept,
        room: &mut Room,
        out: &mut Matches,
    ) {
        let (rows, dim) = (a.pack.patches(), a.pack.dim());
        let paths = &self.images[a.image].paths;
        let longest = self.images[b.image].longest;
        kept.proven = 0;
        room.open.clear();
        if kept.index.len() == rows {
            out.index.clone_from(&kept.index);
            out.best.resize(rows, 0.0);
            chosen_products(a.units, b.units, dim, &kept.index, &mut out.best);
            let margin = 2.0 * NORM * NORM * product_error(dim);
            let proven = |p: usize| {
                f64::from(out.best[p]) > kept.rest[p] + NORM * (paths[p] + longest) + margin
            };
            room.open.extend((0..rows).filter(|&p| !proven(p)));
            kept.proven = rows - room.open.len();
        }
        if 2 * kept.proven < rows {
            kept.proven = 0;
            match_with_second(a.pack, b.pack, out, &mut room.second);
            kept.index.clone_from(&out.index);
            let rest = room
                .second
                .iter()
                .zip(paths)
                .map(|(&s, path)| f64::from(s) - NORM * (path + longest));
            kept.rest.clear();
            kept.rest.extend(rest);
        } else if !room.open.is_empty() {
            room.rows.clear();
            for &p in &room.open {
                room.rows.extend_from_slice(&a.units[p * dim..][..dim]);
            }
            let pack = room
                .pack
                .get_or_insert_with(|| PackedPatches::pack(&[], dim));
            pack.repack_like(b.pack, &room.rows, dim);
            match_with_second(pack, b.pack, &mut room.found, &mut room.second);
            for (i, &p) in room.open.iter().enumerate() {
                (out.best[p], out.index[p]) = (room.found.best[i], room.found.index[i]);
                kept.index[p] = room.found.index[i];
                kept.rest[p] = f64::from(room.second[i]) - NORM * (paths[p] + longest);
            }
        }
    }
}

impl Visit {
    fn moved(&mut self, units: &[f32], dim: usize) {
        if self.units.len() == units.len() {
            let mut farthest = 0.0f64;
            let rows = self.units.chunks_exact(dim).zip(units.chunks_exact(dim));
            for ((before, now), path) in rows.zip(&mut self.paths) {
                let length = distance(before, now) * NORM;
                *path += length;
                farthest = farthest.max(length);
            }
            self.longest += farthest;
            self.units.copy_from_slice(units);
        } else {
            self.units = units.to_vec();
            self.paths = vec![0.0; units.len() / dim];
        }
    }
}

/// `‖x − y‖` in f64, in eight running sums.
fn distance(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for (x, y) in x.chunks(8).zip(y.chunks(8)) {
        for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            let d = f64::from(x) - f64::from(y);
            *s += d * d;
        }
    }
    sums.iter().sum::<f64>().sqrt()
}

/// `γ_D` of the module's text.
fn product_error(dim: usize) -> f64 {
    let nu = dim as f64 / f64::from(1 << 24);
    nu / (1.0 - nu)
}

#[cfg(test)]
mod tests;
