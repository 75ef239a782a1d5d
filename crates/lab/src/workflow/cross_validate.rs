//! Training again without a part of the shots at a time: which epoch does best on shots that did not train, and whether it does
//! better than no training at all.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::inside::Through;
use super::{Category, Engine, Event, OnEvent, WorkflowError, write_json};
use crate::adapt::guard::Fold;
use crate::adapt::inside::{Inserted, InsideOptions};
use crate::adapt::{
    self, AdaptError, Adaptation, EpochReport, HoldOut, Outcome, TrainData, TrainOptions,
    TrainState,
};

/// Everything a training of a category needs besides its options.
pub(super) struct Trainer<'a> {
    pub(super) engine: &'a Engine,
    pub(super) category: &'a Category,
    /// What is trained inside the transformer, if anything is.
    pub(super) inside: Option<(&'a InsideOptions, &'a Through)>,
    /// Positions of the good images and of the shots in the category, as the lists of the data count them, and the
    /// images that count after the last shot.
    pub(super) lists: (&'a [usize], &'a [usize], &'a [PathBuf]),
}

impl Trainer<'_> {
    /// Trains once.
    ///
    /// # Errors
    /// As [`adapt::train`].
    pub(super) fn run(
        &self,
        adaptation: &mut Adaptation,
        data: &TrainData<'_>,
        options: &TrainOptions,
        resume: Option<TrainState>,
        cancel: &AtomicBool,
        on_epoch: &mut dyn FnMut(&EpochReport),
    ) -> Result<(Outcome, Option<Inserted>), AdaptError> {
        let Some((inside, through)) = self.inside else {
            return Ok((
                adapt::train(adaptation, data, options, resume, cancel, on_epoch)?,
                None,
            ));
        };
        let at = (self.engine, self.category);
        let (outcome, inserted) = through.train(
            inside, adaptation, at, self.lists, data, options, resume, cancel, on_epoch,
        )?;
        Ok((outcome, Some(inserted)))
    }
}

/// Folds that are done, so that an interruption loses one at most.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Hash of everything the folds depend on.
    key: String,
    folds: Vec<Fold>,
}

/// What is cross-validated.
pub(super) struct Plan<'a> {
    /// As it starts; every fold starts from it.
    pub(super) adaptation: &'a Adaptation,
    /// The good images that train, and all shots, without views.
    pub(super) data: TrainData<'a>,
    /// The shots given and all their views, and synthetic defects.
    pub(super) with_views: &'a dyn Fn(&[usize]) -> Vec<usize>,
    /// With the good images and the support of the hold-out; its defects are filled in.
    pub(super) options: &'a TrainOptions,
    pub(super) hold_out: &'a HoldOut,
    /// Parts of the shots, at least 2; no more than shots.
    pub(super) folds: usize,
    /// Says what the folds depend on: split, backbone, options.
    pub(super) key: &'a str,
    /// Where folds are kept.
    pub(super) file: PathBuf,
    pub(super) trainable: &'a [(String, usize)],
}

/// Shot `i` is left out of training in fold `i mod folds`. `None` after an interruption.
///
/// # Errors
/// As [`Trainer::run`]; a folder that cannot be written.
pub(super) fn cross_validate(
    trainer: &Trainer<'_>,
    plan: &Plan<'_>,
    cancel: &AtomicBool,
    on_event: OnEvent<'_>,
) -> Result<Option<Vec<Fold>>, WorkflowError> {
    let mut kept = read(&plan.file, plan.key).unwrap_or(Kept {
        key: plan.key.to_owned(),
        folds: Vec::new(),
    });
    let shots = plan.data.defect_indices;
    kept.folds.truncate(plan.folds);
    for fold in kept.folds.len()..plan.folds {
        let of = |wanted: bool| -> Vec<usize> {
            let inside = |i: &usize| (i % plan.folds == fold) == wanted;
            (0..shots.len()).filter(inside).map(|i| shots[i]).collect()
        };
        let (left_out, training) = (of(true), of(false));
        on_event(Event::Note(format!(
            "cross-validation, part {} of {}: {} shots train, {} are left out",
            fold + 1,
            plan.folds,
            training.len(),
            left_out.len()
        )));
        let training = (plan.with_views)(&training);
        let hold_out = HoldOut {
            defects: left_out.clone(),
            ..plan.hold_out.clone()
        };
        on_event(Event::Training {
            part: Some((fold + 1, plan.folds)),
            trainable: plan.trainable,
            frozen: trainer.engine.parameters(),
            images: (plan.data.normal_indices.len(), training.len()),
            hold_out: (hold_out.normals.len(), left_out.len()),
            resumed_at: 0,
            epochs: plan.options.epochs,
        });
        // all folds to the end, so that their epochs can be compared
        let options = TrainOptions {
            hold_out: Some(hold_out),
            patience: None,
            ..plan.options.clone()
        };
        let data = TrainData {
            defect_indices: &training,
            ..plan.data
        };
        let mut adaptation = plan.adaptation.clone();
        let on_epoch = &mut |report: &EpochReport| on_event(Event::Epoch(report));
        let (outcome, _) = trainer.run(&mut adaptation, &data, &options, None, cancel, on_epoch)?;
        let Outcome::Finished(state) = outcome else {
            return Ok(None);
        };
        kept.folds.push(Fold {
            shots: left_out.len(),
            zero_shot: state.zero_shot_hold_out.unwrap_or(f64::NAN),
            epochs: state
                .history
                .iter()
                .filter_map(|r| Some((r.epoch, r.hold_out?)))
                .collect(),
        });
        write_json(&plan.file, &kept)?;
    }
    Ok(Some(kept.folds))
}

/// Folds of an earlier, interrupted run of the very same training.
fn read(file: &Path, key: &str) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (kept.key == key).then_some(kept)
}
