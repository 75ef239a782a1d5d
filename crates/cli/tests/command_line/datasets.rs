//! Images from folders and lists instead of a root with categories.

use std::fmt::Write as _;
use std::fs;

use crate::world::{CATEGORY, World, golden};

fn weights() -> String {
    format!(
        "--weights {}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    )
}

fn backbone() -> String {
    format!("{} --image-size 64", weights())
}

#[test]
fn fit_needs_good_pictures_only() {
    let w = World::new();
    let backbone = backbone();
    fs::rename(w.sample("test"), w.path("elsewhere")).unwrap();
    w.run(&format!(
        "fit --category {CATEGORY} --root-dir {{}}/data --output {{}}/a.flaw {backbone}"
    ))
    .succeeds();
    // without --category the root is the category
    w.run(&format!(
        "fit --root-dir {{}}/data/{CATEGORY} --output {{}}/b.flaw {backbone}"
    ))
    .succeeds();
    assert!(fs::read(w.path("a.flaw")).unwrap() == fs::read(w.path("b.flaw")).unwrap());
    let good = format!("--good {{}}/data/{CATEGORY}/train/good");
    w.run(&format!("fit {good} --output {{}}/c.flaw {backbone}"))
        .succeeds();
    let run = w.run(&format!(
        "predict {{}}/c.flaw --json {} {{}}/elsewhere/hole/000.png",
        weights()
    ));
    assert!(run.succeeds().json()["score"].is_number());
    w.run(&format!("train {good} {backbone}"))
        .refuses(&["no defects", "--defect DIR", "fit"]);
    w.run(&format!(
        "train --category {CATEGORY} --root-dir {{}}/data {backbone}"
    ))
    .refuses(&["no test images"]);
    w.run(&format!("fit --output {{}}/d.flaw {backbone}"))
        .refuses(&["--category"]);
    w.run(&format!(
        "fit {good} --root-dir {{}}/data --output {{}}/d.flaw"
    ))
    .refuses(&["cannot be used with"]);
}

#[test]
fn folders_are_trained_on_and_evaluated() {
    let w = World::new();
    fs::create_dir(w.path("bad")).unwrap();
    for kind in ["hole", "stain"] {
        fs::rename(
            w.sample(&format!("test/{kind}")),
            w.path(&format!("bad/{kind}")),
        )
        .unwrap();
    }
    let data = format!(
        "--good {{}}/data/{CATEGORY}/train/good --test-good {{}}/data/{CATEGORY}/test/good --defect {{}}/bad \
         --category rag"
    );
    let run = w
        .run(&format!(
            "train {data} {} --num-epochs 1 --num-prompts 2 --num-defect-samples 4 --no-ensemble \
             --output-dir {{}}/out",
            backbone()
        ))
        .succeeds();
    assert!(
        run.stderr
            .contains("flawtune evaluate --category rag --good "),
        "{run:#?}"
    );
    let evaluated = w.run(&format!(
        "evaluate {data} --checkpoint {{}}/out/rag_prompts.pt {} --bootstrap 100 --output-dir {{}}/out --json",
        weights()
    ));
    assert_eq!(evaluated.succeeds().json()["category"], "rag");
}

#[test]
fn a_list_serves_every_command() {
    let w = World::new();
    let mut text = "path,label,split,type\n".to_owned();
    for (folder, label, split, kind, count) in [
        ("train/good", "good", "train", "", 8),
        ("test/good", "good", "test", "", 6),
        // two defects to learn from: the others are all tested
        ("test/hole", "defect", "train", "hole", 2),
        ("test/stain", "defect", "test", "stain", 7),
    ] {
        for i in 0..count {
            writeln!(
                text,
                "data/{CATEGORY}/{folder}/{i:03}.png,{label},{split},{kind}"
            )
            .unwrap();
        }
    }
    fs::write(w.path("cloth.csv"), text).unwrap();
    let backbone = backbone();
    w.run(&format!(
        "fit --list {{}}/cloth.csv --output {{}}/m.flaw {backbone}"
    ))
    .succeeds();
    let found = w.run(&format!(
        "evaluate --list {{}}/cloth.csv --bundle {{}}/m.flaw {} --bootstrap 100 --output-dir {{}}/out --json",
        weights()
    ));
    let json = found.succeeds().json();
    assert_eq!(
        (
            json["split"]["good"].as_u64(),
            json["split"]["defects"].as_u64()
        ),
        (Some(6), Some(7))
    );
    // those of train were learned from
    assert_eq!(json["split"]["shots"], 2);
    let line = format!(
        "baseline --list {{}}/cloth.csv --bootstrap 100 --output-dir {{}}/out {backbone} --json"
    );
    assert_eq!(w.run(&line).succeeds().json()["category"], "cloth");
    fs::write(w.path("cloth.csv"), "path,label\nnone.png,good\n").unwrap();
    w.run(&line).refuses(&["cloth.csv, line 2", "none.png"]);
}
