//! What options came to that nobody set, for the record: a later version may choose otherwise.

use clap::ValueEnum;
use flawtune::record::OptionSource;
use flawtune::workflow::{BackboneOptions, Fitted};
use flawtune_lab::adapt::Loss;
use flawtune_lab::workflow::TrainRequest;
use serde_json::{Value, json};

use crate::args::FitArgs;
use crate::recording::InForce;

/// Of `train`: of the preset, of training inside the transformer, of the backbone.
pub(super) fn train(request: &TrainRequest) -> InForce {
    let training = &request.training;
    let mut all = backbone(&request.backbone);
    let mut of_preset = |name, value: Value| all.push((name, OptionSource::Preset, value));
    of_preset("num-epochs", json!(training.epochs));
    of_preset("patience", json!(training.patience.unwrap_or(0)));
    of_preset("grad-clip", json!(training.clip_norm.unwrap_or(0.0)));
    of_preset("holdout-fraction", json!(request.split.holdout_fraction));
    of_preset("epoch", name(&training.epoch_steps));
    of_preset("protocol", name(&request.split.protocol.name()));
    // inside the transformer, naming a modulation asks for one
    if request.inside.is_none() {
        of_preset("modulation-type", name(&request.adaptation.modulation));
        // as it was given, not as the nearest f32: 0.01 and not 0.009999999776
        let factor = request.adaptation.scaling_factor.to_string().parse::<f64>();
        of_preset("scaling-factor", factor.map_or(Value::Null, |f| json!(f)));
    }
    if training.scale_penalty.0 > 0.0 {
        all.push((
            "scaling-penalty",
            OptionSource::Default,
            json!(training.scale_penalty.0),
        ));
    }
    if let Some(width) = request
        .inside
        .as_ref()
        .and_then(|inside| inside.adapter_dim)
    {
        all.push(("adapter-dim", OptionSource::Default, json!(width)));
    }
    if let Loss::Scores(loss) = &training.loss {
        all.push((
            "loss-top-fraction",
            OptionSource::Default,
            json!(loss.top_fraction),
        ));
        all.push((
            "loss-temperature",
            OptionSource::Default,
            json!(loss.temperature),
        ));
    }
    all
}

/// Of `fit`; with a checkpoint the checkpoint says how images get into the backbone.
pub(super) fn fit(args: &FitArgs) -> InForce {
    if args.checkpoint.is_some() {
        return Vec::new();
    }
    let options = args.backbone.over(BackboneOptions::default());
    // which block depends on the backbone's depth, which shape on the sizes
    backbone(&options)
        .into_iter()
        .filter(|(name, ..)| !matches!(*name, "layers" | "resize"))
        .collect()
}

/// Of `fit`, once the backbone is known.
pub(super) fn fitted(args: &FitArgs, fitted: &Fitted) -> InForce {
    if args.checkpoint.is_some() {
        return Vec::new();
    }
    ["layers", "resize"]
        .map(|name| {
            (
                name,
                OptionSource::Default,
                fitted.header.backbone[name].clone(),
            )
        })
        .into()
}

/// One size as a number, several as a list.
fn sizes(options: &BackboneOptions) -> Value {
    if options.more_sizes.is_empty() {
        return json!(options.image_size);
    }
    let more = options.more_sizes.iter();
    json!(
        std::iter::once(&options.image_size)
            .chain(more)
            .collect::<Vec<_>>()
    )
}

/// Of the backbone.
pub(super) fn backbone(options: &BackboneOptions) -> InForce {
    let all: [(&'static str, Value); 6] = [
        ("image-size", sizes(options)),
        ("resize", name(&options.resize)),
        ("filter", name(&options.filter)),
        ("layers", json!(options.layers)),
        ("combine-layers", name(&options.combine_layers)),
        ("precision", name(&options.precision)),
    ];
    all.into_iter()
        .map(|(name, value)| (name, OptionSource::Default, value))
        .collect()
}

/// A value by the name it has on the command line.
fn name(value: &impl ValueEnum) -> Value {
    value
        .to_possible_value()
        .map_or(Value::Null, |v| json!(v.get_name()))
}
