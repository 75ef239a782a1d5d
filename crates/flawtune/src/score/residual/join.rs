//! Several sizes of an image as one: each is judged by its own banks and head, and they are averaged.

use crate::score::{Finding, Untaught};

/// What several sizes of images say together. `found` holds for each size its grid (rows, columns) and what it says of every image;
/// scores are averaged, the type is that of the first, and maps over the grid of the first size, on which the others are drawn out.
///
/// # Panics
/// If the sizes do not speak of the same images.
pub fn joined(found: Vec<((usize, usize), Vec<Finding>)>) -> Vec<Finding> {
    let sizes = found.len();
    let mut found = found.into_iter();
    let Some((grid, mut first)) = found.next() else {
        return Vec::new();
    };
    for (own, more) in found {
        assert_eq!(more.len(), first.len(), "each size speaks of every image");
        for (sum, more) in first.iter_mut().zip(more) {
            sum.score += more.score;
            sum.drift += more.drift;
            add(&mut sum.distances, &drawn_out(&more.distances, own, grid));
            if let (Some(sum), Some(more)) = (&mut sum.untaught, more.untaught) {
                sum.score += more.score;
                add(&mut sum.distances, &drawn_out(&more.distances, own, grid));
            }
        }
    }
    if sizes > 1 {
        for sum in &mut first {
            share(&mut sum.score, &mut sum.distances, sizes);
            sum.drift /= sizes as f64;
            if let Some(Untaught { score, distances }) = &mut sum.untaught {
                share(score, distances, sizes);
            }
        }
    }
    first
}

fn add(sum: &mut [f32], more: &[f32]) {
    sum.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

fn share(score: &mut f64, map: &mut [f32], sizes: usize) {
    *score /= sizes as f64;
    for value in map {
        *value /= sizes as f32;
    }
}

/// Numbers over a grid of patches as they are at the middles of another grid's patches over the same square: bilinear, the patches
/// at the rim reach to it.
fn drawn_out(values: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let rows: Vec<Between> = (0..to.0).map(|r| between(r, to.0, from.0)).collect();
    let columns: Vec<Between> = (0..to.1).map(|c| between(c, to.1, from.1)).collect();
    let at = |row: usize, column: &Between| {
        let line = &values[row * from.1..][..from.1];
        line[column.low] + (line[column.high] - line[column.low]) * column.share
    };
    let mut out = Vec::with_capacity(to.0 * to.1);
    for row in &rows {
        for column in &columns {
            let (low, high) = (at(row.low, column), at(row.high, column));
            out.push(low + (high - low) * row.share);
        }
    }
    out
}

/// A place between two neighbours.
struct Between {
    low: usize,
    high: usize,
    /// Of the higher one.
    share: f32,
}

/// Where the middle of patch `index` of `of` lies among `among` middles.
fn between(index: usize, of: usize, among: usize) -> Between {
    let place = (index as f32 + 0.5) * among as f32 / of as f32 - 0.5;
    let place = place.clamp(0.0, (among - 1) as f32);
    let low = place as usize;
    Between {
        low,
        high: (low + 1).min(among - 1),
        share: place - low as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(score: f64, distances: &[f32]) -> Finding {
        Finding {
            score,
            distances: distances.to_vec(),
            drift: score,
            kind: None,
            untaught: Some(Untaught {
                score: score / 2.0,
                distances: distances.iter().map(|d| d / 2.0).collect(),
            }),
        }
    }

    #[test]
    fn sizes_are_averaged_on_the_grid_of_the_first() {
        let fine = finding(3.0, &[1.0, 2.0, 3.0, 4.0]);
        let coarse = finding(1.0, &[2.0, 6.0]);
        let one = joined(vec![((1, 4), vec![fine.clone()])]);
        assert_eq!(one, std::slice::from_ref(&fine));
        let both = joined(vec![((1, 4), vec![fine]), ((1, 2), vec![coarse])]);
        // of 2 and 6 at 1/4 and 3/4 of the way: at the rim themselves, between them 3 and 5
        assert_eq!(both, [finding(2.0, &[1.5, 2.5, 4.0, 5.0])]);
        assert!(joined(Vec::new()).is_empty());
    }

    #[test]
    fn a_grid_drawn_out_to_itself_is_itself() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        assert_eq!(drawn_out(&values, (3, 4), (3, 4)), values);
        assert_eq!(drawn_out(&[7.0], (1, 1), (2, 3)), [7.0; 6]);
    }
}
