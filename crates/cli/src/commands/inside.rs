//! The options of `flawtune train` for training inside the transformer, as the library wants them.

use flawtune_backbone::vjp::{DEFAULT_ADAPTER_DIM, PromptDepth, Scaling};
use flawtune_lab::adapt::inside::{InsideOptions, PromptInit};

use crate::args::{DepthArg, InitArg, PresetArg, ScalingArg, TrainArgs};
use crate::failure::Failure;

/// Epochs unless told otherwise; an epoch is one step then, of about three forward passes of the batch.
pub(super) const EPOCHS: u32 = 60;
/// Epochs without a better hold-out before training stops; it is measured every tenth.
pub(super) const PATIENCE: u32 = 30;

/// Which factors are learned.
pub(super) fn scaling(args: &TrainArgs) -> Scaling {
    match args.learn_scaling {
        ScalingArg::None => Scaling::Fixed,
        ScalingArg::Scalar => Scaling::Scalar,
        ScalingArg::Channel => Scaling::Channel,
    }
}

/// What is asked for inside the transformer; `None`: nothing, the output alone is trained.
pub(super) fn options(args: &TrainArgs) -> Result<Option<InsideOptions>, Failure> {
    let a = &args.inside;
    let asked = InsideOptions {
        prompt_depth: match a.prompt_depth {
            DepthArg::Output => PromptDepth::Output,
            DepthArg::Shallow => PromptDepth::Shallow,
            DepthArg::Deep => PromptDepth::Deep,
        },
        num_prompts: args.num_prompts as usize,
        adapter_dim: a
            .use_adapters
            .then(|| a.adapter_dim.map_or(DEFAULT_ADAPTER_DIM, |r| r as usize)),
        scaling: scaling(args),
        prompt_dropout: a.prompt_dropout as f32,
        prompt_init: match a.prompt_init {
            InitArg::Xavier => PromptInit::Xavier,
            InitArg::Patches => PromptInit::Patches,
        },
        modulate_output: args.modulation_type.is_some(),
    };
    let plain = asked.prompt_depth == PromptDepth::Output
        && asked.adapter_dim.is_none()
        && asked.prompt_dropout == 0.0
        && asked.prompt_init == PromptInit::Xavier;
    if plain {
        return Ok(None);
    }
    asked.check().map_err(|e| Failure::from_error(&e))?;
    if args.preset == PresetArg::Original {
        return Err(Failure::Input(
            "--preset original trains prompts at the output only\nhint: omit it to train inside the transformer"
                .into(),
        ));
    }
    if args.scaling_factor.is_some() && !asked.modulate_output {
        return Err(Failure::Input(
            "--scaling-factor is that of the output modulation, which is not trained here\nhint: add --modulation-type, or \
             omit it"
                .into(),
        ));
    }
    Ok(Some(asked))
}
