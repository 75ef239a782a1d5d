//! A file of 'fit' that looks at two sizes, and one that is taught more.

use std::fs;

use serde_json::Value as Json;

use crate::world::{TEST_GOOD, TEST_PER_TYPE, TRAIN_GOOD, World, golden};

/// Fits `{}/m.flaw` to the good images, and to the first holes where `defects` says so.
fn fitted(w: &World, rest: &str) -> Json {
    let line = format!(
        "fit --good {{}}/data/cloth/train/good --weights {} --output {{}}/m.flaw --json {rest}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    );
    w.run(&line).succeeds().json()
}

/// Moves some of a type's images from the test set to a folder of new ones.
fn moved(w: &World, from: &str, to: &str, numbers: std::ops::Range<u32>) {
    let folder = w.path(to);
    fs::create_dir_all(&folder).unwrap();
    for i in numbers {
        let name = format!("{i:03}.png");
        fs::rename(w.sample(&format!("{from}/{name}")), folder.join(name)).unwrap();
    }
}

fn scores(w: &World, file: &str) -> String {
    w.run(&format!(
        "predict {{}}/{file} {{}}/data/cloth/test --format csv"
    ))
    .succeeds()
    .stdout
}

#[test]
fn two_sizes_are_looked_at_and_agree_everywhere() {
    let w = World::new();
    w.add_masks();
    let fit = |sizes: &str| {
        w.run(&format!(
            "fit --root-dir {{}}/data --category cloth --weights {} --num-defect-samples 3 --image-size {sizes} --output \
             {{}}/m.flaw",
            golden("ckpt/tiny_mlp/hf.safetensors").display()
        ))
        .succeeds()
    };
    fit("32");
    let one = scores(&w, "m.flaw");
    fit("32,64");
    let both = scores(&w, "m.flaw");
    assert_ne!(one, both);
    let again = w
        .run("predict {}/m.flaw {}/data/cloth/test --format csv --threads 1 --batch-size 3")
        .succeeds()
        .stdout;
    assert_eq!(both, again);
    let evaluated = w
        .run("evaluate {}/m.flaw --root-dir {}/data --bootstrap 100 --output-dir {}/out --json")
        .succeeds()
        .json();
    assert_eq!(evaluated["rows"][0]["taught"], true);
    assert!(evaluated["rows"][0]["pixels"]["auroc"].is_f64());
    let said = w.run("info {}/m.flaw").succeeds();
    assert!(said.stdout.contains("64 and 32"), "{}", said.stdout);
    // nobody else looks at several
    w.run(&format!(
        "baseline --root-dir {{}}/data --category cloth --weights {} --image-size 32,64 --output-dir {{}}/out",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    ))
    .refuses(&["several", "hint:"]);
    fitted_refuses(&w, "--image-size 64,64", &["twice"]);
    fitted_refuses(
        &w,
        "--image-size 64,32 --scorer patch-bank",
        &["several", "hint:"],
    );
    fitted_refuses(
        &w,
        "--image-size 64 --scorer patch-bank --budget 1s",
        &["residual", "hint:"],
    );
}

fn fitted_refuses(w: &World, rest: &str, parts: &[&str]) {
    w.run(&format!(
        "fit --good {{}}/data/cloth/train/good --weights {} --output {{}}/n.flaw {rest}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    ))
    .refuses(parts);
}

#[test]
fn a_budget_chooses_a_size_and_says_what_it_takes() {
    let w = World::new();
    let said = w
        .run(&format!(
            "fit --good {{}}/data/cloth/train/good --weights {} --output {{}}/m.flaw --budget 1us",
            golden("ckpt/tiny_mlp/hf.safetensors").display()
        ))
        .succeeds()
        .stderr;
    assert!(
        said.contains("ms an image") && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn a_detector_learns_from_what_comes_later() {
    let w = World::new();
    moved(&w, "test/hole", "first/hole", 0..3);
    moved(&w, "test/hole", "second/hole", 3..TEST_PER_TYPE - 1);
    moved(&w, "test/good", "stopped", 0..2);
    let size = "--image-size 64,32";
    fitted(&w, &format!("--defect {{}}/first {size}"));
    let first = fs::read(w.path("m.flaw")).unwrap();
    let before = scores(&w, "m.flaw");
    let found = w
        .run("learn {}/m.flaw --defect {}/second --good {}/stopped --force --json")
        .succeeds()
        .json();
    let new = TEST_PER_TYPE - 1 - 3;
    assert_eq!(
        (&found["good"], &found["defects"]),
        (&2.into(), &new.into())
    );
    for tally in [&found["before"], &found["after"]] {
        assert_eq!(tally["good"], TRAIN_GOOD + 2);
        assert_eq!(tally["defects"], TEST_PER_TYPE - 1);
    }
    // the old version is beside, and whole
    assert_eq!(fs::read(w.path("m.1.flaw")).unwrap(), first);
    assert_eq!(scores(&w, "m.1.flaw"), before);
    assert_ne!(scores(&w, "m.flaw"), before);
    // what was learned is known, and what is known is not learned again
    w.run("learn {}/m.flaw --defect {}/second")
        .refuses(&["does not know", "hint:"]);
    w.run("learn {}/m.flaw --good {}/second")
        .refuses(&["learned it as a defect", "hint:"]);
    // it names the type that it knows, where it finds a flaw
    let lines = w
        .run("predict {}/m.flaw {}/second --json --threshold=-100")
        .succeeds();
    for line in lines.stdout.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        assert!(
            line["kind"] == "hole" || line["kind"] == "unknown",
            "{line}"
        );
        assert!(line["drift"].is_f64());
    }
    // and it can learn once more
    moved(&w, "test/stain", "third/stain", 0..2);
    let said = w
        .run("learn {}/m.flaw --defect {}/third --force --output {}/n.flaw")
        .succeeds()
        .stderr;
    assert!(
        said.contains("before: stops") && said.contains("now: "),
        "{said}"
    );
    assert!(!w.path("m.2.flaw").exists());
    // a threshold that is changed later forgets nothing
    w.run("threshold {}/n.flaw --false-alarms 10%").succeeds();
    moved(&w, "test/stain", "fourth/stain", 2..3);
    w.run("learn {}/n.flaw --defect {}/fourth --force")
        .succeeds();
    // images that were learned later are not tested
    fs::create_dir_all(w.sample("test/stain")).unwrap();
    fs::copy(
        w.path("fourth/stain/002.png"),
        w.sample("test/stain/002.png"),
    )
    .unwrap();
    let tested = w
        .run("evaluate {}/n.flaw --category cloth --root-dir {}/data --bootstrap 100 --output-dir {}/out --json")
        .succeeds();
    assert_eq!(tested.json()["split"]["good"], TEST_GOOD - 2);
}

#[test]
fn the_same_images_teach_the_same_at_once_or_one_after_the_other() {
    let w = World::new();
    moved(&w, "test/hole", "all/hole", 0..4);
    fs::create_dir_all(w.path("first/hole")).unwrap();
    fs::create_dir_all(w.path("second/hole")).unwrap();
    for i in 0..4 {
        let part = if i < 2 { "first" } else { "second" };
        let name = format!("hole/{i:03}.png");
        fs::copy(w.path("all").join(&name), w.path(part).join(&name)).unwrap();
    }
    let score = |line: &Json| line["score"].as_f64().unwrap();
    let all = |w: &World| -> Vec<f64> {
        let run = w
            .run("predict {}/m.flaw {}/data/cloth/test --json")
            .succeeds();
        let lines = run.stdout.lines().map(|l| serde_json::from_str(l).unwrap());
        lines.map(|l: Json| score(&l)).collect()
    };
    fitted(&w, "--defect {}/all --image-size 64");
    let at_once = all(&w);
    fitted(&w, "--defect {}/first --image-size 64");
    let first = all(&w);
    w.run("learn {}/m.flaw --defect {}/second --force")
        .succeeds();
    let later = all(&w);
    let apart = |a: &[f64], b: &[f64]| {
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f64::max)
    };
    // tokens of shots are kept in half precision
    assert!(
        apart(&at_once, &later) < 0.2 * apart(&at_once, &first),
        "{at_once:?} {later:?} {first:?}"
    );
}

#[test]
fn a_detector_of_good_images_alone_learns_its_first_defects() {
    let w = World::new();
    moved(&w, "test/hole", "one/hole", 0..1);
    moved(&w, "test/hole", "more/hole", 1..4);
    fitted(&w, "--image-size 64");
    // one shot cannot be judged without itself, so nothing says that it is worse
    let found = w
        .run("learn {}/m.flaw --defect {}/one --json")
        .succeeds()
        .json();
    assert_eq!(found["defects"], 1);
    assert_eq!(found["after"]["defects"], 0);
    let found = w
        .run("learn {}/m.flaw --defect {}/more --force --json")
        .succeeds()
        .json();
    assert_eq!(
        (&found["before"]["defects"], &found["after"]["defects"]),
        (&3.into(), &3.into())
    );
}

#[test]
fn one_good_image_is_enough_to_rank_and_the_threshold_is_a_guess() {
    let w = World::new();
    fs::create_dir_all(w.path("one")).unwrap();
    fs::copy(w.sample("train/good/000.png"), w.path("one/a.png")).unwrap();
    let run = w
        .run(&format!(
            "fit --good {{}}/one --weights {} --output {{}}/m.flaw --image-size 64,32",
            golden("ckpt/tiny_mlp/hf.safetensors").display()
        ))
        .succeeds();
    assert!(
        run.stderr.contains("a guess") && run.stderr.contains("hint:"),
        "{}",
        run.stderr
    );
    let lines = scores(&w, "m.flaw");
    assert!(lines.lines().count() > TEST_GOOD as usize, "{lines}");
    // with a second image the first has something to be compared with
    fs::copy(w.sample("train/good/001.png"), w.path("one/b.png")).unwrap();
    let run = w
        .run(&format!(
            "fit --good {{}}/one --weights {} --output {{}}/m.flaw --image-size 64",
            golden("ckpt/tiny_mlp/hf.safetensors").display()
        ))
        .succeeds();
    assert!(!run.stderr.contains("a guess"), "{}", run.stderr);
}

#[test]
fn a_file_that_keeps_nothing_is_refused() {
    let w = World::new();
    fitted(&w, "--scorer patch-bank --image-size 64");
    w.run("learn {}/m.flaw --defect {}/data/cloth/test/hole")
        .refuses(&["keeps nothing", "hint:"]);
    w.run("learn {}/m.flaw").refuses(&["--good"]);
}
