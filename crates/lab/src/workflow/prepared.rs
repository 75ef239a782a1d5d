//! The images of a category that train, and those that choose the epoch, with their tokens.

use super::{Category, Engine, OnEvent, WorkflowError, hold_out_shots};
use crate::adapt::{EpochSteps, HoldOut, HoldOutMetric, Loss, TrainOptions};
use flawtune::evaluate::protocol::Split;
use flawtune::features::TokenSet;

/// Hold-out normals measured after an epoch, at most: each is compared with every support image below.
const HOLD_OUT_NORMALS: usize = 48;
/// Support images they are compared with, at most.
const HOLD_OUT_SUPPORT: usize = 32;
/// With one step an epoch the hold-out is measured this rarely, or it would cost more than the training.
const ONE_STEP_INTERVAL: usize = 10;

/// Tokens of the images of a split that may be learned from. Lists of indices count from the start of `normals` and
/// `shots`.
pub(super) struct Prepared {
    /// Positions of the good images in the category.
    pub(super) normals: Vec<usize>,
    pub(super) normal_tokens: TokenSet,
    /// Positions of the shots in the category.
    pub(super) shots: Vec<usize>,
    pub(super) shot_tokens: TokenSet,
    /// Good images that train.
    pub(super) train_normals: Vec<usize>,
    /// Good images that choose the epoch.
    pub(super) held_normals: Vec<usize>,
    /// Shots that train.
    pub(super) train_defects: Vec<usize>,
    /// Shots that choose the epoch; empty below five shots and where no good image was held out.
    pub(super) held_defects: Vec<usize>,
}

impl Prepared {
    /// # Errors
    /// Unreadable images.
    pub(super) fn new(
        category: &Category,
        engine: &Engine,
        split: &Split,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let normals: Vec<usize> = split
            .train_normals
            .iter()
            .chain(&split.holdout_normals)
            .copied()
            .collect();
        let (normals, normal_tokens) = category.tokens(engine, &normals, on_event)?;
        let (shots, shot_tokens) = category.tokens(engine, &split.shots, on_event)?;
        let held: std::collections::HashSet<usize> =
            split.holdout_normals.iter().copied().collect();
        let (held_normals, train_normals): (Vec<usize>, Vec<usize>) =
            (0..normals.len()).partition(|&i| held.contains(&normals[i]));
        let choosing = if held_normals.is_empty() {
            0
        } else {
            hold_out_shots(shots.len())
        };
        let (train_defects, held_defects) =
            (0..shots.len()).partition(|&i| i + choosing < shots.len());
        Ok(Self {
            normals,
            normal_tokens,
            shots,
            shot_tokens,
            train_normals,
            held_normals,
            train_defects,
            held_defects,
        })
    }

    /// What is measured after an epoch, on what.
    pub(super) fn hold_out(&self, options: &TrainOptions) -> HoldOut {
        HoldOut {
            normals: self
                .held_normals
                .iter()
                .copied()
                .take(HOLD_OUT_NORMALS)
                .collect(),
            defects: self.held_defects.clone(),
            support: spread(&self.train_normals, HOLD_OUT_SUPPORT),
            // what is measured is what the loss is about
            metric: match options.loss {
                Loss::Scores(_) => HoldOutMetric::BankAuroc,
                _ => HoldOutMetric::Auroc,
            },
            every: if options.epoch_steps == EpochSteps::One {
                ONE_STEP_INTERVAL
            } else {
                1
            },
        }
    }
}

/// At most `count` of `list`, evenly spread.
fn spread(list: &[usize], count: usize) -> Vec<usize> {
    let take = count.min(list.len());
    (0..take).map(|i| list[i * list.len() / take]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_takes_distinct_entries_over_the_whole_list() {
        let list: Vec<usize> = (100..200).collect();
        let some = spread(&list, 32);
        assert_eq!(some.len(), 32);
        assert!(some.windows(2).all(|w| w[0] < w[1]));
        assert!(some[0] == 100 && some[31] >= 195);
        assert_eq!(spread(&list[..3], 32), [100, 101, 102]);
        assert!(spread(&[], 3).is_empty());
    }
}
