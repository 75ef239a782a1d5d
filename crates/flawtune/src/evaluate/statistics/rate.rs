//! Shares of a count, with the interval of Wilson (JASA 22, 1927).

use serde::{Deserialize, Serialize};

/// The quantile of the normal distribution for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// How many of how many, and a 95 % interval of the share behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Images that were flagged.
    pub count: usize,
    /// Images looked at.
    pub of: usize,
    /// Their share.
    pub share: f64,
    /// Low end of the interval.
    pub low: f64,
    /// High end.
    pub high: f64,
}

impl Rate {
    /// `count` of `of`; `None` of none.
    pub fn new(count: usize, of: usize) -> Option<Self> {
        if of == 0 || count > of {
            return None;
        }
        let (n, share) = (of as f64, count as f64 / of as f64);
        let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half =
            Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self {
            count,
            of,
            share,
            low: (middle - half).max(0.0),
            high: (middle + half).min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        // the formula in Python, in f64
        for (count, of, low, high) in [
            (0, 100, 0.0, 0.036_993_50),
            (3, 200, 0.005_114_24, 0.043_165_73),
            (10, 10, 0.722_467_20, 1.0),
        ] {
            let rate = Rate::new(count, of).unwrap();
            assert!(
                (rate.low - low).abs() < 1e-7 && (rate.high - high).abs() < 1e-7,
                "{rate:?}"
            );
        }
        assert_eq!(Rate::new(0, 0), None);
    }
}
