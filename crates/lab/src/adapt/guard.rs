//! Whether trained prompts may change a score: what images that did not train said, and what to do about it.

use flawtune_backbone::torch_file::Value;
use serde::{Deserialize, Serialize};

use super::TrainState;
use super::state::int;

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Trained again without each part of the shots; the part left out was measured.
    CrossValidation,
    /// The hold-out that chose the epoch.
    HoldOut,
    /// Too few shots to leave one out.
    Nothing,
}

impl Evidence {
    fn name(self) -> &'static str {
        match self {
            Self::CrossValidation => "cross-validation",
            Self::HoldOut => "hold-out",
            Self::Nothing => "nothing",
        }
    }
}

/// The hold-out of one fold: training without a part of the shots, measured on that part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// Shots left out.
    pub shots: usize,
    /// The metric before training.
    pub zero_shot: f64,
    /// Epoch and the metric after it, where it was measured.
    pub epochs: Vec<(usize, f64)>,
}

/// The verdict on trained prompts, made without a test image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PromptGuard {
    /// What it rests on.
    pub evidence: Evidence,
    /// Parts of the cross-validation; 0 without.
    pub folds: usize,
    /// The epoch that did best.
    pub epoch: Option<usize>,
    /// The metric on left-out images without adaptation.
    pub zero_shot: Option<f64>,
    /// The metric on left-out images after that epoch.
    pub adapted: Option<f64>,
    /// Standard error of the difference, from its scatter over the folds.
    pub standard_error: Option<f64>,
    /// Whether scores fall back to zero-shot: no gain was seen, or (cross-validated) none larger than its standard error.
    pub fallback: bool,
}

impl PromptGuard {
    /// Its key in a checkpoint.
    pub const KEY: &'static str = "prompt_guard";

    /// Of the folds of a cross-validation: the epoch with the highest mean metric over the left-out shots, and whether its gain
    /// exceeds its standard error. `None` without folds, or if they were not measured after the same epochs.
    ///
    /// Folds count by the shots they leave out. With one fold there is no standard error and any gain will do.
    pub fn of_folds(folds: &[Fold]) -> Option<Self> {
        let total: f64 = folds.iter().map(|f| f.shots as f64).sum();
        let weighted = |value: &dyn Fn(&Fold) -> f64| -> f64 {
            folds.iter().map(|f| f.shots as f64 * value(f)).sum::<f64>() / total
        };
        let epochs: Vec<usize> = folds.first()?.epochs.iter().map(|e| e.0).collect();
        if folds.iter().any(|f| {
            f.epochs.len() != epochs.len() || f.epochs.iter().zip(&epochs).any(|(a, b)| a.0 != *b)
        }) {
            return None;
        }
        let mut best: Option<(usize, f64)> = None;
        for at in 0..epochs.len() {
            let mean = weighted(&|f| f.epochs[at].1);
            if best.is_none_or(|(_, b)| mean > b) {
                best = Some((at, mean));
            }
        }
        let (at, adapted) = best?;
        let zero_shot = weighted(&|f| f.zero_shot);
        let gain = adapted - zero_shot;
        let standard_error = (folds.len() > 1).then(|| {
            let spread = weighted(&|f| (f.epochs[at].1 - f.zero_shot - gain).powi(2));
            (spread / (folds.len() - 1) as f64).sqrt()
        });
        Some(Self {
            evidence: Evidence::CrossValidation,
            folds: folds.len(),
            epoch: Some(epochs[at]),
            zero_shot: Some(zero_shot),
            adapted: Some(adapted),
            standard_error,
            fallback: gain <= standard_error.unwrap_or(0.0),
        })
    }

    /// Of the hold-out that chose the epoch; [`Evidence::Nothing`] and a fallback if there was none.
    pub fn of_training(state: &TrainState) -> Self {
        let (best, zero_shot) = (state.best.as_ref(), state.zero_shot_hold_out);
        let evidence = if best.is_some() {
            Evidence::HoldOut
        } else {
            Evidence::Nothing
        };
        let adapted = best.map(|b| b.metric);
        Self {
            evidence,
            folds: 0,
            epoch: best.map(|b| b.epoch),
            zero_shot,
            adapted,
            standard_error: None,
            fallback: !adapted
                .zip(zero_shot)
                .is_some_and(|(after, before)| after > before),
        }
    }

    /// As a value of a torch file.
    pub fn to_value(&self) -> Value {
        let optional = |v: Option<f64>| v.map_or(Value::None, Value::Float);
        Value::dict([
            ("evidence", Value::from(self.evidence.name())),
            ("folds", int(self.folds)),
            ("epoch", self.epoch.map_or(Value::None, int)),
            ("zero_shot", optional(self.zero_shot)),
            ("adapted", optional(self.adapted)),
            ("standard_error", optional(self.standard_error)),
            ("fallback", Value::Bool(self.fallback)),
        ])
    }

    /// From a value of a torch file.
    ///
    /// # Errors
    /// The name of the key that is missing or has another type.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let get = |key: &str| value.get(key).ok_or_else(|| key.to_owned());
        let optional = |key: &str| match get(key)? {
            Value::None => Ok(None),
            v => v.as_f64().map(Some).ok_or_else(|| key.to_owned()),
        };
        let all = [
            Evidence::CrossValidation,
            Evidence::HoldOut,
            Evidence::Nothing,
        ];
        let name = get("evidence")?.as_str();
        Ok(Self {
            evidence: all
                .into_iter()
                .find(|e| Some(e.name()) == name)
                .ok_or("evidence")?,
            folds: get("folds")?.as_usize().ok_or("folds")?,
            epoch: match get("epoch")? {
                Value::None => None,
                v => Some(v.as_usize().ok_or("epoch")?),
            },
            zero_shot: optional("zero_shot")?,
            adapted: optional("adapted")?,
            standard_error: optional("standard_error")?,
            fallback: get("fallback")?.as_bool().ok_or("fallback")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(shots: usize, zero_shot: f64, after: [f64; 2]) -> Fold {
        Fold {
            shots,
            zero_shot,
            epochs: vec![(10, after[0]), (20, after[1])],
        }
    }

    #[test]
    fn the_best_epoch_counts_shots_and_a_gain_must_exceed_its_error() {
        let found =
            PromptGuard::of_folds(&[fold(2, 0.7, [0.8, 0.9]), fold(1, 0.7, [0.7, 0.6])]).unwrap();
        // means .767 and .8; the gain of .1 scatters by ± .2 and ∓ .1
        assert_eq!(found.epoch, Some(20));
        assert!((found.adapted.unwrap() - 0.8).abs() < 1e-12);
        let spread: f64 = (2.0 * 0.1f64.powi(2) + 0.2f64.powi(2)) / 3.0;
        assert!((found.standard_error.unwrap() - spread.sqrt()).abs() < 1e-12);
        assert!(found.fallback);
        let steady =
            PromptGuard::of_folds(&[fold(2, 0.7, [0.8, 0.79]), fold(2, 0.6, [0.71, 0.7])]).unwrap();
        assert_eq!((steady.epoch, steady.fallback), (Some(10), false));
        assert!(
            PromptGuard::of_folds(&[fold(2, 0.7, [0.7, 0.7]), fold(2, 0.6, [0.6, 0.6])])
                .unwrap()
                .fallback
        );
    }

    #[test]
    fn folds_that_were_measured_at_other_epochs_are_no_evidence() {
        let other = Fold {
            shots: 2,
            zero_shot: 0.5,
            epochs: vec![(10, 0.6)],
        };
        assert_eq!(
            PromptGuard::of_folds(&[fold(2, 0.7, [0.8, 0.9]), other]),
            None
        );
        assert_eq!(PromptGuard::of_folds(&[]), None);
    }

    #[test]
    fn a_checkpoint_gives_it_back() {
        let found =
            PromptGuard::of_folds(&[fold(2, 0.7, [0.8, 0.9]), fold(1, 0.7, [0.7, 0.6])]).unwrap();
        assert_eq!(PromptGuard::from_value(&found.to_value()), Ok(found));
        let nothing = PromptGuard {
            evidence: Evidence::Nothing,
            folds: 0,
            epoch: None,
            zero_shot: None,
            adapted: None,
            standard_error: None,
            fallback: true,
        };
        assert_eq!(PromptGuard::from_value(&nothing.to_value()), Ok(nothing));
        assert_eq!(
            PromptGuard::from_value(&Value::dict([("evidence", Value::from("hope"))])),
            Err("evidence".into())
        );
    }
}
