//! The options of `flawtune train` for training inside the transformer, as the library wants them.

use flawtune_backbone::vjp::{DEFAULT_ADAPTER_DIM, PromptDepth};
use flawtune_lab::adapt::inside::{InsideOptions, PromptInit};

use flawtune_lab::workflow::Preset;

use crate::args::TrainArgs;
use crate::failure::Failure;

/// Epochs unless told otherwise; an epoch is one step then, of about three forward passes of the batch.
pub(super) const EPOCHS: u32 = 60;
/// Epochs without a better hold-out before training stops; it is measured every tenth.
pub(super) const PATIENCE: u32 = 30;

/// What is asked for inside the transformer; `None`: nothing, the output alone is trained.
pub(super) fn options(args: &TrainArgs) -> Result<Option<InsideOptions>, Failure> {
    let a = &args.inside;
    let asked = InsideOptions {
        prompt_depth: a.prompt_depth,
        num_prompts: args.num_prompts as usize,
        adapter_dim: a
            .use_adapters
            .then(|| a.adapter_dim.map_or(DEFAULT_ADAPTER_DIM, |r| r as usize)),
        scaling: args.learn_scaling,
        prompt_dropout: a.prompt_dropout as f32,
        prompt_init: a.prompt_init,
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
    if args.preset == Preset::Original {
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
