use std::fs;
use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::DecodeOptions;
use image::{DynamicImage, Luma, Rgb, RgbImage};

use super::{PasteKind, PasteOn, PasteStage, Pasted, SynthError, paste_on};
use crate::files::read_all as files;

fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| {
        Rgb([
            (x * 5 + seed * 9) as u8,
            (y * 7 + seed) as u8,
            ((x + y) * 3) as u8,
        ])
    })
}

/// `count` images, PNG and JPEG in turn.
fn pictures(folder: &Path, count: u32) -> Vec<PathBuf> {
    let save = |i| {
        let path = folder.join(format!(
            "part{i:02}.{}",
            if i % 2 == 0 { "png" } else { "jpg" }
        ));
        picture(i).save(&path).unwrap();
        path
    };
    (0..count).map(save).collect()
}

fn request<'a>(pictures: &'a [PathBuf], kinds: &'a [PasteKind]) -> PasteOn<'a> {
    PasteOn {
        pictures,
        category: "parts",
        kinds,
        per_kind: 3,
        train_share: 0.6,
        seed: 5,
        decode: DecodeOptions::default(),
    }
}

/// The original that an image with a defect was made of: the one that most pixels agree with.
fn base(flawed: &RgbImage, originals: &[PathBuf]) -> usize {
    let agree = |path: &PathBuf| {
        let original = image::open(path).unwrap().into_rgb8();
        original
            .pixels()
            .zip(flawed.pixels())
            .filter(|(a, b)| a == b)
            .count()
    };
    (0..originals.len())
        .max_by_key(|i| agree(&originals[*i]))
        .unwrap()
}

#[test]
fn the_groups_share_no_picture_and_masks_tell_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let originals = pictures(folder.path(), 10);
    let made = paste_on(
        &request(&originals, &[]),
        &folder.path().join("out"),
        &|_, _, _| {},
    )
    .unwrap();
    let found = files(&made.folder);
    assert_eq!(
        (
            made.train_good,
            made.test_good,
            made.defects,
            made.pasted_on
        ),
        (6, 2, 15, 2)
    );
    assert_eq!(found.len(), 6 + 2 + 2 * 15);
    assert_eq!(
        made.bytes,
        found.values().map(|bytes| bytes.len() as u64).sum::<u64>()
    );
    let mut group = vec![None; originals.len()];
    for (name, bytes) in &found {
        let (part, kind) = (
            name.split('/').next().unwrap(),
            name.split('/').nth(1).unwrap(),
        );
        if part == "ground_truth" {
            continue;
        }
        let (which, group_of) = if kind == "good" {
            // byte for byte, under the right ending
            let which = originals
                .iter()
                .position(|p| &fs::read(p).unwrap() == bytes)
                .unwrap();
            assert_eq!(Path::new(name).extension(), originals[which].extension());
            (which, part)
        } else {
            let flawed = image::load_from_memory(bytes).unwrap().into_rgb8();
            let which = base(&flawed, &originals);
            let original = image::open(&originals[which]).unwrap().into_rgb8();
            let mask = &found[&name
                .replace("test/", "ground_truth/")
                .replace(".png", "_mask.png")];
            let mask = image::load_from_memory(mask).unwrap();
            assert_eq!(mask.color(), image::ColorType::L8);
            let mask = mask.into_luma8();
            assert_eq!(mask.dimensions(), original.dimensions());
            let marked: Vec<_> = mask
                .enumerate_pixels()
                .filter(|p| *p.2 == Luma([255]))
                .collect();
            assert!((1..600).contains(&marked.len()), "{name}: {}", marked.len());
            let changed = marked
                .iter()
                .filter(|p| flawed.get_pixel(p.0, p.1) != original.get_pixel(p.0, p.1));
            assert!(2 * changed.count() >= marked.len(), "{name}");
            (which, "defect")
        };
        assert!(
            group[which].is_none_or(|g| g == group_of),
            "{name}: in two groups"
        );
        group[which] = Some(group_of);
    }
    assert!(group.iter().all(Option::is_some), "{group:?}");
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_order_of_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let mut originals = pictures(folder.path(), 9);
    let mut made = Vec::new();
    for (threads, seed) in [(1, 5), (4, 5), (4, 6)] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let kinds = [PasteKind::Blend, PasteKind::Scratch];
        let request = PasteOn {
            seed,
            ..request(&originals, &kinds)
        };
        let out = folder.path().join(format!("out{}", made.len()));
        let pasted = pool
            .install(|| paste_on(&request, &out, &|_, _, _| {}))
            .unwrap();
        made.push(files(&pasted.folder));
        originals.reverse();
    }
    assert_eq!(made[0], made[1]);
    assert_ne!(made[1], made[2]);
}

#[test]
fn kinds_and_shares_are_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let originals = pictures(folder.path(), 7);
    let mut seen = 0;
    for (share, train, test) in [(0.0, 1, 3), (0.5, 4, 1), (0.6, 4, 1), (1.0, 5, 1)] {
        let kinds = [PasteKind::Hole, PasteKind::Hole];
        let request = PasteOn {
            train_share: share,
            per_kind: 2,
            ..request(&originals, &kinds)
        };
        seen += 1;
        let stages = std::sync::Mutex::new(Vec::new());
        let note = |stage, done, all| stages.lock().unwrap().push((stage, done, all));
        let made: Pasted =
            paste_on(&request, &folder.path().join(format!("{seen}")), &note).unwrap();
        assert_eq!(
            (made.train_good, made.test_good, made.defects),
            (train, test, 2),
            "{share}"
        );
        let stages = stages.into_inner().unwrap();
        assert!(stages.contains(&(PasteStage::Reading, 7, 7)));
        let all = made.train_good + made.test_good + 2;
        assert!(stages.contains(&(PasteStage::Pasting, all, all)));
        assert!(made.folder.join("test/hole/001.png").is_file());
        assert!(!made.folder.join("test/scratch").exists());
    }
}

#[test]
fn a_picture_that_is_there_twice_is_used_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut originals = pictures(folder.path(), 4);
    // the same pixels in another file, and the same file again
    let twin = folder.path().join("twin.bmp");
    picture(0).save(&twin).unwrap();
    originals.extend([twin, originals[1].clone()]);
    let made = paste_on(
        &request(&originals, &[]),
        &folder.path().join("out"),
        &|_, _, _| {},
    )
    .unwrap();
    assert_eq!(
        (
            made.left_out,
            made.train_good + made.test_good + made.pasted_on
        ),
        (2, 4)
    );
}

#[test]
fn every_kind_of_pixel_is_read_as_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let sound = DynamicImage::from(picture(3));
    let kinds = [
        ("grey", DynamicImage::from(sound.to_luma8())),
        (
            "deep",
            DynamicImage::from(DynamicImage::from(picture(4)).to_rgb16()),
        ),
        (
            "alpha",
            DynamicImage::from(DynamicImage::from(picture(5)).to_rgba8()),
        ),
    ];
    let save = |(name, picture): &(&str, DynamicImage)| {
        let path = folder.path().join(format!("{name}.png"));
        picture.save(&path).unwrap();
        path
    };
    let originals: Vec<PathBuf> = kinds.iter().map(save).collect();
    for seed in 0..4 {
        let request = PasteOn {
            seed,
            ..request(&originals, &[PasteKind::Hole])
        };
        let made = paste_on(
            &request,
            &folder.path().join(format!("{seed}")),
            &|_, _, _| {},
        )
        .unwrap();
        let flawed = image::open(made.folder.join("test/hole/000.png")).unwrap();
        assert_eq!(flawed.color(), image::ColorType::Rgb8);
        let flawed = flawed.into_rgb8();
        let original = image::open(&originals[base(&flawed, &originals)])
            .unwrap()
            .into_rgb8();
        let same = original
            .pixels()
            .zip(flawed.pixels())
            .filter(|(a, b)| a == b)
            .count();
        assert!(same > 40 * 30 / 2, "{same}");
    }
}

#[test]
fn what_cannot_be_done_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let originals = pictures(folder.path(), 4);
    let out = folder.path().join("out");
    let refused = |request: &PasteOn<'_>| paste_on(request, &out, &|_, _, _| {}).unwrap_err();
    for category in ["", "..", ".hidden", "a/b", "a\\b"] {
        let e = refused(&PasteOn {
            category,
            ..request(&originals, &[])
        });
        assert!(matches!(e, SynthError::FolderName { .. }), "{e}");
    }
    let e = refused(&request(&originals[..2], &[]));
    assert!(
        matches!(
            e,
            SynthError::FewPictures {
                given: 2,
                different: 2
            }
        ),
        "{e}"
    );
    let mut bad = originals.clone();
    let small = folder.path().join("small.png");
    RgbImage::new(7, 90).save(&small).unwrap();
    bad.push(small);
    assert!(
        refused(&request(&bad, &[]))
            .to_string()
            .contains("small.png: 7x90")
    );
    // two are damaged: the first by path is told
    for name in ["z.png", "a.png"] {
        let path = folder.path().join(name);
        fs::write(&path, "no image").unwrap();
        bad.insert(0, path);
    }
    let e = refused(&request(&bad, &[]));
    assert!(e.to_string().contains("a.png: not an image"), "{e}");
    assert!(!out.exists());
    fs::create_dir_all(out.join("parts")).unwrap();
    assert!(matches!(
        refused(&request(&originals, &[])),
        SynthError::Exists { .. }
    ));
}
