//! `flawtune report`: what the page says, and what it refuses. Browsers look at it in `.ci/run`.

use std::fs;

use serde_json::Value as Json;

use crate::world::{CATEGORY, Run, World, read_json};

/// A world with a trained and evaluated run in `out`.
fn evaluated(train: &str, evaluate: &str) -> World {
    let w = World::new();
    w.trained(train);
    let line = format!(
        "--checkpoint {{}}/out/{CATEGORY}_prompts.pt --output-dir {{}}/out --bootstrap 100 {evaluate}"
    );
    w.job("evaluate", &line).succeeds();
    w
}

fn page(w: &World, line: &str) -> (String, Run) {
    let run = w
        .run(&format!("report {line} --output {{}}/page.html"))
        .succeeds();
    (fs::read_to_string(w.path("page.html")).unwrap(), run)
}

fn edit(w: &World, name: &str, change: impl Fn(&mut Json)) {
    let path = w.out().join(name);
    let mut value = read_json(&path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn the_page_holds_numbers_curves_decisions_split_and_pictures() {
    let w = evaluated("--num-defect-samples 5", "");
    let found = read_json(&w.out().join("cloth_comparison.json"));
    let (html, run) = page(&w, "{}/out --root-dir {}/data --plots {}/plots");
    assert_eq!(run.stdout.trim(), w.path("page.html").to_str().unwrap());
    for (part, key) in [
        ("prompt_tuned", "auroc"),
        ("zero_shot", "auroc"),
        ("prompt_tuned", "average_precision"),
    ] {
        let number = format!("{:.3}", found[part][key].as_f64().unwrap());
        assert!(html.contains(&number), "{part}.{key} {number}");
    }
    // thresholds come from the held-out good images, and the decisions at them are the comparison's
    let threshold = found["prompt_tuned"]["threshold"].as_f64().unwrap();
    assert_eq!(found["thresholds"]["prompt_tuned"]["value"], threshold);
    let good: Vec<f64> =
        serde_json::from_value(found["thresholds"]["prompt_tuned"]["good"].clone()).unwrap();
    assert!(
        !good.is_empty() && good.iter().all(|score| *score < threshold),
        "{good:?}, {threshold}"
    );
    let counts = &found["prompt_tuned"]["confusion"];
    let total: u64 = counts
        .as_object()
        .unwrap()
        .values()
        .map(|v| v.as_u64().unwrap())
        .sum();
    assert_eq!(
        total,
        found["test_normals"].as_u64().unwrap() + found["test_defects"].as_u64().unwrap()
    );
    assert!(html.contains("Decisions at the threshold") && html.contains("without a tested image"));
    for text in [
        "ROC: prompts",
        "Precision and recall: prompts",
        "Scores: prompts, adapted",
        "Scores: prompts, zero-shot",
        "ROC: ensemble",
        "Training loss",
        "By defect type",
        "hole",
        "stain",
        "Protocol held-out",
        "rest of the pool",
        "threshold ",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(html.contains(found["test_set_hash"].as_str().unwrap()));
    // all test images of one class but at most ten, of two scorers, each way
    let pictures = html.matches("<img src=\"data:image/jpeg;base64,").count();
    assert_eq!(pictures, 2 * (6 + 4), "6 good and 4 defective images");
    assert!(!html.contains("no image"));
    assert!(!html.contains("class=\"mark\""), "nothing is leaky");
    let plots: Vec<String> = fs::read_dir(w.path("plots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        plots.contains(&"cloth-out-roc-prompts.svg".to_owned()),
        "{plots:?}"
    );

    // the same page again, and none of it with no images
    assert_eq!(html, page(&w, "{}/out --root-dir {}/data").0);
    let (bare, run) = page(&w, "{}/out/cloth_comparison.json --no-thumbnails --quiet");
    assert!(!bare.contains("<img") && bare.contains("ROC: prompts"));
    assert!(!run.stderr.contains("KiB"), "no notes: {}", run.stderr);
    // run.json knows the commands, who set what, the machine, and where the images are
    let (recorded, _) = page(&w, "{}/out");
    assert_eq!(
        recorded
            .matches("<img src=\"data:image/jpeg;base64,")
            .count(),
        pictures
    );
    for text in [
        "flawtune train --category cloth",
        "flawtune evaluate --category cloth",
        "--num-epochs",
        "flag",
        "evaluate: versions",
        "physical cores",
        "train: time",
    ] {
        assert!(recorded.contains(text), "{text}");
    }
    // without it the page says what checkpoint and comparison know
    fs::remove_file(w.out().join("run.json")).unwrap();
    let (alone, _) = page(&w, "{}/out --no-thumbnails");
    assert!(
        !alone.contains("flawtune train --category") && alone.contains("trained with num_epochs")
    );

    // PNG files have the drawing's size twice over
    w.run("report {}/out --no-thumbnails --plots {}/png --plot-format png -o {}/page.html")
        .succeeds();
    let image = image::open(w.path("png/cloth-out-roc-prompts.png")).unwrap();
    assert_eq!(image.width(), 800);
}

#[test]
fn overlays_of_predict_stand_beside_their_pictures() {
    let w = evaluated("--no-ensemble", "");
    w.job("fit", "--output {}/cloth.flaw").succeeds();
    w.job(
        "evaluate",
        "--bundle {}/cloth.flaw --output-dir {}/out --bootstrap 100",
    )
    .succeeds();
    w.run("predict {}/cloth.flaw {}/data/cloth/test --maps {}/out/maps")
        .succeeds();
    let (html, _) = page(&w, "{}/out --root-dir {}/data --thumbnails 3");
    assert!(
        html.contains("What was found, and where") && html.contains("Highest scores: detector")
    );
    assert!(html.matches("<figcaption>map</figcaption>").count() >= 3);
    assert!(html.contains("ROC: detector") && html.contains("AUROC, detector (residual)"));
}

#[test]
fn runs_side_by_side_say_when_they_cannot_be_compared() {
    let w = evaluated("--no-ensemble", "");
    fs::rename(w.out(), w.path("first")).unwrap();
    w.trained("--no-ensemble --seed 5");
    let line = "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100";
    w.job("evaluate", line).succeeds();
    let (html, run) = page(&w, "{}/first {}/out --root-dir {}/data");
    let both = [
        w.path("first/cloth_comparison.json"),
        w.out().join("cloth_comparison.json"),
    ]
    .map(|p| read_json(&p));
    assert_ne!(both[0]["test_set_hash"], both[1]["test_set_hash"]);
    assert!(html.contains("2 different test sets") && run.stderr.contains("2 different test sets"));
    for one in &both {
        assert!(html.contains(&one["test_set_hash"].as_str().unwrap()[..8]));
    }
    assert!(
        html.contains("cloth (first)")
            && html.contains("cloth (out)")
            && html.contains("ROC, adapted")
    );
    // the same run twice is one run
    let (html, _) = page(&w, "{}/out {}/out/cloth_scores.csv --no-thumbnails");
    assert!(!html.contains("Side by side"));
}

#[test]
fn leaky_numbers_say_so() {
    let w = evaluated("--preset original --num-defect-samples 2", "");
    let (html, _) = page(&w, "{}/out --no-thumbnails");
    let marks = html.matches("<span class=\"mark\">leaky</span>").count();
    // two tiles with three numbers each, and three numbers for each of two types
    assert_eq!(marks, 2 * 3 + 2 * 3, "{html}");
    assert!(html.contains("ROC: prompts (leaky)") && html.contains("is not a result"));
    // and a threshold of images that trained is none
    assert!(read_json(&w.out().join("cloth_comparison.json"))["thresholds"].is_null());
    assert!(!html.contains("Decisions at the threshold"));
    fs::rename(w.out(), w.path("first")).unwrap();
    w.trained("--no-ensemble");
    w.job(
        "evaluate",
        "--checkpoint {}/out/cloth_prompts.pt --output-dir {}/out --bootstrap 100",
    )
    .succeeds();
    let (html, _) = page(&w, "{}/first {}/out --no-thumbnails");
    assert!(html.contains("Leaky: cloth (first)"));
}

#[test]
fn what_is_missing_is_named_and_what_is_nasty_stays_text() {
    let w = evaluated("--no-ensemble", "");
    let out = w.out();
    // images that are not there
    let (html, run) = page(&w, "{}/out --root-dir {}/nowhere");
    assert!(
        html.contains("no image") && run.stderr.contains("--root-dir"),
        "{}",
        run.stderr
    );
    // names that look like markup
    let nasty = "test/hole/<script>alert(1)</script>.png";
    edit(&w, "cloth_comparison.json", |c| {
        c["worst_misses"][0]["id"] = nasty.into();
    });
    let (html, _) = page(&w, "{}/out --root-dir {}/data");
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(html.contains("&lt;script&gt;alert(1)"));
    // scores of another evaluation draw no curve
    let scores = fs::read_to_string(out.join("cloth_scores.csv")).unwrap();
    let fewer: Vec<&str> = scores.lines().take(6).collect();
    fs::write(out.join("cloth_scores.csv"), fewer.join("\n")).unwrap();
    let (html, run) = page(&w, "{}/out --no-thumbnails");
    assert!(html.contains("not those of the comparison") && !html.contains("ROC: prompts"));
    assert!(run.stderr.contains("not those of the comparison"));
    // none at all
    fs::remove_file(out.join("cloth_scores.csv")).unwrap();
    let (html, run) = page(&w, "{}/out --no-thumbnails");
    assert!(
        html.contains("cloth_scores.csv is missing")
            && run.stderr.contains("cloth_scores.csv is missing")
    );
    // a checkpoint without an evaluation
    fs::remove_file(out.join("cloth_comparison.json")).unwrap();
    let (html, _) = page(&w, "{}/out/cloth_prompts.pt");
    assert!(html.contains("trained but not evaluated") && html.contains("Training loss"));
}

#[test]
fn wrong_inputs_are_refused() {
    let w = evaluated("--no-ensemble", "");
    fs::create_dir(w.path("empty")).unwrap();
    w.run("report {}/empty")
        .refuses(&["empty", "holds no results", "flawtune evaluate"]);
    w.run("report {}/none")
        .refuses(&["none", "no such file or folder"]);
    w.run("report {}/data/cloth/test/good/000.png")
        .refuses(&["000.png", "neither a run folder"]);
    w.run("report {}/out --output {}/empty")
        .refuses(&["empty", "is a folder", "--output"]);
    w.run("report {}/out --output {}/out/cloth_scores.csv/p.html")
        .refuses(&["cloth_scores.csv", "--output"]);
    w.run("report {}/out --maps {}/none -o {}/p.html")
        .refuses(&["none"]);
    w.run("report {}/out --no-thumbnails --plots {}/out/cloth_scores.csv -o {}/p.html")
        .refuses(&["cloth_scores.csv", "--plots"]);
    let broken = w.out().join("cloth_comparison.json");
    fs::write(&broken, "{\"category\": \"cloth\"").unwrap();
    w.run("report {}/out -o {}/p.html").refuses(&[
        "cloth_comparison.json",
        "damaged",
        "flawtune evaluate",
    ]);
    fs::remove_file(&broken).unwrap();
    fs::write(w.out().join("cloth_prompts.pt"), "no checkpoint").unwrap();
    w.run("report {}/out -o {}/p.html")
        .refuses(&["cloth_prompts.pt"]);
    assert!(
        !w.path("p.html").exists(),
        "nothing is left of a page that failed"
    );
}
