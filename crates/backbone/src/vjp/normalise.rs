//! Layer normalisation without gain and bias (they are folded into the weights that follow), forward and backward.

/// Writes `(x − mean) / √(var + eps)` of every row of `x` `[T, dim]` to `out`, and the reciprocal root to `inverse` `[T]`.
pub(super) fn normalise(x: &[f32], dim: usize, eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    for ((row, out), inv) in x
        .chunks_exact(dim)
        .zip(out.chunks_exact_mut(dim))
        .zip(inverse)
    {
        let mean = sum(row) / dim as f32;
        for (o, v) in out.iter_mut().zip(row) {
            *o = v - mean;
        }
        *inv = 1.0 / (dot(out, out) / dim as f32 + eps).sqrt();
        for o in out.iter_mut() {
            *o *= *inv;
        }
    }
}

/// Adds to `grad_x` the gradient with respect to the rows that were normalised.
///
/// `normal` and `inverse` are what [`normalise`] wrote, `grad` is the gradient with respect to `normal`:
/// `inverse · (grad − mean(grad) − normal · mean(grad ∘ normal))`.
pub(super) fn normalise_backward(
    normal: &[f32],
    inverse: &[f32],
    grad: &[f32],
    dim: usize,
    grad_x: &mut [f32],
) {
    let rows = normal
        .chunks_exact(dim)
        .zip(grad.chunks_exact(dim))
        .zip(grad_x.chunks_exact_mut(dim))
        .zip(inverse);
    for (((n, g), out), inv) in rows {
        let mean = sum(g) / dim as f32;
        let along = dot(g, n) / dim as f32;
        for ((o, g), n) in out.iter_mut().zip(g).zip(n) {
            *o += inv * (g - mean - n * along);
        }
    }
}

/// Lanes that sums over channels run in: fixed, so that the order of additions is the same everywhere.
const LANES: usize = 16;

/// Σ x, in [`LANES`] interleaved partial sums.
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for c in chunks {
        for (l, v) in lanes.iter_mut().zip(c) {
            *l += v;
        }
    }
    fold(lanes) + rest
}

/// Σ x·y, in [`LANES`] interleaved partial sums.
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = xs
        .remainder()
        .iter()
        .zip(ys.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in xs.zip(ys) {
        for ((l, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *l += a * b;
        }
    }
    fold(lanes) + rest
}

/// The sum of the lanes, by halves.
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
    }
    lanes[0]
}
