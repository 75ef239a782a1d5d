//! Faults from the field: nothing is skipped, squashed or believed silently.

use std::fs;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageBuffer, Luma};
use serde_json::Value as Json;

use crate::world::{Run, TRAIN_GOOD, World, golden, read_json};

fn fit(w: &World, rest: &str) -> Run {
    w.run(&format!(
        "fit --weights {} --image-size 64 --json {rest}",
        golden("ckpt/tiny_mlp/hf.safetensors").display()
    ))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// Puts an EXIF orientation into a JPEG.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut out = jpeg[..2].to_vec();
    out.extend([0xff, 0xe1]);
    out.extend((exif.len() as u16 + 2).to_be_bytes());
    out.extend(exif);
    out.extend(&jpeg[2..]);
    out
}

#[test]
fn twins_change_neither_threshold_nor_verdicts() {
    let w = World::new();
    for i in 0..TRAIN_GOOD {
        let from = w.sample(&format!("train/good/{i:03}.png"));
        copy(&from, &w.path(&format!("once/{i:03}.png")));
        copy(&from, &w.path(&format!("twice/monday/{i:03}.png")));
        copy(&from, &w.path(&format!("twice/backup/{i:03}.png")));
    }
    let once = fit(&w, "--good {}/once -o {}/once.flaw").succeeds().json();
    let run = fit(&w, "--good {}/twice -o {}/twice.flaw").succeeds();
    assert!(
        run.stderr.contains(&format!(
            "warning: {TRAIN_GOOD} images have the content of others"
        )),
        "{run:#?}"
    );
    let twice = run.json();
    assert_eq!(twice["intake"][0]["count"], TRAIN_GOOD);
    assert!(once["intake"].is_null(), "{once}");
    for key in ["threshold", "support_images"] {
        assert!(!once[key].is_null(), "{once}");
        assert_eq!(once[key], twice[key], "{key}");
    }
    let scores = |model: &str| {
        let run = w.run(&format!("predict {{}}/{model} {{}}/data/cloth/test --json"));
        run.succeeds().stdout
    };
    assert_eq!(scores("once.flaw"), scores("twice.flaw"));

    // one content, two labels
    copy(
        &w.sample("train/good/000.png"),
        &w.sample("test/hole/as_good.png"),
    );
    let job = |rest: &str| w.job("baseline", &format!("--output-dir {{}}/out {rest}"));
    job("").refuses(&["as_good.png", "train/good/000.png", "same content", "hint:"]);
    let run = job("--skip-bad-images").succeeds();
    assert!(
        run.stderr
            .contains("2 images have the content of others with another label"),
        "{run:#?}"
    );
}

#[test]
fn masks_lie_on_their_images_or_it_is_said() {
    let w = World::new();
    let data = w.root().join("turned");
    // a bright image with a dark corner at the upper left, stored turned: 40 × 30 pixels, upright 30 × 40
    let upright = |i: u32, defect: bool| {
        GrayImage::from_fn(48, 64, |x, y| {
            let noise = (x * 7 + y * 13 + i * 29) % 23;
            Luma([if defect && x < 12 && y < 12 {
                10
            } else {
                180 + noise as u8
            }])
        })
    };
    let save = |name: &str, image: &GrayImage| {
        let path = data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // turned a quarter against the clock; orientation 6 turns it back
        DynamicImage::ImageLuma8(image.clone())
            .rotate270()
            .save(&path)
            .unwrap();
        let bytes = with_orientation(&fs::read(&path).unwrap(), 6);
        fs::write(&path, bytes).unwrap();
    };
    for i in 0..6 {
        save(&format!("train/good/{i}.jpg"), &upright(i, false));
        save(&format!("test/good/{i}.jpg"), &upright(10 + i, false));
        save(&format!("test/spot/{i}.jpg"), &upright(20 + i, true));
        let mask = data.join(format!("ground_truth/spot/{i}_mask.png"));
        fs::create_dir_all(mask.parent().unwrap()).unwrap();
        GrayImage::from_fn(48, 64, |x, y| Luma([u8::from(x < 12 && y < 12) * 255]))
            .save(mask)
            .unwrap();
    }
    let measured = |flags: &str| -> Json {
        let run = fit(
            &w,
            &format!("--root-dir {{}}/data --category turned {flags} -o {{}}/t.flaw"),
        );
        let run = run.succeeds();
        let ignored = run.stderr.contains("18 images say by EXIF");
        assert_eq!(ignored, flags.is_empty(), "{run:#?}");
        w.run("evaluate --root-dir {}/data --category turned --bundle {}/t.flaw --output-dir {}/e")
            .succeeds();
        read_json(&w.path("e/turned_detection.json"))
    };
    for flags in ["", "--exif-orientation"] {
        let found = measured(flags);
        let auroc = found["rows"][0]["pixels"]["auroc"].as_f64().unwrap();
        assert!(auroc > 0.95, "{flags}: {auroc}");
    }
    // across for no reason
    DynamicImage::ImageLuma8(upright(31, true))
        .save(data.join("test/spot/plain.png"))
        .unwrap();
    GrayImage::new(64, 48)
        .save(data.join("ground_truth/spot/plain_mask.png"))
        .unwrap();
    // belongs to nobody
    GrayImage::new(48, 64)
        .save(data.join("ground_truth/spot/0_gt.png"))
        .unwrap();
    let run = fit(&w, "--root-dir {}/data --category turned -o {}/t.flaw").succeeds();
    assert!(
        run.stderr.contains("1 mask belongs to no image"),
        "{run:#?}"
    );
    assert!(run.stderr.contains("0_gt.png"), "{run:#?}");
    w.run("evaluate --root-dir {}/data --category turned --bundle {}/t.flaw --output-dir {}/e2")
        .refuses(&["plain_mask.png", "64x48", "48x64", "hint:"]);
}

#[test]
fn depth_of_a_camera_is_kept() {
    let w = World::new();
    let image = |i: u32, scale: u16| {
        ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(64, 64, |x, y| {
            Luma([(60 + ((x * 31 + y * 17 + i * 7) % 97) as u16) * scale])
        })
    };
    for i in 0..4 {
        for (folder, scale) in [("narrow", 16), ("full", 257)] {
            let path = w.path(&format!("{folder}/{i}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image(i, scale).save(path).unwrap();
        }
    }
    let run = fit(&w, "--good {}/narrow -o {}/n.flaw").succeeds();
    assert!(
        run.stderr.contains("--bit-depth 12") && run.stderr.contains("of 256 grey levels"),
        "{run:#?}"
    );
    let full = fit(&w, "--good {}/full -o {}/f.flaw").succeeds();
    assert!(!full.stderr.contains("bit"), "{full:#?}");
    let run = fit(&w, "--good {}/narrow --bit-depth 12 -o {}/n12.flaw").succeeds();
    assert!(!run.stderr.contains("--bit-depth"), "{run:#?}");
    // the file keeps it
    let said = w.run("predict {}/n12.flaw {}/narrow --json").succeeds();
    assert!(!said.stderr.contains("--bit-depth"), "{said:#?}");
    let said = w.run("predict {}/n.flaw {}/narrow --json").succeeds();
    assert!(said.stderr.contains("--bit-depth 12"), "{said:#?}");
    w.job("baseline", "--bit-depth 7").refuses(&["--bit-depth"]);
}

#[test]
fn images_at_any_depth_and_of_any_name_are_found() {
    let w = World::new();
    let part = w.root().join("days");
    for i in 0..4 {
        copy(
            &w.sample(&format!("train/good/{i:03}.png")),
            &part.join(format!("train/good/{i}.png")),
        );
        copy(
            &w.sample(&format!("train/good/{:03}.png", i + 4)),
            &part.join(format!("train/good/2024-05-02/{i}.png")),
        );
        copy(
            &w.sample(&format!("test/good/{i:03}.png")),
            &part.join(format!("test/good/{i}.png")),
        );
        copy(
            &w.sample(&format!("test/hole/{i:03}.png")),
            &part.join(format!("test/hole/{i}.png")),
        );
        copy(
            &w.sample(&format!("test/stain/{i:03}.png")),
            &part.join(format!("test/hole/shift_b/{i}.png")),
        );
    }
    copy(
        &w.sample("test/good/005.png"),
        &part.join("train/loose.png"),
    );
    let run = fit(&w, "--root-dir {}/data --category days -o {}/d.flaw").succeeds();
    assert_eq!(run.json()["support_images"], 8);
    assert!(
        run.stderr.contains("1 image lies outside") && run.stderr.contains("loose.png"),
        "{run:#?}"
    );

    let parts = w.path("parts");
    copy(&w.sample("test/good/000.png"), &parts.join("1.png"));
    copy(&w.sample("test/good/001.png"), &parts.join("2.jfif"));
    copy(&w.sample("test/good/002.png"), &parts.join("3"));
    fs::write(parts.join("4.jp2"), b"\0\0\0\x0cjP  \r\n\x87\n....").unwrap();
    fs::write(parts.join("5.heic"), b"\0\0\0\x18ftypheic....").unwrap();
    fs::write(parts.join("notes.txt"), b"all fine").unwrap();
    let run = w.run("predict {}/d.flaw {}/parts --json").succeeds();
    assert_eq!(run.stdout.lines().count(), 3, "{run:#?}");
    assert!(
        run.stderr
            .contains("2 images are of formats that are not read")
            && run.stderr.contains("4.jp2 (JPEG 2000)"),
        "{run:#?}"
    );
    // programs are told with the first line that follows
    let lines = run.stdout.lines().map(|l| serde_json::from_str(l).unwrap());
    let lines: Vec<Json> = lines.collect();
    assert_eq!(lines[0]["intake"][0]["oddity"], "unread_format");
    assert_eq!(lines[0]["intake"][0]["count"], 2);
    assert!(lines[1]["intake"].is_null() && lines[0]["oddities"].is_null());
    w.run("predict {}/d.flaw {}/parts/5.heic")
        .refuses(&["5.heic: HEIC is not supported"]);
    w.run("predict {}/parts {}/d.flaw")
        .refuses(&["parts: a folder", "hint:"]);
}

#[test]
fn own_output_is_no_input() {
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let parts = w.path("parts");
    for i in 0..2 {
        copy(
            &w.sample(&format!("test/hole/{i:03}.png")),
            &parts.join(format!("{i}.png")),
        );
    }
    for _ in 0..2 {
        for maps in ["parts", "parts/maps"] {
            let run = w.run(&format!(
                "predict {{}}/m.flaw {{}}/parts --maps {{}}/{maps} --json"
            ));
            assert_eq!(run.succeeds().stdout.lines().count(), 2, "{maps}");
        }
    }
    assert!(parts.join("0.png.overlay.png").exists() && parts.join("maps/1.png.tiff").exists());
}

#[test]
fn what_a_crop_does_not_see_is_said() {
    let w = World::new();
    for i in 0..4_u32 {
        let path = w.path(&format!("strips/{i}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(256, 64, |x, y| {
            Luma([((x * 3 + y * 5 + i * 11) % 200) as u8])
        })
        .save(path)
        .unwrap();
    }
    let run = fit(&w, "--good {}/strips --resize centre-crop -o {}/s.flaw").succeeds();
    assert!(
        run.stderr
            .contains("does not look at 75 % of 4 of 4 images"),
        "{run:#?}"
    );
    let run = w.run("predict {}/s.flaw {}/strips --json").succeeds();
    assert_eq!(
        run.stderr.matches("75 % of it lie outside").count(),
        1,
        "{run:#?}"
    );
    assert_eq!(run.stdout.matches("\"oddities\":[\"cropped\"]").count(), 4);
    let run = fit(&w, "--good {}/strips -o {}/q.flaw").succeeds();
    assert!(!run.stderr.contains("crop"), "{run:#?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_is_not_written_is_no_success() {
    use std::fs::OpenOptions;
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let full = |line: &str| {
        let out = OpenOptions::new().write(true).open("/dev/full").unwrap();
        Run::new(w.command(line).stdout(out).output().unwrap())
    };
    for line in [
        "predict {}/m.flaw {}/data/cloth/test --json",
        "predict {}/m.flaw {}/data/cloth/test --fail-on-flaw",
        "predict {}/m.flaw {}/data/cloth/test --format csv",
        "info {}/m.flaw",
        "info {}/m.flaw --json",
        "models",
        "completions bash",
        "man",
        "--help",
        "--version",
    ] {
        let run = full(line);
        assert_eq!(run.code, Some(1), "{line}: {run:#?}");
        assert!(
            run.stderr.contains("cannot write to standard output"),
            "{line}: {run:#?}"
        );
    }
    // a reader that goes is none of our business
    let mut child = w
        .command("predict {}/m.flaw {}/data/cloth/test --json --batch-size 1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_service_outlives_its_files() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let camera = w.path("camera");
    fs::create_dir(&camera).unwrap();
    let half = fs::read(w.sample("test/good/001.png")).unwrap();
    fs::write(camera.join("a_junk.png"), b"not an image").unwrap();
    fs::write(camera.join("b_half.png"), &half[..half.len() / 2]).unwrap();
    let mut child = w
        .command("predict {}/m.flaw --watch {}/camera --json --maps {}/camera")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut path = || {
        let line: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["path"].as_str().unwrap().to_owned()
    };
    std::thread::sleep(std::time::Duration::from_millis(800));
    // the rest of it arrives
    fs::write(camera.join("b_half.png"), &half).unwrap();
    assert!(path().ends_with("b_half.png"));
    copy(&w.sample("test/hole/000.png"), &camera.join("day/c.png"));
    assert!(
        path().ends_with("c.png"),
        "in a folder, and no map before it"
    );
    let kill = |signal: &str| {
        let id = child.id().to_string();
        std::process::Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
    };
    // junk is named after its last try
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert!(kill("-INT").success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("a_junk.png").count(), 1, "{said}");
    assert!(!said.contains("b_half.png"), "{said}");
    assert_eq!(lines.count(), 0, "every image once");
}

#[test]
fn rates_may_be_in_percent() {
    let w = World::new();
    let job = |rate: &str| {
        let run = w.job(
            "fit",
            &format!("-o {{}}/m.flaw --json --max-false-alarm {rate}"),
        );
        run.succeeds().json()["threshold"].clone()
    };
    assert_eq!(job("20%"), job("0.2"));
    let coreset = |share: &str| {
        let line = format!("-o {{}}/m.flaw --json --scorer patch-bank --coreset {share}");
        w.job("fit", &line).succeeds().json()["bank_patches"].clone()
    };
    assert_eq!(coreset("50%"), coreset("0.5"));
    w.job("fit", "-o {}/m.flaw --max-false-alarm 100%")
        .refuses(&["--max-false-alarm"]);
}

#[test]
fn the_limit_of_pixels_names_its_option() {
    let w = World::new();
    w.job("fit", "-o {}/m.flaw").succeeds();
    let large = w.path("large.png");
    GrayImage::from_fn(1100, 1000, |x, y| Luma([(x ^ y) as u8]))
        .save(large)
        .unwrap();
    let line = "predict {}/m.flaw {}/large.png";
    w.run(&format!("{line} --max-megapixels 1")).refuses(&[
        "large.png",
        "1100x1000",
        "--max-megapixels raises",
    ]);
    w.run(line).succeeds();
}

#[test]
fn weights_that_are_no_numbers_are_blamed_themselves() {
    let w = World::new();
    let mut bytes = fs::read(golden("ckpt/tiny_mlp/hf.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::create_dir(w.path("nan")).unwrap();
    fs::write(w.path("nan/hf.safetensors"), bytes).unwrap();
    copy(
        &golden("ckpt/tiny_mlp/hf_config.json"),
        &w.path("nan/hf_config.json"),
    );
    let good = w.root().join("cloth/train/good");
    let line = format!(
        "fit --weights {{}}/nan/hf.safetensors --image-size 64 --good {} -o {{}}/m.flaw",
        good.display()
    );
    w.run(&line)
        .refuses(&["nan/hf.safetensors", "the weights '", "no numbers", "hint:"]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_utf8_are_judged_and_can_be_skipped() {
    use std::os::unix::ffi::OsStrExt as _;
    let w = World::new();
    let good = w.root().join("cloth/train/good");
    w.job("fit", "-o {}/m.flaw").succeeds();
    let odd = std::ffi::OsStr::from_bytes(b"Stra\xdfe.png");
    fs::copy(w.sample("test/good/000.png"), good.join(odd)).unwrap();
    w.job("fit", "-o {}/n.flaw").refuses(&["UTF-8", "rename"]);
    let run = w.job("fit", "-o {}/n.flaw --skip-bad-images --json");
    assert_eq!(run.succeeds().json()["support_images"], TRAIN_GOOD);
    let run = w.run("predict {}/m.flaw {}/data/cloth/train/good --json");
    let run = run.succeeds();
    assert_eq!(
        run.stdout.lines().count(),
        TRAIN_GOOD as usize + 1,
        "{run:#?}"
    );
}
