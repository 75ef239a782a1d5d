//! The images of one category and what every method says of them.

use std::error::Error;
use std::path::{Path, PathBuf};

use flawtune::features::{ImageTokens, patch_mask};
use flawtune::score::heads::{
    BANK_SHARE, DefectMemory, Ensemble, EnsembleOptions, Evidence, ImageHead, LogisticOptions,
    PatchBank, PatchExample, PatchHead, PatchHeadOptions, image_features,
};
use flawtune_backbone::config::Normalization;
use flawtune_backbone::preprocess::Preprocess;
use safetensors::SafeTensors;

/// The ensemble without defects.
pub(crate) const OWN_BASE: &str = "zero-shot: the ensemble's base";
/// The ensemble with them, whatever its guard says.
pub(crate) const UNGUARDED: &str = "ensemble, no guard";
/// The product's default.
pub(crate) const DEFAULT: &str = "ensemble (default)";

/// Scores of the test images by method.
pub(crate) type Named = Vec<(&'static str, Vec<f64>)>;

pub(crate) struct Category {
    pub(crate) ids: Vec<String>,
    pub(crate) normals: Vec<usize>,
    images: Vec<ImageTokens>,
    features: Vec<Vec<f32>>,
    dim: usize,
    /// Distance of each patch to the patches of train/good, the image itself left out; empty with `--image-level`.
    distances: Vec<Vec<f32>>,
    /// Which patches the flaw of an image covers, where asked for and known.
    masks: Vec<Option<Vec<bool>>>,
}

impl Category {
    /// Of a safetensors file of tokens and the list of the images in it; `masks` is the category's folder of masks.
    pub(crate) fn load(
        path: &str,
        ids: &str,
        patch_level: bool,
        masks: Option<&Path>,
    ) -> Result<Self, Box<dyn Error>> {
        let ids: Vec<String> = std::fs::read_to_string(ids)?
            .lines()
            .map(str::to_owned)
            .collect();
        let bytes = std::fs::read(path)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let (classes, patches) = (
            tensors.tensor("class_tokens")?,
            tensors.tensor("patch_tokens")?,
        );
        let &[count, rows, dim] = patches.shape() else {
            return Err("patch_tokens are [images, patches, dim]".into());
        };
        if count != ids.len() || classes.shape() != [count, dim] {
            return Err(format!(
                "{count} images, {} ids, class tokens {:?}",
                ids.len(),
                classes.shape()
            )
            .into());
        }
        let mut images = Vec::with_capacity(count);
        let per_image = classes
            .data()
            .chunks_exact(dim * 4)
            .zip(patches.data().chunks_exact(rows * dim * 4));
        for (class, patches) in per_image {
            let mut values = Vec::with_capacity((1 + rows) * dim);
            for b in class.chunks_exact(4).chain(patches.chunks_exact(4)) {
                values.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            images.push(ImageTokens::owned(values, rows, dim));
        }
        let normals: Vec<usize> = (0..count)
            .filter(|&i| ids[i].starts_with("train/good/"))
            .collect();
        let mut distances = Vec::new();
        if patch_level {
            let bank = PatchBank::new(&pick(&images, &normals), dim);
            let others: Vec<usize> = (0..count).filter(|i| !normals.contains(i)).collect();
            distances.resize(count, Vec::new());
            for (i, d) in normals.iter().zip(bank.left_out_distances()) {
                distances[*i] = d;
            }
            for (i, d) in others.iter().zip(bank.distances(&pick(&images, &others))) {
                distances[*i] = d;
            }
        }
        let features = images.iter().map(image_features).collect();
        let masks = match masks {
            Some(folder) => ids
                .iter()
                .map(|id| mask_of(folder, id, rows))
                .collect::<Result<_, _>>()?,
            None => vec![None; count],
        };
        Ok(Self {
            ids,
            normals,
            images,
            features,
            dim,
            distances,
            masks,
        })
    }

    fn example(&self, i: usize) -> PatchExample<'_> {
        PatchExample {
            tokens: &self.images[i],
            distances: &self.distances[i],
            mask: None,
        }
    }

    fn examples(&self, which: &[usize]) -> Vec<PatchExample<'_>> {
        which.iter().map(|&i| self.example(i)).collect()
    }

    fn evidence(&self, which: &[usize]) -> Vec<Evidence> {
        let bank = |i: usize| self.distances.get(i).map(|d| mean_of_top(d, BANK_SHARE));
        which
            .iter()
            .map(|&i| Evidence {
                features: self.features[i].clone(),
                bank: bank(i),
            })
            .collect()
    }

    /// Scores that need no defect, for the test images.
    pub(crate) fn zero_shot(&self, normals: &[usize], test: &[usize]) -> Named {
        let mut rows = Vec::new();
        if !self.distances.is_empty() {
            let top = |share: f64| -> Vec<f64> {
                test.iter()
                    .map(|&i| mean_of_top(&self.distances[i], share))
                    .collect()
            };
            rows.push(("zero-shot: patch bank, top 1 %", top(0.01)));
            rows.push(("zero-shot: patch bank, mean", top(1.0)));
        }
        let nearest = |i: &usize| {
            let own = self.images[*i].cls();
            1.0 - normals
                .iter()
                .map(|&n| cosine(own, self.images[n].cls()))
                .fold(-1.0, f64::max)
        };
        rows.push((
            "zero-shot: class token, nearest",
            test.iter().map(nearest).collect(),
        ));
        rows
    }

    /// Scores after learning from the shots.
    pub(crate) fn supervised(
        &self,
        normals: &[usize],
        shots: &[usize],
        test: &[usize],
    ) -> Result<Named, Box<dyn Error>> {
        let mut rows = Vec::new();
        let slices = |which: &[usize]| {
            which
                .iter()
                .map(|&i| self.features[i].as_slice())
                .collect::<Vec<_>>()
        };
        let probe = ImageHead::fit(
            &slices(shots),
            &slices(normals),
            &LogisticOptions::with_penalty(1.0),
        )?;
        rows.push((
            "linear probe",
            test.iter()
                .map(|&i| probe.score(&self.features[i]))
                .collect(),
        ));
        if !self.distances.is_empty() {
            let (defects, good) = (self.examples(shots), self.examples(normals));
            let tested = pick(&self.images, test);
            for (name, rounds) in [
                ("patch head", 0),
                ("patch head, positives re-picked twice", 2),
            ] {
                let options = PatchHeadOptions {
                    rounds,
                    ..PatchHeadOptions::default()
                };
                let head = PatchHead::fit(&defects, &good, self.dim, &options)?;
                rows.push((name, head.scores(&tested)));
            }
            if self.masks.iter().any(Option::is_some) {
                let masked: Vec<PatchExample<'_>> = shots
                    .iter()
                    .map(|&i| PatchExample {
                        mask: self.masks[i].as_deref(),
                        ..self.example(i)
                    })
                    .collect();
                let head = PatchHead::fit(&masked, &good, self.dim, &PatchHeadOptions::default())?;
                rows.push(("patch head, positives under the mask", head.scores(&tested)));
                let memory = DefectMemory::new(&masked, self.dim, 0.05);
                rows.push(("defect memory of the patches under the mask", {
                    memory.scores(&self.examples(test), 0.05)
                }));
            }
            let memory = DefectMemory::new(&defects, self.dim, 0.05);
            rows.push(("defect memory", memory.scores(&self.examples(test), 0.05)));
        }
        for (name, guard) in [(UNGUARDED, false), (DEFAULT, true)] {
            let options = EnsembleOptions {
                guard,
                ..EnsembleOptions::default()
            };
            let fitted = Ensemble::fit(&self.evidence(normals), &self.evidence(shots), &options)?;
            let scores = fitted.scores(&self.evidence(test))?;
            if !guard {
                rows.push((OWN_BASE, scores.iter().map(|s| s.zero_shot).collect()));
            }
            rows.push((name, scores.iter().map(|s| s.adapted).collect()));
        }
        Ok(rows)
    }
}

/// Of `test/TYPE/NAME.EXT`: what `TYPE/NAME_mask.png` covers in a square grid of `patches` over the squashed image.
fn mask_of(folder: &Path, id: &str, patches: usize) -> Result<Option<Vec<bool>>, Box<dyn Error>> {
    let Some(name) = id
        .strip_prefix("test/")
        .filter(|name| !name.starts_with("good/"))
    else {
        return Ok(None);
    };
    let file: PathBuf = folder.join(format!(
        "{}_mask.png",
        name.rsplit_once('.').map_or(name, |(n, _)| n)
    ));
    let side = patches.isqrt();
    if side * side != patches {
        return Err(format!("{patches} patches are not a square").into());
    }
    // any patch size will do: a squashed image has as many patches as the grid
    let recipe = Preprocess::squash(side, side, Normalization::IMAGENET);
    Ok(Some(patch_mask(&file, &[&file], &recipe, (side, side), 1)?))
}

pub(crate) fn pick<T: Clone>(from: &[T], which: &[usize]) -> Vec<T> {
    which.iter().map(|&i| from[i].clone()).collect()
}

fn mean_of_top(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let count = ((share * sorted.len() as f64).round() as usize).max(1);
    sorted[..count].iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt() + 1e-8)
}
