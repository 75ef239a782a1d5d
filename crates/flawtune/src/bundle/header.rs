//! What a bundle says about itself, as JSON in the metadata of its file.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::bank::Precision;
use super::patches::PatchOptions;
use crate::evaluate::protocol::{ImageRef, SplitManifest};
use crate::image_size::ImageSize;
use crate::score::Aggregate;
use crate::score::threshold::{Calibration, Threshold};

/// How an image gets its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ScorerKind {
    /// `1 − mean of the k largest similarities` to support images; maps over the same images.
    ImagePair {
        /// Support images whose similarities are averaged.
        k: usize,
    },
    /// An aggregate of the distances of its patches to the nearest support patch.
    PatchBank {
        /// Which.
        aggregate: Aggregate,
    },
    /// The ensemble of heads; its maps are those of the patch bank.
    Ensemble,
    /// Distances of several blocks to whole banks, and a head on residuals where defects were learned from.
    Residual {
        /// How many blocks; a patch token holds them side by side.
        blocks: usize,
    },
}

impl ScorerKind {
    /// Blocks that are looked at apart.
    pub fn blocks(self) -> usize {
        match self {
            Self::Residual { blocks } => blocks.max(1),
            _ => 1,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ImagePair { .. } => "image-pair",
            Self::PatchBank { .. } => "patch-bank",
            Self::Ensemble => "ensemble",
            Self::Residual { .. } => "residual",
        }
    }
}

/// The bank in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BankInfo {
    /// Patches; where several blocks are looked at, in each.
    pub rows: usize,
    /// Element type.
    pub precision: Precision,
    /// Share of the support's patches that was kept, where a coreset was chosen.
    pub coreset: Option<f64>,
    /// Whether it holds every support image in eight directions.
    #[serde(default)]
    pub rotations: bool,
    /// Patches of each support image, in their order, where images are compared with images; empty otherwise.
    pub parts: Vec<usize>,
    /// The index it is searched by; none: every patch is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexInfo>,
}

/// What an approximate index is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexKind {
    /// Cells about centres, of which the nearest are searched.
    Cells,
}

/// An approximate index, and how well it finds the nearest patch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// What it is made of.
    pub kind: IndexKind,
    /// Cells.
    pub cells: usize,
    /// Cells that are searched for each patch; all of them: the search is exact.
    pub probes: usize,
    /// How well it finds.
    pub recall: Recall,
}

/// What an approximate search finds beside an exact one, for good images that it is not compared with. It never finds a
/// patch nearer than the nearest, so distances can only be too large.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Images that asked.
    pub images: usize,
    /// Their patches.
    pub patches: usize,
    /// Share of the patches whose nearest was found.
    pub at_1: f64,
    /// By what share patch distances are too large, on average over the patches; those that lie in the bank itself are left
    /// out.
    pub distance_error: f64,
    /// By what share the patch bank's image scores are too large, on average over the images.
    pub score_error: f64,
}

impl IndexInfo {
    /// In a sentence for people.
    pub fn text(&self) -> String {
        let r = &self.recall;
        let percent = |share: f64| format!("{:.3} %", 100.0 * share);
        format!(
            "{} of {} cells a patch; recall@1 {:.4} for {} patches of {} images; distances {} and scores {} too large on average",
            self.probes,
            self.cells,
            r.at_1,
            r.patches,
            r.images,
            percent(r.distance_error),
            percent(r.score_error)
        )
    }

    /// The key of a value that cannot be right, and what is wrong with it.
    fn wrong(&self, rows: usize) -> Option<(&'static str, String)> {
        let r = &self.recall;
        if self.cells == 0 || self.cells > rows {
            return Some((
                "bank.index.cells",
                format!("is {}, wanted 1 to {rows}", self.cells),
            ));
        }
        if self.probes == 0 || self.probes > self.cells {
            return Some((
                "bank.index.probes",
                format!("is {}, wanted 1 to {}", self.probes, self.cells),
            ));
        }
        let errors = [r.distance_error, r.score_error]
            .iter()
            .all(|e| e.is_finite() && *e >= 0.0);
        (!errors || !(0.0..=1.0).contains(&r.at_1))
            .then(|| ("bank.index.recall", format!("is {}, wanted shares", r.at_1)))
    }
}

/// A further image size in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeInfo {
    /// The size that images are resized to.
    pub image_size: ImageSize,
    /// Rows and columns of the patch grid.
    pub grid: (usize, usize),
    /// Patches of its bank, in each block.
    pub rows: usize,
}

/// What a search for image sizes found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// Good images that were judged, each without itself.
    pub good: usize,
    /// Shots that were judged, each by a head that had not seen it.
    pub shots: usize,
    /// Synthetic defects that were judged.
    pub synthetic: usize,
    /// The sizes that were chosen, the largest first.
    pub chosen: Vec<ImageSize>,
    /// What was compared, all sizes together first.
    pub candidates: Vec<Candidate>,
}

/// A set of image sizes that are looked at together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The sizes, the largest first.
    pub sizes: Vec<ImageSize>,
    /// AUROC of shots and synthetic defects against good images.
    pub auroc: f64,
    /// Its difference to that of all sizes together.
    pub gain: f64,
    /// Standard error of the difference (`DeLong`).
    pub error: f64,
}

/// How maps are drawn and where on them a flaw begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapScale {
    /// Width of the smoothing in pixels of the image.
    pub sigma: f64,
    /// Maps at or above it are part of a flaw: chosen from the highest points of good images' maps as the score's
    /// threshold from their scores.
    pub threshold: f32,
    /// The number at the low end of the colours: the median over good images of their maps' lowest number.
    pub low: f32,
    /// The number at the high end; the threshold is in the middle.
    pub high: f32,
    /// The highest points it was chosen from, ascending.
    pub good_peaks: Vec<f64>,
}

/// Where the adaptation came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Name of the file.
    pub file: String,
    /// blake3 of its bytes.
    pub hash: String,
    /// Whether its prompts, adapters or modulation change the tokens here.
    pub applied: bool,
}

/// Everything but the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program that wrote it.
    pub flawtune_version: String,
    /// Category.
    pub category: String,
    /// Backbone.
    pub model_name: String,
    /// Its options, as the workflow saved them; options that a later version adds travel in here.
    pub backbone: serde_json::Value,
    /// Hash of its weights.
    pub weights_hash: String,
    /// How images become pixels.
    pub preprocessing: String,
    /// Layers and whatever else decides the tokens.
    pub variant: String,
    /// Rows and columns of the patch grid.
    pub grid: (usize, usize),
    /// Image sizes that are looked at besides, smaller than that of `grid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_sizes: Vec<SizeInfo>,
    /// Numbers per token.
    pub dim: usize,
    /// The scorer.
    pub scorer: ScorerKind,
    /// Which patches are compared, and how each is made.
    #[serde(flatten)]
    pub patches: PatchOptions,
    /// The bank.
    pub bank: BankInfo,
    /// The threshold and what it was chosen from.
    pub threshold: Threshold,
    /// The threshold that the same rule gives without what defects taught, where they taught anything; none too in older files, and
    /// where another threshold was chosen later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untaught_threshold: Option<f64>,
    /// From score to probability.
    pub calibration: Calibration,
    /// Maps.
    pub map: MapScale,
    /// Where the adaptation came from.
    pub checkpoint: Option<CheckpointRef>,
    /// What a search for image sizes found, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchRecord>,
    /// The support images.
    pub support: Vec<ImageRef>,
    /// Everything learned from or chosen on, the support included.
    pub manifest: SplitManifest,
    /// Hash over the tensors' bytes.
    pub data_hash: String,
}

impl Header {
    /// Blocks of the backbone that are looked at, counted from 1; empty where the options do not say.
    pub fn blocks(&self) -> Vec<usize> {
        let layers = self.backbone.get("layers").and_then(|l| l.as_array());
        let from_one = |layer: &serde_json::Value| {
            let layer = layer.as_i64()?;
            usize::try_from(layer).ok().map(|layer| layer + 1)
        };
        layers.into_iter().flatten().filter_map(from_one).collect()
    }

    /// Sizes that are looked at, the largest first.
    pub fn sizes(&self) -> Vec<ImageSize> {
        let main = self.backbone.get("image_size");
        let main = main.and_then(|size| ImageSize::deserialize(size).ok());
        let more = self.more_sizes.iter().map(|s| s.image_size);
        main.into_iter().chain(more).collect()
    }

    /// The first value that cannot be right: its key, and what is wrong.
    #[expect(clippy::too_many_lines, reason = "a check for each field")]
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        let finite = |key, values: &[f64]| {
            let bad = values.iter().find(|v| !v.is_finite())?;
            Some((key, format!("is {bad}, wanted a finite number")))
        };
        let scorer = match self.scorer {
            ScorerKind::ImagePair { k } if k == 0 || k > self.support.len() => Some((
                "scorer.k",
                format!(
                    "is {k}, wanted 1 to the {} support images",
                    self.support.len()
                ),
            )),
            ScorerKind::PatchBank { aggregate } => aggregate
                .check()
                .err()
                .map(|e| ("scorer.aggregate", e.to_string())),
            ScorerKind::Residual { blocks } if blocks == 0 || !self.dim.is_multiple_of(blocks) => {
                let what = format!("is {blocks}, which does not divide tokens of {}", self.dim);
                Some(("scorer.blocks", what))
            }
            _ => None,
        };
        let size = |key, found: usize| {
            (found == 0 || found > 1 << 24).then(|| (key, format!("is {found}, wanted a size")))
        };
        let map = &self.map;
        scorer
            .or_else(|| self.patches.wrong())
            .or_else(|| finite("threshold.value", &[self.threshold.value]))
            .or_else(|| finite("untaught_threshold", self.untaught_threshold.as_slice()))
            .or_else(|| {
                finite(
                    "calibration",
                    &[self.calibration.slope, self.calibration.intercept],
                )
            })
            .or_else(|| {
                finite(
                    "map",
                    &[
                        map.sigma,
                        map.threshold.into(),
                        map.low.into(),
                        map.high.into(),
                    ],
                )
            })
            .or_else(|| {
                (!(0.0..=4096.0).contains(&map.sigma))
                    .then(|| ("map.sigma", format!("is {}", map.sigma)))
            })
            .or_else(|| size("grid", self.grid.0).or_else(|| size("grid", self.grid.1)))
            .or_else(|| size("dim", self.dim))
            .or_else(|| {
                let blocks = matches!(self.scorer, ScorerKind::Residual { .. });
                let right = |size: &SizeInfo| blocks && size.rows > 0;
                (!self.more_sizes.iter().all(right))
                    .then(|| ("more_sizes", "has a size without a bank".to_owned()))
            })
            .or_else(|| {
                let more = self
                    .more_sizes
                    .iter()
                    .flat_map(|s| [s.grid.0, s.grid.1, s.image_size.height, s.image_size.width]);
                more.into_iter().find_map(|n| size("more_sizes", n))
            })
            .or_else(|| {
                (self.support.is_empty() || self.bank.rows == 0)
                    .then(|| ("support", "names no image, wanted at least one".to_owned()))
            })
            .or_else(|| {
                let images = matches!(self.scorer, ScorerKind::ImagePair { .. });
                let parts = &self.bank.parts;
                let sum = parts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
                let fits = !parts.contains(&0)
                    && parts.len() == self.support.len()
                    && sum == Some(self.bank.rows);
                let right = if images { fits } else { parts.is_empty() };
                (!right).then(|| {
                    (
                        "bank.parts",
                        format!("does not share {} patches among the images", self.bank.rows),
                    )
                })
            })
            .or_else(|| {
                let index = self.bank.index.as_ref()?;
                if matches!(self.scorer, ScorerKind::Residual { .. }) {
                    return Some((
                        "bank.index",
                        "is there, but whole banks are searched".into(),
                    ));
                }
                if matches!(self.scorer, ScorerKind::ImagePair { .. }) {
                    return Some((
                        "bank.index",
                        "is there, but images are compared with images".to_owned(),
                    ));
                }
                index.wrong(self.bank.rows)
            })
            .or_else(|| {
                let known: HashSet<(&str, &str)> = self
                    .manifest
                    .images()
                    .map(|i| (i.id.as_str(), i.content.as_str()))
                    .collect();
                let unknown = self
                    .support
                    .iter()
                    .find(|i| !known.contains(&(&*i.id, &*i.content)))?;
                Some((
                    "support",
                    format!("names {}, which its manifest does not", unknown.id),
                ))
            })
            .or_else(|| {
                (self.manifest.hash != self.manifest.computed_hash()).then(|| {
                    (
                        "manifest",
                        "was changed after fitting; what it was fitted to cannot be told any more"
                            .to_owned(),
                    )
                })
            })
    }
}
