//! What people read, as snapshots: helps and typical errors. `INSTA_UPDATE=always` writes them anew, to be reviewed.

use std::fmt::Write as _;
use std::fs;

use crate::world::{Run, World, data_and_backbone, golden};

/// The text without what differs between machines and runs.
fn settled(w: &World, text: &str) -> String {
    text.replace(w.path("").to_str().unwrap(), "WORLD/")
        .replace(w.path("").to_str().unwrap().trim_end_matches('/'), "WORLD")
        .replace(golden("").to_str().unwrap(), "GOLDEN/")
}

#[test]
fn helps() {
    let w = World::new();
    for line in [
        "--help",
        "-h",
        "fit -h",
        "fit --help",
        "predict -h",
        "evaluate -h",
        "train -h",
        "threshold --help",
    ] {
        // without the value of a variable that differs in every world
        let mut command = w.command(line);
        let output = command.env_remove("FLAWTUNE_CACHE_DIR").output().unwrap();
        let help = Run::new(output).succeeds().stdout;
        let name = line.replace(" --", "_long_").replace(['-', ' '], "_");
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn errors() {
    let w = World::new();
    let backbone = data_and_backbone();
    let rest = backbone.split_once("--root-dir").unwrap().1;
    let weights = rest.split_once("--weights").unwrap().1;
    fs::create_dir_all(w.path("empty")).unwrap();
    fs::write(w.path("text.flaw"), "no detector").unwrap();
    fs::create_dir_all(w.path("mixed")).unwrap();
    for name in ["a.png", "b.png", "c.png"] {
        let from = w.sample(&format!("train/good/00{}.png", name.len()));
        fs::copy(from, w.path(&format!("mixed/{name}"))).unwrap();
    }
    fs::write(w.path("mixed/d.png"), "not an image").unwrap();
    fs::write(w.path("mixed/e.gif"), b"GIF89a\x01\x00\x01\x00").unwrap();

    let mut told = String::new();
    for line in [
        "fit --good {}/absent --output {}/m.flaw",
        "fit --good {}/empty --output {}/m.flaw",
        &format!("fit --good {{}}/mixed --output {{}}/m.flaw --weights {weights}"),
        &format!("fit {backbone} --output {{}}/empty"),
        &format!("fit {backbone} --output {{}}/m.flaw --support-shots 99"),
        &format!("fit {backbone} --output {{}}/m.flaw --layers 40"),
        &format!("fit {backbone} --output {{}}/m.flaw --scorer image-pair --coreset 0.1"),
        &format!("fit {backbone} --output {{}}/m.flaw --tile-size 50"),
        &format!("fit {backbone} --output {{}}/m.flaw --num-defect-samples 40"),
        &format!("fit --category clot --root-dir {rest} --output {{}}/m.flaw"),
        "fit --category cloth --root-dir {}/data --weights {}/absent.safetensors --output {}/m.flaw",
        "fit --category cloth --root-dir {}/absent --output {}/m.flaw",
        &format!("train {backbone} --num-defect-samples 40 --output-dir {{}}/out"),
        &format!(
            "train {backbone} --resume --output-dir {{}}/out --num-defect-samples 5 --guard-folds 3 --holdout-fraction 0"
        ),
        &format!("train {backbone} --prompt-dropout 0.1 --output-dir {{}}/out"),
        &format!("train {backbone} --type-prompts 3 --output-dir {{}}/out"),
        "evaluate {}/text.flaw --root-dir {}/data",
        "evaluate {}/absent.flaw --root-dir {}/data",
        "predict {}/text.flaw {}/mixed",
        "predict {}/absent.flaw {}/mixed",
        "threshold {}/text.flaw --find 90%",
        "report {}/empty",
        "baseline --root-dir {}/empty",
        "config sew",
        "trian",
    ] {
        let run = w.run(line);
        assert_eq!(run.code, Some(2), "{line}: {run:#?}");
        let line = line.replace("{}", "WORLD");
        let (line, text) = (settled(&w, &line), settled(&w, &run.stderr));
        writeln!(told, "$ flawtune {line}\n{text}").unwrap();
    }
    insta::assert_snapshot!(told);
}
