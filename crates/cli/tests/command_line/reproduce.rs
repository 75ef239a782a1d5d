//! Recorded runs, once more.

use std::fs;

use serde_json::Value as Json;

use crate::world::{World, data_and_backbone, read_json};

/// A world with train, evaluate and fit in its output folder.
fn recorded() -> World {
    let w = World::new();
    // what only the environment and a file said, and is gone when the runs are repeated
    fs::write(w.path("flawtune.toml"), "[train]\nnum-prompts = 3\n").unwrap();
    let mut train = w.command(&format!(
        "train {} --num-epochs 2 --output-dir out",
        data_and_backbone()
    ));
    train.env("FLAWTUNE_SEED", "4");
    assert!(train.output().unwrap().status.success());
    fs::write(w.path("flawtune.toml"), "[train]\nnum-prompts = 5\n").unwrap();
    w.job(
        "evaluate",
        "--checkpoint out/cloth_prompts.pt --output-dir out --bootstrap 100 --threads 2",
    )
    .succeeds();
    w.job(
        "fit",
        "--checkpoint out/cloth_prompts.pt --output out/cloth.flaw",
    )
    .succeeds();
    w
}

/// The record with something changed.
fn edit(w: &World, change: impl Fn(&mut Json)) {
    let path = w.out().join("run.json");
    let mut file = read_json(&path);
    for run in file["runs"].as_array_mut().unwrap() {
        change(run);
    }
    fs::write(path, serde_json::to_vec(&file).unwrap()).unwrap();
}

#[test]
fn runs_give_the_same_bytes_on_other_threads_whatever_is_set_today() {
    let w = recorded();
    let mut again = w.command("reproduce {}/out/run.json --threads 1 --json");
    again.env("FLAWTUNE_SEED", "9").current_dir(w.root());
    let run = crate::world::Run::new(again.output().unwrap()).succeeds();
    let found = run.json();
    assert_eq!(found["identical"], true, "{found}");
    let files: Vec<(&str, &str)> = found["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["command"].as_str().unwrap(), f["path"].as_str().unwrap()))
        .collect();
    assert_eq!(
        files,
        [
            ("train", "cloth_history.json"),
            ("train", "cloth_prompts.pt"),
            ("fit", "cloth.flaw"),
            ("fit", "cloth.oddest.png"),
            ("evaluate", "cloth_comparison.json"),
            ("evaluate", "cloth_scores.csv"),
        ]
    );
    let same = |path: &str| {
        let read = |folder: &str| fs::read(w.path(folder).join(path)).unwrap();
        read("out") == read("out_reproduced")
    };
    assert!(same("cloth_prompts.pt") && same("cloth.flaw") && same("cloth_scores.csv"));
    // the evaluation read the repeated checkpoint
    let comparison = read_json(&w.path("out_reproduced/cloth_comparison.json"));
    assert!(
        comparison["checkpoint"]
            .as_str()
            .unwrap()
            .contains("out_reproduced"),
        "{comparison}"
    );
    let record = read_json(&w.path("out_reproduced/run.json"));
    assert_eq!(record["runs"][0]["threads"], 1);
    assert_eq!(record["runs"][0]["options"]["num-prompts"]["value"], 3);
    // what is there is not written over
    w.run("reproduce {}/out/run.json")
        .refuses(&["out_reproduced", "--output-dir"]);

    // a part of them, as a table
    let one = w
        .run("reproduce {}/out --command evaluate --output-dir {}/more --category cloth")
        .succeeds();
    let rows: Vec<&str> = one.stdout.lines().collect();
    assert_eq!(
        rows,
        [
            "command   file                   result",
            "evaluate  cloth_comparison.json  identical but for paths and times",
            "evaluate  cloth_scores.csv       identical",
        ]
    );
}

#[test]
fn every_way_to_train_and_fit_is_repeated() {
    let w = World::new();
    for (i, (command, rest)) in [
        ("train", "--preset original --seed 2 --num-epochs 2"),
        ("train", "--prompt-depth deep --use-adapters --num-epochs 1 --num-prompts 2"),
        ("train", "--loss-type ranking --num-epochs 1 --augment-defects flips --guard-folds 2"),
        ("train", "--protocol hard --defect-type hole --num-defect-samples 2 --pool-size 3 --num-epochs 1"),
        ("fit", "--scorer image-pair --support-shots 4 --max-memory 1G --top-fraction max"),
        ("fit", "--resize keep --roi 10%,10%,80%,80% --exclude 001.png --exclude train/good/002.png"),
        ("baseline", "--pool-size 4 --layers=0,-1 --bootstrap 100"),
    ]
    .iter()
    .enumerate()
    {
        let to = if *command == "fit" { "--output" } else { "--output-dir" };
        let to = format!("{to} {{}}/{i}/{}", if *command == "fit" { "sub.flaw" } else { "" });
        w.job(command, &format!("{rest} {to}")).succeeds();
        let found = w.run(&format!("reproduce {{}}/{i} --json --threads 1")).succeeds().json();
        assert!(
            found["files"].as_array().unwrap().iter().all(|f| f["same_bytes"] == true),
            "{rest}: {found}"
        );
    }
    // images in folders of their own, named from another place
    let line = format!(
        "baseline --good data/cloth/train/good --defect data/cloth/test/hole --test-good data/cloth/test/good \
         --pool-size 3 --image-size 64 --bootstrap 100 --output-dir folders --weights {}",
        crate::world::golden("ckpt/tiny_mlp/hf.safetensors").display()
    );
    w.run(&line).succeeds();
    let mut again = w.command("reproduce {}/folders");
    again.current_dir(w.root());
    crate::world::Run::new(again.output().unwrap()).succeeds();
}

#[test]
fn what_changed_since_is_named() {
    let w = recorded();
    let picture = w.sample("test/hole/003.png");
    let was = fs::read(&picture).unwrap();
    let mut other = fs::read(w.sample("test/stain/001.png")).unwrap();
    other.push(0);
    fs::write(&picture, other).unwrap();
    w.run("reproduce {}/out").refuses(&[
        "train cloth: 1 images are not those of the record: changed test/hole/003.png",
        "--allow-changed-data",
    ]);
    assert!(!w.path("out_reproduced").exists());
    fs::remove_file(&picture).unwrap();
    w.run("reproduce {}/out")
        .refuses(&["gone test/hole/003.png"]);
    fs::write(&picture, was).unwrap();

    w.run("reproduce {}/out --command predict")
        .refuses(&["--command predict", "train, baseline, fit, evaluate"]);
    w.run("reproduce {}/out --category wood")
        .refuses(&["holds train cloth, evaluate cloth, fit cloth"]);
    w.run("reproduce {}/nowhere/run.json")
        .refuses(&["run.json"]);

    edit(&w, |run| run["weights"]["hash"] = "0123".into());
    w.run("reproduce {}/out --command train")
        .refuses(&["the weights are not those of the record: 0123 became"]);
    let run = w
        .run("reproduce {}/out --command train --allow-changed-data")
        .succeeds();
    assert!(
        run.stderr
            .contains("warning: train cloth: the weights are not"),
        "{}",
        run.stderr
    );
}

#[test]
fn another_hash_makes_it_differ() {
    let w = recorded();
    edit(&w, |run| {
        if run["command"] == "train" {
            run["outputs"][1]["blake3"] = "00".into();
        }
    });
    let run = w.run("reproduce {}/out --command train");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stdout
            .contains("cloth_prompts.pt    differs: other bytes ("),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("cloth_history.json  identical"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.ends_with("differs: 1 of 2 files\n"),
        "{}",
        run.stderr
    );
    // another option: the first value that differs is said
    edit(&w, |run| {
        if run["command"] == "train" {
            run["options"]["learning-rate"]["value"] = 0.5.into();
            run["versions"]["flawtune"] = "0.0.9".into();
        }
    });
    let run = w.run("reproduce {}/out --command train --output-dir {}/rate");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stdout
            .contains("cloth_history.json  differs: loss[1]: "),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr
            .contains("warning: recorded by flawtune 0.0.9, and this is "),
        "{}",
        run.stderr
    );
}
