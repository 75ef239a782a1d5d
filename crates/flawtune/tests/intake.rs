//! Whatever a folder holds: every image in it is found once, and what is not taken is counted.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flawtune::dataset::{Ledger, Oddity, gather};
use proptest::prelude::*;

fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/formats")
}

/// What a file is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    /// A drawn image of that place in the list of all.
    Image(usize),
    Foreign(&'static str),
    Text,
}

const FOREIGN: [&str; 3] = ["heic.heic", "avif.avif", "jpeg2000.jp2"];

fn content(images: usize) -> impl Strategy<Value = Content> {
    prop_oneof![
        6 => (0..images).prop_map(Content::Image),
        1 => proptest::sample::select(&FOREIGN[..]).prop_map(Content::Foreign),
        1 => Just(Content::Text),
    ]
}

/// Parts of a path: folders and a name, with all that people put into names.
fn path() -> impl Strategy<Value = Vec<String>> {
    let word = || "[a-zäß0-9 _-]{1,6}".prop_map(|w| w.trim().to_owned());
    let ending = proptest::sample::select(vec!["", ".png", ".JPG", ".jfif", ".Tif", ".dat", ".x"]);
    let folders = proptest::collection::vec(word(), 0..6);
    (folders, word(), ending).prop_map(|(mut parts, name, ending)| {
        parts.retain(|p| !p.is_empty());
        parts.push(format!("f{name}{ending}"));
        parts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_image_at_any_depth_is_found_once(
        files in proptest::collection::btree_map(path(), content(120), 1..20),
        hidden in any::<bool>(),
    ) {
        let mut all: Vec<PathBuf> = fs::read_dir(formats()).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        let refused = |p: &PathBuf| {
            let name = p.file_name().unwrap().to_str().unwrap();
            FOREIGN.contains(&name) || name.starts_with("expected") || name.starts_with("formats")
        };
        all.retain(|p| !refused(p));
        prop_assert!(all.len() >= 120);
        let root = tempfile::tempdir().unwrap();
        let (mut images, mut foreign) = (BTreeSet::new(), 0);
        for (parts, content) in &files {
            let place = root.path().join(parts.iter().collect::<PathBuf>());
            // a name may be a folder's too
            if place.exists() || fs::create_dir_all(place.parent().unwrap()).is_err() {
                continue;
            }
            let usual = [".png", ".JPG", ".Tif"].iter().any(|e| parts.last().unwrap().ends_with(e));
            match content {
                Content::Image(at) => {
                    fs::copy(&all[*at], &place).unwrap();
                    images.insert(place);
                }
                Content::Foreign(name) => {
                    fs::copy(formats().join(name), &place).unwrap();
                    // a usual name is kept: whoever reads the image refuses it by name
                    if usual { images.insert(place); } else { foreign += 1; }
                }
                Content::Text => {
                    fs::write(&place, "a note").unwrap();
                    if usual { images.insert(place); }
                }
            }
        }
        if hidden {
            fs::copy(&all[0], root.path().join(".hidden.png")).unwrap();
            fs::create_dir(root.path().join(".trash")).unwrap();
            fs::copy(&all[0], root.path().join(".trash/a.png")).unwrap();
        }
        let mut ledger = Ledger::new();
        let found = gather(root.path(), &mut ledger).unwrap();
        let wanted: Vec<PathBuf> = images.into_iter().collect();
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(ledger.count(Oddity::UnreadFormat), foreign);
    }
}
