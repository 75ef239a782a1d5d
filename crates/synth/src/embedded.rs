//! The demonstration data set that is part of the program, and how it gets into a folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use rust_embed::RustEmbed;

use super::{Category, Counts, SynthError};

/// Images and masks in the `MVTec` AD layout, as [`DRAWN`] has them.
#[derive(RustEmbed)]
#[folder = "../../assets/demo_data"]
struct Files;

/// What is drawn: flaws that a person sees, plain enough for the small backbone that is part of the program.
pub const DRAWN: [(Category, Counts); 2] = [
    (Category::Gravel, counts(2.0)),
    (Category::Plate, counts(1.6)),
];

const fn counts(severity: f32) -> Counts {
    Counts {
        train_good: 60,
        test_good: 50,
        test_per_type: 12,
        severity,
    }
}

/// The command that makes one category of the embedded data set; a test compares the bytes.
pub fn made_by((category, counts): &(Category, Counts)) -> String {
    format!(
        "flawtune synth --category {category} --severity {} --train-good {} --test-good {}",
        counts.severity, counts.train_good, counts.test_good
    )
}

/// What [`unpack`] put into a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The categories, in the order of their names.
    pub categories: Vec<EmbeddedCategory>,
    /// Bytes of all files.
    pub bytes: usize,
}

/// One category of the embedded data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedCategory {
    /// Its folder's name.
    pub name: String,
    /// Images in `train/good`.
    pub train_good: usize,
    /// Images in `test/good`.
    pub test_good: usize,
    /// Images in the folders of defects.
    pub defects: usize,
    /// Names of the defect types.
    pub defect_types: BTreeSet<String>,
}

/// Writes the embedded data set into `folder`. Files that are there with the right bytes are left alone, so that it can
/// be unpacked again.
///
/// # Errors
/// [`SynthError::Foreign`] if the folder holds anything else: results would not be those of this data set;
/// [`SynthError::Write`].
pub fn unpack(folder: &Path) -> Result<Unpacked, SynthError> {
    let names: BTreeSet<String> = Files::iter().map(|name| name.replace('\\', "/")).collect();
    if let Some(path) = foreign(folder, folder, &names) {
        return Err(SynthError::Foreign { path });
    }
    let mut unpacked = Unpacked {
        categories: Vec::new(),
        bytes: 0,
    };
    for name in &names {
        let Some(file) = Files::get(name) else {
            continue;
        };
        unpacked.bytes += file.data.len();
        count(&mut unpacked.categories, name);
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|found| found == *file.data) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| atomic_file::write(&path, &file.data))
            .map_err(|source| SynthError::Write {
                path: path.clone(),
                source,
            })?;
    }
    Ok(unpacked)
}

/// Counts `<category>/train/good/x`, `<category>/test/<type>/x`; names come sorted.
fn count(categories: &mut Vec<EmbeddedCategory>, name: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    let [category, split, kind, _] = parts[..] else {
        return;
    };
    if categories.last().is_none_or(|c| c.name != category) {
        categories.push(EmbeddedCategory {
            name: category.to_owned(),
            ..EmbeddedCategory::default()
        });
    }
    let Some(at) = categories.last_mut() else {
        return;
    };
    match (split, kind) {
        ("train", "good") => at.train_good += 1,
        ("test", "good") => at.test_good += 1,
        ("test", defect) => {
            at.defects += 1;
            at.defect_types.insert(defect.to_owned());
        }
        _ => {}
    }
}

/// The first file under `folder` that is none of `names`, relative to `root`.
fn foreign(folder: &Path, root: &Path, names: &BTreeSet<String>) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        if path.is_dir() {
            return foreign(&path, root, names);
        }
        let name = path
            .strip_prefix(root)
            .ok()?
            .to_string_lossy()
            .replace('\\', "/");
        (!names.contains(&name)).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DEFAULT_SIZE, generate};

    /// Seed of `flawtune synth`, unless told otherwise.
    const SEED: u64 = 1;

    #[test]
    fn it_is_what_synth_makes() {
        let folder = tempfile::tempdir().unwrap();
        for drawn in DRAWN {
            let (category, counts) = drawn;
            generate(
                category,
                &counts,
                SEED,
                DEFAULT_SIZE,
                folder.path(),
                &|_, _| {},
            )
            .unwrap();
            // the rest of what the command does is its default
            assert_eq!(counts.test_per_type, Counts::default().test_per_type);
            assert!(made_by(&drawn).contains(category.name()));
        }
        // unpacking mends what differs and refuses what is more, so compare first
        let names: Vec<String> = Files::iter().map(|name| name.replace('\\', "/")).collect();
        assert_eq!(names.len(), 2 * (60 + 50 + 2 * 48));
        for name in &names {
            let embedded = Files::get(name).unwrap().data;
            assert_eq!(
                fs::read(folder.path().join(name)).unwrap(),
                *embedded,
                "{name}"
            );
        }
        unpack(folder.path()).unwrap();
    }

    #[test]
    fn it_can_be_unpacked_again_and_refuses_what_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = unpack(folder.path()).unwrap();
        assert_eq!(first.categories.len(), 2);
        assert!(first.bytes < 3_200_000, "{}", first.bytes);
        for category in &first.categories {
            let types: Vec<&str> = category.defect_types.iter().map(String::as_str).collect();
            assert_eq!(
                types,
                ["hole", "misplaced", "scratch", "stain"],
                "{}",
                category.name
            );
            let folder = folder.path().join(&category.name);
            let pictures = |path: &str| fs::read_dir(folder.join(path)).unwrap().count();
            assert_eq!(category.train_good, pictures("train/good"));
            assert_eq!(category.test_good, pictures("test/good"));
            for defect in &types {
                let both =
                    ["test", "ground_truth"].map(|split| pictures(&format!("{split}/{defect}")));
                assert_eq!(both[0], both[1], "a mask each");
            }
        }
        // a damaged image is mended
        let name = first.categories[0].name.clone();
        let one = fs::read_dir(folder.path().join(&name).join("train/good"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let bytes = fs::read(one.path()).unwrap();
        fs::write(one.path(), b"half").unwrap();
        assert_eq!(unpack(folder.path()).unwrap(), first);
        assert_eq!(fs::read(one.path()).unwrap(), bytes);

        let own = folder.path().join(&name).join("train/good/mine.png");
        fs::write(&own, b"").unwrap();
        assert!(matches!(unpack(folder.path()), Err(SynthError::Foreign { path }) if path == own));
    }
}
