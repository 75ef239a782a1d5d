//! Thresholds on scores: from good images alone, or from good images and defects.
//!
//! A score at or above the threshold is a flaw. From good images alone (their leave-one-out scores), the
//! threshold is set for a wanted false-alarm rate by [`from_good`]: an empirical quantile where the sample
//! reaches that far, an extreme-value fit of its tail where it does not. With defects there are [`f1_max`]
//! and [`recall_at`]. [`Calibration`] turns raw scores into probabilities; it never changes their order, and
//! metrics are always taken on raw scores.

mod calibration;
mod labelled;
mod quantile;
mod tail;
mod trade_off;

pub use calibration::Calibration;
pub use labelled::{f1_max, recall_at};
pub use quantile::empirical_quantile;
pub use tail::{Pareto, TailError, TailFit};
pub use trade_off::{RATES, TradeOff, finding, trade_offs};

use serde::{Deserialize, Serialize};

/// Share of good images that may be called flawed, unless another is asked for.
pub const DEFAULT_FALSE_ALARMS: f64 = 0.01;

/// How a threshold was chosen, with what the rule found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Rule {
    /// The empirical quantile of the good scores.
    Quantile {
        /// The false-alarm rate asked for.
        max_false_alarm: f64,
        /// The lowest rate that this many good images can promise, 1/(n + 1). If it is above the rate asked
        /// for, the threshold is just above the largest good score and promises only this.
        reachable: f64,
        /// Why the extreme-value fit was not used, where it was asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        fallback: Option<String>,
    },
    /// A generalised Pareto fit of the good scores' tail.
    ExtremeValue {
        /// The false-alarm rate asked for.
        max_false_alarm: f64,
        /// The fit.
        tail: TailFit,
    },
    /// The largest F1 of the class "flaw"; the lowest threshold among equals.
    F1Max {
        /// The F1 reached on the scores it was chosen from.
        f1: f64,
        /// Share of flagged images that are defects.
        precision: f64,
        /// Share of defects that are flagged.
        recall: f64,
    },
    /// The lowest threshold whose false-alarm rate on the good scores is at most the one asked for.
    RecallAt {
        /// The false-alarm rate asked for.
        max_false_alarm: f64,
        /// The rate reached on the good scores it was chosen from.
        false_alarm: f64,
        /// Share of defects that are flagged.
        recall: f64,
    },
    /// A person gave it.
    Given,
}

/// A threshold with everything it was chosen from, so that it can be checked and chosen again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Scores at or above it are flaws.
    pub value: f64,
    /// How it was chosen.
    #[serde(flatten)]
    pub rule: Rule,
    /// The good images' scores it was chosen from, ascending.
    pub good: Vec<f64>,
    /// Scores of defects that took no part in scoring themselves, ascending: it was chosen from them by a rule that uses defects, and
    /// is judged by them otherwise.
    pub defects: Vec<f64>,
}

impl Threshold {
    /// Whether an image with this score is called a flaw. NaN is: an image that cannot be scored must not
    /// pass as good.
    pub fn is_flaw(&self, score: f64) -> bool {
        score.is_nan() || score >= self.value
    }
}

/// Which rule [`from_good`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The quantile where the sample reaches the rate (`rate · (n + 1) ≥ 1`), else the extreme-value fit.
    #[default]
    Auto,
    /// The empirical quantile.
    Quantile,
    /// The extreme-value fit, or the quantile if the tail cannot be fitted.
    ExtremeValue,
}

/// A threshold for a wanted false-alarm rate from good images alone.
///
/// `good` are scores of good images that took no part in scoring themselves (leave-one-out). The rate is
/// what the rule aims at for a further good image of the same kind; read what it can promise in [`Rule`].
///
/// # Errors
/// [`ThresholdError`] if there is no score, a score is not finite, or the rate is not between 0 and 1.
pub fn from_good(
    good: &[f64],
    max_false_alarm: f64,
    method: Method,
) -> Result<Threshold, ThresholdError> {
    check_rate(max_false_alarm)?;
    let good = sorted("good", good)?;
    let reachable = 1.0 / (good.len() as f64 + 1.0);
    let fit = match method {
        Method::Quantile => None,
        Method::Auto if max_false_alarm >= reachable => None,
        Method::Auto | Method::ExtremeValue => Some(TailFit::new(&good)),
    };
    let (value, rule) = match fit {
        Some(Ok(tail)) if max_false_alarm < tail.share() => (
            tail.quantile(max_false_alarm),
            Rule::ExtremeValue {
                max_false_alarm,
                tail,
            },
        ),
        other => {
            let fallback = match other {
                Some(Err(why)) => Some(why.to_string()),
                Some(Ok(_)) => Some(
                    "the rate asked for lies in the body of the scores, not in their tail".into(),
                ),
                None => None,
            };
            let value = quantile::of_sorted(&good, max_false_alarm);
            (
                value,
                Rule::Quantile {
                    max_false_alarm,
                    reachable,
                    fallback,
                },
            )
        }
    };
    Ok(Threshold {
        value,
        rule,
        good,
        defects: Vec::new(),
    })
}

/// Why no threshold could be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThresholdError {
    /// No scores.
    #[error(
        "no scores of {which} images to choose a threshold from\nhint: give at least one such image"
    )]
    NoScores {
        /// `good` or `defect`.
        which: &'static str,
    },
    /// A score that is not a number.
    #[error("score {index} of the {which} images is {value}; scores must be finite numbers")]
    NotFinite {
        /// `good` or `defect`.
        which: &'static str,
        /// Position in the slice given.
        index: usize,
        /// The score.
        value: f64,
    },
    /// A rate outside of what a rate can be.
    #[error("a false-alarm rate of {rate} is not between 0 and 1 (both excluded)")]
    Rate {
        /// What was given.
        rate: f64,
    },
}

fn check_rate(rate: f64) -> Result<(), ThresholdError> {
    if rate > 0.0 && rate < 1.0 {
        Ok(())
    } else {
        Err(ThresholdError::Rate { rate })
    }
}

fn sorted(which: &'static str, scores: &[f64]) -> Result<Vec<f64>, ThresholdError> {
    if scores.is_empty() {
        return Err(ThresholdError::NoScores { which });
    }
    if let Some((index, &value)) = scores.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(ThresholdError::NotFinite {
            which,
            index,
            value,
        });
    }
    let mut ascending = scores.to_vec();
    ascending.sort_by(f64::total_cmp);
    Ok(ascending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Scores like those of good images: right-skewed, the sum of three squares of uniforms.
    fn draw(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
        let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| (0..3).map(|_| unit().powi(2)).sum())
            .collect()
    }

    #[test]
    fn a_wanted_rate_is_met_on_unseen_good_scores() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let unseen = draw(&mut rng, 200_000);
        for (n, rate, method) in [
            (100, 0.01, Method::Auto),
            (300, 0.01, Method::Auto),
            (300, 0.01, Method::ExtremeValue),
            (100, 0.001, Method::Auto),
            (300, 0.001, Method::Auto),
        ] {
            let mut mean = 0.0;
            for _ in 0..100 {
                let t = from_good(&draw(&mut rng, n), rate, method).unwrap();
                mean += unseen.iter().filter(|s| t.is_flaw(**s)).count() as f64
                    / unseen.len() as f64
                    / 100.0;
            }
            // the quantile keeps its promise on average; the fit's mean is ruled by the few low thresholds
            let factor = if rate < 0.01 { 3.0 } else { 1.3 };
            assert!(
                mean < factor * rate && mean > rate / 3.0,
                "{n} scores, {rate}, {method:?}: {mean}"
            );
        }
    }

    #[test]
    fn the_rule_depends_on_how_far_the_sample_reaches() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let good = draw(&mut rng, 150);
        let body = from_good(&good, 0.01, Method::Auto).unwrap();
        assert!(matches!(body.rule, Rule::Quantile { fallback: None, .. }));
        let beyond = from_good(&good, 0.001, Method::Auto).unwrap();
        assert!(matches!(beyond.rule, Rule::ExtremeValue { .. }) && beyond.value > body.value);
        let short = from_good(&good[..12], 0.001, Method::Auto).unwrap();
        let Rule::Quantile {
            reachable,
            fallback: Some(why),
            ..
        } = &short.rule
        else {
            panic!("{short:?}")
        };
        assert!(
            (reachable - 1.0 / 13.0).abs() < 1e-15 && why.contains("needs 40"),
            "{why}"
        );
        assert!(!short.is_flaw(short.good[11]) && short.is_flaw(f64::NAN));
    }

    #[test]
    fn a_threshold_survives_json_to_the_last_bit() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (good, defects) = (draw(&mut rng, 60), draw(&mut rng, 5));
        for t in [
            from_good(&good, 0.001, Method::Auto).unwrap(),
            from_good(&good, 0.05, Method::Quantile).unwrap(),
            f1_max(&good, &defects).unwrap(),
            recall_at(&good, &defects, 0.1).unwrap(),
        ] {
            let text = serde_json::to_string(&t).unwrap();
            assert_eq!(
                serde_json::from_str::<Threshold>(&text).unwrap(),
                t,
                "{text}"
            );
        }
    }
}
