//! One set of prompts for several categories: trained together, averaged, merged, and tested on categories never seen.

use std::fs;

use flawtune_backbone::torch_file;

use crate::world::{drawn, drawn_and_backbone as backbone, read_json};

fn train(rest: &str) -> String {
    format!(
        "train {} --num-epochs 2 --num-prompts 3 --batch-size 4 --num-defect-samples 5 {rest}",
        backbone()
    )
}

#[test]
fn joint_prompts_train_and_are_tested_on_their_categories_and_on_others() {
    let w = drawn();
    let line =
        train("--categories flange,twill --universal joint --output-dir {}/out --json --no-guard");
    let found = w.run(&line).succeeds().json();
    assert_eq!(found["categories"], serde_json::json!(["flange", "twill"]));
    assert_eq!(
        w.written(),
        ["universal_history.json", "universal_prompts.pt"]
    );
    let checkpoint = w.out().join("universal_prompts.pt");
    let first = fs::read(&checkpoint).unwrap();
    w.run(&format!("{line} --threads 1")).succeeds();
    assert!(
        first == fs::read(&checkpoint).unwrap(),
        "other bytes with one thread"
    );

    let evaluate = |category: &str| {
        let line = format!(
            "evaluate {} --category {category} --checkpoint {} --output-dir {{}}/out --bootstrap 100 --json",
            backbone(),
            checkpoint.display()
        );
        w.run(&line).succeeds()
    };
    // 16 defects less a pool of 10 for its own categories: the shots are not tested
    for (category, shots) in [("flange", 5), ("twill", 5), ("gravel", 5)] {
        let run = evaluate(category);
        let never_seen = run
            .stderr
            .contains("was trained on flange, twill, not on gravel");
        assert_eq!(never_seen, category == "gravel", "{}", run.stderr);
        let found = run.json();
        assert_eq!(found["category"], category);
        assert_eq!(found["shots"], shots, "{found}");
        assert_eq!(found["protocol"], "held-out");
        let baseline = w
            .run(&format!(
                "baseline {} --category {category} --output-dir {{}}/base --bootstrap 100 --json",
                backbone()
            ))
            .succeeds()
            .json();
        assert_eq!(
            baseline["test_set_hash"], found["test_set_hash"],
            "{category}: another test set"
        );
    }
    // a program of before sees no split manifest and tests nothing but by the leaky protocol
    let file = torch_file::read(&checkpoint).unwrap();
    assert!(matches!(
        file.get("split_manifest"),
        Some(torch_file::Value::None)
    ));
    assert!(file.get("split_manifests").is_some() && file.get("universal").is_some());
}

#[test]
fn averaged_prompts_are_the_mean_of_those_trained_apart() {
    let w = drawn();
    let line = train(
        "--categories flange,twill --universal average --no-ensemble --output-dir {}/out --json",
    );
    w.run(&line).succeeds();
    let merge = "merge {}/out/flange_prompts.pt {}/out/twill_prompts.pt --json";
    let merged = w
        .run(&format!("{merge} --output {{}}/merged.pt"))
        .succeeds()
        .json();
    assert_eq!(merged["agreement"][0]["weight"], 0.5);
    let prompts = |name: &str| {
        let file = torch_file::read(&w.path(name)).unwrap();
        file.get("prompts")
            .and_then(torch_file::Value::as_tensor)
            .unwrap()
            .to_f32()
    };
    let (a, b) = (
        prompts("out/flange_prompts.pt"),
        prompts("out/twill_prompts.pt"),
    );
    assert_ne!(a, b);
    let mean = prompts("out/universal_prompts.pt");
    assert_eq!(mean, prompts("merged.pt"));
    for ((m, a), b) in mean.iter().zip(&a).zip(&b) {
        assert!((m - 0.5 * (a + b)).abs() < 1e-7);
    }
    w.run(&format!(
        "{merge} --how weighted --weights 1,0 --output {{}}/first.pt"
    ))
    .succeeds();
    assert_eq!(prompts("first.pt"), a);
    w.run(&format!("{merge} --how aligned --output {{}}/aligned.pt"))
        .succeeds();
    // repeated with --resume, what is done is not done again
    let again = w.run(&format!("{line} --resume")).succeeds();
    assert_eq!(
        again.stderr.matches("done before").count(),
        2,
        "{}",
        again.stderr
    );
    let evaluate = format!(
        "evaluate {} --category gravel --checkpoint {{}}/aligned.pt --output-dir {{}}/out --bootstrap 100",
        backbone()
    );
    w.run(&evaluate).succeeds();
    assert_eq!(
        read_json(&w.out().join("gravel_comparison.json"))["category"],
        "gravel"
    );
}

#[test]
fn what_cannot_be_trained_or_merged_together_is_refused() {
    let w = drawn();
    let refuses = |rest: &str, parts: &[&str]| {
        w.run(&train(&format!("--output-dir {{}}/out {rest}")))
            .refuses(parts);
    };
    refuses("--categories flange,twill", &["--universal"]);
    refuses("--categories flange --universal joint", &["at least two"]);
    refuses(
        "--categories flange,flange --universal joint",
        &["flange twice"],
    );
    refuses("--categories flange,twil --universal joint", &["twil"]);
    refuses(
        "--categories flange,twill --universal joint --use-adapters",
        &["inside the transformer"],
    );
    refuses(
        "--categories flange,twill --universal joint --guard-folds 2",
        &["--guard-folds"],
    );
    refuses(
        "--categories flange,twill --universal sideways",
        &["joint", "average"],
    );
    refuses(
        "--categories flange,twill --universal joint --resume",
        &["nothing to resume"],
    );
    assert!(w.written().is_empty(), "{:?}", w.written());
    w.run(&train(
        "--category flange --no-ensemble --output-dir {}/out",
    ))
    .succeeds();
    w.run(
        &train("--category twill --no-ensemble --num-prompts 2 --output-dir {}/out")
            .replace("--num-prompts 3", ""),
    )
    .succeeds();
    let merge = |rest: &str| {
        w.run(&format!(
            "merge {{}}/out/flange_prompts.pt {rest} --output {{}}/merged.pt"
        ))
    };
    merge("").refuses(&["CHECKPOINT"]);
    merge("{}/none.pt").refuses(&["none.pt"]);
    merge("{}/out/twill_prompts.pt").refuses(&["prompts", "shape"]);
    merge("{}/out/flange_prompts.pt --weights 1,1").refuses(&["--how weighted"]);
    merge("{}/out/flange_prompts.pt --how weighted --weights 1").refuses(&["one number from 0"]);
    assert!(!w.path("merged.pt").exists());
}
