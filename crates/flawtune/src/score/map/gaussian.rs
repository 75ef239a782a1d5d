//! Gaussian smoothing as `scipy.ndimage.gaussian_filter` does it.

use super::{AnomalyMap, MapError};

/// Width of the smoothing that `PatchCore` and `AnomalyDINO` use, in pixels of the image.
pub const DEFAULT_SIGMA: f64 = 4.0;

/// Beyond this the kernel is wider than any image; it only guards the size of the kernel.
pub(super) const SIGMA_LIMIT: f64 = 4096.0;

/// The kernel ends here, in units of sigma (scipy's `truncate`).
const TRUNCATE: f64 = 4.0;

/// Half of a normalised Gaussian kernel: `half[d]` is the weight at distance `d`, and
/// `half[0] + 2·Σ half[1..] = 1`. The radius is `⌊4σ + 0.5⌋`; σ = 0 is the single weight 1.
///
/// # Errors
/// [`MapError::Sigma`] if `sigma` is negative, not a number, or larger than 4096.
pub(super) fn half_kernel(sigma: f64) -> Result<Vec<f64>, MapError> {
    if !(0.0..=SIGMA_LIMIT).contains(&sigma) {
        return Err(MapError::Sigma {
            sigma,
            limit: SIGMA_LIMIT,
        });
    }
    let radius = (TRUNCATE * sigma + 0.5) as usize;
    if radius == 0 {
        return Ok(vec![1.0]);
    }
    let raw: Vec<f64> = (0..=radius)
        .map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp())
        .collect();
    let sum = raw[0] + 2.0 * raw[1..].iter().sum::<f64>();
    Ok(raw.into_iter().map(|w| w / sum).collect())
}

/// The pixel inside `0..len` that position `at` mirrors to: `d c b a | a b c d | d c b a`, the edge pixel
/// repeated, as often as needed (scipy's `mode="reflect"`, not torch's).
pub(super) fn reflect(at: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let folded = at.rem_euclid(period);
    (if folded < len as isize {
        folded
    } else {
        period - 1 - folded
    }) as usize
}

/// Smooths `map` with a Gaussian of `sigma` pixels: truncated at 4 σ, edges reflected with the edge pixel
/// repeated; equal to `scipy.ndimage.gaussian_filter(map, sigma)` within f32 rounding. One thread; the
/// work is `height × width × 8 σ` multiply-adds.
///
/// A map that comes from one grid of patches is smoothed by [`Renderer`](super::Renderer) while it is
/// upsampled, at a fraction of that work; this is for maps put together from tiles.
///
/// # Errors
/// [`MapError::Sigma`].
pub fn gaussian_blur(map: &AnomalyMap, sigma: f64) -> Result<AnomalyMap, MapError> {
    let half: Vec<f32> = half_kernel(sigma)?.into_iter().map(|w| w as f32).collect();
    let (height, width, radius) = (map.height, map.width, half.len() - 1);
    if radius == 0 {
        return Ok(map.clone());
    }
    let mut values = vec![0.0f32; height * width];
    let mut column = vec![0.0f32; width];
    let mut padded = vec![0.0f32; width + 2 * radius];
    for (y, out) in values.chunks_exact_mut(width).enumerate() {
        let row =
            |offset: isize| &map.values[reflect(y as isize + offset, height) * width..][..width];
        for (c, v) in column.iter_mut().zip(row(0)) {
            *c = half[0] * v;
        }
        for (d, &weight) in half.iter().enumerate().skip(1) {
            let pairs = row(-(d as isize)).iter().zip(row(d as isize));
            for (c, (above, below)) in column.iter_mut().zip(pairs) {
                *c += weight * (above + below);
            }
        }
        for (i, p) in padded.iter_mut().enumerate() {
            *p = column[reflect(i as isize - radius as isize, width)];
        }
        for (o, v) in out.iter_mut().zip(&padded[radius..]) {
            *o = half[0] * v;
        }
        for (d, &weight) in half.iter().enumerate().skip(1) {
            let pairs = padded[radius - d..].iter().zip(&padded[radius + d..]);
            for (o, (left, right)) in out.iter_mut().zip(pairs) {
                *o += weight * (left + right);
            }
        }
    }
    Ok(AnomalyMap {
        height,
        width,
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_scipys() {
        // scipy.ndimage._filters._gaussian_kernel1d(4, 0, 16)
        let half = half_kernel(4.0).unwrap();
        assert_eq!(half.len(), 17);
        let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
        assert!((sum - 1.0).abs() < 1e-14);
        assert!(
            (half[0] - 0.099_739_099_530_986_34).abs() < 1e-15,
            "{}",
            half[0]
        );
        assert!(
            (half[16] - 3.345_874_043_329_486e-5).abs() < 1e-17,
            "{}",
            half[16]
        );
        assert_eq!(half_kernel(0.0).unwrap(), [1.0]);
    }

    #[test]
    fn reflection_repeats_the_edge_and_folds_as_often_as_needed() {
        let at: Vec<usize> = (-5..8).map(|i| reflect(i, 3)).collect();
        assert_eq!(at, [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!(reflect(-7, 1), 0);
    }

    #[test]
    fn sigma_must_be_a_usable_number() {
        for sigma in [-1.0, f64::NAN, f64::INFINITY, 5000.0] {
            assert!(
                matches!(half_kernel(sigma), Err(MapError::Sigma { .. })),
                "{sigma}"
            );
        }
    }

    #[test]
    fn a_constant_stays() {
        let map = AnomalyMap::new(9, 5, vec![0.25; 45]).unwrap();
        let smooth = gaussian_blur(&map, 4.0).unwrap();
        assert!(smooth.values().iter().all(|v| (v - 0.25).abs() < 1e-6));
    }
}
