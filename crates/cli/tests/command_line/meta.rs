//! First values learned from some categories, and trainings of others that start from them.

use std::fs;

use flawtune_backbone::torch_file;

use crate::world::{World, drawn, drawn_and_backbone as backbone};

fn meta(rest: &str) -> String {
    format!(
        "meta-train {} --num-prompts 3 --iterations 3 --tasks-per-iteration 2 --tasks-seeds 2 --shots 1,5 {rest}",
        backbone()
    )
}

fn prompts(w: &World, name: &str) -> Vec<f32> {
    let file = torch_file::read(&w.path(name)).unwrap();
    file.get("prompts")
        .and_then(torch_file::Value::as_tensor)
        .unwrap()
        .to_f32()
}

#[test]
fn every_method_gives_first_values_that_a_training_starts_from() {
    let w = drawn();
    fs::create_dir(w.out()).unwrap();
    for method in ["reptile", "fomaml", "maml"] {
        let line = meta(&format!(
            "--method {method} --categories flange,twill --output {{}}/meta.pt --json"
        ));
        let found = w.run(&line).succeeds().json();
        // two categories, two seeds, two numbers of shots
        assert_eq!(found["tasks"].as_array().unwrap().len(), 8, "{found}");
        assert_eq!(found["iterations"], 3);
        let first = fs::read(w.path("meta.pt")).unwrap();
        w.run(&format!("{line} --threads 1")).succeeds();
        assert!(
            first == fs::read(w.path("meta.pt")).unwrap(),
            "{method}: other bytes with one thread"
        );

        let train = format!(
            "train {} --category gravel --num-prompts 3 --num-epochs 1 --epoch one --learning-rate 1e-9 --num-defect-samples 1 \
             --no-ensemble --output-dir {{}}/out",
            backbone()
        );
        w.run(&format!("{train} --init {{}}/meta.pt")).succeeds();
        let (start, trained) = (prompts(&w, "meta.pt"), prompts(&w, "out/gravel_prompts.pt"));
        assert!(
            start
                .iter()
                .zip(&trained)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{method}: it started elsewhere"
        );
        w.run(&train).succeeds();
        assert_ne!(
            prompts(&w, "out/gravel_prompts.pt"),
            trained,
            "{method} moved nothing"
        );
    }
}

#[test]
fn a_start_that_saw_the_test_images_is_refused() {
    let w = drawn();
    w.run(&meta(
        "--categories flange,twill --output {}/meta.pt --quiet",
    ))
    .succeeds();
    let train = |rest: &str| {
        let line = format!(
            "train {} --num-epochs 1 --no-ensemble --output-dir {{}}/out {rest}",
            backbone()
        );
        w.run(&line)
    };
    // other seeds draw other pools: some image of the first two pools is tested under the eighth
    train("--category flange --seed 8 --num-prompts 3 --init {}/meta.pt")
        .refuses(&["are in the test set", "the first is"]);
    train("--category gravel --num-prompts 4 --init {}/meta.pt").refuses(&[
        "meta.pt",
        "3 prompts",
        "--num-prompts",
    ]);
    train("--category gravel --num-prompts 3 --modulation-type per_patch --init {}/meta.pt")
        .refuses(&["learned_transform", "--modulation-type"]);
    train("--category gravel --num-prompts 3 --layers 0 --init {}/meta.pt").refuses(&["layers"]);
    train("--category gravel --init {}/none.pt").refuses(&["none.pt"]);
    train("--category gravel --use-adapters --init {}/meta.pt")
        .refuses(&["--init", "--use-adapters"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
    // the checkpoint remembers what its start saw
    train("--category gravel --num-prompts 3 --init {}/meta.pt").succeeds();
    let evaluate = |category: &str| {
        let line = format!(
            "evaluate {} --category {category} --checkpoint {{}}/out/gravel_prompts.pt --output-dir {{}}/out --bootstrap 100",
            backbone()
        );
        w.run(&line)
    };
    evaluate("gravel").succeeds();
    fs::copy(w.path("out/gravel_prompts.pt"), w.path("kept.pt")).unwrap();
    let study = format!(
        "ablate {} --category gravel --grid num-defect-samples=1,5 --set init={{}}/meta.pt --set num-prompts=3 --set num-epochs=1 \
         --seeds 2 --output-dir {{}}/study --quiet",
        backbone()
    );
    w.run(&study).succeeds();
}

/// Ctrl-C while the start moves: what was reached is written.
#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_it_reached() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    let w = drawn();
    let line = meta("--categories flange,twill --output {}/meta.pt")
        .replace("--iterations 3", "--iterations 100000");
    let mut child = w
        .command(&line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("iteration   10/") {
        assert!(
            stderr.read_line(&mut text).unwrap() > 0,
            "ended before the tenth iteration: {text}"
        );
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    assert!(
        text.contains("is kept in") && w.path("meta.pt").exists(),
        "{text}"
    );
    assert_eq!(prompts(&w, "meta.pt").len(), 3 * 64);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let w = drawn();
    let refuses = |rest: &str, parts: &[&str]| {
        w.run(&meta(&format!("--output {{}}/meta.pt {rest}")))
            .refuses(parts);
    };
    refuses("--categories flange,twil", &["twil"]);
    refuses("--categories flange,flange", &["flange twice"]);
    refuses("--categories flange --method newton", &["reptile"]);
    refuses(
        "--categories flange --method maml --loss-type ranking",
        &["maml with ranking"],
    );
    refuses(
        "--categories flange --method maml --modulation-type global",
        &["maml with global"],
    );
    w.run(&meta("--categories flange --output {}/meta.pt").replace("--shots 1,5", "--shots 10"))
        .refuses(&["no pool holds more than 10", "--pool-size"]);
    assert!(!w.path("meta.pt").exists());
}
