//! What is put into the transformer, and how it starts and trains.

use flawtune_backbone::config::VitConfig;
use flawtune_backbone::torch_file::Value;
use flawtune_backbone::vjp::{InsertionSpec, PromptDepth, Scaling};

use crate::adapt::state::int;
use crate::adapt::{AdaptError, AdaptationOptions, ModulationType};

/// First values of the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PromptInit {
    /// Uniform, bound √(6 / (K + D))
    #[default]
    Xavier,
    /// k-means centroids of the patches of normal images where the prompts enter
    Patches,
}

impl PromptInit {
    /// Name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xavier => "xavier",
            Self::Patches => "patches",
        }
    }
}

/// Name of a prompt depth on the command line and in checkpoints.
pub fn prompt_depth_name(depth: PromptDepth) -> &'static str {
    match depth {
        PromptDepth::Output => "output",
        PromptDepth::Shallow => "shallow",
        PromptDepth::Deep => "deep",
    }
}

/// Name of a kind of learned scaling on the command line and in checkpoints.
pub fn scaling_name(scaling: Scaling) -> &'static str {
    match scaling {
        Scaling::Fixed => "none",
        Scaling::Scalar => "scalar",
        Scaling::Channel => "channel",
    }
}

/// Which tensors are put into the transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct InsideOptions {
    /// Where prompts enter; `Output`: nowhere inside.
    pub prompt_depth: PromptDepth,
    /// Prompts per set, K.
    pub num_prompts: usize,
    /// Inner width r of an adapter after every block; `None`: no adapters.
    pub adapter_dim: Option<usize>,
    /// Learned factors on prompts and adapters.
    pub scaling: Scaling,
    /// Probability that a prompt is left out of a set for an image in a training step; those kept are multiplied by
    /// 1/(1 − p).
    pub prompt_dropout: f32,
    /// First values of the prompts.
    pub prompt_init: PromptInit,
    /// Whether an output modulation is trained on top, together with the inserted tensors.
    pub modulate_output: bool,
}

impl InsideOptions {
    /// The tensors in a backbone of this shape.
    pub fn spec(&self, config: &VitConfig) -> InsertionSpec {
        self.spec_of(config.dim, config.depth)
    }

    pub(super) fn spec_of(&self, dim: usize, depth: usize) -> InsertionSpec {
        InsertionSpec {
            dim,
            depth,
            prompt_depth: self.prompt_depth,
            prompts: if self.prompt_depth == PromptDepth::Output {
                0
            } else {
                self.num_prompts
            },
            adapter_dim: self.adapter_dim,
            adapter_up_bias: false,
            scaling: self.scaling,
        }
    }

    /// The adaptation of the output that goes with it: `options` where it is trained too, otherwise one that changes
    /// nothing (factor 0), so that a checkpoint always holds one.
    #[must_use]
    pub fn output(&self, options: &AdaptationOptions) -> AdaptationOptions {
        if self.modulate_output {
            return options.clone();
        }
        AdaptationOptions {
            modulation: ModulationType::PerPatch,
            num_prompts: 1,
            scaling_factor: 0.0,
            residual_scaling: Scaling::Fixed,
            ..options.clone()
        }
    }

    /// Whether prompts enter the transformer.
    pub fn has_prompts(&self) -> bool {
        self.prompt_depth != PromptDepth::Output
    }

    /// Checks that the options fit together.
    ///
    /// # Errors
    /// [`AdaptError::Option`], naming the option of the command line.
    pub fn check(&self) -> Result<(), AdaptError> {
        let wrong = |option, found: String, wanted: &str| {
            Err(AdaptError::Option {
                option,
                found,
                wanted: wanted.to_owned(),
            })
        };
        let needs_prompts =
            "it needs prompts inside the transformer: `prompt_depth` shallow or deep";
        let p = self.prompt_dropout;
        if !(0.0..1.0).contains(&p) {
            return wrong(
                "`prompt_dropout`",
                p.to_string(),
                "it is a probability from 0 to below 1",
            );
        }
        if !self.has_prompts() {
            if p > 0.0 {
                return wrong("`prompt_dropout`", p.to_string(), needs_prompts);
            }
            if self.prompt_init != PromptInit::Xavier {
                return wrong(
                    "`prompt_init`",
                    self.prompt_init.name().to_owned(),
                    needs_prompts,
                );
            }
            if self.adapter_dim.is_none() {
                if self.scaling != Scaling::Fixed {
                    let wanted = "there is nothing inside the transformer to scale\nhint: add `prompt_depth` shallow or deep, \
                                  or `use_adapters`";
                    return wrong(
                        "`learn_scaling`",
                        scaling_name(self.scaling).to_owned(),
                        wanted,
                    );
                }
                let wanted = "nothing is put into the transformer\nhint: add prompts or adapters";
                return wrong("`prompt_depth`", "output".to_owned(), wanted);
            }
        } else if self.num_prompts == 0 {
            return wrong(
                "`num_prompts`",
                "0".to_owned(),
                "use at least one, or `prompt_depth` output",
            );
        }
        if self.adapter_dim == Some(0) {
            return wrong(
                "`adapter_dim`",
                "0".to_owned(),
                "use at least 1, or leave out `use_adapters`",
            );
        }
        Ok(())
    }

    /// As a value of a torch file, for tensors in a backbone of `depth` blocks of `dim` numbers per token.
    pub(super) fn to_value(&self, dim: usize, depth: usize) -> Value {
        // through its shortest decimal form, as the scaling factor of checkpoints
        let dropout = self
            .prompt_dropout
            .to_string()
            .parse()
            .unwrap_or(f64::from(self.prompt_dropout));
        Value::dict([
            (
                "prompt_depth",
                Value::from(prompt_depth_name(self.prompt_depth)),
            ),
            ("num_prompts", int(self.num_prompts)),
            ("adapter_dim", self.adapter_dim.map_or(Value::None, int)),
            ("learn_scaling", Value::from(scaling_name(self.scaling))),
            ("prompt_dropout", Value::Float(dropout)),
            ("prompt_init", Value::from(self.prompt_init.name())),
            ("modulate_output", Value::Bool(self.modulate_output)),
            ("dim", int(dim)),
            ("depth", int(depth)),
        ])
    }

    /// From a value of a torch file, with the width and the depth of the backbone; an error is the key that is missing
    /// or wrong.
    pub(super) fn from_value(value: &Value) -> Result<(Self, usize, usize), String> {
        let wrong = |key: &str| key.to_owned();
        let count = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_usize)
                .ok_or_else(|| wrong(key))
        };
        let text = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| wrong(key))
        };
        let depths = [PromptDepth::Output, PromptDepth::Shallow, PromptDepth::Deep];
        let scalings = [Scaling::Fixed, Scaling::Scalar, Scaling::Channel];
        let inits = [PromptInit::Xavier, PromptInit::Patches];
        let prompt_depth = text("prompt_depth")?;
        let scaling = text("learn_scaling")?;
        let init = text("prompt_init")?;
        let options = Self {
            prompt_depth: depths
                .into_iter()
                .find(|d| prompt_depth_name(*d) == prompt_depth)
                .ok_or_else(|| wrong("prompt_depth"))?,
            num_prompts: count("num_prompts")?,
            adapter_dim: match value.get("adapter_dim") {
                Some(Value::None) => None,
                _ => Some(count("adapter_dim")?),
            },
            scaling: scalings
                .into_iter()
                .find(|s| scaling_name(*s) == scaling)
                .ok_or_else(|| wrong("learn_scaling"))?,
            prompt_dropout: value
                .get("prompt_dropout")
                .and_then(Value::as_f64)
                .ok_or_else(|| wrong("prompt_dropout"))? as f32,
            prompt_init: inits
                .into_iter()
                .find(|i| i.name() == init)
                .ok_or_else(|| wrong("prompt_init"))?,
            modulate_output: value
                .get("modulate_output")
                .and_then(Value::as_bool)
                .ok_or_else(|| wrong("modulate_output"))?,
        };
        options.check().map_err(|e| e.to_string())?;
        Ok((options, count("dim")?, count("depth")?))
    }
}
