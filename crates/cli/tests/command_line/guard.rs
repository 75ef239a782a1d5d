//! Whether what was trained may change a score.

use std::fs;

use crate::world::World;

#[test]
fn one_shot_is_no_evidence_and_evaluation_falls_back() {
    let w = World::new();
    let train = "--num-epochs 2 --num-defect-samples 1 --loss-type ranking --no-ensemble --output-dir {}/out --json";
    let run = w
        .job("train", &format!("{train} --guard-folds 3"))
        .succeeds();
    assert!(
        run.stderr.contains("one shot cannot be left out"),
        "{}",
        run.stderr
    );
    let guard = &run.json()["guard"];
    assert_eq!(
        (guard["evidence"].as_str(), guard["fallback"].as_bool()),
        (Some("nothing"), Some(true))
    );
    let line = "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100 --json";
    let run = w.job("evaluate", line).succeeds();
    assert!(run.stderr.contains("--no-guard"), "{}", run.stderr);
    let found = run.json();
    assert_eq!(found["prompt_tuned"], found["zero_shot"]);
    assert_eq!(found["adapted_tokens"], serde_json::Value::Null);
    // the prompts are there all the same, and a loss of image scores brings its scorer along
    let found = w
        .job("evaluate", &format!("{line} --no-guard"))
        .succeeds()
        .json();
    assert!(
        found["adapted_tokens"]["bank"]["prompt_tuned"]["auroc"].is_number(),
        "{found}"
    );
    let scores = fs::read_to_string(w.out().join("cloth_scores.csv")).unwrap();
    let header = scores.lines().next().unwrap();
    assert!(
        header.ends_with("zero_shot_bank,adapted_bank,frozen_ensemble,adapted_ensemble"),
        "{header}"
    );
    assert!(
        scores
            .lines()
            .skip(1)
            .any(|l| l.split(',').nth(2) != l.split(',').nth(3)),
        "{scores}"
    );
    // without a guard no verdict is recorded
    let run = w.job("train", &format!("{train} --no-guard")).succeeds();
    assert_eq!(run.json()["guard"], serde_json::Value::Null);
    let run = w.job("evaluate", line).succeeds();
    assert_eq!(run.json()["prompt_guard"], serde_json::Value::Null);
}

#[test]
fn cross_validation_chooses_the_epoch_and_trains_on_every_shot() {
    let w = World::new();
    let line = "--num-epochs 3 --patience 0 --num-defect-samples 5 --guard-folds 3 --no-ensemble --json --output-dir {}/";
    let run = w.job("train", &format!("{line}out")).succeeds();
    let found = run.json();
    let guard = &found["guard"];
    assert_eq!(
        (guard["evidence"].as_str(), guard["folds"].as_u64()),
        (Some("cross-validation"), Some(3))
    );
    assert_eq!(
        guard["epoch"], found["epochs_done"],
        "training ends at the epoch chosen"
    );
    assert!(
        run.stderr.contains("3 shots train, 2 are left out"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("and 5 defect images"), "{}", run.stderr);
    assert_eq!(
        w.written(),
        ["cloth_history.json", "cloth_prompts.pt"],
        "the parts are cleaned up"
    );
    w.job("train", &format!("{line}again --threads 1"))
        .succeeds();
    let bytes = |folder: &str| fs::read(w.path(folder).join("cloth_prompts.pt")).unwrap();
    assert!(
        bytes("out") == bytes("again"),
        "other bytes with one thread"
    );
    w.job("train", &format!("{line}out --holdout-fraction 0"))
        .refuses(&["--guard-folds", "--holdout-fraction"]);
}

#[cfg(unix)]
#[test]
fn parts_of_a_cross_validation_survive_an_interrupt() {
    let w = World::new();
    let options = "--num-epochs 400 --patience 0 --num-prompts 2 --prompt-depth shallow --num-defect-samples 4 \
                   --batch-size 2 --guard-folds 2 --no-ensemble";
    // into the second part: 400 steps are shown every tenth at least
    let first = format!("{options} --output-dir {{}}/out");
    let (code, text) = crate::interrupt::interrupted(&w, &first, 401);
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("repeat the command"), "{text}");
    assert_eq!(w.written(), ["cloth_folds.json"]);
    let run = w.job("train", &first).succeeds();
    assert!(
        !run.stderr.contains("part 1 of 2"),
        "the first part is done: {}",
        run.stderr
    );
    assert!(run.stderr.contains("part 2 of 2"), "{}", run.stderr);
    w.job("train", &format!("{options} --output-dir {{}}/whole"))
        .succeeds();
    let bytes = |folder: &str| fs::read(w.path(folder).join("cloth_prompts.pt")).unwrap();
    assert!(
        bytes("out") == bytes("whole"),
        "the file differs from that of a run in one go"
    );
}
