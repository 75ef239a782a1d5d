//! A folder of good images and one of defects, wherever they are.

use std::path::{Path, PathBuf};

use super::listing::{MaskTree, check_deep_stems, gather, relative, stem};
use super::{DEFECT, DatasetError, Ledger, Oddity, Sample, Subset, share};

/// Folders of images, each searched to any depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Good images to learn from.
    pub good: PathBuf,
    /// Good images to test; `None`: if there are defects, a fifth of `good`.
    pub test_good: Option<PathBuf>,
    /// Defects; those in a folder of it are of the type that the folder is called, those directly in it of the type
    /// `defect`.
    pub defect: Option<PathBuf>,
    /// Masks of the defects, under the same path: `<type>/<stem>.png`, `<type>/<stem>_mask.png` or a folder
    /// `<type>/<stem>`.
    pub masks: Option<PathBuf>,
}

/// Images that a detector learns from after it was fitted; each folder is searched to any depth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoreImages {
    /// Good images.
    pub good: Option<PathBuf>,
    /// Defects, in folders of their types as those of [`Folders`].
    pub defect: Option<PathBuf>,
    /// Masks of the defects, as those of [`Folders`].
    pub masks: Option<PathBuf>,
}

const MASKS: &str = "masks";

/// Reads images that are learned from later: all of them are, and their ids are apart from those of a first fit.
pub(super) fn read_more(
    more: &MoreImages,
    ledger: &mut Ledger,
) -> Result<Vec<Sample>, DatasetError> {
    let parts = [
        ("good", more.good.as_ref()),
        ("defect", more.defect.as_ref()),
        (MASKS, more.masks.as_ref()),
    ];
    let mut samples = read_parts(&parts, ledger)?;
    for sample in &mut samples {
        sample.id = format!("learned/{}", sample.id);
        sample.subset = Subset::Train;
    }
    Ok(samples)
}

pub(super) fn read(folders: &Folders, ledger: &mut Ledger) -> Result<Vec<Sample>, DatasetError> {
    let parts = [
        ("good", Some(&folders.good)),
        ("test_good", folders.test_good.as_ref()),
        ("defect", folders.defect.as_ref()),
        (MASKS, folders.masks.as_ref()),
    ];
    let mut samples = read_parts(&parts, ledger)?;
    if folders.defect.is_some() && folders.test_good.is_none() {
        share::give_to_test(&mut samples);
    }
    Ok(samples)
}

fn read_parts(
    parts: &[(&'static str, Option<&PathBuf>)],
    ledger: &mut Ledger,
) -> Result<Vec<Sample>, DatasetError> {
    let mut found: Vec<(&str, &Path, PathBuf)> = Vec::new();
    for (name, folder) in parts
        .iter()
        .filter_map(|(name, folder)| Some((*name, folder.as_ref()?.as_path())))
    {
        let real = folder.canonicalize().ok().filter(|real| real.is_dir());
        let real = real.ok_or_else(|| DatasetError::NoFolder {
            folder: folder.to_path_buf(),
        })?;
        for (_, other, other_real) in &found {
            if real.starts_with(other_real) || other_real.starts_with(&real) {
                return Err(DatasetError::Overlap {
                    first: other.to_path_buf(),
                    second: folder.to_path_buf(),
                });
            }
        }
        found.push((name, folder, real));
    }
    let mut samples = Vec::new();
    for (name, folder, _) in found.iter().filter(|(name, ..)| *name != MASKS) {
        let pictures = pictures_in(folder, ledger)?;
        let mut of_part = Vec::new();
        for path in pictures {
            let inside = relative(&path, folder)?;
            let defect = *name == "defect";
            let kind = inside.split_once('/').map_or(DEFECT, |(first, _)| first);
            of_part.push(Sample {
                id: format!("{name}/{inside}"),
                subset: if *name == "good" {
                    Subset::Train
                } else {
                    Subset::Test
                },
                defect_type: defect.then(|| kind.to_owned()),
                masks: Vec::new(),
                path,
            });
        }
        let masks = found.iter().find(|(name, ..)| *name == MASKS);
        if let (true, Some((_, masks, _))) = (*name == "defect", masks) {
            add_masks(&mut of_part, folder, masks, ledger)?;
        }
        samples.extend(of_part);
    }
    Ok(samples)
}

fn pictures_in(folder: &Path, ledger: &mut Ledger) -> Result<Vec<PathBuf>, DatasetError> {
    let mut found = gather(folder, ledger)?;
    found.retain(|path| {
        let has_id = path.to_str().is_some();
        if !has_id {
            ledger.add(Oddity::NotUtf8, path.display().to_string());
        }
        has_id
    });
    if found.is_empty() {
        return Err(DatasetError::EmptyFolder {
            folder: folder.to_path_buf(),
        });
    }
    Ok(found)
}

/// Gives defects in `folder` their masks; some may have none, but not all.
fn add_masks(
    samples: &mut [Sample],
    folder: &Path,
    root: &Path,
    ledger: &mut Ledger,
) -> Result<(), DatasetError> {
    let names = samples.iter().map(|s| relative(&s.path, folder));
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    // a mask is found by the stem
    check_deep_stems(folder, &names)?;
    let mut masks = MaskTree::read(root, &names, ledger)?;
    for (sample, name) in samples.iter_mut().zip(&names) {
        sample.masks = masks.take(name, false);
    }
    masks.rest(ledger);
    match samples.first() {
        Some(first) if samples.iter().all(|s| s.masks.is_empty()) => {
            let inside = relative(&first.path, folder)?;
            Err(DatasetError::NoMasks {
                folder: root.to_path_buf(),
                picture: first.path.clone(),
                wanted: root.join(format!("{}.png", stem(&inside))),
            })
        }
        _ => Ok(()),
    }
}
