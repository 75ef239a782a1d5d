//! Distances of a batch's patches to a bank made of the batch's own normal images, and their gradient.
//!
//! A normal image does not look at itself. The gradient is sparse: a distance moves its patch and the one patch of the
//! bank that is nearest.

use flawtune_kernels::matching::{Frame, Matches, PackedPatches, match_both, match_patches};
use rayon::prelude::*;

use super::modulation::resize;
use flawtune::unit::{add_scaled, normalise_rows, unit_backward};

/// Unit rows of a batch's images, normals first, and their nearest patches among the normals.
#[derive(Debug, Default)]
pub(super) struct BankMatches {
    normals: usize,
    images: usize,
    rows: usize,
    dim: usize,
    /// `[images, rows, dim]`.
    units: Vec<f32>,
    /// `[images, rows]`.
    norms: Vec<f64>,
    packs: Vec<PackedPatches>,
    pairs: Vec<Pair>,
    /// Cosine to the nearest patch of the bank, `[images, rows]`.
    best: Vec<f32>,
    /// That patch, as a row of `units`.
    nearest: Vec<usize>,
    /// `1 − best`, `[images, rows]`.
    distances: Vec<f64>,
}

/// Matches of `from` in the normal image `to`; between two normals (`from < to`) also the way back.
#[derive(Debug, Default)]
struct Pair {
    from: usize,
    to: usize,
    there: Matches,
    back: Matches,
}

impl BankMatches {
    /// Room for the tokens of a batch, `[images, rows, dim]`, the normals first; fill it, then call [`Self::forward`].
    pub(super) fn tokens_mut(
        &mut self,
        normals: usize,
        images: usize,
        rows: usize,
        dim: usize,
    ) -> &mut [f32] {
        (self.normals, self.images, self.rows, self.dim) = (normals, images, rows, dim);
        resize(&mut self.units, images * rows * dim)
    }

    /// Finds the nearest patches; returns the cosine distances `[images, rows]`. There must be two normals.
    pub(super) fn forward(&mut self) -> &[f64] {
        let (n, size, rows) = (self.normals, self.rows * self.dim, self.rows);
        self.norms.resize(self.images * rows, 0.0);
        self.packs
            .resize_with(self.images, || PackedPatches::pack(&[], self.dim));
        self.units
            .par_chunks_exact_mut(size)
            .zip(self.norms.par_chunks_exact_mut(rows))
            .for_each(|(tokens, norms)| normalise_rows(tokens, self.dim, norms));
        let frame = Frame::around(&self.units, self.dim);
        self.packs
            .par_iter_mut()
            .zip(self.units.par_chunks_exact(size))
            .for_each(|(pack, tokens)| match &frame {
                Some(frame) => pack.repack_in(frame, tokens, self.dim),
                None => pack.repack(tokens, self.dim),
            });
        let among_normals = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let of_defects = (n..self.images).flat_map(|i| (0..n).map(move |j| (i, j)));
        self.pairs
            .resize_with(n * (n - 1) / 2 + (self.images - n) * n, Pair::default);
        for (pair, (from, to)) in self.pairs.iter_mut().zip(among_normals.chain(of_defects)) {
            (pair.from, pair.to) = (from, to);
        }
        let packs = &self.packs;
        self.pairs.par_iter_mut().for_each(|pair| {
            let (from, to) = (&packs[pair.from], &packs[pair.to]);
            if pair.from < n {
                match_both(from, to, &mut pair.there, &mut pair.back);
            } else {
                match_patches(from, to, &mut pair.there);
            }
        });
        self.best.clear();
        self.best.resize(self.images * rows, f32::NEG_INFINITY);
        self.nearest.clear();
        self.nearest.resize(self.images * rows, 0);
        let (best, nearest) = (&mut self.best, &mut self.nearest);
        let mut look = |from: usize, to: usize, matches: &Matches| {
            for (p, (&value, &index)) in matches.best.iter().zip(&matches.index).enumerate() {
                let at = from * rows + p;
                if value > best[at] {
                    (best[at], nearest[at]) = (value, to * rows + index as usize);
                }
            }
        };
        for pair in &self.pairs {
            look(pair.from, pair.to, &pair.there);
            if pair.from < n {
                look(pair.to, pair.from, &pair.back);
            }
        }
        self.distances.clear();
        self.distances
            .extend(self.best.iter().map(|&b| 1.0 - f64::from(b)));
        &self.distances
    }

    /// Writes the gradient with respect to the tokens that [`Self::forward`] was given, `[images, rows, dim]`, for
    /// derivatives with respect to some of the distances (position, derivative).
    pub(super) fn backward(&self, derivatives: &[(usize, f64)], grad_tokens: &mut [f32]) {
        let dim = self.dim;
        grad_tokens.fill(0.0);
        let unit = |row: usize| &self.units[row * dim..][..dim];
        let mut touched = Vec::with_capacity(2 * derivatives.len());
        for &(row, derivative) in derivatives {
            let (near, weight) = (self.nearest[row], -derivative as f32);
            add_scaled(&mut grad_tokens[row * dim..][..dim], weight, unit(near));
            add_scaled(&mut grad_tokens[near * dim..][..dim], weight, unit(row));
            touched.extend([row, near]);
        }
        touched.sort_unstable();
        touched.dedup();
        for row in touched {
            unit_backward(
                unit(row),
                self.norms[row],
                &mut grad_tokens[row * dim..][..dim],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::random::{Purpose, Stream};

    const NORMALS: usize = 3;
    const IMAGES: usize = 5;
    const ROWS: usize = 5;
    const DIM: usize = 7;

    fn tokens() -> Vec<f32> {
        let mut stream = Stream::new(5, Purpose::Init);
        (0..IMAGES * ROWS * DIM)
            .map(|_| stream.uniform() as f32 - 0.4)
            .collect()
    }

    fn run(tokens: &[f32]) -> BankMatches {
        let mut matches = BankMatches::default();
        matches
            .tokens_mut(NORMALS, IMAGES, ROWS, DIM)
            .copy_from_slice(tokens);
        matches.forward();
        matches
    }

    /// Every pair of rows in f64.
    fn naive(tokens: &[f32]) -> Vec<f64> {
        let row = |r: usize| &tokens[r * DIM..][..DIM];
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let cosine = |a: usize, b: usize| {
            dot(row(a), row(b)) / (dot(row(a), row(a)) * dot(row(b), row(b))).sqrt()
        };
        let bank = |image: usize| (0..NORMALS * ROWS).filter(move |r| r / ROWS != image);
        (0..IMAGES * ROWS)
            .map(|r| 1.0 - bank(r / ROWS).map(|b| cosine(r, b)).fold(-1.0, f64::max))
            .collect()
    }

    /// f32 dot products of seven numbers: 1e-6 is ten times their rounding.
    #[test]
    fn distances_agree_with_every_pair_in_f64() {
        let tokens = tokens();
        for (found, wanted) in run(&tokens).distances.iter().zip(naive(&tokens)) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
    }

    /// Central differences of the f64 computation; a step of 1e-3 has an error of about 1e-3 in slopes of up to 20, and no
    /// nearest patch changes within it.
    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        const STEP: f32 = 1e-3;
        let tokens = tokens();
        let derivatives: Vec<(usize, f64)> = (0..IMAGES * ROWS)
            .step_by(3)
            .map(|r| (r, 0.3 + r as f64))
            .collect();
        let loss = |tokens: &[f32]| -> f64 {
            let distances = naive(tokens);
            derivatives.iter().map(|&(r, d)| d * distances[r]).sum()
        };
        let mut gradient = vec![f32::NAN; tokens.len()];
        run(&tokens).backward(&derivatives, &mut gradient);
        for i in 0..tokens.len() {
            let at = |delta: f32| {
                let mut moved = tokens.clone();
                moved[i] += delta;
                (loss(&moved), f64::from(moved[i]))
            };
            let ((high, to), (low, from)) = (at(STEP), at(-STEP));
            let slope = (high - low) / (to - from);
            assert!(
                (slope - f64::from(gradient[i])).abs() < 1e-2,
                "{i}: {} {slope}",
                gradient[i]
            );
        }
    }
}
