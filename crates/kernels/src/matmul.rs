//! General f32 matrix products on row-major slices.

/// Whether an operand is read as stored or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// As stored.
    None,
    /// Transposed.
    Transpose,
}

/// `c = op(a) · op(b)` (`+ c` when `accumulate`), `op(a)` is `[m, k]`, `op(b)` is `[k, n]`, `c` is `[m, n]`; all
/// row-major and dense as stored. Each element is summed in ascending `k`, so the result does not depend
/// on the number of threads.
///
/// # Panics
/// If a slice is not as long as its shape says.
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    c: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(a.len(), m * k);
    assert_eq!(b.len(), k * n);
    assert_eq!(c.len(), m * n);
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0f32;
            for t in 0..k {
                let x = if op_a == Op::None { a[i * k + t] } else { a[t * m + i] };
                let y = if op_b == Op::None { b[t * n + j] } else { b[j * k + t] };
                sum = x.mul_add(y, sum);
            }
            let out = &mut c[i * n + j];
            *out = if accumulate { *out + sum } else { sum };
        }
    }
}
