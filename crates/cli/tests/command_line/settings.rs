//! Flag, environment, `flawtune.toml`, default: which wins, what each may say, and what `config` shows.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::world::{World, data_and_backbone, read_json};

fn write(w: &World, name: &str, text: &str) {
    let path = w.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A run with environment variables, in a folder of the world.
fn run_in(w: &World, folder: &str, line: &str, environment: &[(&str, &str)]) -> crate::world::Run {
    let mut command: Command = w.command(line);
    command.envs(environment.iter().copied());
    command.current_dir(w.path(folder));
    crate::world::Run::new(command.output().unwrap())
}

fn option(
    w: &World,
    line: &str,
    environment: &[(&str, &str)],
    name: &str,
) -> (Json, String, String) {
    let found = run_in(w, "", &format!("config {line} --json"), environment)
        .succeeds()
        .json();
    let one = &found[name];
    (
        one["value"].clone(),
        one["source"].as_str().unwrap().to_owned(),
        one["from"].as_str().unwrap_or_default().to_owned(),
    )
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let w = World::new();
    let variable = [("FLAWTUNE_NUM_PROMPTS", "5")];
    assert_eq!(
        option(&w, "train", &[], "num-prompts"),
        (json!(10), "default".into(), String::new())
    );
    write(
        &w,
        "flawtune.toml",
        "seed = 2\nnum-prompts = 3\n\n[train]\nnum-prompts = 4\n",
    );
    let file = |line: u32| {
        format!(
            "{}:{line}",
            w.path("flawtune.toml").canonicalize().unwrap().display()
        )
    };
    assert_eq!(
        option(&w, "train", &[], "num-prompts"),
        (json!(4), "file".into(), file(5))
    );
    assert_eq!(
        option(&w, "baseline", &[], "seed"),
        (json!(2), "file".into(), file(1))
    );
    let found = option(&w, "train", &variable, "num-prompts");
    assert_eq!(
        found,
        (
            json!(5),
            "environment".into(),
            "FLAWTUNE_NUM_PROMPTS".into()
        )
    );

    // and a run takes the same: six prompts, and what nobody typed from where it was said
    let line = format!(
        "train {} --num-prompts 6 --num-epochs 1 --no-ensemble --output-dir {{}}/out",
        data_and_backbone()
    );
    let run = run_in(
        &w,
        "",
        &line,
        &[("FLAWTUNE_NUM_PROMPTS", "5"), ("FLAWTUNE_BATCH_SIZE", "4")],
    )
    .succeeds();
    assert!(
        run.stderr.contains("prompts 384"),
        "6 prompts of 64 numbers: {}",
        run.stderr
    );
    let options = &read_json(&w.out().join("run.json"))["runs"][0]["options"];
    for (name, value, source, from) in [
        ("num-prompts", json!(6), "flag", None),
        (
            "batch-size",
            json!(4),
            "environment",
            Some("FLAWTUNE_BATCH_SIZE".to_owned()),
        ),
        ("seed", json!(2), "file", Some(file(1))),
        ("loss-type", json!("separability"), "default", None),
        (
            "modulation-type",
            json!("learned_transform"),
            "preset",
            None,
        ),
        ("no-ensemble", json!(true), "flag", None),
        ("use-cls", json!(false), "default", None),
        ("layers", json!([-1]), "default", None),
        ("image-size", json!(64), "flag", None),
    ] {
        let found = &options[name];
        assert_eq!(
            (&found["value"], &found["source"]),
            (&value, &json!(source)),
            "{name}"
        );
        assert_eq!(found["from"].as_str().map(str::to_owned), from, "{name}");
    }
    assert!(options["good"]["value"].is_null(), "{options}");
}

#[test]
fn the_nearest_file_counts_and_its_paths_start_from_it() {
    let w = World::new();
    write(&w, "flawtune.toml", "root-dir = 'elsewhere'\n");
    write(
        &w,
        "a/flawtune.toml",
        "root-dir = '../data'\ncategory = 'cloth'\nlayers = [1, -1]\n",
    );
    fs::create_dir_all(w.path("a/b")).unwrap();
    let show = |folder: &str, line: &str, environment: &[(&str, &str)]| {
        let found = run_in(
            &w,
            folder,
            &format!("config baseline --json {line}"),
            environment,
        )
        .succeeds();
        found.json()["root-dir"]["value"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let of = |folder: &str, name: &str| {
        w.path(folder)
            .canonicalize()
            .unwrap()
            .join(name)
            .display()
            .to_string()
    };
    assert_eq!(show("a/b", "", &[]), of("a", "../data"));
    assert_eq!(show("", "", &[]), of("", "elsewhere"));
    assert_eq!(show("a", "--config ../flawtune.toml", &[]), "../elsewhere");
    assert_eq!(
        show("", "", &[("FLAWTUNE_CONFIG", "a/flawtune.toml")]),
        "a/../data"
    );
    assert_eq!(show("a", "--no-config", &[]), "mvtec_ad");
    assert_eq!(show("a", "", &[("FLAWTUNE_NO_CONFIG", "1")]), "mvtec_ad");

    // the file gives what is required, and a list
    let weights = crate::world::golden("ckpt/tiny_mlp/hf.safetensors");
    let line = format!(
        "baseline --image-size 64 --bootstrap 100 --weights {} --json",
        weights.display()
    );
    let run = run_in(&w, "a/b", &line, &[("FLAWTUNE_OUTPUT_DIR", "here")]).succeeds();
    assert_eq!(run.json()["category"], "cloth");
    let options = read_json(&w.path("a/b/here/run.json"))["runs"][0]["options"].clone();
    assert_eq!(options["layers"]["value"], json!([1, -1]));
    run_in(&w, "", &line, &[]).refuses(&["elsewhere"]);
}

#[test]
fn what_is_typed_puts_aside_what_cannot_stand_beside_it() {
    let w = World::new();
    write(
        &w,
        "flawtune.toml",
        "root-dir = 'data'\nlayout = 'mvtec-ad'\ncategory = 'cloth'\nensemble-layers = [0]\n\
         [fit]\ngood = 'data/cloth/train/good'\ntest-good = 'data/cloth/test/good'\n",
    );
    let weights = crate::world::golden("ckpt/tiny_mlp/hf.safetensors");
    let base = format!(
        "--image-size 64 --bootstrap 100 --weights {} --output-dir {{}}/out",
        weights.display()
    );
    let typed = format!(
        "baseline {base} --good {{}}/data/cloth/train/good --defect {{}}/data/cloth/test --category other"
    );
    run_in(&w, "", &typed, &[]).succeeds();
    let options = read_json(&w.out().join("run.json"))["runs"][0]["options"].clone();
    assert!(
        options.get("root-dir").is_none() && options.get("layout").is_none(),
        "{options}"
    );
    assert_eq!(options["good"]["source"], "flag");
    // the environment against the file, and a table against the top of the file
    let train = "config train --json";
    let found = run_in(&w, "", train, &[("FLAWTUNE_NO_ENSEMBLE", "true")])
        .succeeds()
        .json();
    assert_eq!(found["no-ensemble"]["value"], true);
    assert!(found["ensemble-layers"]["value"].is_null(), "{found}");
    let off = run_in(&w, "", train, &[("FLAWTUNE_NO_ENSEMBLE", "false")])
        .succeeds()
        .json();
    assert_eq!(
        (
            &off["no-ensemble"]["source"],
            &off["ensemble-layers"]["value"]
        ),
        (&json!("environment"), &json!([0]))
    );
    let fit = run_in(&w, "", "config fit --json", &[]).succeeds().json();
    assert!(
        fit.get("root-dir").is_none() && fit["test-good"]["source"] == "file",
        "{fit}"
    );
    // whose companion is put aside goes with it
    let line = format!(
        "fit --root-dir data --output {{}}/out/c.flaw --image-size 64 --weights {}",
        weights.display()
    );
    run_in(&w, "", &line, &[]).succeeds();
    let runs = read_json(&w.out().join("run.json"))["runs"].clone();
    let fit = runs
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["command"] == "fit")
        .unwrap();
    assert_eq!(
        fit["options"]["root-dir"],
        json!({"value": "data", "source": "flag"})
    );
    assert!(
        fit["options"]
            .get("test-good")
            .is_none_or(|o| o["value"].is_null()),
        "{fit}"
    );
    // what is typed conflicts as ever
    w.run(&format!("{typed} --root-dir {{}}/data --no-config"))
        .refuses(&["--good", "--root-dir"]);
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let w = World::new();
    let baseline = World::job_line("baseline", "--output-dir {}/out");
    for (text, parts) in [
        (
            "image-sise = 224",
            &["flawtune.toml:1: image-sise: no command has such an option; is 'image-size' meant?"]
                [..],
        ),
        (
            "\n[baseline]\nnum-prompts = 3",
            &["flawtune.toml:3: baseline.num-prompts: 'baseline' has no such option"],
        ),
        (
            "[trian]\nseed = 1",
            &["flawtune.toml:1: [trian] is not a command; is 'train' meant?"],
        ),
        (
            "seed = true",
            &["flawtune.toml:1: seed: takes a value, not true or false"],
        ),
        (
            "seed = [1]",
            &["flawtune.toml:1: seed: takes one value, not a list"],
        ),
        (
            "skip-bad-images = 'yes'",
            &["flawtune.toml:1: skip-bad-images: is true or false, without quotes"],
        ),
        (
            "seed = 'x'",
            &["flawtune.toml:1: seed: 'x': invalid digit found in string"],
        ),
        ("seed = -1", &["flawtune.toml:1: seed: '-1': "]),
        ("layers = [0, 'x']", &["flawtune.toml:1: layers: 'x': "]),
        (
            "k-neighbors = 0",
            &["flawtune.toml:1: k-neighbors: '0': 0 is not in 1.."],
        ),
        (
            "resize = 'squish'",
            &[
                "resize: 'squish' is not a value for it (is 'squash' meant?); it is one of keep, squash, centre-crop",
            ],
        ),
        (
            "seed = 1\nseed = 2",
            &["flawtune.toml:2: ", "duplicate key"],
        ),
        ("seed = ", &["flawtune.toml:1: "]),
        (
            "good = 'a'\nlist = 'b'",
            &[
                "flawtune.toml:1: good cannot stand beside list (",
                "flawtune.toml:2)",
            ],
        ),
        (
            "config = 'x'",
            &["flawtune.toml:1: config: no command has such an option"],
        ),
    ] {
        write(&w, "flawtune.toml", text);
        // where both are wanted, neither may be typed
        let line = if text.starts_with("good") {
            "baseline --output-dir {}/out"
        } else {
            &baseline
        };
        w.run(line).refuses(parts);
        w.run("config baseline").refuses(parts);
    }
    // help needs no settings, and the file can be left aside
    w.run("baseline --help").succeeds();
    w.run("config baseline --no-config").succeeds();
    fs::remove_file(w.path("flawtune.toml")).unwrap();
    for (name, value, part) in [
        (
            "FLAWTUNE_SEED",
            "x",
            "FLAWTUNE_SEED: --seed: 'x': invalid digit",
        ),
        (
            "FLAWTUNE_SKIP_BAD_IMAGES",
            "maybe",
            "FLAWTUNE_SKIP_BAD_IMAGES: 'maybe' is not a value for --skip-bad-images; it is true or false",
        ),
        ("FLAWTUNE_CONFIG", "absent.toml", "absent.toml: "),
        ("FLAWTUNE_NO_CONFIG", "x", "FLAWTUNE_NO_CONFIG: 'x'"),
    ] {
        run_in(&w, "", &baseline, &[(name, value)]).refuses(&[part]);
    }
    w.run(&format!("{baseline} --config absent.toml"))
        .refuses(&["absent.toml: ", "--no-config"]);
    w.run("config sew")
        .refuses(&["'sew' is not a command", "fit, predict"]);
    assert!(
        !Path::new(&w.out()).exists(),
        "refused before anything was written"
    );
}

#[test]
fn config_shows_what_is_set_and_by_whom() {
    let w = World::new();
    let none = w.run("config").succeeds();
    // the world's own cache folder
    assert!(
        none.stdout.lines().skip(1).all(|l| l.contains("cache-dir")),
        "{}",
        none.stdout
    );
    write(&w, "flawtune.toml", "[train]\nseed = 7\n");
    let all = w.run("config").succeeds();
    let line = all
        .stdout
        .lines()
        .find(|l| l.starts_with("train seed"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], ["train", "seed", "7", "file"]);
    assert!(words[4].ends_with("flawtune.toml:2"), "{line}");
    assert!(!all.stdout.contains("baseline seed"), "{}", all.stdout);
    let train = w.run("config train").succeeds();
    let rows: Vec<Vec<&str>> = train
        .stdout
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["option", "value", "source"]);
    assert!(
        rows.contains(&vec!["image-size", "224", "default"]),
        "{}",
        train.stdout
    );
    assert!(
        rows.contains(&vec!["weights", "–", "default"]),
        "{}",
        train.stdout
    );
    assert!(
        train
            .stdout
            .contains("100; inside the transformer 60 of one step"),
        "{}",
        train.stdout
    );
    assert!(
        rows.contains(&vec!["batch-size", "16", "default"]),
        "{}",
        train.stdout
    );
    let json = w.run("config --json").succeeds().json();
    assert_eq!(json["train"]["seed"]["value"], 7);
}
