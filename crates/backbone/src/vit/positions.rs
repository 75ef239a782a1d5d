//! Where a patch is: rotation angles (DINOv3) and resized position tables (DINOv2).

use half::bf16;

/// Cosines and sines of the rotation of every token, `[prefix + rows·columns, head_dim/2]` each.
///
/// The angle of pair `j` is `2π·y/period_j` in the first half of the pairs and `2π·x/period_j` in the second,
/// `period_j = base^(4j/head_dim)`, with patch centres `y, x` in -1..1 by their own axis; prefix tokens are not
/// rotated. Coordinates, frequencies and angles are rounded to f32 as the PyTorch implementations round them.
pub(crate) fn rotation(
    grid: (usize, usize),
    prefix: usize,
    head_dim: usize,
    base: f32,
    round_periods: bool,
) -> (Vec<f32>, Vec<f32>) {
    let quarter = head_dim / 4;
    let frequency: Vec<f32> = (0..quarter)
        .map(|j| {
            let period = f64::from(base).powf(4.0 * j as f64 / head_dim as f64) as f32;
            if round_periods {
                1.0 / bf16::from_f32(period).to_f32()
            } else {
                1.0 / period
            }
        })
        .collect();
    let (rows, columns) = grid;
    let centre = |i: usize, n: usize| 2.0 * ((i as f32 + 0.5) / n as f32) - 1.0;
    let mut cos = vec![1.0; prefix * 2 * quarter];
    let mut sin = vec![0.0; prefix * 2 * quarter];
    for row in 0..rows {
        for column in 0..columns {
            for coordinate in [centre(row, rows), centre(column, columns)] {
                for &f in &frequency {
                    let angle = f64::from(std::f32::consts::TAU * coordinate * f);
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
            }
        }
    }
    (cos, sin)
}

/// How a position table is resized; both are what PyTorch's `interpolate(mode="bicubic")` computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bicubic {
    /// Four taps with a = -0.75, whatever the scale: models without registers.
    Plain,
    /// Antialiased, a = -0.5, the filter widened when shrinking: models with registers.
    Antialias,
}

/// Resizes `table` (`[side², dim]`, row-major over a square grid) to `[rows·columns, dim]`.
pub(crate) fn resize(
    table: &[f32],
    side: usize,
    dim: usize,
    grid: (usize, usize),
    filter: Bicubic,
) -> Vec<f32> {
    let (rows, columns) = grid;
    if (rows, columns) == (side, side) {
        return table.to_vec();
    }
    // columns first, then rows, as PyTorch does
    let horizontal = taps(side, columns, filter);
    let mut wide = vec![0.0; side * columns * dim];
    for row in 0..side {
        for (column, taps) in horizontal.iter().enumerate() {
            let out = &mut wide[(row * columns + column) * dim..][..dim];
            for &(from, weight) in taps {
                add_scaled(out, &table[(row * side + from) * dim..][..dim], weight);
            }
        }
    }
    let mut resized = vec![0.0; rows * columns * dim];
    for (row, taps) in taps(side, rows, filter).iter().enumerate() {
        let out = &mut resized[row * columns * dim..][..columns * dim];
        for &(from, weight) in taps {
            add_scaled(out, &wide[from * columns * dim..][..columns * dim], weight);
        }
    }
    resized
}

fn add_scaled(out: &mut [f32], values: &[f32], weight: f32) {
    for (o, v) in out.iter_mut().zip(values) {
        *o += v * weight;
    }
}

/// For every output position the inputs it mixes and their weights.
fn taps(input: usize, output: usize, filter: Bicubic) -> Vec<Vec<(usize, f32)>> {
    let scale = input as f64 / output as f64;
    (0..output)
        .map(|o| match filter {
            Bicubic::Plain => {
                let centre = scale * (o as f64 + 0.5) - 0.5;
                let floor = centre.floor();
                (-1..=2)
                    .map(|i| {
                        let at = (floor as i64 + i).clamp(0, input as i64 - 1);
                        (at as usize, cubic(centre - floor - i as f64, -0.75) as f32)
                    })
                    .collect()
            }
            Bicubic::Antialias => {
                let widen = scale.max(1.0);
                let (support, centre) = (2.0 * widen, scale * (o as f64 + 0.5));
                let first = ((centre - support + 0.5) as i64).max(0);
                let end = ((centre + support + 0.5) as i64).min(input as i64);
                let weights: Vec<f64> = (first..end)
                    .map(|i| cubic((i as f64 - centre + 0.5) / widen, -0.5))
                    .collect();
                let total: f64 = weights.iter().sum();
                (first..end)
                    .zip(weights)
                    .map(|(i, w)| (i as usize, (w / total) as f32))
                    .collect()
            }
        })
        .collect()
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
