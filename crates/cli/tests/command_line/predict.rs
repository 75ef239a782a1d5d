//! A bundle from 'fit', and images scored with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value as Json;

use crate::world::{Run, TEST_GOOD, TEST_PER_TYPE, TRAIN_GOOD, World, golden, read_json};

impl World {
    /// Fits `{}/m.flaw`.
    fn fitted(&self, rest: &str) -> Run {
        self.job("fit", &format!("--output {{}}/m.flaw {rest}"))
            .succeeds()
    }
}

/// Lines of JSON by the image's path under the category.
fn by_picture(run: &Run) -> BTreeMap<String, Json> {
    let lines = run
        .stdout
        .lines()
        .map(|l| serde_json::from_str::<Json>(l).unwrap());
    lines
        .map(|l| {
            let path = l["path"].as_str().unwrap();
            (path[path.find("test/").unwrap()..].replace('\\', "/"), l)
        })
        .collect()
}

/// Scores in the CSV of 'evaluate --bundle', as text.
fn evaluated(w: &World, folder: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(w.path(folder).join("cloth_predictions.csv")).unwrap();
    let rows = text
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect::<Vec<_>>());
    rows.map(|r| (r[0].to_owned(), r[2].to_owned())).collect()
}

/// The scores of 'evaluate', of 'predict', of other batches and of another number of threads, to the last bit.
fn same_everywhere(w: &World) {
    let line = "--bundle {}/m.flaw --category cloth --root-dir {}/data --bootstrap 100";
    w.run(&format!("evaluate {line} --output-dir {{}}/e1"))
        .succeeds();
    w.run(&format!(
        "evaluate {line} --output-dir {{}}/e2 --threads 1 --batch-size 1"
    ))
    .succeeds();
    let scores = evaluated(w, "e1");
    assert!(scores.len() >= TEST_GOOD as usize + 4, "{scores:?}");
    assert_eq!(scores, evaluated(w, "e2"));
    for rest in [
        "",
        "--threads 3 --batch-size 5",
        "--threads 1 --batch-size 1",
        "--maps {}/maps",
    ] {
        let run = w
            .run(&format!(
                "predict {{}}/m.flaw {{}}/data/cloth/test --format jsonl {rest}"
            ))
            .succeeds();
        let found = by_picture(&run);
        assert_eq!(found.len(), (TEST_GOOD + 2 * TEST_PER_TYPE) as usize);
        for (id, score) in &scores {
            let predicted = found[id]["score"].as_f64().unwrap();
            assert_eq!(
                predicted.to_bits(),
                score.parse::<f64>().unwrap().to_bits(),
                "{id} {rest}"
            );
        }
    }
}

#[test]
fn predict_and_evaluate_agree_to_the_last_bit() {
    let w = World::new();
    for rest in [
        "",
        "--num-defect-samples 4 --blocks 1,2",
        "--num-defect-samples 1 --bank-precision f32 --support-shots 5 --seed 3",
        "--bank-precision f32 --top-fraction mean",
        "--coreset 0.3 --support-shots 5 --top-fraction max",
        "--scorer image-pair --k-neighbors 2 --mask on",
        "--resize centre-crop --image-size 72 --support-shots 3",
        "--augment rotations --neighbourhood 3 --support-shots 3 --mask auto",
        "--image-size 128 --tile-size 64 --tile-overlap 16",
    ] {
        w.run(&format!(
            "fit {} --output {{}}/m.flaw {rest}",
            crate::world::data_and_backbone().replace(
                "--image-size 64",
                if rest.contains("--image-size") {
                    ""
                } else {
                    "--image-size 64"
                },
            )
        ))
        .succeeds();
        same_everywhere(&w);
    }
}

#[test]
fn a_checkpoint_with_an_ensemble_and_one_that_changes_tokens_agree_too() {
    let w = World::new();
    let checkpoint = w.trained("--num-defect-samples 4 --no-guard");
    let fitted = w.fitted(&format!("--checkpoint {}", checkpoint.display()));
    assert!(fitted.stderr.contains("ensemble"), "{}", fitted.stderr);
    same_everywhere(&w);
    let info = w.run("info {}/m.flaw").succeeds();
    assert!(
        info.stdout.contains("ensemble") && info.stdout.contains("cloth_prompts.pt"),
        "{}",
        info.stdout
    );
    // the pool's other defects and the left-out shots
    assert!(
        info.stdout
            .contains("and 0 defects; probability: fitted to 10 defects"),
        "{}",
        info.stdout
    );

    w.fitted(&format!(
        "--checkpoint {} --scorer patch-bank --threshold f1",
        checkpoint.display()
    ));
    same_everywhere(&w);
    let info = w.run("info {}/m.flaw --json").succeeds().json();
    assert_eq!(info["checkpoint"]["applied"], true);
    assert_eq!(info["threshold"]["rule"], "f1-max");
    assert_eq!(info["threshold"]["defects"].as_array().unwrap().len(), 6);

    w.trained("--num-defect-samples 4 --no-guard --use-adapters --prompt-depth deep --no-ensemble");
    w.fitted(&format!("--checkpoint {}", checkpoint.display()));
    let applied = w.run("info {}/m.flaw --json").succeeds().json();
    assert_eq!(applied["scorer"]["kind"], "patch-bank");
    same_everywhere(&w);
    // without the checkpoint the same bank gives other scores: what was trained counts
    let score = |w: &World| {
        let line = w
            .run("predict {}/m.flaw {}/data/cloth/test/hole/000.png --format jsonl")
            .succeeds();
        line.json()["score"].as_f64().unwrap()
    };
    let adapted = score(&w);
    w.fitted("--layers=-1");
    assert_ne!(adapted, score(&w));
}

#[test]
fn turned_support_neighbourhoods_and_tiles_change_scores_and_are_in_the_file() {
    let w = World::new();
    let scores = |rest: &str| {
        w.fitted(&format!("--support-shots 3 --scorer patch-bank {rest}"));
        let run = w
            .run("predict {}/m.flaw {}/data/cloth/test/good --format jsonl")
            .succeeds();
        let scores = by_picture(&run)
            .values()
            .map(|l| l["score"].as_f64().unwrap())
            .collect::<Vec<_>>();
        (scores, w.run("info {}/m.flaw --json").succeeds().json())
    };
    let (plain, info) = scores("");
    assert_eq!(
        (&info["neighbourhood"], &info["bank"]["rotations"]),
        (&1.into(), &false.into()),
        "{info}"
    );
    let (turned, more) = scores("--augment rotations");
    assert_eq!(more["bank"]["rotations"], true);
    // 64 pixels are 4×4 patches; halves and quarters of a turn show all of them, the other four all but the corners
    let patches = |info: &Json| info["bank"]["rows"].as_u64().unwrap();
    assert_eq!(
        (patches(&info), patches(&more)),
        (3 * 16, 3 * (4 * 16 + 4 * 12))
    );
    // more patches to be near to: no distance grows
    assert!(
        turned.iter().zip(&plain).all(|(t, p)| t <= p) && turned != plain,
        "{turned:?} {plain:?}"
    );
    let (means, info) = scores("--neighbourhood 3");
    assert_eq!(info["neighbourhood"], 3);
    assert_ne!(means, plain);
    let (tiles, info) = scores("--tile-size 32 --tile-overlap 0");
    assert_eq!(info["backbone"]["tiles"]["size"], 32, "{info}");
    assert_ne!(tiles, plain);
    let (whole, _) = scores("--tile-size 64");
    assert_eq!(whole, plain, "one tile is the image");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story from end to end")]
fn a_bank_searched_by_an_index_agrees_everywhere_and_says_what_it_misses() {
    let w = World::new();
    let scores = |rest: &str| {
        let json = w
            .fitted(&format!("--scorer patch-bank --json {rest}"))
            .json();
        let run = w
            .run("predict {}/m.flaw {}/data/cloth/test --format jsonl")
            .succeeds();
        let scores = by_picture(&run)
            .values()
            .map(|l| l["score"].as_f64().unwrap())
            .collect::<Vec<_>>();
        (
            scores,
            json["index"].clone(),
            fs::read(w.path("m.flaw")).unwrap(),
        )
    };
    let version = |file: &[u8], wanted: &str| {
        let mark = format!("\"format_version\":\"{wanted}\"");
        file.windows(mark.len()).any(|w| w == mark.as_bytes())
    };
    let (exact, none, file) = scores("");
    assert!(none.is_null() && version(&file, "1"), "{none}");
    assert_eq!(scores("--index exact").2, file);
    let (all, index, _) = scores("--index approximate --index-probes 1000");
    assert_eq!(all, exact, "all cells are searched");
    assert_eq!(index["probes"], index["cells"]);
    let recall = &index["recall"];
    assert_eq!(
        (&recall["images"], &recall["patches"]),
        (&TRAIN_GOOD.into(), &(16 * TRAIN_GOOD).into())
    );
    assert_eq!(
        (&recall["at_1"], &recall["score_error"]),
        (&1.0.into(), &0.0.into()),
        "{index}"
    );

    let (near, index, file) = scores("--index approximate --index-probes 1 --threads 1");
    assert!(
        near.iter().zip(&exact).all(|(n, e)| n >= e) && near != exact,
        "{near:?} {exact:?}"
    );
    assert!(version(&file, "3"));
    assert_eq!(
        (&index["kind"], &index["probes"]),
        (&"cells".into(), &1.into()),
        "{index}"
    );
    let share = |key: &str| index["recall"][key].as_f64().unwrap();
    assert!(share("at_1") > 0.0 && share("at_1") < 1.0, "{index}");
    assert!(
        share("distance_error") > 0.0 && share("score_error") >= 0.0,
        "{index}"
    );
    assert_eq!(
        scores("--index approximate --index-probes 1 --threads 3").2,
        file,
        "the same bytes"
    );
    same_everywhere(&w);
    let evaluated = read_json(&w.path("e1").join("cloth_detection.json"));
    assert_eq!(evaluated["index"], index);
    assert_eq!(
        w.run("info {}/m.flaw --json").succeeds().json()["bank"]["index"],
        index
    );
    let said = w.run("info {}/m.flaw").succeeds().stdout;
    assert!(
        said.contains("\nindex       1 of ") && said.contains("recall@1 0."),
        "{said}"
    );

    // edits of the same length keep the file readable
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = file
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        let mut bytes = file.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(w.path("edited.flaw"), bytes).unwrap();
        w.run("predict {}/edited.flaw {}/data/cloth/test/good/000.png")
    };
    edited("\\\"probes\\\":1", "\\\"probes\\\":0").refuses(&[
        "edited.flaw",
        "bank.index.probes",
        "is 0",
    ]);
    edited("\\\"cells\\\":", "\\\"calls\\\":").refuses(&["edited.flaw", "header", "cells"]);
    edited("\\\"kind\\\":\\\"cells", "\\\"kind\\\":\\\"calls").refuses(&[
        "edited.flaw",
        "header",
        "calls",
    ]);
    edited("\"U64\"", "\"I64\"").refuses(&["edited.flaw", "'cell_rows'", "I64"]);
    edited("\"centres\"", "\"centers\"").refuses(&["edited.flaw", "'centres'", "missing"]);
    edited("\\\"at_1\\\":0", "\\\"at_1\\\":7").refuses(&["edited.flaw", "bank.index.recall"]);

    let fit = |rest: &str| w.job("fit", &format!("--output {{}}/n.flaw {rest}"));
    fit("--index-probes 0").refuses(&["--index-probes"]);
    fit("--index nearly").refuses(&["--index", "approximate"]);
    fit("--index approximate --scorer image-pair").refuses(&["--index approximate", "patch-bank"]);
    fit("--index approximate --max-memory 17K").refuses(&["--max-memory", "28.6 KiB"]);
    assert!(!w.path("n.flaw").exists());
}

#[test]
fn every_format_and_every_source_says_the_same() {
    let w = World::new();
    // so low a threshold that images are flawed
    w.fitted("--max-false-alarm 0.9");
    let list = "{}/data/cloth/test/hole/000.png {}/data/cloth/test/good/001.png";
    let json = w
        .run(&format!("predict {{}}/m.flaw {list} --json"))
        .succeeds();
    let lines: Vec<Json> = json
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    let flaw = &lines[0];
    assert_eq!(flaw["verdict"], "flaw", "{flaw}");
    let side = |key: &str| flaw["box"][key].as_u64().unwrap();
    assert!(side("width") > 0 && side("height") > 0, "{flaw}");
    assert!(
        side("x") + side("width") <= 64 && side("y") + side("height") <= 64,
        "{flaw}"
    );
    let probability = flaw["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability));

    let csv = w
        .run(&format!("predict {{}}/m.flaw {list} --format csv"))
        .succeeds();
    let rows: Vec<Vec<&str>> = csv.stdout.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(
        rows[0].join(","),
        "path,score,probability,verdict,box_x,box_y,box_width,box_height"
    );
    assert_eq!(
        rows[1][1].parse::<f64>().unwrap(),
        flaw["score"].as_f64().unwrap()
    );
    assert_eq!(rows[1][6].parse::<u64>().unwrap(), side("width"));
    let table = w.run(&format!("predict {{}}/m.flaw {list}")).succeeds();
    assert!(
        table.stdout.lines().nth(1).unwrap().starts_with("flaw "),
        "{}",
        table.stdout
    );
    assert!(
        table.stderr.contains("of 2 images are flawed"),
        "{}",
        table.stderr
    );

    let glob = w
        .run("predict {}/m.flaw {}/data/cloth/test/h*/*0.png --json")
        .succeeds();
    assert_eq!(glob.stdout.lines().count(), 1);
    assert_eq!(glob.stdout.lines().next(), json.stdout.lines().next());

    // through a pipe, one line at a time: results come before the end of the input
    let mut child = w
        .command("predict {}/m.flaw - --json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for (id, wanted) in [
        ("test/hole/000.png", &lines[0]),
        ("test/good/001.png", &lines[1]),
    ] {
        writeln!(input, "{}", w.sample(id).display()).unwrap();
        let line: Json = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(&line, wanted);
    }
    drop(input);
    assert!(output.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    assert_eq!(
        w.run(&format!("predict {{}}/m.flaw {list} --fail-on-flaw"))
            .code,
        Some(1)
    );
    w.fitted("--max-false-alarm 0.01");
    let good = w
        .run("predict {}/m.flaw {}/data/cloth/train/good --fail-on-flaw")
        .succeeds();
    assert!(
        good.stderr.contains(&format!("0 of {TRAIN_GOOD} images")),
        "{}",
        good.stderr
    );
}

#[test]
fn maps_have_the_pictures_size_and_lie_where_the_pictures_do() {
    let w = World::new();
    w.fitted("");
    w.run("predict {}/m.flaw {}/data/cloth/test --maps {}/maps --map-format npy --quiet")
        .succeeds();
    let place = w.path("maps/hole/003.png");
    let with = |ending: &str| Path::new(&format!("{}{ending}", place.display())).to_owned();
    let npy = fs::read(with(".npy")).unwrap();
    assert!(String::from_utf8_lossy(&npy[..100]).contains("'shape': (64, 64)"));
    let overlay = image::open(with(".overlay.png")).unwrap();
    assert_eq!((overlay.width(), overlay.height()), (64, 64));
    assert_eq!(
        fs::read_dir(w.path("maps/good")).unwrap().count(),
        2 * TEST_GOOD as usize
    );
    w.run("predict {}/m.flaw {}/data/cloth/test/hole/003.png --maps {}/tiff --quiet")
        .succeeds();
    let found: Vec<_> = walk(&w.path("tiff"));
    assert!(
        found.iter().any(|p| p.ends_with("hole/003.png.tiff")),
        "{found:?}"
    );
}

#[test]
fn a_box_surrounds_what_reaches_the_maps_threshold() {
    let w = World::new();
    // so low that maps reach it
    w.fitted("--max-false-alarm 0.9");
    let run = w
        .run("predict {}/m.flaw {}/data/cloth/test/hole --json --maps {}/maps --map-format npy")
        .succeeds();
    let threshold = w.run("info {}/m.flaw --json").succeeds().json()["map"]["threshold"]
        .as_f64()
        .unwrap() as f32;
    let mut reached = 0;
    for (id, line) in by_picture(&run) {
        let name = id.replace("test/hole/", "");
        let npy = fs::read(w.path("maps").join(format!("{name}.npy"))).unwrap();
        let map: Vec<f32> = npy[128..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let peak = (0..map.len())
            .max_by(|a, b| map[*a].total_cmp(&map[*b]))
            .unwrap();
        if line["verdict"] != "flaw" || map[peak] < threshold {
            continue;
        }
        reached += 1;
        let side = |key: &str| line["box"][key].as_u64().unwrap() as usize;
        let (x, y, width, height) = (side("x"), side("y"), side("width"), side("height"));
        assert!(
            (x..x + width).contains(&(peak % 64)) && (y..y + height).contains(&(peak / 64)),
            "{line}"
        );
        // each edge touches the region, which ends at the threshold
        let above = |x: usize, y: usize| map[y * 64 + x] >= threshold;
        assert!(
            (y..y + height).any(|y| above(x, y))
                && (y..y + height).any(|y| above(x + width - 1, y))
        );
        assert!(
            (x..x + width).any(|x| above(x, y)) && (x..x + width).any(|x| above(x, y + height - 1))
        );
    }
    assert!(reached > 0);
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|p| {
            if p.is_dir() {
                walk(&p)
            } else {
                vec![p.display().to_string().replace('\\', "/")]
            }
        })
        .collect()
}

#[test]
fn masks_give_pixel_metrics() {
    let w = World::new();
    w.run("synth --output-dir {}/data --category twill --size 64 --train-good 10 --test-good 5 --test-per-type 3")
        .succeeds();
    w.job("fit", "--category twill --output {}/m.flaw")
        .refuses(&["--category"]);
    let data = crate::world::data_and_backbone().replace("cloth", "twill");
    w.run(&format!("fit {data} --output {{}}/m.flaw"))
        .succeeds();
    let line = "evaluate --bundle {}/m.flaw --category twill --root-dir {}/data --bootstrap 100 --output-dir {}/out";
    let table = w.run(line).succeeds();
    assert!(
        table.stdout.contains("AUPRO") && table.stdout.contains("false alarms"),
        "{}",
        table.stdout
    );
    let found = read_json(&w.out().join("twill_detection.json"));
    let row = &found["rows"][0];
    let pixels = &row["pixels"];
    for key in ["auroc", "average_precision", "aupro", "f1_max"] {
        let value = pixels[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{key} {value}");
    }
    assert!(pixels["auroc_error"].as_f64().unwrap() < 1e-3);
    assert_eq!(pixels["masked_images"], found["split"]["defects"]);
    let types = row["by_type"].as_object().unwrap();
    assert!(
        !types.is_empty() && types.values().all(|t| t["pixels"]["aupro"].is_f64()),
        "{found}"
    );
    w.run(&format!("{line} --aupro-limit 0"))
        .refuses(&["--aupro-limit"]);
}

#[test]
fn what_defects_teach_stands_beside_what_good_images_say() {
    let w = World::new();
    w.add_masks();
    let fitted = w.fitted("--num-defect-samples 4 --seed 2 --json").json();
    assert_eq!(fitted["shots"], 4);
    assert_eq!(fitted["scorer"], "residual");
    // the file says which category it is of
    let line = "evaluate {}/m.flaw --root-dir {}/data --bootstrap 100 --output-dir {}/out";
    let found = w.run(&format!("{line} --json")).succeeds().json();
    assert_eq!(found["category"], "cloth");
    assert_eq!(found["split"]["shots"], 4);
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{found}");
    let (taught, plain) = (&rows[0], &rows[1]);
    assert_eq!(
        (&taught["taught"], &plain["taught"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&taught["against"], &plain["against"]),
        (&"bank".into(), &Json::Null)
    );
    for row in rows {
        for value in [&row["metrics"]["auroc"], &row["pixels"]["auroc"]] {
            let value = value.as_f64().unwrap();
            assert!((0.0..=1.0).contains(&value), "{row}");
        }
    }
    let auroc = |row: &Json| row["metrics"]["auroc"].as_f64().unwrap();
    let gained = taught["difference"]["auroc"].as_f64().unwrap();
    assert!((auroc(taught) - auroc(plain) - gained).abs() < 1e-12);
    assert_eq!(read_json(&w.out().join("cloth_detection.json")), found);
    // both are held against a threshold that good images alone choose
    let defects = &found["split"]["defects"];
    for row in rows {
        assert_eq!(&row["metrics"]["found"]["of"], defects, "{row}");
    }
    // maps are those of predict
    let drawn = w.run(&format!("{line} --maps {{}}/maps --json")).succeeds();
    assert_eq!(drawn.json(), found);
    w.run("predict {}/m.flaw {}/data/cloth/test --maps {}/wanted")
        .succeeds();
    let maps = walk(&w.path("maps/test"));
    let tested = defects.as_u64().unwrap() + found["split"]["good"].as_u64().unwrap();
    assert_eq!(maps.len() as u64, 2 * tested, "{maps:?}");
    for drawn in &maps {
        let wanted = drawn.replace("/maps/test/", "/wanted/");
        assert!(
            fs::read(drawn).unwrap() == fs::read(&wanted).unwrap(),
            "{drawn}"
        );
    }
    w.run(&format!("{line} --maps {{}}/m.flaw"))
        .refuses(&["m.flaw", "hint:"]);
    let table = w.run(line).succeeds().stdout;
    assert!(
        table.contains("residual, 4 shots") && table.contains("bank, good images only"),
        "{table}"
    );
    // without defects there is one row, which knows none
    w.fitted("");
    let found = w.run(&format!("{line} --json")).succeeds().json();
    assert_eq!(found["rows"].as_array().unwrap().len(), 1);
    assert_eq!(found["rows"][0]["taught"], false);
}

#[test]
fn a_threshold_is_changed_without_a_fit() {
    let w = World::new();
    let fitted = w.fitted("--num-defect-samples 4 --seed 2");
    assert!(fitted.stderr.contains("false alarms"), "{}", fitted.stderr);
    let said = w.run("threshold {}/m.flaw --json").succeeds().json();
    let all = said["trade_offs"].as_array().unwrap();
    assert_eq!(all.len(), 6);
    assert_eq!(all[0]["stopped"]["count"], 0);
    assert_eq!(
        (&said["good"], &said["defects"]),
        (&TRAIN_GOOD.into(), &4.into())
    );
    let before = fs::read(w.path("m.flaw")).unwrap();
    for (rest, flawed) in [
        ("--threshold=-100", 1.0),
        ("--threshold 1e6", 0.0),
        ("--false-alarms 2%", -1.0),
        ("--find 90%", -1.0),
    ] {
        let lines = w
            .run(&format!(
                "predict {{}}/m.flaw {{}}/data/cloth/test --json {rest}"
            ))
            .succeeds();
        let flaws = lines
            .stdout
            .lines()
            .filter(|l| l.contains("\"verdict\":\"flaw\""))
            .count() as f64;
        let all = lines.stdout.lines().count() as f64;
        assert!(
            flawed < 0.0 || flaws == flawed * all,
            "{rest}: {flaws} of {all}"
        );
    }
    w.run("predict {}/m.flaw {}/data/cloth/test --find 90% --threshold 1")
        .refuses(&["--find"]);
    let found = w
        .run("threshold {}/m.flaw --find 50% --output {}/n.flaw --json")
        .succeeds()
        .json();
    assert_eq!(fs::read(w.path("m.flaw")).unwrap(), before);
    assert!(found["threshold"].is_f64());
    w.run("threshold {}/m.flaw --value=-100 -q").succeeds();
    let line = "predict {}/m.flaw {}/data/cloth/test/good/000.png --json";
    let all_flawed = w.run(line).succeeds().json();
    assert_eq!(all_flawed["verdict"], "flaw");
    // the probability follows: one half is the threshold
    assert!(all_flawed["probability"].as_f64().unwrap() > 0.5);
    let score = all_flawed["score"].as_f64().unwrap();
    w.run(&format!("threshold {{}}/m.flaw --value={score} -q"))
        .succeeds();
    let half = w.run(line).succeeds().json();
    assert_eq!(
        (&half["verdict"], &half["score"]),
        (&"flaw".into(), &score.into())
    );
    assert!((half["probability"].as_f64().unwrap() - 0.5).abs() < 1e-9);
    w.run("threshold {}/m.flaw --value 1 --find 50%")
        .refuses(&["--find"]);
    w.run("threshold {}/m.flaw --output {}/o.flaw")
        .refuses(&["--output"]);
    w.fitted("");
    w.run("threshold {}/m.flaw --find 90%")
        .refuses(&["knows no defects", "hint:"]);
}

#[test]
fn folders_of_good_images_and_defects_are_all_learned_from() {
    let w = World::new();
    let line = format!(
        "fit --good {{}}/data/cloth/train/good --defect {{}}/data/cloth/test/hole --image-size 64 --weights {} --output \
         {{}}/m.flaw --json",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    );
    let fitted = w.run(&line).succeeds().json();
    assert_eq!(fitted["shots"], TEST_PER_TYPE);
    assert_eq!(fitted["support_images"], TRAIN_GOOD);
    // and are refused as test images
    let line = "evaluate {}/m.flaw --category cloth --root-dir {}/data --output-dir {}/out";
    w.run(line).refuses(&["test/hole", "same content"]);
    fs::remove_dir_all(w.sample("test/hole")).unwrap();
    w.run(&format!("{line} --bootstrap 100")).succeeds();
}

#[test]
fn what_a_bundle_was_fitted_to_is_not_tested() {
    let w = World::new();
    w.fitted("");
    let line =
        "evaluate --bundle {}/m.flaw --category cloth --root-dir {}/data --output-dir {}/out";
    fs::rename(
        w.sample("train/good/002.png"),
        w.sample("test/good/zzz.png"),
    )
    .unwrap();
    w.run(line).refuses(&["test/good/zzz.png", "same content"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}

#[test]
fn bundles_that_are_none() {
    let w = World::new();
    w.fitted("--scorer patch-bank");
    let predict = |name: &str| {
        w.run(&format!(
            "predict {{}}/{name} {{}}/data/cloth/test/good/000.png"
        ))
    };
    let bytes = fs::read(w.path("m.flaw")).unwrap();
    predict("none.flaw").refuses(&["none.flaw", "flawtune fit"]);
    fs::write(w.path("empty.flaw"), "").unwrap();
    predict("empty.flaw").refuses(&["empty.flaw", "empty"]);
    for part in [4, 200, bytes.len() / 2, bytes.len() - 1] {
        fs::write(w.path("cut.flaw"), &bytes[..part]).unwrap();
        predict("cut.flaw").refuses(&["cut.flaw", "not a detector"]);
    }
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(w.path("flipped.flaw"), flipped).unwrap();
    predict("flipped.flaw").refuses(&["flipped.flaw", "damaged"]);
    // edits of the same length keep the file readable
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(w.path("edited.flaw"), bytes).unwrap();
        predict("edited.flaw")
    };
    edited("\"format_version\":\"1\"", "\"format_version\":\"9\"").refuses(&[
        "edited.flaw",
        "9",
        "newer",
    ]);
    edited("\"F16\"", "\"I16\"").refuses(&["edited.flaw", "'bank'", "I16"]);
    edited("\\\"dim\\\":64", "\\\"dim\\\":63").refuses(&["edited.flaw", "'bank'", "63"]);
    edited("train/good/000.png", "train/good/0x0.png").refuses(&["edited.flaw", "manifest"]);
    edited("patch-bank", "patch-bink").refuses(&["edited.flaw", "header", "patch-bink"]);
    edited("flawtune-bundle", "flawtune-bungle").refuses(&["edited.flaw", "not a detector"]);
    let weights = golden("ckpt/tiny_mlp/hf.safetensors");
    fs::copy(&weights, w.path("weights.flaw")).unwrap();
    predict("weights.flaw").refuses(&["weights.flaw", "not a detector"]);
    let checkpoint = w.trained("--num-defect-samples 1");
    fs::copy(checkpoint, w.path("checkpoint.flaw")).unwrap();
    predict("checkpoint.flaw").refuses(&["checkpoint.flaw", "with --checkpoint"]);
    let other = golden("ckpt/tiny_swiglu/hf.safetensors");
    let run = format!(
        "predict {{}}/m.flaw {{}}/data/cloth/test/good/000.png --weights {}",
        other.display()
    );
    w.run(&run).refuses(&["m.flaw", "weights", "--weights"]);
}

#[test]
fn pictures_and_options_that_are_wrong() {
    let w = World::new();
    w.fitted("");
    fs::write(w.sample("test/good/002.png"), "no image").unwrap();
    let bad = w.sample("test/good/002.png").display().to_string();
    let run = w.run("predict {}/m.flaw {}/data/cloth/test/good --json --batch-size 4");
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(
        run.stderr.contains(&bad) && run.stderr.contains("--skip-bad-images"),
        "{run:#?}"
    );
    assert_eq!(run.stdout.lines().count(), 2, "those before it: {run:#?}");
    let skipped = w
        .run("predict {}/m.flaw {}/data/cloth/test/good --json --skip-bad-images -q")
        .succeeds();
    assert_eq!(skipped.stdout.lines().count(), TEST_GOOD as usize - 1);
    assert!(skipped.stderr.contains(&bad), "{skipped:#?}");

    w.run("predict {}/m.flaw").refuses(&["IMAGES"]);
    w.run("predict {}/m.flaw - {}/data/cloth/test/good/000.png")
        .refuses(&["standard input"]);
    w.run("predict {}/m.flaw {}/nowhere/*.png")
        .refuses(&["no image matches"]);
    w.run("predict {}/m.flaw {}/home").refuses(&["home"]);
    w.run("predict {}/m.flaw --watch {}/nowhere")
        .refuses(&["nowhere", "--watch"]);

    let fit = |rest: &str| w.job("fit", &format!("--output {{}}/n.flaw {rest}"));
    fit("--support-shots 9").refuses(&["--support-shots 9", "8"]);
    fit("--support-shots 0").refuses(&["--support-shots"]);
    fit("--max-memory 10K --scorer patch-bank").refuses(&["--max-memory", "16.0 KiB", "--coreset"]);
    fit("--max-memory 40K --scorer image-pair").refuses(&["--max-memory", "48.0 KiB"]);
    fit("--max-memory 10Q").refuses(&["--max-memory"]);
    fit("--scorer ensemble").refuses(&["--checkpoint"]);
    fit("--scorer image-pair --coreset 0.5").refuses(&["--coreset"]);
    fit("--scorer image-pair --k-neighbors 8").refuses(&["--k-neighbors 8", "7"]);
    fit("--threshold f1").refuses(&["--threshold", "checkpoint"]);
    fit("--max-false-alarm 1").refuses(&["--max-false-alarm"]);
    fit("--top-fraction 2").refuses(&["--top-fraction"]);
    fit("--scorer image-pair --augment rotations").refuses(&["--augment rotations", "patch-bank"]);
    fit("--neighbourhood 4").refuses(&["--neighbourhood 4", "odd"]);
    fit("--tile-size 40").refuses(&["--tile-size 40", "32 or 48"]);
    fit("--tile-size 32 --tile-overlap 32").refuses(&["--tile-overlap 32", "not less"]);
    fit("--tile-overlap 16").refuses(&["--tile-overlap", "--tile-size"]);
    fit("--layers 7").refuses(&["--layers 7"]);
    w.run(&World::job_line("fit", "--output {}/data"))
        .refuses(&["--output"]);
    assert!(!w.path("n.flaw").exists());
    w.run("evaluate --category cloth --root-dir {}/data")
        .refuses(&["FILE"]);
}

#[cfg(unix)]
#[test]
fn a_watched_folder_is_scored_until_ctrl_c() {
    let w = World::new();
    w.fitted("");
    let folder = w.path("camera");
    fs::create_dir(&folder).unwrap();
    let arrive =
        |id: &str, name: &str| fs::copy(w.sample(id), folder.join(name)).map(drop).unwrap();
    arrive("test/good/000.png", "a.png");
    let mut child = w
        .command("predict {}/m.flaw --watch {}/camera --json --maps {}/maps")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut path = || {
        let line: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["path"].as_str().unwrap().to_owned()
    };
    assert!(path().ends_with("a.png"), "an image that was there before");
    arrive("test/hole/000.png", "b.png");
    assert!(path().ends_with("b.png"), "an image that arrived");
    assert!(w.path("maps/b.png.overlay.png").exists());
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none(), "every image once");
}
