//! Joint training: one adaptation, a batch of every category in each step.

use std::sync::atomic::AtomicBool;

use super::sampling::CategorySampler;
use crate::adapt::hold_out::HoldOutImages;
use crate::adapt::learner::{Batch, Learner};
use crate::adapt::scale_penalty::CATEGORY_SCALES;
use crate::adapt::train::{Choice, check, check_tokens, run};
use crate::adapt::{
    AdaptError, Adaptation, BatchLoss, BatchPass, EpochReport, Gradients, HoldOut, HoldOutMetric,
    Loss, Outcome, Parameters, RESIDUAL_SCALE, SimilarityStats, Tape, TrainData, TrainOptions,
    TrainState, rows_of,
};
use flawtune::features::TokenSet;

/// One of the categories that are trained on together.
#[derive(Debug, Clone)]
pub struct JointCategory<'a> {
    /// Its images.
    pub data: TrainData<'a>,
    /// Those of them that choose the epoch; a category may have none.
    pub hold_out: Option<HoldOut>,
}

/// Trains one adaptation on several categories.
///
/// Every step takes a batch of each category and goes along the mean of their gradients, so that a category with many
/// images weighs no more than one with few; images are compared within their category only. An epoch has as many
/// steps as the smallest category has batches. The epoch kept is the one with the best mean of the categories' hold-out
/// metrics; `options.hold_out` is filled in from them.
///
/// Where the adaptation learns a factor on what it adds, every category gets its own, which are returned in their order; the
/// adaptation is left with their mean, for categories that never trained.
///
/// Determinism, cancelling and resuming are as in [`train`](crate::adapt::train).
///
/// # Errors
/// As [`train`](crate::adapt::train), for any of the categories; [`AdaptError::TooFewImages`] without a category.
pub fn train_joint(
    adaptation: &mut Adaptation,
    categories: &[JointCategory<'_>],
    options: &TrainOptions,
    resume: Option<TrainState>,
    cancel: &AtomicBool,
    on_epoch: &mut dyn FnMut(&EpochReport),
) -> Result<(Outcome, Vec<Vec<f32>>), AdaptError> {
    let mut options = options.clone();
    options.hold_out = None;
    for category in categories {
        check_tokens(adaptation, &category.data)?;
        let patience = category.hold_out.as_ref().and(options.patience);
        let own = TrainOptions {
            hold_out: category.hold_out.clone(),
            patience,
            ..options.clone()
        };
        check(choice_of(&category.data), &own)?;
        // what the loop asks of it is the metric and how often
        if let Some(first) = &category.hold_out {
            options.hold_out = Some(HoldOut {
                metric: first.metric,
                every: first.every,
                ..HoldOut::default()
            });
        }
    }
    let smallest = |of: fn(&TrainData<'_>) -> usize| categories.iter().map(|c| of(&c.data)).min();
    let (Some(normals), Some(defects)) = (
        smallest(|d| d.normal_indices.len()),
        smallest(|d| d.defect_indices.len()),
    ) else {
        return Err(AdaptError::TooFewImages {
            what: "categories to train on",
            found: 0,
            wanted: 1,
            why: "",
        });
    };
    let lists: (Vec<usize>, Vec<usize>) = ((0..normals).collect(), (0..defects).collect());
    let choice = Choice {
        normals,
        normal_indices: &lists.0,
        defects,
        defect_indices: &lists.1,
    };
    let mut learner = Joint::new(adaptation, categories, &options)?;
    let outcome = run(&mut learner, choice, &options, resume, cancel, on_epoch)?;
    Ok((outcome, learner.finish()))
}

fn choice_of<'a>(data: &TrainData<'a>) -> Choice<'a> {
    Choice {
        normals: data.normals.images.len(),
        normal_indices: data.normal_indices,
        defects: data.defects.images.len(),
        defect_indices: data.defect_indices,
    }
}

/// A category on its way through a step.
#[derive(Debug)]
struct Member<'a> {
    data: TrainData<'a>,
    sampler: CategorySampler,
    held_out: Option<HoldOutImages<'a>>,
    pass: BatchPass,
    images: Vec<&'a [f32]>,
}

#[derive(Debug)]
struct Joint<'a> {
    adaptation: &'a mut Adaptation,
    /// What is trained: the adaptation's tensors, but a factor for each category in place of the one.
    parameters: Parameters,
    members: Vec<Member<'a>>,
    tape: Tape,
}

impl<'a> Joint<'a> {
    fn new(
        adaptation: &'a mut Adaptation,
        categories: &[JointCategory<'a>],
        options: &TrainOptions,
    ) -> Result<Self, AdaptError> {
        let mut parameters = Parameters::new();
        for t in adaptation.parameters() {
            if t.name == RESIDUAL_SCALE {
                let shape = [categories.len(), t.data.len()];
                parameters.push(CATEGORY_SCALES, &shape, t.data.repeat(categories.len()))?;
            } else {
                parameters.push(&t.name, &t.shape, t.data.clone())?;
            }
        }
        let (use_cls, dim) = (adaptation.options().use_cls, adaptation.dim());
        let rows = |set: &'a TokenSet, list: &[usize]| -> Vec<&'a [f32]> {
            list.iter()
                .map(|&i| rows_of(&set.images[i], use_cls))
                .collect()
        };
        let members = categories.iter().enumerate().map(|(i, category)| {
            let data = category.data;
            Member {
                data,
                sampler: CategorySampler::new(options.seed, i, options.batch_size),
                held_out: category.hold_out.as_ref().map(|h| HoldOutImages {
                    normals: rows(data.normals, &h.normals),
                    defects: rows(data.defects, &h.defects),
                    support: rows(data.normals, &h.support),
                    dim,
                }),
                pass: BatchPass::new(),
                images: Vec::new(),
            }
        });
        Ok(Self {
            members: members.collect(),
            adaptation,
            parameters,
            tape: Tape::default(),
        })
    }

    /// The factor of a category; none where none is learned.
    fn scales(parameters: &Parameters, category: usize) -> Option<&[f32]> {
        let t = parameters.get(CATEGORY_SCALES)?;
        t.data.chunks_exact(t.shape[1]).nth(category)
    }

    /// Puts the parameters into the adaptation, with the factor of a category.
    fn place(&mut self, category: usize) {
        let scales = Self::scales(&self.parameters, category);
        for to in self.adaptation.modulation_mut().parameters_mut() {
            let own = self.parameters.get(&to.name).map(|t| &t.data[..]);
            if let Some(from) = own.or(scales) {
                to.data.copy_from_slice(from);
            }
        }
    }

    /// Leaves the adaptation with the mean factor; returns each category's.
    fn finish(mut self) -> Vec<Vec<f32>> {
        self.place(0);
        let count = self.members.len();
        let all: Vec<Vec<f32>> = (0..count)
            .filter_map(|c| Self::scales(&self.parameters, c))
            .map(<[f32]>::to_vec)
            .collect();
        if let Some(to) = self
            .adaptation
            .modulation_mut()
            .parameters_mut()
            .get_mut(RESIDUAL_SCALE)
        {
            for (i, to) in to.data.iter_mut().enumerate() {
                *to = (all.iter().map(|of| f64::from(of[i])).sum::<f64>() / count as f64) as f32;
            }
        }
        all
    }
}

impl Learner for Joint<'_> {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn forward(&mut self, batch: &Batch, loss: Loss) -> Result<BatchLoss, AdaptError> {
        let (use_cls, dim) = (self.adaptation.options().use_cls, self.adaptation.dim());
        let mut found = Vec::with_capacity(self.members.len());
        for category in 0..self.members.len() {
            self.place(category);
            let modulation = self.adaptation.modulation();
            let member = &mut self.members[category];
            let data = member.data;
            let normals = member
                .sampler
                .normals(batch.step, data.normal_indices.len());
            let defects = member
                .sampler
                .defects(batch.step, data.defect_indices.len());
            member.images.clear();
            let normal = normals
                .iter()
                .map(|&i| &data.normals.images[data.normal_indices[i]]);
            let defect = defects
                .iter()
                .map(|&i| &data.defects.images[data.defect_indices[i]]);
            member
                .images
                .extend(normal.chain(defect).map(|image| rows_of(image, use_cls)));
            found.push(member.pass.forward(
                Some(modulation),
                &member.images,
                normals.len(),
                dim,
                loss,
            )?);
        }
        Ok(mean(&found))
    }

    fn backward(&mut self, gradients: &mut Gradients) -> Result<(), AdaptError> {
        let share = 1.0 / self.members.len() as f32;
        let mut own = Gradients::zeros_for(self.adaptation.parameters());
        for category in 0..self.members.len() {
            self.place(category);
            let modulation = self.adaptation.modulation();
            let member = &mut self.members[category];
            own.clear();
            member
                .pass
                .backward(modulation, &member.images, &mut own, None);
            for (to, from) in gradients.parameters.iter_mut().zip(&own.parameters) {
                let from = &from.data;
                // each category moves its own factor only, and by its own gradient
                let (to, share) = if to.name == CATEGORY_SCALES {
                    (
                        &mut to.data[category * from.len()..(category + 1) * from.len()],
                        1.0,
                    )
                } else {
                    (&mut to.data[..], share)
                };
                to.iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to += share * from);
            }
            gradients.scaling_factor += f64::from(share) * own.scaling_factor;
        }
        Ok(())
    }

    fn measure(&mut self, metric: HoldOutMetric, adapted: bool) -> Result<f64, AdaptError> {
        let (mut sum, mut count) = (0.0, 0.0);
        for category in 0..self.members.len() {
            self.place(category);
            let modulation = adapted.then(|| self.adaptation.modulation());
            if let Some(images) = &self.members[category].held_out {
                sum += images.measure(modulation, metric, &mut self.tape)?;
                count += 1.0;
            }
        }
        Ok(sum / count)
    }
}

/// The mean over the categories.
fn mean(of: &[BatchLoss]) -> BatchLoss {
    let n = of.len() as f64;
    let over = |get: fn(&BatchLoss) -> f64| of.iter().map(get).sum::<f64>() / n;
    BatchLoss {
        loss: over(|b| b.loss),
        stats: SimilarityStats {
            mu_nn: over(|b| b.stats.mu_nn),
            mu_nd: over(|b| b.stats.mu_nd),
            sd_nn: over(|b| b.stats.sd_nn),
            sd_nd: over(|b| b.stats.sd_nd),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapt::AdaptationOptions;
    use flawtune::features::ImageTokens;
    use flawtune::random::{Purpose, Stream};

    const DIM: usize = 8;
    const PATCHES: usize = 4;

    /// Images around a direction of their own, defects with one odd patch.
    fn images(seed: u64, count: usize, odd: f32) -> TokenSet {
        let mut stream = Stream::new(seed, Purpose::Init);
        let images = (0..count).map(|_| {
            let mut v: Vec<f32> = (0..(1 + PATCHES) * DIM)
                .map(|_| 0.3 * stream.uniform() as f32)
                .collect();
            v.chunks_exact_mut(DIM)
                .for_each(|row| row[seed as usize % DIM] += 1.0);
            v[DIM + (seed as usize + 1) % DIM] += odd;
            ImageTokens::owned(v, PATCHES, DIM)
        });
        TokenSet {
            images: images.collect(),
            grid: (2, 2),
            dim: DIM,
        }
    }

    fn fresh() -> Adaptation {
        let options = AdaptationOptions {
            num_prompts: 3,
            scaling_factor: 0.5,
            seed: 2,
            ..Default::default()
        };
        Adaptation::new(options, DIM).unwrap()
    }

    fn options() -> TrainOptions {
        TrainOptions {
            epochs: 4,
            batch_size: 4,
            learning_rate: 0.01,
            seed: 9,
            ..Default::default()
        }
    }

    struct Data {
        normals: TokenSet,
        defects: TokenSet,
        lists: (Vec<usize>, Vec<usize>),
    }

    impl Data {
        fn new(seed: u64, normals: usize, defects: usize) -> Self {
            Self {
                normals: images(seed, normals, 0.0),
                defects: images(seed, defects, 1.5),
                lists: ((0..normals).collect(), (0..defects).collect()),
            }
        }

        fn category(&self, hold_out: Option<HoldOut>) -> JointCategory<'_> {
            let (normal_indices, defect_indices) = (&self.lists.0[..], &self.lists.1[..]);
            let data = TrainData {
                normals: &self.normals,
                normal_indices,
                defects: &self.defects,
                defect_indices,
                masks: &[],
            };
            JointCategory { data, hold_out }
        }
    }

    fn train(
        adaptation: &mut Adaptation,
        of: &[JointCategory<'_>],
        options: &TrainOptions,
    ) -> TrainState {
        let cancel = AtomicBool::new(false);
        let found = train_joint(adaptation, of, options, None, &cancel, &mut |_| {})
            .unwrap()
            .0;
        found.state().clone()
    }

    #[test]
    fn the_gradient_is_the_mean_of_the_categories() {
        let (a, b) = (Data::new(1, 8, 2), Data::new(3, 12, 3));
        let gradient = |of: &[JointCategory<'_>]| {
            let mut adaptation = fresh();
            let mut joint = Joint::new(&mut adaptation, of, &options()).unwrap();
            let batch = Batch {
                normals: vec![],
                defects: vec![],
                step: 5,
            };
            let loss = joint.forward(&batch, Loss::Separability).unwrap().loss;
            let mut gradients = Gradients::zeros_for(joint.parameters());
            joint.backward(&mut gradients).unwrap();
            (loss, gradients.parameters)
        };
        let both = gradient(&[a.category(None), b.category(None)]);
        let first = gradient(&[a.category(None)]);
        // alone, the second category would be drawn from as the first: its batch is fixed by making it all of them
        let all = Data::new(3, 4, 3);
        let both_all = gradient(&[a.category(None), all.category(None)]);
        let second = gradient(&[all.category(None)]);
        assert!(
            (both_all.0 - 0.5 * (first.0 + second.0)).abs() < 1e-9,
            "{both_all:?}"
        );
        for ((t, f), s) in both_all.1.iter().zip(&first.1).zip(&second.1) {
            for ((t, f), s) in t.data.iter().zip(&f.data).zip(&s.data) {
                // the order of images in a batch changes sums in their last digits
                assert!(
                    (t - 0.5 * (f + s)).abs() <= 1e-4 * t.abs().max(1e-2),
                    "{t} {f} {s}"
                );
            }
        }
        assert_ne!(both.1, both_all.1);
    }

    #[test]
    fn an_epoch_has_as_many_steps_as_the_smallest_category_has_batches() {
        let (a, b) = (Data::new(1, 8, 2), Data::new(3, 40, 3));
        let state = train(
            &mut fresh(),
            &[a.category(None), b.category(None)],
            &options(),
        );
        assert_eq!(state.adam.steps(), 4 * 2);
        assert_eq!((state.settings.normals, state.settings.defects), (8, 2));
    }

    #[test]
    fn an_interrupted_training_ends_as_one_that_was_not() {
        let (a, b) = (Data::new(1, 9, 2), Data::new(3, 14, 3));
        let hold_out = |normals: usize| {
            let (support, held) = ((0..4).collect(), (4..normals).collect());
            Some(HoldOut {
                normals: held,
                defects: vec![0],
                support,
                every: 1,
                ..HoldOut::default()
            })
        };
        let of = [a.category(hold_out(9)), b.category(hold_out(14))];
        let mut whole = fresh();
        let expected = train(&mut whole, &of, &options());
        let (mut stopped, cancel) = (fresh(), AtomicBool::new(false));
        let mut stop = |r: &EpochReport| {
            cancel.store(r.record.epoch == 2, std::sync::atomic::Ordering::Relaxed);
        };
        let state = train_joint(&mut stopped, &of, &options(), None, &cancel, &mut stop)
            .unwrap()
            .0;
        assert!(matches!(state, Outcome::Interrupted(_)));
        let (mut resumed, cancel) = (fresh(), AtomicBool::new(false));
        let state = state.state().clone();
        let end = train_joint(
            &mut resumed,
            &of,
            &options(),
            Some(state),
            &cancel,
            &mut |_| {},
        )
        .unwrap()
        .0;
        assert_eq!(*end.state(), expected);
        assert!(expected.best.is_some() && expected.zero_shot_hold_out.is_some());
    }

    #[test]
    fn every_category_learns_its_own_factor() {
        let (a, b) = (Data::new(1, 8, 2), Data::new(3, 12, 3));
        let scaled = AdaptationOptions {
            num_prompts: 3,
            scaling_factor: 0.5,
            seed: 2,
            residual_scaling: flawtune_backbone::vjp::Scaling::Scalar,
            ..Default::default()
        };
        let mut adaptation = Adaptation::new(scaled, DIM).unwrap();
        let cancel = AtomicBool::new(false);
        let of = [a.category(None), b.category(None)];
        let (outcome, scales) =
            train_joint(&mut adaptation, &of, &options(), None, &cancel, &mut |_| {}).unwrap();
        assert!(
            scales[0] != scales[1] && scales.iter().all(|s| s[0] != 1.0),
            "{scales:?}"
        );
        assert_eq!(
            outcome
                .state()
                .parameters
                .get(CATEGORY_SCALES)
                .unwrap()
                .data,
            scales.concat()
        );
        let mean = 0.5 * (scales[0][0] + scales[1][0]);
        assert!((adaptation.parameters().get(RESIDUAL_SCALE).unwrap().data[0] - mean).abs() < 1e-7);
        // the factor of a category has the gradient that it has alone
        let gradient = |of: &[JointCategory<'_>]| {
            let mut adaptation = adaptation.clone();
            let mut joint = Joint::new(&mut adaptation, of, &options()).unwrap();
            joint
                .forward(
                    &Batch {
                        normals: vec![],
                        defects: vec![],
                        step: 0,
                    },
                    Loss::Separability,
                )
                .unwrap();
            let mut gradients = Gradients::zeros_for(joint.parameters());
            joint.backward(&mut gradients).unwrap();
            gradients
                .parameters
                .get(CATEGORY_SCALES)
                .unwrap()
                .data
                .clone()
        };
        assert_eq!(gradient(&of[..1])[0], gradient(&of)[0]);
    }

    #[test]
    fn refuses_nothing_and_too_little() {
        let cancel = AtomicBool::new(false);
        let refuse = |of: &[JointCategory<'_>]| {
            train_joint(&mut fresh(), of, &options(), None, &cancel, &mut |_| {})
                .unwrap_err()
                .to_string()
        };
        assert!(refuse(&[]).contains("categories to train on"));
        let (a, none) = (Data::new(1, 8, 2), Data::new(2, 8, 0));
        assert!(refuse(&[a.category(None), none.category(None)]).contains("defect"));
    }
}
