//! Directed similarities of the images of a batch, `sim(a→b) = mean_p max_q cos(a_p, b_q)`, and their gradient.
//!
//! The maximum makes the gradient sparse: each patch of `a` pulls on one patch of `b`. The forward pass keeps which,
//! and the backward pass adds rows; a patch-by-patch matrix exists nowhere.

use std::sync::Arc;

use flawtune_kernels::matching::{
    Frame, Matches, PackedPatches, add_weighted_rows, match_both, match_patches,
};
use rayon::prelude::*;

use super::modulation::resize;
use super::recall::{Kept, Looked, MatchMemory, Room};
use flawtune::unit::{normalise_rows, unit_backward};

/// Batches that share a frame of coarse matching: their rows move little.
const FRAME_BATCHES: usize = 64;
/// Images of fewer rows are matched without.
const FRAME_ROWS: usize = 16;

/// Similarities among N normal images and from them to M defect images; also the layout of their gradients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Similarities {
    /// N.
    pub normals: usize,
    /// M.
    pub defects: usize,
    /// `nn[i·N + j] = sim(normal_i → normal_j)`, `[N, N]`; the diagonal is not computed and holds 0.
    pub nn: Vec<f64>,
    /// `nd[i·M + j] = sim(normal_i → defect_j)`, `[N, M]`.
    pub nd: Vec<f64>,
}

impl Similarities {
    /// All 0.
    pub fn zeros(normals: usize, defects: usize) -> Self {
        Self {
            normals,
            defects,
            nn: vec![0.0; normals * normals],
            nd: vec![0.0; normals * defects],
        }
    }
}

/// Unit rows of a batch's images, normals first, and which of them match.
#[derive(Debug, Default)]
pub struct PairwiseMatches {
    normals: usize,
    defects: usize,
    rows: usize,
    dim: usize,
    /// `[N + M, rows, dim]`.
    units: Vec<f32>,
    /// `[N + M, rows]`.
    norms: Vec<f64>,
    packs: Vec<PackedPatches>,
    /// Around the rows of a batch not long ago; any gives the same matches.
    frame: Option<Arc<Frame>>,
    /// Batches that were matched.
    batches: usize,
    pairs: Vec<Pair>,
    memory: Option<MatchMemory>,
    /// Which images the next batch holds, normals and defects.
    known: Option<(Vec<usize>, Vec<usize>)>,
}

/// Matches of one pair of images, `i < j` in the list normals, defects. `back` (j → i) is kept between normals only.
#[derive(Debug, Default)]
struct Pair {
    i: usize,
    j: usize,
    there: Matches,
    back: Matches,
    kept: Kept,
}

impl PairwiseMatches {
    /// From now on keeps the matches of normals in defects for batches that are announced by [`Self::announce`].
    pub fn remember(&mut self, memory: MatchMemory) {
        self.memory = Some(memory);
    }

    /// The memory, if there is one.
    pub fn memory(&self) -> Option<&MatchMemory> {
        self.memory.as_ref()
    }

    /// Says which images of the training the next batch holds, none of them twice. It changes how matches are found, not
    /// what is found.
    pub fn announce(&mut self, normals: &[usize], defects: &[usize]) {
        self.known = Some((normals.to_vec(), defects.to_vec()));
    }

    /// Room for the tokens of a batch, `[normals + defects, rows, dim]`, normals first; fill it, then call
    /// [`Self::forward`].
    pub fn tokens_mut(
        &mut self,
        normals: usize,
        defects: usize,
        rows: usize,
        dim: usize,
    ) -> &mut [f32] {
        (self.normals, self.defects, self.rows, self.dim) = (normals, defects, rows, dim);
        resize(&mut self.units, (normals + defects) * rows * dim)
    }

    /// Matches every pair of normals in both directions, from one product, and every normal with every defect.
    pub fn forward(&mut self, similarities: &mut Similarities) {
        let (n, m, size) = (self.normals, self.defects, self.rows * self.dim);
        self.norms.resize((n + m) * self.rows, 0.0);
        self.packs
            .resize_with(n + m, || PackedPatches::pack(&[], self.dim));
        self.units
            .par_chunks_exact_mut(size)
            .zip(self.norms.par_chunks_exact_mut(self.rows))
            .for_each(|(rows, norms)| normalise_rows(rows, self.dim, norms));
        if self.batches.is_multiple_of(FRAME_BATCHES)
            || self.frame.as_ref().is_some_and(|f| f.dim() != self.dim)
        {
            self.frame = Frame::around(&self.units, self.dim);
        }
        self.batches += 1;
        let frame = self.frame.as_ref().filter(|_| self.rows >= FRAME_ROWS);
        self.packs
            .par_iter_mut()
            .zip(self.units.par_chunks_exact(size))
            .for_each(|(pack, rows)| match frame {
                Some(frame) => pack.repack_in(frame, rows, self.dim),
                None => pack.repack(rows, self.dim),
            });
        self.pairs
            .resize_with(n * (n - 1) / 2 + n * m, Pair::default);
        let both = (0..n).flat_map(|i| (i + 1..n + m).map(move |j| (i, j)));
        for (pair, (i, j)) in self.pairs.iter_mut().zip(both) {
            (pair.i, pair.j) = (i, j);
        }
        let known = self
            .known
            .take()
            .filter(|(normals, defects)| normals.len() == n && defects.len() == m);
        let mut known = known.zip(self.memory.as_mut().filter(|memory| memory.fits(size)));
        let mut ids = Vec::new();
        if let Some(((normals, defects), memory)) = &mut known {
            ids.extend(
                normals
                    .iter()
                    .copied()
                    .chain(defects.iter().map(|&d| memory.defect(d))),
            );
            memory.visit(&ids, &self.units, self.dim);
            for pair in self.pairs.iter_mut().filter(|pair| pair.j >= n) {
                pair.kept = memory.take(normals[pair.i], defects[pair.j - n]);
            }
        }
        let memory = known.as_ref().map(|(_, memory)| &**memory);
        let look = |i: usize| Looked {
            units: &self.units[i * size..][..size],
            pack: &self.packs[i],
            image: ids[i],
        };
        self.pairs
            .par_iter_mut()
            .for_each_init(Room::default, |room, pair| {
                let (a, b) = (&self.packs[pair.i], &self.packs[pair.j]);
                if pair.j < n {
                    match_both(a, b, &mut pair.there, &mut pair.back);
                } else if let Some(memory) = memory {
                    memory.search(
                        look(pair.i),
                        look(pair.j),
                        &mut pair.kept,
                        room,
                        &mut pair.there,
                    );
                } else {
                    match_patches(a, b, &mut pair.there);
                }
            });
        if let Some(((normals, defects), memory)) = known {
            for pair in self.pairs.iter_mut().filter(|pair| pair.j >= n) {
                memory.put(
                    normals[pair.i],
                    defects[pair.j - n],
                    std::mem::take(&mut pair.kept),
                );
            }
        }
        *similarities = Similarities::zeros(n, m);
        for pair in &self.pairs {
            if pair.j < n {
                similarities.nn[pair.i * n + pair.j] = mean(&pair.there.best);
                similarities.nn[pair.j * n + pair.i] = mean(&pair.back.best);
            } else {
                similarities.nd[pair.i * m + pair.j - n] = mean(&pair.there.best);
            }
        }
    }

    /// Writes the gradient with respect to the tokens that [`Self::forward`] was given, `[N + M, rows, dim]`, for
    /// the gradient `weights` with respect to the similarities.
    pub fn backward(&self, weights: &Similarities, grad_tokens: &mut [f32]) {
        let (n, m) = (self.normals, self.defects);
        // for each image: (weight, other image, matches, whether this image is the one that looks)
        let mut lists: Vec<Vec<Link<'_>>> = (0..n + m).map(|_| Vec::new()).collect();
        let mut link = |weight: f64, from: usize, to: usize, matches| {
            if weight != 0.0 {
                let weight = (weight / self.rows as f64) as f32;
                lists[from].push(Link {
                    weight,
                    other: to,
                    matches,
                    looks: true,
                });
                lists[to].push(Link {
                    weight,
                    other: from,
                    matches,
                    looks: false,
                });
            }
        };
        for pair in &self.pairs {
            if pair.j < n {
                link(weights.nn[pair.i * n + pair.j], pair.i, pair.j, &pair.there);
                link(weights.nn[pair.j * n + pair.i], pair.j, pair.i, &pair.back);
            } else {
                link(
                    weights.nd[pair.i * m + pair.j - n],
                    pair.i,
                    pair.j,
                    &pair.there,
                );
            }
        }
        let size = self.rows * self.dim;
        grad_tokens
            .par_chunks_exact_mut(size)
            .zip(lists)
            .enumerate()
            .for_each(|(image, (grad, links))| {
                self.gather(image, &links, grad);
            });
    }

    /// The gradient for one image. The rows of the others that pull on each of its rows are listed first, so that
    /// each row of the gradient is written once, in an order that depends on the pairs only.
    fn gather(&self, image: usize, links: &[Link<'_>], grad: &mut [f32]) {
        let (rows, dim) = (self.rows, self.dim);
        let mut ends = vec![0usize; rows + 1];
        let row_of = |link: &Link<'_>, p: usize| {
            if link.looks {
                p
            } else {
                link.matches.index[p] as usize
            }
        };
        for link in links {
            (0..rows).for_each(|p| ends[row_of(link, p) + 1] += 1);
        }
        for r in 0..rows {
            ends[r + 1] += ends[r];
        }
        let mut next = ends.clone();
        let mut pulls = vec![(0.0f32, 0usize); links.len() * rows];
        for link in links {
            for p in 0..rows {
                let other = if link.looks {
                    link.matches.index[p] as usize
                } else {
                    p
                };
                let slot = &mut next[row_of(link, p)];
                pulls[*slot] = (link.weight, (link.other * rows + other) * dim);
                *slot += 1;
            }
        }
        for (r, grad) in grad.chunks_exact_mut(dim).enumerate() {
            grad.fill(0.0);
            add_weighted_rows(&self.units, &pulls[ends[r]..ends[r + 1]], grad);
            let row = image * rows + r;
            unit_backward(&self.units[row * dim..][..dim], self.norms[row], grad);
        }
    }
}

/// One direction of a pair as seen from one of its images.
#[derive(Debug)]
struct Link<'a> {
    weight: f32,
    other: usize,
    matches: &'a Matches,
    looks: bool,
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
}
