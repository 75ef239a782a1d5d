//! From the tokens of an image to the rows that are compared.

use serde::{Deserialize, Serialize};

use super::error::BundleError;
use crate::features::ImageTokens;
use crate::score::foreground::{Cut, foreground};
use crate::score::map::{Border, neighbourhood_mean};
use crate::unit::normalise_rows;

/// Largest side of a neighbourhood.
pub const MOST_NEIGHBOURHOOD: usize = 31;

/// Which patches are compared, and how each is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PatchOptions {
    /// How the background is cut away, where it is.
    pub mask: Option<Cut>,
    /// A patch is the mean of this many by this many patches round it; 1: itself. Odd.
    #[serde(default = "one")]
    pub neighbourhood: usize,
}

fn one() -> usize {
    1
}

impl Default for PatchOptions {
    fn default() -> Self {
        Self {
            mask: None,
            neighbourhood: 1,
        }
    }
}

impl PatchOptions {
    /// The key of a value that cannot be right, and what is wrong with it.
    pub(super) fn wrong(self) -> Option<(&'static str, String)> {
        let n = self.neighbourhood;
        (!Self::has_middle(n)).then(|| {
            (
                "neighbourhood",
                format!("is {n}, wanted an odd number up to {MOST_NEIGHBOURHOOD}"),
            )
        })
    }

    /// Whether a neighbourhood of this side has a middle, and is not larger than any use of it.
    pub(crate) fn has_middle(neighbourhood: usize) -> bool {
        !neighbourhood.is_multiple_of(2) && neighbourhood <= MOST_NEIGHBOURHOOD
    }

    /// Which patches of the grid are compared; `None`: all.
    ///
    /// # Errors
    /// [`BundleError::Foreground`].
    pub(super) fn kept(
        self,
        image: &ImageTokens,
        grid: (usize, usize),
        dim: usize,
    ) -> Result<Option<Vec<bool>>, BundleError> {
        Ok(match self.mask {
            Some(cut) => Some(foreground(image.patches(), grid, dim, cut)?.mask),
            None => None,
        })
    }

    /// Rows of unit length, those of the object alone where the background is cut away, and which patches of the grid they
    /// are (`None`: all). The background is told from single patches, whatever the neighbourhood.
    ///
    /// # Errors
    /// [`BundleError::Foreground`], and [`BundleError::Map`] for a neighbourhood that is even.
    pub(crate) fn rows(
        self,
        image: &ImageTokens,
        grid: (usize, usize),
        dim: usize,
    ) -> Result<(Vec<f32>, Option<Vec<bool>>), BundleError> {
        let kept = self.kept(image, grid, dim)?;
        let mut rows = match self.neighbourhood {
            1 => image.patches().to_vec(),
            side => neighbourhood_mean(image.patches(), grid, dim, side, Border::Inside)?,
        };
        if let Some(kept) = &kept {
            rows = chosen(&rows, dim, kept);
        }
        let mut norms = vec![0.0; rows.len() / dim];
        normalise_rows(&mut rows, dim, &mut norms);
        Ok((rows, kept))
    }
}

/// The rows that `kept` says.
pub(crate) fn chosen(rows: &[f32], dim: usize, kept: &[bool]) -> Vec<f32> {
    let rows = rows.chunks_exact(dim).zip(kept);
    rows.filter(|(_, kept)| **kept)
        .flat_map(|(row, _)| row)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_the_direction_of_its_neighbours_mean() {
        let values: Vec<f32> = (0..10 * 2).map(|i| ((i * 7) % 5) as f32 - 1.5).collect();
        let image = ImageTokens::owned(values, 9, 2);
        let rows = |neighbourhood| {
            PatchOptions {
                neighbourhood,
                ..PatchOptions::default()
            }
            .rows(&image, (3, 3), 2)
            .unwrap()
            .0
        };
        let unit = |x: f32, y: f32| [x / x.hypot(y), y / x.hypot(y)];
        let sum = |patches: &[usize]| {
            let of = |axis: usize| {
                patches
                    .iter()
                    .map(|p| image.patches()[p * 2 + axis])
                    .sum::<f32>()
            };
            unit(of(0), of(1))
        };
        for (patch, round) in [
            (0, &[0, 1, 3, 4][..]),
            (4, &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
            (5, &[1, 2, 4, 5, 7, 8]),
        ] {
            for (found, wanted) in rows(3)[patch * 2..][..2].iter().zip(sum(round)) {
                // a few sums in another order
                assert!((found - wanted).abs() < 1e-6, "patch {patch}");
            }
            for (found, wanted) in rows(1)[patch * 2..][..2].iter().zip(sum(&[patch])) {
                assert!((found - wanted).abs() < 1e-6, "patch {patch}");
            }
        }
        assert_eq!(
            chosen(
                &rows(1),
                2,
                &[false, true, false, false, false, false, false, false, true]
            )
            .len(),
            4
        );
    }

    #[test]
    fn an_even_neighbourhood_is_refused() {
        let wrong = |neighbourhood| {
            PatchOptions {
                neighbourhood,
                ..PatchOptions::default()
            }
            .wrong()
            .is_some()
        };
        assert!(wrong(0) && wrong(2) && wrong(33) && !wrong(1) && !wrong(31));
        let read: PatchOptions = serde_json::from_str(r#"{"mask": null}"#).unwrap();
        assert_eq!(read, PatchOptions::default());
    }
}
