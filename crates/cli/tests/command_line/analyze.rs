//! How far apart images lie: tables, checkpoints, wrong inputs.

use std::fs;

use crate::world::{CATEGORY, World, data_and_backbone, golden, read_json};

#[test]
fn every_category_gets_a_row_most_room_first_and_a_checkpoint_a_second() {
    let w = World::new();
    // a category whose defects are its good images: nothing tells them apart
    let wool = w.root().join("wool");
    for (from, to) in [
        ("train/good", "train/good"),
        ("test/good", "test/good"),
        ("test/good", "test/hole"),
        ("train/good", "test/stain"),
    ] {
        fs::create_dir_all(wool.join(to)).unwrap();
        for entry in fs::read_dir(w.sample(from)).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            // the same pixels, but not the same content: that may not have two labels
            bytes.extend(to.bytes());
            fs::write(wool.join(to).join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
    let checkpoint = w.trained("--num-defect-samples 3 --no-ensemble");
    let weights = golden("ckpt/tiny_mlp/hf.safetensors");
    let line = |rest: &str| {
        format!(
            "analyze --root-dir {{}}/data --weights {} --image-size 64 --output-dir {{}}/out/analysis {rest}",
            weights.display()
        )
    };
    let run = w
        .run(&line("--category cloth,wool --max-images 5"))
        .succeeds();
    let rows: Vec<&str> = run
        .stdout
        .lines()
        .filter(|l| l.contains("zero-shot |"))
        .collect();
    assert!(
        rows.len() == 2 && rows[0].starts_with("| wool |"),
        "{}",
        run.stdout
    );
    assert_eq!(
        w.run(&line("--max-images 5")).succeeds().stdout,
        run.stdout,
        "every category is the default"
    );

    let json = w
        .run(&line(&format!(
            "--checkpoint {} --json",
            checkpoint.display()
        )))
        .succeeds()
        .json();
    let row = &json[0];
    assert_eq!(
        (json.as_array().unwrap().len(), row["category"].as_str()),
        (1, Some(CATEGORY))
    );
    let number = |which: &str, key: &str| row[which][key].as_f64().unwrap();
    for which in ["zero_shot", "adapted"] {
        let apart = (number(which, "mu_nn") - number(which, "mu_nd"))
            / (number(which, "sigma_nn") + number(which, "sigma_nd") + 1e-8);
        assert!(
            (number(which, "separability") - apart).abs() < 1e-9,
            "{row}"
        );
        assert!(
            (0.0..=1.0).contains(&number(which, "overlap"))
                && (0.0..=1.0).contains(&number(which, "auroc"))
        );
    }
    assert_ne!(row["zero_shot"]["mu_nd"], row["adapted"]["mu_nd"]);
    assert_eq!(read_json(&w.path("out/analysis/similarity.json")), json);
    let csv = fs::read_to_string(w.path("out/analysis/similarity.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    for plot in ["cloth_similarities", "cloth_similarities_adapted", "room"] {
        assert!(
            w.path(&format!("out/analysis/plots/{plot}.svg")).exists(),
            "{plot}"
        );
    }
}

#[test]
fn wrong_inputs_are_named() {
    let w = World::new();
    let checkpoint = w.trained("--num-defect-samples 3 --no-ensemble");
    let twice = format!("--checkpoint {0} {0}", checkpoint.display());
    w.job("analyze", &twice)
        .refuses(&["one checkpoint a category"]);
    fs::create_dir(w.path("empty")).unwrap();
    w.run("analyze --root-dir {}/empty")
        .refuses(&["empty", "no category"]);
    let line = format!("analyze {} --checkpoint {{}}/none.pt", data_and_backbone());
    w.run(&line).refuses(&["none.pt"]);
    let other = format!("--category wool --checkpoint {}", checkpoint.display());
    w.run(&format!("analyze --root-dir {{}}/data {other}"))
        .refuses(&["cloth", "--category"]);
}
