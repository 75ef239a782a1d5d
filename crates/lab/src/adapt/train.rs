//! The training loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use flawtune::features::TokenSet;

use super::learner::{Batch, FrozenTokens, Learner};
use super::state::{Best, Settings, TrainState};
use super::{
    Adam, AdaptError, Adaptation, EpochRecord, EpochReport, EpochSteps, Gradients, HoldOut, Loss,
    Sampler, ScalePenalty, clip_norm, cosine_rate,
};

/// How to train; the defaults are the original recipe's but for the length of an epoch.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Epochs; the learning rate's cosine spans them.
    pub epochs: usize,
    /// First learning rate.
    pub learning_rate: f64,
    /// Normals, and at most as many defects, in a batch.
    pub batch_size: usize,
    /// What is minimised.
    pub loss: Loss,
    /// How many steps make an epoch.
    pub epoch_steps: EpochSteps,
    /// Gradients with a larger norm are scaled down to it. Off by default, as in the recipe: Adam divides by the
    /// gradient's size anyway.
    pub clip_norm: Option<f64>,
    /// What holds learned scales near their start.
    pub scale_penalty: ScalePenalty,
    /// Seed of the order of the images.
    pub seed: u64,
    /// Images that choose the epoch to keep; without, the last epoch is kept.
    pub hold_out: Option<HoldOut>,
    /// Stop after this epoch; the learning rate still follows the cosine over all of `epochs`. `None`: go on to the end.
    pub last_epoch: Option<usize>,
    /// Stop after so many epochs without a better hold-out metric.
    pub patience: Option<usize>,
    /// Keep matches between visits of a pair where a bound proves that they still hold. Faster where every epoch is a full
    /// pass, at the price of a second copy of the tokens; changes no bit of the result.
    pub keep_matches: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 100,
            learning_rate: 1e-3,
            batch_size: 16,
            loss: Loss::Separability,
            epoch_steps: EpochSteps::FullPass,
            clip_norm: None,
            scale_penalty: ScalePenalty::default(),
            seed: 0,
            hold_out: None,
            last_epoch: None,
            patience: None,
            keep_matches: true,
        }
    }
}

/// The images to train on: lists of tokens, and which of them may be used.
#[derive(Debug, Clone, Copy)]
pub struct TrainData<'a> {
    /// Tokens of normal images.
    pub normals: &'a TokenSet,
    /// Indices of the normals to train on.
    pub normal_indices: &'a [usize],
    /// Tokens of defect images.
    pub defects: &'a TokenSet,
    /// Indices of the defects to train on (the shots).
    pub defect_indices: &'a [usize],
    /// Which patches each defect's mask covers; `None` or no entry where it is not known. Losses of image scores then take
    /// the flaw to be there.
    pub masks: &'a [Option<Vec<bool>>],
}

/// How training ended. The adaptation holds the kept parameters either way.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All epochs done, or stopped early.
    Finished(TrainState),
    /// The cancellation flag was raised; the state is that of the last complete epoch and training can go on from it.
    Interrupted(TrainState),
}

impl Outcome {
    /// The state, however it ended.
    pub fn state(&self) -> &TrainState {
        match self {
            Self::Finished(s) | Self::Interrupted(s) => s,
        }
    }
}

fn check_indices(list: &'static str, indices: &[usize], count: usize) -> Result<(), AdaptError> {
    match indices.iter().find(|&&i| i >= count) {
        Some(&index) => Err(AdaptError::Index { list, index, count }),
        None => Ok(()),
    }
}

pub(super) fn check_tokens(
    adaptation: &Adaptation,
    data: &TrainData<'_>,
) -> Result<(), AdaptError> {
    adaptation.check(data.normals)?;
    adaptation.check(data.defects)?;
    if data.normals.patches() == data.defects.patches() {
        return Ok(());
    }
    Err(AdaptError::Shape {
        name: "defect tokens".to_owned(),
        found: vec![data.defects.grid.0, data.defects.grid.1, data.defects.dim],
        wanted: vec![data.normals.grid.0, data.normals.grid.1, data.normals.dim],
        hint: "; normals and defects must be resized to the same grid",
    })
}

/// The images a run draws its batches from: how many there are of each kind, and which of them train.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) normals: usize,
    pub(super) normal_indices: &'a [usize],
    pub(super) defects: usize,
    pub(super) defect_indices: &'a [usize],
}

/// Checks everything that does not depend on what is trained.
pub(super) fn check(data: Choice<'_>, options: &TrainOptions) -> Result<(), AdaptError> {
    check_indices("normal indices", data.normal_indices, data.normals)?;
    check_indices("defect indices", data.defect_indices, data.defects)?;
    super::loss::check_counts(
        data.normal_indices.len().min(options.batch_size),
        data.defect_indices.len(),
    )?;
    let option = |option, found: String, wanted: &str| {
        Err(AdaptError::Option {
            option,
            found,
            wanted: wanted.to_owned(),
        })
    };
    if options.epochs == 0 {
        return option("number of epochs", "0".to_owned(), "at least 1 is needed");
    }
    if !(options.learning_rate.is_finite() && options.learning_rate > 0.0) {
        return option(
            "learning rate",
            options.learning_rate.to_string(),
            "it is a positive number, such as 0.001",
        );
    }
    let pull = options.scale_penalty.0;
    if !(pull.is_finite() && pull >= 0.0) {
        return option(
            "scale penalty",
            pull.to_string(),
            "it is a number from 0, such as 1",
        );
    }
    if let Some(limit) = options.clip_norm.filter(|l| l.is_nan() || *l <= 0.0) {
        return option(
            "gradient clipping",
            limit.to_string(),
            "it is a positive number",
        );
    }
    if options.patience.is_some() && options.hold_out.is_none() {
        return option(
            "early stopping",
            "on".to_owned(),
            "it needs a hold-out to look at",
        );
    }
    let Some(hold_out) = &options.hold_out else {
        return Ok(());
    };
    check_indices("hold-out normals", &hold_out.normals, data.normals)?;
    check_indices("hold-out defects", &hold_out.defects, data.defects)?;
    check_indices("hold-out support", &hold_out.support, data.normals)?;
    let auroc = hold_out.metric != super::HoldOutMetric::Separability;
    for (what, found, wanted) in [
        (
            "hold-out normals",
            hold_out.normals.len(),
            if auroc { 1 } else { 2 },
        ),
        ("hold-out defects", hold_out.defects.len(), 1),
        (
            "hold-out support images",
            hold_out.support.len(),
            usize::from(auroc),
        ),
    ] {
        if found < wanted {
            return Err(AdaptError::TooFewImages {
                what,
                found,
                wanted,
                why: " to measure the hold-out",
            });
        }
    }
    Ok(())
}

/// Trains the adaptation's parameters on frozen tokens.
///
/// With the same seed, data and options the result is the same to the last bit, for any number of threads and whether
/// or not training was interrupted and resumed. `cancel` is looked at before every step. `resume` continues a run that
/// was interrupted; the settings must be the same.
///
/// # Errors
/// Any of [`AdaptError`]: settings, data or state that do not fit, or numbers that are no longer finite.
pub fn train(
    adaptation: &mut Adaptation,
    data: &TrainData<'_>,
    options: &TrainOptions,
    resume: Option<TrainState>,
    cancel: &AtomicBool,
    on_epoch: &mut dyn FnMut(&EpochReport),
) -> Result<Outcome, AdaptError> {
    check_tokens(adaptation, data)?;
    let choice = Choice {
        normals: data.normals.images.len(),
        normal_indices: data.normal_indices,
        defects: data.defects.images.len(),
        defect_indices: data.defect_indices,
    };
    check(choice, options)?;
    // one step an epoch visits a pair too rarely for a match to be worth keeping
    let keep_matches = options.keep_matches && options.epoch_steps == EpochSteps::FullPass;
    let mut learner = FrozenTokens::new(adaptation, *data, options.hold_out.as_ref(), keep_matches);
    run(&mut learner, choice, options, resume, cancel, on_epoch)
}

/// The loop: trains whatever can say what a batch costs and where the gradient goes. The inputs must be checked.
pub(super) fn run(
    learner: &mut dyn Learner,
    choice: Choice<'_>,
    options: &TrainOptions,
    resume: Option<TrainState>,
    cancel: &AtomicBool,
    on_epoch: &mut dyn FnMut(&EpochReport),
) -> Result<Outcome, AdaptError> {
    let (normal_indices, defect_indices) = (choice.normal_indices, choice.defect_indices);
    let settings = Settings::of(options, normal_indices.len(), defect_indices.len());
    let mut sampler = Sampler::new(
        options.seed,
        normal_indices.len(),
        defect_indices.len(),
        options.batch_size,
    );
    let defects = defect_indices.len();
    let mut state = begin(learner, (&mut sampler, defects), settings, options, resume)?;
    let mut adam = state.adam.clone();
    let mut gradients = Gradients::zeros_for(learner.parameters());
    let mut interrupted = false;
    let last = options
        .last_epoch
        .map_or(options.epochs, |last| last.min(options.epochs));
    'epochs: for epoch in state.epochs_done..last {
        if stopped_early(&state, options.patience) {
            break;
        }
        let start = Instant::now();
        let rate = cosine_rate(options.learning_rate, epoch, options.epochs);
        let batches = sampler.epoch(options.epoch_steps);
        let mut sums = [0.0f64; 7];
        for (step, batch) in batches.iter().enumerate() {
            if cancel.load(Ordering::Relaxed) {
                interrupted = true;
                break 'epochs;
            }
            let batch = Batch {
                normals: batch.iter().map(|&i| normal_indices[i]).collect(),
                defects: sampler
                    .defects()
                    .iter()
                    .map(|&i| defect_indices[i])
                    .collect(),
                step: adam.steps(),
            };
            let at = (epoch + 1, step + 1);
            let values = one_step(
                learner,
                &batch,
                options,
                &mut gradients,
                (&mut adam, rate),
                at,
            )?;
            sums.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
        }
        let [loss, separability, mu_nn, mu_nd, sd_nn, sd_nd, grad_norm] =
            sums.map(|s| s / batches.len() as f64);
        let hold_out = match &options.hold_out {
            Some(h) if (epoch + 1).is_multiple_of(h.every.max(1)) || epoch + 1 == last => {
                Some(learner.measure(h.metric, true)?)
            }
            _ => None,
        };
        let record = EpochRecord {
            epoch: epoch + 1,
            loss,
            separability,
            mu_nn,
            mu_nd,
            sd_nn,
            sd_nd,
            learning_rate: rate,
            grad_norm,
            hold_out,
        };
        state.parameters.copy_from(learner.parameters())?;
        state.adam.clone_from(&adam);
        state.sampler = sampler.state();
        state.epochs_done = epoch + 1;
        state.history.push(record);
        if let Some(metric) = hold_out.filter(|&m| state.best.as_ref().is_none_or(|b| m > b.metric))
        {
            state.best = Some(Best {
                epoch: epoch + 1,
                metric,
                parameters: state.parameters.clone(),
            });
        }
        on_epoch(&EpochReport {
            record,
            epochs: options.epochs,
            seconds: start.elapsed().as_secs_f64(),
        });
    }
    learner.parameters_mut().copy_from(state.kept())?;
    Ok(if interrupted {
        Outcome::Interrupted(state)
    } else {
        Outcome::Finished(state)
    })
}

/// The state that training goes on from, or that it begins with.
fn begin(
    learner: &mut dyn Learner,
    (sampler, defects): (&mut Sampler, usize),
    settings: Settings,
    options: &TrainOptions,
    resume: Option<TrainState>,
) -> Result<TrainState, AdaptError> {
    if let Some(state) = resume {
        state.settings.check(&settings)?;
        learner.parameters_mut().copy_from(&state.parameters)?;
        if !sampler.restore(&state.sampler) {
            return Err(AdaptError::Resume {
                what: "the order of the defects",
                saved: format!("{:?}", state.sampler.order),
                asked: format!("of {defects} images"),
            });
        }
        return Ok(state);
    }
    let hold_out = options.hold_out.as_ref();
    let zero_shot = hold_out.map(|h| learner.measure(h.metric, false));
    Ok(TrainState {
        zero_shot_hold_out: zero_shot.transpose()?,
        settings,
        parameters: learner.parameters().clone(),
        adam: Adam::new(learner.parameters()),
        sampler: sampler.state(),
        epochs_done: 0,
        best: None,
        history: Vec::new(),
    })
}

/// One step of Adam at a learning rate. Returns loss, separability, means and deviations of the similarities, and the norm of the
/// gradient; `(epoch, step)` are for errors.
fn one_step(
    learner: &mut dyn Learner,
    batch: &Batch,
    options: &TrainOptions,
    gradients: &mut Gradients,
    (adam, rate): (&mut Adam, f64),
    (epoch, step): (usize, usize),
) -> Result<[f64; 7], AdaptError> {
    let mut found = learner.forward(batch, options.loss)?;
    let not_finite = |what: &str| AdaptError::NotFinite {
        what: what.to_owned(),
        epoch,
        step,
    };
    if !found.loss.is_finite() {
        return Err(not_finite("loss"));
    }
    gradients.clear();
    learner.backward(gradients)?;
    found.loss += options
        .scale_penalty
        .add(learner.parameters(), &mut gradients.parameters);
    let norm = clip_norm(&mut gradients.parameters, options.clip_norm);
    if !norm.is_finite() {
        return Err(not_finite("gradient"));
    }
    adam.step(learner.parameters_mut(), &gradients.parameters, rate)?;
    let s = found.stats;
    Ok([
        found.loss,
        s.separability(),
        s.mu_nn,
        s.mu_nd,
        s.sd_nn,
        s.sd_nd,
        norm,
    ])
}

/// Whether the best epoch lies further back than the patience.
fn stopped_early(state: &TrainState, patience: Option<usize>) -> bool {
    match (patience, &state.best) {
        (Some(patience), Some(best)) => state.epochs_done - best.epoch >= patience.max(1),
        _ => false,
    }
}
