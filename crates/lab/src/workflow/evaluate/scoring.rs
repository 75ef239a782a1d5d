//! The scorers of a checkpoint on the tokens of its test set.

use std::collections::HashSet;

use flawtune_backbone::torch_file::Value;

use super::super::frozen::Wanted;
use super::super::held_out::HeldOut;
use super::super::{
    AdaptedTokens, EnsembleEvaluation, HierarchyEvaluation, OnEvent, WorkflowError, adapted,
    ensemble, hierarchy, sorted,
};
use super::{EvaluateRequest, Opened, ensemble_of};
use crate::adapt::Loss;
use flawtune::evaluate::comparison::TestSet;
use flawtune::features::TokenSet;
use flawtune::score::heads::EnsembleOptions;
use flawtune::score::{SupportSet, TokenChange, TokenKind};

/// Frozen tokens of the images, as positions in the category.
pub(super) struct Tokens {
    /// Good images that training may have seen: all that were asked for, those that could be read, and their tokens.
    pub(super) normals: Vec<usize>,
    pub(super) supporting: Vec<usize>,
    pub(super) support: TokenSet,
    /// Tested images, with those of a learned type that are only counted apart, and their tokens.
    pub(super) tested: Vec<usize>,
    pub(super) looked_at: TokenSet,
    /// Which of the tested make up the test set.
    pub(super) main: Vec<usize>,
}

impl Tokens {
    pub(super) fn of(opened: &Opened, on_event: OnEvent<'_>) -> Result<Self, WorkflowError> {
        let (split, category) = (&opened.split, &opened.category);
        let normals = split.normals();
        let (supporting, support) = category.tokens(&opened.engine, &normals, on_event)?;
        let wanted: Vec<usize> = sorted(split.test.iter().chain(&split.seen_type_test));
        let (tested, looked_at) = category.tokens(&opened.engine, &wanted, on_event)?;
        opened.adaptation.check(&looked_at)?;
        let unseen: HashSet<usize> = split.test.iter().copied().collect();
        let main = (0..tested.len()).filter(|&i| unseen.contains(&tested[i]));
        Ok(Self {
            main: main.collect(),
            normals,
            supporting,
            support,
            tested,
            looked_at,
        })
    }

    /// Of one number a tested image those of the test set.
    pub(super) fn pick(&self, scores: &[f64]) -> Vec<f64> {
        self.main.iter().map(|&i| scores[i]).collect()
    }

    /// Positions of the test set.
    pub(super) fn positions(&self) -> Vec<usize> {
        self.main.iter().map(|&i| self.tested[i]).collect()
    }
}

/// Scores of the tested images, and of the good ones that were held out of training, where there are any.
pub(super) type Pairs = (Vec<f64>, Option<Vec<f64>>);

/// Adapted tokens, and what the scorers on them found.
pub(super) type Through = (adapted::Tokens, (AdaptedTokens, adapted::Scores));

/// What the levels found, and the scores of frozen tokens, of the shared level and of each image's own.
pub(super) type Levels = (HierarchyEvaluation, [Vec<f64>; 3]);

/// What every scorer is given.
pub(super) struct Scoring<'a> {
    pub(super) request: &'a EvaluateRequest,
    pub(super) opened: &'a Opened,
    pub(super) tokens: &'a Tokens,
    pub(super) test: &'a TestSet<'a>,
    pub(super) held_out: Option<HeldOut>,
}

impl Scoring<'_> {
    fn kind(&self) -> TokenKind {
        if self.opened.adaptation.options().use_cls {
            TokenKind::Class
        } else {
            TokenKind::Patches
        }
    }

    /// By image pairs.
    pub(super) fn pairs(
        &self,
        normals: &TokenSet,
        tokens: &TokenSet,
        adaptation: Option<&dyn TokenChange>,
    ) -> Result<Pairs, WorkflowError> {
        let support = SupportSet::new(normals, self.kind(), adaptation)?;
        let held = self.held_out.as_ref().map(|h| h.scores(&support, normals));
        let held = held.transpose()?;
        let scores = support.score_pairs(tokens, self.request.k_neighbors, false)?;
        Ok((scores.scores, held))
    }

    /// By image pairs of the untouched model, kept for other evaluations of this process.
    pub(super) fn zero_shot(&self) -> Result<Pairs, WorkflowError> {
        let Tokens {
            tested, supporting, ..
        } = self.tokens;
        // the held-out images' scores stand behind those of the tested
        let held_out = self.held_out.iter();
        let held_out = held_out.flat_map(|_| &self.opened.split.holdout_normals);
        let scored: Vec<usize> = tested.iter().chain(held_out).copied().collect();
        let what = format!(
            "image pairs, {:?}, k = {}, {} tested",
            self.kind(),
            self.request.k_neighbors,
            tested.len()
        );
        let untouched = Wanted {
            what,
            category: &self.opened.category,
            engine: &self.opened.engine,
            support: supporting,
            scored: &scored,
        };
        let both = self.request.frozen.scores(&untouched, || {
            let (mut tested, held) =
                self.pairs(&self.tokens.support, &self.tokens.looked_at, None)?;
            tested.extend(held.unwrap_or_default());
            Ok(tested)
        })?;
        let (tested, held) = both.split_at(tested.len());
        Ok((
            tested.to_vec(),
            self.held_out.as_ref().map(|_| held.to_vec()),
        ))
    }

    /// Other scorers on the adapted tokens, and these tokens, where something changed them before they were compared.
    pub(super) fn through(&self, on_event: OnEvent<'_>) -> Result<Option<Through>, WorkflowError> {
        let checkpoint = &self.opened.checkpoint;
        let loss = checkpoint.args.get("loss_type").and_then(Value::as_str);
        let by_bank = loss.is_some_and(|name| matches!(name.parse(), Ok(Loss::Scores(_))));
        let inserted = checkpoint.inserted.as_ref();
        if inserted.is_none() && !by_bank {
            return Ok(None);
        }
        let tokens = self.tokens;
        let split = &self.opened.split;
        let job = adapted::Job {
            category: &self.opened.category,
            engine: &self.opened.engine,
            normals: (&tokens.supporting, &tokens.support),
            shots: if self.opened.own { &split.shots } else { &[] },
            tested: (&tokens.tested, &tokens.looked_at),
            main: &tokens.main,
            test: self.test,
            bootstrap: self.request.bootstrap,
        };
        let changed = adapted::tokens(&job, inserted, &self.opened.adaptation, on_event)?;
        let options = EnsembleOptions {
            guard: self.request.guard,
            seed: split.seed,
            ..EnsembleOptions::default()
        };
        let scorers = adapted::evaluate(&job, &changed, &options, on_event)?;
        Ok(Some((changed, scorers)))
    }

    /// The checkpoint's ensemble, where it has one for this category.
    pub(super) fn ensemble(
        &self,
        on_event: OnEvent<'_>,
    ) -> Result<Option<(EnsembleEvaluation, ensemble::Columns)>, WorkflowError> {
        let (request, opened) = (self.request, self.opened);
        let record = ensemble_of(&request.checkpoint, &opened.checkpoint)?;
        let Some(record) = record.filter(|_| opened.name == opened.checkpoint.category) else {
            if request.supervised.scorers.is_empty() {
                return Ok(None);
            }
            return Err(WorkflowError::Input(format!(
                "{}: holds no ensemble for {}, whose block and shots `scorers` would use\nhint: train without \
                 `no_ensemble` on this category, or omit `scorers`",
                request.checkpoint.display(),
                opened.name
            )));
        };
        let job = ensemble::Job {
            category: &opened.category,
            engine: &opened.engine,
            normals: &self.tokens.normals,
            tested: &self.tokens.positions(),
            test: self.test,
            shots: &opened.split.shots,
            supervised: &request.supervised,
            guard: request.guard,
            max_false_alarm: request.max_false_alarm,
            bootstrap: request.bootstrap,
            frozen: &request.frozen,
        };
        ensemble::evaluate(&record, &job, on_event).map(Some)
    }

    /// The levels of known defect types, where the checkpoint has any.
    pub(super) fn levels(&self, on_event: OnEvent<'_>) -> Result<Option<Levels>, WorkflowError> {
        let (request, opened) = (self.request, self.opened);
        let Some(levels) = hierarchy::of(&request.checkpoint, &opened.checkpoint)? else {
            return Ok(None);
        };
        let all = &self.tokens.looked_at;
        let tokens = TokenSet {
            images: (self.tokens.main.iter())
                .map(|&i| all.images[i].clone())
                .collect(),
            grid: all.grid,
            dim: all.dim,
        };
        let job = hierarchy::Job {
            category: &opened.category,
            engine: &opened.engine,
            normals: &self.tokens.support,
            tested: (&self.tokens.positions(), &tokens),
            test: self.test,
            bootstrap: request.bootstrap,
            output_dir: &request.output_dir,
        };
        hierarchy::evaluate(&levels, &opened.adaptation, &job, on_event).map(Some)
    }
}
