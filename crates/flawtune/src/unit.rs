//! Division by the norm, `unit(x) = x / (‖x‖ + 1e-8)`, and its gradient.

/// What is added to a norm before dividing by it.
pub const NORM_EPSILON: f64 = 1e-8;

/// `‖x‖`, summed in f64 in eight fixed lanes.
#[inline]
pub fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// `x · y` in f64. Eight running sums (element `i` goes to sum `i mod 8`) keep the order of additions fixed
/// and let the compiler use vector registers.
#[inline]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail: f64 = xs
        .remainder()
        .iter()
        .zip(ys.remainder())
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum();
    for (a, b) in xs.zip(ys) {
        for l in 0..8 {
            sums[l] += f64::from(a[l]) * f64::from(b[l]);
        }
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])) + tail
}

/// `to += w · from`.
#[inline]
pub fn add_scaled(to: &mut [f32], w: f32, from: &[f32]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t += w * f;
    }
}

/// Replaces every row of `rows` (`[n, dim]`) by its unit vector and writes the norms before (`[n]`).
#[inline]
pub fn normalise_rows(rows: &mut [f32], dim: usize, norms: &mut [f64]) {
    for (row, n) in rows.chunks_exact_mut(dim).zip(norms) {
        *n = norm(row);
        let inverse = 1.0 / (*n + NORM_EPSILON);
        for v in row {
            *v = (f64::from(*v) * inverse) as f32;
        }
    }
}

/// Gradient with respect to `x` from the gradient `g` with respect to `u = unit(x)`, in place in `g`.
///
/// `‖x‖` has the gradient 0 at `x = 0`, as in PyTorch.
#[inline]
pub fn unit_backward(u: &[f32], norm: f64, g: &mut [f32]) {
    let shifted = norm + NORM_EPSILON;
    let along = if norm > 0.0 {
        dot(u, g) * shifted / norm
    } else {
        0.0
    };
    for (g, &u) in g.iter_mut().zip(u) {
        *g = ((f64::from(*g) - f64::from(u) * along) / shifted) as f32;
    }
}
