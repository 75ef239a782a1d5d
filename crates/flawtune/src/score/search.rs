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
    let (mut best, back) = both_ways((parts, 0), None);
    keep(&mut best, &back);
    let distances = |part: Matches| part.best.into_iter().map(|b| 1.0 - b).collect();
    best.into_iter().map(distances).collect()
}

/// The best matches of the patches of each of `parts` in `others`, and the other way round; without others, of each part in those
/// that come after it. −1 and `u32::MAX` where nothing is compared. Parts come with the row of their first patch, and follow one
/// another. Both ways come from one product.
pub(crate) fn both_ways(
    parts: (&[PackedPatches], u32),
    others: Option<(&[PackedPatches], u32)>,
) -> (Vec<Matches>, Vec<Matches>) {
    let none = |parts: &[PackedPatches]| -> Vec<Matches> {
        let none = |part: &PackedPatches| Matches::none(part.patches(), -1.0);
        parts.iter().map(none).collect()
    };
    let answering = others.unwrap_or(parts);
    let (rows, other_rows) = (first_rows(parts), first_rows(answering));
    let (parts, answering) = (parts.0, answering.0);
    // the better of two matches does not depend on the order in which they are met, so any split over threads gives the same
    (0..parts.len())
        .into_par_iter()
        .fold(
            || (none(parts), none(answering)),
            |(mut there, mut back), i| {
                let first = if others.is_some() { 0 } else { i + 1 };
                for j in first..answering.len() {
                    raise_both(
                        (&parts[i], rows[i]),
                        (&answering[j], other_rows[j]),
                        &mut there[i],
                        &mut back[j],
                    );
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

/// The row of each part's first patch.
fn first_rows((parts, mut first): (&[PackedPatches], u32)) -> Vec<u32> {
    let mut rows = Vec::with_capacity(parts.len());
    for part in parts {
        rows.push(first);
        // rows of a bank are fewer than 2³²: they are held in memory
        first += part.patches() as u32;
    }
    rows
}

/// Keeps the better matches of parts.
pub(crate) fn keep(best: &mut [Matches], found: &[Matches]) {
    let parts = best.iter_mut().zip(found);
    parts.for_each(|(best, found)| best.raise(found));
}

/// Keeps the larger of two, number by number.
pub(crate) fn raise(best: &mut [f32], found: &[f32]) {
    best.iter_mut().zip(found).for_each(|(b, &s)| *b = b.max(s));
}
