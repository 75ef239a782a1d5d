//! More views of the shots.

use std::fs;

use crate::world::{World, read_json};

#[test]
fn views_train_but_are_no_shots_and_are_never_held_out() {
    let w = World::new();
    for (kind, folder) in [
        ("--epoch one", "out"),
        ("--use-adapters --adapter-dim 2", "inside"),
    ] {
        let line = format!(
            "--num-epochs 2 --num-prompts 2 --batch-size 4 --num-defect-samples 5 --no-ensemble \
             --augment-defects synthetic,flips,flips --output-dir {{}}/{folder} --json {kind}"
        );
        let run = w.job("train", &line).succeeds();
        // one of the five shots is held out: four of them with three views each, and five synthetic defects
        assert!(
            run.stderr
                .contains("and 21 defect images; 2 normal and 1 defect"),
            "{}",
            run.stderr
        );
        assert_eq!(
            fs::read_dir(w.path(folder).join("cloth_views"))
                .unwrap()
                .count(),
            5 * 3 + 5
        );
        let checkpoint = w.path(folder).join("cloth_prompts.pt");
        let first = fs::read(&checkpoint).unwrap();
        let info = w
            .run(&format!("info {{}}/{folder}/cloth_prompts.pt"))
            .succeeds();
        assert!(info.stdout.contains("augment_defects"), "{}", info.stdout);
        w.job("train", &format!("{line} --threads 1")).succeeds();
        assert!(
            first == fs::read(&checkpoint).unwrap(),
            "{kind}: other bytes with one thread"
        );
        let evaluate = format!(
            "--checkpoint {} --output-dir {{}}/{folder} --bootstrap 100",
            checkpoint.display()
        );
        w.job("evaluate", &evaluate).succeeds();
        assert_eq!(
            read_json(&w.path(folder).join("cloth_comparison.json"))["shots"],
            5
        );
    }
    w.job("train", "--augment-defects mirror --output-dir {}/out")
        .refuses(&["\"mirror\"", "flips", "none"]);
}

#[test]
fn a_part_left_out_of_cross_validation_takes_its_views_along() {
    let w = World::new();
    let line = "--num-epochs 1 --num-defect-samples 4 --guard-folds 2 --no-ensemble --augment-defects photometric \
                --output-dir {}/out";
    let run = w.job("train", line).succeeds();
    assert!(
        run.stderr.contains("2 shots train, 2 are left out"),
        "{}",
        run.stderr
    );
    // two shots with two views each in a part, all four in the end
    assert_eq!(
        run.stderr.matches("and 6 defect images").count(),
        2,
        "{}",
        run.stderr
    );
    assert_eq!(
        run.stderr.matches("and 12 defect images").count(),
        1,
        "{}",
        run.stderr
    );
}
