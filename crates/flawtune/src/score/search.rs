//! The nearest patches among packed images: the one loop behind every bank that is held in memory.
//!
//! What is held in a file is searched by [`bundle`](crate::bundle), with the same kernels and the same bits.

use flawtune_kernels::matching::{Matches, PackedPatches, raise_both, raise_similarity};
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
    let parts: Vec<Placed<'_>> = parts.iter().map(|part| (part, 0)).collect();
    let (mut best, back) = both_ways::<Matches>(&parts, None);
    keep(&mut best, &back);
    let distances = |part: Matches| part.best.into_iter().map(|b| 1.0 - b).collect();
    best.into_iter().map(distances).collect()
}

/// What is known of the patches of a part while other parts are compared with it, each of them once.
pub(crate) trait Found: Clone + Send + Sync {
    /// Nothing of so many patches: −1 and `u32::MAX`.
    fn none(patches: usize) -> Self;

    /// What a match in another part has to beat to be kept.
    fn bar(&mut self) -> &mut Matches;

    /// Called when a part has raised the bar.
    fn settle(&mut self);

    /// Takes what was found in other parts.
    fn take(&mut self, other: &Self);
}

impl Found for Matches {
    fn none(patches: usize) -> Self {
        Self::none(patches, -1.0)
    }

    fn bar(&mut self) -> &mut Matches {
        self
    }

    fn settle(&mut self) {}

    fn take(&mut self, other: &Self) {
        self.raise(other);
    }
}

/// The best matches and the best of another part than those.
#[derive(Debug, Clone)]
pub(crate) struct TwoMatches {
    /// The best.
    pub(crate) best: Matches,
    /// The best of other parts than the best one's.
    pub(crate) second: Matches,
}

impl Found for TwoMatches {
    fn none(patches: usize) -> Self {
        Self {
            best: Matches::none(patches, -1.0),
            second: Matches::none(patches, -1.0),
        }
    }

    fn bar(&mut self) -> &mut Matches {
        &mut self.second
    }

    fn settle(&mut self) {
        let (best, second) = (&mut self.best, &mut self.second);
        for i in 0..best.best.len() {
            let (b, s) = (best.best[i], second.best[i]);
            if s > b || (s == b && second.index[i] < best.index[i]) {
                (best.best[i], second.best[i]) = (s, b);
                std::mem::swap(&mut best.index[i], &mut second.index[i]);
            }
        }
    }

    fn take(&mut self, other: &Self) {
        // no part is met twice, so the best of either are of two parts
        for found in [&other.best, &other.second] {
            self.second.raise(found);
            self.settle();
        }
    }
}

/// A part, and the row of its first patch.
pub(crate) type Placed<'a> = (&'a PackedPatches, u32);

/// What is found of the patches of each of `parts` in `others`, and the other way round; without others, of each part in those that
/// come after it. Both ways come from one product.
pub(crate) fn both_ways<F: Found>(
    parts: &[Placed<'_>],
    others: Option<&[Placed<'_>]>,
) -> (Vec<F>, Vec<F>) {
    let none = |parts: &[Placed<'_>]| -> Vec<F> {
        parts.iter().map(|(p, _)| F::none(p.patches())).collect()
    };
    let answering = others.unwrap_or(parts);
    // what is kept does not depend on the order in which parts are met, so any split over threads gives the same
    (0..parts.len())
        .into_par_iter()
        .fold(
            || (none(parts), none(answering)),
            |(mut there, mut back), i| {
                let first = if others.is_some() { 0 } else { i + 1 };
                for j in first..answering.len() {
                    raise_both(parts[i], answering[j], there[i].bar(), back[j].bar());
                    there[i].settle();
                    back[j].settle();
                }
                (there, back)
            },
        )
        .reduce(
            || (none(parts), none(answering)),
            |mut a, b| {
                keep(&mut a.0, &b.0);
                keep(&mut a.1, &b.1);
                a
            },
        )
}

/// Takes what was found of each part.
pub(crate) fn keep<F: Found>(known: &mut [F], found: &[F]) {
    let parts = known.iter_mut().zip(found);
    parts.for_each(|(known, found)| known.take(found));
}

/// Keeps the larger of two, number by number.
pub(crate) fn raise(best: &mut [f32], found: &[f32]) {
    best.iter_mut().zip(found).for_each(|(b, &s)| *b = b.max(s));
}
