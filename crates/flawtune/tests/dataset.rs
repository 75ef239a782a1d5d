//! Folder layouts, as found and as broken by people.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fs;
use std::path::{Path, PathBuf};

use flawtune::dataset::{Dataset, DatasetError, Sample, Subset, categories};

fn touch(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"not read here").unwrap();
    }
}

fn ids(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|s| s.id.as_str()).collect()
}

/// A small but complete category.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    touch(
        root.path(),
        &[
            "bolt/train/good/001.png",
            "bolt/train/good/000.PNG",
            "bolt/train/good/010.jpeg",
            "bolt/test/good/000.png",
            "bolt/test/crack/003.png",
            "bolt/test/crack/004.tif",
            "bolt/test/bent/003.WebP",
            "bolt/ground_truth/crack/003_mask.png",
            "bolt/ground_truth/crack/004_mask_0.png",
            "bolt/ground_truth/crack/004_mask_1.png",
            "bolt/ground_truth/bent/003/000.png",
        ],
    );
    root
}

#[test]
fn a_category_is_read_in_one_order_with_its_masks() {
    let root = tree();
    touch(
        root.path(),
        &[
            "bolt/train/good/Thumbs.db",
            "bolt/train/good/.DS_Store",
            "bolt/train/good/._001.png",
            "bolt/train/good/notes.txt",
            "bolt/test/.hidden/000.png",
            "bolt/license.txt",
            "readme.txt",
        ],
    );
    let dataset = Dataset::mvtec(root.path(), "bolt").unwrap();
    assert_eq!(
        ids(&dataset.samples),
        [
            "test/bent/003.WebP",
            "test/crack/003.png",
            "test/crack/004.tif",
            "test/good/000.png",
            "train/good/000.PNG",
            "train/good/001.png",
            "train/good/010.jpeg",
        ]
    );
    let of = |id: &str| dataset.samples.iter().find(|s| s.id == id).unwrap();
    let truth = root.path().join("bolt/ground_truth");
    assert_eq!(
        of("test/crack/003.png").masks,
        [truth.join("crack/003_mask.png")]
    );
    let both: [PathBuf; 2] =
        ["crack/004_mask_0.png", "crack/004_mask_1.png"].map(|m| truth.join(m));
    assert_eq!(of("test/crack/004.tif").masks, both);
    assert_eq!(
        of("test/bent/003.WebP").masks,
        [truth.join("bent/003/000.png")]
    );
    assert_eq!(
        of("test/crack/003.png").defect_type.as_deref(),
        Some("crack")
    );
    assert_eq!(
        (
            of("test/good/000.png").defect_type.as_deref(),
            of("test/good/000.png").subset
        ),
        (None, Subset::Test)
    );
    assert_eq!(
        (
            dataset.train_good().count(),
            dataset.test_good().count(),
            dataset.test_defects().count()
        ),
        (3, 1, 3)
    );
    assert_eq!(
        dataset.defect_types().into_iter().collect::<Vec<_>>(),
        ["bent", "crack"]
    );
    assert!(dataset.samples.iter().all(|s| s.path.is_file()));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_stay_in_the_list() {
    let root = tree();
    let good = root.path().join("bolt/train/good");
    std::os::unix::fs::symlink(good.join("001.png"), good.join("linked.png")).unwrap();
    std::os::unix::fs::symlink("/nowhere", good.join("broken.png")).unwrap();
    std::os::unix::fs::symlink(root.path().join("bolt"), root.path().join("nut")).unwrap();
    let dataset = Dataset::mvtec(root.path(), "nut").unwrap();
    assert_eq!(dataset.train_good().count(), 5);
    assert_eq!(categories(root.path()).unwrap(), ["bolt", "nut"]);
}

#[test]
fn a_missing_root_says_where_to_get_the_data() {
    let root = tree();
    for root in [
        root.path().join("mvtec_ad"),
        root.path().join("bolt/test/crack/003.png"),
    ] {
        let error = Dataset::mvtec(&root, "bolt").unwrap_err();
        assert!(matches!(error, DatasetError::RootMissing { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("`root_dir`") && text.contains("mvtec.com"),
            "{text}"
        );
        assert!(text.starts_with(&root.display().to_string()), "{text}");
    }
}

#[test]
fn a_missing_category_lists_the_others_and_guesses() {
    let root = tree();
    touch(
        root.path(),
        &["screw/train/good/0.png", "not_a_category/0.png"],
    );
    let text = Dataset::mvtec(root.path(), "Blot").unwrap_err().to_string();
    assert!(
        text.contains("no category 'Blot'") && text.contains("bolt, screw"),
        "{text}"
    );
    assert!(!text.contains("not_a_category"), "{text}");
    let text = Dataset::mvtec(root.path(), "screws")
        .unwrap_err()
        .to_string();
    assert!(text.contains("Did you mean 'screw'?"), "{text}");
    for escape in ["..", ".", "", "bolt/..", "bolt/", "/etc", "bolt/train"] {
        let error = Dataset::mvtec(root.path(), escape).unwrap_err();
        assert!(
            matches!(error, DatasetError::CategoryMissing { .. }),
            "{escape}: {error}"
        );
    }
    let text = Dataset::mvtec(&root.path().join("bolt"), "bolt")
        .unwrap_err()
        .to_string();
    assert!(text.contains("category itself"), "{text}");
}

#[test]
fn empty_parts_are_named() {
    let root = tree();
    let bolt = root.path().join("bolt");
    fs::create_dir(bolt.join("test/scratch")).unwrap();
    let error = Dataset::mvtec(root.path(), "bolt").unwrap_err();
    assert!(
        matches!(&error, DatasetError::EmptyFolder { folder } if folder.ends_with("test/scratch")),
        "{error}"
    );
    fs::remove_dir_all(bolt.join("test")).unwrap();
    let error = Dataset::mvtec(root.path(), "bolt").unwrap_err();
    assert!(
        matches!(&error, DatasetError::NoTestImages { .. }),
        "{error}"
    );
    fs::remove_dir_all(bolt.join("train/good")).unwrap();
    let error = Dataset::mvtec(root.path(), "bolt").unwrap_err();
    assert!(
        matches!(&error, DatasetError::NoTrainImages { folder } if folder.ends_with("train/good")),
        "{error}"
    );
}

#[test]
fn two_pictures_of_one_name_are_refused() {
    let root = tree();
    touch(root.path(), &["bolt/test/crack/003.jpg"]);
    let error = Dataset::mvtec(root.path(), "bolt").unwrap_err();
    assert!(
        matches!(&error, DatasetError::DuplicateStem { .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("003.jpg") && text.contains("003.png"),
        "{text}"
    );
}

fn assets() -> PathBuf {
    std::env::var_os("FLAWTUNE_ASSETS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets"),
        PathBuf::from,
    )
}

#[test]
fn real_categories_have_their_known_counts() {
    let root = assets().join("mvtec_like");
    if !root.is_dir() {
        eprintln!(
            "skipped: real_categories_have_their_known_counts ({} absent, assets absent)",
            root.display()
        );
        return;
    }
    let found = categories(&root).unwrap();
    for category in ["elpv_mono", "elpv_poly", "magnetic_tile"] {
        assert!(found.iter().any(|c| c == category), "{found:?}");
    }
    for category in ["elpv_mono", "elpv_poly"] {
        let dataset = Dataset::mvtec(&root, category).unwrap();
        assert_eq!(dataset.train_good().count(), 200);
        assert_eq!(
            (dataset.test_good().count(), dataset.test_defects().count()),
            (100, 100)
        );
        assert!(dataset.samples.iter().all(|s| s.masks.is_empty()));
    }
    let tile = Dataset::mvtec(&root, "magnetic_tile").unwrap();
    assert_eq!(
        (tile.train_good().count(), tile.test_good().count()),
        (300, 150)
    );
    assert!(tile.test_defects().all(|s| s.masks.len() == 1));
    assert_eq!(
        tile.defect_types().into_iter().collect::<Vec<_>>(),
        ["blowhole", "break", "crack", "fray", "uneven"]
    );
}
