//! Masks that say where the flaws of the shots are, in training.

use std::fs;

use crate::world::World;

#[test]
fn losses_of_scores_look_for_the_flaw_under_the_mask() {
    let w = World::new();
    let line = |folder: &str, more: &str| {
        format!(
            "--num-epochs 2 --num-prompts 2 --batch-size 4 --num-defect-samples 5 --no-ensemble --loss-type ranking \
             --output-dir {{}}/{folder} {more}"
        )
    };
    let losses = |folder: &str| {
        let history = fs::read_to_string(w.path(folder).join("cloth_history.json")).unwrap();
        let history: serde_json::Value = serde_json::from_str(&history).unwrap();
        history["loss"].as_array().unwrap().clone()
    };
    w.job("train", &line("off", "")).succeeds();
    // no masks: said, and the same training
    let run = w
        .job("train", &line("none", "--shot-masks auto"))
        .succeeds();
    assert!(
        run.stderr.contains("no shot has a ground-truth mask"),
        "{}",
        run.stderr
    );
    assert_eq!(losses("none"), losses("off"));

    w.add_masks();
    for (folder, how) in [
        ("masked", "--epoch one"),
        ("inside", "--use-adapters --adapter-dim 2"),
    ] {
        w.job("train", &line(&format!("{folder}_off"), how))
            .succeeds();
        let masked = line(folder, &format!("{how} --shot-masks auto"));
        w.job("train", &masked).succeeds();
        assert_ne!(losses(folder), losses(&format!("{folder}_off")), "{how}");
        let checkpoint = w.path(folder).join("cloth_prompts.pt");
        let first = fs::read(&checkpoint).unwrap();
        w.job("train", &format!("{masked} --threads 1")).succeeds();
        assert!(
            first == fs::read(&checkpoint).unwrap(),
            "{how}: other bytes with one thread"
        );
        let info = w
            .run(&format!("info {{}}/{folder}/cloth_prompts.pt --json"))
            .succeeds()
            .json();
        assert_eq!(info["entries"]["shot_masks"], "5", "{info}");
        let evaluate = format!(
            "--checkpoint {} --output-dir {{}}/{folder} --bootstrap 100",
            checkpoint.display()
        );
        w.job("evaluate", &evaluate).succeeds();
    }
}

#[test]
fn masks_are_refused_where_they_would_say_nothing() {
    let w = World::new();
    for (options, part) in [
        ("", "--loss-type ranking or logistic"),
        ("--loss-type contrastive", "--loss-type ranking or logistic"),
        ("--loss-type ranking --use-cls", "--use-cls"),
        ("--loss-type ranking --hierarchy type", "--hierarchy"),
        ("--loss-type logistic --universal joint", "--universal"),
    ] {
        w.job(
            "train",
            &format!("--output-dir {{}}/out --shot-masks auto {options}"),
        )
        .refuses(&["--shot-masks auto", part]);
    }
}
