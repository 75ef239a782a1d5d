//! The levels under the shared one, and how a checkpoint keeps them.

use flawtune_backbone::torch_file::{Tensor, Value};

use crate::adapt::state::{int, tensor};
use crate::adapt::{AdaptError, Adaptation, NamedTensor, PROMPT_SCALES, PROMPTS, Parameters};

/// The prompts of one defect type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeLevel {
    /// The type, a folder name such as `crack`.
    pub name: String,
    /// Shots of it that trained.
    pub shots: usize,
    /// `[K, D]`.
    pub prompts: Vec<f32>,
    /// `[K]`.
    pub scales: Vec<f32>,
    /// Mean and standard deviation of the cosine of each prompt to the patches of good images, `[K]`.
    pub cosines: Vec<(f32, f32)>,
    /// Mean and standard deviation of the type's response to good images.
    pub response: (f64, f64),
    /// Response, in those standard deviations, that takes an image to this level: more than any shot of another type gets.
    pub bar: f64,
}

/// The levels of all known types; the shared one is the checkpoint's own adaptation.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    /// By type, in the order of their names.
    pub levels: Vec<TypeLevel>,
    /// Share of the good images that stay at the shared level by [`Self::bar`].
    pub bar_share: f64,
    /// Response (in standard deviations of good images) that any type needs to take an image from the shared level.
    pub bar: f64,
}

impl TypeLevel {
    /// Number of its prompts, K.
    pub fn count(&self) -> usize {
        self.scales.len()
    }

    /// The shared adaptation with this type's prompts beside its own.
    ///
    /// # Errors
    /// [`AdaptError::Shape`] if the prompts are of another width.
    pub fn adaptation(&self, shared: &Adaptation) -> Result<Adaptation, AdaptError> {
        let mut parameters = Parameters::new();
        for t in shared.parameters() {
            let (more, width): (&[f32], Option<usize>) = match t.name.as_str() {
                PROMPTS => (&self.prompts, Some(shared.dim())),
                PROMPT_SCALES => (&self.scales, None),
                _ => {
                    parameters.push(&t.name, &t.shape, t.data.clone())?;
                    continue;
                }
            };
            let count = t.shape[0] + self.count();
            let shape: Vec<usize> = std::iter::once(count).chain(width).collect();
            parameters.push(&t.name, &shape, [&t.data, more].concat())?;
        }
        Adaptation::from_parameters(shared.options().clone(), &parameters)
    }

    fn to_value(&self, dim: usize) -> Value {
        let of = |name: &str, shape: &[usize], data: &[f32]| {
            tensor(&NamedTensor {
                name: name.to_owned(),
                shape: shape.to_vec(),
                data: data.to_vec(),
            })
        };
        let k = self.count();
        let pairs: Vec<f32> = self
            .cosines
            .iter()
            .flat_map(|&(mean, sd)| [mean, sd])
            .collect();
        Value::dict([
            ("shots", int(self.shots)),
            (PROMPTS, of(PROMPTS, &[k, dim], &self.prompts)),
            (PROMPT_SCALES, of(PROMPT_SCALES, &[k], &self.scales)),
            ("cosines", of("cosines", &[k, 2], &pairs)),
            ("response_mean", Value::Float(self.response.0)),
            ("response_sd", Value::Float(self.response.1)),
            ("bar", Value::Float(self.bar)),
        ])
    }

    fn from_value(name: &str, value: &Value, dim: usize) -> Result<Self, String> {
        let of = |key: &str, shape: &[usize]| -> Result<Vec<f32>, String> {
            let found = value
                .get(key)
                .and_then(Value::as_tensor)
                .filter(|t| t.shape == shape);
            let values = found
                .map(Tensor::to_f32)
                .ok_or_else(|| format!("types.{name}.{key}"))?;
            if values.iter().all(|v| v.is_finite()) {
                Ok(values)
            } else {
                Err(format!("types.{name}.{key}"))
            }
        };
        let number = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_f64)
                .filter(|v| v.is_finite())
                .ok_or_else(|| format!("types.{name}.{key}"))
        };
        let scales = value.get(PROMPT_SCALES).and_then(Value::as_tensor);
        let k = scales
            .filter(|t| t.shape.len() == 1)
            .map_or(0, |t| t.shape[0]);
        if k == 0 {
            return Err(format!("types.{name}.{PROMPT_SCALES}"));
        }
        Ok(Self {
            name: name.to_owned(),
            shots: value
                .get("shots")
                .and_then(Value::as_usize)
                .ok_or_else(|| format!("types.{name}.shots"))?,
            prompts: of(PROMPTS, &[k, dim])?,
            scales: of(PROMPT_SCALES, &[k])?,
            cosines: of("cosines", &[k, 2])?
                .chunks_exact(2)
                .map(|p| (p[0], p[1]))
                .collect(),
            response: (number("response_mean")?, number("response_sd")?),
            bar: number("bar")?,
        })
    }
}

impl Hierarchy {
    /// Its key in a checkpoint. A program that does not know it scores by the shared prompts, which is what every image
    /// falls back to.
    pub const KEY: &'static str = "hierarchy";

    /// Numbers trained in the levels.
    pub fn count(&self) -> usize {
        self.levels
            .iter()
            .map(|l| l.prompts.len() + l.scales.len())
            .sum()
    }

    /// As a value of a torch file.
    pub fn to_value(&self, dim: usize) -> Value {
        Value::dict([
            (
                "types",
                Value::dict(
                    self.levels
                        .iter()
                        .map(|l| (l.name.clone(), l.to_value(dim))),
                ),
            ),
            ("bar_share", Value::Float(self.bar_share)),
            ("bar", Value::Float(self.bar)),
        ])
    }

    /// From a value of a torch file, for prompts of `dim` numbers; an error is the key that is missing or wrong.
    ///
    /// # Errors
    /// The path of the key, such as `types.crack.prompts`.
    pub fn from_value(value: &Value, dim: usize) -> Result<Self, String> {
        let number = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_f64)
                .ok_or_else(|| key.to_owned())
        };
        let types = value
            .get("types")
            .and_then(Value::as_dict)
            .ok_or_else(|| "types".to_owned())?;
        let mut levels = Vec::new();
        for (name, level) in types {
            let name = name.as_str().ok_or_else(|| "types".to_owned())?;
            levels.push(TypeLevel::from_value(name, level, dim)?);
        }
        if levels.is_empty() {
            return Err("types".to_owned());
        }
        Ok(Self {
            levels,
            bar_share: number("bar_share")?,
            bar: number("bar")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::AdaptationOptions;

    fn level(name: &str) -> TypeLevel {
        TypeLevel {
            name: name.to_owned(),
            shots: 2,
            prompts: vec![1.0, 2.0, 3.0, 4.0],
            scales: vec![0.5],
            cosines: vec![(0.25, 0.125)],
            response: (1.5, 0.5),
            bar: 6.5,
        }
    }

    #[test]
    fn a_level_is_the_shared_prompts_and_its_own() {
        let options = AdaptationOptions {
            num_prompts: 2,
            seed: 3,
            ..Default::default()
        };
        let shared = Adaptation::new(options, 4).unwrap();
        let made = level("crack").adaptation(&shared).unwrap();
        let of = |a: &Adaptation, name: &str| a.parameters().get(name).unwrap().clone();
        assert_eq!(of(&made, PROMPTS).shape, [3, 4]);
        assert_eq!(of(&made, PROMPTS).data[..8], of(&shared, PROMPTS).data);
        assert_eq!(of(&made, PROMPTS).data[8..], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(of(&made, PROMPT_SCALES).data, [0.1, 0.1, 0.5]);
    }

    #[test]
    fn a_checkpoint_gives_back_what_it_was_given() {
        let made = Hierarchy {
            levels: vec![level("crack"), level("hole")],
            bar_share: 0.95,
            bar: 1.75,
        };
        assert_eq!(Hierarchy::from_value(&made.to_value(4), 4).unwrap(), made);
        assert_eq!(made.count(), 10);
        // a width that is not the prompts'
        assert_eq!(
            Hierarchy::from_value(&made.to_value(4), 3).unwrap_err(),
            "types.crack.prompts"
        );
        assert_eq!(
            Hierarchy::from_value(&Value::Dict(Vec::new()), 4).unwrap_err(),
            "types"
        );
    }
}
