//! Images larger than the backbone likes: cut into tiles that overlap, tokens joined to one grid.
//!
//! A tile goes through the backbone as an image of its own. Where tiles overlap, a patch's token is their mean, weighted by
//! tents that fall to nothing at a tile's inner edges ([`TilePlan`]), so neither tokens nor maps have seams. The class token is
//! the mean of the tiles'. Whatever comes after, training included, sees one image with a large grid.

use flawtune_backbone::config::VitConfig;
use serde::{Deserialize, Serialize};

use super::WorkflowError;
use crate::features::ForwardError;
use crate::score::map::TilePlan;

/// Tiles over an image of the backbone's input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileOptions {
    /// Side of a tile, in pixels of the resized image; a multiple of the patch size.
    pub size: usize,
    /// Least number of pixels that neighbours have in common; a multiple of the patch size. `None`: a quarter of the tile,
    /// in whole patches.
    pub overlap: Option<usize>,
}

impl TileOptions {
    /// What a user set over what there was.
    pub(super) fn over(
        base: Option<Self>,
        size: Option<usize>,
        overlap: Option<usize>,
    ) -> Option<Self> {
        let size = size.or(base.map(|b| b.size)).or(overlap.map(|_| 0))?;
        Some(Self {
            size,
            overlap: overlap.or(base.and_then(|b| b.overlap)),
        })
    }

    /// Whether a backbone can take such tiles; with what the user should know.
    pub(super) fn check(
        self,
        config: &VitConfig,
        grid: (usize, usize),
    ) -> Result<Vec<String>, WorkflowError> {
        let patch = config.patch_size;
        let wrong = |text: String| Err(WorkflowError::Input(text));
        if self.size == 0 {
            return wrong("`tile_overlap` goes with `tile_size`".into());
        }
        for (flag, pixels) in [
            ("`tile_size`", Some(self.size)),
            ("`tile_overlap`", self.overlap),
        ] {
            if let Some(pixels) = pixels.filter(|p| !p.is_multiple_of(patch)) {
                let near = (pixels / patch * patch).max(patch);
                return wrong(format!(
                    "{flag} {pixels} is not a multiple of the patch size of {}, {patch}\nhint: take {near} or {}",
                    config.name,
                    near + patch
                ));
            }
        }
        if self.overlap_pixels(patch) >= self.size {
            return wrong(format!(
                "`tile_overlap` {} is not less than `tile_size` {}",
                self.overlap_pixels(patch),
                self.size
            ));
        }
        let plan = self.plan(patch, grid)?;
        Ok(vec![match plan.len() {
            1 => format!(
                "images fit into one tile of {0}×{0}: `image_size` sets how large they are",
                self.size
            ),
            n => format!("{n} tiles of {0}×{0} pixels an image", self.size),
        }])
    }

    fn overlap_pixels(self, patch: usize) -> usize {
        self.overlap.unwrap_or(self.size / patch / 4 * patch)
    }

    /// Tiles on the patch grid.
    fn plan(
        self,
        patch: usize,
        (rows, columns): (usize, usize),
    ) -> Result<TilePlan, WorkflowError> {
        Ok(TilePlan::new(
            rows,
            columns,
            self.size / patch,
            self.overlap_pixels(patch) / patch,
        )?)
    }

    /// What [`crate::features::Forward::variant`] says of it.
    pub(super) fn variant(self) -> String {
        match self.overlap {
            Some(overlap) => format!(" tiles {}/{overlap}", self.size),
            None => format!(" tiles {}", self.size),
        }
    }
}

/// One batch's way through tiles.
pub(super) struct Tiled {
    plan: TilePlan,
    patch: usize,
    size: (usize, usize),
    grid: (usize, usize),
    dim: usize,
}

/// Tokens `[batch, 1 + patches, dim]` of a batch of tiles of one size, from its pixels, height and width.
type Pass<'a, T> = &'a mut dyn FnMut(&[T], usize, usize) -> Result<Vec<f32>, ForwardError>;

impl Tiled {
    pub(super) fn new(
        options: TileOptions,
        patch: usize,
        size: (usize, usize),
        grid: (usize, usize),
        dim: usize,
    ) -> Result<Self, WorkflowError> {
        Ok(Self {
            plan: options.plan(patch, grid)?,
            patch,
            size,
            grid,
            dim,
        })
    }

    /// Of normalised pixels `[batch, 3, height, width]`.
    pub(super) fn of_planes(
        &self,
        pixels: &[f32],
        batch: usize,
        pass: Pass<'_, f32>,
    ) -> Result<Vec<f32>, ForwardError> {
        self.of(pixels, 3 * batch, self.size.1, 1, batch, pass)
    }

    /// Of the bytes of images `[batch, height, width, 3]`.
    pub(super) fn of_pictures(
        &self,
        bytes: &[u8],
        batch: usize,
        pass: Pass<'_, u8>,
    ) -> Result<Vec<f32>, ForwardError> {
        self.of(bytes, batch, 3 * self.size.1, 3, batch, pass)
    }

    /// Of `planes` planes of rows of `stride` values, `each` values a pixel. Tile by tile, so no more than a batch of tiles
    /// is in memory at once.
    fn of<T: Copy>(
        &self,
        values: &[T],
        planes: usize,
        stride: usize,
        each: usize,
        batch: usize,
        pass: Pass<'_, T>,
    ) -> Result<Vec<f32>, ForwardError> {
        let wanted = planes * self.size.0 * stride;
        if values.len() != wanted {
            return Err(format!("{} values for images that have {wanted}", values.len()).into());
        }
        let (dim, columns) = (self.dim, self.grid.1);
        let per_image = (1 + self.grid.0 * columns) * dim;
        let mut out = vec![0.0f32; batch * per_image];
        let class_share = 1.0 / self.plan.len() as f32;
        let mut cut = Vec::new();
        for (tile, down, across) in self.plan.shares() {
            let (height, width) = (tile.height * self.patch, tile.width * self.patch);
            cut.clear();
            for plane in values.chunks_exact(self.size.0 * stride) {
                for row in plane
                    .chunks_exact(stride)
                    .skip(tile.top * self.patch)
                    .take(height)
                {
                    cut.extend_from_slice(&row[tile.left * self.patch * each..][..width * each]);
                }
            }
            let tokens = pass(&cut, height, width)?;
            let per_tile = (1 + tile.height * tile.width) * dim;
            if tokens.len() != batch * per_tile {
                return Err(
                    format!("{} numbers for {batch} tiles of {per_tile}", tokens.len()).into(),
                );
            }
            for (out, tokens) in out
                .chunks_exact_mut(per_image)
                .zip(tokens.chunks_exact(per_tile))
            {
                let (class, patches) = tokens.split_at(dim);
                add(&mut out[..dim], class, class_share);
                for (y, row) in patches.chunks_exact(tile.width * dim).enumerate() {
                    let first = (1 + (tile.top + y) * columns + tile.left) * dim;
                    let places = out[first..]
                        .chunks_exact_mut(dim)
                        .zip(row.chunks_exact(dim));
                    for ((place, token), share) in places.zip(across) {
                        add(place, token, down[y] * share);
                    }
                }
            }
        }
        Ok(out)
    }
}

fn add(sum: &mut [f32], values: &[f32], share: f32) {
    sum.iter_mut()
        .zip(values)
        .for_each(|(s, v)| *s += share * v);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network whose patch token is the mean of its pixels, and whose class token that of the tile.
    fn means(pixels: &[f32], batch: usize, height: usize, width: usize, patch: usize) -> Vec<f32> {
        let (rows, columns) = (height / patch, width / patch);
        let mut tokens = Vec::new();
        for image in pixels.chunks_exact(pixels.len() / batch) {
            // the first of three planes
            let mean = |y: usize, x: usize, h: usize, w: usize| {
                let sum: f32 = (y..y + h)
                    .flat_map(|y| (x..x + w).map(move |x| (y, x)))
                    .map(|(y, x)| image[y * width + x])
                    .sum();
                sum / (h * w) as f32
            };
            tokens.push(mean(0, 0, height, width));
            for r in 0..rows {
                tokens.extend((0..columns).map(|c| mean(r * patch, c * patch, patch, patch)));
            }
        }
        tokens
    }

    #[test]
    fn tokens_that_do_not_look_beyond_their_patch_are_the_same_with_tiles() {
        let (patch, batch, size) = (2, 2, (15, 22));
        let grid = (7, 11);
        let pixels: Vec<f32> = (0..batch * 3 * size.0 * size.1)
            .map(|i| ((i * 37) % 101) as f32 / 101.0)
            .collect();
        let whole = means(&pixels, batch, size.0, size.1, patch);
        for (side, overlap) in [
            (6, None),
            (8, Some(2)),
            (8, Some(6)),
            (4, Some(0)),
            (40, None),
        ] {
            let options = TileOptions {
                size: side,
                overlap,
            };
            let tiled = Tiled::new(options, patch, size, grid, 1).unwrap();
            let found = tiled
                .of_planes(&pixels, batch, &mut |p, h, w| {
                    Ok(means(p, batch, h, w, patch))
                })
                .unwrap();
            let each = 1 + grid.0 * grid.1;
            for (image, (found, whole)) in found.chunks(each).zip(whole.chunks(each)).enumerate() {
                for (i, (f, w)) in found.iter().zip(whole).enumerate().skip(1) {
                    // a weighted mean of equal numbers, in f32
                    assert!(
                        (f - w).abs() < 1e-6,
                        "tile {side} image {image} token {i}: {f} instead of {w}"
                    );
                }
            }
            assert_eq!(tiled.plan.len() == 1, side == 40);
        }
    }

    #[test]
    fn bytes_are_cut_as_planes_are() {
        let (patch, size, grid) = (2, (6, 10), (3, 5));
        let bytes: Vec<u8> = (0..size.0 * size.1 * 3)
            .map(|i| (i * 7 % 251) as u8)
            .collect();
        let planes: Vec<f32> = (0..3)
            .flat_map(|c| {
                bytes
                    .iter()
                    .skip(c)
                    .step_by(3)
                    .map(|b| f32::from(*b))
                    .collect::<Vec<_>>()
            })
            .collect();
        let tiled = Tiled::new(
            TileOptions {
                size: 4,
                overlap: Some(2),
            },
            patch,
            size,
            grid,
            1,
        )
        .unwrap();
        let wanted = tiled
            .of_planes(&planes, 1, &mut |p, h, w| Ok(means(p, 1, h, w, patch)))
            .unwrap();
        let found = tiled
            .of_pictures(&bytes, 1, &mut |b, h, w| {
                let first: Vec<f32> = b.iter().step_by(3).map(|b| f32::from(*b)).collect();
                Ok(means(&first, 1, h, w, patch))
            })
            .unwrap();
        assert_eq!(found, wanted);
        assert!(
            tiled
                .of_pictures(&bytes[1..], 1, &mut |_, _, _| Ok(Vec::new()))
                .is_err()
        );
        assert!(
            tiled
                .of_pictures(&bytes, 1, &mut |_, _, _| Ok(vec![0.0; 3]))
                .is_err()
        );
    }
}
