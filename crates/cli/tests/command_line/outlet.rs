//! What is written: whole, once at a time, and over nothing of others.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use image::{GrayImage, Luma};

use crate::world::{World, read_json};

#[test]
fn results_of_another_detector_are_not_overwritten() {
    let w = World::new();
    w.job("fit", "-o {}/a.flaw").succeeds();
    fs::copy(w.path("a.flaw"), w.path("b.flaw")).unwrap();
    let evaluate = |file: &str, more: &str| {
        w.run(&format!(
            "evaluate {{}}/{file} --root-dir {{}}/data --output-dir {{}}/e --bootstrap 100 {more}"
        ))
    };
    let owner = || read_json(&w.path("e/cloth_detection.json"))["detector"].clone();
    evaluate("a.flaw", "").succeeds();
    let first = owner();
    evaluate("a.flaw", "").succeeds();
    evaluate("b.flaw", "").refuses(&["cloth_detection.json", "a.flaw", "hint:", "--force"]);
    assert_eq!(owner(), first);
    evaluate("b.flaw", "--force").succeeds();
    assert_ne!(owner(), first);
}

#[test]
fn results_of_another_checkpoint_are_not_overwritten() {
    let w = World::new();
    let first = w.trained("--num-defect-samples 1");
    fs::copy(first, w.path("out/other.pt")).unwrap();
    let evaluate = |file: &str, more: &str| {
        let rest =
            format!("--checkpoint {{}}/out/{file} --output-dir {{}}/e --bootstrap 100 {more}");
        w.job("evaluate", &rest)
    };
    evaluate("cloth_prompts.pt", "").succeeds();
    evaluate("cloth_prompts.pt", "").succeeds();
    evaluate("other.pt", "").refuses(&["cloth_comparison.json", "cloth_prompts.pt", "--force"]);
    evaluate("other.pt", "--force").succeeds();
}

#[test]
fn two_runs_do_not_write_the_same_results_at_once() {
    let w = World::new();
    let long = "--num-epochs 100000 --patience 0 --epoch one --num-prompts 2 --modulation-type global --output-dir {}/out";
    let line = World::job_line("train", &format!("{long} --num-defect-samples 5"));
    let mut first = w
        .command(&line)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let started = lines
        .map(Result::unwrap)
        .find(|l| l.starts_with("training "));
    assert!(started.is_some());
    let job = |out: &str| {
        w.job(
            "baseline",
            &format!("--output-dir {{}}/{out} --bootstrap 100"),
        )
    };
    job("out").refuses(&["another run", "cloth", "hint:"]);
    job("other").succeeds();
    first.kill().unwrap();
    first.wait().unwrap();
    // the lock of a run that was killed is nobody's
    job("out").succeeds();
}

#[test]
fn maps_of_large_images_are_drawn_at_a_part_of_their_size() {
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    fs::create_dir(w.path("large")).unwrap();
    GrayImage::from_fn(5001, 4000, |x, y| Luma([(x / 40 * (y / 40)) as u8]))
        .save(w.path("large/a.png"))
        .unwrap();
    let run = w.run("predict {}/m.flaw {}/large --maps {}/maps --json");
    let line = run.succeeds().json();
    let overlay = image::image_dimensions(w.path("maps/a.png.overlay.png")).unwrap();
    assert_eq!(overlay, (2501, 2000));
    let map = fs::metadata(w.path("maps/a.png.tiff")).unwrap().len();
    assert!((4 * 2501 * 2000..5 * 2501 * 2000).contains(&map), "{map}");
    if line["verdict"] == "flaw" {
        let of = |key: &str| line["box"][key].as_u64().unwrap();
        assert!(
            of("x") + of("width") <= 5001 && of("y") + of("height") <= 4000,
            "{line}"
        );
    }
}
