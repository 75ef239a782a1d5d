//! Splits, the guard of the test set, and the comparison file.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeSet;

use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::protocol::{
    ImageRef, Protocol, ProtocolError, SampleInfo, Split, SplitManifest, SplitOptions,
    check_disjoint,
};
use flawtune::evaluate::statistics::BootstrapOptions;

struct Image {
    id: String,
    is_train: bool,
    defect_type: Option<&'static str>,
    content: blake3::Hash,
}

fn image(id: String, is_train: bool, defect_type: Option<&'static str>) -> Image {
    let content = blake3::hash(id.as_bytes());
    Image {
        id,
        is_train,
        defect_type,
        content,
    }
}

/// A category with that many train normals, test normals, cracks and holes.
fn category(train: usize, good: usize, cracks: usize, holes: usize) -> Vec<Image> {
    let mut images = Vec::new();
    images.extend((0..train).map(|i| image(format!("train/good/{i:03}.png"), true, None)));
    images.extend((0..good).map(|i| image(format!("test/good/{i:03}.png"), false, None)));
    images
        .extend((0..cracks).map(|i| image(format!("test/crack/{i:03}.png"), false, Some("crack"))));
    images.extend((0..holes).map(|i| image(format!("test/hole/{i:03}.png"), false, Some("hole"))));
    images
}

fn infos(images: &[Image]) -> Vec<SampleInfo<'_>> {
    images
        .iter()
        .map(|i| SampleInfo {
            id: &i.id,
            is_train: i.is_train,
            defect_type: i.defect_type,
            content: i.content,
        })
        .collect()
}

fn refs(samples: &[SampleInfo<'_>], which: &[usize]) -> Vec<ImageRef> {
    which
        .iter()
        .map(|&i| ImageRef::new(samples[i].id, samples[i].content))
        .collect()
}

#[test]
fn shots_are_nested_and_every_m_is_tested_on_the_same_images() {
    let images = category(50, 20, 30, 25);
    let samples = infos(&images);
    let splits: Vec<Split> = [0, 1, 5, 10, 20]
        .iter()
        .map(|&m| Split::new("c", &samples, &SplitOptions::held_out(3, m)).unwrap())
        .collect();
    for (split, m) in splits.iter().zip([0, 1, 5, 10, 20]) {
        assert_eq!(split.pool.len(), 20);
        assert_eq!(split.shots, splits[4].pool[..m]);
        assert_eq!(split.test, splits[0].test);
        assert_eq!(split.test.len(), 20 + 55 - 20);
        assert_eq!(
            (split.train_normals.len(), split.holdout_normals.len()),
            (40, 10)
        );
        assert!(split.pool.iter().all(|p| !split.test.contains(p)));
        assert!(
            check_disjoint(
                &split.manifest,
                "c",
                &refs(&samples, &split.test),
                &split.protocol
            )
            .is_ok()
        );
    }
    let other = Split::new("c", &samples, &SplitOptions::held_out(4, 5)).unwrap();
    assert_ne!(other.pool, splits[0].pool);
    assert_ne!(other.manifest.hash, splits[2].manifest.hash);
    assert_ne!(
        other.test_set_hash(&samples),
        splits[0].test_set_hash(&samples)
    );
    assert_eq!(
        splits[1].test_set_hash(&samples),
        splits[0].test_set_hash(&samples)
    );
}

#[test]
fn the_split_does_not_depend_on_the_order_of_the_samples() {
    let images = category(50, 20, 30, 25);
    let samples = infos(&images);
    let mut reversed = samples.clone();
    reversed.reverse();
    let a = Split::new("c", &samples, &SplitOptions::held_out(1, 5)).unwrap();
    let b = Split::new("c", &reversed, &SplitOptions::held_out(1, 5)).unwrap();
    assert_eq!(a.manifest, b.manifest);
    assert_eq!(a.test_set_hash(&samples), b.test_set_hash(&reversed));
}

#[test]
fn of_very_few_defects_half_are_the_pool() {
    for (defects, pool) in [(2, 1), (3, 1), (6, 3), (10, 5), (11, 10)] {
        let images = category(10, 5, defects, 0);
        let split = Split::new("c", &infos(&images), &SplitOptions::held_out(0, 1)).unwrap();
        assert_eq!(
            (split.pool.len(), split.shots.len()),
            (pool, 1),
            "{defects}"
        );
    }
}

#[test]
fn small_categories_get_the_small_pool() {
    let images = category(10, 5, 39, 0);
    let split = Split::new("c", &infos(&images), &SplitOptions::held_out(0, 10)).unwrap();
    assert_eq!((split.pool.len(), split.test.len()), (10, 5 + 29));
}

#[test]
fn the_leaky_protocol_trains_on_the_first_test_anomalies_and_tests_everything() {
    let images = category(10, 5, 12, 4);
    let samples = infos(&images);
    let options = SplitOptions {
        protocol: Protocol::Leaky,
        shots: 3,
        holdout_fraction: 0.0,
        ..SplitOptions::held_out(9, 0)
    };
    let split = Split::new("c", &samples, &options).unwrap();
    let ids: Vec<&str> = split.shots.iter().map(|&i| samples[i].id).collect();
    assert_eq!(
        ids,
        [
            "test/crack/000.png",
            "test/crack/001.png",
            "test/crack/002.png"
        ]
    );
    assert_eq!(split.test.len(), 5 + 16);
    assert_eq!(
        (split.train_normals.len(), split.holdout_normals.len()),
        (10, 0)
    );
    let test = refs(&samples, &split.test);
    assert!(check_disjoint(&split.manifest, "c", &test, &Protocol::Leaky).is_ok());
    let refused = check_disjoint(&split.manifest, "c", &test, &Protocol::HeldOut).unwrap_err();
    assert!(
        matches!(
            refused,
            ProtocolError::TrainedOnTest {
                count: 3,
                trained: 13,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn the_hard_protocol_tests_only_other_types_and_the_rest_of_the_seen_one_apart() {
    let images = category(10, 5, 45, 7);
    let samples = infos(&images);
    let hard = |name: &str, shots| SplitOptions {
        protocol: Protocol::Hard {
            defect_type: name.into(),
        },
        ..SplitOptions::held_out(0, shots)
    };
    let split = Split::new("c", &samples, &hard("crack", 5)).unwrap();
    let types: BTreeSet<_> = split.test.iter().map(|&i| samples[i].defect_type).collect();
    assert_eq!(types, BTreeSet::from([None, Some("hole")]));
    assert!(
        split
            .pool
            .iter()
            .all(|&i| samples[i].defect_type == Some("crack"))
    );
    assert_eq!(
        (
            split.pool.len(),
            split.seen_type_test.len(),
            split.test.len()
        ),
        (20, 25, 12)
    );
    assert!(split.seen_type_test.iter().all(|i| !split.pool.contains(i)));

    let unknown = Split::new("c", &samples, &hard("scratch", 1)).unwrap_err();
    assert!(unknown.to_string().contains("crack, hole"), "{unknown}");
    let one_type = category(10, 5, 45, 0);
    assert!(matches!(
        Split::new("c", &infos(&one_type), &hard("crack", 1)),
        Err(ProtocolError::NoOtherTypes { .. })
    ));
}

#[test]
fn a_copy_of_a_training_image_is_neither_tested_nor_accepted_under_another_name() {
    let mut images = category(10, 5, 12, 0);
    let copied = images[0].content;
    images[12].content = copied;
    let samples = infos(&images);
    let split = Split::new("c", &samples, &SplitOptions::held_out(0, 2)).unwrap();
    assert_eq!(split.duplicates, [12]);
    assert!(!split.test.contains(&12));
    let test = [ImageRef::new("somewhere/else.png", copied)];
    let refused =
        check_disjoint(&split.manifest, "another", &test, &Protocol::HeldOut).unwrap_err();
    assert!(matches!(
        refused,
        ProtocolError::TrainedOnTest {
            how: "same content",
            ..
        }
    ));
    // the same name in another category is another image
    let test = [ImageRef::new("train/good/000.png", blake3::hash(b"else"))];
    assert!(check_disjoint(&split.manifest, "another", &test, &Protocol::HeldOut).is_ok());
    assert!(check_disjoint(&split.manifest, "c", &test, &Protocol::HeldOut).is_err());
}

#[test]
fn what_cannot_be_split_is_refused_with_the_numbers() {
    let error = |images: &[Image], options: &SplitOptions| {
        Split::new("c", &infos(images), options)
            .unwrap_err()
            .to_string()
    };
    let held = |shots| SplitOptions::held_out(0, shots);
    assert!(error(&category(10, 5, 0, 0), &held(0)).contains("no defect images"));
    assert!(error(&category(10, 0, 20, 0), &held(0)).contains("test/good"));
    assert!(
        error(&category(2, 5, 20, 0), &held(0))
            .contains("2 good images to learn from (train/good), at least 3")
    );
    let message = error(&category(10, 5, 20, 0), &held(11));
    assert!(
        message.contains("11 defect images asked for") && message.contains("holds 10 of the 20"),
        "{message}"
    );
    let whole = SplitOptions {
        pool: Some(10),
        ..held(1)
    };
    let message = error(&category(10, 5, 10, 0), &whole);
    assert!(
        message.contains("pool of 10 out of 10") && message.contains("at most 9"),
        "{message}"
    );
    assert!(error(&category(10, 5, 1, 0), &held(1)).contains("leaves none to test"));
    let leaky = SplitOptions {
        protocol: Protocol::Leaky,
        ..held(21)
    };
    assert!(error(&category(10, 5, 20, 0), &leaky).contains("there are only 20"));
    let bad = SplitOptions {
        holdout_fraction: 1.0,
        ..held(1)
    };
    assert!(error(&category(10, 5, 20, 0), &bad).contains("fraction is 1"));
}

/// A category as [`category`], with defects to learn from in train.
fn with_train_defects(cracks: usize, holes: usize) -> Vec<Image> {
    let mut images = category(20, 10, 12, 9);
    images
        .extend((0..cracks).map(|i| image(format!("train/crack/{i:03}.png"), true, Some("crack"))));
    images.extend((0..holes).map(|i| image(format!("train/hole/{i:03}.png"), true, Some("hole"))));
    images
}

#[test]
fn defects_of_train_are_the_pool_and_leave_the_test_whole() {
    let images = with_train_defects(4, 3);
    let samples = infos(&images);
    let split = Split::new("c", &samples, &SplitOptions::held_out(5, 6)).unwrap();
    assert_eq!((split.pool.len(), split.shots.len()), (7, 6));
    assert!(
        split
            .pool
            .iter()
            .all(|&i| samples[i].is_train && samples[i].defect_type.is_some())
    );
    assert_eq!(split.test.len(), 10 + 12 + 9);
    let normals: Vec<usize> = split
        .train_normals
        .iter()
        .chain(&split.holdout_normals)
        .copied()
        .collect();
    assert_eq!(normals.len(), 20);
    assert!(normals.iter().all(|&i| samples[i].defect_type.is_none()));
    assert!(
        check_disjoint(
            &split.manifest,
            "c",
            &refs(&samples, &split.test),
            &split.protocol
        )
        .is_ok()
    );
    // a pool that is asked for is the start of the whole
    let options = SplitOptions {
        pool: Some(3),
        ..SplitOptions::held_out(5, 2)
    };
    let small = Split::new("c", &samples, &options).unwrap();
    assert_eq!((&small.pool[..], small.test.len()), (&split.pool[..3], 31));
    let error = Split::new("c", &samples, &SplitOptions::held_out(5, 8))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("8 defect images asked for") && error.contains("holds 7 of the 7"),
        "{error}"
    );
}

#[test]
fn the_hard_protocol_learns_a_type_from_train_and_tests_the_others() {
    let images = with_train_defects(4, 3);
    let samples = infos(&images);
    let hard = |name: &str, shots| SplitOptions {
        protocol: Protocol::Hard {
            defect_type: name.into(),
        },
        ..SplitOptions::held_out(5, shots)
    };
    let split = Split::new("c", &samples, &hard("crack", 4)).unwrap();
    assert!(
        split
            .pool
            .iter()
            .all(|&i| samples[i].id.starts_with("train/crack/"))
    );
    assert_eq!(
        (
            split.pool.len(),
            split.test.len(),
            split.seen_type_test.len()
        ),
        (4, 10 + 9, 12)
    );
    assert!(
        split
            .seen_type_test
            .iter()
            .all(|&i| samples[i].id.starts_with("test/crack/"))
    );
    assert!(
        split
            .test
            .iter()
            .all(|&i| samples[i].defect_type != Some("crack"))
    );
    let only_holes = with_train_defects(0, 3);
    let error = Split::new("c", &infos(&only_holes), &hard("crack", 1)).unwrap_err();
    assert!(
        matches!(&error, ProtocolError::UnknownType { known, .. } if known == &["hole"]),
        "{error}"
    );
}

#[test]
fn good_images_alone_are_split_where_no_test_is_needed() {
    let held = |shots| SplitOptions::held_out(1, shots);
    for (images, tested) in [
        (category(10, 0, 0, 0), 0),
        (category(10, 0, 20, 0), 20),
        (category(10, 4, 6, 0), 10),
    ] {
        let samples = infos(&images);
        let split = Split::without_test("c", &samples, &held(0)).unwrap();
        assert_eq!((split.pool.len(), split.test.len()), (0, tested));
        assert_eq!(
            (split.train_normals.len(), split.holdout_normals.len()),
            (8, 2)
        );
        // with a test asked for, half of so few defects are the pool, and without good images or defects to test there is none
        let tests = images.len() == 10 + 4 + 6;
        assert_eq!(Split::new("c", &samples, &held(0)).is_ok(), tests);
        assert!(Split::without_test("c", &samples, &held(11)).is_err());
    }
    // with enough to test it is the split that everybody has
    let images = category(50, 20, 30, 25);
    let samples = infos(&images);
    assert_eq!(
        Split::without_test("c", &samples, &held(0)),
        Split::new("c", &samples, &held(0))
    );
}

#[test]
fn a_manifest_survives_json_and_notices_edits() {
    let images = category(10, 5, 12, 4);
    let split = Split::new("c", &infos(&images), &SplitOptions::held_out(2, 3)).unwrap();
    let text = serde_json::to_string(&split.manifest).unwrap();
    let mut back: SplitManifest = serde_json::from_str(&text).unwrap();
    assert_eq!(back, split.manifest);
    assert_eq!(back.computed_hash(), back.hash);
    back.pool.pop();
    assert_ne!(back.computed_hash(), back.hash);
}

#[test]
fn a_comparison_holds_the_documented_keys_and_numbers() {
    let ids = ["a", "b", "c", "d", "e", "f"];
    let types = [None, None, None, Some("crack"), Some("crack"), Some("hole")];
    let test = TestSet {
        category: "screw",
        protocol: "held-out",
        seed: 1,
        shots: 5,
        hash: "abc",
        ids: &ids,
        defect_types: &types,
    };
    let adapted = [0.1, 0.2, 0.6, 0.7, 0.5, 0.9];
    let zero = [0.1, 0.5, 0.6, 0.4, 0.55, 0.9];
    let comparison = Comparison::new(
        &test,
        Scored {
            scores: &adapted,
            threshold: Some(0.6),
        },
        Scored {
            scores: &zero,
            threshold: None,
        },
        BootstrapOptions::default(),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("screw_comparison.json");
    std::fs::write(&path, "an older file").unwrap();
    comparison.write(&path).unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
    let text = std::fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    // 8 and 6 of the 9 pairs are in the right order
    let (a, z) = (8.0 / 9.0, 6.0 / 9.0);
    for (value, want) in [
        (&json["prompt_tuned"]["auroc"], a),
        (&json["zero_shot"]["auroc"], z),
        (&json["improvement"]["auroc"], a - z),
        (&json["improvement"]["auroc_relative"], (a - z) / z),
        // adapted ranks: hole, crack, normal, crack
        (
            &json["prompt_tuned"]["average_precision"],
            (1.0 + 1.0 + 0.75) / 3.0,
        ),
        (
            &json["per_defect_type"]["crack"]["prompt_tuned_auroc"],
            5.0 / 6.0,
        ),
        (&json["per_defect_type"]["hole"]["zero_shot_auroc"], 1.0),
    ] {
        assert!(
            (value.as_f64().unwrap() - want).abs() < 1e-12,
            "{value} for {want}"
        );
    }
    assert!(json["improvement"]["ap_relative"].is_f64());
    assert_eq!(json["category"], "screw");
    assert_eq!(json["prompt_tuned"]["confusion"]["false_positives"], 1);
    // at 0.6: one of three normal images, and of the defects crack 0.7 and hole 0.9 but not crack 0.5
    let counts =
        |of: &serde_json::Value| (of["count"].as_u64().unwrap(), of["of"].as_u64().unwrap());
    assert_eq!(counts(&json["prompt_tuned"]["false_alarms"]), (1, 3));
    assert_eq!(counts(&json["prompt_tuned"]["found"]), (2, 3));
    assert_eq!(
        counts(&json["per_defect_type"]["crack"]["prompt_tuned_found"]),
        (1, 2)
    );
    assert_eq!(
        counts(&json["per_defect_type"]["hole"]["prompt_tuned_found"]),
        (1, 1)
    );
    assert!(
        json["zero_shot"]["found"].is_null()
            && json["per_defect_type"]["hole"]["zero_shot_found"].is_null()
    );
    assert_eq!(json["worst_false_alarms"][0]["id"], "c");
    assert_eq!(json["worst_misses"][0]["id"], "e");
    assert!((json["worst_misses"][0]["wrong_share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(
        serde_json::from_str::<Comparison>(&text).unwrap(),
        comparison
    );

    let table = comparison.table();
    assert!(
        table.contains("0.8889") && table.contains("+0.2222") && table.contains("+33.33 %"),
        "{table}"
    );
    let missing = folder.path().join("no/such/folder.json");
    assert!(
        comparison
            .write(&missing)
            .unwrap_err()
            .to_string()
            .contains("no/such/folder.json")
    );
}

#[test]
fn one_class_gives_nulls_and_no_error() {
    let test = TestSet {
        category: "c",
        protocol: "held-out",
        seed: 0,
        shots: 0,
        hash: "",
        ids: &["a", "b"],
        defect_types: &[None, None],
    };
    let scored = Scored {
        scores: &[0.1, 0.2],
        threshold: None,
    };
    let comparison = Comparison::new(&test, scored, scored, BootstrapOptions::default()).unwrap();
    assert_eq!(comparison.prompt_tuned.auroc, None);
    assert!(comparison.table().contains("undefined"));
    let json = serde_json::to_value(&comparison).unwrap();
    assert!(json["zero_shot"]["auroc"].is_null() && json["improvement"]["delong"].is_null());
}
