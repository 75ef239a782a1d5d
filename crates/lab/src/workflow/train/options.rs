//! The options of a training as people give them, and what they come to.

// backticks would stand in what a terminal shows
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use flawtune::evaluate::protocol::{ProtocolName, SplitOptions};
use flawtune::score::heads::EnsembleOptions;
#[cfg(feature = "clap")]
use flawtune::values::{count, either, finite, not_negative, part, part_above_zero, positive};
use flawtune_backbone::torch_file::Value;
use flawtune_backbone::vjp::{DEFAULT_ADAPTER_DIM, PromptDepth, Scaling};

use super::super::{
    BackboneOptions, CategoryOptions, EnsembleFit, FrozenScores, TrainRequest, WorkflowError,
};
use crate::adapt::inside::{InsideOptions, PromptInit};
use crate::adapt::{
    AdaptationOptions, DEFAULT_MARGIN, EpochSteps, Loss, LossType, ModulationType, ScalePenalty,
    TrainOptions,
};
use crate::augment::Augmentation;

/// Epochs unless told otherwise, where only the output is trained.
const EPOCHS: usize = 100;
/// The same inside the transformer; an epoch is one step then, of about three forward passes of the batch.
const EPOCHS_INSIDE: usize = 60;
/// Epochs inside the transformer without a better hold-out before training stops; it is measured every tenth.
const PATIENCE_INSIDE: usize = 30;
/// Prompts of each defect type, unless told otherwise.
const TYPE_PROMPTS: usize = 3;

/// Whole sets of defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Preset {
    /// What measured best on held-out data
    #[default]
    Default,
    /// The original recipe to the letter: global, 0.01, leaky, one step an epoch, last epoch kept
    Original,
}

/// What the presets differ in.
struct Defaults {
    modulation: ModulationType,
    scaling_factor: f64,
    protocol: ProtocolName,
    epoch: EpochSteps,
    patience: usize,
    grad_clip: f64,
    holdout_fraction: f64,
    ensemble: bool,
    guard: bool,
}

impl Preset {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Original => "original",
        }
    }

    fn defaults(self) -> Defaults {
        match self {
            Self::Default => Defaults {
                modulation: ModulationType::LearnedTransform,
                scaling_factor: 1.0,
                protocol: ProtocolName::HeldOut,
                epoch: EpochSteps::FullPass,
                patience: 10,
                grad_clip: 1.0,
                holdout_fraction: 0.2,
                ensemble: true,
                guard: true,
            },
            Self::Original => Defaults {
                modulation: ModulationType::Global,
                scaling_factor: 0.01,
                protocol: ProtocolName::Leaky,
                epoch: EpochSteps::One,
                patience: 0,
                grad_clip: 0.0,
                holdout_fraction: 0.0,
                ensemble: false,
                guard: false,
            },
        }
    }
}

/// Which further prompts stand beside the shared ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum HierarchyChoice {
    /// Shared prompts only
    #[default]
    None,
    /// Prompts for each defect type among the shots, by its folder's name
    Type,
}

/// What is trained inside the transformer.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(
    feature = "clap",
    command(
        next_help_heading = "Inside the transformer (every step runs through the backbone: seconds, not milliseconds)"
    )
)]
pub struct TrainingInside {
    /// Where prompts enter; with shallow or deep, --modulation-type trains an output modulation on top
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "DEPTH", value_enum, default_value_t)
    )]
    pub prompt_depth: PromptDepth,
    /// Bottleneck adapters after every block
    #[cfg_attr(feature = "clap", arg(long))]
    pub use_adapters: bool,
    /// Inner width of the adapters [default: 6: 54K numbers in all on ViT-S]
    #[cfg_attr(feature = "clap", arg(long, value_name = "R", requires = "use_adapters", value_parser = count(1..=4096)))]
    pub adapter_dim: Option<usize>,
    /// Probability that a prompt is left out in a training step
    #[cfg_attr(feature = "clap", arg(long, value_name = "P", default_value_t = 0.0, value_parser = not_negative))]
    pub prompt_dropout: f64,
    /// First values of the prompts
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "HOW", value_enum, default_value_t)
    )]
    pub prompt_init: PromptInit,
}

/// The ensemble fitted beside the prompts.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct TrainingEnsemble {
    /// Fit no ensemble beside the prompts [the original preset fits none]
    #[cfg_attr(feature = "clap", arg(long, conflicts_with = "ensemble_layers"))]
    pub no_ensemble: bool,
    /// Blocks the ensemble looks at, from 0 [default: the one at three quarters of the depth]
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "LIST",
            value_delimiter = ',',
            allow_hyphen_values = true
        )
    )]
    pub ensemble_layers: Option<Vec<i32>>,
    /// Use what was learned from the defects even where images left out of training show no gain by it
    #[cfg_attr(feature = "clap", arg(long))]
    pub no_guard: bool,
}

/// The options of a training; [`Self::request`] says what they come to for a category.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct TrainingOptions {
    /// Where the checkpoint and history are written
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", default_value_os_t = Self::default().output_dir))]
    pub output_dir: PathBuf,
    /// A whole set of defaults; a flag given beside it wins
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", value_enum, default_value_t)
    )]
    pub preset: Preset,
    /// Number of prompts
    #[cfg_attr(feature = "clap", arg(long, value_name = "K", default_value_t = Self::default().num_prompts, value_parser = count(1..=4096)))]
    pub num_prompts: usize,
    /// Defect images to train on (shots)
    #[cfg_attr(feature = "clap", arg(long, value_name = "M", default_value_t = Self::default().num_defect_samples, value_parser = count(1..)))]
    pub num_defect_samples: usize,
    /// Epochs at the most [default: 100; inside the transformer 60 of one step, minutes at 224 pixels]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", value_parser = count(1..)))]
    pub num_epochs: Option<usize>,
    /// Learning rate at the start; a cosine takes it to a hundredth
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", default_value_t = Self::default().learning_rate, value_parser = positive))]
    pub learning_rate: f64,
    /// Training objective
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "LOSS", value_enum, default_value_t)
    )]
    pub loss_type: LossType,
    /// Margin of the contrastive loss
    #[cfg_attr(feature = "clap", arg(long, value_name = "COSINE", default_value_t = DEFAULT_MARGIN, value_parser = finite))]
    pub margin: f64,
    /// Part of an image's patches, the oddest, that the ranking and logistic losses look at
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", value_parser = part_above_zero))]
    pub loss_top_fraction: Option<f64>,
    /// Difference of patch distances that the ranking and logistic losses count as one
    #[cfg_attr(feature = "clap", arg(long, value_name = "DISTANCE", value_parser = positive))]
    pub loss_temperature: Option<f64>,
    /// Whether the ranking and logistic losses look for the flaw of a shot under its ground-truth mask only, where it has one
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHEN", default_value = "off", action = clap::ArgAction::Set,
        value_parser = either(["auto", "off"], "auto")))]
    pub shot_masks: bool,
    /// Train on and compare class tokens instead of patch tokens
    #[cfg_attr(feature = "clap", arg(long))]
    pub use_cls: bool,
    /// Images a step, of each kind
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().batch_size, value_parser = count(1..)))]
    pub batch_size: usize,
    /// How prompts change features [default: by preset]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TYPE"))]
    pub modulation_type: Option<ModulationType>,
    /// How strongly (α in the formulas of docs/reference/method.md) [default: by preset]
    #[cfg_attr(feature = "clap", arg(long, value_name = "ALPHA", value_parser = finite))]
    pub scaling_factor: Option<f64>,
    /// Who trains and who is tested [default: held-out; leaky with --preset original]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub protocol: Option<ProtocolName>,
    /// With --protocol hard: the defect type the shots come from
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TYPE", required_if_eq("protocol", "hard"))
    )]
    pub defect_type: Option<String>,
    /// Test defects reserved for training; they leave the test set [default: 20, 10 of fewer than 40 defects, half of 10 and fewer]
    #[cfg_attr(feature = "clap", arg(long, value_name = "P", value_parser = count(..)))]
    pub pool_size: Option<usize>,
    /// What one epoch is [default: full; one with --preset original and inside the transformer]
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub epoch: Option<EpochSteps>,
    /// Stop after this many epochs without a better hold-out; 0 never stops early [default: 10; 30 inside
    /// the transformer; 0 with original]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", value_parser = count(..)))]
    pub patience: Option<usize>,
    /// Part of the good images, and from five shots on a fifth of the shots, that choose the epoch instead of training;
    /// 0 trains on everything and keeps the last epoch [default: 0.2; original: 0]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", value_parser = part))]
    pub holdout_fraction: Option<f64>,
    /// More views of the shots that train: flips, rotations, photometric, synthetic (defects pasted on good images),
    /// or none; they are written to <category>_views in the output folder
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "LIST",
            value_delimiter = ',',
            default_value = "none"
        )
    )]
    #[allow(rustdoc::invalid_html_tags)]
    pub augment_defects: Vec<String>,
    /// Train again this many times without a part of the shots, to choose the epoch and to judge whether the prompts help;
    /// 0: the hold-out does both
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().guard_folds, value_parser = count(0..=20)))]
    pub guard_folds: usize,
    /// Clip the gradient's norm to this; 0 does not clip [default: 1; 0 with original]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NORM", value_parser = not_negative))]
    pub grad_clip: Option<f64>,
    /// Learn how strongly: factors on what the output modulation adds, and on prompts and adapters inside the transformer
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "HOW", value_enum, default_value_t)
    )]
    pub learn_scaling: Scaling,
    /// Pull of every learned scale to where it starts, λ of λ · mean (scale / start − 1)² [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "LAMBDA", value_parser = not_negative))]
    pub scaling_penalty: Option<f64>,
    /// Prompts for each known defect type beside the shared ones: 'evaluate' names the type of a flaw and scores it there
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "HOW",
            value_enum,
            default_value_t,
            conflicts_with = "use_cls"
        )
    )]
    pub hierarchy: HierarchyChoice,
    /// Prompts a type, at most, with --hierarchy type [default: 3]
    #[cfg_attr(feature = "clap", arg(long, value_name = "K", value_parser = count(1..=256)))]
    pub type_prompts: Option<usize>,
    /// The ensemble.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub ensemble: TrainingEnsemble,
    /// Seed of everything random: the split, the start, the batches
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = Self::default().seed))]
    pub seed: u64,
    /// Start from the values of a checkpoint, such as one of 'flawtune meta-train', instead of random ones
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub init: Option<PathBuf>,
    /// Go on from the state that an interrupted run left in --output-dir
    #[cfg_attr(feature = "clap", arg(long))]
    pub resume: bool,
    /// Inside the transformer.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub inside: TrainingInside,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            output_dir: "outputs".into(),
            preset: Preset::default(),
            num_prompts: 10,
            num_defect_samples: 10,
            num_epochs: None,
            learning_rate: 1e-3,
            loss_type: LossType::default(),
            margin: DEFAULT_MARGIN,
            loss_top_fraction: None,
            loss_temperature: None,
            shot_masks: false,
            use_cls: false,
            batch_size: 16,
            modulation_type: None,
            scaling_factor: None,
            protocol: None,
            defect_type: None,
            pool_size: None,
            epoch: None,
            patience: None,
            holdout_fraction: None,
            augment_defects: vec!["none".into()],
            guard_folds: 0,
            grad_clip: None,
            learn_scaling: Scaling::default(),
            scaling_penalty: None,
            hierarchy: HierarchyChoice::default(),
            type_prompts: None,
            ensemble: TrainingEnsemble::default(),
            seed: 0,
            init: None,
            resume: false,
            inside: TrainingInside::default(),
        }
    }
}

impl TrainingOptions {
    /// What they come to, for these images and this backbone: what is not said is the preset's.
    ///
    /// # Errors
    /// Options that do not go together, each named.
    pub fn request(
        &self,
        data: CategoryOptions,
        backbone: BackboneOptions,
    ) -> Result<TrainRequest, WorkflowError> {
        let preset = self.preset.defaults();
        let protocol = self.protocol.unwrap_or(preset.protocol);
        let protocol = protocol.of_type(self.defect_type.as_deref())?;
        let inside = self.inside()?;
        let through = inside.is_some();
        let patience = self.patience.unwrap_or(if through {
            PATIENCE_INSIDE
        } else {
            preset.patience
        });
        let epochs = self
            .num_epochs
            .unwrap_or(if through { EPOCHS_INSIDE } else { EPOCHS });
        let clip = self.grad_clip.unwrap_or(preset.grad_clip);
        let scaling_factor = self.scaling_factor.unwrap_or(preset.scaling_factor);
        let epoch_steps = self.epoch.unwrap_or(if through {
            EpochSteps::One
        } else {
            preset.epoch
        });
        // asking for its layers asks for it
        let ensemble = !self.ensemble.no_ensemble
            && (preset.ensemble || self.ensemble.ensemble_layers.is_some());
        let args = self.of_recipe(&data.category, epochs, scaling_factor);
        Ok(TrainRequest {
            data,
            backbone,
            split: SplitOptions {
                protocol,
                pool: self.pool_size,
                holdout_fraction: self.holdout_fraction.unwrap_or(preset.holdout_fraction),
                ..SplitOptions::held_out(self.seed, self.num_defect_samples)
            },
            adaptation: AdaptationOptions {
                modulation: self.modulation_type.unwrap_or(preset.modulation),
                num_prompts: self.num_prompts,
                scaling_factor: scaling_factor as f32,
                use_cls: self.use_cls,
                residual_scaling: self.learn_scaling,
                seed: self.seed,
            },
            init: self.init.clone(),
            inside,
            training: TrainOptions {
                epochs,
                learning_rate: self.learning_rate,
                batch_size: self.batch_size,
                loss: self.loss()?,
                epoch_steps,
                clip_norm: (clip > 0.0).then_some(clip),
                scale_penalty: self.penalty()?,
                seed: self.seed,
                patience: (patience > 0).then_some(patience),
                ..TrainOptions::default()
            },
            augment_defects: self.augmentations()?,
            shot_masks: self.shot_masks()?,
            guard_folds: self.guard_folds,
            type_prompts: self.type_prompts()?,
            guard: !self.ensemble.no_guard && preset.guard,
            ensemble: ensemble.then(|| EnsembleFit {
                layers: self.ensemble.ensemble_layers.clone(),
                options: EnsembleOptions {
                    guard: !self.ensemble.no_guard,
                    seed: self.seed,
                    ..EnsembleOptions::default()
                },
            }),
            output_dir: self.output_dir.clone(),
            frozen: FrozenScores::default(),
            resume: self.resume,
            args,
        })
    }

    /// What is asked for inside the transformer; `None`: nothing, the output alone is trained.
    fn inside(&self) -> Result<Option<InsideOptions>, WorkflowError> {
        let inside = &self.inside;
        let adapter_dim = inside.adapter_dim.unwrap_or(DEFAULT_ADAPTER_DIM);
        let asked = InsideOptions {
            prompt_depth: inside.prompt_depth,
            num_prompts: self.num_prompts,
            adapter_dim: inside.use_adapters.then_some(adapter_dim),
            scaling: self.learn_scaling,
            prompt_dropout: inside.prompt_dropout as f32,
            prompt_init: inside.prompt_init,
            modulate_output: self.modulation_type.is_some(),
        };
        let plain = asked.prompt_depth == PromptDepth::Output
            && asked.adapter_dim.is_none()
            && asked.prompt_dropout == 0.0
            && asked.prompt_init == PromptInit::Xavier;
        if plain {
            return Ok(None);
        }
        asked.check()?;
        if self.preset == Preset::Original {
            return refused(
                "`preset` original trains prompts at the output only\nhint: omit it to train inside the transformer",
            );
        }
        if self.scaling_factor.is_some() && !asked.modulate_output {
            return refused(
                "`scaling_factor` is that of the output modulation, which is not trained here\nhint: add `modulation_type`, or \
                 omit it",
            );
        }
        Ok(Some(asked))
    }

    fn loss(&self) -> Result<Loss, WorkflowError> {
        let asked = [
            ("`loss_top_fraction`", self.loss_top_fraction.is_some()),
            ("`loss_temperature`", self.loss_temperature.is_some()),
        ];
        let mut loss = self.loss_type.with_margin(self.margin);
        if let Loss::Scores(of_scores) = &mut loss {
            of_scores.top_fraction = self.loss_top_fraction.unwrap_or(of_scores.top_fraction);
            of_scores.temperature = self.loss_temperature.unwrap_or(of_scores.temperature);
            of_scores.check()?;
        } else if let Some((option, _)) = asked.iter().find(|a| a.1) {
            return refused(&format!(
                "{option} belongs to `loss_type` ranking or logistic\nhint: add one of them, or omit it"
            ));
        }
        Ok(loss)
    }

    /// What holds learned scales near their start: by default only where learning them was asked for, so that trainings
    /// without stay as they were.
    fn penalty(&self) -> Result<ScalePenalty, WorkflowError> {
        match (self.learn_scaling, self.scaling_penalty) {
            (Scaling::Fixed, Some(_)) => refused(
                "`scaling_penalty` belongs to `learn_scaling` scalar or channel\nhint: add one of them, or omit it",
            ),
            (Scaling::Fixed, None) => Ok(ScalePenalty::default()),
            (_, given) => Ok(given.map_or(ScalePenalty::DEFAULT, ScalePenalty)),
        }
    }

    /// The augmentations named, each once, in their own order.
    fn augmentations(&self) -> Result<Vec<Augmentation>, WorkflowError> {
        let mut found = Vec::new();
        for name in self.augment_defects.iter().filter(|name| *name != "none") {
            found.push(name.parse().map_err(|e| {
                WorkflowError::Input(format!("`augment_defects`: {name:?} is unknown; {e}, none"))
            })?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether masks say where the flaws are, for losses and tokens that can be told so.
    fn shot_masks(&self) -> Result<bool, WorkflowError> {
        let wrong = [
            (
                matches!(
                    self.loss_type,
                    LossType::Separability | LossType::Contrastive
                ),
                "is for `loss_type` ranking or logistic, which compare patches with the normal ones\nhint: add one of them",
            ),
            (
                self.use_cls,
                "is for patches, and `use_cls` compares class tokens\nhint: omit one of them",
            ),
            (
                self.hierarchy == HierarchyChoice::Type,
                "says nothing to the prompts of `hierarchy`\nhint: omit one of them",
            ),
        ];
        match wrong.into_iter().find(|w| w.0) {
            Some((_, why)) if self.shot_masks => refused(&format!("`shot_masks` auto {why}")),
            _ => Ok(self.shot_masks),
        }
    }

    /// Prompts of each defect type, where a hierarchy is asked for.
    fn type_prompts(&self) -> Result<Option<usize>, WorkflowError> {
        match (self.hierarchy, self.type_prompts) {
            (HierarchyChoice::None, Some(_)) => {
                refused("`type_prompts` belongs to `hierarchy` type\nhint: add it, or omit it")
            }
            (HierarchyChoice::None, None) => Ok(None),
            (HierarchyChoice::Type, given) => Ok(Some(given.unwrap_or(TYPE_PROMPTS))),
        }
    }

    /// The options as the recipe's checkpoints hold them.
    fn of_recipe(&self, category: &str, epochs: usize, factor: f64) -> Vec<(String, Value)> {
        let int = |n: usize| Value::Int(n as i64);
        let all = [
            ("category", Value::from(category)),
            ("num_prompts", int(self.num_prompts)),
            ("num_defect_samples", int(self.num_defect_samples)),
            ("num_epochs", int(epochs)),
            ("learning_rate", Value::Float(self.learning_rate)),
            ("loss_type", Value::from(self.loss_type.name())),
            ("margin", Value::Float(self.margin)),
            ("shot_masks", Value::Bool(self.shot_masks)),
            ("use_cls", Value::Bool(self.use_cls)),
            ("use_adapters", Value::Bool(self.inside.use_adapters)),
            ("batch_size", int(self.batch_size)),
            (
                "augment_defects",
                Value::Str(self.augment_defects.join(",")),
            ),
            ("scaling_factor", Value::Float(factor)),
            ("preset", Value::from(self.preset.name())),
            ("flawtune_version", Value::from(env!("CARGO_PKG_VERSION"))),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

fn refused<T>(why: &str) -> Result<T, WorkflowError> {
    Err(WorkflowError::Input(why.to_owned()))
}

#[cfg(all(test, feature = "clap"))]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_line_without_options_is_the_default() {
        let command = TrainingOptions::augment_args(clap::Command::new("train"));
        let matches = command.try_get_matches_from(["train"]).unwrap();
        let parsed = TrainingOptions::from_arg_matches(&matches).unwrap();
        assert_eq!(parsed, TrainingOptions::default());
    }
}
