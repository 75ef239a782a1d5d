//! Good images that are nearly the same: frames of one part, an image saved twice. Left out of the bank, such an image still finds itself
//! there, so that it says nothing of how odd the next good part will look.

use crate::score::residual::Look;

/// Share of an image's patches, over all blocks, whose nearest lie in one other image, from which on the two are nearly the same.
const SHARE: f64 = 0.8;
/// In a bank of fewer images most patches have their nearest in one of them anyway.
const LEAST_IMAGES: usize = 8;

/// Pairs of images of the bank that are nearly the same, each once, in order. `looks` are what the bank says of its images at
/// `judged`, each without itself; every image of the bank has so many `patches`.
pub(super) fn near_twins(
    judged: &[usize],
    looks: &[Look],
    (images, patches): (usize, usize),
) -> Vec<(usize, usize)> {
    if images < LEAST_IMAGES || patches == 0 {
        return Vec::new();
    }
    let mut pairs = Vec::new();
    for (&own, look) in judged.iter().zip(looks) {
        let mut of_image = vec![0usize; images];
        let nearest = look.nearest.iter().flatten();
        let all = nearest.clone().count();
        for &row in nearest {
            if let Some(count) = of_image.get_mut(row as usize / patches) {
                *count += 1;
            }
        }
        let most = (0..images).max_by_key(|&i| of_image[i]).unwrap_or(0);
        if of_image[most] as f64 >= SHARE * all as f64 {
            pairs.push((own.min(most), own.max(most)));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_finds_itself_in_one_other_is_its_twin() {
        // ten images of ten patches: 3 and 7 find nine of ten patches in each other, the rest find theirs all over
        let look = |of: &dyn Fn(usize) -> usize| {
            let mut look = Look::default();
            let rows: Vec<u32> = (0..10).map(|p| (10 * of(p) + p) as u32).collect();
            look.nearest = vec![rows.clone(), rows];
            look.distances = vec![vec![0.1; 10]; 2];
            look
        };
        let looks: Vec<Look> = (0..10)
            .map(|i| match i {
                3 => look(&|p| if p == 0 { 1 } else { 7 }),
                7 => look(&|p| if p == 9 { 2 } else { 3 }),
                _ => look(&|p| (i + 1 + p % 4) % 10),
            })
            .collect();
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(near_twins(&all, &looks, (10, 10)), [(3, 7)]);
        assert_eq!(near_twins(&all[..3], &looks[..3], (10, 10)), []);
        // of so few images nothing is said
        assert_eq!(near_twins(&all, &looks, (7, 10)), []);
    }
}
