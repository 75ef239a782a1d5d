//! Anomaly maps: from the distances of patches to an image of where the flaw is.
//!
//! The path: patch distances `[grid_h, grid_w]` → [`Renderer`] (bilinear, then Gaussian) →
//! [`AnomalyMap`] at the image's own size → [`regions`] and [`write_npy`] / [`write_tiff`]. Images larger
//! than the backbone's input go through [`TilePlan`], and [`neighbourhood_mean`] acts on tokens before any
//! distance is taken.

mod file;
mod gaussian;
mod neighbourhood;
mod region;
mod render;
mod tiling;

pub use file::{write_npy, write_tiff};
pub use gaussian::{DEFAULT_SIGMA, gaussian_blur};
pub use neighbourhood::{Border, neighbourhood_mean};
pub use region::{Region, regions, worst_region};
pub use render::Renderer;
pub use tiling::{Tile, TileCanvas, TilePlan};

use std::path::PathBuf;

/// One number per pixel, higher is more anomalous.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl AnomalyMap {
    /// A map from row-major `values` `[height, width]`.
    ///
    /// # Errors
    /// [`MapError::Shape`] if the length is not `height × width`, [`MapError::Empty`] if either is 0.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Result<Self, MapError> {
        check_shape("an anomaly map", height, width, values.len())?;
        Ok(Self {
            height,
            width,
            values,
        })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[height, width]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers, without the shape.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Smallest and largest number that is not NaN; `None` if every number is NaN.
    pub fn range(&self) -> Option<(f32, f32)> {
        let mut numbers = self.values.iter().copied().filter(|v| !v.is_nan());
        let first = numbers.next()?;
        Some(numbers.fold((first, first), |(lo, hi), v| (lo.min(v), hi.max(v))))
    }
}

/// Why a map could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A slice does not hold what its shape says.
    #[error("{what} of {height}×{width} needs {wanted} numbers, found {found}")]
    Shape {
        /// What was given.
        what: &'static str,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Numbers the shape asks for.
        wanted: usize,
        /// Numbers given.
        found: usize,
    },
    /// Nothing to draw.
    #[error("{what} has no pixels ({height}×{width}); both sides must be at least 1")]
    Empty {
        /// What was given.
        what: &'static str,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The width of the smoothing is not a usable number.
    #[error("sigma is {sigma}; it must be a number from 0 (no smoothing) to {limit} pixels")]
    Sigma {
        /// What was given.
        sigma: f64,
        /// The largest allowed.
        limit: f64,
    },
    /// A neighbourhood without a middle.
    #[error(
        "a neighbourhood of {size}×{size} patches has no middle\nhint: use an odd number (1 is none, 3 is usual)"
    )]
    Neighbourhood {
        /// What was given.
        size: usize,
    },
    /// Tiles cannot be laid this way.
    #[error(
        "tiles of {tile} pixels with an overlap of {overlap}: the overlap must be less than the tile"
    )]
    Tiles {
        /// Side of a tile.
        tile: usize,
        /// Wanted overlap.
        overlap: usize,
    },
    /// A tile came out of order, or too many or too few came.
    #[error("expected {expected} tiles in the plan's order, found {found}")]
    TileCount {
        /// Tiles in the plan.
        expected: usize,
        /// Tiles given.
        found: usize,
    },
    /// The map could not be written.
    #[error("cannot write the anomaly map {path}: {source}")]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn check_shape(
    what: &'static str,
    height: usize,
    width: usize,
    found: usize,
) -> Result<(), MapError> {
    if height == 0 || width == 0 {
        return Err(MapError::Empty {
            what,
            height,
            width,
        });
    }
    // a product past usize::MAX cannot be the length of a slice either
    let wanted = height.saturating_mul(width);
    if wanted == found {
        Ok(())
    } else {
        Err(MapError::Shape {
            what,
            height,
            width,
            wanted,
            found,
        })
    }
}
