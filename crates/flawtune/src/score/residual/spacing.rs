//! How far good patches lie from each other: what a distance to one of them has to be compared with.

use super::model::Scale;
use crate::score::search::TwoMatches;

/// Fewer good images say nothing of how far their patches lie from each other.
pub(super) const LEAST_IMAGES: usize = 4;

/// How far each patch of a block's bank lies from the patches of other good images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spacing {
    /// `1 − cos` to the nearest of them.
    pub nearest: Vec<f32>,
    /// Place in the bank of the image that the nearest is of.
    pub image: Vec<u32>,
    /// `1 − cos` to the nearest of any further image.
    pub second: Vec<f32>,
}

impl Spacing {
    /// Of one bank row, as an image sees it that is in the bank itself (`own`) or is not.
    pub(super) fn of(&self, row: u32, own: Option<usize>) -> f32 {
        let row = row as usize;
        match self.image.get(row) {
            None => 0.0,
            Some(&image) if own == Some(image as usize) => self.second[row],
            Some(_) => self.nearest[row],
        }
    }

    /// Appends what was found of the patches of an image; `image_of` names the image of a row.
    pub(super) fn push(&mut self, found: &TwoMatches, image_of: impl Fn(u32) -> u32) {
        let far = |best: &f32| 1.0 - best;
        self.nearest.extend(found.best.best.iter().map(far));
        self.second.extend(found.second.best.iter().map(far));
        self.image
            .extend(found.best.index.iter().map(|&row| image_of(row)));
    }

    /// Takes what was found in images that were appended to the bank, of the patches from row `first` on.
    pub(super) fn raise(
        &mut self,
        first: usize,
        found: &TwoMatches,
        image_of: impl Fn(u32) -> u32,
    ) {
        let mut new = Self::default();
        new.push(found, image_of);
        for (i, row) in (first..).take(new.nearest.len()).enumerate() {
            let (nearest, second) = (self.nearest[row], self.second[row]);
            // the first among equals stays
            if new.nearest[i] < nearest {
                self.nearest[row] = new.nearest[i];
                self.image[row] = new.image[i];
                self.second[row] = nearest.min(new.second[i]);
            } else {
                self.second[row] = second.min(new.nearest[i]);
            }
        }
    }

    /// Whether it is of so many rows and its numbers can be used.
    pub(crate) fn is_usable(&self, rows: usize) -> bool {
        let lengths = [self.nearest.len(), self.image.len(), self.second.len()];
        let mut far = self.nearest.iter().chain(&self.second);
        lengths == [rows; 3] && far.all(|d| d.is_finite())
    }
}

/// What is expected of a patch's distance where its nearest good patch lies among others as it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expected {
    /// Distance that a patch has for each unit of its neighbour's spacing, between 0 and 1.
    pub(super) slope: f64,
    /// What the distance exceeds that by, over good images.
    pub(super) excess: Scale,
}

impl Expected {
    /// Of distances and spacings of good images: the line of least squares.
    pub(super) fn of(known: impl Iterator<Item = (f32, f32)> + Clone, least: f64) -> Self {
        let wide = known.map(|(d, s)| (f64::from(d), f64::from(s)));
        let (count, distance, spacing) = wide
            .clone()
            .fold((0usize, 0.0, 0.0), |(n, d, s), (dn, sn)| {
                (n + 1, d + dn, s + sn)
            });
        let count = count.max(1) as f64;
        let (distance, spacing) = (distance / count, spacing / count);
        let (shared, own) = wide.clone().fold((0.0, 0.0), |(shared, own), (d, s)| {
            let s = s - spacing;
            (shared + s * (d - distance), own + s * s)
        });
        // spacings that are all alike explain nothing
        let slope = if own > 0.0 {
            (shared / own).clamp(0.0, 1.0)
        } else {
            0.0
        };
        Self {
            slope,
            excess: Scale::of(wide.map(|(d, s)| d - slope * s), least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Precision;
    use crate::features::ImageTokens;
    use crate::score::residual::{BlockBanks, block_bank, unit_blocks};

    const BLOCKS: usize = 2;
    const DIM: usize = 16;
    const PATCHES: usize = 3;

    fn images(count: usize) -> Vec<ImageTokens> {
        let width = BLOCKS * DIM;
        (0..count)
            .map(|i| {
                let values = (0..(1 + PATCHES) * width)
                    .map(|v| ((v * 37 + i * 101 + v * i % 13) % 89) as f32 / 40.0 - 1.0);
                ImageTokens::owned(values.collect(), PATCHES, width)
            })
            .collect()
    }

    fn banks(images: &[ImageTokens]) -> BlockBanks {
        let bank = block_bank(images, BLOCKS, DIM, Precision::F32);
        BlockBanks::new(&bank, BLOCKS, &vec![PATCHES; images.len()])
    }

    /// Distance of a patch to the nearest of some images, one product after the other.
    fn nearest(of: &[f32], block: usize, rows: &[Vec<Vec<f32>>], images: &[usize]) -> f32 {
        let patches = images
            .iter()
            .flat_map(|&i| rows[i][block].chunks_exact(DIM));
        let cosines = patches.map(|n| of.iter().zip(n).map(|(a, b)| a * b).sum::<f32>());
        1.0 - cosines.fold(-1.0, f32::max)
    }

    #[test]
    fn a_spacing_is_the_distance_to_the_nearest_patch_of_another_image() {
        let good = images(6);
        let banks = banks(&good);
        let rows: Vec<_> = good.iter().map(|i| unit_blocks(i, BLOCKS, DIM)).collect();
        for judged in [vec![0, 1, 2, 3, 4, 5], vec![0, 2, 5]] {
            let (looks, spacings) = banks.look_and_measure(&judged, &mut |_| {});
            assert_eq!(looks, banks.look_own(&judged));
            for (block, spacing) in spacings.iter().enumerate() {
                assert!(spacing.is_usable(6 * PATCHES));
                for row in 0..6 * PATCHES {
                    let (image, patch) = (row / PATCHES, row % PATCHES);
                    let own = &rows[image][block][patch * DIM..][..DIM];
                    let others: Vec<usize> =
                        judged.iter().copied().filter(|i| *i != image).collect();
                    let wanted = nearest(own, block, &rows, &others);
                    assert!((spacing.nearest[row] - wanted).abs() < 1e-5);
                    // an image of the bank does not find itself there
                    for asking in (0..6).filter(|asking| *asking != image) {
                        let others: Vec<usize> =
                            others.iter().copied().filter(|i| *i != asking).collect();
                        let wanted = nearest(own, block, &rows, &others);
                        assert!((spacing.of(row as u32, Some(asking)) - wanted).abs() < 1e-5);
                    }
                }
            }
        }
        assert_eq!(Spacing::default().of(u32::MAX, None), 0.0);
    }

    #[test]
    fn images_that_are_appended_are_measured_as_if_they_had_been_there() {
        let good = images(7);
        for judged in [vec![0, 1, 2, 3, 4], vec![0, 3]] {
            let (mut looks, mut spacings) =
                banks(&good[..5]).look_and_measure(&judged, &mut |_| {});
            let all = banks(&good);
            let before = (&mut looks, &mut spacings[..]);
            all.look_and_go_on(5, &judged, before);
            let now: Vec<usize> = judged.iter().copied().chain([5, 6]).collect();
            let (wanted_looks, wanted) = all.look_and_measure(&now, &mut |_| {});
            assert_eq!(looks, wanted_looks);
            assert_eq!(spacings, wanted);
        }
    }

    #[test]
    fn few_images_say_nothing() {
        let (looks, spacings) = banks(&images(3)).look_and_measure(&[0, 1, 2], &mut |_| {});
        assert_eq!((looks.len(), spacings.len()), (3, 0));
    }

    #[test]
    fn what_is_expected_is_the_line_of_least_squares() {
        let of = |known: &[(f32, f32)]| Expected::of(known.iter().copied(), 1e-6);
        let line = of(&[(0.5, 0.0), (0.75, 0.5), (1.0, 1.0)]);
        assert_eq!((line.slope, line.excess.mean), (0.5, 0.5));
        assert_eq!(line.excess.deviation, 1e-6);
        // a distance never counts for less than nothing, nor for more than it is
        assert_eq!(of(&[(1.0, 0.0), (0.0, 1.0)]).slope, 0.0);
        assert_eq!(of(&[(0.0, 0.0), (3.0, 1.0)]).slope, 1.0);
        assert_eq!(of(&[(0.25, 0.5), (0.75, 0.5)]).slope, 0.0);
    }
}
