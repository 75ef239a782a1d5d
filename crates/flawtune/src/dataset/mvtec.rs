//! MVTec AD and the layouts that differ from it by names only: MVTec AD 2, MVTec LOCO AD, BTAD.

use std::path::Path;

use super::listing::{MaskTree, check_deep_stems, deep, list_if_there, stem, stems};
use super::{DatasetError, Ledger, Oddity, Sample, Subset};

/// The names of such a layout's folders, below the category.
#[derive(Debug)]
pub(super) struct Names {
    /// Good images to learn from; all but the first may be absent.
    train: &'static [&'static str],
    /// A folder for good images and one per defect type.
    test: &'static str,
    /// The folder of good images in it.
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

/// Images may lie at any depth below `train/good` and the folders of types: a folder a day, a shift, a camera.
pub(super) fn read(
    folder: &Path,
    names: &Names,
    needs_test: bool,
    ledger: &mut Ledger,
) -> Result<Vec<Sample>, DatasetError> {
    let mut samples = Vec::new();
    for (i, &name) in names.train.iter().enumerate() {
        let train = folder.join(name);
        let pictures = deep(&train, ledger)?;
        if pictures.is_empty() && i == 0 {
            return Err(DatasetError::NoTrainImages { folder: train });
        }
        check_deep_stems(&train, &pictures)?;
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
    for kind in &types {
        let folder_of_kind = test.join(kind);
        let pictures = deep(&folder_of_kind, ledger)?;
        if pictures.is_empty() {
            return Err(DatasetError::EmptyFolder {
                folder: folder_of_kind,
            });
        }
        check_deep_stems(&folder_of_kind, &pictures)?;
        let good = kind == names.good;
        let mut masks = if good {
            None
        } else {
            Some(MaskTree::read(&truth.join(kind), &pictures, ledger)?)
        };
        let alike = stems(&pictures);
        samples.extend(pictures.iter().map(|name| {
            let alone = alike.get(stem(name.rsplit('/').next().unwrap_or(name))) == Some(&1);
            Sample {
                path: folder_of_kind.join(name),
                id: format!("{}/{kind}/{name}", names.test),
                subset: Subset::Test,
                defect_type: (!good).then(|| kind.clone()),
                masks: masks
                    .as_mut()
                    .map(|m| m.take(name, alone))
                    .unwrap_or_default(),
            }
        }));
        if let Some(masks) = masks {
            masks.rest(ledger);
        }
    }
    beside(folder, names, &types, ledger)?;
    Ok(samples)
}

/// Tells the ledger of images and masks that lie where nothing says what they are.
fn beside(
    folder: &Path,
    names: &Names,
    types: &[String],
    ledger: &mut Ledger,
) -> Result<(), DatasetError> {
    let mut unlabelled = Vec::new();
    let test = folder.join(names.test);
    let here = |folder: &Path| -> Result<Vec<_>, DatasetError> {
        let pictures = list_if_there(folder)?.pictures;
        Ok(pictures.iter().map(|p| folder.join(p)).collect())
    };
    unlabelled.extend(here(folder)?);
    unlabelled.extend(here(&test)?);
    for name in names.train {
        let Some((parent, _)) = name.rsplit_once('/') else {
            continue;
        };
        let parent = folder.join(parent);
        unlabelled.extend(here(&parent)?);
        for other in list_if_there(&parent)?.folders {
            let other = parent.join(other);
            if !names.train.iter().any(|name| folder.join(name) == other) {
                let inside = deep(&other, &mut Ledger::default())?;
                unlabelled.extend(inside.iter().map(|p| other.join(p)));
            }
        }
    }
    for path in unlabelled {
        ledger.add(Oddity::Unlabelled, path.display().to_string());
    }
    let truth = folder.join(names.truth);
    let listed = list_if_there(&truth)?;
    let masks = listed.pictures.iter().map(|p| truth.join(p));
    let mut masks: Vec<_> = masks.collect();
    let foreign = |kind: &&String| kind.as_str() != names.good && !types.contains(kind);
    for kind in listed.folders.iter().filter(foreign) {
        let kind = truth.join(kind);
        let inside = deep(&kind, &mut Ledger::default())?;
        masks.extend(inside.iter().map(|p| kind.join(p)));
    }
    for path in masks {
        ledger.add(Oddity::MaskWithoutImage, path.display().to_string());
    }
    Ok(())
}
