//! `--progress`: what programs and people read on standard error; `--tensorboard` from end to end.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::world::{CATEGORY, Run, World};

/// Standard error as events; every line must be one, of this command.
#[track_caller]
fn events(run: &Run, command: &str) -> Vec<Json> {
    let lines = run.stderr.lines().map(|line| {
        let event: Json = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(event["command"], command, "{line}");
        assert!(event["event"].is_string(), "{line}");
        event
    });
    lines.collect()
}

fn named<'a>(events: &'a [Json], name: &str) -> Vec<&'a Json> {
    events.iter().filter(|e| e["event"] == name).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story from end to end")]
fn a_program_follows_a_training_from_end_to_end() {
    let w = World::new();
    let line = "--num-epochs 5 --patience 0 --num-prompts 3 --num-defect-samples 5 --output-dir {}/out --progress json";
    let run = w.job("train", line).succeeds();
    assert_eq!(
        run.stdout.trim(),
        w.out().join("cloth_prompts.pt").to_str().unwrap()
    );
    let found = events(&run, "train");
    let training = named(&found, "training");
    assert_eq!(training.len(), 1);
    for (key, value) in [
        ("category", Json::from(CATEGORY)),
        ("resumed_at", 0.into()),
        ("epochs", 5.into()),
    ] {
        assert_eq!(training[0][key], value, "{key}");
    }
    assert_eq!(
        (&training[0]["part"], &training[0]["defects"]),
        (&Json::Null, &Json::from(4))
    );
    let by_tensor = training[0]["trainable_by_tensor"].as_object().unwrap();
    let sum: u64 = by_tensor.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(training[0]["trainable"], sum);

    let epochs = named(&found, "epoch");
    let history: Json = crate::world::read_json(&w.out().join("cloth_history.json"));
    assert_eq!(epochs.len(), 5);
    for (i, epoch) in epochs.iter().enumerate() {
        assert_eq!(epoch["epoch"], i + 1);
        assert_eq!(
            (&epoch["epochs"], &epoch["category"]),
            (&Json::from(5), &Json::from(CATEGORY))
        );
        for key in [
            "loss",
            "separability",
            "mu_nn",
            "mu_nd",
            "hold_out",
            "learning_rate",
        ] {
            assert!(
                epoch[key].is_number() && epoch[key] == history[key][i],
                "{key} of epoch {}",
                i + 1
            );
        }
        assert!(epoch["eta_seconds"].as_f64().unwrap() >= 0.0);
    }
    assert_eq!(epochs[4]["eta_seconds"], 0.0);

    let images = named(&found, "images");
    assert!(
        images.iter().any(|e| e["stage"] == "features"),
        "{images:?}"
    );
    let last = images.iter().rfind(|e| e["stage"] == "features").unwrap();
    assert!(
        last["done"] == last["total"] && last["total"].as_u64() > Some(0),
        "{last}"
    );
    let last = found.last().unwrap();
    assert_eq!(
        (&last["event"], &last["exit_code"]),
        (&Json::from("done"), &Json::from(0))
    );
    assert!(
        named(&found, "note")
            .iter()
            .any(|e| e["text"].as_str().unwrap().starts_with("next: "))
    );

    // each part of a cross-validation is a training of its own
    let line = format!("{line} --guard-folds 2");
    let found = events(&w.job("train", &line).succeeds(), "train");
    let parts: Vec<_> = named(&found, "training")
        .iter()
        .map(|e| (e["part"].clone(), e["parts"].clone()))
        .collect();
    assert_eq!(
        parts,
        [
            (1.into(), 2.into()),
            (2.into(), 2.into()),
            (Json::Null, Json::Null)
        ]
    );
    let mut expected = 0;
    let mut last = 0;
    for event in &found {
        match event["event"].as_str().unwrap() {
            "training" => {
                assert_eq!(expected, last, "{found:#?}");
                expected = event["epochs"].as_u64().unwrap();
                last = event["resumed_at"].as_u64().unwrap();
            }
            "epoch" => {
                last += 1;
                assert_eq!(
                    (event["epoch"].as_u64(), event["epochs"].as_u64()),
                    (Some(last), Some(expected))
                );
            }
            _ => {}
        }
    }
    assert_eq!(expected, last);
}

#[test]
fn the_last_line_for_programs_says_how_it_ended() {
    let w = World::new();
    let last = |run: &Run, command: &str| events(run, command).pop().unwrap();
    // a command within a command
    let run = w.run("cache info --progress json --json").succeeds();
    assert_eq!(last(&run, "cache info")["event"], "done");
    assert_eq!(run.json()["entries"], 0, "the cache is empty");
    // of the library
    let run = w.run("train --category none --root-dir {}/data --progress json");
    let error = last(&run, "train");
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert_eq!(
        (&error["event"], &error["kind"]),
        (&Json::from("error"), &Json::from("input"))
    );
    assert_eq!(error["exit_code"], 2);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("none") && !message.starts_with("error"),
        "{message}"
    );
    // of the arguments, which did not say which command it is
    for line in [
        "train --progress json --num-epochs none",
        "train --num-epochs none --progress=json",
    ] {
        let run = w.run(line);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!((run.code, lines.len()), (Some(2), 1), "{run:#?}");
        let error: Json = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(
            (&error["kind"], &error["command"]),
            (&Json::from("input"), &Json::Null)
        );
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("invalid value 'none'"),
            "{error}"
        );
    }
    let run = w.run("train --num-epochs none -- --progress json");
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    // warnings, which --quiet leaves
    let leaky = "--protocol leaky --num-epochs 1 --num-prompts 2 --output-dir {}/out --progress json --quiet";
    let found = events(&w.job("train", leaky).succeeds(), "train");
    let names: Vec<&str> = found.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"warning"), "{names:?}");
    assert_eq!(names.last(), Some(&"done"), "{names:?}");
    assert!(
        names.iter().all(|n| ["warning", "done"].contains(n)),
        "{names:?}"
    );
    let help = w.run("train --progress json --help").succeeds();
    assert!(
        help.stderr.is_empty() && help.stdout.contains("Examples:"),
        "{help:#?}"
    );
    // drawn images are counted to the last one, once
    let synth = "synth --category twill --size 32 --train-good 3 --test-good 1 --test-per-type 1 --output-dir {}/synth";
    let found = events(
        &w.run(&format!("{synth} --progress json")).succeeds(),
        "synth",
    );
    let drawn: Vec<u64> = named(&found, "images")
        .iter()
        .map(|e| e["done"].as_u64().unwrap())
        .collect();
    assert_eq!(drawn.iter().filter(|n| **n == 8).count(), 1, "{drawn:?}");
}

#[test]
fn people_choose_between_bars_and_lines() {
    let w = World::new();
    let stderr = |how: &str| {
        let line = format!("--num-epochs 2 --num-prompts 2 --output-dir {{}}/out {how}");
        w.job("train", &line).succeeds().stderr
    };
    let lines = stderr("--progress plain");
    assert_eq!(lines.matches("\nepoch ").count(), 2, "{lines}");
    assert!(!lines.contains('\x1b'), "{lines}");
    // what is waited for stands in the first 56 columns, which a bar leaves of 80
    let held = w.job(
        "train",
        "--num-epochs 2 --num-prompts 2 --num-defect-samples 5 --output-dir {}/held",
    );
    let held = held.succeeds().stderr;
    let line = held.lines().find(|l| l.starts_with("epoch ")).unwrap();
    let start: String = line.chars().take(56).collect();
    assert!(
        start.contains("hold-out ") && start.contains("ETA at most "),
        "{line}"
    );
    let auto = stderr("");
    assert_eq!(auto.matches("\nepoch ").count(), 2, "no terminal: {auto}");
    let none = stderr("--progress none");
    assert!(
        !none.contains("\nepoch ") && none.contains("training "),
        "{none}"
    );
    let bars = stderr("--progress bars");
    assert!(bars.contains("\x1b[2K") && bars.contains("━"), "{bars:?}");
    assert_eq!(stderr("--progress bars --quiet"), "");
}

/// How often each curve has a point in an event file: its name is a field of its length.
fn points(file: &Path, curve: &str) -> usize {
    let bytes = fs::read(file).unwrap();
    let tag = [&[0x0a, curve.len() as u8], curve.as_bytes()].concat();
    bytes.windows(tag.len()).filter(|w| *w == tag).count()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn tensorboard_gets_a_file_a_training() {
    let w = World::new();
    let line = "--num-epochs 3 --patience 0 --num-prompts 2 --output-dir {}/out --tensorboard";
    w.job("train", &format!("{line} {{}}/runs")).succeeds();
    let written = files(&w.path("runs").join(CATEGORY));
    assert_eq!(written.len(), 1, "{written:?}");
    // tools/tensorboard reads the numbers
    for curve in [
        "loss",
        "separability",
        "mu_nn",
        "mu_nd",
        "hold_out",
        "learning_rate",
        "grad_norm",
    ] {
        assert_eq!(points(&written[0], curve), 3, "{curve}");
    }
    assert_eq!(points(&written[0], "settings"), 1);

    fs::write(w.path("file"), "x").unwrap();
    fs::remove_dir_all(w.out()).unwrap();
    w.job("train", &format!("{line} {{}}/file"))
        .refuses(&["file", "--tensorboard"]);
    assert!(
        w.written().is_empty(),
        "refused before any work: {:?}",
        w.written()
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_loses_no_epoch_for_programs() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    let w = World::new();
    // more lines than a pipe holds, so that the run cannot end before the interrupt
    let line = "--num-epochs 1500 --patience 0 --epoch one --num-prompts 2 --modulation-type global --batch-size 2 \
                --num-defect-samples 4 --output-dir {}/out --tensorboard {}/runs --progress json";
    let mut command = w.command(&World::job_line("train", line));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while text.matches("\"event\":\"epoch\"").count() < 3 {
        assert!(stderr.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    stderr.read_to_string(&mut text).unwrap();
    let run = Run {
        code: child.wait().unwrap().code(),
        stdout: String::new(),
        stderr: text,
    };
    assert_eq!(run.code, Some(130));
    let found = events(&run, "train");
    let done = named(&found, "epoch").len();
    let last = found.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["exit_code"]),
        (&Json::from("interrupted"), &Json::from(130))
    );
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{done} epochs are kept")),
        "{last}"
    );

    let run = w.job("train", &format!("{line} --resume")).succeeds();
    let found = events(&run, "train");
    assert_eq!(named(&found, "training")[0]["resumed_at"], done);
    let epochs: Vec<u64> = named(&found, "epoch")
        .iter()
        .map(|e| e["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, (done as u64 + 1..=1500).collect::<Vec<_>>());
    let written = files(&w.path("runs").join(CATEGORY));
    let each: Vec<usize> = written.iter().map(|f| points(f, "loss")).collect();
    assert_eq!(each, [done, 1500 - done]);
    assert_eq!(
        written
            .iter()
            .map(|f| points(f, "settings"))
            .collect::<Vec<_>>(),
        [1, 0]
    );
}
