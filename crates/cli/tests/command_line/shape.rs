//! Sizes with two sides, the aspect that is kept, and the region that is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GenericImageView as _, RgbImage};
use serde_json::Value as Json;

use crate::world::{CATEGORY, Run, TRAIN_GOOD, World, golden};

/// Every image and mask below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The images and masks of the data set, changed, under another root.
fn changed(w: &World, to: &str, change: impl Fn(&RgbImage) -> RgbImage) {
    for path in files(&w.root()) {
        let image = image::open(&path).unwrap().to_rgb8();
        let place = w.path(to).join(path.strip_prefix(w.root()).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        change(&image).save(place).unwrap();
    }
}

/// Half as wide again: the image and its left half.
fn widened(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width + width / 2, height, |x, y| {
        *image.get_pixel(x % width, y)
    })
}

fn weights() -> String {
    golden("ckpt/tiny_mlp/hf.safetensors").display().to_string()
}

/// `fit` of the data set under a root to `{}/NAME`.
fn fit(w: &World, root: &str, name: &str, rest: &str) -> Run {
    w.run(&format!(
        "fit --root-dir {{}}/{root} --category {CATEGORY} --weights {} --output {{}}/{name} {rest}",
        weights()
    ))
}

/// Scores of the test images under a root, without their paths.
fn scores(w: &World, name: &str, root: &str) -> Vec<String> {
    let run = w
        .run(&format!(
            "predict {{}}/{name} {{}}/{root}/{CATEGORY}/test --format csv --quiet"
        ))
        .succeeds();
    let fields = |line: &str| line.split_once(',').unwrap().1.to_owned();
    run.stdout.lines().map(fields).collect()
}

fn evaluated(w: &World, name: &str, root: &str) -> Json {
    w.run(&format!(
        "evaluate {{}}/{name} --root-dir {{}}/{root} --bootstrap 100 --output-dir {{}}/of_{name} --json"
    ))
    .succeeds()
    .json()
}

#[test]
fn the_aspect_of_most_good_images_is_kept() {
    let w = World::new();
    w.add_masks();
    changed(&w, "wide", widened);
    let odd = w.path("wide/cloth/train/good/003.png");
    fs::copy(w.sample("train/good/003.png"), odd).unwrap();
    let keep = "--num-defect-samples 3 --resize keep --image-size 64,32 --json";
    let run = fit(&w, "wide", "m.flaw", keep).succeeds();
    assert_eq!(
        run.json()["image_sizes"],
        serde_json::json!(["96x64", "48x32"])
    );
    for part in [
        "1.50 times as wide as they are high",
        "96x64 and 48x32 px",
        "1 image has another shape than most of the good images, and is stretched to theirs: train/good/003.png",
    ] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    let info = w.run("info {}/m.flaw").succeeds().stdout;
    for part in ["4×6 patches", "96x64 and 48x32 px", "kept, 1.50 times"] {
        assert!(info.contains(part), "{info}");
    }
    // it is the same as these sizes by name
    let named = "--num-defect-samples 3 --image-size 48x32,96x64 --json";
    fit(&w, "wide", "n.flaw", named).succeeds();
    assert_eq!(scores(&w, "m.flaw", "wide"), scores(&w, "n.flaw", "wide"));
    let found = evaluated(&w, "m.flaw", "wide");
    assert!(found["rows"][0]["pixels"]["auroc"].is_f64(), "{found}");

    // an image of another shape is named where it is judged
    let of = |root: &str| {
        let line =
            format!("predict {{}}/m.flaw {{}}/{root}/{CATEGORY}/test/good --json --maps {{}}/maps");
        w.run(&line).succeeds()
    };
    let (wide, square) = (of("wide"), of("data"));
    assert!(!wide.stderr.contains("shape"), "{}", wide.stderr);
    assert!(
        square.stderr.contains("6 images are stretched"),
        "{}",
        square.stderr
    );
    let first: Json = serde_json::from_str(square.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["oddities"], serde_json::json!(["stretched"]));
    w.run("learn {}/m.flaw --good {}/wide/cloth/test/good --force")
        .succeeds();
    assert!(w.run("info {}/m.flaw").succeeds().stdout.contains("96x64"));
}

#[test]
fn one_size_with_an_aspect_goes_with_every_scorer_tiles_and_features() {
    let w = World::new();
    changed(&w, "high", |image| {
        image::imageops::rotate90(&widened(image))
    });
    let tiles = fit(
        &w,
        "high",
        "m.flaw",
        "--resize keep --image-size 64 --tile-size 32",
    )
    .succeeds();
    assert!(
        tiles.stderr.contains("6 tiles of 32×32"),
        "{}",
        tiles.stderr
    );
    for scorer in ["image-pair", "patch-bank"] {
        let rest = format!("--resize keep --image-size 64 --scorer {scorer}");
        fit(&w, "high", "m.flaw", &rest).succeeds();
        assert_eq!(scores(&w, "m.flaw", "high").len(), 1 + 6 + 14);
        let info = w.run("info {}/m.flaw").succeeds().stdout;
        assert!(info.contains("6×4 patches"), "{info}");
    }
    let line = format!(
        "features {{}}/high/cloth/train/good/000.png {{}}/high/cloth/train/good/001.png --weights {} --image-size 64 --output \
         {{}}/t.safetensors --json --resize",
        weights()
    );
    let grid = |how: &str| w.run(&format!("{line} {how}")).succeeds().json()["grid"].clone();
    assert_eq!(grid("keep"), serde_json::json!([6, 4]));
    assert_eq!(grid("squash"), serde_json::json!([4, 4]));
}

#[test]
fn shapes_that_cannot_be_kept_are_said() {
    let w = World::new();
    changed(&w, "mixed", widened);
    for i in 0..TRAIN_GOOD / 2 {
        let id = format!("train/good/00{i}.png");
        fs::copy(w.sample(&id), w.path("mixed/cloth").join(id)).unwrap();
    }
    let mixed = fit(
        &w,
        "mixed",
        "m.flaw",
        "--resize keep --image-size 64 --json",
    )
    .succeeds();
    assert!(
        mixed.stderr.contains("do not share one shape"),
        "{}",
        mixed.stderr
    );
    assert_eq!(mixed.json()["image_sizes"], serde_json::json!([64]));
    fit(&w, "mixed", "n.flaw", "--image-size 64").succeeds();
    assert_eq!(scores(&w, "m.flaw", "mixed"), scores(&w, "n.flaw", "mixed"));

    changed(&w, "long", |image| {
        RgbImage::from_fn(384, 64, |x, y| *image.get_pixel(x % 64, y))
    });
    let long = fit(&w, "long", "m.flaw", "--resize keep --image-size 64 --json").succeeds();
    assert!(long.stderr.contains("6.0 times as long"), "{}", long.stderr);
    assert_eq!(long.json()["image_sizes"], serde_json::json!(["256x64"]));

    let refused = |rest: &str, parts: &[&str]| drop(fit(&w, "long", "o.flaw", rest).refuses(parts));
    refused(
        "--image-size 70x64",
        &["--image-size 70x64", "patch size", "hint: take 64"],
    );
    refused("--image-size 120x40", &["hint: take 128x48"]);
    refused("--image-size 64x", &["448x224"]);
    refused("--image-size 0", &["from 1 to 8192"]);
    refused(
        "--resize keep --image-size 96x64",
        &["--resize keep", "hint:"],
    );
    w.run(&format!(
        "baseline --root-dir {{}}/long --category {CATEGORY} --weights {} --image-size 64 --resize keep --output-dir {{}}/out",
        weights()
    ))
    .refuses(&["--resize keep", "hint:"]);
}

/// Columns, rows, width and height of the part of the images that the tests look at.
const PART: (u32, u32, u32, u32) = (16, 8, 40, 48);

/// The part of an image, or of a mask of half its size.
fn part(image: &RgbImage) -> RgbImage {
    let by = 64 / image.width();
    let (x, y, width, height) = PART;
    image
        .view(x / by, y / by, width / by, height / by)
        .to_image()
}

#[test]
fn a_region_is_as_good_as_images_that_were_cut() {
    let w = World::new();
    w.add_masks();
    changed(&w, "cut", part);
    let learned = "--num-defect-samples 3 --image-size 64,32 --no-cache";
    let shares = "--roi 25%,12.5%,62.5%,75%";
    let said = fit(&w, "data", "m.flaw", &format!("{learned} --roi 16,8,40,48")).succeeds();
    assert!(
        said.stderr.contains("40×48 of 64×64 pixels (47 %)"),
        "{}",
        said.stderr
    );
    fit(&w, "data", "p.flaw", &format!("{learned} {shares}")).succeeds();
    fit(&w, "cut", "c.flaw", learned).succeeds();
    let cut = scores(&w, "c.flaw", "cut");
    let offset: Vec<String> = cut
        .iter()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let moved = |field: &str, by: u32| {
                field
                    .parse::<u32>()
                    .map_or(field.to_owned(), |v| (v + by).to_string())
            };
            let (x, y) = (moved(fields[3], PART.0), moved(fields[4], PART.1));
            [&fields[..3], &[x.as_str(), y.as_str()], &fields[5..]]
                .concat()
                .join(",")
        })
        .collect();
    assert!(
        offset.iter().any(|line| line.contains("flaw")),
        "{offset:?}"
    );
    assert_eq!(scores(&w, "m.flaw", "data"), offset);
    assert_eq!(scores(&w, "p.flaw", "data"), offset);

    let (whole, of_cut) = (
        evaluated(&w, "m.flaw", "data"),
        evaluated(&w, "c.flaw", "cut"),
    );
    for row in 0..2 {
        for key in ["metrics", "pixels"] {
            assert!(whole["rows"][row][key].is_object(), "{whole}");
            assert_eq!(whole["rows"][row][key], of_cut["rows"][row][key]);
        }
    }
    let learn = |name: &str, root: &str| {
        let run = w.run(&format!(
            "learn {{}}/{name} --good {{}}/{root}/cloth/test/good --defect {{}}/{root}/cloth/test/stain --force --json"
        ));
        let found = run.succeeds().json();
        [
            found["before"].clone(),
            found["after"].clone(),
            found["threshold"].clone(),
        ]
    };
    assert_eq!(learn("m.flaw", "data"), learn("c.flaw", "cut"));
    assert_eq!(scores(&w, "m.flaw", "data").len(), offset.len());

    let turned = "--image-size 64 --augment rotations --support-shots 2 --no-cache";
    fit(&w, "data", "m.flaw", &format!("{turned} {shares}")).succeeds();
    fit(&w, "cut", "c.flaw", turned).succeeds();
    let score = |line: &String| line.split(',').next().unwrap().to_owned();
    let of = |name: &str, root: &str| scores(&w, name, root).iter().map(score).collect::<Vec<_>>();
    assert_eq!(of("m.flaw", "data"), of("c.flaw", "cut"));
}

/// The files of the map of one defect, and the numbers of the map.
fn drawn(w: &World) -> (Vec<PathBuf>, Vec<f32>) {
    w.run("predict {}/m.flaw {}/data/cloth/test/hole/000.png --maps {}/maps --map-format npy")
        .succeeds();
    let maps = files(&w.path("maps"));
    let map = maps
        .iter()
        .find(|p| p.extension().is_some_and(|e| e == "npy"));
    let bytes = fs::read(map.unwrap()).unwrap();
    let values: Vec<f32> = bytes[bytes.len() - 64 * 64 * 4..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    (maps, values)
}

#[test]
fn outside_of_a_region_there_is_no_map_and_beyond_an_image_no_region() {
    let w = World::new();
    fit(&w, "data", "m.flaw", "--image-size 64 --roi 16,8,40,48").succeeds();
    let (maps, values) = drawn(&w);
    let (x, y, width, height) = PART;
    for (i, value) in values.iter().enumerate() {
        let (column, row) = (i as u32 % 64, i as u32 / 64);
        let inside = (x..x + width).contains(&column) && (y..y + height).contains(&row);
        assert_eq!(value.is_nan(), !inside, "{column},{row}: {value}");
    }
    // the overlay leaves the rest of the image as it is
    let overlay = maps
        .iter()
        .find(|p| p.to_string_lossy().contains("overlay"));
    let overlay = image::open(overlay.unwrap()).unwrap().to_rgb8();
    let image = image::open(w.sample("test/hole/000.png"))
        .unwrap()
        .to_rgb8();
    assert_eq!(overlay.get_pixel(2, 2), image.get_pixel(2, 2));
    assert_ne!(overlay.get_pixel(30, 30), image.get_pixel(30, 30));
    let info = w.run("info {}/m.flaw").succeeds().stdout;
    assert!(info.contains("16,8,40,48"), "{info}");

    let refused = |roi: &str, parts: &[&str]| {
        fit(
            &w,
            "data",
            "n.flaw",
            &format!("--image-size 64 --roi {roi}"),
        )
        .refuses(parts);
    };
    refused("30,0,40,40", &["30,0,40,40", "64×64", "hint: --roi"]);
    refused("1,2,3", &["left,top,width,height"]);
    refused("50%,0%,60%,10%", &["right edge"]);
    image::RgbImage::new(50, 50)
        .save(w.path("small.png"))
        .unwrap();
    w.run("predict {}/m.flaw {}/small.png")
        .refuses(&["small.png", "16,8,40,48", "50×50"]);
    let checkpoint = w.trained("--num-defect-samples 3");
    let rest = format!("--checkpoint {} --roi 1,1,9,9", checkpoint.display());
    w.job("fit", &format!("{rest} --output {{}}/n.flaw"))
        .refuses(&["--roi", "checkpoint", "hint:"]);
}

#[test]
fn defects_that_are_marked_outside_of_the_region_only_are_counted() {
    let w = World::new();
    w.add_masks();
    let run = fit(
        &w,
        "data",
        "m.flaw",
        "--image-size 64 --num-defect-samples 3 --roi 50%,50%,50%,50%",
    );
    let said = run.succeeds().stderr;
    assert!(
        said.contains("3 of 3 defects are marked outside") && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn a_search_says_what_it_compared_and_changes_no_bit_where_all_sizes_stay() {
    let w = World::new();
    let learned = "--num-defect-samples 3 --image-size 64,32 --no-cache";
    let plain = fit(
        &w,
        "data",
        "m.flaw",
        &format!("{learned} --search 1min --no-search"),
    );
    assert!(!plain.succeeds().stderr.contains("searched"));
    let said = fit(&w, "data", "s.flaw", &format!("{learned} --search 10min")).succeeds();
    let again = format!("{learned} --search 10min --threads 1");
    fit(&w, "data", "t.flaw", &again).succeeds();
    let searched = |file: &str| {
        let info = w.run(&format!("info {{}}/{file} --json")).succeeds().json();
        info["search"].clone()
    };
    let found = searched("s.flaw");
    assert_eq!(found, searched("t.flaw"));
    assert_eq!(
        (
            &found["shots"],
            &found["candidates"].as_array().unwrap().len()
        ),
        (&3.into(), &3)
    );
    let good = found["good"].as_u64().unwrap();
    assert_eq!(found["synthetic"].as_u64().unwrap(), good.min(40));
    for text in ["searched: ", "by 3 defects, each left out", "next best: "] {
        assert!(said.stderr.contains(text), "{text}: {}", said.stderr);
    }
    let shown = w.run("info {}/s.flaw").succeeds().stdout;
    assert!(shown.contains("searched    64 and 32 px AUROC"), "{shown}");
    // what was chosen is what is looked at
    let sizes = found["chosen"].as_array().unwrap().len();
    let fitted = w.run("info {}/s.flaw --json").succeeds().json();
    let more = fitted["more_sizes"].as_array().map_or(0, Vec::len);
    assert_eq!(1 + more, sizes);
    if sizes == 2 {
        assert_eq!(scores(&w, "s.flaw", "data"), scores(&w, "m.flaw", "data"));
    }
    let one = "--image-size 32 --no-cache --search 1min";
    let said = fit(&w, "data", "o.flaw", one).succeeds();
    assert!(
        said.stderr.contains("nothing is searched"),
        "{}",
        said.stderr
    );
    fit(&w, "data", "p.flaw", "--scorer patch-bank --search 1min").refuses(&["search", "hint:"]);
}

/// Whether the mask of the tests marks a pixel of 64 by 64: an L.
fn marked(x: u32, y: u32) -> bool {
    (8..28).contains(&x) && (8..60).contains(&y) || (8..56).contains(&x) && (40..60).contains(&y)
}

#[test]
fn a_mask_hides_the_rest_of_every_image() {
    let w = World::new();
    w.add_masks();
    let mask = |name: &str, value: &dyn Fn(u32, u32) -> u8| {
        let image = image::GrayImage::from_fn(64, 64, |x, y| image::Luma([value(x, y)]));
        image.save(w.path(name)).unwrap();
    };
    mask("l.png", &|x, y| if marked(x, y) { 255 } else { 0 });
    mask("white.png", &|_, _| 255);
    mask("black.png", &|_, _| 0);
    // what lies outside of the mask is something else altogether
    changed(&w, "other", |image| {
        let by = 64 / image.width();
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            let pixel = *image.get_pixel(x, y);
            if marked(by * x, by * y) {
                pixel
            } else {
                image::Rgb(pixel.0.map(|v| 255 - v))
            }
        })
    });
    let learned = "--num-defect-samples 3 --image-size 64,32 --no-cache";
    let of_mask = format!("{learned} --roi {}", w.path("l.png").display());
    let said = fit(&w, "data", "m.flaw", &of_mask).succeeds();
    let told = "only the region of a mask (39 % of an image)";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    fit(&w, "other", "o.flaw", &of_mask).succeeds();
    let found = scores(&w, "m.flaw", "data");
    assert_eq!(scores(&w, "o.flaw", "other"), found);
    assert_eq!(scores(&w, "m.flaw", "other"), found);
    let rows = evaluated(&w, "m.flaw", "data")["rows"].clone();
    assert_eq!(evaluated(&w, "o.flaw", "other")["rows"], rows);
    assert!(rows[0]["pixels"]["auroc"].is_f64(), "{rows}");
    // no map where nothing is looked at
    let (_, values) = drawn(&w);
    for (i, value) in values.iter().enumerate() {
        let (x, y) = (i as u32 % 64, i as u32 / 64);
        assert_eq!(value.is_nan(), !marked(x, y), "{x},{y}: {value}");
    }
    let info = w.run("info {}/m.flaw").succeeds().stdout;
    assert!(
        info.contains("region      of a mask (39 % of an image); the rest"),
        "{info}"
    );

    // a mask that hides nothing changes nothing
    let of_white = format!("{learned} --roi {}", w.path("white.png").display());
    fit(&w, "data", "w.flaw", &of_white).succeeds();
    fit(&w, "data", "n.flaw", learned).succeeds();
    assert_eq!(scores(&w, "w.flaw", "data"), scores(&w, "n.flaw", "data"));
    for (mask, why) in [("black.png", "marks nothing"), ("none.png", "no such file")] {
        let line = format!("--roi {}", w.path(mask).display());
        fit(&w, "data", "b.flaw", &line).refuses(&["--roi", why]);
    }
}
