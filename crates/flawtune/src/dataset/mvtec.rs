//! MVTec AD and the layouts that differ from it by names only: MVTec AD 2, MVTec LOCO AD, BTAD.

use std::collections::BTreeMap;
use std::path::Path;

use super::listing::{check_stems, list, list_if_there, masks, stem};
use super::{DatasetError, Sample, Subset};

/// The names of such a layout's folders, below the category.
#[derive(Debug)]
pub(super) struct Names {
    /// Good pictures to learn from; all but the first may be absent.
    train: &'static [&'static str],
    /// A folder for good pictures and one per defect type.
    test: &'static str,
    /// The folder of good pictures in it.
    good: &'static str,
    /// A folder of masks per defect type.
    truth: &'static str,
}

pub(super) const MVTEC_AD: Names = Names {
    train: &["train/good"],
    test: "test",
    good: "good",
    truth: "ground_truth",
};

/// The private test sets have no labels and are not read.
pub(super) const MVTEC_AD_2: Names = Names {
    train: &["train/good", "validation/good"],
    test: "test_public",
    good: "good",
    truth: "test_public/ground_truth",
};

/// The values of a mask's pixels name the kind of defect; read here as not black.
pub(super) const MVTEC_LOCO: Names = Names {
    train: &["train/good", "validation/good"],
    test: "test",
    good: "good",
    truth: "ground_truth",
};

pub(super) const BTAD: Names = Names {
    train: &["train/ok"],
    test: "test",
    good: "ok",
    truth: "ground_truth",
};

pub(super) fn read(
    folder: &Path,
    names: &Names,
    needs_test: bool,
) -> Result<Vec<Sample>, DatasetError> {
    let mut samples = Vec::new();
    for (i, &name) in names.train.iter().enumerate() {
        let train = folder.join(name);
        let pictures = list_if_there(&train)?.pictures;
        if pictures.is_empty() && i == 0 {
            return Err(DatasetError::NoTrainImages { folder: train });
        }
        check_stems(&train, &pictures)?;
        samples.extend(pictures.iter().map(|picture| Sample {
            path: train.join(picture),
            id: format!("{name}/{picture}"),
            subset: Subset::Train,
            defect_type: None,
            masks: Vec::new(),
        }));
    }

    let (test, truth) = (folder.join(names.test), folder.join(names.truth));
    let mut types = list_if_there(&test)?.folders;
    types.retain(|kind| test.join(kind) != truth);
    if types.is_empty() && needs_test {
        return Err(DatasetError::NoTestImages {
            good: test.join(names.good),
            folder: test,
        });
    }
    for kind in types {
        let folder_of_kind = test.join(&kind);
        let pictures = list(&folder_of_kind)?.pictures;
        if pictures.is_empty() {
            return Err(DatasetError::EmptyFolder {
                folder: folder_of_kind,
            });
        }
        check_stems(&folder_of_kind, &pictures)?;
        let good = kind == names.good;
        let mut masks = if good {
            BTreeMap::new()
        } else {
            masks(&truth.join(&kind))?
        };
        samples.extend(pictures.iter().map(|name| Sample {
            path: folder_of_kind.join(name),
            id: format!("{}/{kind}/{name}", names.test),
            subset: Subset::Test,
            defect_type: (!good).then(|| kind.clone()),
            masks: masks.remove(stem(name)).unwrap_or_default(),
        }));
    }
    Ok(samples)
}
