//! Local averaging of patch tokens, so that each patch also knows its neighbours (`PatchCore`).

use super::{MapError, check_shape};

/// What lies outside the patch grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// Zeros, and the divisor stays `size²`: `torch.nn.AvgPool2d(3, 1, 1)`, what anomalib's `PatchCore` does.
    /// Tokens at the border come out shorter; their direction, so every cosine, is that of
    /// [`Border::Inside`].
    Zeros,
    /// Nothing: the mean of the patches that exist (`count_include_pad=False`).
    Inside,
}

/// The mean of the `size × size` patches round each patch.
///
/// `tokens` is `[grid_h · grid_w, dim]`, row-major over the grid, and so is the result. `size` is odd;
/// 1 changes nothing, `PatchCore` uses 3. Rows are summed first, then columns.
///
/// # Errors
/// [`MapError::Shape`] if `tokens` does not fit the grid, [`MapError::Empty`] if the grid or `dim` is 0, or
/// [`MapError::Neighbourhood`] if `size` is even.
pub fn neighbourhood_mean(
    tokens: &[f32],
    grid: (usize, usize),
    dim: usize,
    size: usize,
    border: Border,
) -> Result<Vec<f32>, MapError> {
    let (grid_h, grid_w) = grid;
    check_shape("tokens", grid_h, grid_w.saturating_mul(dim), tokens.len())?;
    if size.is_multiple_of(2) {
        return Err(MapError::Neighbourhood { size });
    }
    let radius = size / 2;
    let stride = grid_w * dim;
    let span = |at: usize, len: usize| {
        (
            at.saturating_sub(radius),
            at.saturating_add(radius).min(len - 1),
        )
    };
    let mut out = Vec::with_capacity(tokens.len());
    let mut rows = vec![0.0f32; stride];
    for y in 0..grid_h {
        let (top, bottom) = span(y, grid_h);
        rows.fill(0.0);
        for row in tokens[top * stride..]
            .chunks_exact(stride)
            .take(bottom - top + 1)
        {
            for (sum, v) in rows.iter_mut().zip(row) {
                *sum += v;
            }
        }
        for x in 0..grid_w {
            let (left, right) = span(x, grid_w);
            let start = out.len();
            out.resize(start + dim, 0.0);
            for patch in rows[left * dim..].chunks_exact(dim).take(right - left + 1) {
                for (sum, v) in out[start..].iter_mut().zip(patch) {
                    *sum += v;
                }
            }
            let count = match border {
                Border::Zeros => (size as f64).powi(2) as f32,
                Border::Inside => ((bottom - top + 1) * (right - left + 1)) as f32,
            };
            for sum in &mut out[start..] {
                *sum /= count;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
#[allow(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "reference numbers as they were printed"
)]
mod tests {
    use super::*;

    /// Sums of nine in another order than torch's.
    const ROUNDING: f32 = 1e-6;

    // torch 2.15: F.avg_pool2d(x, 3, 1, 1) of [2, 3, 4] values ((37 i + 11) mod 101) / 101, channels last
    #[rustfmt::skip]
    const INPUT: [f32; 24] = [
        0.1089109, 0.5049505, 0.4752475, 0.8712871, 0.8415841, 0.2376238, 0.2079208, 0.6039604, 0.5742574,
        0.9702970, 0.9405941, 0.3366337, 0.3069307, 0.7029703, 0.6732673, 0.0693069, 0.0396040, 0.4356436,
        0.4059406, 0.8019802, 0.7722772, 0.1683168, 0.1386139, 0.5346535,
    ];
    #[rustfmt::skip]
    const ZEROS: [f32; 24] = [
        0.2332233, 0.2981298, 0.3608361, 0.4026403, 0.3828383, 0.3135313, 0.2255225, 0.1793179, 0.2827283,
        0.4356436, 0.4961497, 0.5588558, 0.5291529, 0.4807481, 0.3267327, 0.2574258, 0.2178218, 0.2827283,
        0.3377338, 0.3795380, 0.3597360, 0.2904290, 0.2101210, 0.1639164,
    ];
    // the same with count_include_pad=False
    #[rustfmt::skip]
    const INSIDE: [f32; 24] = [
        0.5247525, 0.6707921, 0.5412542, 0.6039604, 0.5742574, 0.4702970, 0.5074257, 0.4034654, 0.4240924,
        0.6534654, 0.4961497, 0.5588558, 0.5291529, 0.4807481, 0.4900990, 0.3861386, 0.4900990, 0.6361386,
        0.5066007, 0.5693070, 0.5396040, 0.4356436, 0.4727723, 0.3688119,
    ];

    #[test]
    fn both_borders_are_torchs() {
        for (border, wanted) in [(Border::Zeros, ZEROS), (Border::Inside, INSIDE)] {
            let found = neighbourhood_mean(&INPUT, (3, 4), 2, 3, border).unwrap();
            for (f, w) in found.iter().zip(&wanted) {
                assert!((f - w).abs() <= ROUNDING, "{f} instead of {w}");
            }
        }
    }

    #[test]
    fn one_patch_changes_nothing_and_more_than_the_grid_is_the_mean() {
        assert_eq!(
            neighbourhood_mean(&INPUT, (3, 4), 2, 1, Border::Zeros).unwrap(),
            INPUT
        );
        let all = neighbourhood_mean(&INPUT, (3, 4), 2, 99, Border::Inside).unwrap();
        let mean = INPUT.iter().step_by(2).sum::<f32>() / 12.0;
        assert!(all.iter().step_by(2).all(|v| (v - mean).abs() <= ROUNDING));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let even = neighbourhood_mean(&INPUT, (3, 4), 2, 2, Border::Zeros);
        assert!(matches!(even, Err(MapError::Neighbourhood { size: 2 })));
        assert!(matches!(
            neighbourhood_mean(&INPUT, (3, 4), 3, 3, Border::Zeros),
            Err(MapError::Shape {
                wanted: 36,
                found: 24,
                ..
            })
        ));
        assert!(matches!(
            neighbourhood_mean(&[], (3, 4), 0, 3, Border::Zeros),
            Err(MapError::Empty { .. })
        ));
    }
}
