//! Prompts for each known defect type: trained, named, scored.

use std::fs;

use serde_json::Value as Json;

use crate::world::{World, read_json};

fn evaluated(w: &World) -> Json {
    let line = "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100 --json";
    let found = w.job("evaluate", line).succeeds().json();
    assert_eq!(found, read_json(&w.out().join("cloth_comparison.json")));
    found
}

#[test]
fn types_are_trained_named_and_counted() {
    let w = World::new();
    let line = "--num-epochs 2 --num-prompts 3 --batch-size 4 --num-defect-samples 8 --hierarchy type --type-prompts 2 \
                --no-ensemble --output-dir {}/out --json";
    let trained = w.job("train", line).succeeds().json();
    let shots = &trained["types"];
    assert_eq!(
        shots["hole"].as_u64().unwrap() + shots["stain"].as_u64().unwrap(),
        8,
        "{trained}"
    );
    let checkpoint = w.out().join("cloth_prompts.pt");
    let first = fs::read(&checkpoint).unwrap();
    w.job("train", &format!("{line} --threads 1")).succeeds();
    assert!(
        first == fs::read(&checkpoint).unwrap(),
        "other bytes with one thread"
    );

    let found = evaluated(&w);
    let levels = &found["hierarchy"];
    assert_eq!(levels["types"], *shots);
    // every tested image is in the table once: 6 good and 14 defects less the pool of 10
    let rows = levels["confusion"].as_object().unwrap();
    let sum = |row: &Json| {
        row.as_object()
            .unwrap()
            .values()
            .map(|n| n.as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(rows.values().map(sum).sum::<u64>(), 6 + 4, "{levels}");
    assert_eq!(sum(&rows["good"]), 6);
    assert_eq!(levels["named"]["of"], 4);
    assert_eq!(levels["unseen_left"], Json::Null, "there is no unseen type");
    // what is said of an image is in the table of images
    let table = fs::read_to_string(w.out().join("cloth_types.csv")).unwrap();
    assert!(
        table.starts_with("image,defect_type,assigned,response_hole,response_stain\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 1 + 10);
    let hole_as_hole = table.lines().filter(|l| l.contains(",hole,hole,")).count() as u64;
    assert_eq!(
        rows["hole"].get("hole").map_or(0, |n| n.as_u64().unwrap()),
        hole_as_hole
    );
    let scores = fs::read_to_string(w.out().join("cloth_scores.csv")).unwrap();
    assert!(
        scores.lines().next().unwrap().contains("hierarchical_bank"),
        "{scores}"
    );
    let told = w
        .job(
            "evaluate",
            "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100",
        )
        .succeeds();
    assert!(
        told.stdout.contains("assigned →") && told.stdout.contains("named right"),
        "{}",
        told.stdout
    );
}

#[test]
fn one_shot_works_and_unseen_types_have_the_shared_prompts() {
    let w = World::new();
    let line = "--num-epochs 2 --num-prompts 3 --batch-size 4 --num-defect-samples 1 --hierarchy type --protocol hard \
                --defect-type hole --pool-size 4 --no-ensemble --output-dir {}/out";
    w.job("train", line).succeeds();
    let found = evaluated(&w);
    let levels = &found["hierarchy"];
    assert_eq!(levels["types"], serde_json::json!({"hole": 1}));
    // stains were never seen: all of them are counted as such
    assert_eq!(levels["unseen_left"]["of"], 7, "{levels}");
    assert_eq!(levels["named"], Json::Null);
}

#[test]
fn combinations_that_make_no_sense() {
    let w = World::new();
    let train = |rest: &str| w.job("train", &format!("--output-dir {{}}/out {rest}"));
    train("--type-prompts 2").refuses(&["--type-prompts", "--hierarchy type"]);
    train("--hierarchy sideways").refuses(&["--hierarchy", "type"]);
    train("--hierarchy type --use-cls").refuses(&["--hierarchy", "--use-cls"]);
    train("--hierarchy type --use-adapters").refuses(&["--hierarchy", "--use-adapters"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}
