//! Sums of weighted patches: the backward pass through best matches.

use crate::dispatch;
use crate::kernels::Kernels;

/// Weighted rows to add up, see [`add_weighted_rows`].
pub(crate) struct Pulls<'a> {
    /// All rows.
    pub(crate) rows: &'a [f32],
    /// Weight of each row, and where it starts in `rows`.
    pub(crate) pulls: &'a [(f32, usize)],
    /// What is added to, as long as a row.
    pub(crate) sum: &'a mut [f32],
}

/// `sum += Σ weight · rows[start..]` over the `(weight, start)` of `pulls`; a row is as long as `sum`.
///
/// Rows are added four at a time as `(w₀r₀ + w₁r₁) + (w₂r₂ + w₃r₃)`, every step rounded: reading and writing the sum costs more than
/// the products. The order depends on `pulls` only.
///
/// # Panics
/// If a row reaches past the end of `rows`.
pub fn add_weighted_rows(rows: &[f32], pulls: &[(f32, usize)], sum: &mut [f32]) {
    add_with(dispatch::active(), rows, pulls, sum);
}

fn add_with(kernels: &Kernels, rows: &[f32], pulls: &[(f32, usize)], sum: &mut [f32]) {
    // SAFETY: a table of kernels is handed out only where its instruction set is present; the kernel checks its indices.
    unsafe { (kernels.pulls)(Pulls { rows, pulls, sum }) };
}

/// Runs a [`Pulls`]; compiled once per instruction set, without fused multiply-adds.
#[inline(always)]
pub(crate) fn add_rows(p: Pulls<'_>) {
    let Pulls { rows, pulls, sum } = p;
    let len = sum.len();
    let mut fours = pulls.chunks_exact(4);
    for four in &mut fours {
        let (a, b) = (&rows[four[0].1..][..len], &rows[four[1].1..][..len]);
        let (c, d) = (&rows[four[2].1..][..len], &rows[four[3].1..][..len]);
        let (wa, wb, wc, wd) = (four[0].0, four[1].0, four[2].0, four[3].0);
        for i in 0..len {
            sum[i] += (wa * a[i] + wb * b[i]) + (wc * c[i] + wd * d[i]);
        }
    }
    for &(weight, start) in fours.remainder() {
        let row = &rows[start..][..len];
        for i in 0..len {
            sum[i] += weight * row[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;

    #[test]
    fn sums_have_the_bits_of_the_formula_on_every_instruction_set() {
        let (dim, count) = (37, 11);
        let rows: Vec<f32> = (0..count * dim)
            .map(|i| ((i * 2_654_435_761) % 1013) as f32 / 997.0 - 0.5)
            .collect();
        for n in [0, 1, 4, 6, 11] {
            let pulls: Vec<(f32, usize)> = (0..n)
                .map(|i| (0.1 + i as f32 / 7.0, (i * 5 % count) * dim))
                .collect();
            let mut wanted = vec![0.25f32; dim];
            for (i, sum) in wanted.iter_mut().enumerate() {
                let at = |p: usize| pulls[p].0 * rows[pulls[p].1 + i];
                for four in 0..n / 4 {
                    *sum +=
                        (at(4 * four) + at(4 * four + 1)) + (at(4 * four + 2) + at(4 * four + 3));
                }
                (n / 4 * 4..n).for_each(|p| *sum += at(p));
            }
            for kernels in Isa::available().filter_map(Isa::kernels) {
                let mut sum = vec![0.25; dim];
                add_with(kernels, &rows, &pulls, &mut sum);
                assert_eq!(sum, wanted, "{} {n}", kernels.isa);
            }
        }
    }
}
