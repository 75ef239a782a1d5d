//! Drawn categories, and defects put on own images.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::world::World;

/// Every file below a folder, by its path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Images in a folder of a category, by their path.
fn below<'a>(found: &'a BTreeMap<String, Vec<u8>>, folder: &str) -> Vec<&'a Vec<u8>> {
    found
        .iter()
        .filter(|(name, _)| name.starts_with(folder))
        .map(|(_, bytes)| bytes)
        .collect()
}

#[test]
fn all_categories_are_drawn_unless_some_are_named() {
    let w = World::new();
    let few = "--size 32 --train-good 2 --test-good 1 --test-per-type 1";
    let run = w
        .run(&format!("synth {few} --output-dir {{}}/all"))
        .succeeds();
    for category in ["flange", "gravel", "plate", "twill"] {
        assert!(run.stdout.contains(category), "{}", run.stdout);
        assert_eq!(files(&w.path("all").join(category)).len(), 2 + 1 + 4 + 4);
    }
    let made = w
        .run(&format!(
            "synth {few} --category gravel --output-dir {{}}/one --json"
        ))
        .succeeds()
        .json();
    assert_eq!(
        (made.as_array().unwrap().len(), &made[0]["images"]),
        (1, &7.into())
    );
    assert_eq!(files(&w.path("one/gravel")), files(&w.path("all/gravel")));
    w.run("synth --category slate --output-dir {}/two")
        .refuses(&["'slate'", "flange, gravel, plate, twill"]);
    assert!(!w.path("two").exists());
}

#[test]
fn defects_are_put_on_own_pictures() {
    let w = World::new();
    // 8 + 6 good images
    let line = "synth --paste-on {}/data/cloth/train/good {}/data/cloth/test/good/*.png --kinds stain,cut-paste \
                --per-kind 4 --category mine --json";
    let made = w
        .run(&format!("{line} --output-dir {{}}/pasted --threads 1"))
        .succeeds()
        .json();
    for (key, count) in [
        ("images", 19),
        ("train_good", 8),
        ("test_good", 3),
        ("defects", 8),
        ("pasted_on", 3),
        ("left_out", 0),
    ] {
        assert_eq!(made[0][key], count, "{key}: {made}");
    }
    let found = files(&w.path("pasted/mine"));
    assert_eq!(
        made[0]["bytes"],
        found.values().map(Vec::len).sum::<usize>()
    );
    assert_eq!(found.len(), 19 + 8);
    // byte for byte, and in one group only
    let originals = files(&w.root());
    let (train, test) = (below(&found, "train/good/"), below(&found, "test/good/"));
    assert_eq!((train.len(), test.len()), (8, 3));
    for copy in train.iter().chain(&test) {
        assert!(originals.values().any(|original| original == *copy));
    }
    assert!(test.iter().all(|copy| !train.contains(copy)));
    for kind in ["stain", "cut-paste"] {
        for index in 0..4 {
            let flawed =
                image::load_from_memory(&found[&format!("test/{kind}/{index:03}.png")]).unwrap();
            let flawed = flawed.into_rgb8();
            let mask = &found[&format!("ground_truth/{kind}/{index:03}_mask.png")];
            let mask = image::load_from_memory(mask).unwrap().into_luma8();
            assert_eq!(
                (flawed.dimensions(), mask.dimensions()),
                ((64, 64), (64, 64))
            );
            assert!(mask.pixels().any(|p| p.0 == [255]) && mask.pixels().any(|p| p.0 == [0]));
            // it agrees in most of its pixels with its original, and with none that is copied
            let same = |bytes: &[u8]| {
                let other = image::load_from_memory(bytes).unwrap().into_rgb8();
                2 * other
                    .pixels()
                    .zip(flawed.pixels())
                    .filter(|(a, b)| a == b)
                    .count()
                    > 64 * 64
            };
            assert!(
                train.iter().chain(&test).all(|copy| !same(copy)),
                "{kind} {index}"
            );
            let good = originals.iter().filter(|(name, _)| name.contains("/good/"));
            assert_eq!(
                good.filter(|(_, bytes)| same(bytes)).count(),
                1,
                "{kind} {index}"
            );
        }
    }
    // the same bytes whatever the threads; other ones with another seed
    w.run(&format!("{line} --output-dir {{}}/again --threads 5"))
        .succeeds();
    assert_eq!(files(&w.path("again/mine")), found);
    w.run(&format!("{line} --output-dir {{}}/other --seed 2"))
        .succeeds();
    assert_ne!(files(&w.path("other/mine")), found);
    // a category like any other
    let model = crate::world::golden("ckpt/tiny_mlp/hf.safetensors");
    let baseline = format!(
        "baseline --root-dir {{}}/pasted --category mine --weights {} --image-size 64 --bootstrap 100 --pool-size 3 \
         --output-dir {{}}/out",
        model.display()
    );
    w.run(&baseline).succeeds();
    // for people, with all kinds and the default name
    let run = w
        .run("synth --paste-on {}/data/cloth/test/good --output-dir {}/pasted")
        .succeeds();
    assert!(
        run.stdout
            .contains("train/good 4, test/good 1, 25 defects on 1 other"),
        "{}",
        run.stdout
    );
    assert_eq!(files(&w.path("pasted/pasted")).len(), 4 + 1 + 2 * 25);
}

#[test]
fn pasting_that_cannot_be_done_is_refused_and_leaves_nothing() {
    let w = World::new();
    let good = "--paste-on {}/data/cloth/train/good --output-dir {}/pasted";
    w.run(&format!("synth {good} --kinds scratch,dent"))
        .refuses(&["'dent'", "scratch, hole, stain, cut-paste, blend"]);
    w.run(&format!("synth {good} --category a,b"))
        .refuses(&["one name"]);
    w.run(&format!("synth {good} --category ../b"))
        .refuses(&["'../b'"]);
    for option in [
        "--size 64",
        "--train-good 3",
        "--test-good 3",
        "--test-per-type 3",
    ] {
        let name = option.split(' ').next().unwrap();
        w.run(&format!("synth {good} {option}"))
            .refuses(&["--paste-on", name]);
    }
    for option in [
        "--kinds hole",
        "--per-kind 3",
        "--train-share 0.5",
        "--exif-orientation",
    ] {
        w.run(&format!("synth --output-dir {{}}/pasted {option}"))
            .refuses(&["--paste-on"]);
    }
    for option in ["--per-kind 0", "--train-share 1", "--train-share 0"] {
        w.run(&format!("synth {good} {option}"))
            .refuses(&[option.split(' ').next().unwrap()]);
    }
    fs::create_dir(w.path("none")).unwrap();
    w.run("synth --paste-on {}/none --output-dir {}/pasted")
        .refuses(&["none: no images"]);
    w.run("synth --paste-on {}/none/*.png --output-dir {}/pasted")
        .refuses(&["*.png: no image"]);
    w.run("synth --paste-on {}/absent.png --output-dir {}/pasted")
        .refuses(&["absent.png"]);
    let one = "{}/data/cloth/train/good/000.png";
    w.run(&format!(
        "synth --paste-on {one} {one} {one} --output-dir {{}}/pasted"
    ))
    .refuses(&["3 image(s) with 1 different", "at least 3"]);
    fs::write(w.path("none/broken.png"), "no image").unwrap();
    w.run(&format!("synth {good} --paste-on {{}}/none"))
        .refuses(&["broken.png", "not an image"]);
    image::RgbImage::new(90, 5)
        .save(w.path("none/broken.png"))
        .unwrap();
    w.run(&format!("synth {good} --paste-on {{}}/none"))
        .refuses(&["broken.png: 90x5", "at least 8"]);
    assert!(!w.path("pasted").exists());
    fs::create_dir_all(w.path("pasted/pasted")).unwrap();
    w.run(&format!("synth {good}")).refuses(&["already exists"]);
    assert_eq!(fs::read_dir(w.path("pasted")).unwrap().count(), 1);
}
