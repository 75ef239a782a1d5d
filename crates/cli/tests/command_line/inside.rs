//! Training inside the transformer: prompts, adapters, learned factors, from the command line and back.

use std::fs;

use crate::world::{World, read_json};

#[test]
fn every_kind_trains_evaluates_and_says_what_it_holds() {
    let w = World::new();
    // the tiny backbone has 3 blocks of 64 numbers a token
    for (flags, trained, tensors) in [
        ("--prompt-depth shallow", 3 * 64, &["vpt.prompts"][..]),
        (
            "--prompt-depth deep --prompt-init patches --prompt-dropout 0.2",
            3 * 3 * 64,
            &["vpt.prompts"],
        ),
        (
            "--use-adapters --adapter-dim 2 --loss-type contrastive",
            3 * (2 * 64 * 2 + 2),
            &[
                "adapters.down.weight",
                "adapters.down.bias",
                "adapters.up.weight",
            ],
        ),
        (
            "--prompt-depth shallow --learn-scaling channel --use-adapters --use-cls --modulation-type per_patch",
            (3 + 1) * 64 + 3 * (2 * 64 * 6 + 6 + 64) + 3 * 64 + 3 + 64,
            &[
                "vpt.prompts",
                "vpt.scales",
                "adapters.scales",
                "prompts",
                "residual_scale",
            ],
        ),
    ] {
        let line = format!(
            "--num-epochs 2 --num-prompts 3 --batch-size 4 --output-dir {{}}/out --json {flags}"
        );
        let run = w.job("train", &line).succeeds();
        assert_eq!(run.json()["trainable"], trained, "{flags}: {}", run.stdout);
        let checkpoint = w.out().join("cloth_prompts.pt");
        let first = fs::read(&checkpoint).unwrap();
        w.job("train", &format!("{line} --threads 1")).succeeds();
        assert!(
            first == fs::read(&checkpoint).unwrap(),
            "{flags}: other bytes with one thread"
        );

        let info = w.run("info {}/out/cloth_prompts.pt").succeeds();
        for name in tensors {
            assert!(info.stdout.contains(name), "{name}: {}", info.stdout);
        }
        let line = format!(
            "--checkpoint {} --output-dir {{}}/out --bootstrap 100 --json",
            checkpoint.display()
        );
        let run = w.job("evaluate", &line).succeeds();
        let found = run.json();
        assert_eq!(found, read_json(&w.out().join("cloth_comparison.json")));
        let auroc = |part: &str| found[part]["auroc"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&auroc("prompt_tuned")), "{found}");
        // the untouched model's numbers do not depend on what was trained
        let baseline = w
            .job("baseline", "--output-dir {}/base --bootstrap 100 --json")
            .succeeds()
            .json();
        if !flags.contains("--use-cls") {
            assert_eq!(
                baseline["scorers"][0]["auroc"], found["zero_shot"]["auroc"],
                "{flags}"
            );
        }
    }
}

#[test]
fn combinations_that_make_no_sense() {
    let w = World::new();
    let train = |rest: &str| w.job("train", &format!("--output-dir {{}}/out {rest}"));
    train("--adapter-dim 4").refuses(&["--use-adapters"]);
    train("--use-adapters --adapter-dim 0").refuses(&["--adapter-dim"]);
    train("--scaling-penalty 2").refuses(&["--scaling-penalty", "--learn-scaling"]);
    train("--scaling-penalty=-1 --learn-scaling scalar").refuses(&["--scaling-penalty", "-1"]);
    train("--prompt-dropout 0.1").refuses(&["--prompt-dropout is 0.1", "--prompt-depth"]);
    train("--prompt-depth deep --prompt-dropout 1").refuses(&["--prompt-dropout is 1", "below 1"]);
    train("--prompt-init patches --use-adapters")
        .refuses(&["--prompt-init is patches", "--prompt-depth"]);
    train("--prompt-depth sideways").refuses(&["--prompt-depth", "shallow"]);
    train("--prompt-depth shallow --preset original").refuses(&["--preset original"]);
    train("--prompt-depth shallow --scaling-factor 0.1")
        .refuses(&["--scaling-factor", "--modulation-type"]);
    train("--prompt-depth shallow --layers 0,-1").refuses(&["--layers [0, -1]", "one"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}
