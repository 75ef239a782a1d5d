//! Studies: tables, going on after a kill, failures, wrong grids.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::world::{World, data_and_backbone, read_json};

const STUDY: &str = "--grid num-prompts=2,3 --grid loss-type=separability,contrastive --seeds 2 --set num-epochs=3 \
                     --set num-defect-samples=4 --bootstrap 100";

fn study(out: &str, rest: &str) -> String {
    format!(
        "ablate {} --output-dir {{}}/{out} {rest}",
        data_and_backbone()
    )
}

fn tables(out: &str, w: &World) -> Vec<(String, String)> {
    ["runs.csv", "runs.jsonl", "summary.csv", "summary.md"]
        .map(|name| {
            (
                name.to_owned(),
                fs::read_to_string(w.path(out).join(name)).unwrap(),
            )
        })
        .into()
}

fn results(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|e| e.unwrap().path())
        .map(|p| {
            if p.is_dir() {
                results(&p)
            } else {
                usize::from(p.ends_with("result.json"))
            }
        })
        .sum()
}

#[test]
fn a_grid_gives_a_row_a_run_and_what_evaluate_says_of_each() {
    let w = World::new();
    let run = w.run(&study("study", STUDY)).succeeds();
    assert!(run.stderr.contains("8 runs"), "{}", run.stderr);
    // images are extracted once, by nobody but the study
    assert_eq!(
        run.stdout.matches("prompt_tuned").count(),
        4,
        "{}",
        run.stdout
    );
    let runs = fs::read_to_string(w.path("study/runs.csv")).unwrap();
    let mut lines = runs.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("category,seed,num-prompts,loss-type,status,protocol,shots")
    );
    assert_eq!(lines.clone().count(), 8);
    assert!(lines.all(|l| l.contains(",finished,held-out,4,")));
    for plot in [
        "num-prompts",
        "num-prompts_difference",
        "loss-type",
        "loss-type_difference",
    ] {
        let svg = fs::read_to_string(w.path(&format!("study/plots/cloth_{plot}.svg"))).unwrap();
        assert!(svg.contains("</svg>") && !svg.contains("NaN"), "{plot}");
    }

    // the same numbers as by hand
    let folder = "study/runs/cloth/num-prompts=3,loss-type=contrastive/seed-1";
    let hand =
        "--num-prompts 3 --loss-type contrastive --seed 1 --num-epochs 3 --num-defect-samples 4";
    w.job(
        "train",
        &format!("{hand} --no-ensemble --output-dir {{}}/hand"),
    )
    .succeeds();
    w.run(
        "evaluate --category cloth --root-dir {}/data --checkpoint {}/hand/cloth_prompts.pt --no-guard --bootstrap 100 \
         --output-dir {}/hand",
    )
    .succeeds();
    for file in ["cloth_scores.csv", "cloth_history.json"] {
        let read = |folder: &str| fs::read(w.path(folder).join(file)).unwrap();
        assert!(
            read(folder) == read("hand"),
            "{file} differs from that of a run by hand"
        );
    }
    let result = read_json(&w.path(folder).join("result.json"));
    let comparison = read_json(&w.path("hand/cloth_comparison.json"));
    assert_eq!(result["scorers"][1]["scorer"], "prompt_tuned");
    assert_eq!(
        result["scorers"][1]["auroc"],
        comparison["prompt_tuned"]["auroc"]
    );
    assert_eq!(
        result["comparison"]["auroc"],
        comparison["improvement"]["auroc"]
    );

    // nothing is repeated; a wider grid adds runs
    let again = w.run(&study("study", STUDY)).succeeds();
    assert!(
        again.stderr.contains("8 of 8 runs are over already"),
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, run.stdout);
    let wider = STUDY.replace("num-prompts=2,3", "num-prompts=2,3,4");
    let wider = w.run(&study("study", &wider)).succeeds();
    assert!(
        wider.stderr.contains("8 of 12 runs are over already"),
        "{}",
        wider.stderr
    );
    // another option makes other results, which must not be mixed with these
    let other = STUDY.replace("num-epochs=3", "num-epochs=2");
    w.run(&study("study", &other))
        .refuses(&["result.json", "other options", "--output-dir"]);
}

#[test]
fn neither_the_number_of_runs_at_once_nor_a_plan_changes_a_table() {
    let w = World::new();
    w.run(&study("one", &format!("{STUDY} --jobs 1 --threads 1")))
        .succeeds();
    fs::write(
        w.path("plan.toml"),
        "categories = ['cloth']\nseeds = [0, 1]\n[options]\nnum-epochs = 3\nnum-defect-samples = 9\n\
         [grid]\nnum-prompts = [2, 3]\nloss-type = ['separability', 'contrastive']\n",
    )
    .unwrap();
    let planned =
        "--plan {}/plan.toml --set num-defect-samples=4 --bootstrap 100 --jobs 3 --threads 2";
    w.run(&study("three", planned)).succeeds();
    assert_eq!(tables("one", &w), tables("three", &w));
}

/// More runs than ten kills let finish.
const RUNS: usize = 64;

#[test]
#[cfg(unix)]
fn a_study_killed_at_ten_moments_gives_the_table_of_one_in_one_go() {
    let w = World::new();
    let grid = "--grid num-prompts=2,3,4,5 --grid num-defect-samples=2,3,4,5 --seeds 4 --set num-epochs=2 \
                --set patience=0 --bootstrap 100 --jobs 2 --threads 2";
    w.run(&study("whole", grid)).succeeds();

    // moments drawn from a fixed sequence: some runs further on, or while none is over yet, and a little later
    let mut noise = flawtune_testing::SmallNoise(7);
    let mut draw = |below: u32| (noise.word() >> 16) % below;
    let mut found = 0;
    for kill in 0..10 {
        let (runs, pause) = (draw(3), u64::from(draw(25)));
        let mut command = w.command(&study("killed", grid));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        if runs == 0 {
            std::thread::sleep(Duration::from_millis(4 * pause));
        }
        for _ in 0..runs {
            assert!(
                lines.any(|line| line.unwrap().starts_with("run ")),
                "kill {kill}: the study ended by itself"
            );
        }
        std::thread::sleep(Duration::from_millis(pause));
        assert!(
            child.try_wait().unwrap().is_none(),
            "kill {kill}: the study ended by itself"
        );
        // SIGKILL: nothing of the process runs any more
        child.kill().unwrap();
        child.wait().unwrap();
        let over = results(&w.path("killed/runs"));
        assert!(
            over >= found + runs as usize,
            "kill {kill}: a result was lost"
        );
        found = over;
    }
    assert!(found < RUNS, "the last study had nothing left to do");
    let last = w.run(&study("killed", grid)).succeeds();
    assert!(
        last.stderr
            .contains(&format!("{found} of {RUNS} runs are over already")),
        "{}",
        last.stderr
    );
    let repeated = last
        .stderr
        .lines()
        .filter(|line| line.starts_with("run "))
        .count();
    assert_eq!(repeated, RUNS - found, "a run was repeated or left out");
    assert_eq!(tables("killed", &w), tables("whole", &w));
    assert_eq!(results(&w.path("killed/runs")), RUNS);
}

#[test]
fn a_run_that_fails_is_recorded_and_the_others_go_on() {
    let w = World::new();
    // the world has 14 defects
    let grid = "--grid num-defect-samples=4,99 --seeds 2 --set num-epochs=2 --bootstrap 100";
    let run = w.run(&study("study", grid));
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stderr.contains("2 of 4 runs failed") && run.stderr.contains("--retry-failed"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout
            .contains("failed: cloth num-defect-samples=99 seed 0: "),
        "{}",
        run.stdout
    );
    let runs = fs::read_to_string(w.path("study/runs.csv")).unwrap();
    assert_eq!(
        runs.lines().filter(|l| l.contains(",finished,")).count(),
        2,
        "{runs}"
    );
    assert_eq!(
        runs.lines().filter(|l| l.contains(",failed,")).count(),
        2,
        "{runs}"
    );
    let again = w.run(&study("study", grid));
    assert!(
        again.stderr.contains("4 of 4 runs are over already"),
        "{}",
        again.stderr
    );
    let retried = w.run(&study("study", &format!("{grid} --retry-failed")));
    assert_eq!((retried.code, retried.stdout), (Some(1), run.stdout));
}

#[test]
fn wrong_grids_are_refused_before_anything_runs() {
    let w = World::new();
    for (rest, parts) in [
        ("--grid num-promts=5", &["num-promts", "--num-prompts"][..]),
        (
            "--grid num-prompts=5,x",
            &["num-prompts=x", "--num-prompts"],
        ),
        (
            "--grid num-prompts=5 --set num-prompts=6",
            &["num-prompts", "omit one"],
        ),
        ("--grid seed=1,2", &["seed", "--seeds"]),
        ("--grid image-size=32", &["image-size", "omit one"]),
        ("--set use-cls=yes", &["use-cls=yes", "true or false"]),
        ("--set output-dir=x", &["output-dir"]),
        ("--plan {}/none.toml", &["none.toml", "--plan"]),
        ("--category cloth,wood --grid num-prompts=2", &["wood"]),
    ] {
        let line = study("study", rest);
        let line = if rest.contains("--category") {
            line.replacen("--category cloth ", "", 1)
        } else {
            line
        };
        w.run(&line).refuses(parts);
        assert!(!w.path("study/runs").exists(), "{rest}");
    }
    let clap = w.run(&study("study", "--grid num-prompts"));
    assert_eq!(clap.code, Some(2));
    assert!(clap.stderr.contains("NAME=VALUE"), "{}", clap.stderr);
    fs::write(w.path("plan.toml"), "[grid]\nnum-prompts = 3\n").unwrap();
    w.run(&study("study", "--plan {}/plan.toml")).refuses(&[
        "plan.toml",
        "grid.num-prompts",
        "list",
    ]);
}

#[test]
fn every_category_under_the_root_is_taken_where_none_is_named() {
    let w = World::new();
    let copy = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp")
            .arg("-r")
            .args([from, to])
            .status()
            .unwrap();
        assert!(status.success());
    };
    copy(&w.root().join("cloth"), &w.root().join("wool"));
    let line = study(
        "study",
        "--seeds 1 --set num-epochs=2 --bootstrap 100 --json --set num-defect-samples=3",
    )
    .replacen("--category cloth ", "", 1);
    let run = w.run(&line).succeeds();
    let summary = run.json();
    let categories: Vec<&str> = summary["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["category"].as_str().unwrap())
        .collect();
    assert_eq!(categories, ["cloth", "cloth", "wool", "wool"]);
}
