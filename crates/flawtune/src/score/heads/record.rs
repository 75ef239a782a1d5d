//! What a checkpoint keeps of an [`Ensemble`]: the shots and what was found with them.
//!
//! The model of the normal images is fitted again from train/good, as a bank is filled again; the same evidence
//! gives the same ensemble to the last bit. So the record holds 2 D + 1 numbers a shot and one a normal image, not a
//! correlation of 2 D × 2 D.

use flawtune_backbone::torch_file::{Tensor, Value};

use super::{Ensemble, EnsembleOptions, Evidence, Guard, HeadError};

fn int(v: usize) -> Value {
    Value::Int(v as i64)
}

/// A 64-bit word: the same bits as a signed integer.
fn word(v: u64) -> Value {
    Value::Int(v.cast_signed())
}

/// The ensemble as a checkpoint keeps it, under the key [`EnsembleRecord::KEY`].
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleRecord {
    /// Blocks whose tokens it looks at; they may differ from those the prompts were trained on.
    pub layers: Vec<i32>,
    /// How it was made.
    pub options: EnsembleOptions,
    /// Evidence of the shots.
    pub shots: Vec<Evidence>,
    /// [`Evidence::bank`] of each normal image, in the split's order.
    pub normal_banks: Vec<f64>,
    /// Hash over those normal images: whether `normal_banks` still holds.
    pub normals_hash: String,
    /// What cross-validation over the shots said.
    pub guard: Guard,
    /// Numbers trained on the shots.
    pub trainable: usize,
}

impl EnsembleRecord {
    /// Its key in a checkpoint.
    pub const KEY: &'static str = "ensemble";

    /// Fits the ensemble again to evidence of the normal images; with `guard` off it never falls back.
    ///
    /// # Errors
    /// As [`Ensemble::fit`].
    pub fn fit(&self, normals: &[Evidence], guard: bool) -> Result<Ensemble, HeadError> {
        let options = EnsembleOptions {
            guard: self.options.guard && guard,
            ..self.options.clone()
        };
        Ensemble::fit(normals, &self.shots, &options)
    }

    /// As a value of a torch file: plain numbers, text and one tensor.
    pub fn to_value(&self) -> Value {
        let width = self.shots.first().map_or(0, |s| s.features.len());
        let features: Vec<f32> = self
            .shots
            .iter()
            .flat_map(|s| s.features.iter().copied())
            .collect();
        let optional = |v: Option<f64>| v.map_or(Value::None, Value::Float);
        let o = &self.options;
        Value::dict([
            (
                "layers",
                Value::List(
                    self.layers
                        .iter()
                        .map(|&l| Value::Int(i64::from(l)))
                        .collect(),
                ),
            ),
            ("shrinkage", Value::Float(o.shrinkage)),
            ("penalty", Value::Float(o.penalty)),
            ("full_weight", Value::Float(o.full_weight)),
            ("half_weight_shots", Value::Float(o.half_weight_shots)),
            ("folds", int(o.folds)),
            ("guard", Value::Bool(o.guard)),
            ("seed", word(o.seed)),
            (
                "shot_features",
                Value::Tensor(Tensor::from_f32([self.shots.len(), width], &features)),
            ),
            (
                "shot_banks",
                Value::List(self.shots.iter().map(|s| optional(s.bank)).collect()),
            ),
            (
                "normal_banks",
                Value::floats(self.normal_banks.iter().copied()),
            ),
            ("normals_hash", Value::Str(self.normals_hash.clone())),
            ("trainable", int(self.trainable)),
            ("guard_zero_shot", optional(self.guard.zero_shot)),
            ("guard_adapted", optional(self.guard.adapted)),
            ("guard_standard_error", optional(self.guard.standard_error)),
            ("guard_fallback", Value::Bool(self.guard.fallback)),
        ])
    }

    /// From a value of a torch file.
    ///
    /// # Errors
    /// The name of the key that is missing or has another type.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let get = |key: &str| value.get(key).ok_or_else(|| key.to_owned());
        let number = |key: &str| get(key)?.as_f64().ok_or_else(|| key.to_owned());
        let count = |key: &str| get(key)?.as_usize().ok_or_else(|| key.to_owned());
        let truth = |key: &str| get(key)?.as_bool().ok_or_else(|| key.to_owned());
        let optional = |v: &Value| match v {
            Value::None => Some(None),
            v => v.as_f64().map(Some),
        };
        let maybe = |key: &str| optional(get(key)?).ok_or_else(|| key.to_owned());
        let layer = |v: &Value| v.as_i64().and_then(|l| i32::try_from(l).ok());
        let layers = get("layers")?
            .as_list()
            .and_then(|l| l.iter().map(layer).collect())
            .ok_or("layers")?;
        let banks: Vec<Option<f64>> = get("shot_banks")?
            .as_list()
            .and_then(|l| l.iter().map(optional).collect())
            .ok_or("shot_banks")?;
        let features = get("shot_features")?.as_tensor().ok_or("shot_features")?;
        let &[shots, width] = &features.shape[..] else {
            return Err("shot_features".into());
        };
        if shots != banks.len() || (shots > 0 && width == 0) {
            return Err("shot_features".into());
        }
        let features = features.to_f32();
        let shots = banks
            .into_iter()
            .zip(features.chunks_exact(width.max(1)))
            .map(|(bank, features)| Evidence {
                features: features.to_vec(),
                bank,
            })
            .collect();
        Ok(Self {
            layers,
            options: EnsembleOptions {
                shrinkage: number("shrinkage")?,
                penalty: number("penalty")?,
                full_weight: number("full_weight")?,
                half_weight_shots: number("half_weight_shots")?,
                folds: count("folds")?,
                guard: truth("guard")?,
                seed: get("seed")?.as_i64().ok_or("seed")?.cast_unsigned(),
            },
            shots,
            normal_banks: get("normal_banks")?.to_f64s().ok_or("normal_banks")?,
            normals_hash: get("normals_hash")?
                .as_str()
                .ok_or("normals_hash")?
                .to_owned(),
            guard: Guard {
                zero_shot: maybe("guard_zero_shot")?,
                adapted: maybe("guard_adapted")?,
                standard_error: maybe("guard_standard_error")?,
                fallback: truth("guard_fallback")?,
            },
            trainable: count("trainable")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shots: usize) -> EnsembleRecord {
        let shot = |i: usize| Evidence {
            features: (0..6)
                .map(|j| (i * 7 + j * 3) as f32 * 0.37 - 1.0)
                .collect(),
            bank: (i != 1).then_some(0.1 + i as f64 / 3.0),
        };
        EnsembleRecord {
            layers: vec![8, -1],
            options: EnsembleOptions {
                seed: u64::MAX - 5,
                ..EnsembleOptions::default()
            },
            shots: (0..shots).map(shot).collect(),
            normal_banks: vec![0.25, 1.0 / 3.0, 0.1],
            normals_hash: "abc".into(),
            guard: Guard {
                zero_shot: Some(0.7),
                adapted: Some(0.6),
                standard_error: None,
                fallback: true,
            },
            trainable: 769,
        }
    }

    #[test]
    fn a_record_comes_back_to_the_last_bit() {
        for shots in [0, 1, 3] {
            let before = record(shots);
            assert_eq!(EnsembleRecord::from_value(&before.to_value()), Ok(before));
        }
    }

    #[test]
    fn a_damaged_record_names_the_key() {
        let Value::Dict(entries) = record(2).to_value() else {
            panic!("not a dictionary")
        };
        for (key, _) in &entries {
            let name = key.as_str().unwrap();
            let missing = entries.iter().filter(|(k, _)| k != key).cloned().collect();
            assert_eq!(
                EnsembleRecord::from_value(&Value::Dict(missing)).unwrap_err(),
                name
            );
            let wrong = entries.iter().map(|(k, v)| {
                (
                    k.clone(),
                    if k == key {
                        Value::Bytes(vec![1])
                    } else {
                        v.clone()
                    },
                )
            });
            assert_eq!(
                EnsembleRecord::from_value(&Value::Dict(wrong.collect())).unwrap_err(),
                name
            );
        }
    }
}
