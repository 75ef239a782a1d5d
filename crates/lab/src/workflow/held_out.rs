//! Thresholds for an evaluation, from good images that neither trained nor are tested.

use serde::{Deserialize, Serialize};

use super::{Event, OnEvent, WorkflowError};
use flawtune::features::TokenSet;
use flawtune::score::SupportSet;
use flawtune::score::threshold::{Method, Threshold, from_good};

/// One threshold a scorer, by the same rule from the same images, so that decisions can be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutThresholds {
    /// Good images they were chosen from; none is tested.
    pub images: usize,
    /// The false-alarm rate aimed at.
    pub max_false_alarm: f64,
    /// The lowest rate that this many images can promise.
    pub reachable: f64,
    /// Of the adapted scores.
    pub prompt_tuned: Threshold,
    /// Of the zero-shot scores.
    pub zero_shot: Threshold,
}

impl HeldOutThresholds {
    /// From the scores that both scorers give held-out good images.
    ///
    /// # Errors
    /// No score, scores that are not finite, a rate out of range.
    pub(super) fn new(
        adapted: &[f64],
        zero_shot: &[f64],
        max_false_alarm: f64,
    ) -> Result<Self, WorkflowError> {
        Ok(Self {
            images: adapted.len(),
            max_false_alarm,
            reachable: 1.0 / (adapted.len() as f64 + 1.0),
            prompt_tuned: from_good(adapted, max_false_alarm, Method::Auto)?,
            zero_shot: from_good(zero_shot, max_false_alarm, Method::Auto)?,
        })
    }
}

/// The good images that were held out of training, as positions in the support, and how many neighbours are averaged.
pub(super) struct HeldOut {
    own: Vec<usize>,
    k: usize,
}

impl HeldOut {
    /// `supporting` are the support's positions in the category, ascending. `None`, with a note, if none was held out or
    /// too few are left to compare with: then there is no image to choose a threshold from.
    pub(super) fn new(
        supporting: &[usize],
        held_out: &[usize],
        k: usize,
        on_event: OnEvent<'_>,
    ) -> Option<Self> {
        let own: Vec<usize> = held_out
            .iter()
            .filter_map(|i| supporting.binary_search(i).ok())
            .collect();
        if own.is_empty() || k >= supporting.len() {
            on_event(Event::Note(
                "no good image was held out of training: no threshold for the prompts, and no decisions at one".into(),
            ));
            return None;
        }
        Some(Self { own, k })
    }

    /// Their scores, each without itself; `tokens` are those the support was made of.
    ///
    /// # Errors
    /// Tokens that do not fit the support.
    pub(super) fn scores(
        &self,
        support: &SupportSet<'_>,
        tokens: &TokenSet,
    ) -> Result<Vec<f64>, WorkflowError> {
        let images = self.own.iter().map(|&i| tokens.images[i].clone()).collect();
        let held = TokenSet {
            images,
            grid: tokens.grid,
            dim: tokens.dim,
        };
        Ok(support.score_left_out(&held, &self.own, self.k)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_held_out_images_of_the_support_are_used() {
        let mut notes = 0;
        let mut count = |_: Event<'_>| notes += 1;
        let held = HeldOut::new(&[2, 3, 5, 9], &[9, 4, 3], 1, &mut count).unwrap();
        assert_eq!(held.own, [3, 1]);
        assert!(HeldOut::new(&[2, 3], &[], 1, &mut count).is_none());
        assert!(
            HeldOut::new(&[2, 3], &[3], 2, &mut count).is_none(),
            "no two others"
        );
        assert_eq!(notes, 2);
    }

    #[test]
    fn both_scorers_get_the_same_rule() {
        let found = HeldOutThresholds::new(&[0.3, 0.1, 0.2], &[0.5, 0.6, 0.4], 0.25).unwrap();
        assert_eq!((found.images, found.reachable), (3, 0.25));
        // a rate of one in four of three scores: just above the largest
        assert_eq!(found.prompt_tuned.value, 0.3_f64.next_up());
        assert_eq!(found.zero_shot.value, 0.6_f64.next_up());
        assert!(HeldOutThresholds::new(&[], &[], 0.25).is_err());
    }
}
