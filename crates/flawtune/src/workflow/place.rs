//! Where on an image the patches lie.

use flawtune_backbone::preprocess::{Part, Preprocess, Resize};

use super::WorkflowError;
use crate::features::Turn;
use crate::score::map::{AnomalyMap, Renderer};

/// The part of an image that the patch grid covers, in its own pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Seen {
    /// Of an image of `size` (height, width) prepared by `preprocess` and cut into a `grid` of patches.
    pub(super) fn of(
        preprocess: &Preprocess,
        grid: (usize, usize),
        patch: usize,
        size: (usize, usize),
    ) -> Self {
        Self::within(preprocess, grid, patch, preprocess.part(size.0, size.1))
    }

    /// As [`Self::of`], where `part` is what is looked at of the image.
    fn within(preprocess: &Preprocess, grid: (usize, usize), patch: usize, part: Part) -> Self {
        let size = (part.height, part.width);
        let (to_height, to_width) = (preprocess.size.0 as f64, preprocess.size.1 as f64);
        let (height, width) = (size.0 as f64, size.1 as f64);
        let (mut down, mut across) = (height / to_height, width / to_width);
        if preprocess.resize == Resize::CentreCrop {
            down = down.min(across);
            across = down;
        }
        let axis = |from: f64, to: f64, scale: f64, patches: usize, pixels: usize| {
            let start = (((from - to * scale) / 2.0).round().max(0.0) as usize).min(pixels - 1);
            let length = ((patches * patch) as f64 * scale).round() as usize;
            (start, length.clamp(1, pixels - start))
        };
        let (top, seen_height) = axis(height, to_height, down, grid.0, size.0);
        let (left, seen_width) = axis(width, to_width, across, grid.1, size.1);
        Self {
            top: part.top + top,
            left: part.left + left,
            height: seen_height,
            width: seen_width,
        }
    }

    /// Left, top, width and height of a patch (row, column) of the `grid`.
    pub(super) fn patch(self, grid: (usize, usize), patch: (usize, usize)) -> (f64, f64, f64, f64) {
        let (down, across) = (
            self.height as f64 / grid.0 as f64,
            self.width as f64 / grid.1 as f64,
        );
        (
            self.left as f64 + patch.1 as f64 * across,
            self.top as f64 + patch.0 as f64 * down,
            across,
            down,
        )
    }

    /// Which patches of the `grid` over an image of `size` that was turned by `turn` show the image, by their middles; `None`
    /// if all do.
    pub(super) fn shown(
        self,
        turn: Turn,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Option<Vec<bool>> {
        let middle = |at: usize, patches: usize, start: usize, length: usize| {
            start as f64 + (at as f64 + 0.5) * length as f64 / patches as f64
        };
        let shown: Vec<bool> = (0..grid.0 * grid.1)
            .map(|patch| {
                let y = middle(patch / grid.1, grid.0, self.top, self.height);
                let x = middle(patch % grid.1, grid.1, self.left, self.width);
                turn.shows((x, y), size)
            })
            .collect();
        shown.contains(&false).then_some(shown)
    }
}

/// Draws the maps of images of one size.
#[derive(Debug)]
pub(super) struct Drawing {
    /// Height and width of the image, then of its map.
    sizes: ((usize, usize), (usize, usize)),
    seen: Seen,
    /// Pixels of the map that a mask hides.
    hidden: Vec<usize>,
    /// What stands where no patch lies: no number where a region is looked at, else 0.
    outside: f32,
    renderer: Renderer,
}

impl Drawing {
    /// Of images of the first of `sizes` (height, width), in maps of the second, smoothed by `sigma` of the maps' pixels.
    ///
    /// # Errors
    /// A sigma out of range.
    pub(super) fn new(
        preprocess: &Preprocess,
        grid: (usize, usize),
        patch: usize,
        sizes: ((usize, usize), (usize, usize)),
        sigma: f64,
    ) -> Result<Self, WorkflowError> {
        let (image, map) = sizes;
        let part = preprocess.part(image.0, image.1).scaled(image, map);
        let seen = Seen::within(preprocess, grid, patch, part);
        Ok(Self {
            sizes,
            seen,
            hidden: preprocess.hidden(Part::whole(map.0, map.1), map),
            outside: preprocess.roi.map_or(0.0, |_| f32::NAN),
            renderer: Renderer::new(grid, (seen.height, seen.width), sigma)?,
        })
    }

    pub(super) fn sizes(&self) -> ((usize, usize), (usize, usize)) {
        self.sizes
    }

    /// The map; where no patch lies 0, or NaN outside of a region of interest.
    ///
    /// # Errors
    /// Distances of another grid.
    pub(super) fn draw(&self, distances: &[f32]) -> Result<AnomalyMap, WorkflowError> {
        let map = self.renderer.render(distances)?;
        let ((height, width), seen) = (self.sizes.1, self.seen);
        let mut map = if (seen.height, seen.width) == (height, width) {
            map
        } else {
            let mut values = vec![self.outside; height * width];
            for (row, line) in map.values().chunks_exact(seen.width).enumerate() {
                values[(seen.top + row) * width + seen.left..][..seen.width].copy_from_slice(line);
            }
            AnomalyMap::new(height, width, values)?
        };
        if !self.hidden.is_empty() {
            let mut values = map.into_values();
            for &at in &self.hidden {
                values[at] = self.outside;
            }
            map = AnomalyMap::new(height, width, values)?;
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune_backbone::config::Normalization;

    const PLAIN: Normalization = Normalization {
        mean: [0.5; 3],
        std: [0.5; 3],
    };

    #[test]
    fn squashed_pictures_are_seen_whole_and_cropped_ones_in_the_middle() {
        let squash = Preprocess::squash(64, 64, PLAIN);
        let whole = Seen {
            top: 0,
            left: 0,
            height: 300,
            width: 200,
        };
        assert_eq!(Seen::of(&squash, (4, 4), 16, (300, 200)), whole);
        // 72 pixels are 4 patches of 16 and 8 that are not seen
        let rest = Preprocess::squash(72, 72, PLAIN);
        let cut = Seen {
            top: 0,
            left: 0,
            height: 128,
            width: 64,
        };
        assert_eq!(Seen::of(&rest, (4, 4), 16, (144, 72)), cut);
        let crop = Preprocess::centre_crop(64, 64, PLAIN);
        let middle = Seen {
            top: 50,
            left: 0,
            height: 200,
            width: 200,
        };
        assert_eq!(Seen::of(&crop, (4, 4), 16, (300, 200)), middle);
        let drawing = Drawing::new(&crop, (4, 4), 16, ((300, 200), (300, 200)), 0.0).unwrap();
        let map = drawing.draw(&[0.5; 16]).unwrap();
        let at = |y: usize| map.values()[y * 200 + 100];
        assert_eq!((map.height(), at(49), at(250)), (300, 0.0, 0.0));
        assert!((at(50) - 0.5).abs() < 1e-6 && (at(249) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn outside_of_a_region_a_map_has_no_number() {
        let region = Preprocess {
            roi: "20,30,100,200".parse().ok(),
            ..Preprocess::squash(64, 32, PLAIN)
        };
        let part = Seen {
            top: 30,
            left: 20,
            height: 200,
            width: 100,
        };
        assert_eq!(Seen::of(&region, (4, 2), 16, (300, 200)), part);
        for (drawn, first, last) in [
            ((300, 200), (30, 20), (229, 119)),
            ((150, 100), (15, 10), (114, 59)),
        ] {
            let drawing = Drawing::new(&region, (4, 2), 16, ((300, 200), drawn), 0.0).unwrap();
            let map = drawing.draw(&[0.5; 8]).unwrap();
            assert_eq!((map.height(), map.width()), drawn);
            let at = |y: usize, x: usize| map.values()[y * drawn.1 + x];
            assert_eq!([at(first.0, first.1), at(last.0, last.1)], [0.5; 2]);
            let outside = [
                at(first.0 - 1, first.1),
                at(first.0, first.1 - 1),
                at(last.0 + 1, last.1),
                at(last.0, last.1 + 1),
            ];
            assert!(outside.iter().all(|v| v.is_nan()), "{outside:?}");
            assert_eq!(map.range(), Some((0.5, 0.5)));
        }
    }
}
