//! The empirical quantile that keeps its promise for the next good image.

use super::{ThresholdError, check_rate, sorted};

/// The threshold that at most a share `max_false_alarm` of further good images reaches.
///
/// It lies just above the `⌈(n + 1)(1 − rate)⌉`-th smallest score: if the next good image is drawn like these
/// n, the chance that it scores at or above the threshold is at most the rate (split conformal prediction;
/// Vovk et al. 2005). Where `rate < 1/(n + 1)` no sample of n can promise it, and the threshold is just above
/// the largest score.
///
/// # Errors
/// [`ThresholdError`] if there is no score, a score is not finite, or the rate is not between 0 and 1.
pub fn empirical_quantile(good: &[f64], max_false_alarm: f64) -> Result<f64, ThresholdError> {
    check_rate(max_false_alarm)?;
    Ok(of_sorted(&sorted("good", good)?, max_false_alarm))
}

/// The same for checked, ascending scores.
pub(super) fn of_sorted(good: &[f64], rate: f64) -> f64 {
    // how many of the n + 1 may be flagged: rounding may not turn 0.01 · 100 into 0.999…
    let flagged = ((good.len() + 1) as f64 * rate * (1.0 + 1e-12)).floor() as usize;
    let kept = (good.len() + 1 - flagged.min(good.len())).min(good.len());
    good[kept - 1].next_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rank_is_that_of_conformal_prediction() {
        let good: Vec<f64> = (1..=99).map(f64::from).collect();
        assert_eq!(empirical_quantile(&good, 0.01), Ok(99.0f64.next_up()));
        assert_eq!(empirical_quantile(&good, 0.05), Ok(95.0f64.next_up()));
        assert_eq!(empirical_quantile(&good, 0.001), Ok(99.0f64.next_up()));
        assert_eq!(empirical_quantile(&good, 0.999), Ok(1.0f64.next_up()));
        assert_eq!(empirical_quantile(&[3.0], 0.5), Ok(3.0f64.next_up()));
    }

    #[test]
    fn hostile_input_is_refused() {
        assert_eq!(
            empirical_quantile(&[], 0.1),
            Err(ThresholdError::NoScores { which: "good" })
        );
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(matches!(
                empirical_quantile(&[1.0], rate),
                Err(ThresholdError::Rate { .. })
            ));
        }
        assert!(matches!(
            empirical_quantile(&[1.0, f64::NAN], 0.1),
            Err(ThresholdError::NotFinite { index: 1, .. })
        ));
    }

    proptest! {
        /// Of n + 1 scores, leave each out in turn and set the threshold from the others: at most a share
        /// `rate` (but for what n cannot promise) of those left out is flagged. That is the promise, exactly.
        #[test]
        fn the_rate_holds_for_the_score_left_out(
            scores in prop::collection::vec(-20i32..20, 2..60), rate in 0.02f64..0.9,
        ) {
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let flagged = (0..scores.len()).filter(|&i| {
                let others: Vec<f64> =
                    scores.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| *s).collect();
                scores[i] >= empirical_quantile(&others, rate).unwrap()
            });
            let allowed = (rate * scores.len() as f64 * (1.0 + 1e-12)).floor().max(1.0);
            prop_assert!(flagged.count() as f64 <= allowed);
        }

        #[test]
        fn a_lower_rate_never_lowers_the_threshold(
            scores in prop::collection::vec(-1e6f64..1e6, 1..60), a in 0.001f64..0.999, b in 0.001f64..0.999,
        ) {
            let at = |rate| empirical_quantile(&scores, rate).unwrap();
            prop_assert!(at(a.min(b)) >= at(a.max(b)));
        }
    }
}
