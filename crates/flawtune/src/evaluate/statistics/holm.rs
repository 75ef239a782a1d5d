//! Correction for testing many categories at once.

/// Holm's step-down correction: p-values adjusted so that calling those below α significant keeps the chance of any
/// false alarm below α (Holm, Scandinavian Journal of Statistics 6, 1979). Same order as given.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; count];
    let mut largest = 0.0f64;
    for (step, &at) in order.iter().enumerate() {
        largest = largest.max(p_values[at] * (count - step) as f64).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::holm;
    use crate::random::draws::{below, generator};

    /// The closed test that Holm's procedure is a shortcut for: every set of hypotheses that holds i is tested by
    /// Bonferroni, and the worst of them is i's adjusted p-value. Another algorithm, exponential in the count.
    fn closed_test(p: &[f64], i: usize) -> f64 {
        let sets = (0..1_usize << p.len()).filter(|set| set & (1 << i) != 0);
        let one = |set: usize| {
            let smallest = (0..p.len())
                .filter(|j| set & (1 << j) != 0)
                .map(|j| p[j])
                .fold(1.0, f64::min);
            (f64::from(set.count_ones()) * smallest).min(1.0)
        };
        sets.map(one).fold(0.0, f64::max)
    }

    #[test]
    fn equals_the_closed_test_over_all_sets() {
        let mut rng = generator(5, 0);
        for count in 1..=8 {
            for _ in 0..20 {
                // few distinct values, so that there are ties
                let p: Vec<f64> = (0..count)
                    .map(|_| (1 + below(&mut rng, 40)) as f64 / 160.0)
                    .collect();
                for (i, adjusted) in holm(&p).into_iter().enumerate() {
                    assert!(
                        (adjusted - closed_test(&p, i)).abs() < 1e-12,
                        "{p:?}, {i}: {adjusted}"
                    );
                }
            }
        }
    }

    #[test]
    fn adjusts_as_worked_out_by_hand() {
        // sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone: .02 .03 .06 .06
        let got = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (g, w) in got.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((g - w).abs() < 1e-15, "{got:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), vec![1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
