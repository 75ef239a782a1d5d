//! What `run.json` says of the runs that wrote into a folder.
#![cfg(unix)]

use std::fs;

use serde_json::{Value as Json, json};

use crate::interrupt::interrupted;
use crate::world::{CATEGORY, TEST_GOOD, TEST_PER_TYPE, TRAIN_GOOD, World, read_json};

fn runs(w: &World) -> Vec<Json> {
    let file = read_json(&w.out().join("run.json"));
    assert_eq!(file["format"], 1);
    file["runs"].as_array().unwrap().clone()
}

fn find(w: &World, command: &str) -> Json {
    runs(w)
        .into_iter()
        .find(|r| r["command"] == command)
        .unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story from end to end")]
fn every_command_leaves_its_record() {
    let w = World::new();
    let checkpoint = w.trained("--seed 3 --threads 2");
    let train = find(&w, "train");
    assert_eq!(train["outcome"], "finished");
    assert_eq!(train["category"], CATEGORY);
    assert_eq!((&train["seed"], &train["threads"]), (&json!(3), &json!(2)));
    assert_eq!(train["versions"]["flawtune"], env!("CARGO_PKG_VERSION"));
    assert_eq!(train["arguments"][0], "train");
    assert!(train["machine"]["physical_cores"].as_u64().unwrap() >= 1);
    assert!(
        train["started"].as_str().unwrap().ends_with('Z'),
        "{}",
        train["started"]
    );
    if cfg!(target_os = "linux") {
        assert!(train["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }

    // the hash over all images, computed here once more
    let mut all = Vec::new();
    for folder in ["train/good", "test/good", "test/hole", "test/stain"] {
        for entry in fs::read_dir(w.sample(folder)).unwrap() {
            let path = entry.unwrap().path();
            let hash = blake3::hash(&fs::read(&path).unwrap());
            let id = path
                .strip_prefix(w.sample(""))
                .unwrap()
                .display()
                .to_string();
            assert_eq!(
                train["data"]["image_hashes"][&id],
                hash.to_hex()[..32],
                "{id}"
            );
            all.push(*hash.as_bytes());
        }
    }
    all.sort_unstable();
    assert_eq!(
        train["data"]["images"],
        TRAIN_GOOD + TEST_GOOD + 2 * TEST_PER_TYPE
    );
    assert_eq!(
        train["data"]["hash"],
        blake3::hash(&all.concat()).to_hex().as_str()
    );

    let outputs = train["outputs"].as_array().unwrap();
    let names: Vec<&str> = outputs
        .iter()
        .map(|o| o["path"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["cloth_history.json", "cloth_prompts.pt"]);
    let bytes = fs::read(&checkpoint).unwrap();
    assert_eq!(outputs[1]["bytes"], bytes.len());
    assert_eq!(outputs[1]["blake3"], blake3::hash(&bytes).to_hex().as_str());
    let timings = train["timings"].as_object().unwrap();
    for part in [
        "images", "weights", "features", "training", "ensemble", "other",
    ] {
        assert!(timings.contains_key(part), "{part} of {timings:?}");
    }
    let sum: f64 = timings.values().map(|s| s.as_f64().unwrap()).sum();
    assert!(
        (sum - train["seconds"].as_f64().unwrap()).abs() < 1e-6,
        "{train}"
    );

    let rest = format!(
        "--checkpoint {} --output-dir {{}}/out --bootstrap 100 --json",
        checkpoint.display()
    );
    let comparison = w.job("evaluate", &rest).succeeds().json();
    let evaluate = find(&w, "evaluate");
    assert_eq!(evaluate["weights"]["hash"], comparison["weights_hash"]);
    assert_eq!(evaluate["seed"], 3, "the checkpoint's");
    assert_eq!(
        evaluate["split_manifest"]["hash"],
        train["split_manifest"]["hash"]
    );
    assert_eq!(evaluate["inputs"][0]["path"], "cloth_prompts.pt");
    assert_eq!(evaluate["inputs"][0]["blake3"], outputs[1]["blake3"]);
    w.job("baseline", "--output-dir {}/out --bootstrap 100")
        .succeeds();
    w.job(
        "fit",
        &format!(
            "--output {{}}/out/c.flaw --checkpoint {}",
            checkpoint.display()
        ),
    )
    .succeeds();
    let of_bundle =
        "evaluate --bundle {}/out/c.flaw --root-dir {}/data --category cloth --bootstrap 100";
    w.run(&format!(
        "{of_bundle} --output-dir {{}}/wrong --aupro-limit 0.3 --weights {{}}/none"
    ))
    .refuses(&["none"]);
    assert!(
        !w.path("wrong/run.json").exists(),
        "a wrong input leaves no record"
    );
    w.run(&format!("{of_bundle} --output-dir {{}}/eval"))
        .succeeds();
    let bundle = &read_json(&w.path("eval/run.json"))["runs"][0];
    let written: Vec<&str> = bundle["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["path"].as_str().unwrap())
        .collect();
    assert_eq!(written, ["cloth_detection.json", "cloth_predictions.csv"]);
    let path = bundle["inputs"][0]["path"].as_str().unwrap();
    assert!(
        path.starts_with('/') && path.ends_with("out/c.flaw"),
        "{path}"
    );
    // what the run itself chose, by the depth of the backbone
    w.job("fit", "--output {}/alone/c.flaw").succeeds();
    let alone = &read_json(&w.path("alone/run.json"))["runs"][0];
    let header = w.run("info {}/alone/c.flaw --json").succeeds().json();
    assert_eq!(
        alone["options"]["layers"]["value"],
        header["backbone"]["layers"]
    );
    assert!(header["backbone"]["layers"].is_array());
    let commands: Vec<String> = runs(&w)
        .iter()
        .map(|r| r["command"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(commands, ["train", "evaluate", "baseline", "fit"]);
    assert_eq!(find(&w, "fit")["outputs"][0]["path"], "c.flaw");

    // once more: its entry is replaced, and the last; the files have the bytes they had
    w.trained("--seed 3 --threads 1");
    let commands: Vec<String> = runs(&w)
        .iter()
        .map(|r| r["command"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(commands, ["evaluate", "baseline", "fit", "train"]);
    assert_eq!(find(&w, "train")["outputs"], train["outputs"]);
}

#[test]
fn secrets_stay_out_of_records() {
    let w = World::new();
    let mut command = w.command(&World::job_line(
        "baseline",
        "--output-dir {}/out --bootstrap 100",
    ));
    command.env("HF_TOKEN", "hf_verysecret");
    assert!(command.output().unwrap().status.success());
    let text = fs::read_to_string(w.out().join("run.json")).unwrap();
    assert!(
        text.contains("cloth_baseline.json") && !text.contains("verysecret"),
        "{text}"
    );
}

#[test]
fn an_interrupted_training_says_so() {
    let w = World::new();
    let (code, text) = interrupted(
        &w,
        "--num-epochs 100000 --patience 0 --output-dir {}/out",
        1,
    );
    assert_eq!(code, Some(130), "{text}");
    let train = find(&w, "train");
    assert_eq!(train["outcome"], "interrupted");
    assert_eq!(train["outputs"][0]["path"], "cloth_resume.pt");
}

#[test]
fn a_run_that_failed_after_it_scored_says_so_and_keeps_what_is_told_of_files() {
    let w = World::new();
    let checkpoint = w.trained("--no-ensemble");
    let line = format!(
        "--checkpoint {} --output-dir {{}}/out --bootstrap 100",
        checkpoint.display()
    );
    let fails = || {
        w.job("evaluate", &format!("{line} --scorers all"))
            .refuses(&["holds no ensemble"])
    };
    fails();
    let failed = find(&w, "evaluate");
    assert_eq!(
        (&failed["outcome"], &failed["outputs"]),
        (&json!("failed"), &json!([]))
    );
    let run = w.run("reproduce {}/out --command evaluate");
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(
        run.stderr
            .contains("evaluate cloth is left out: its run failed"),
        "{}",
        run.stderr
    );
    w.job("evaluate", &line).succeeds();
    fails();
    let kept = find(&w, "evaluate");
    assert_eq!(
        (&kept["outcome"], kept["outputs"].as_array().map(Vec::len)),
        (&json!("finished"), Some(2))
    );
}

#[test]
fn a_record_that_cannot_be_read_is_left_alone() {
    let w = World::new();
    fs::create_dir_all(w.out()).unwrap();
    let newer = r#"{"format": 7, "runs": "otherwise"}"#;
    fs::write(w.out().join("run.json"), newer).unwrap();
    let run = w
        .job("baseline", "--output-dir {}/out --bootstrap 100")
        .succeeds();
    assert!(
        run.stderr
            .contains("has format 7, and this version knows up to 1"),
        "{}",
        run.stderr
    );
    assert_eq!(fs::read_to_string(w.out().join("run.json")).unwrap(), newer);
    assert_eq!(
        read_json(&w.out().join("run-2.json"))["runs"][0]["command"],
        "baseline"
    );
    w.run("reproduce {}/out")
        .refuses(&["run.json: has format 7", "use a newer flawtune"]);
}
