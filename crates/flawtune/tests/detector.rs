//! What a program does with a detector: fit, save, open, predict, learn, all in memory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use flawtune::synth::{Category, Counts, generate};
use flawtune::{Backbone, Detector, Image, Lessons, MoreImages};

const SIDE: u32 = 96;

/// Drawn plates, and a detector of them that was shown two stains.
fn fitted(folder: &Path) -> Detector {
    let counts = Counts {
        train_good: 8,
        test_good: 3,
        test_per_type: 2,
        severity: 2.0,
    };
    generate(Category::Plate, &counts, 1, SIDE, folder, &|_, _| {}).unwrap();
    let backbone = Backbone::open("demo_vit_tiny16").unwrap();
    Detector::builder(&backbone.image_size(SIDE as usize).unwrap())
        .good_folder(folder.join("plate/train/good"))
        .unwrap()
        .defect_folder(folder.join("plate/test/stain"))
        .unwrap()
        .fit()
        .unwrap()
}

fn defects(folder: &Path, kind: &str) -> Lessons {
    let mut lessons = Lessons::new(MoreImages {
        defect: Some(folder.join("plate/test").join(kind)),
        ..MoreImages::default()
    });
    // a handful of drawn parts: what is learned may make others worse
    lessons.force = true;
    lessons
}

#[test]
fn a_detector_learns_in_memory_as_its_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let detector = fitted(folder);
    let image = Image::open(folder.join("plate/test/scratch/001.jpg")).unwrap();
    let before = detector.predict(&image).unwrap();

    let scratches = defects(folder, "scratch");
    let taught = detector.learn(&scratches).unwrap();
    assert_eq!((taught.good, taught.defects), (0, 2));
    // before, the two stains and the two scratches; each good image once
    assert_eq!((taught.before.defects, taught.after.defects), (4, 4));
    assert_eq!((taught.before.good, taught.after.good), (8, 8));
    let after = taught.detector.predict(&image).unwrap();
    assert!(
        after.score > before.score,
        "{} {}",
        after.score,
        before.score
    );
    assert_eq!(detector.predict(&image).unwrap().score, before.score);

    // what it learned from is known, by the detector that learned it
    let again = taught.detector.learn(&scratches).unwrap_err().to_string();
    assert!(
        again.contains("no image that the detector does not know"),
        "{again}"
    );

    // by way of a file it is the same, and a file that is opened and saved keeps what it needs to learn more
    let file = |name: &str| folder.join(name);
    detector.save(file("one.flaw")).unwrap();
    let opened = Detector::open(file("one.flaw")).unwrap();
    opened.save(file("two.flaw")).unwrap();
    let opened = Detector::open(file("two.flaw")).unwrap();
    opened
        .learn(&scratches)
        .unwrap()
        .detector
        .save(file("three.flaw"))
        .unwrap();
    taught.detector.save(file("four.flaw")).unwrap();
    for (a, b) in [("one.flaw", "two.flaw"), ("three.flaw", "four.flaw")] {
        assert!(
            fs::read(file(a)).unwrap() == fs::read(file(b)).unwrap(),
            "{a} {b}"
        );
    }
}

#[test]
fn unreadable_images_are_refused_or_left_out_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let detector = fitted(folder);
    let mut lessons = defects(folder, "hole");
    fs::write(folder.join("plate/test/hole/broken.png"), b"no image").unwrap();
    let refused = detector.learn(&lessons).unwrap_err().to_string();
    assert!(refused.contains("broken.png"), "{refused}");
    lessons.skip_bad_images = true;
    let taught = detector.learn(&lessons).unwrap();
    assert_eq!((taught.defects, taught.after.defects), (2, 4));
}
