//! Patch distances to a smooth map at the image's own size, in one separable pass.
//!
//! Bilinear upsampling and the Gaussian are both linear and act on rows and columns apart. So instead of
//! upsampling and then running a 33-tap filter over every pixel, the two are multiplied together once per
//! grid and image size, in f64, into a short band of weights per output row and column; a patch grid of
//! 16-pixel patches needs about five weights where the filter needs 33.

use super::gaussian::{half_kernel, reflect};
use super::{AnomalyMap, MapError, check_shape};

/// What one output position takes from the input along one axis: `weights[..]` from position `first` on.
#[derive(Debug, Clone)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

/// The two input positions and weights of bilinear interpolation at each of `to` outputs, half-pixel
/// centres, clamped at the edges: `torch.nn.functional.interpolate(…, align_corners=False)`, no antialias.
fn bilinear(from: usize, to: usize) -> impl Iterator<Item = [(usize, f64); 2]> {
    let scale = from as f64 / to as f64;
    (0..to).map(move |i| {
        let at = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let t = if low + 1 < from { at - low as f64 } else { 0.0 };
        [(low, 1.0 - t), ((low + 1).min(from - 1), t)]
    })
}

fn bands(from: usize, to: usize, half: &[f64]) -> Vec<Band> {
    let taps: Vec<_> = bilinear(from, to).collect();
    let mut row = vec![0.0f64; from];
    let radius = half.len() as isize - 1;
    (0..to as isize)
        .map(|i| {
            row.fill(0.0);
            for d in -radius..=radius {
                for (at, weight) in taps[reflect(i + d, to)] {
                    row[at] += half[d.unsigned_abs()] * weight;
                }
            }
            let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
            let end = row
                .iter()
                .rposition(|w| *w != 0.0)
                .map_or(first + 1, |last| last + 1);
            Band {
                first,
                weights: row[first..end].iter().map(|w| *w as f32).collect(),
            }
        })
        .collect()
}

/// Turns patch distances of one grid into maps of one size. Made once, used for every image of that size.
///
/// ```
/// use flawtune::score::map::{DEFAULT_SIGMA, Renderer};
/// let renderer = Renderer::new((14, 14), (224, 224), DEFAULT_SIGMA)?;
/// let map = renderer.render(&vec![0.5; 196])?;
/// assert_eq!((map.height(), map.width()), (224, 224));
/// assert!(map.values().iter().all(|v| (v - 0.5).abs() < 1e-6));
/// # Ok::<(), flawtune::score::map::MapError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Renderer {
    grid: (usize, usize),
    rows: Vec<Band>,
    columns: Vec<Band>,
}

impl Renderer {
    /// A renderer from a `grid` of patches (rows, columns) to an image of `size` (height, width) pixels,
    /// smoothed by a Gaussian of `sigma` image pixels (0 is none; [`DEFAULT_SIGMA`](super::DEFAULT_SIGMA)).
    /// Edges are reflected with the edge pixel repeated and the kernel ends at 4 σ, as in
    /// `scipy.ndimage.gaussian_filter`.
    ///
    /// # Errors
    /// [`MapError::Empty`] if a side is 0, [`MapError::Sigma`] if `sigma` is not a usable number.
    pub fn new(grid: (usize, usize), size: (usize, usize), sigma: f64) -> Result<Self, MapError> {
        for (what, (height, width)) in [("the patch grid", grid), ("the image", size)] {
            if height == 0 || width == 0 {
                return Err(MapError::Empty {
                    what,
                    height,
                    width,
                });
            }
        }
        let half = half_kernel(sigma)?;
        Ok(Self {
            grid,
            rows: bands(grid.0, size.0, &half),
            columns: bands(grid.1, size.1, &half),
        })
    }

    /// Height and width of the maps, in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.columns.len())
    }

    /// The map of one image from its patch distances (`[grid_h, grid_w]`, row-major). One thread: run
    /// images in parallel. Every pixel is summed in a fixed order, so the map never depends on threads.
    ///
    /// # Errors
    /// [`MapError::Shape`] if the number of distances is not that of the grid.
    pub fn render(&self, distances: &[f32]) -> Result<AnomalyMap, MapError> {
        let (grid_h, grid_w) = self.grid;
        check_shape("a grid of patch distances", grid_h, grid_w, distances.len())?;
        let (height, width) = self.size();
        let mut wide = vec![0.0f32; grid_h * width];
        for (from, to) in distances
            .chunks_exact(grid_w)
            .zip(wide.chunks_exact_mut(width))
        {
            for (out, band) in to.iter_mut().zip(&self.columns) {
                *out = band
                    .weights
                    .iter()
                    .zip(&from[band.first..])
                    .map(|(w, v)| w * v)
                    .sum();
            }
        }
        let mut values = vec![0.0f32; height * width];
        for (out, band) in values.chunks_exact_mut(width).zip(&self.rows) {
            for (row, &weight) in wide[band.first * width..]
                .chunks_exact(width)
                .zip(&band.weights)
            {
                for (o, v) in out.iter_mut().zip(row) {
                    *o += weight * v;
                }
            }
        }
        Ok(AnomalyMap {
            height,
            width,
            values,
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "reference numbers as they were printed"
)]
mod tests {
    use super::super::{DEFAULT_SIGMA, gaussian_blur};
    use super::*;

    /// torch and scipy sum in another order; the numbers are below 1.
    const ROUNDING: f32 = 2e-6;

    /// The input of every reference: `((37 i + 11) mod 101) / 101`.
    fn pattern(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 101.0)
            .collect()
    }

    fn close(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            assert!((f - w).abs() <= ROUNDING, "number {i}: {f} instead of {w}");
        }
    }

    // torch 2.15: F.interpolate(pattern[2,3], size=(5, 7), mode="bilinear", align_corners=False)
    #[rustfmt::skip]
    const UP: [f32; 35] = [
        0.1089109, 0.1612447, 0.3182461, 0.4752475, 0.6322489, 0.7892504, 0.8415841, 0.1188119, 0.1711457,
        0.3281471, 0.4851485, 0.6421499, 0.7991514, 0.8514851, 0.1584158, 0.2107497, 0.3677511, 0.5247525,
        0.6817539, 0.8387553, 0.8910891, 0.1980198, 0.2503536, 0.4073550, 0.5643564, 0.7213579, 0.8783593,
        0.9306931, 0.2079208, 0.2602546, 0.4172560, 0.5742574, 0.7312588, 0.8882603, 0.9405941,
    ];
    // the same from 4x5 down to 3x2
    #[rustfmt::skip]
    const DOWN: [f32; 6] = [
        0.3972772, 0.2714521, 0.3811881, 0.4220297, 0.7817658, 0.5726072,
    ];
    // scipy 1.17: ndimage.gaussian_filter(UP, 4, mode="reflect"); the kernel is wider than the image
    #[rustfmt::skip]
    const SMOOTH_4: [f32; 35] = [
        0.4478813, 0.4626561, 0.4892787, 0.5224771, 0.5556756, 0.5822981, 0.5970730, 0.4487505, 0.4635254,
        0.4901479, 0.5233464, 0.5565448, 0.5831673, 0.5979422, 0.4501566, 0.4649315, 0.4915541, 0.5247525,
        0.5579509, 0.5845734, 0.5993484, 0.4515627, 0.4663376, 0.4929602, 0.5261586, 0.5593570, 0.5859796,
        0.6007545, 0.4524319, 0.4672069, 0.4938294, 0.5270278, 0.5602263, 0.5868489, 0.6016237,
    ];
    // the same with sigma 1.5
    #[rustfmt::skip]
    const SMOOTH_1_5: [f32; 35] = [
        0.1927544, 0.2514323, 0.3577296, 0.4904906, 0.6232516, 0.7295488, 0.7882267, 0.2056759, 0.2643538,
        0.3706511, 0.5034121, 0.6361731, 0.7424703, 0.8011482, 0.2270163, 0.2856943, 0.3919915, 0.5247525,
        0.6575135, 0.7638107, 0.8224887, 0.2483567, 0.3070347, 0.4133319, 0.5460929, 0.6788539, 0.7851511,
        0.8438291, 0.2612782, 0.3199562, 0.4262534, 0.5590144, 0.6917754, 0.7980726, 0.8567506,
    ];

    #[test]
    fn interpolation_is_torchs() {
        let up = Renderer::new((2, 3), (5, 7), 0.0)
            .unwrap()
            .render(&pattern(6))
            .unwrap();
        close(up.values(), &UP);
        let down = Renderer::new((4, 5), (3, 2), 0.0)
            .unwrap()
            .render(&pattern(20))
            .unwrap();
        close(down.values(), &DOWN);
    }

    #[test]
    fn smoothing_is_scipys_in_one_pass_and_in_two() {
        let up = AnomalyMap::new(5, 7, UP.to_vec()).unwrap();
        for (sigma, wanted) in [(4.0, SMOOTH_4), (1.5, SMOOTH_1_5)] {
            let once = Renderer::new((2, 3), (5, 7), sigma)
                .unwrap()
                .render(&pattern(6))
                .unwrap();
            close(once.values(), &wanted);
            close(gaussian_blur(&up, sigma).unwrap().values(), &wanted);
        }
    }

    #[test]
    fn a_whole_picture_is_torchs_then_scipys() {
        let map = Renderer::new((14, 14), (224, 300), DEFAULT_SIGMA)
            .unwrap()
            .render(&pattern(196))
            .unwrap();
        let at = |y: usize, x: usize| map.values()[y * 300 + x];
        let picked = [
            at(0, 0),
            at(0, 299),
            at(17, 33),
            at(111, 150),
            at(223, 1),
            at(223, 299),
        ];
        close(
            &picked,
            &[
                0.1096534, 0.8671998, 0.5743558, 0.3328134, 0.7811412, 0.5438120,
            ],
        );
        let (low, high) = map.range().unwrap();
        let mean = map.values().iter().map(|v| f64::from(*v)).sum::<f64>() / 67200.0;
        close(
            &[high, low, mean as f32],
            &[0.9089878, 0.0529219, 0.4951009],
        );
        close(&[at(223, 137)], &[high]);
    }

    #[test]
    fn one_pass_equals_two_on_large_and_odd_sizes() {
        for (grid, size) in [
            ((28, 28), (449, 333)),
            ((3, 50), (97, 61)),
            ((1, 1), (4, 9)),
        ] {
            let distances = pattern(grid.0 * grid.1);
            let once = Renderer::new(grid, size, DEFAULT_SIGMA)
                .unwrap()
                .render(&distances)
                .unwrap();
            let up = Renderer::new(grid, size, 0.0)
                .unwrap()
                .render(&distances)
                .unwrap();
            close(
                once.values(),
                gaussian_blur(&up, DEFAULT_SIGMA).unwrap().values(),
            );
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert!(matches!(
            Renderer::new((0, 3), (5, 7), 4.0),
            Err(MapError::Empty { .. })
        ));
        let renderer = Renderer::new((2, 3), (5, 7), 4.0).unwrap();
        assert!(matches!(
            renderer.render(&[0.0; 5]),
            Err(MapError::Shape {
                wanted: 6,
                found: 5,
                ..
            })
        ));
    }
}
