//! What a threshold costs and what it finds, for several.

use serde::Serialize;

use super::{Method, ThresholdError, check_rate, from_good, sorted};
use crate::evaluate::statistics::Rate;

/// Shares of good images that are usually asked about; 0 is above every good image that is known.
pub const RATES: [f64; 6] = [0.0, 0.005, 0.01, 0.02, 0.05, 0.1];

/// One threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TradeOff {
    /// The share of good images that it is to stop, at most.
    pub false_alarms: f64,
    /// The threshold.
    pub threshold: f64,
    /// Good images that it stops, of those it was chosen from.
    pub stopped: Option<Rate>,
    /// Defects that it finds, of those that no part of the detector had seen; none where there are none.
    pub found: Option<Rate>,
}

/// Thresholds for [`RATES`], from scores of good images and of defects that took no part in scoring themselves.
///
/// # Errors
/// No good scores, scores that are not finite.
pub fn trade_offs(good: &[f64], defects: &[f64]) -> Result<Vec<TradeOff>, ThresholdError> {
    let ascending = sorted("good", good)?;
    let over = |scores: &[f64], threshold: f64| {
        Rate::new(
            scores.iter().filter(|s| **s >= threshold).count(),
            scores.len(),
        )
    };
    // a tail that was fitted can lie below a quantile of a larger share: fewer false alarms never lower the threshold
    let mut least = f64::NEG_INFINITY;
    let mut all = Vec::with_capacity(RATES.len());
    for &false_alarms in RATES.iter().rev() {
        let threshold = if false_alarms > 0.0 {
            from_good(good, false_alarms, Method::Auto)?.value
        } else {
            ascending[ascending.len() - 1].next_up()
        };
        least = least.max(threshold);
        all.push(TradeOff {
            false_alarms,
            threshold: least,
            stopped: over(good, least),
            found: over(defects, least),
        });
    }
    all.reverse();
    Ok(all)
}

/// The highest threshold that finds at least so large a share of the defects.
///
/// # Errors
/// No defects, scores that are not finite, a share that is not between 0 and 1.
pub fn finding(defects: &[f64], share: f64) -> Result<f64, ThresholdError> {
    check_rate(share)?;
    let ascending = sorted("defect", defects)?;
    let wanted = (share * ascending.len() as f64).ceil() as usize;
    Ok(ascending[ascending.len() - wanted.clamp(1, ascending.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_threshold_stops_and_finds_more() {
        let good: Vec<f64> = (0..400).map(f64::from).collect();
        let defects = [350.0, 398.0, 400.0, 900.0];
        let found = trade_offs(&good, &defects).unwrap();
        assert_eq!(found.len(), RATES.len());
        let count = |r: Option<Rate>| r.unwrap().count;
        assert_eq!((count(found[0].stopped), count(found[0].found)), (0, 2));
        for pair in found.windows(2) {
            assert!(pair[0].threshold >= pair[1].threshold);
            assert!(count(pair[0].found) <= count(pair[1].found));
        }
        let last = &found[RATES.len() - 1];
        // a further good image counts too: 10 % of 401 are 40, it among them
        assert_eq!(count(last.stopped), 39);
        assert_eq!(last.found.unwrap().share, 0.75);
        // 105 scores: the quantile for 1 % is their largest, the tail's for 0.5 % lies below it
        let few: Vec<f64> = (0..105)
            .map(|i| (f64::from(i) / 105.0).powi(3) * 3.0)
            .collect();
        for pair in trade_offs(&few, &[]).unwrap().windows(2) {
            assert!(pair[0].threshold >= pair[1].threshold);
        }
        assert_eq!(trade_offs(&good, &[]).unwrap()[0].found, None);
        assert!(trade_offs(&[], &[]).is_err());
    }

    #[test]
    fn a_share_of_the_defects_can_be_asked_for() {
        let defects = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(finding(&defects, 0.5).unwrap(), 3.0);
        assert_eq!(finding(&defects, 0.51).unwrap(), 2.0);
        assert_eq!(finding(&defects, 0.99).unwrap(), 1.0);
        assert!(finding(&[], 0.5).is_err() && finding(&defects, 1.5).is_err());
    }
}
