//! How far apart normal and defective images lie, before and after adaptation: the table from which one sees which
//! categories are hard, and how much room there is.

mod files;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use files::{markdown, rank, write_analyses};

use super::evaluate::{open_backbone, split_options};
use super::manifests::manifest;
use super::universal::adaptation_for;
use super::{
    BackboneOptions, BackboneOverrides, Category, CategoryOptions, Engine, Event, OnEvent,
    WorkflowError, adapted, sorted,
};
use crate::adapt::{Checkpoint, PairwiseMatches, Similarities, SimilarityStats, rows_of};
use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::protocol::{ImageRef, Protocol, Split, SplitOptions, check_disjoint};
use flawtune::features::TokenSet;
use flawtune::random::draws::{generator, shuffle};
use flawtune::score::{SupportSet, TokenKind};

/// Stream of the seed's random bits that chooses images.
const STREAM: u64 = 0x616e_616c;

/// What to analyse.
#[derive(Debug, Clone)]
pub struct AnalyzeRequest {
    /// The images.
    pub data: CategoryOptions,
    /// What the user says about the backbone; with a checkpoint it must agree with that.
    pub backbone: BackboneOverrides,
    /// What was learned; `None`: the untouched model only.
    pub checkpoint: Option<PathBuf>,
    /// Compare class tokens; a checkpoint says so itself.
    pub use_cls: bool,
    /// Images of each kind, at most; which ones is drawn with the seed.
    pub max_images: usize,
    /// Seed of the split, where no checkpoint says one, and of the draw.
    pub seed: u64,
}

/// Similarities among normal images and from them to defects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimilaritySpread {
    /// Mean over directed pairs of normals.
    pub mu_nn: f64,
    /// Their unbiased standard deviation.
    pub sigma_nn: f64,
    /// Mean from normals to defects.
    pub mu_nd: f64,
    /// Their unbiased standard deviation.
    pub sigma_nd: f64,
    /// `(μ_NN − μ_ND) / (σ_NN + σ_ND + 1e-8)`.
    pub separability: f64,
    /// Share of pairs (a normal–normal similarity, a normal–defect one) in which the second is the larger; ties count
    /// half. 0: apart; 0.5: alike.
    pub overlap: f64,
    /// AUROC of `1 − similarity to the nearest normal`, each normal left out of its own neighbours.
    pub auroc: f64,
    /// The similarities among normals, diagonal left out.
    #[serde(skip)]
    pub nn: Vec<f64>,
    /// Those from normals to defects.
    #[serde(skip)]
    pub nd: Vec<f64>,
}

/// A category's similarities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Category.
    pub category: String,
    /// Normal test images compared.
    pub normals: usize,
    /// Defective test images compared; none of them trained.
    pub defects: usize,
    /// Backbone.
    pub model_name: String,
    /// Seed of the split and of the draw.
    pub seed: u64,
    /// Whether class tokens were compared.
    pub use_cls: bool,
    /// Of the untouched model.
    pub zero_shot: SimilaritySpread,
    /// With what the checkpoint learned.
    pub adapted: Option<SimilaritySpread>,
    /// The checkpoint.
    pub checkpoint: Option<PathBuf>,
}

impl Analysis {
    /// How much there is to gain: 1 − AUROC of the untouched model.
    pub fn room(&self) -> f64 {
        1.0 - self.zero_shot.auroc
    }
}

/// Compares test images that neither side has learned from.
///
/// # Errors
/// Fewer than two normal or one defective test image; a checkpoint of another backbone or one that has learned from
/// these images; anything wrong with the data.
pub fn analyze(request: &AnalyzeRequest, on_event: OnEvent<'_>) -> Result<Analysis, WorkflowError> {
    let learned = request
        .checkpoint
        .as_deref()
        .map(|path| Learned::read(path, &request.data.category))
        .transpose()?;
    let category = Category::open(&request.data, on_event)?;
    let name = category.dataset.category.clone();
    let split = category.split(&match &learned {
        Some(learned) => learned.split(&name),
        None => SplitOptions::held_out(request.seed, 0),
    })?;
    let (normals, defects) = chosen(&category, &split, request.max_images, request.seed);
    if normals.len() < 2 || defects.is_empty() {
        return Err(WorkflowError::Input(format!(
            "{name}: {} normal and {} defective test images outside the pool; two and one are needed",
            normals.len(),
            defects.len()
        )));
    }
    let engine = match &learned {
        Some(learned) => {
            learned.check(&category, &name, &normals, &defects)?;
            open_backbone(
                &learned.path,
                &request.backbone,
                &learned.checkpoint,
                on_event,
            )?
        }
        None => Engine::open(request.backbone.over(BackboneOptions::default()), on_event)?,
    };
    let (normals, normal_tokens) = category.tokens(&engine, &normals, on_event)?;
    let (defects, defect_tokens) = category.tokens(&engine, &defects, on_event)?;
    let adaptation = learned
        .as_ref()
        .map(|l| adaptation_for(&l.checkpoint, &request.data.category))
        .transpose()?;
    let use_cls = adaptation
        .as_ref()
        .map_or(request.use_cls, |a| a.options().use_cls);
    on_event(Event::Scoring("similarities, zero-shot"));
    let zero_shot = spread(&normal_tokens, &defect_tokens, use_cls)?;
    let changed = match (&learned, &adaptation) {
        (Some(learned), Some(adaptation)) => {
            adaptation.check(&normal_tokens)?;
            on_event(Event::Scoring("similarities, adapted"));
            let inserted = learned.checkpoint.inserted.as_ref();
            let frozen = [(&normals[..], normal_tokens), (&defects[..], defect_tokens)];
            let [normals, defects] =
                adapted::of_lists(&category, &engine, inserted, adaptation, frozen, on_event)?;
            Some(spread(&normals, &defects, use_cls)?)
        }
        _ => None,
    };
    Ok(Analysis {
        category: name,
        normals: normals.len(),
        defects: defects.len(),
        model_name: engine.config().name.clone(),
        seed: split.seed,
        use_cls,
        zero_shot,
        adapted: changed,
        checkpoint: request.checkpoint.clone(),
    })
}

/// A checkpoint and who was learned from.
struct Learned {
    path: PathBuf,
    checkpoint: Checkpoint,
    manifest: flawtune::evaluate::protocol::SplitManifest,
}

impl Learned {
    fn read(path: &Path, category: &str) -> Result<Self, WorkflowError> {
        let checkpoint = Checkpoint::read(path)?;
        let manifest = manifest(path, &checkpoint, category)?.ok_or_else(|| {
            WorkflowError::Input(format!(
                "{} does not say which images it was trained on, so that none can be shown to be unseen\nhint: train it \
                 again with 'flawtune train'",
                path.display()
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            checkpoint,
            manifest,
        })
    }

    /// The held-out split of its seed; its own pool where it is this category's and not leaky.
    fn split(&self, category: &str) -> SplitOptions {
        let protocol = match &self.manifest.protocol {
            Protocol::Leaky => Protocol::HeldOut,
            other => other.clone(),
        };
        split_options(&self.checkpoint, Some(&self.manifest), category, &protocol)
    }

    fn check(
        &self,
        category: &Category,
        name: &str,
        normals: &[usize],
        defects: &[usize],
    ) -> Result<(), WorkflowError> {
        let infos = category.infos();
        let compared: Vec<ImageRef> = normals
            .iter()
            .chain(defects)
            .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
            .collect();
        Ok(check_disjoint(
            &self.manifest,
            name,
            &compared,
            &Protocol::HeldOut,
        )?)
    }
}

/// Normal and defective test images, at most so many of each, drawn with the seed.
fn chosen(category: &Category, split: &Split, most: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let (mut defects, mut normals): (Vec<usize>, Vec<usize>) = split
        .test
        .iter()
        .partition(|&&i| category.dataset.samples[i].is_defect());
    let mut rng = generator(seed, STREAM);
    for list in [&mut normals, &mut defects] {
        list.sort_unstable();
        shuffle(&mut rng, list);
        list.truncate(most);
    }
    (sorted(normals.iter()), sorted(defects.iter()))
}

/// What the tokens of normal and defective images say.
fn spread(
    normals: &TokenSet,
    defects: &TokenSet,
    use_cls: bool,
) -> Result<SimilaritySpread, WorkflowError> {
    let (n, m) = (normals.images.len(), defects.images.len());
    let images = || normals.images.iter().chain(&defects.images);
    let rows = if use_cls { 1 } else { normals.patches() };
    let mut matches = PairwiseMatches::default();
    let room = matches.tokens_mut(n, m, rows, normals.dim);
    for (room, image) in room.chunks_exact_mut(rows * normals.dim).zip(images()) {
        room.copy_from_slice(rows_of(image, use_cls));
    }
    let mut found = Similarities::default();
    matches.forward(&mut found);
    let kind = if use_cls {
        TokenKind::Class
    } else {
        TokenKind::Patches
    };
    let of_defects = SupportSet::new(normals, kind, None)?
        .score_pairs(defects, 1, false)?
        .scores;
    let nn: Vec<f64> = (0..n * n)
        .filter(|i| i % (n + 1) != 0)
        .map(|i| found.nn[i])
        .collect();
    let left_out = nn
        .chunks_exact(n - 1)
        .map(|row| 1.0 - row.iter().copied().fold(f64::MIN, f64::max));
    let scores: Vec<f64> = left_out.chain(of_defects).collect();
    let labels: Vec<bool> = (0..scores.len()).map(|i| i >= n).collect();
    let stats = SimilarityStats::of(&found)?;
    let pairs: Vec<f64> = nn.iter().chain(&found.nd).copied().collect();
    let of_nn: Vec<bool> = (0..pairs.len()).map(|i| i < nn.len()).collect();
    Ok(SimilaritySpread {
        mu_nn: stats.mu_nn,
        sigma_nn: stats.sd_nn,
        mu_nd: stats.mu_nd,
        sigma_nd: stats.sd_nd,
        separability: stats.separability(),
        overlap: 1.0 - auroc(&of_nn, &pairs)?.unwrap_or(f64::NAN),
        auroc: auroc(&labels, &scores)?.unwrap_or(f64::NAN),
        nn,
        nd: found.nd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flawtune::features::ImageTokens;

    /// Images of one class token and one patch of width 2, at these angles.
    fn set(angles: &[f64]) -> TokenSet {
        let image = |a: &f64| {
            let (x, y) = (a.cos() as f32, a.sin() as f32);
            ImageTokens::owned(vec![x, y, x, y], 1, 2)
        };
        TokenSet {
            images: angles.iter().map(image).collect(),
            dim: 2,
            grid: (1, 1),
        }
    }

    #[test]
    fn similarities_of_angles_are_those_worked_out_by_hand() {
        // normals at 0 and 0.1, defects at 0.2 and 1.0: cos 0.1 twice among normals
        for use_cls in [false, true] {
            let got = spread(&set(&[0.0, 0.1]), &set(&[0.2, 1.0]), use_cls).unwrap();
            let nd = [0.2f64, 1.0, 0.1, 0.9].map(f64::cos);
            let mu = nd.iter().sum::<f64>() / 4.0;
            let sigma = (nd.iter().map(|v| (v - mu).powi(2)).sum::<f64>() / 3.0).sqrt();
            assert!((got.mu_nn - 0.1f64.cos()).abs() < 1e-6 && got.sigma_nn < 1e-6);
            assert!((got.mu_nd - mu).abs() < 1e-6 && (got.sigma_nd - sigma).abs() < 1e-6);
            assert!((got.separability - (0.1f64.cos() - mu) / sigma).abs() < 1e-4);
            assert_eq!((got.nn.len(), got.nd.len()), (2, 4));
        }
    }

    #[test]
    fn overlap_and_area_count_pairs() {
        // normal–normal distances .3 .3; normal–defect ones .2 .1 of the near defect, 1 .7 of the far one
        let got = spread(&set(&[0.0, 0.3]), &set(&[0.2, 1.0]), false).unwrap();
        // two of the four normal–defect similarities are above both normal–normal ones
        assert!((got.overlap - 0.5).abs() < 1e-12, "{}", got.overlap);
        // the near defect looks more normal than either normal, the far one less
        assert!((got.auroc - 0.5).abs() < 1e-12, "{}", got.auroc);
    }

    #[test]
    fn far_defects_leave_no_room_and_no_overlap() {
        let got = spread(&set(&[0.0, 0.01, 0.03]), &set(&[1.0, 1.2]), false).unwrap();
        assert_eq!((got.auroc, got.overlap), (1.0, 0.0));
        let one = spread(&set(&[0.0, 0.2]), &set(&[1.0]), false).unwrap();
        assert_eq!(one.nd.len(), 2);
    }
}
