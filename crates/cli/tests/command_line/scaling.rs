//! Self-scaling: learned factors on what the output modulation adds.

use serde_json::Value as Json;

use crate::world::World;

/// The learned scales of a training, by name.
fn scales(found: &Json, name: &str) -> Json {
    let all = found["scales"].as_array().unwrap();
    all.iter()
        .find(|s| s["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {found}"))
        .clone()
}

#[test]
fn the_factor_trains_is_kept_and_counts() {
    let w = World::new();
    for (how, count) in [("scalar", 1), ("channel", 64)] {
        for modulation in ["per_patch", "learned_transform", "global"] {
            let line = format!(
                "--num-epochs 3 --num-prompts 3 --batch-size 4 --num-defect-samples 4 --holdout-fraction 0 --no-guard \
                 --learn-scaling {how} --modulation-type {modulation} --no-ensemble --output-dir {{}}/out"
            );
            let found = w.job("train", &format!("{line} --json")).succeeds().json();
            assert_eq!(
                found["trainable_by_tensor"]["residual_scale"], count,
                "{found}"
            );
            let residual = scales(&found, "residual_scale");
            assert_eq!(residual["count"], count);
            assert_eq!(residual["start"], 1.0);
            assert_ne!(residual["mean"], 1.0, "{modulation}: nothing was learned");
            assert_eq!(scales(&found, "prompt_scales")["count"], 3);
            let info = w
                .run("info {}/out/cloth_prompts.pt --json")
                .succeeds()
                .stdout;
            assert!(info.contains("residual_scale"), "{info}");
            // an older program would leave the factor out and score something else: it must refuse
            assert!(info.contains("\"format_version\":\"3\""), "{info}");
            let checkpoint =
                "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100 --json";
            w.job("evaluate", checkpoint).succeeds();
        }
    }
    let told = w
        .job(
            "train",
            "--num-epochs 1 --learn-scaling scalar --output-dir {}/out",
        )
        .succeeds();
    assert!(
        told.stderr.contains("scales: ") && told.stderr.contains("residual_scale 1 → "),
        "{}",
        told.stderr
    );
}

#[test]
fn the_penalty_holds_it_near_its_start() {
    let w = World::new();
    let moved = |penalty: &str| {
        let line = format!(
            "--num-epochs 30 --learning-rate 0.02 --num-prompts 3 --num-defect-samples 1 --modulation-type per_patch \
             --epoch one --learn-scaling scalar {penalty} --no-ensemble --output-dir {{}}/out --json"
        );
        let found = w.job("train", &line).succeeds().json();
        (scales(&found, "residual_scale")["mean"].as_f64().unwrap() - 1.0).abs()
    };
    let (free, held, default) = (
        moved("--scaling-penalty 0"),
        moved("--scaling-penalty 1000"),
        moved(""),
    );
    assert!(held < 0.2 * free, "free {free}, held {held}");
    assert!(default <= free, "free {free}, by default {default}");
}
