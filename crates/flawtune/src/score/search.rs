//! The nearest patches among packed images: the one loop behind every bank that is held in memory.
//!
//! What is held in a file is searched by [`bundle`](crate::bundle), with the same kernels and the same bits.

use flawtune_kernels::matching::{Matches, PackedPatches, match_both, raise_similarity};
use rayon::prelude::*;

/// The largest cosine of every patch of `test` to those of `parts`, both of unit rows; `least` where none is larger.
pub fn largest_cosine(test: &PackedPatches, parts: &[PackedPatches], least: f32) -> Vec<f32> {
    let mut best = vec![least; test.patches()];
    for part in parts {
        raise_similarity(test, part, &mut best);
    }
    best
}

/// `1 − max cos` of every patch of each part to all other parts; 2 where there is none. Both directions of a pair come from one
/// product.
pub(crate) fn left_out_distances(parts: &[PackedPatches]) -> Vec<Vec<f32>> {
    let (mut best, back) = largest_cosines(parts, parts, |i| i + 1);
    best.iter_mut().zip(&back).for_each(|(a, b)| raise(a, b));
    best.into_iter()
        .map(|part| part.into_iter().map(|b| 1.0 - b).collect())
        .collect()
}

/// The largest cosine of every patch of each of `parts` to those of `others` that it is compared with, `first(i)` and all after it
/// for part i; and the other way round. −1 where nothing is compared. Both ways come from one product.
pub(crate) fn largest_cosines(
    parts: &[PackedPatches],
    others: &[PackedPatches],
    first: impl Fn(usize) -> usize + Sync,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let none = |parts: &[PackedPatches]| -> Vec<Vec<f32>> {
        parts.iter().map(|p| vec![-1.0f32; p.patches()]).collect()
    };
    // a maximum does not depend on the order it is taken in, so any split over threads gives the same bits
    (0..parts.len())
        .into_par_iter()
        .fold(
            || {
                (
                    (none(parts), none(others)),
                    (Matches::default(), Matches::default()),
                )
            },
            |((mut best, mut back), (mut to, mut from)), i| {
                for j in first(i)..others.len() {
                    if parts[i].patches() > 0 && others[j].patches() > 0 {
                        match_both(&parts[i], &others[j], &mut to, &mut from);
                        raise(&mut best[i], &to.best);
                        raise(&mut back[j], &from.best);
                    }
                }
                ((best, back), (to, from))
            },
        )
        .map(|(best, _)| best)
        .reduce(
            || (none(parts), none(others)),
            |mut a, b| {
                a.0.iter_mut().zip(&b.0).for_each(|(a, b)| raise(a, b));
                a.1.iter_mut().zip(&b.1).for_each(|(a, b)| raise(a, b));
                a
            },
        )
}

/// Keeps the larger of two, number by number.
pub(crate) fn raise(best: &mut [f32], found: &[f32]) {
    best.iter_mut().zip(found).for_each(|(b, &s)| *b = b.max(s));
}
