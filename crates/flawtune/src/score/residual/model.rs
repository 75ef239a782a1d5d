//! What is learned beside the banks, and the scores that follow.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::kinds::{Kinds, direction};
use super::look::{BlockBanks, Look, unit_blocks};
use super::spacing::Spacing;
use crate::bundle::BundleError;
use crate::features::{ImageTokens, TokenSet};
use crate::score::heads::{HeadError, LinearHead};
use crate::score::{Finding, Scorer, Untaught, mean_of_largest};

/// Centre and spread of a number over good images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean.
    pub mean: f64,
    /// Standard deviation; positive.
    pub deviation: f64,
}

impl Scale {
    /// Of some numbers. Numbers that are all alike have a spread of `least`.
    pub fn of(values: impl Iterator<Item = f64> + Clone, least: f64) -> Self {
        let (count, sum) = values
            .clone()
            .fold((0usize, 0.0), |(n, sum), v| (n + 1, sum + v));
        let count = count.max(1) as f64;
        let mean = sum / count;
        let square: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
        Self {
            mean,
            deviation: (square / count).sqrt().max(least),
        }
    }

    /// How many deviations `value` lies above the mean.
    pub fn z(&self, value: f64) -> f64 {
        (value - self.mean) / self.deviation
    }

    fn is_usable(&self) -> bool {
        self.mean.is_finite() && self.deviation.is_finite() && self.deviation > 0.0
    }
}

/// Numbers that are all alike still have this spread.
pub(super) const LEAST_DEVIATION: f64 = 1e-6;
/// A patch lowers the map by no more than so many deviations, however sure the head is that it is good: an unknown kind of flaw
/// is not a known one.
const MOST_LOWERED: f64 = 1.0;
/// Deviations that maps tell apart.
const SPAN: (f32, f32) = (-16.0, 48.0);

/// A head on residuals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResidualHead {
    /// Log-odds of a patch, from its residual as [`ResidualModel::residual_scale`] has it.
    pub linear: LinearHead,
    /// How much it counts beside the distance.
    pub weight: f64,
    /// The mean of the largest log-odds of an image, over good images that the head was not fitted to.
    pub scale: Scale,
    /// Defects it was fitted to.
    pub shots: usize,
    /// Those of them with a mask.
    pub masked_shots: usize,
    /// Patches that were taken for defective.
    pub positives: usize,
}

/// Everything but the banks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResidualModel {
    /// Distance of a patch, over good images, in each block; where spacings are known, of what it exceeds the expected one by.
    pub distances: Vec<Scale>,
    /// Distance that is expected for each unit of the spacing, in each block; none where spacings are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slopes: Vec<f64>,
    /// How far the patches of the bank lie from each other, in each block; a file holds it beside the bank.
    #[serde(skip)]
    pub spacings: Arc<[Spacing]>,
    /// Patches whose mean is an image's score.
    pub top: usize,
    /// The mean of the largest distances of an image, over good images.
    pub odd: Scale,
    /// What was learned from defects; none without any.
    pub head: Option<ResidualHead>,
    /// How far good images as a whole lie from the others; files of before know nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<Usual>,
    /// Types of flaws that can be named; none without shots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Kinds>,
}

/// How far the patches of an image usually lie from those of other good images: the median over its patches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Over good images.
    pub scale: Scale,
    /// What an image does not reach that looks like them.
    pub most: f64,
}

/// Deviations above the mean, at least, from which an image as a whole does not look like good ones.
const UNLIKE: f64 = 4.0;

impl Usual {
    /// Of good images, each without itself: what none of them reaches.
    pub(super) fn of<'a>(good: impl Iterator<Item = &'a [f32]>) -> Self {
        let medians: Vec<f64> = good.map(median).collect();
        let scale = Scale::of(medians.iter().copied(), LEAST_DEVIATION);
        let largest = medians.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = scale.deviation;
        Self {
            scale,
            most: (scale.mean + UNLIKE * margin).max(largest + margin),
        }
    }

    /// 0 for a usual image, 1 and more for one that does not look like good images.
    fn drift(&self, distances: &[f32]) -> f64 {
        (median(distances) - self.scale.mean) / (self.most - self.scale.mean)
    }
}

/// The middle of some numbers; the lower of two.
fn median(values: &[f32]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2);
    middle.map_or(0.0, |m| f64::from(*m))
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Score; larger is more anomalous. In deviations of good images' distance.
    pub score: f64,
    /// The part of it that knows no defect.
    pub untaught: f64,
    /// The joined score of every patch, row-major over the grid.
    pub map: Vec<f32>,
    /// The part of the map that knows no defect.
    pub untaught_map: Vec<f32>,
    /// How unlike good images it is as a whole: 0 as they are, from 1 on unlike them.
    pub drift: f64,
    /// Type of its flaw, if it has one, where types can be named.
    pub kind: Option<String>,
}

impl ResidualModel {
    /// What residuals are multiplied by, so that a penalty means the same for any number of blocks.
    pub fn residual_scale(blocks: usize) -> f32 {
        20.0 / (blocks as f32 / 2.0).sqrt()
    }

    /// What is wrong with a stored model for banks of so many blocks of `dim` numbers; none if it can be used.
    pub fn wrong(&self, blocks: usize, dim: usize) -> Option<String> {
        let scales = self.distances.iter().chain([&self.odd]);
        let scales = scales.chain(self.head.as_ref().map(|h| &h.scale));
        if self.distances.len() != blocks {
            return Some(format!("{} blocks, wanted {blocks}", self.distances.len()));
        }
        if self.top == 0 {
            return Some("top is 0".into());
        }
        let slopes = self.slopes.iter().all(|s| (0.0..=1.0).contains(s));
        if !slopes || ![0, blocks].contains(&self.slopes.len()) {
            return Some("slopes that are not of its blocks or not between 0 and 1".into());
        }
        if !scales.into_iter().all(Scale::is_usable) {
            return Some("a scale is not finite or not positive".into());
        }
        let head = self.head.as_ref()?;
        if head.linear.weight.len() != blocks * dim {
            let found = head.linear.weight.len();
            return Some(format!(
                "a head of {found} numbers, wanted {}",
                blocks * dim
            ));
        }
        if self
            .kinds
            .as_ref()
            .is_some_and(|k| !k.is_usable(blocks * dim))
        {
            return Some("types of flaws that do not fit".into());
        }
        let finite = head.linear.weight.iter().all(|w| w.is_finite());
        (!finite || !head.linear.bias.is_finite() || !head.weight.is_finite())
            .then(|| "a head with numbers that are not finite".into())
    }

    /// The mean of an image's largest numbers, of which its score is made.
    pub(super) fn top_mean(&self, values: &[f32]) -> f64 {
        mean_of_largest(values, self.top.min(values.len()))
    }

    /// Distances of the patches of an image, standardised in each block and averaged over them. `own` is the image's place in the
    /// bank, where it is in there.
    pub fn standardised(&self, look: &Look, own: Option<usize>) -> Vec<f32> {
        let patches = look.distances.first().map_or(0, Vec::len);
        let share = 1.0 / self.distances.len() as f64;
        (0..patches)
            .map(|patch| {
                let blocks = self.distances.iter().zip(&look.distances).enumerate();
                let of = |(block, (scale, d)): (usize, (&Scale, &Vec<f32>))| {
                    let expected = match (self.slopes.get(block), self.spacings.get(block)) {
                        (Some(slope), Some(spacing)) => {
                            slope * f64::from(spacing.of(look.nearest[block][patch], own))
                        }
                        _ => 0.0,
                    };
                    scale.z(f64::from(d[patch]) - expected)
                };
                (share * blocks.map(of).sum::<f64>()) as f32
            })
            .collect()
    }

    /// Joins distances and log-odds (of every patch; none without a head) to what is known of an image.
    pub fn judge(&self, distances: &[f32], logits: Option<&[f32]>) -> Judged {
        let untaught = self.odd.z(self.top_mean(distances));
        let untaught_map: Vec<f32> = distances
            .iter()
            .map(|d| self.odd.z(f64::from(*d)) as f32)
            .collect();
        let mut judged = Judged {
            score: untaught,
            untaught,
            map: untaught_map.clone(),
            untaught_map,
            drift: self.usual.map_or(0.0, |usual| usual.drift(distances)),
            kind: None,
        };
        if let (Some(head), Some(logits)) = (&self.head, logits) {
            judged.score += head.weight * head.scale.z(self.top_mean(logits));
            for (joined, logit) in judged.map.iter_mut().zip(logits) {
                let known = head.scale.z(f64::from(*logit)).max(-MOST_LOWERED);
                *joined += (head.weight * known) as f32;
            }
        }
        judged
    }
}

/// Log-odds of every patch of an image, whose [`unit_blocks`] are `rows`, by a head.
pub(super) fn logits(
    banks: &BlockBanks,
    head: &LinearHead,
    rows: &[Vec<f32>],
    look: &Look,
) -> Vec<f32> {
    let scale = ResidualModel::residual_scale(banks.blocks());
    let patches = look.nearest.first().map_or(0, Vec::len);
    let mut residual = Vec::with_capacity(banks.width());
    (0..patches)
        .map(|patch| {
            residual.clear();
            banks.residual(rows, look, patch, scale, &mut residual);
            head.logit(&residual)
        })
        .collect()
}

/// Scores images by their distances and residuals.
#[derive(Debug)]
pub struct ResidualScorer {
    banks: BlockBanks,
    model: ResidualModel,
    grid: (usize, usize),
}

impl ResidualScorer {
    /// Puts banks and model together, for images of a `grid` (rows, columns) of patches.
    pub fn new(banks: BlockBanks, model: ResidualModel, grid: (usize, usize)) -> Self {
        Self { banks, model, grid }
    }

    /// Everything but the banks.
    pub fn model(&self) -> &ResidualModel {
        &self.model
    }

    /// What is known of images, tokens `[patches, blocks · dim]`. It depends on neither the other images nor the threads.
    pub fn judge(&self, images: &[&ImageTokens]) -> Vec<Judged> {
        let looks = self.banks.look(images);
        let one = |(image, look): (&&ImageTokens, &Look)| {
            self.model.judge_looked(&self.banks, image, look)
        };
        images.par_iter().zip(&looks).map(one).collect()
    }
}

impl ResidualModel {
    /// What is known of an image that was looked at before.
    pub fn judge_looked(&self, banks: &BlockBanks, image: &ImageTokens, look: &Look) -> Judged {
        let rows = unit_blocks(image, banks.blocks(), banks.dim());
        let mut judged = self.judge_rows(banks, &rows, look, None);
        judged.kind = self.kinds.as_ref().map(|kinds| {
            let direction = direction(banks, &rows, look, &judged.map, self.top);
            kinds.name(&direction).to_owned()
        });
        judged
    }

    /// What is known of changed images of the banks, each compared with all images but the one that it was; no type is named.
    pub fn judge_changed(
        &self,
        banks: &BlockBanks,
        images: &[(&ImageTokens, usize)],
    ) -> Vec<Judged> {
        let looks = banks.look_changed(images);
        let one = |((image, own), look): (&(&ImageTokens, usize), &Look)| {
            let rows = unit_blocks(image, banks.blocks(), banks.dim());
            self.judge_rows(banks, &rows, look, Some(*own))
        };
        images.par_iter().zip(&looks).map(one).collect()
    }

    /// What is known of an image, whose [`unit_blocks`] are `rows`; `own` is its place in the banks, where it is in there.
    fn judge_rows(
        &self,
        banks: &BlockBanks,
        rows: &[Vec<f32>],
        look: &Look,
        own: Option<usize>,
    ) -> Judged {
        let head = self.head.as_ref();
        let logits = head.map(|head| logits(banks, &head.linear, rows, look));
        self.judge(&self.standardised(look, own), logits.as_deref())
    }

    /// A judgement as every scorer gives it.
    pub fn finding(&self, judged: Judged) -> Finding {
        Finding {
            score: judged.score,
            distances: judged.map,
            drift: judged.drift,
            kind: judged.kind,
            untaught: self.head.as_ref().map(|_| Untaught {
                score: judged.untaught,
                distances: judged.untaught_map,
            }),
        }
    }
}

impl ResidualScorer {
    /// The images of tokens of the right shape.
    fn fitting<'a>(&self, tokens: &'a TokenSet) -> Result<Vec<&'a ImageTokens>, BundleError> {
        let found = (tokens.grid.0, tokens.grid.1, tokens.dim);
        let wanted = (self.grid.0, self.grid.1, self.banks.width());
        if found != wanted {
            return Err(BundleError::Tokens { found, wanted });
        }
        Ok(tokens.images.iter().collect())
    }
}

impl Scorer for ResidualScorer {
    fn score(&self, tokens: &TokenSet) -> Result<Vec<Finding>, BundleError> {
        let images = self.fitting(tokens)?;
        let judged = self.judge(&images);
        if judged.iter().any(|j| !j.score.is_finite()) {
            return Err(HeadError::NotFinite.into());
        }
        Ok(judged.into_iter().map(|j| self.model.finding(j)).collect())
    }

    fn nearest(&self, tokens: &TokenSet, patch: usize) -> Result<Option<usize>, BundleError> {
        let images = self.fitting(tokens)?;
        let looks = self.banks.look(&images[..images.len().min(1)]);
        // the block in the middle: neither texture alone nor meaning alone
        let nearest = looks.first().and_then(|look| {
            let block = look.nearest.get(look.nearest.len() / 2)?;
            block.get(patch).copied()
        });
        Ok(nearest
            .filter(|row| *row != u32::MAX)
            .map(|row| row as usize))
    }

    fn span(&self) -> (f32, f32) {
        SPAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(head: bool) -> ResidualModel {
        let scale = |mean, deviation| Scale { mean, deviation };
        ResidualModel {
            distances: vec![scale(0.25, 0.5), scale(1.0, 0.25)],
            slopes: Vec::new(),
            spacings: Arc::default(),
            top: 2,
            odd: scale(1.0, 2.0),
            usual: None,
            kinds: None,
            head: head.then(|| ResidualHead {
                linear: LinearHead {
                    weight: vec![0.0; 4],
                    bias: 0.0,
                },
                weight: 0.5,
                scale: scale(-1.0, 2.0),
                shots: 3,
                masked_shots: 0,
                positives: 9,
            }),
        }
    }

    #[test]
    fn distances_are_standardised_in_their_block_and_averaged() {
        let look = Look {
            distances: vec![vec![0.25, 1.25, 0.75], vec![1.0, 1.5, 0.5]],
            nearest: vec![vec![0; 3]; 2],
        };
        assert_eq!(model(false).standardised(&look, None), [0.0, 2.0, -0.5]);
    }

    #[test]
    fn a_distance_is_held_against_the_spacing_of_its_neighbour() {
        let look = Look {
            distances: vec![vec![0.5, 0.5]; 2],
            nearest: vec![vec![0, 1]; 2],
        };
        let spacing = Spacing {
            nearest: vec![0.0, 0.5],
            image: vec![1, 2],
            second: vec![0.25, 1.0],
        };
        let mut model = model(false);
        model.distances = vec![model.distances[0]; 2];
        model.slopes = vec![1.0, 0.0];
        model.spacings = vec![spacing; 2].into();
        // of the first block (0.5, 0) and of the second (0.5, 0.5), less 0.25, in halves
        assert_eq!(model.standardised(&look, None), [0.5, 0.0]);
        // an image of the bank is not held against itself
        assert_eq!(model.standardised(&look, Some(2)), [0.5, -0.5]);
        assert_eq!(model.wrong(2, 2), None);
        model.slopes = vec![0.5];
        assert!(model.wrong(2, 2).unwrap().contains("slopes"));
        model.slopes = vec![0.5, -1.0];
        assert!(model.wrong(2, 2).unwrap().contains("slopes"));
    }

    #[test]
    fn a_score_joins_the_oddest_and_the_likest_to_a_defect() {
        let distances = [0.0, 3.0, 5.0, 1.0];
        let without = model(false).judge(&distances, None);
        // the two largest are 3 and 5, their mean 4 is 1.5 deviations above 1
        assert_eq!((without.score, without.untaught), (1.5, 1.5));
        assert_eq!(without.map, [-0.5, 1.0, 2.0, 0.0]);
        let with = model(true).judge(&distances, Some(&[-9.0, -3.0, 1.0, 5.0]));
        // the two largest log-odds are 5 and 1, their mean 3 is 2 deviations above −1
        assert_eq!((with.score, with.untaught), (2.5, 1.5));
        // −9 and −3 would lower by 4 and 1 deviations: 1 is the most
        assert_eq!(with.map, [-1.0, 0.5, 2.5, 1.5]);
        assert_eq!(with.untaught_map, without.map);
    }

    #[test]
    fn a_model_that_does_not_fit_is_named() {
        assert_eq!(model(true).wrong(2, 2), None);
        assert!(model(true).wrong(2, 3).unwrap().contains("4 numbers"));
        assert!(model(true).wrong(3, 2).unwrap().contains("blocks"));
        let mut spoilt = model(true);
        spoilt.odd.deviation = 0.0;
        assert!(spoilt.wrong(2, 2).is_some());
        let mut spoilt = model(true);
        spoilt.head.as_mut().unwrap().linear.weight[1] = f32::NAN;
        assert!(spoilt.wrong(2, 2).unwrap().contains("finite"));
    }
}
