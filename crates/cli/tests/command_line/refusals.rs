//! Weights, checkpoints and options that are wrong: one message, exit code 2, nothing written.

use std::fs;
use std::path::{Path, PathBuf};

use flawtune_backbone::torch_file::{self, Value};

use crate::world::{World, golden, stored_zip};

/// A pickle that would call `os.system` if it were run.
const FOREIGN: &[u8] = b"\x80\x02}q\x00X\x07\x00\x00\x00promptsq\x01cos\nsystem\nq\x02X\x04\x00\x00\x00trueq\x03\x85q\x04Rq\x05s.";

fn evaluate(w: &World, checkpoint: &Path, rest: &str) -> crate::world::Run {
    let line = format!(
        "evaluate --category cloth --root-dir {{}}/data --output-dir {{}}/eval --bootstrap 100 \
        --checkpoint {} {rest}",
        checkpoint.display()
    );
    w.run(&line)
}

fn nothing_written(w: &World) {
    let left = fs::read_dir(w.path("eval"))
        .map(Iterator::count)
        .unwrap_or_default();
    assert_eq!(left, 0, "files are left in the output folder");
    assert!(w.written().is_empty(), "{:?}", w.written());
}

/// The checkpoint with some keys changed, under another name.
fn changed(
    checkpoint: &Path,
    name: &str,
    change: impl Fn(&str, Value) -> Option<Value>,
) -> PathBuf {
    let Value::Dict(pairs) = torch_file::read(checkpoint).unwrap() else {
        panic!("no dictionary")
    };
    let pairs = pairs.into_iter().filter_map(|(key, value)| {
        let name = key.as_str().unwrap().to_owned();
        change(&name, value).map(|value| (name, value))
    });
    let path = checkpoint.with_file_name(name);
    torch_file::write(&path, &Value::dict(pairs)).unwrap();
    path
}

#[test]
fn weights_that_are_none() {
    let w = World::new();
    let tiny = golden("ckpt/tiny_mlp/hf.safetensors");
    let with = |weights: &Path| {
        w.run(&format!(
            "baseline --category cloth --root-dir {{}}/data --image-size 64 --output-dir {{}}/out --weights {}",
            weights.display()
        ))
    };
    with(&w.path("absent.safetensors")).refuses(&["absent.safetensors"]);
    let bytes = fs::read(&tiny).unwrap();
    for (name, part) in [
        ("half", bytes.len() / 2),
        ("header", 100),
        ("start", 5),
        ("none", 0),
    ] {
        let path = w.path(&format!("{name}.safetensors"));
        fs::write(&path, &bytes[..part]).unwrap();
        with(&path).refuses(&[&format!("{name}.safetensors")]);
    }
    let path = w.path("foreign.pth");
    fs::write(&path, stored_zip("archive/data.pkl", FOREIGN)).unwrap();
    with(&path).refuses(&["foreign.pth", "system"]);
    // a checkpoint of prompts where weights are wanted
    with(&golden("pt/ckpt_main.pt")).refuses(&["ckpt_main.pt", "checkpoint"]);
    nothing_written(&w);
}

#[test]
fn checkpoints_that_are_none() {
    let w = World::new();
    let path = w.path("foreign.pt");
    fs::write(&path, stored_zip("archive/data.pkl", FOREIGN)).unwrap();
    evaluate(&w, &path, "").refuses(&["foreign.pt", "system", "no code"]);
    let bare = w.path("bare.pt");
    fs::write(&bare, FOREIGN).unwrap();
    evaluate(&w, &bare, "").refuses(&["bare.pt", "bare pickle"]);
    evaluate(&w, &w.path("absent.pt"), "").refuses(&["absent.pt"]);
    evaluate(&w, &golden("ckpt/tiny_mlp/hf.safetensors"), "").refuses(&["hf.safetensors"]);
    evaluate(&w, &golden("ckpt/tiny_mlp/official.pth"), "")
        .refuses(&["official.pth", "flawtune train"]);
    w.run(&format!("info {}", path.display()))
        .refuses(&["foreign.pt", "system"]);
    w.run("info {}/absent.pt").refuses(&["absent.pt"]);
    w.run("info {}").refuses(&[]);
    // the recipe's own checkpoint does not say what it was trained on
    let run = evaluate(&w, &golden("pt/ckpt_main.pt"), "");
    run.refuses(&["ckpt_main.pt", "--protocol leaky"]);
    nothing_written(&w);
}

#[test]
fn checkpoints_of_something_else() {
    let w = World::new();
    let checkpoint = w.trained("");
    let kept = w.path("kept.pt");
    fs::rename(&checkpoint, &kept).unwrap();
    fs::remove_dir_all(w.out()).unwrap();

    // tokens of another width
    let other = format!(
        "--weights {}",
        golden("ckpt/tiny_swiglu/hf.safetensors").display()
    );
    evaluate(&w, &kept, &other).refuses(&["kept.pt", "64 numbers", "48 numbers"]);
    // the same sizes, other numbers
    let folder = w.path("twin");
    fs::create_dir(&folder).unwrap();
    fs::copy(
        golden("ckpt/tiny_mlp/hf_config.json"),
        folder.join("config.json"),
    )
    .unwrap();
    let mut bytes = fs::read(golden("ckpt/tiny_mlp/hf.safetensors")).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.5_f32.to_le_bytes());
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let twin = format!("--weights {}", folder.join("model.safetensors").display());
    evaluate(&w, &kept, &twin).refuses(&["kept.pt", "weights", "--weights"]);
    // other tokens than it was trained on
    evaluate(&w, &kept, "--image-size 48").refuses(&["kept.pt", "preprocessing"]);
    evaluate(&w, &kept, "--layers 0").refuses(&["kept.pt", "layers"]);
    // what it was trained on was edited, or cannot be told
    let edited = changed(&kept, "edited.pt", |key, value| {
        let text = value
            .as_str()
            .map(|t| t.replace("test/hole/00", "test/hole/10"));
        Some(if key == "split_manifest" {
            Value::Str(text.unwrap())
        } else {
            value
        })
    });
    evaluate(&w, &edited, "").refuses(&["edited.pt", "manifest"]);
    let garbled = changed(&kept, "garbled.pt", |key, value| {
        Some(if key == "split_manifest" {
            Value::Str("{".into())
        } else {
            value
        })
    });
    evaluate(&w, &garbled, "").refuses(&["garbled.pt", "manifest"]);
    let silent = changed(&kept, "silent.pt", |key, value| {
        (key != "split_manifest").then_some(value)
    });
    evaluate(&w, &silent, "").refuses(&["silent.pt", "--protocol leaky"]);
    let headless = changed(&kept, "headless.pt", |key, value| {
        (key != "prompts").then_some(value)
    });
    evaluate(&w, &headless, "").refuses(&["headless.pt", "prompts"]);
    nothing_written(&w);
    let run = evaluate(&w, &silent, "--protocol leaky").succeeds();
    assert!(run.stdout.contains("leaky"), "{}", run.stdout);
}

#[test]
fn output_folders_that_cannot_be_written() {
    let w = World::new();
    fs::write(w.path("file"), "x").unwrap();
    for command in ["train", "baseline"] {
        for folder in ["{}/file", "{}/file/sub"] {
            let run = w.job(command, &format!("--output-dir {folder}"));
            run.refuses(&[&w.path("file").display().to_string(), "--output-dir"]);
        }
    }
    let image = "features {}/data/cloth/train/good/000.png --image-size 64";
    let weights = golden("ckpt/tiny_mlp/hf.safetensors");
    for output in ["{}/file/t.safetensors", "{}/data"] {
        let run = w.run(&format!(
            "{image} --output {output} --weights {}",
            weights.display()
        ));
        run.refuses(&["--output"]);
    }
    assert_eq!(fs::read_to_string(w.path("file")).unwrap(), "x");
}

#[test]
fn options_that_make_no_sense() {
    let w = World::new();
    let train = |rest: &str| w.job("train", &format!("--output-dir {{}}/out {rest}"));
    train("--image-size 64 --image-size 8").refuses(&["--image-size"]);
    w.run(
        &World::job_line("train", "--output-dir {}/out")
            .replace("--image-size 64", "--image-size 8"),
    )
    .refuses(&["--image-size 8", "16 pixels"]);
    for (layers, part) in [
        ("3", "--layers 3"),
        ("-4", "--layers -4"),
        ("0,0", "twice"),
        ("x", "--layers"),
    ] {
        train(&format!("--layers={layers}")).refuses(&[part]);
    }
    train("--learning-rate 0").refuses(&["--learning-rate"]);
    train("--learning-rate nan").refuses(&["--learning-rate"]);
    train("--num-prompts 0").refuses(&["--num-prompts"]);
    train("--modulation-type sideways").refuses(&["--modulation-type", "per_patch"]);
    train("--tile-size 32 --use-adapters").refuses(&["--tile-size", "whole images"]);
    train("--threads 0").refuses(&["--threads"]);
    train("--margin nan --loss-type contrastive").refuses(&["margin"]);
    train("--no-such-option").refuses(&["--no-such-option"]);
    // without a file the backbone is found by name
    let named = |name: &str| {
        w.run(&format!(
            "baseline --category cloth --root-dir {{}}/data --output-dir {{}}/out {name}"
        ))
    };
    named("--model-name dinov3_vits61").refuses(&["dinov3_vits61", "dinov3_vits16"]);
    named("").refuses(&["dinov3_vits16", "HF_HUB_OFFLINE", "--weights"]);
    named("--model-name dinov2_vits14").refuses(&["dinov2_vits14", "HF_HUB_OFFLINE"]);
    nothing_written(&w);
}
