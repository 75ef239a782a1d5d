//! Thresholds from good images and defects.

use super::{Rule, Threshold, ThresholdError, check_rate, sorted};

/// How many of the ascending `scores` are at or above `threshold`.
fn reached(scores: &[f64], threshold: f64) -> usize {
    scores.len() - scores.partition_point(|s| *s < threshold)
}

/// The threshold with the largest F1 for the class "flaw", the lowest among equals. Candidates are the
/// scores themselves, as in scikit-learn's `precision_recall_curve`.
///
/// # Errors
/// [`ThresholdError`] if either class has no score, or a score is not finite.
pub fn f1_max(good: &[f64], defects: &[f64]) -> Result<Threshold, ThresholdError> {
    let (good, defects) = (sorted("good", good)?, sorted("defect", defects)?);
    let (mut best, mut value) = ((0, 1, 0), defects[0]);
    // between two defects' scores recall stays and precision only falls, but an equal F1 has to be found at
    // its lowest threshold, so good scores are candidates too
    let mut candidates: Vec<f64> = good.iter().chain(&defects).copied().collect();
    candidates.sort_by(f64::total_cmp);
    candidates.dedup();
    for candidate in candidates {
        let hits = reached(&defects, candidate);
        let flagged = hits + reached(&good, candidate);
        // F1 = 2 hits / (flagged + defects); compared as fractions, so that equal is equal
        let (numerator, denominator) = (hits as u128, (flagged + defects.len()) as u128);
        if numerator * best.1 > best.0 * denominator {
            best = (numerator, denominator, flagged);
            value = candidate;
        }
    }
    let rule = Rule::F1Max {
        f1: 2.0 * best.0 as f64 / best.1 as f64,
        precision: best.0 as f64 / best.2 as f64,
        recall: best.0 as f64 / defects.len() as f64,
    };
    Ok(Threshold {
        value,
        rule,
        good,
        defects,
    })
}

/// The lowest threshold at which at most a share `max_false_alarm` of the good scores is flagged, and the
/// recall it reaches. It is a defect's or good image's score, or just above the largest good score.
///
/// # Errors
/// [`ThresholdError`] if either class has no score, a score is not finite, or the rate is not between 0 and 1.
pub fn recall_at(
    good: &[f64],
    defects: &[f64],
    max_false_alarm: f64,
) -> Result<Threshold, ThresholdError> {
    check_rate(max_false_alarm)?;
    let (good, defects) = (sorted("good", good)?, sorted("defect", defects)?);
    let allowed = (good.len() as f64 * max_false_alarm * (1.0 + 1e-12)).floor() as usize;
    // just above the largest good score that must not be flagged
    let value = good[good.len() - 1 - allowed.min(good.len() - 1)].next_up();
    let rule = Rule::RecallAt {
        max_false_alarm,
        false_alarm: reached(&good, value) as f64 / good.len() as f64,
        recall: reached(&defects, value) as f64 / defects.len() as f64,
    };
    Ok(Threshold {
        value,
        rule,
        good,
        defects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn f1_and_recall_on_a_small_case() {
        let (good, defects) = ([0.1, 0.2, 0.35, 0.5], [0.3, 0.4, 0.6, 0.7]);
        // at 0.3: 4 of 4 defects, 2 of 4 good: F1 = 8/10; at 0.4: 3 and 1: 6/8; at 0.6: 2 and 0: 4/6
        let best = f1_max(&good, &defects).unwrap();
        assert_eq!(best.value, 0.3);
        assert_eq!(
            best.rule,
            Rule::F1Max {
                f1: 0.8,
                precision: 4.0 / 6.0,
                recall: 1.0
            }
        );
        let quarter = recall_at(&good, &defects, 0.25).unwrap();
        assert_eq!(quarter.value, 0.35f64.next_up());
        assert_eq!(
            quarter.rule,
            Rule::RecallAt {
                max_false_alarm: 0.25,
                false_alarm: 0.25,
                recall: 0.75
            }
        );
        let none = recall_at(&good, &defects, 0.1).unwrap();
        assert_eq!(
            none.rule,
            Rule::RecallAt {
                max_false_alarm: 0.1,
                false_alarm: 0.0,
                recall: 0.5
            }
        );
    }

    #[test]
    fn equal_f1_takes_the_lowest_threshold() {
        // 0.2: 2 hits of 4 flagged, 4/6; 0.8: 1 hit of 1 flagged, 2/3
        let tie = f1_max(&[0.3, 0.3], &[0.2, 0.8]).unwrap();
        assert_eq!(tie.value, 0.2);
    }

    #[test]
    fn both_classes_are_needed() {
        assert!(matches!(
            f1_max(&[], &[1.0]),
            Err(ThresholdError::NoScores { which: "good" })
        ));
        assert!(matches!(
            f1_max(&[1.0], &[]),
            Err(ThresholdError::NoScores { which: "defect" })
        ));
    }

    proptest! {
        #[test]
        fn no_other_threshold_does_better(
            good in prop::collection::vec(0i32..12, 1..30), defects in prop::collection::vec(4i32..16, 1..30),
            rate in 0.01f64..0.99,
        ) {
            let good: Vec<f64> = good.into_iter().map(f64::from).collect();
            let defects: Vec<f64> = defects.into_iter().map(f64::from).collect();
            let share = |scores: &[f64], t: f64| {
                scores.iter().filter(|s| **s >= t).count() as f64 / scores.len() as f64
            };
            let Rule::F1Max { f1, .. } = f1_max(&good, &defects).unwrap().rule else { unreachable!() };
            let chosen = recall_at(&good, &defects, rate).unwrap();
            let Rule::RecallAt { recall, false_alarm, .. } = chosen.rule else { unreachable!() };
            prop_assert!(false_alarm <= rate + 1e-9);
            for half in 0..36 {
                let t = f64::from(half) / 2.0;
                let (hits, alarms) = (share(&defects, t) * defects.len() as f64, share(&good, t) * good.len() as f64);
                prop_assert!(2.0 * hits / (hits + alarms + defects.len() as f64) <= f1 + 1e-12);
                prop_assert!(share(&good, t) > rate || share(&defects, t) <= recall);
            }
        }
    }
}
