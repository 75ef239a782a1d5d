//! `KolektorSDD` and `KolektorSDD2`: every image has a label beside it, which is black where there is no defect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flawtune_backbone::preprocess::DecodeOptions;
use rayon::prelude::*;

use super::listing::{Listing, check_stems, list, list_if_there, stem};
use super::mask::shows_anything;
use super::{DEFECT, DatasetError, Sample, Subset};

/// Ending of a label's stem in `KolektorSDD`.
const SDD_LABEL: &str = "_label";
/// The same in `KolektorSDD2`.
pub(super) const SDD2_LABEL: &str = "_GT";

/// Whether `folder` holds an image with its label.
pub(super) fn has_labels(folder: &Path, ending: &str) -> bool {
    list(folder)
        .is_ok_and(|found| labelled(folder, &found, ending).is_ok_and(|pairs| !pairs.is_empty()))
}

/// Whether any folder in `folder` holds an image with its label as in `KolektorSDD`.
pub(super) fn has_items(folder: &Path) -> bool {
    list(folder).is_ok_and(|found| {
        found
            .folders
            .iter()
            .any(|item| has_labels(&folder.join(item), SDD_LABEL))
    })
}

/// `KolektorSDD` has no split of its own. Images of one item are much alike, so items are not divided: good images
/// of the first half of the items, by name, are for learning; the others, and every defect, are the test.
pub(super) fn read_items(folder: &Path) -> Result<Vec<Sample>, DatasetError> {
    let items = list(folder)?.folders;
    let mut found = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let inner = folder.join(item);
        let subset = if i < items.len().div_ceil(2) {
            Subset::Train
        } else {
            Subset::Test
        };
        for (name, label) in labelled(&inner, &list(&inner)?, SDD_LABEL)? {
            found.push((inner.join(&name), format!("{item}/{name}"), label, subset));
        }
    }
    let mut samples = classified(found)?;
    for sample in samples.iter_mut().filter(|s| s.is_defect()) {
        sample.subset = Subset::Test;
    }
    if samples.iter().all(|s| s.subset == Subset::Test) {
        return Err(DatasetError::NoTrainImages {
            folder: folder.to_path_buf(),
        });
    }
    Ok(samples)
}

/// `KolektorSDD2` has defects in `train` too.
pub(super) fn read_subsets(folder: &Path, needs_test: bool) -> Result<Vec<Sample>, DatasetError> {
    let mut found = Vec::new();
    for (name, subset) in [("train", Subset::Train), ("test", Subset::Test)] {
        let inner = folder.join(name);
        let pairs = labelled(&inner, &list_if_there(&inner)?, SDD2_LABEL)?;
        match subset {
            Subset::Train if pairs.is_empty() => {
                return Err(DatasetError::NoTrainImages { folder: inner });
            }
            Subset::Test if pairs.is_empty() && needs_test => {
                return Err(DatasetError::EmptyFolder { folder: inner });
            }
            _ => {}
        }
        for (picture, label) in pairs {
            found.push((
                inner.join(&picture),
                format!("{name}/{picture}"),
                label,
                subset,
            ));
        }
    }
    classified(found)
}

/// Names of the images in `folder`, and their labels.
fn labelled(
    folder: &Path,
    listing: &Listing,
    ending: &str,
) -> Result<Vec<(String, PathBuf)>, DatasetError> {
    let (labels, pictures): (Vec<&String>, Vec<&String>) = listing
        .pictures
        .iter()
        .partition(|name| stem(name).ends_with(ending));
    check_stems(folder, pictures.iter().copied())?;
    let mut by_stem: HashMap<&str, &String> = HashMap::new();
    for label in labels {
        by_stem.entry(stem(label)).or_insert(label);
    }
    let label_of = |name: &String| {
        let wanted = format!("{}{ending}", stem(name));
        by_stem
            .get(wanted.as_str())
            .map(|label| folder.join(label))
            .ok_or_else(|| DatasetError::NoLabel {
                picture: folder.join(name),
                wanted: format!("{wanted}.png or .bmp"),
            })
    };
    pictures
        .into_iter()
        .map(|name| Ok((name.clone(), label_of(name)?)))
        .collect()
}

/// Looks into the labels: an image whose label shows anything is a defect, and the label its mask.
fn classified(found: Vec<(PathBuf, String, PathBuf, Subset)>) -> Result<Vec<Sample>, DatasetError> {
    let options = DecodeOptions::default();
    let one = |(path, id, label, subset): (PathBuf, String, PathBuf, Subset)| {
        let defect = shows_anything(&label, &options)?;
        let masks = if defect { vec![label] } else { Vec::new() };
        Ok(Sample {
            path,
            id,
            subset,
            defect_type: defect.then(|| DEFECT.to_owned()),
            masks,
        })
    };
    found.into_par_iter().map(one).collect()
}
