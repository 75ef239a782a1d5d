//! The training loop: what changes and what does not, resuming, cancelling, choosing the epoch.

#![allow(clippy::unwrap_used)] // a test may stop

use std::sync::atomic::{AtomicBool, Ordering};

use flawtune::features::{ImageTokens, TokenSet};
use flawtune::random::{Purpose, Stream};
use flawtune_lab::adapt::{
    AdaptError, Adaptation, AdaptationOptions, Checkpoint, EpochSteps, HoldOut, HoldOutMetric,
    Loss, ModulationType, Outcome, ScoreComparison, ScoreLoss, TrainData, TrainOptions, TrainState,
    train,
};

const GRID: (usize, usize) = (3, 4);
const DIM: usize = 16;

/// Images around a common base; the patches of defects are moved where a flaw is.
fn tokens(count: usize, flaw: f64, seed: u64) -> TokenSet {
    let patches = GRID.0 * GRID.1;
    let mut base = Stream::new(99, Purpose::Init);
    let base: Vec<f64> = (0..(1 + patches) * DIM)
        .map(|_| 2.0 * base.uniform() - 1.0)
        .collect();
    let mut noise = Stream::new(seed, Purpose::Init);
    let images = (0..count).map(|_| {
        let shift: Vec<f64> = (0..DIM).map(|_| flaw * (noise.uniform() - 0.5)).collect();
        let values = base.iter().enumerate().map(|(i, b)| {
            let flawed = if (i / DIM).is_multiple_of(4) {
                shift[i % DIM]
            } else {
                0.0
            };
            (b + 0.5 * (noise.uniform() - 0.5) + flawed) as f32
        });
        ImageTokens::owned(values.collect(), patches, DIM)
    });
    TokenSet {
        grid: GRID,
        dim: DIM,
        images: images.collect(),
    }
}

struct Setup {
    normals: TokenSet,
    defects: TokenSet,
    normal_indices: Vec<usize>,
    defect_indices: Vec<usize>,
}

impl Setup {
    fn new() -> Self {
        Self {
            normals: tokens(30, 0.0, 1),
            defects: tokens(9, 3.0, 2),
            normal_indices: (0..20).collect(),
            defect_indices: vec![0, 2, 3, 5, 6],
        }
    }

    fn data(&self) -> TrainData<'_> {
        TrainData {
            normals: &self.normals,
            normal_indices: &self.normal_indices,
            defects: &self.defects,
            defect_indices: &self.defect_indices,
            masks: &[],
        }
    }
}

fn fresh(modulation: ModulationType, use_cls: bool) -> Adaptation {
    let options = AdaptationOptions {
        modulation,
        num_prompts: 4,
        scaling_factor: 0.3,
        use_cls,
        seed: 11,
        ..Default::default()
    };
    Adaptation::new(options, DIM).unwrap()
}

fn options() -> TrainOptions {
    TrainOptions {
        epochs: 6,
        learning_rate: 0.01,
        batch_size: 6,
        seed: 5,
        hold_out: Some(HoldOut {
            normals: (20..30).collect(),
            defects: vec![1, 4, 7, 8],
            support: (0..8).collect(),
            metric: HoldOutMetric::Auroc,
            every: 1,
        }),
        ..TrainOptions::default()
    }
}

fn run(adaptation: &mut Adaptation, options: &TrainOptions, resume: Option<TrainState>) -> Outcome {
    let setup = Setup::new();
    train(
        adaptation,
        &setup.data(),
        options,
        resume,
        &AtomicBool::new(false),
        &mut |_| {},
    )
    .unwrap()
}

#[test]
fn every_trained_tensor_moves_and_the_loss_falls() {
    for (modulation, use_cls) in [
        (ModulationType::Global, false),
        (ModulationType::PerPatch, false),
        (ModulationType::LearnedTransform, false),
        (ModulationType::PerPatch, true),
    ] {
        // far from solved at the start
        let scores = |comparison| {
            Loss::Scores(ScoreLoss {
                comparison,
                top_fraction: 0.5,
                temperature: 0.5,
            })
        };
        for loss in [
            Loss::Separability,
            Loss::Contrastive { margin: 0.2 },
            scores(ScoreComparison::Ranking),
            scores(ScoreComparison::Logistic),
        ] {
            let start = fresh(modulation, use_cls);
            let mut adaptation = start.clone();
            // all images in every batch, so that the losses of two epochs can be compared
            let options = TrainOptions {
                epochs: 30,
                batch_size: 20,
                loss,
                hold_out: None,
                ..options()
            };
            let state = run(&mut adaptation, &options, None).state().clone();
            for (before, after) in start
                .parameters()
                .iter()
                .zip(adaptation.parameters().iter())
            {
                assert_ne!(
                    before.data, after.data,
                    "{modulation} {loss} {}",
                    before.name
                );
                assert!(after.data.iter().all(|v| v.is_finite()));
            }
            let (first, last) = (state.history[0], state.history[29]);
            assert!(
                last.loss < first.loss,
                "{modulation} cls {use_cls} {loss}: {} to {}",
                first.loss,
                last.loss
            );
            assert_eq!(state.history.len(), 30);
            assert_eq!((state.kept_epoch(), state.epochs_done), (30, 30));
        }
    }
}

#[test]
fn kept_matches_change_no_bit() {
    for modulation in ModulationType::ALL {
        for learning_rate in [1e-4, 1e-2, 1.0] {
            let run = |keep_matches| {
                let mut adaptation = fresh(modulation, false);
                let options = TrainOptions {
                    epochs: 12,
                    learning_rate,
                    keep_matches,
                    ..options()
                };
                let state = run(&mut adaptation, &options, None).state().clone();
                (
                    state.history,
                    state.parameters,
                    adaptation.parameters().clone(),
                )
            };
            assert_eq!(run(true), run(false), "{modulation} {learning_rate}");
        }
    }
}

#[test]
fn counts_of_trained_numbers() {
    let count = |m, cls, k| {
        let o = AdaptationOptions {
            modulation: m,
            num_prompts: k,
            use_cls: cls,
            ..Default::default()
        };
        Adaptation::new(o, 384).unwrap().parameters().count()
    };
    assert_eq!(count(ModulationType::PerPatch, false, 10), 3_840 + 10);
    assert_eq!(count(ModulationType::Global, false, 10), 3_840 + 10);
    assert_eq!(
        count(ModulationType::LearnedTransform, false, 10),
        3_850 + 3 * 384 * 384 + 2 * 384
    );
    // the class token has one formula
    assert_eq!(count(ModulationType::LearnedTransform, true, 10), 3_850);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let losses = [
        Loss::Separability,
        Loss::Scores(ScoreLoss::new(ScoreComparison::Ranking)),
    ];
    for (modulation, loss) in ModulationType::ALL
        .into_iter()
        .flat_map(|m| losses.map(|l| (m, l)))
    {
        let options = || TrainOptions { loss, ..options() };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut adaptation = fresh(modulation, false);
                let outcome = run(&mut adaptation, &options(), None);
                (adaptation.parameters().clone(), outcome.state().clone())
            })
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(one, run(threads), "{modulation}, {loss}, {threads} threads");
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_happened() {
    let setup = Setup::new();
    for (stop_after, loss) in [
        (0, "separability"),
        (1, "ranking"),
        (4, "separability"),
        (4, "logistic"),
    ] {
        let options = || TrainOptions {
            loss: loss.parse().unwrap(),
            ..options()
        };
        let mut whole = fresh(ModulationType::PerPatch, false);
        let wanted = run(&mut whole, &options(), None);

        let cancel = AtomicBool::new(stop_after == 0);
        let mut adaptation = fresh(ModulationType::PerPatch, false);
        let outcome = train(
            &mut adaptation,
            &setup.data(),
            &options(),
            None,
            &cancel,
            &mut |report| {
                if report.record.epoch == stop_after {
                    cancel.store(true, Ordering::Relaxed);
                }
            },
        );
        let Outcome::Interrupted(state) = outcome.unwrap() else {
            panic!("not interrupted")
        };
        assert_eq!(state.epochs_done, stop_after);
        // through a file, as on the command line
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::new("dinov3_vits16", "tile", &adaptation, &state);
        checkpoint.resume = Some(state.clone());
        let read = Checkpoint::read(&checkpoint.save(folder.path()).unwrap()).unwrap();
        assert_eq!(read.resume.as_ref(), Some(&state));

        let mut adaptation = read.adaptation().unwrap();
        let found = run(&mut adaptation, &options(), read.resume);
        assert!(matches!(found, Outcome::Finished(_)));
        assert_eq!(found.state(), wanted.state(), "stopped after {stop_after}");
        assert_eq!(adaptation.parameters(), whole.parameters());
    }
}

#[test]
fn other_settings_cannot_resume() {
    let mut adaptation = fresh(ModulationType::PerPatch, false);
    let state = run(&mut adaptation, &options(), None).state().clone();
    let setup = Setup::new();
    let mut refused = |options: &TrainOptions, what: &str| {
        let cancel = AtomicBool::new(false);
        let found = train(
            &mut adaptation,
            &setup.data(),
            options,
            Some(state.clone()),
            &cancel,
            &mut |_| {},
        );
        assert!(
            matches!(found, Err(AdaptError::Resume { what: w, .. }) if w == what),
            "{what}"
        );
    };
    refused(
        &TrainOptions {
            seed: 6,
            ..options()
        },
        "the seed",
    );
    refused(
        &TrainOptions {
            epochs: 7,
            ..options()
        },
        "the number of epochs",
    );
    refused(
        &TrainOptions {
            learning_rate: 0.02,
            ..options()
        },
        "the learning rate",
    );
    refused(
        &TrainOptions {
            epoch_steps: EpochSteps::One,
            ..options()
        },
        "the length of an epoch",
    );
    refused(
        &TrainOptions {
            loss: Loss::Contrastive { margin: 0.5 },
            ..options()
        },
        "the loss",
    );
    let ranking = Loss::Scores(ScoreLoss::new(ScoreComparison::Ranking));
    refused(
        &TrainOptions {
            loss: ranking,
            ..options()
        },
        "the loss",
    );
    let mut other = fresh(ModulationType::LearnedTransform, false);
    let cancel = AtomicBool::new(false);
    let found = train(
        &mut other,
        &setup.data(),
        &options(),
        Some(state.clone()),
        &cancel,
        &mut |_| {},
    );
    assert!(matches!(found, Err(AdaptError::Missing { .. })));
}

#[test]
fn the_best_epoch_is_kept_and_patience_ends_the_run() {
    let mut adaptation = fresh(ModulationType::PerPatch, false);
    let mut seen = Vec::new();
    let setup = Setup::new();
    let options = TrainOptions {
        epochs: 50,
        patience: Some(3),
        learning_rate: 0.05,
        ..options()
    };
    let cancel = AtomicBool::new(false);
    let outcome = train(
        &mut adaptation,
        &setup.data(),
        &options,
        None,
        &cancel,
        &mut |r| {
            seen.push(r.record.hold_out.unwrap());
        },
    )
    .unwrap();
    let state = outcome.state();
    let top = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let first = seen.iter().position(|&m| m == top).unwrap() + 1;
    let best = state.best.as_ref().unwrap();
    assert_eq!((best.metric, best.epoch), (top, first));
    assert_eq!(adaptation.parameters(), &best.parameters);
    assert_eq!(state.epochs_done, (first + 3).min(50));
    assert!(state.zero_shot_hold_out.is_some());
}

#[test]
fn one_step_an_epoch_takes_one_step() {
    let mut adaptation = fresh(ModulationType::PerPatch, false);
    let options = TrainOptions {
        epoch_steps: EpochSteps::One,
        hold_out: None,
        ..options()
    };
    assert_eq!(run(&mut adaptation, &options, None).state().adam.steps(), 6);
    let options = TrainOptions {
        epoch_steps: EpochSteps::FullPass,
        ..options
    };
    // 20 normals in batches of 6: three steps, the short fourth is dropped
    assert_eq!(
        run(&mut fresh(ModulationType::PerPatch, false), &options, None)
            .state()
            .adam
            .steps(),
        18
    );
}

#[test]
fn clipping_bounds_the_step() {
    let clipped = TrainOptions {
        clip_norm: Some(1e-9),
        hold_out: None,
        ..options()
    };
    let mut adaptation = fresh(ModulationType::PerPatch, false);
    let state = run(&mut adaptation, &clipped, None).state().clone();
    assert!(
        state.history[0].grad_norm > 1e-9,
        "the norm is reported before clipping"
    );
    let largest = state.adam.momentum_norm();
    assert!(largest <= 1e-9, "{largest}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a case for each input")]
fn wrong_input_is_refused_before_training() {
    let setup = Setup::new();
    let refuse = |data: &TrainData<'_>, options: &TrainOptions| {
        let mut adaptation = fresh(ModulationType::PerPatch, false);
        train(
            &mut adaptation,
            data,
            options,
            None,
            &AtomicBool::new(false),
            &mut |_| panic!("trained"),
        )
        .unwrap_err()
    };
    let data = setup.data();
    let none = TrainData {
        defect_indices: &[],
        ..data
    };
    assert!(matches!(
        refuse(&none, &options()),
        AdaptError::TooFewImages { found: 0, .. }
    ));
    let one = TrainData {
        normal_indices: &[3],
        ..data
    };
    assert!(matches!(
        refuse(&one, &options()),
        AdaptError::TooFewImages {
            found: 1,
            wanted: 2,
            ..
        }
    ));
    let beyond = TrainData {
        defect_indices: &[0, 9],
        ..data
    };
    assert!(matches!(
        refuse(&beyond, &options()),
        AdaptError::Index {
            index: 9,
            count: 9,
            ..
        }
    ));
    let alone = TrainOptions {
        batch_size: 1,
        ..options()
    };
    assert!(matches!(
        refuse(&data, &alone),
        AdaptError::TooFewImages { .. }
    ));
    let blind = TrainOptions {
        hold_out: None,
        patience: Some(2),
        ..options()
    };
    assert!(matches!(
        refuse(&data, &blind),
        AdaptError::Option {
            option: "early stopping",
            ..
        }
    ));
    let fast = TrainOptions {
        learning_rate: f64::NAN,
        ..options()
    };
    assert!(matches!(
        refuse(&data, &fast),
        AdaptError::Option {
            option: "learning rate",
            ..
        }
    ));
    let wide = TokenSet {
        dim: 8,
        grid: GRID,
        images: vec![],
    };
    assert!(matches!(
        refuse(
            &TrainData {
                defects: &wide,
                ..data
            },
            &options()
        ),
        AdaptError::Shape { .. }
    ));
    let mut broken = tokens(9, 3.0, 2);
    broken.images[0] = ImageTokens::owned(vec![f32::NAN; 13 * DIM], 12, DIM);
    let nan = TrainData {
        defects: &broken,
        defect_indices: &[0],
        ..data
    };
    let nan = refuse(
        &nan,
        &TrainOptions {
            hold_out: None,
            ..options()
        },
    );
    assert!(
        matches!(
            nan,
            AdaptError::NotFinite {
                epoch: 1,
                step: 1,
                ..
            }
        ),
        "{nan}"
    );
}
