//! Plain supervised heads beside the ensemble, each on its own: what a handful of defects gives without any of the ensemble's
//! care. They are fitted to the shots of the checkpoint and all of train/good.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::shot_masks::shot_masks;
use super::{Category, Engine, WorkflowError};
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::features::TokenSet;
use flawtune::names::one_of;
use flawtune::score::Aggregate;
use flawtune::score::heads::{
    BANK_SHARE, DefectMemory, ImageHead, LogisticOptions, PatchBank, PatchExample, PatchHead,
    PatchHeadOptions, image_features,
};

/// Penalty of the linear probe.
const PROBE_PENALTY: f64 = 1.0;
/// Share of a defect's patches that is remembered, and of a test image's that makes its score.
const MEMORY_SHARE: f64 = 0.05;

/// A scorer that learns from the shots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supervised {
    /// Class-balanced logistic regression on class token and mean patch.
    LinearProbe,
    /// Logistic regression on patches: those of a defect under its mask or farthest from the bank, against hard and random
    /// patches of normals.
    PatchHead,
    /// The same, its positives picked again by the head itself twice.
    PatchHeadRepicked,
    /// Distance to the normal bank minus distance to the defects' oddest patches.
    DefectMemory,
}

impl Supervised {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::LinearProbe,
        Self::PatchHead,
        Self::PatchHeadRepicked,
        Self::DefectMemory,
    ];

    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinearProbe => "linear-probe",
            Self::PatchHead => "patch-head",
            Self::PatchHeadRepicked => "patch-head-repicked",
            Self::DefectMemory => "defect-memory",
        }
    }
}

impl fmt::Display for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Supervised {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, Self::name, text)
    }
}

/// Which heads, and what they may look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SupervisedOptions {
    /// Which, each once.
    pub scorers: Vec<Supervised>,
    /// Whether ground-truth masks of the shots say which patches are flawed, where there are masks.
    pub masks: bool,
}

/// One of them on a test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupervisedEvaluation {
    /// Which.
    pub scorer: Supervised,
    /// Trained numbers; 0 where patches are only remembered.
    pub trainable: usize,
    /// Shots with a mask that says where the flaw is.
    pub masked_shots: usize,
    /// Its scores (`prompt_tuned`) against the patch bank's top 1 % on the same tokens (`zero_shot`).
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Tokens of one block and their distances to the normal images.
pub(super) struct Block<'a> {
    pub(super) category: &'a Category,
    pub(super) engine: &'a Engine,
    pub(super) support: &'a TokenSet,
    pub(super) bank: &'a PatchBank,
    /// Positions of the shots.
    pub(super) shots: &'a [usize],
    pub(super) shot_tokens: &'a TokenSet,
    pub(super) tested: &'a TokenSet,
    /// Of the tested images.
    pub(super) distances: &'a [Vec<f32>],
}

/// Fits and scores; also gives the scores by name.
///
/// # Errors
/// Masks that cannot be read, features that are not finite, no shots.
pub(super) fn evaluate(
    tokens: &Block<'_>,
    options: &SupervisedOptions,
    test: &TestSet<'_>,
    bootstrap: BootstrapOptions,
) -> Result<Vec<(SupervisedEvaluation, Vec<f64>)>, WorkflowError> {
    if options.scorers.is_empty() {
        return Ok(Vec::new());
    }
    if tokens.shots.is_empty() {
        return Err(WorkflowError::Input(
            "`scorers` fits heads to the shots the checkpoint was trained on, and there are none in this category".into(),
        ));
    }
    let masks = if options.masks {
        shot_masks(
            tokens.category,
            tokens.engine,
            tokens.support.grid,
            tokens.shots,
        )?
    } else {
        vec![None; tokens.shots.len()]
    };
    let normal_distances = tokens.bank.left_out_distances();
    let shot_distances = tokens.bank.distances(&tokens.shot_tokens.images);
    let example = |tokens, distances, mask| PatchExample {
        tokens,
        distances,
        mask,
    };
    let normals: Vec<PatchExample<'_>> = tokens
        .support
        .images
        .iter()
        .zip(&normal_distances)
        .map(|(t, d)| example(t, d, None))
        .collect();
    let shots: Vec<PatchExample<'_>> = tokens
        .shot_tokens
        .images
        .iter()
        .zip(&shot_distances)
        .zip(&masks)
        .map(|((t, d), m)| example(t, d, m.as_deref()))
        .collect();
    let top = Aggregate::TopFraction(BANK_SHARE);
    let zero_shot: Vec<f64> = tokens.distances.iter().map(|d| top.score(d)).collect();
    let mut found = Vec::new();
    for &scorer in &options.scorers {
        let (trainable, scores) = fitted(scorer, tokens, (&shots, &normals))?;
        let scored = |scores| Scored {
            scores,
            threshold: None,
        };
        let comparison = Comparison::new(test, scored(&scores), scored(&zero_shot), bootstrap)?;
        let masked_shots = match scorer {
            Supervised::LinearProbe => 0,
            _ => masks.iter().flatten().filter(|m| m.contains(&true)).count(),
        };
        found.push((
            SupervisedEvaluation {
                scorer,
                trainable,
                masked_shots,
                comparison,
            },
            scores,
        ));
    }
    Ok(found)
}

/// Fits a head to the shots and the good images: numbers trained, and the scores of the test set.
fn fitted(
    scorer: Supervised,
    tokens: &Block<'_>,
    (shots, normals): (&[PatchExample<'_>], &[PatchExample<'_>]),
) -> Result<(usize, Vec<f64>), WorkflowError> {
    let dim = tokens.support.dim;
    Ok(match scorer {
        Supervised::LinearProbe => {
            let of = |set: &TokenSet| set.images.iter().map(image_features).collect::<Vec<_>>();
            let (defective, normal) = (of(tokens.shot_tokens), of(tokens.support));
            let options = LogisticOptions::with_penalty(PROBE_PENALTY);
            let head = ImageHead::fit(&slices(&defective), &slices(&normal), &options)?;
            let scores = tokens
                .tested
                .images
                .iter()
                .map(|i| head.score(&image_features(i)))
                .collect();
            (head.trainable(), scores)
        }
        Supervised::PatchHead | Supervised::PatchHeadRepicked => {
            let rounds = if scorer == Supervised::PatchHead {
                0
            } else {
                2
            };
            let options = PatchHeadOptions {
                rounds,
                ..PatchHeadOptions::default()
            };
            let head = PatchHead::fit(shots, normals, dim, &options)?;
            (head.trainable(), head.scores(&tokens.tested.images))
        }
        Supervised::DefectMemory => {
            let memory = DefectMemory::new(shots, dim, MEMORY_SHARE);
            let tested: Vec<PatchExample<'_>> = tokens
                .tested
                .images
                .iter()
                .zip(tokens.distances)
                .map(|(t, d)| PatchExample {
                    tokens: t,
                    distances: d,
                    mask: None,
                })
                .collect();
            (0, memory.scores(&tested, MEMORY_SHARE))
        }
    })
}

fn slices(rows: &[Vec<f32>]) -> Vec<&[f32]> {
    rows.iter().map(Vec::as_slice).collect()
}
