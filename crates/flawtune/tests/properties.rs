//! What must hold of metrics whatever was scored.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune::evaluate::metrics::{auroc, average_precision, confusion_at, f1_max};
use proptest::prelude::*;

/// Labels with both classes, and scores with ties.
fn scored() -> impl Strategy<Value = (Vec<bool>, Vec<f64>)> {
    let one = (any::<bool>(), -8i32..8);
    proptest::collection::vec(one, 2..60)
        .prop_map(|list| {
            let (labels, scores): (Vec<bool>, Vec<i32>) = list.into_iter().unzip();
            let scores = scores.into_iter().map(|s| f64::from(s) / 4.0).collect();
            (labels, scores)
        })
        .prop_filter("one class only", |(labels, _)| {
            labels.contains(&true) && labels.contains(&false)
        })
}

proptest! {
    /// Mann and Whitney: the part of the pairs in which the defect has the larger score, ties counting half.
    #[test]
    fn auroc_is_the_part_of_the_pairs_that_are_in_order((labels, scores) in scored()) {
        let of = |class: bool| {
            let both = labels.iter().zip(&scores);
            both.filter(|(l, _)| **l == class).map(|(_, s)| *s).collect::<Vec<f64>>()
        };
        let (good, defects) = (of(false), of(true));
        let twice: usize = defects
            .iter()
            .flat_map(|d| good.iter().map(move |g| 2 * usize::from(d > g) + usize::from(d == g)))
            .sum();
        let wanted = twice as f64 / (2.0 * good.len() as f64 * defects.len() as f64);
        prop_assert_eq!(auroc(&labels, &scores).unwrap(), Some(wanted));
    }

    #[test]
    fn only_the_order_counts((labels, scores) in scored()) {
        let grown: Vec<f64> = scores.iter().map(|s| s.exp()).collect();
        prop_assert_eq!(auroc(&labels, &scores).unwrap(), auroc(&labels, &grown).unwrap());
        let (a, b) = (average_precision(&labels, &scores), average_precision(&labels, &grown));
        prop_assert_eq!(a.unwrap(), b.unwrap());
        let turned: Vec<f64> = scores.iter().map(|s| -s).collect();
        let (up, down) = (auroc(&labels, &scores).unwrap(), auroc(&labels, &turned).unwrap());
        prop_assert!((up.unwrap() + down.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn average_precision_lies_between_nothing_and_one((labels, scores) in scored()) {
        let defects = labels.iter().filter(|l| **l).count();
        let found = average_precision(&labels, &scores).unwrap();
        prop_assert!(found > 0.0 && found <= 1.0);
        if auroc(&labels, &scores).unwrap() == Some(1.0) {
            prop_assert_eq!(found, 1.0);
        }
        prop_assert!(found >= 1.0 / labels.len() as f64 / defects as f64);
    }

    /// No threshold has a larger F1 than the one that is called the largest.
    #[test]
    fn f1_max_is_the_largest((labels, scores) in scored()) {
        let largest = f1_max(&labels, &scores).unwrap();
        for &threshold in &scores {
            let c = confusion_at(&labels, &scores, threshold).unwrap();
            let (tp, wrong) = (c.true_positives as f64, (c.false_positives + c.false_negatives) as f64);
            prop_assert!(2.0 * tp / (2.0 * tp + wrong) <= largest.f1 + 1e-12);
        }
    }
}
