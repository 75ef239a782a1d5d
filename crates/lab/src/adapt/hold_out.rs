//! How well an adaptation does on images it is not trained on, to choose the epoch.

use flawtune_kernels::matching::{NearestImages, PackedPatches};
use rayon::prelude::*;

use super::{AdaptError, BatchPass, Loss, Modulation, Tape};
use flawtune::evaluate::metrics;
use flawtune::score::heads::BANK_SHARE;
use flawtune::score::search::largest_cosine;
use flawtune::score::{Aggregate, pack_images};

/// What is measured on the hold-out; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldOutMetric {
    /// Area under the ROC curve of the image score `1 − max_i sim(image → support_i)`.
    #[default]
    Auroc,
    /// Area under the ROC curve of the image score of a patch bank over the support images: the mean of the largest 1 %
    /// of the patch distances.
    BankAuroc,
    /// The separability of the held-out normals and defects.
    Separability,
}

impl HoldOutMetric {
    /// Name in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auroc => "auroc",
            Self::BankAuroc => "bank_auroc",
            Self::Separability => "separability",
        }
    }
}

/// Images kept out of training to choose the epoch: indices into the caller's lists.
#[derive(Debug, Clone, Default)]
pub struct HoldOut {
    /// Held-out images among the normals.
    pub normals: Vec<usize>,
    /// Held-out images among the defects.
    pub defects: Vec<usize>,
    /// Normals that held-out images are compared with for [`HoldOutMetric::Auroc`]; a few dozen are enough, each
    /// costs a comparison with every held-out image.
    pub support: Vec<usize>,
    /// What is measured.
    pub metric: HoldOutMetric,
    /// Measured after every so many epochs, and after the last; 0 counts as 1.
    pub every: usize,
}

/// The rows of a hold-out's images.
#[derive(Debug)]
pub(super) struct HoldOutImages<'a> {
    pub(super) normals: Vec<&'a [f32]>,
    pub(super) defects: Vec<&'a [f32]>,
    pub(super) support: Vec<&'a [f32]>,
    pub(super) dim: usize,
}

impl HoldOutImages<'_> {
    /// The metric, with a modulation or as the tokens are.
    pub(super) fn measure(
        &self,
        modulation: Option<&dyn Modulation>,
        metric: HoldOutMetric,
        tape: &mut Tape,
    ) -> Result<f64, AdaptError> {
        match metric {
            HoldOutMetric::Separability => {
                let images: Vec<&[f32]> =
                    self.normals.iter().chain(&self.defects).copied().collect();
                let mut pass = BatchPass::new();
                let found = pass.forward(
                    modulation,
                    &images,
                    self.normals.len(),
                    self.dim,
                    Loss::Separability,
                )?;
                Ok(found.stats.separability())
            }
            HoldOutMetric::Auroc => {
                let support = NearestImages::new(pack(modulation, &self.support, self.dim, tape));
                let scores = |images: &[&[f32]], tape: &mut Tape| -> Vec<f64> {
                    let packs = pack(modulation, images, self.dim, tape);
                    support
                        .nearest(&packs, 1)
                        .iter()
                        .map(|near| 1.0 - near.images[0].1)
                        .collect()
                };
                let (normals, defects) = (scores(&self.normals, tape), scores(&self.defects, tape));
                Ok(auroc(&normals, &defects))
            }
            HoldOutMetric::BankAuroc => {
                let support = pack(modulation, &self.support, self.dim, tape);
                let scores = |images: &[&[f32]], tape: &mut Tape| -> Vec<f64> {
                    let packs = pack(modulation, images, self.dim, tape);
                    packs
                        .par_iter()
                        .map(|image| bank_score(image, &support))
                        .collect()
                };
                let (normals, defects) = (scores(&self.normals, tape), scores(&self.defects, tape));
                Ok(auroc(&normals, &defects))
            }
        }
    }
}

/// Mean of the largest distances of the image's patches to all patches of the bank.
fn bank_score(image: &PackedPatches, bank: &[PackedPatches]) -> f64 {
    let best = largest_cosine(image, bank, f32::NEG_INFINITY);
    let distances: Vec<f32> = best.iter().map(|b| 1.0 - b).collect();
    Aggregate::TopFraction(BANK_SHARE).score(&distances)
}

/// Images modulated (if there is a modulation), divided by their norms and laid out for matching.
fn pack(
    modulation: Option<&dyn Modulation>,
    images: &[&[f32]],
    dim: usize,
    tape: &mut Tape,
) -> Vec<PackedPatches> {
    match modulation {
        Some(m) => {
            let mut change = |images: &[&[f32]], out: &mut [f32]| m.forward(images, out, tape);
            pack_images(Some(&mut change), images, dim)
        }
        None => pack_images(None, images, dim),
    }
}

/// Part of the pairs of a normal and a defect in which the defect has the larger score; ties count half. NaN without a pair, or
/// where a score is not finite.
fn auroc(normals: &[f64], defects: &[f64]) -> f64 {
    let labels: Vec<bool> = [(false, normals.len()), (true, defects.len())]
        .into_iter()
        .flat_map(|(label, count)| std::iter::repeat_n(label, count))
        .collect();
    let found = metrics::auroc(&labels, &[normals, defects].concat());
    found.ok().flatten().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::auroc;

    #[test]
    fn auroc_counts_ties_half() {
        assert_eq!(
            auroc(&[0.1, 0.4], &[0.4, 0.9]),
            (1.0 + 0.5 + 1.0 + 1.0) / 4.0
        );
        assert_eq!(auroc(&[0.5], &[0.5]), 0.5);
    }
}
