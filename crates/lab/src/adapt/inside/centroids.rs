//! k-means of patches: where prompts may start.

use rayon::prelude::*;

use flawtune::random::Stream;

/// Rounds of Lloyd's algorithm at the most; it ends earlier when no point moves.
const ROUNDS: usize = 25;

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
        .sum()
}

/// `k` centroids `[k, dim]` of `points` `[n, dim]`: k-means++ from `stream`, then Lloyd's algorithm. Sums are in f64 in
/// the order of the points, so that the result has the same bits for any number of threads. A centroid that loses
/// all its points stays where it is.
///
/// # Panics
/// Without points.
pub fn centroids(points: &[f32], dim: usize, k: usize, stream: &mut Stream) -> Vec<f32> {
    let n = points.len() / dim;
    assert!(n > 0, "k-means needs points");
    let point = |i: usize| &points[i * dim..(i + 1) * dim];
    let mut centres = point(stream.below(n)).to_vec();
    let mut nearest = vec![f64::INFINITY; n];
    while centres.len() < k * dim {
        let last = &centres[centres.len() - dim..];
        nearest
            .par_iter_mut()
            .enumerate()
            .for_each(|(i, d)| *d = d.min(distance(point(i), last)));
        let total: f64 = nearest.iter().sum();
        let mut left = stream.uniform() * total;
        // equal points leave no distance: then any will do
        let next = if total > 0.0 {
            nearest.iter().position(|d| {
                left -= d;
                left < 0.0
            })
        } else {
            Some(stream.below(n))
        };
        centres.extend_from_slice(point(next.unwrap_or(n - 1)));
    }
    let mut owners = vec![usize::MAX; n];
    for _ in 0..ROUNDS {
        let closest = |i: usize| {
            let mut best = (f64::INFINITY, 0);
            for (c, centre) in centres.chunks_exact(dim).enumerate() {
                let d = distance(point(i), centre);
                if d < best.0 {
                    best = (d, c);
                }
            }
            best.1
        };
        let now: Vec<usize> = (0..n).into_par_iter().map(closest).collect();
        if now == owners {
            break;
        }
        owners = now;
        let (mut sums, mut counts) = (vec![0.0f64; k * dim], vec![0usize; k]);
        for (i, &c) in owners.iter().enumerate() {
            counts[c] += 1;
            sums[c * dim..(c + 1) * dim]
                .iter_mut()
                .zip(point(i))
                .for_each(|(s, &v)| *s += f64::from(v));
        }
        for ((centre, sum), &count) in centres
            .chunks_exact_mut(dim)
            .zip(sums.chunks_exact(dim))
            .zip(&counts)
        {
            if count > 0 {
                centre
                    .iter_mut()
                    .zip(sum)
                    .for_each(|(c, s)| *c = (s / count as f64) as f32);
            }
        }
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::random::Purpose;

    #[test]
    fn separate_clouds_get_a_centroid_each() {
        let mut noise = Stream::new(3, Purpose::Init);
        let middles = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let points: Vec<f32> = (0..90)
            .flat_map(|i| middles[i % 3].map(|m| (m + noise.uniform() - 0.5) as f32))
            .collect();
        for seed in 0..5 {
            let found = centroids(
                &points,
                2,
                3,
                &mut Stream::new(seed, Purpose::PromptCentroids),
            );
            for middle in middles {
                // the mean of 30 uniform values lies within 0.3 of the middle (five standard deviations)
                let close = |c: &[f32]| {
                    c.iter()
                        .zip(&middle)
                        .all(|(c, m)| (f64::from(*c) - m).abs() < 0.3)
                };
                assert!(
                    found.chunks_exact(2).any(close),
                    "{middle:?} has none of {found:?}"
                );
            }
        }
    }

    #[test]
    fn more_centroids_than_different_points_repeat_some() {
        let points = [1.0, 2.0, 1.0, 2.0];
        let found = centroids(&points, 2, 3, &mut Stream::new(0, Purpose::PromptCentroids));
        assert_eq!(found, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    }
}
