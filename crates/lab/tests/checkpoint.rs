//! Checkpoints: those of the recipe, our own, and files that are neither.

#![allow(clippy::unwrap_used)] // a test may stop

use std::path::Path;
use std::sync::atomic::AtomicBool;

use flawtune::features::{ImageTokens, TokenSet};
use flawtune_backbone::torch_file::{self, Tensor, Value};
use flawtune_lab::adapt::{
    AdaptError, Adaptation, AdaptationOptions, Checkpoint, INITIAL_PROMPT_SCALE, ModulationType,
    TrainData, TrainOptions, json, train,
};
use flawtune_testing::{golden, golden_json};

fn floats(tensor: &serde_json::Value) -> Vec<f32> {
    tensor["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect()
}

#[test]
fn every_golden_checkpoint_is_read() {
    let contents = golden_json("pt/contents.json");
    for (file, wanted) in contents.as_object().unwrap() {
        let found = Checkpoint::read(&golden("pt").join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.model_name, wanted["model_name"].as_str().unwrap());
        assert_eq!(found.category, wanted["category"].as_str().unwrap());
        assert_eq!(
            found.options.num_prompts,
            wanted["num_prompts"].as_u64().unwrap() as usize
        );
        assert_eq!(
            found.options.modulation.name(),
            wanted["modulation_type"].as_str().unwrap()
        );
        assert_eq!(
            found.options.scaling_factor,
            wanted["scaling_factor"].as_f64().unwrap() as f32
        );
        for (ours, theirs) in [("prompts", "prompts"), ("prompt_scales", "prompt_scales")] {
            assert_eq!(
                found.parameters.get(ours).unwrap().data,
                floats(&wanted[theirs]),
                "{file} {ours}"
            );
        }
        assert_eq!(json(&found.args), wanted["args"], "{file}");
        assert_eq!(json(&found.history), wanted["history"], "{file}");
        assert_eq!(
            (found.format_version, found.resume.is_some()),
            (None, false)
        );
        // the recipe's files hold no MLP: such a modulation cannot be built, the others can
        assert_eq!(
            found.adaptation().is_ok(),
            found.options.modulation != ModulationType::LearnedTransform
        );
    }
}

#[test]
fn a_file_with_the_recipes_keys_alone_gets_the_recipes_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bottle_prompts.pt");
    let prompts: Vec<f32> = (0..8).map(|i| i as f32 - 3.5).collect();
    let write = |args: Value| {
        let entries = [
            (
                "model_name",
                Value::from("facebook/dinov3-vits16-pretrain-lvd1689m"),
            ),
            ("category", Value::from("bottle")),
            ("num_prompts", Value::Int(2)),
            ("prompts", Value::Tensor(Tensor::from_f32([2, 4], &prompts))),
            ("history", Value::dict([("loss", Value::floats([1.0]))])),
            ("args", args),
        ];
        torch_file::write(&path, &Value::dict(entries)).unwrap();
        Checkpoint::read(&path).unwrap()
    };
    let found = write(Value::dict([("lr", Value::Float(1e-3))]));
    let o = &found.options;
    assert_eq!(
        (o.modulation, o.scaling_factor, o.use_cls),
        (ModulationType::Global, 0.01, false)
    );
    let adaptation = found.adaptation().unwrap();
    assert_eq!(
        adaptation.parameters().get("prompt_scales").unwrap().data,
        [INITIAL_PROMPT_SCALE; 2]
    );
    assert_eq!(
        adaptation.parameters().get("prompts").unwrap().data,
        prompts
    );
    let found = write(Value::dict([
        ("modulation_type", Value::from("per_patch")),
        ("scaling_factor", Value::Float(0.5)),
        ("use_cls", Value::Bool(true)),
    ]));
    let o = &found.options;
    assert_eq!(
        (o.modulation, o.scaling_factor, o.use_cls),
        (ModulationType::PerPatch, 0.5, true)
    );
}

fn trained(modulation: ModulationType) -> Checkpoint {
    let tokens = |count: usize, step: f32| {
        let image = |i| {
            ImageTokens::owned(
                (0..5 * 8)
                    .map(|j| ((i * 31 + j * 7) as f32 * step).sin())
                    .collect(),
                4,
                8,
            )
        };
        TokenSet {
            grid: (2, 2),
            dim: 8,
            images: (0..count).map(image).collect(),
        }
    };
    let (normals, defects) = (tokens(6, 0.11), tokens(3, 0.37));
    let options = AdaptationOptions {
        modulation,
        num_prompts: 3,
        scaling_factor: 0.1,
        ..Default::default()
    };
    let mut adaptation = Adaptation::new(options, 8).unwrap();
    let data = TrainData {
        normals: &normals,
        normal_indices: &[0, 1, 2, 3, 4, 5],
        defects: &defects,
        defect_indices: &[0, 1, 2],
        masks: &[],
    };
    let options = TrainOptions {
        epochs: 3,
        ..TrainOptions::default()
    };
    let outcome = train(
        &mut adaptation,
        &data,
        &options,
        None,
        &AtomicBool::new(false),
        &mut |_| {},
    )
    .unwrap();
    let mut c = Checkpoint::new("dinov3_vits16", "tile", &adaptation, outcome.state());
    c.weights_hash = Some("abc".to_owned());
    c.others.push((
        "head.weight".to_owned(),
        Value::Tensor(Tensor::from_f32([2], &[1.0, 2.0])),
    ));
    c.args = Value::dict([("num_epochs", Value::Int(3))]);
    c
}

#[test]
fn what_is_written_is_read_again() {
    for modulation in ModulationType::ALL {
        let folder = tempfile::tempdir().unwrap();
        let wanted = trained(modulation);
        let path = wanted.save(&folder.path().join("made/on/the/way")).unwrap();
        assert!(path.ends_with("tile_prompts.pt"));
        let found = Checkpoint::read(&path).unwrap();
        assert_eq!(found.to_value(), wanted.to_value());
        assert_eq!(found.options, wanted.options);
        assert_eq!(found.parameters, wanted.parameters);
        assert_eq!((found.best_epoch, found.format_version), (Some(3), Some(1)));
        assert_eq!(found.adaptation().unwrap().parameters(), &wanted.parameters);
        let history = std::fs::read(path.with_file_name("tile_history.json")).unwrap();
        let history: serde_json::Value = serde_json::from_slice(&history).unwrap();
        for key in ["loss", "separability", "mu_nn", "mu_nd", "learning_rate"] {
            assert_eq!(history[key].as_array().unwrap().len(), 3, "{key}");
        }
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 2, "no temporary file is left");
        // the same run gives the same bytes
        let again = trained(modulation)
            .save(&folder.path().join("again"))
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(again).unwrap());
    }
}

#[test]
fn another_backbone_is_refused() {
    let c = trained(ModulationType::PerPatch);
    let path = Path::new("tile_prompts.pt");
    c.check_backbone(path, "facebook/dinov3-vits16-pretrain-lvd1689m", 8)
        .unwrap();
    c.check_backbone(path, "my own", 8).unwrap();
    for (name, dim) in [("dinov3_vitb16", 8), ("dinov3_vits16", 384)] {
        let found = c.check_backbone(path, name, dim).unwrap_err();
        assert!(matches!(found, AdaptError::OtherBackbone { .. }));
        let text = found.to_string();
        assert!(
            text.contains("tile_prompts.pt") && text.contains("`model_name` dinov3_vits16"),
            "{text}"
        );
    }
}

#[test]
fn broken_checkpoints_name_the_key() {
    let good = trained(ModulationType::LearnedTransform).to_value();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    let refuse = |key: &str, value: Option<Value>, wanted: &str| {
        let mut entries = good.as_dict().unwrap().to_vec();
        entries.retain(|(k, _)| k.as_str() != Some(key));
        entries.extend(value.map(|v| (Value::from(key), v)));
        torch_file::write(&path, &Value::Dict(entries)).unwrap();
        let found = Checkpoint::read(&path).map(|c| c.adaptation());
        let text = match found {
            Err(e) | Ok(Err(e)) => e.to_string(),
            Ok(Ok(_)) => panic!("{key} was accepted"),
        };
        assert!(text.contains(wanted), "{key}: {text}");
    };
    refuse("prompts", None, "'prompts' is missing");
    refuse(
        "prompts",
        Some(Value::Int(3)),
        "'prompts' has the type integer, wanted a tensor",
    );
    refuse(
        "prompts",
        Some(Tensor::from_f32([6], &[0.0; 6]).into()),
        "[6]",
    );
    refuse(
        "prompts",
        Some(Tensor::from_f32([0, 8], &[]).into()),
        "[0, 8]",
    );
    refuse(
        "prompts",
        Some(Tensor::from_f32([2, 8], &[0.0; 16]).into()),
        "num_prompts",
    );
    refuse(
        "prompts",
        Some(Tensor::from_f32([3, 8], &[f32::NAN; 24]).into()),
        "prompts",
    );
    refuse(
        "prompt_scales",
        Some(Tensor::from_f32([2], &[0.1; 2]).into()),
        "prompt_scales",
    );
    refuse("mlp.0.weight", None, "mlp.0.weight");
    refuse(
        "mlp.0.weight",
        Some(Tensor::from_f32([8, 8], &[0.1; 64]).into()),
        "[8, 16]",
    );
    refuse(
        "modulation_type",
        Some(Value::from("magic")),
        "global, per_patch, learned_transform",
    );
    refuse(
        "scaling_factor",
        Some(Value::Float(f64::INFINITY)),
        "scaling factor",
    );
    refuse("model_name", None, "'model_name' is missing");
    refuse("format_version", Some(Value::Int(9)), "newer");
    refuse(
        "resume",
        Some(Value::dict([("epochs_done", Value::Int(1))])),
        "resume.settings",
    );
    torch_file::write(&path, &Value::Int(3)).unwrap();
    assert!(matches!(
        Checkpoint::read(&path),
        Err(AdaptError::Checkpoint { .. })
    ));
    std::fs::write(&path, b"not a checkpoint").unwrap();
    assert!(matches!(
        Checkpoint::read(&path),
        Err(AdaptError::TorchFile(_))
    ));
    assert!(matches!(
        Checkpoint::read(&folder.path().join("none.pt")),
        Err(AdaptError::TorchFile(_))
    ));
}
