//! Learning from good images, and from defects where there are some.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::kinds::{Kinds, direction};
use super::look::{BlockBanks, Look, unit_blocks};
use super::model::{Judged, LEAST_DEVIATION, ResidualHead, ResidualModel, Scale, Usual, logits};
use super::spacing::{Expected, Spacing};
use crate::features::ImageTokens;
use crate::random::draws::{generator, shuffle};
use crate::score::heads::{Fit, HeadError, LinearHead, LogisticOptions, Segment, fit_together};

/// First stream of the seed that patches are drawn with, one an image; the split has 0 and 1, the support 2.
const STREAM_PATCHES: u64 = 1 << 20;
/// Most parts of a cross-validation over good images and shots.
const MOST_FOLDS: usize = 5;

/// How a head is fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResidualOptions {
    /// L2 penalty; positive.
    pub penalty: f64,
    /// Steps of the solver, at most.
    pub steps: usize,
    /// Patches of each good image that a head is fitted to, drawn with the seed.
    pub good_patches: usize,
    /// Share of a shot's patches, the oddest, that count as defective where there is no mask.
    pub odd_share: f64,
    /// Share of a patch that a mask must cover for it to count as defective.
    pub covered: f32,
    /// Weight of the head; `None`: 0.3 with one shot, growing with the logarithm to 1 with ten.
    pub weight: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for ResidualOptions {
    fn default() -> Self {
        Self {
            penalty: 1e-3,
            steps: 60,
            good_patches: 120,
            odd_share: 0.03,
            covered: 0.3,
            weight: None,
            seed: 0,
        }
    }
}

impl ResidualOptions {
    /// What the head of so many shots counts beside the distance.
    pub fn weight_of(&self, shots: usize) -> f64 {
        const ONE_SHOT: f64 = 0.3;
        let evidence = (shots.max(1) as f64).log10().min(1.0);
        self.weight
            .unwrap_or(ONE_SHOT + (1.0 - ONE_SHOT) * evidence)
    }
}

/// A defect to learn from.
#[derive(Debug, Clone)]
pub struct Shot<'a> {
    /// Its tokens, `[patches, blocks · dim]`.
    pub image: &'a ImageTokens,
    /// The share of each patch that its mask covers; `None` without a mask.
    pub covered: Option<Vec<f32>>,
    /// Name of its type; empty where it has none.
    pub kind: &'a str,
}

/// What was learned, and what models that had not seen an image say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualFit {
    /// The model.
    pub model: ResidualModel,
    /// Of the good images, in their order, each without itself in the bank and in the head.
    pub good: Vec<Judged>,
    /// Of the shots, in their order, each by a head fitted to others; empty with fewer than two.
    pub shots: Vec<Judged>,
}

/// The patches of a shot that a head is fitted to, as rows of residuals.
struct Rows {
    positive: Vec<f32>,
    negative: Vec<f32>,
}

/// An image with what the banks say of it.
struct Seen<'a> {
    image: Good<'a>,
    look: &'a Look,
    distances: Vec<f32>,
}

/// A good image to learn from.
#[derive(Debug, Clone, Copy)]
pub enum Good<'a> {
    /// One of the banks' own, which is looked at without itself.
    Own(usize),
    /// Another one, tokens `[patches, blocks · dim]`.
    Other(&'a ImageTokens),
}

impl Good<'_> {
    /// Its place in the banks, where it is in there.
    fn own(self) -> Option<usize> {
        match self {
            Self::Own(part) => Some(part),
            Self::Other(_) => None,
        }
    }

    fn blocks(self, banks: &BlockBanks) -> Vec<Vec<f32>> {
        match self {
            Self::Own(part) => banks.own_blocks(part),
            Self::Other(image) => unit_blocks(image, banks.blocks(), banks.dim()),
        }
    }
}

/// What good images say of the banks.
#[derive(Debug, Clone, Default)]
pub struct LookedAt {
    /// Of each, without itself.
    pub looks: Vec<Look>,
    /// How far the patches of the banks lie from each other; empty where it is not known.
    pub spacings: Vec<Spacing>,
}

/// Looks at good images, and measures by those that are the banks' own how far their patches lie from each other. `on_share` hears
/// which share of the work is done.
pub fn look_at_good(
    banks: &BlockBanks,
    good: &[Good<'_>],
    on_share: &mut dyn FnMut(f64),
) -> LookedAt {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for image in good {
        match image {
            Good::Own(part) => own.push(*part),
            Good::Other(image) => others.push(*image),
        }
    }
    let (own, spacings) = banks.look_and_measure(&own, on_share);
    let mut own = own.into_iter();
    let mut others = banks.look(&others).into_iter();
    let one = |image: &Good<'_>| match image {
        Good::Own(_) => own.next(),
        Good::Other(_) => others.next(),
    };
    LookedAt {
        looks: good.iter().filter_map(one).collect(),
        spacings,
    }
}

/// Learns from good images and shots that were looked at, the good ones each without itself ([`look_at_good`]). `top` is the number of
/// patches whose mean is an image's score.
///
/// # Errors
/// [`HeadError::TooFew`] without good images or where no patch of the shots can be taken for defective, [`HeadError::NotFinite`].
pub fn learn_residual(
    banks: &BlockBanks,
    (good, looked_at): (&[Good<'_>], &LookedAt),
    (shots, of_shots): (&[Shot<'_>], &[Look]),
    top: usize,
    options: &ResidualOptions,
) -> Result<ResidualFit, HeadError> {
    if good.is_empty() {
        return Err(HeadError::TooFew {
            what: "good images",
            found: 0,
            wanted: 1,
        });
    }
    let LookedAt { looks, spacings } = looked_at;
    let expected = |block: usize| {
        let spacing = spacings.get(block);
        let known = good.iter().zip(looks).flat_map(move |(image, look)| {
            let own = image.own();
            let near = look.distances[block].iter().zip(&look.nearest[block]);
            near.map(move |(&d, &row)| (d, spacing.map_or(0.0, |s| s.of(row, own))))
        });
        Expected::of(known, LEAST_DEVIATION)
    };
    let expected: Vec<Expected> = (0..banks.blocks()).map(expected).collect();
    let known = !spacings.is_empty();
    let mut model = ResidualModel {
        distances: expected.iter().map(|e| e.excess).collect(),
        slopes: expected.iter().map(|e| e.slope).filter(|_| known).collect(),
        spacings: spacings.clone().into(),
        top,
        odd: Scale {
            mean: 0.0,
            deviation: 1.0,
        },
        head: None,
        usual: None,
        kinds: None,
    };
    let good = seen(&model, good.iter().copied().zip(looks));
    let odd: Vec<f64> = good.iter().map(|s| model.top_mean(&s.distances)).collect();
    model.odd = Scale::of(odd.iter().copied(), LEAST_DEVIATION);
    model.usual = Some(Usual::of(good.iter().map(|s| &s.distances[..])));
    if shots.is_empty() {
        let good = good.iter().map(|s| model.judge(&s.distances, None));
        return Ok(ResidualFit {
            good: good.collect(),
            model,
            shots: Vec::new(),
        });
    }
    let images = shots.iter().map(|shot| Good::Other(shot.image));
    let defects = seen(&model, images.zip(of_shots));
    with_head(banks, model, &good, &defects, shots, options)
}

fn seen<'a>(
    model: &ResidualModel,
    images: impl Iterator<Item = (Good<'a>, &'a Look)>,
) -> Vec<Seen<'a>> {
    let one = |(image, look)| Seen {
        image,
        look,
        distances: model.standardised(look, image.own()),
    };
    images.map(one).collect()
}

/// Fits the head, and heads that leave a part of the images out to judge that part.
fn with_head(
    banks: &BlockBanks,
    mut model: ResidualModel,
    good: &[Seen<'_>],
    defects: &[Seen<'_>],
    shots: &[Shot<'_>],
    options: &ResidualOptions,
) -> Result<ResidualFit, HeadError> {
    let good_rows: Vec<Vec<f32>> = good
        .par_iter()
        .enumerate()
        .map(|(i, seen)| rows_of_good(banks, seen, i, options))
        .collect();
    let masked = shots.iter().filter(|s| s.covered.is_some()).count();
    // what a mask marks and what looks odd are two opinions of where the flaw is; each alone fails somewhere
    let opinions: &[bool] = if masked > 0 { &[true, false] } else { &[false] };
    let shot_rows: Vec<Vec<Rows>> = opinions
        .iter()
        .map(|&by_mask| {
            defects
                .par_iter()
                .zip(shots)
                .map(|(seen, shot)| {
                    let covered = shot.covered.as_ref().filter(|_| by_mask);
                    rows_of_shot(banks, seen, covered, options)
                })
                .collect()
        })
        .collect();
    let positives = shot_rows.iter().flatten().map(|rows| rows.positive.len());
    let positives = positives.sum::<usize>() / banks.width();
    let folds = Folds::of(good.len(), defects.len());
    let heads = folds.heads(&good_rows, &shot_rows, banks.width(), options)?;
    let all = heads
        .into_iter()
        .map(|heads| Opinion::of(banks, heads, good, defects, folds))
        .collect();
    let joined = Opinion::joined(&model, all);
    let known = joined.good.iter().map(|logits| model.top_mean(logits));
    model.head = Some(ResidualHead {
        linear: joined.linear,
        weight: options.weight_of(shots.len()),
        scale: Scale::of(known, LEAST_DEVIATION),
        shots: shots.len(),
        masked_shots: masked,
        positives,
    });
    let flaws: Vec<(&str, Vec<f32>)> = defects
        .par_iter()
        .zip(shots)
        .map(|(seen, shot)| {
            // where the mask is, or else where it is odd
            let values = match &shot.covered {
                Some(covered) => seen
                    .distances
                    .iter()
                    .zip(covered)
                    .map(|(d, c)| if *c > 0.0 { *d } else { f32::NEG_INFINITY })
                    .collect(),
                None => seen.distances.clone(),
            };
            let rows = seen.image.blocks(banks);
            (
                shot.kind,
                direction(banks, &rows, seen.look, &values, model.top),
            )
        })
        .collect();
    model.kinds = Kinds::learn(&flaws);
    let judged = |seen: &[Seen<'_>], logits: &[Vec<f32>]| -> Vec<Judged> {
        seen.iter()
            .zip(logits)
            .map(|(seen, logits)| model.judge(&seen.distances, Some(logits)))
            .collect()
    };
    Ok(ResidualFit {
        good: judged(good, &joined.good),
        shots: judged(defects, &joined.shots),
        model,
    })
}

/// A head, and the log-odds of images by heads that were not fitted to them.
struct Opinion {
    linear: LinearHead,
    /// Of every good image.
    good: Vec<Vec<f32>>,
    /// Of every shot; empty with fewer than two.
    shots: Vec<Vec<f32>>,
}

/// How good images and shots are judged by heads that were not fitted to them: in turn, part by part.
#[derive(Debug, Clone, Copy)]
struct Folds {
    /// Parts.
    count: usize,
    /// Whether shots are left out too: one shot stays in all parts, for there is no other.
    crossed: bool,
}

impl Folds {
    fn of(good: usize, shots: usize) -> Self {
        // good images need two parts at least
        let count = MOST_FOLDS.min(shots.max(2)).min(good.max(1));
        Self {
            count,
            crossed: shots >= 2 && count >= 2,
        }
    }

    /// Of each opinion, whose rows of every shot are given, the head of all images and then those without one part each; the
    /// first alone where a single good image leaves nothing else to fit to.
    fn heads(
        self,
        good: &[Vec<f32>],
        opinions: &[Vec<Rows>],
        width: usize,
        options: &ResidualOptions,
    ) -> Result<Vec<Vec<LinearHead>>, HeadError> {
        // what only one opinion takes for defective or for sound, and the good images of all
        let mut collected = vec![Collected::of(good.iter(), width, |image| {
            Some(image % self.count)
        })];
        let part = |shot: usize| self.crossed.then_some(shot % self.count);
        for shots in opinions {
            let positive = shots.iter().map(|rows| &rows.positive);
            let negative = shots.iter().map(|rows| &rows.negative);
            collected.push(Collected::of(positive, width, part));
            collected.push(Collected::of(negative, width, part));
        }
        let segments: Vec<Segment<'_>> = collected.iter().map(Collected::segment).collect();
        let parts = if self.count < 2 { 0 } else { self.count };
        let mut fits = Vec::new();
        for opinion in 0..opinions.len() {
            let mut defective = vec![None; segments.len()];
            defective[0] = Some(false);
            defective[1 + 2 * opinion] = Some(true);
            defective[2 + 2 * opinion] = Some(false);
            fits.extend(
                [None]
                    .into_iter()
                    .chain((0..parts).map(Some))
                    .map(|without| Fit {
                        defective: defective.clone(),
                        without,
                    }),
            );
        }
        let solver = LogisticOptions {
            penalty: options.penalty,
            tolerance: 1e-6,
            max_steps: options.steps,
        };
        let found = fit_together(&segments, &fits, width, &solver)?;
        let heads: Vec<LinearHead> = found.into_iter().map(|solution| solution.head).collect();
        Ok(heads.chunks(1 + parts).map(<[_]>::to_vec).collect())
    }
}

/// Rows of several images, and the part of each row.
struct Collected {
    rows: Vec<f32>,
    parts: Vec<Option<usize>>,
}

impl Collected {
    fn of<'a>(
        images: impl Iterator<Item = &'a Vec<f32>>,
        width: usize,
        part: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let (mut all, mut parts) = (Vec::new(), Vec::new());
        for (image, rows) in images.enumerate() {
            all.extend_from_slice(rows);
            parts.resize(all.len() / width, part(image));
        }
        Self { rows: all, parts }
    }

    fn segment(&self) -> Segment<'_> {
        Segment {
            rows: &self.rows,
            parts: &self.parts,
        }
    }
}

impl Opinion {
    /// Judges every image by the head of the part that it was left out of. `heads` are that of all images, and one a part.
    fn of(
        banks: &BlockBanks,
        mut heads: Vec<LinearHead>,
        good: &[Seen<'_>],
        defects: &[Seen<'_>],
        folds: Folds,
    ) -> Self {
        let linear = heads.remove(0);
        let head_of = |image: usize| heads.get(image % folds.count).unwrap_or(&linear);
        let judge = |all: &[Seen<'_>]| -> Vec<Vec<f32>> {
            let one = |(i, seen): (usize, &Seen<'_>)| {
                logits(banks, head_of(i), &seen.image.blocks(banks), seen.look)
            };
            all.par_iter().enumerate().map(one).collect()
        };
        Self {
            good: judge(good),
            shots: if folds.crossed {
                judge(defects)
            } else {
                Vec::new()
            },
            linear,
        }
    }

    /// The mean of several, each in deviations of good images.
    fn joined(model: &ResidualModel, mut all: Vec<Self>) -> Self {
        if all.len() < 2 {
            return all.remove(0);
        }
        let share = 1.0 / all.len() as f64;
        let weights: Vec<f32> = all
            .iter()
            .map(|one| {
                let known = one.good.iter().map(|logits| model.top_mean(logits));
                (share / Scale::of(known, LEAST_DEVIATION).deviation) as f32
            })
            .collect();
        let sum = |of: &dyn Fn(&Self) -> Vec<f32>| -> Vec<f32> {
            let mut sum = Vec::new();
            for (one, weight) in all.iter().zip(&weights) {
                let values = of(one);
                sum.resize(values.len(), 0.0);
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            sum
        };
        Self {
            linear: LinearHead {
                weight: sum(&|one| one.linear.weight.clone()),
                bias: sum(&|one| vec![one.linear.bias])[0],
            },
            good: (0..all[0].good.len())
                .map(|i| sum(&|one| one.good[i].clone()))
                .collect(),
            shots: (0..all[0].shots.len())
                .map(|i| sum(&|one| one.shots[i].clone()))
                .collect(),
        }
    }
}

/// Some patches of a good image, drawn with the seed, as rows of residuals.
fn rows_of_good(
    banks: &BlockBanks,
    seen: &Seen<'_>,
    image: usize,
    options: &ResidualOptions,
) -> Vec<f32> {
    let mut order: Vec<usize> = (0..seen.distances.len()).collect();
    let stream = STREAM_PATCHES + image as u64;
    shuffle(&mut generator(options.seed, stream), &mut order);
    order.truncate(options.good_patches);
    residuals(banks, seen, &order)
}

/// The patches of a shot that are taken for defective, and those that certainly are not: the ones that its mask does not touch.
fn rows_of_shot(
    banks: &BlockBanks,
    seen: &Seen<'_>,
    covered: Option<&Vec<f32>>,
    options: &ResidualOptions,
) -> Rows {
    let patches = seen.distances.len();
    let Some(covered) = covered else {
        let mut order: Vec<usize> = (0..patches).collect();
        order.sort_by(|&a, &b| seen.distances[b].total_cmp(&seen.distances[a]));
        let count = (options.odd_share * patches as f64).ceil() as usize;
        order.truncate(count.clamp(1, patches));
        return Rows {
            positive: residuals(banks, seen, &order),
            negative: Vec::new(),
        };
    };
    // of a flaw thinner than that, the patches that it covers most
    let most = covered.iter().copied().fold(0.0f32, f32::max);
    let least = if most > options.covered {
        options.covered
    } else {
        most * 0.5
    };
    let under: Vec<usize> = (0..patches).filter(|&p| covered[p] > least).collect();
    let clear: Vec<usize> = (0..patches).filter(|&p| covered[p] == 0.0).collect();
    Rows {
        positive: residuals(banks, seen, &under),
        negative: residuals(banks, seen, &clear),
    }
}

fn residuals(banks: &BlockBanks, seen: &Seen<'_>, patches: &[usize]) -> Vec<f32> {
    let rows = seen.image.blocks(banks);
    let scale = ResidualModel::residual_scale(banks.blocks());
    let mut out = Vec::with_capacity(patches.len() * banks.width());
    for &patch in patches {
        banks.residual(&rows, seen.look, patch, scale, &mut out);
    }
    out
}

#[cfg(test)]
mod tests;
