//! The default way to use a handful of defects: the distance from normal, raised where an image departs from normal
//! as known defects do.
//!
//! ```text
//! zero-shot  s₀ = z(z(distance) + z(bank))          (without a bank z(distance))
//! adapted    s  = s₀ + ½ M / (M + 2) · mean over four opinions of max(0, z(opinion))
//! ```
//!
//! `distance` is that of class token and mean patch from normal (see [`Normality`]), `bank` the mean of the largest
//! patch distances to the normal images (see [`PatchBank`](super::PatchBank)): one sees what the image looks like as a
//! whole, the other its worst spots. The opinions, after M defect images: the cosine to the nearest known defect, the
//! mean of the three largest such cosines, the projection on the defects' mean direction (all three under the normal
//! images' own correlation), and the logit of an [`ImageHead`]. z standardises on normal images scored by models that have not
//! seen them, so nothing is in-sample.
//!
//! Why so: an opinion may raise a score but never lower it, since a flaw unlike the known ones is still a flaw; four
//! opinions, because one direction misjudges mixed types and single neighbours misjudge noise; the weight grows
//! with M, because one defect says little. `docs/evidence/results.md` has the numbers, and those of what was tried instead.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::HeadError;
use super::image_head::{ImageHead, image_features};
use super::logistic::LogisticOptions;
use super::normality::{Departure, Normality};
use crate::features::ImageTokens;
use crate::random::{Purpose, Stream};
use crate::score::Aggregate;

/// Normal images an ensemble needs: each of two parts must leave two to learn from.
pub const NORMALS_NEEDED: usize = 4;
/// Opinions on how much an image looks like the known defects.
const OPINIONS: usize = 4;
/// Cosines averaged by the second opinion.
const SEVERAL: usize = 3;

/// How the ensemble is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnsembleOptions {
    /// Shrinkage of the normal images' correlation, in (0, 1).
    pub shrinkage: f64,
    /// Penalty of the image head.
    pub penalty: f64,
    /// Weight of the opinions with very many shots.
    pub full_weight: f64,
    /// Shots at which the opinions have half their full weight.
    pub half_weight_shots: f64,
    /// Parts of the cross-validation.
    pub folds: usize,
    /// Fall back to zero-shot when cross-validation on the shots shows a loss.
    pub guard: bool,
    /// Seed of the folds.
    pub seed: u64,
}

impl Default for EnsembleOptions {
    /// Shrinkage 0.05, penalty 1, weight ½ with half of it at 2 shots, 5 folds, with guard, seed 0.
    fn default() -> Self {
        Self {
            shrinkage: 0.05,
            penalty: 1.0,
            full_weight: 0.5,
            half_weight_shots: 2.0,
            folds: 5,
            guard: true,
            seed: 0,
        }
    }
}

/// Share of an image's largest patch distances that measured best: the top 1 %.
pub const BANK_SHARE: f64 = 0.01;

/// What the ensemble knows of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// `[class token ‖ mean patch token]`, see [`image_features`].
    pub features: Vec<f32>,
    /// Mean of the largest patch distances to the normal images, the image itself left out; `None` to do without.
    pub bank: Option<f64>,
}

impl Evidence {
    /// Evidence without patch distances: seconds instead of minutes, and blind to small flaws.
    pub fn of_images(images: &[ImageTokens]) -> Vec<Self> {
        images
            .par_iter()
            .map(|i| Self {
                features: image_features(i),
                bank: None,
            })
            .collect()
    }

    /// Evidence with the distances of each image's patches (`distances[i]` as [`PatchBank`](super::PatchBank) gives
    /// them); `share` of them, the largest, are averaged
    /// ([`BANK_SHARE`] measured best).
    ///
    /// # Errors
    /// [`HeadError::TooFew`] if there are not as many lists as images.
    pub fn with_distances(
        images: &[ImageTokens],
        distances: &[Vec<f32>],
        share: f64,
    ) -> Result<Vec<Self>, HeadError> {
        if images.len() != distances.len() {
            return Err(HeadError::TooFew {
                what: "lists of patch distances",
                found: distances.len(),
                wanted: images.len(),
            });
        }
        let one = |(image, distances): (&ImageTokens, &Vec<f32>)| Self {
            features: image_features(image),
            bank: Some(Aggregate::TopFraction(share).score(distances)),
        };
        Ok(images.par_iter().zip(distances).map(one).collect())
    }
}

/// What cross-validation over the shots said about adapting. Neither side has seen a test image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// AUROC of the left-out shots against left-out normals, zero-shot; `None` below two shots.
    pub zero_shot: Option<f64>,
    /// The same, adapted.
    pub adapted: Option<f64>,
    /// Standard error of their difference, from its scatter over the shots.
    pub standard_error: Option<f64>,
    /// Whether scores fall back to zero-shot: the loss is larger than its standard error. A smaller one cannot be told
    /// from chance with so few shots, and falling back on it would throw away most of the gain.
    pub fallback: bool,
}

impl Guard {
    /// What a fallback means, for people.
    pub fn fallback_text(&self) -> String {
        let number =
            |v: Option<f64>| v.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.3}"));
        format!(
            "guard: cross-validated over the shots the ensemble ranks them worse with the defects ({}) than without ({}), \
             so its scores are the zero-shot ones; `no_guard` switches this off",
            number(self.adapted),
            number(self.zero_shot)
        )
    }
}

/// Centre and spread of a score on normal images that its model has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Scale {
    mean: f64,
    spread: f64,
}

impl Scale {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let spread = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        Self { mean, spread }
    }

    fn z(self, value: f64) -> f64 {
        if self.spread > 0.0 {
            (value - self.mean) / self.spread
        } else {
            0.0
        }
    }
}

/// The two scores of an image; larger is more anomalous. Both are in standard deviations of unseen normal images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnsembleScore {
    /// Without the defects.
    pub zero_shot: f64,
    /// With them; equal to zero-shot without shots or after a fallback.
    pub adapted: f64,
}

/// Model of the normal images and of the shots' departures from them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Member {
    normality: Normality,
    defects: Vec<Departure>,
    head: Option<ImageHead>,
}

/// Distance, bank score and opinions of one image, not standardised.
#[derive(Debug, Clone, Copy, Default)]
struct Raw {
    distance: f64,
    bank: f64,
    opinions: [f64; OPINIONS],
}

impl Member {
    fn fit(
        normal: &[&[f32]],
        shots: &[&[f32]],
        options: &EnsembleOptions,
    ) -> Result<Self, HeadError> {
        let normality = Normality::fit(normal, options.shrinkage)?;
        let defects = shots.iter().map(|s| normality.departure(s)).collect();
        let head = if shots.is_empty() {
            None
        } else {
            Some(ImageHead::fit(
                shots,
                normal,
                &LogisticOptions::with_penalty(options.penalty),
            )?)
        };
        Ok(Self {
            normality,
            defects,
            head,
        })
    }

    fn raw(&self, evidence: &Evidence) -> Raw {
        let departure = self.normality.departure(&evidence.features);
        let mut raw = Raw {
            distance: departure.distance,
            bank: evidence.bank.unwrap_or(0.0),
            opinions: [0.0; OPINIONS],
        };
        let Some(head) = &self.head else { return raw };
        let mut cosines: Vec<f64> = self
            .defects
            .iter()
            .map(|d| self.normality.cosine(&departure, d))
            .collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        cosines.sort_by(|a, b| b.total_cmp(a));
        let several = &cosines[..SEVERAL.min(cosines.len())];
        raw.opinions = [
            cosines[0],
            several.iter().sum::<f64>() / several.len() as f64,
            mean * departure.distance,
            head.score(&evidence.features),
        ];
        raw
    }
}

/// The default scorer; see the module's text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ensemble {
    member: Member,
    distance: Scale,
    /// `None`: fitted without patch distances.
    bank: Option<Scale>,
    base: Scale,
    opinions: [Scale; OPINIONS],
    weight: f64,
    /// What the guard found.
    pub guard: Guard,
    /// Scores of the normal images by models that have not seen them, adapted (or zero-shot after a fallback): what
    /// thresholds are chosen on.
    pub held_out_normals: Vec<f64>,
    /// The same for the shots; empty below two shots.
    pub held_out_shots: Vec<f64>,
    /// Zero-shot scores of the normal images by models that have not seen them; not kept in files.
    #[serde(skip)]
    pub held_out_zero_shot: Vec<f64>,
}

impl Ensemble {
    /// Learns from normal images and M ≥ 0 defect images of one backbone and resolution.
    ///
    /// Patch distances are used when all images have them.
    ///
    /// # Errors
    /// [`HeadError::TooFew`] with fewer than four normal images, [`HeadError::Width`] for tokens of different widths,
    /// [`HeadError::Option`] for options out of range, [`HeadError::NotFinite`].
    pub fn fit(
        normal: &[Evidence],
        shots: &[Evidence],
        options: &EnsembleOptions,
    ) -> Result<Self, HeadError> {
        const WANTED: usize = 4;
        if normal.len() < WANTED {
            return Err(HeadError::TooFew {
                what: "normal images",
                found: normal.len(),
                wanted: WANTED,
            });
        }
        let wanted = normal[0].features.len();
        if let Some(other) = normal
            .iter()
            .chain(shots)
            .find(|e| e.features.len() != wanted)
        {
            return Err(HeadError::Width {
                found: other.features.len() / 2,
                wanted: wanted / 2,
            });
        }
        if options.folds < 2 {
            return Err(HeadError::Option {
                option: "folds",
                found: options.folds.to_string(),
                wanted: "at least 2 are needed",
            });
        }
        for (option, value) in [
            ("full weight", options.full_weight),
            ("half-weight shots", options.half_weight_shots),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(HeadError::Option {
                    option,
                    found: value.to_string(),
                    wanted: "a number that is not negative is needed",
                });
            }
        }
        // each fold must leave two normals to learn from
        let folds = options.folds.min(normal.len() / 2);
        let mut order: Vec<usize> = (0..normal.len()).collect();
        Stream::new(options.seed, Purpose::Folds).shuffle(&mut order);
        let mut fold_of = vec![0; normal.len()];
        for (place, image) in order.into_iter().enumerate() {
            fold_of[image] = place % folds;
        }
        // a single shot cannot be left out: there would be nothing to learn from
        let leaves_shots = shots.len() >= 2;
        let left = |fold: usize, shot: usize| leaves_shots && shot % folds == fold;

        let mut raw_normals = vec![Raw::default(); normal.len()];
        let mut raw_shots = vec![Raw::default(); if leaves_shots { shots.len() } else { 0 }];
        for fold in 0..folds {
            let out_of_fold = |i: usize| fold_of[i] != fold;
            let member = Member::fit(
                &features(normal, out_of_fold),
                &features(shots, |i| !left(fold, i)),
                options,
            )?;
            for i in (0..normal.len()).filter(|i| !out_of_fold(*i)) {
                raw_normals[i] = member.raw(&normal[i]);
            }
            for i in (0..shots.len()).filter(|i| left(fold, *i)) {
                raw_shots[i] = member.raw(&shots[i]);
            }
        }
        let scale =
            |of: &dyn Fn(&Raw) -> f64| Scale::of(&raw_normals.iter().map(of).collect::<Vec<_>>());
        let distance = scale(&|r| r.distance);
        let has_bank = normal.iter().chain(shots).all(|e| e.bank.is_some());
        let bank = has_bank.then(|| scale(&|r| r.bank));
        let base = scale(&|r| distance.z(r.distance) + bank.map_or(0.0, |b| b.z(r.bank)));
        let count = shots.len() as f64;
        let mut ensemble = Self {
            member: Member::fit(
                &features(normal, |_| true),
                &features(shots, |_| true),
                options,
            )?,
            distance,
            bank,
            base,
            opinions: std::array::from_fn(|k| scale(&|r| r.opinions[k])),
            weight: if shots.is_empty() {
                0.0
            } else {
                options.full_weight * count / (count + options.half_weight_shots)
            },
            guard: Guard {
                zero_shot: None,
                adapted: None,
                standard_error: None,
                fallback: false,
            },
            held_out_normals: Vec::new(),
            held_out_zero_shot: Vec::new(),
            held_out_shots: Vec::new(),
        };
        ensemble.decide(&raw_normals, &raw_shots, options.guard);
        Ok(ensemble)
    }

    fn decide(&mut self, normals: &[Raw], shots: &[Raw], guard: bool) {
        let combine = |raw: &[Raw]| raw.iter().map(|r| self.combine(r)).collect::<Vec<_>>();
        let (normals, shots) = (combine(normals), combine(shots));
        if !shots.is_empty() {
            let shares = |of: fn(&EnsembleScore) -> f64| -> Vec<f64> {
                shots
                    .iter()
                    .map(|shot| share_below(&normals, of(shot), of))
                    .collect()
            };
            let (before, after) = (shares(|s| s.zero_shot), shares(|s| s.adapted));
            let count = shots.len() as f64;
            let mean = |v: &[f64]| v.iter().sum::<f64>() / count;
            let gains: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            let gain = mean(&gains);
            let variance = gains.iter().map(|g| (g - gain).powi(2)).sum::<f64>() / (count - 1.0);
            let error = (variance / count).sqrt();
            self.guard = Guard {
                zero_shot: Some(mean(&before)),
                adapted: Some(mean(&after)),
                standard_error: Some(error),
                fallback: guard && gain < -error,
            };
        }
        let fallback = self.guard.fallback;
        let kept = |s: &EnsembleScore| if fallback { s.zero_shot } else { s.adapted };
        self.held_out_normals = normals.iter().map(kept).collect();
        self.held_out_zero_shot = normals.iter().map(|s| s.zero_shot).collect();
        self.held_out_shots = shots.iter().map(kept).collect();
        if fallback {
            self.weight = 0.0;
        }
    }

    fn combine(&self, raw: &Raw) -> EnsembleScore {
        let bank = self.bank.map_or(0.0, |b| b.z(raw.bank));
        let zero_shot = self.base.z(self.distance.z(raw.distance) + bank);
        let raised: f64 = raw
            .opinions
            .iter()
            .zip(&self.opinions)
            .map(|(v, s)| s.z(*v).max(0.0))
            .sum();
        EnsembleScore {
            zero_shot,
            adapted: zero_shot + self.weight * raised / OPINIONS as f64,
        }
    }

    /// Whether its parts fit each other and images of `dim` numbers a token: for one that was read from a file.
    ///
    /// # Errors
    /// [`HeadError::Stored`] or [`HeadError::Width`].
    pub fn check(&self, dim: usize) -> Result<(), HeadError> {
        let Member {
            normality,
            defects,
            head,
        } = &self.member;
        normality.check(defects)?;
        let width = normality.width();
        if width != 2 * dim {
            return Err(HeadError::Width {
                found: width / 2,
                wanted: dim,
            });
        }
        if let Some(head) = head {
            let found = head.head.weight.len();
            if found != width {
                return Err(HeadError::Stored {
                    what: "the image head",
                    found,
                    wanted: width,
                });
            }
            if defects.is_empty() {
                return Err(HeadError::Stored {
                    what: "the list of defects",
                    found: 0,
                    wanted: 1,
                });
            }
        }
        Ok(())
    }

    /// Whether it was fitted with patch distances and needs them to score.
    pub fn needs_bank(&self) -> bool {
        self.bank.is_some()
    }

    /// Scores one image.
    ///
    /// # Errors
    /// [`HeadError::Width`] for features of another width, [`HeadError::NoBank`] without the patch distances it was
    /// fitted with.
    pub fn score(&self, image: &Evidence) -> Result<EnsembleScore, HeadError> {
        let wanted = self.member.normality.width();
        if image.features.len() != wanted {
            return Err(HeadError::Width {
                found: image.features.len() / 2,
                wanted: wanted / 2,
            });
        }
        if self.needs_bank() && image.bank.is_none() {
            return Err(HeadError::NoBank);
        }
        Ok(self.combine(&self.member.raw(image)))
    }

    /// Scores images.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn scores(&self, images: &[Evidence]) -> Result<Vec<EnsembleScore>, HeadError> {
        images.par_iter().map(|i| self.score(i)).collect()
    }

    /// Numbers trained on the defects: the image head's. Everything else is counted or copied, not trained.
    pub fn trainable(&self) -> usize {
        self.member.head.as_ref().map_or(0, ImageHead::trainable)
    }

    /// Weight of the opinions, 0 without shots or after a fallback.
    pub fn weight(&self) -> f64 {
        self.weight
    }
}

/// Share of the normals with a score below `score`, ties counting one half.
fn share_below(normals: &[EnsembleScore], score: f64, of: impl Fn(&EnsembleScore) -> f64) -> f64 {
    let twice: usize = normals
        .iter()
        .map(of)
        .map(|n| usize::from(score > n) + usize::from(score >= n))
        .sum();
    twice as f64 / (2 * normals.len()) as f64
}

fn features(of: &[Evidence], keep: impl Fn(usize) -> bool) -> Vec<&[f32]> {
    of.iter()
        .enumerate()
        .filter(|(i, _)| keep(*i))
        .map(|(_, e)| e.features.as_slice())
        .collect()
}
