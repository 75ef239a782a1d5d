//! Training data that lies: the oddest good images, those that are left out, and files under two labels.

use std::fs;

use serde_json::Value as Json;

use crate::world::{Run, TRAIN_GOOD, World, golden};

fn fit(w: &World, rest: &str) -> Run {
    w.run(&format!(
        "fit --good {{}}/data/cloth/train/good --weights {} --image-size 64 --output {{}}/out/m.flaw {rest}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    ))
}

/// A defect among the good images.
fn with_a_liar(w: &World) {
    fs::copy(
        w.sample("test/hole/000.png"),
        w.sample("train/good/liar.png"),
    )
    .unwrap();
}

#[test]
fn the_oddest_good_images_are_named_and_shown() {
    let w = World::new();
    with_a_liar(&w);
    let run = fit(&w, "").succeeds();
    assert!(
        run.stderr.contains("stands out  good/liar.png"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("--exclude"), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("m.oddest.png shows the oddest good images"),
        "{}",
        run.stderr
    );
    assert_eq!(w.written(), ["m.flaw", "m.oddest.png"]);
    let found = fit(&w, "--json").succeeds().json();
    let oddest = found["oddest"].as_array().unwrap();
    // half of nine
    assert_eq!(oddest.len(), 4);
    assert_eq!(oddest[0]["image"], "good/liar.png");
    assert!(
        oddest[0]["path"]
            .as_str()
            .unwrap()
            .ends_with("train/good/liar.png")
    );
    assert!(oddest[0]["deviations"].as_f64().unwrap() > 3.5, "{found}");
    let scores: Vec<f64> = oddest
        .iter()
        .map(|o| o["score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let file = found["oddest_file"].as_str().unwrap();
    let sheet = image::open(file).unwrap();
    assert!(sheet.width() > 4 * 200 && sheet.height() > 200);
    let bytes = fs::read(file).unwrap();

    // the same in every scorer and on every line of events
    let events = fit(&w, "--scorer patch-bank --progress json --json")
        .succeeds()
        .stderr;
    let told = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok())
        .find(|event| event["event"] == "oddest");
    assert_eq!(told.unwrap()["images"][0]["image"], "good/liar.png");
    // again, the same bits
    fit(&w, "--quiet").succeeds();
    assert_eq!(fs::read(file).unwrap(), bytes);
    // it is no image to judge
    let judged = w
        .run("predict {}/out/m.flaw {}/out")
        .refuses(&["no images in this folder"]);
    assert!(
        judged.stderr.contains("that flawtune wrote"),
        "{}",
        judged.stderr
    );
}

#[test]
fn excluded_images_are_as_if_they_were_not_there() {
    let w = World::new();
    let clean = fit(&w, "--json").succeeds().json();
    with_a_liar(&w);
    fs::write(w.path("list.txt"), "# looked odd\n\n  liar.png  \n").unwrap();
    for exclude in [
        "--exclude {}/data/cloth/train/good/liar.png",
        "--exclude data/cloth/train/good/../good/liar.png",
        "--exclude liar.png",
        "--exclude liar* --exclude *ar.png",
        "--exclude-from {}/list.txt",
    ] {
        let run = fit(&w, &format!("{exclude} --json --strict")).succeeds();
        assert!(
            run.stderr
                .contains("1 good image is left out by --exclude: "),
            "{}",
            run.stderr
        );
        let found = run.json();
        assert_eq!(found["support_images"], TRAIN_GOOD);
        assert_eq!(found["threshold"], clean["threshold"]);
        assert_eq!(found["intake"][0]["oddity"], "excluded");
    }
    fit(&w, "--exclude liar.png --exclude lair.png").refuses(&["--exclude lair.png", "hint:"]);
    fit(&w, "--exclude *").refuses(&["0 good images to learn from", "left out by --exclude"]);
    fit(&w, "--exclude-from {}/absent.txt").refuses(&["absent.txt", "hint:"]);
    fs::remove_file(w.sample("train/good/liar.png")).unwrap();
    // what is tested is not learned from, and what a checkpoint learned from stays
    w.job("fit", "--exclude test/good/000.png --output {}/out/m.flaw")
        .refuses(&["--exclude test/good/000.png"]);
    w.job("fit", "--exclude train/good/000.png --output {}/out/m.flaw")
        .succeeds();
    let checkpoint = w.trained("--num-defect-samples 3");
    let rest = format!("--checkpoint {} --exclude 000.png", checkpoint.display());
    w.job("fit", &format!("{rest} --output {{}}/out/m.flaw"))
        .refuses(&["--exclude", "checkpoint", "hint:"]);
}

#[test]
fn a_file_under_both_labels_is_refused_and_twins_count_once() {
    let w = World::new();
    with_a_liar(&w);
    let both = "--defect {}/data/cloth/test/hole";
    fit(&w, both).refuses(&[
        "train/good/liar.png",
        "test/hole/000.png",
        "same content",
        "hint:",
    ]);
    // the label that is wrong can be left out
    fit(&w, &format!("{both} --exclude liar.png")).succeeds();
    fs::copy(
        w.sample("train/good/000.png"),
        w.sample("train/good/twin.png"),
    )
    .unwrap();
    let run = fit(&w, "--json").succeeds();
    assert!(
        run.stderr.contains("good/twin.png = good/000.png"),
        "{}",
        run.stderr
    );
    assert_eq!(run.json()["support_images"], TRAIN_GOOD + 1);
}

#[test]
fn good_images_that_are_nearly_the_same_are_named() {
    let w = World::new();
    let said = fit(&w, "").succeeds().stderr;
    assert!(!said.contains("nearly the same"), "{said}");
    // saved twice, one pixel apart
    let mut again = image::open(w.sample("train/good/003.png"))
        .unwrap()
        .to_rgb8();
    again.get_pixel_mut(5, 9).0[1] ^= 1;
    again.save(w.sample("train/good/again.png")).unwrap();
    let said = fit(&w, "").succeeds().stderr;
    for part in [
        "two good images are nearly the same, such as good/003.png and good/again.png",
        "hint: keep one of each, and leave the others out with --exclude",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = fit(&w, "--exclude again.png").succeeds().stderr;
    assert!(!said.contains("nearly the same"), "{said}");
}
