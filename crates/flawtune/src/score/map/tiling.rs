//! Where to lay tiles over an image larger than the backbone's input, and how to join their maps.

use super::{AnomalyMap, MapError, check_shape};

/// A square of the image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows: the tile's side, or the image's if that is smaller.
    pub height: usize,
    /// Columns: the tile's side, or the image's if that is smaller.
    pub width: usize,
}

/// One axis: where tiles start, and the share of each position that each tile gives (`[tiles][tile]`).
#[derive(Debug, Clone)]
struct Axis {
    starts: Vec<usize>,
    shares: Vec<Vec<f32>>,
}

impl Axis {
    fn new(length: usize, tile: usize, overlap: usize) -> Self {
        let side = tile.min(length);
        let room = length - side;
        // the fewest tiles that overlap by at least `overlap`, spread evenly from edge to edge
        let steps = if room == 0 {
            0
        } else {
            room.div_ceil(tile - overlap)
        };
        let starts: Vec<usize> = (0..=steps)
            .map(|i| (i * room + steps / 2).checked_div(steps).unwrap_or(0))
            .collect();
        // a tent over each tile, highest in its middle and falling to its ends, except at an image edge
        let tent = |i: usize, at: usize| {
            let from_left = if i == 0 {
                f64::INFINITY
            } else {
                at as f64 + 0.5
            };
            let from_right = if i == steps {
                f64::INFINITY
            } else {
                (side - at) as f64 - 0.5
            };
            from_left.min(from_right).min(side as f64)
        };
        let mut sums = vec![0.0f64; length];
        for (i, start) in starts.iter().enumerate() {
            for at in 0..side {
                sums[start + at] += tent(i, at);
            }
        }
        let share = |(i, start): (usize, &usize)| {
            (0..side)
                .map(|at| (tent(i, at) / sums[start + at]) as f32)
                .collect::<Vec<_>>()
        };
        let shares = starts.iter().enumerate().map(share).collect();
        Self { starts, shares }
    }
}

/// Tiles over an image and the weights that join them.
///
/// Tiles are squares of the backbone's input size, spread evenly so that the first and last touch the
/// image's edges and neighbours overlap by at least the overlap asked for. A side shorter than a tile gets
/// one tile of its own length, which the caller resizes. The weights of all tiles over a pixel add up to 1
/// and fall to nothing at a tile's inner edge, so the joined map has no seams: where the tiles agree it is
/// their map, and a step between two of them becomes a ramp over the overlap.
#[derive(Debug, Clone)]
pub struct TilePlan {
    height: usize,
    width: usize,
    rows: Axis,
    columns: Axis,
}

impl TilePlan {
    /// Lays tiles of `tile` pixels with at least `overlap` pixels in common over `height × width` pixels.
    ///
    /// # Errors
    /// [`MapError::Empty`] if the image has no pixels, [`MapError::Tiles`] if the overlap is not less than
    /// the tile.
    pub fn new(height: usize, width: usize, tile: usize, overlap: usize) -> Result<Self, MapError> {
        if height == 0 || width == 0 {
            return Err(MapError::Empty {
                what: "the image to tile",
                height,
                width,
            });
        }
        if overlap >= tile {
            return Err(MapError::Tiles { tile, overlap });
        }
        let (rows, columns) = (
            Axis::new(height, tile, overlap),
            Axis::new(width, tile, overlap),
        );
        Ok(Self {
            height,
            width,
            rows,
            columns,
        })
    }

    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Never: a plan has at least one tile.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The tiles, row by row.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        let (height, width) = (self.rows.shares[0].len(), self.columns.shares[0].len());
        self.rows.starts.iter().flat_map(move |&top| {
            self.columns.starts.iter().map(move |&left| Tile {
                top,
                left,
                height,
                width,
            })
        })
    }

    /// The tiles, row by row, with the shares they give to their rows and to their columns: a position's weight is the
    /// product of both.
    pub fn shares(&self) -> impl Iterator<Item = (Tile, &[f32], &[f32])> + '_ {
        let axes = self
            .rows
            .shares
            .iter()
            .flat_map(|r| self.columns.shares.iter().map(move |c| (r, c)));
        self.tiles()
            .zip(axes)
            .map(|(tile, (r, c))| (tile, r.as_slice(), c.as_slice()))
    }

    /// An empty map to join tiles on; it holds one map and never all tiles.
    pub fn canvas(&self) -> TileCanvas<'_> {
        TileCanvas {
            plan: self,
            values: vec![0.0; self.height * self.width],
            added: 0,
        }
    }
}

/// A map that grows tile by tile, in the plan's order, so that every sum has one fixed order.
#[derive(Debug)]
pub struct TileCanvas<'a> {
    plan: &'a TilePlan,
    values: Vec<f32>,
    added: usize,
}

impl TileCanvas<'_> {
    /// Adds the map of the plan's next tile, at the tile's own size.
    ///
    /// # Errors
    /// [`MapError::Shape`] if the map is not of the tile's size, [`MapError::TileCount`] if every tile has
    /// been added.
    pub fn add(&mut self, map: &AnomalyMap) -> Result<(), MapError> {
        let (rows, columns) = (&self.plan.rows, &self.plan.columns);
        let (r, c) = (
            self.added / columns.starts.len(),
            self.added % columns.starts.len(),
        );
        let Some(down) = rows.shares.get(r) else {
            return Err(MapError::TileCount {
                expected: self.plan.len(),
                found: self.added + 1,
            });
        };
        let across = &columns.shares[c];
        if map.width != across.len() {
            let (height, width) = (down.len(), across.len());
            let (wanted, found) = (height * width, map.values.len());
            return Err(MapError::Shape {
                what: "the map of a tile",
                height,
                width,
                wanted,
                found,
            });
        }
        check_shape(
            "the map of a tile",
            down.len(),
            across.len(),
            map.values.len(),
        )?;
        let target =
            self.values[rows.starts[r] * self.plan.width..].chunks_exact_mut(self.plan.width);
        for ((out, row), dy) in target.zip(map.values.chunks_exact(map.width)).zip(down) {
            for ((o, v), dx) in out[columns.starts[c]..].iter_mut().zip(row).zip(across) {
                *o += dy * dx * v;
            }
        }
        self.added += 1;
        Ok(())
    }

    /// The joined map.
    ///
    /// # Errors
    /// [`MapError::TileCount`] if tiles are missing.
    pub fn finish(self) -> Result<AnomalyMap, MapError> {
        if self.added != self.plan.len() {
            return Err(MapError::TileCount {
                expected: self.plan.len(),
                found: self.added,
            });
        }
        AnomalyMap::new(self.plan.height, self.plan.width, self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tiles_are_spread_evenly_and_reach_the_edges() {
        let starts = |length, tile, overlap| Axis::new(length, tile, overlap).starts;
        assert_eq!(starts(224, 224, 32), [0]);
        assert_eq!(starts(100, 224, 32), [0]);
        assert_eq!(starts(225, 224, 32), [0, 1]);
        assert_eq!(starts(416, 224, 32), [0, 192]);
        assert_eq!(starts(417, 224, 32), [0, 97, 193]);
        assert_eq!(starts(448, 224, 0), [0, 224]);
        assert_eq!(TilePlan::new(1024, 2048, 448, 64).unwrap().len(), 3 * 6);
    }

    #[test]
    fn a_step_between_tiles_becomes_a_ramp() {
        let plan = TilePlan::new(4, 12, 8, 4).unwrap();
        let mut canvas = plan.canvas();
        canvas
            .add(&AnomalyMap::new(4, 8, vec![0.0; 32]).unwrap())
            .unwrap();
        canvas
            .add(&AnomalyMap::new(4, 8, vec![1.0; 32]).unwrap())
            .unwrap();
        let joined = canvas.finish().unwrap();
        let ramp = [
            0.0, 0.0, 0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0, 1.0, 1.0,
        ];
        assert_eq!(joined.values()[12..24], ramp);
    }

    #[test]
    fn tiles_of_a_wrong_size_or_number_are_refused() {
        let plan = TilePlan::new(4, 12, 8, 4).unwrap();
        let mut canvas = plan.canvas();
        let turned = AnomalyMap::new(8, 4, vec![0.0; 32]).unwrap();
        assert!(matches!(
            canvas.add(&turned),
            Err(MapError::Shape { width: 8, .. })
        ));
        assert!(matches!(
            canvas.finish(),
            Err(MapError::TileCount {
                expected: 2,
                found: 0
            })
        ));
        assert!(matches!(
            TilePlan::new(4, 4, 8, 8),
            Err(MapError::Tiles { .. })
        ));
        assert!(matches!(
            TilePlan::new(0, 4, 8, 1),
            Err(MapError::Empty { .. })
        ));
    }

    proptest! {
        #[test]
        fn tiles_cut_from_a_map_join_to_that_map(
            height in 1usize..60, width in 1usize..60, tile in 1usize..30, share in 0usize..100,
        ) {
            let overlap = tile * share / 100;
            let plan = TilePlan::new(height, width, tile, overlap).unwrap();
            let value = |y: usize, x: usize| ((y * 37 + x * 11) % 101) as f32 / 101.0;
            let mut canvas = plan.canvas();
            let mut last = None;
            for t in plan.tiles() {
                prop_assert!(t.top + t.height <= height && t.left + t.width <= width);
                if let Some(Tile { left, top, width, .. }) = last && top == t.top {
                    prop_assert!(left + width >= t.left + overlap.min(width), "{} {}", left, t.left);
                }
                last = Some(t);
                let cut = (0..t.height).flat_map(|y| (0..t.width).map(move |x| value(t.top + y, t.left + x)));
                canvas.add(&AnomalyMap::new(t.height, t.width, cut.collect()).unwrap()).unwrap();
            }
            let joined = canvas.finish().unwrap();
            for (i, v) in joined.values().iter().enumerate() {
                // each pixel is a mean with f32 weights of at most a few dozen equal numbers
                prop_assert!((v - value(i / width, i % width)).abs() < 1e-5);
            }
        }
    }
}
