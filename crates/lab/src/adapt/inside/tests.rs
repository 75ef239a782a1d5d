//! Every combination of inserted tensors on tiny random backbones: gradients, training, saving, resuming.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::torch_file::Value;
use flawtune_backbone::vjp::{
    Embedded, FrozenVit, InsertionSpec, Insertions, PromptDepth, Scaling,
};
use flawtune_backbone::weights::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};

use super::learner::Inside;
use super::*;
use crate::adapt::learner::{Batch, Learner};
use crate::adapt::{
    AdaptError, Adaptation, AdaptationOptions, Checkpoint, EpochSteps, Gradients, HoldOut,
    HoldOutMetric, Loss, Outcome, Parameters, ScoreComparison, ScoreLoss, TrainOptions, TrainState,
};
use flawtune::features::ForwardError;
use flawtune::random::{Purpose, Stream};

const DIM: usize = 16;
const DEPTH: usize = 2;
const GRID: (usize, usize) = (3, 4);
const NORMALS: usize = 10;
const DEFECTS: usize = 4;

fn linear(s: &mut Stream, outputs: usize, inputs: usize) -> Linear {
    let bytes = s
        .xavier(outputs, inputs, 1.5)
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let weight = StoredTensor {
        storage: Storage::Owned(Arc::new(bytes)),
        offset: 0,
        dtype: DType::F32,
        shape: vec![outputs, inputs],
    };
    Linear {
        weight: vec![weight],
        bias: s.xavier(1, outputs, 0.2),
        inputs,
        outputs,
    }
}

fn norm(s: &mut Stream) -> Norm {
    let weight = s.xavier(1, DIM, 0.3).iter().map(|v| 1.0 + v).collect();
    Norm {
        weight,
        bias: s.xavier(1, DIM, 0.2),
    }
}

/// Rotary positions, registers and an MLP; or learned positions and `SwiGLU`.
fn backbone(family: Family) -> FrozenVit {
    let rotary = family == Family::DinoV3;
    let (hidden, registers) = (24, if rotary { 2 } else { 0 });
    let position = if rotary {
        Position::Rope {
            base: 100.0,
            round_periods: false,
        }
    } else {
        Position::Learned { grid: 4 }
    };
    let config = VitConfig {
        name: "tiny".to_owned(),
        family,
        patch_size: 4,
        dim: DIM,
        depth: DEPTH,
        heads: 2,
        registers,
        feed_forward: if rotary {
            FeedForward::Mlp
        } else {
            FeedForward::SwiGlu
        },
        hidden,
        norm_eps: 1e-6,
        position,
        normalization: Normalization::IMAGENET,
    };
    let s = &mut Stream::new(8, Purpose::Init);
    let block = |s: &mut Stream| BlockWeights {
        norm1: norm(s),
        qkv: linear(s, 3 * DIM, DIM),
        proj: linear(s, DIM, DIM),
        scale1: vec![0.8; DIM],
        norm2: norm(s),
        feed_forward: if rotary {
            FeedForwardWeights::Mlp {
                fc1: linear(s, hidden, DIM),
                fc2: linear(s, DIM, hidden),
            }
        } else {
            FeedForwardWeights::SwiGlu {
                gate: linear(s, hidden, DIM),
                up: linear(s, hidden, DIM),
                down: linear(s, DIM, hidden),
            }
        },
        scale2: vec![0.7; DIM],
    };
    let weights = VitWeights {
        cls: s.xavier(1, DIM, 1.0),
        registers: s.xavier(registers, DIM, 1.0),
        patch: linear(s, DIM, 3 * 16),
        positions: (!rotary).then(|| s.xavier(17, DIM, 1.0)),
        blocks: (0..DEPTH).map(|_| block(s)).collect(),
        norm: norm(s),
        content_hash: String::new(),
    };
    FrozenVit::new(&config, &weights).unwrap()
}

/// Embedded images around a common base; some patches of the defects are moved.
struct Images {
    tokens: Vec<Vec<f32>>,
}

impl Images {
    fn new(backbone: &FrozenVit) -> Self {
        let prefix = backbone.config().prefix();
        let rows = prefix + GRID.0 * GRID.1;
        let s = &mut Stream::new(21, Purpose::Init);
        let base: Vec<f64> = (0..rows * DIM).map(|_| 2.0 * s.uniform() - 1.0).collect();
        let image = |i: usize| {
            let flaw: Vec<f64> = (0..DIM)
                .map(|_| {
                    if i < NORMALS {
                        0.0
                    } else {
                        2.0 * s.uniform() - 1.0
                    }
                })
                .collect();
            let value = |(at, b): (usize, &f64)| {
                let flawed = at / DIM >= prefix && (at / DIM).is_multiple_of(3);
                (b + 0.8 * (s.uniform() - 0.5) + if flawed { flaw[at % DIM] } else { 0.0 }) as f32
            };
            base.iter().enumerate().map(value).collect()
        };
        Self {
            tokens: (0..NORMALS + DEFECTS).map(image).collect(),
        }
    }
}

impl Embed for Images {
    fn grid(&self) -> (usize, usize) {
        GRID
    }

    fn embed(&self, images: &[usize]) -> Result<Vec<f32>, ForwardError> {
        Ok(images
            .iter()
            .flat_map(|&i| self.tokens[i].iter().copied())
            .collect())
    }
}

const PLAIN: InsideOptions = InsideOptions {
    prompt_depth: PromptDepth::Output,
    num_prompts: 3,
    adapter_dim: None,
    scaling: Scaling::Fixed,
    prompt_dropout: 0.0,
    prompt_init: PromptInit::Xavier,
    modulate_output: false,
};

/// Every combination that makes sense.
fn combinations() -> Vec<InsideOptions> {
    let mut out = Vec::new();
    for prompt_depth in [PromptDepth::Output, PromptDepth::Shallow, PromptDepth::Deep] {
        for adapter_dim in [None, Some(2)] {
            for scaling in [Scaling::Fixed, Scaling::Scalar, Scaling::Channel] {
                for prompt_dropout in [0.0, 0.3] {
                    for prompt_init in [PromptInit::Xavier, PromptInit::Patches] {
                        for modulate_output in [false, true] {
                            let base = InsideOptions {
                                prompt_depth,
                                adapter_dim,
                                scaling,
                                ..PLAIN
                            };
                            out.push(InsideOptions {
                                prompt_dropout,
                                prompt_init,
                                modulate_output,
                                ..base
                            });
                        }
                    }
                }
            }
        }
    }
    out.retain(|o| o.check().is_ok());
    // outputs with adapters: 3 scalings · 2; shallow and deep: 2 · 2 · 3 · 2 · 2 · 2
    assert_eq!(out.len(), 6 + 96);
    out
}

fn training() -> TrainOptions {
    TrainOptions {
        epochs: 2,
        learning_rate: 0.01,
        batch_size: 4,
        epoch_steps: EpochSteps::One,
        seed: 5,
        hold_out: Some(HoldOut {
            normals: vec![8, 9],
            defects: vec![3],
            support: vec![0, 1, 2],
            metric: HoldOutMetric::Auroc,
            every: 1,
        }),
        ..TrainOptions::default()
    }
}

fn adaptation(inside: &InsideOptions, use_cls: bool) -> Adaptation {
    let options = AdaptationOptions {
        num_prompts: 3,
        scaling_factor: 0.5,
        use_cls,
        seed: 4,
        ..Default::default()
    };
    Adaptation::new(inside.output(&options), DIM).unwrap()
}

fn data(images: &Images) -> InsideData<'_> {
    InsideData {
        images,
        normals: NORMALS,
        normal_indices: &[0, 1, 2, 3, 4, 5, 6, 7],
        defects: DEFECTS,
        defect_indices: &[0, 1, 2],
        masks: &[],
        memory: DEFAULT_MEMORY,
    }
}

struct Trained {
    state: TrainState,
    interrupted: bool,
    inserted: Inserted,
    adaptation: Adaptation,
}

impl Trained {
    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::new("tiny", "tile", &self.adaptation, &self.state);
        checkpoint.inserted = Some(self.inserted.clone());
        checkpoint.resume = self.interrupted.then(|| self.state.clone());
        checkpoint
    }
}

fn run(
    backbone: &FrozenVit,
    inside: &InsideOptions,
    options: &TrainOptions,
    resume: Option<TrainState>,
    stop_after: usize,
) -> Trained {
    let images = Images::new(backbone);
    let mut adaptation = adaptation(inside, false);
    let cancel = AtomicBool::new(false);
    let model = InsideModel {
        backbone,
        layer: DEPTH - 1,
    };
    let found = train_inside(
        model,
        inside,
        &mut adaptation,
        data(&images),
        options,
        resume,
        &cancel,
        &mut |report| {
            cancel.store(report.record.epoch == stop_after, Ordering::Relaxed);
        },
    );
    let (outcome, inserted) = found.unwrap();
    let interrupted = matches!(outcome, Outcome::Interrupted(_));
    Trained {
        state: outcome.state().clone(),
        interrupted,
        inserted,
        adaptation,
    }
}

/// A learner with its first values and no hold-out.
fn learner<'a>(
    backbone: &'a FrozenVit,
    inside: &'a InsideOptions,
    images: &'a Images,
    output: &'a mut Adaptation,
) -> Inside<'a> {
    let each = images.tokens[0].len();
    let mut embedded = EmbeddedImages::new(images, NORMALS + DEFECTS, each, DEFAULT_MEMORY);
    let start = initial(inside, backbone, &mut embedded, &[0, 1, 2, 3], 4).unwrap();
    Inside::new(
        (backbone, DEPTH - 1),
        inside,
        (embedded, NORMALS, &[]),
        None,
        4,
        start,
        output,
    )
    .unwrap()
}

fn batch() -> Batch {
    Batch {
        normals: vec![0, 1, 2, 3],
        defects: vec![0, 1, 2],
        step: 3,
    }
}

fn bits(p: &Parameters) -> Vec<u32> {
    p.iter()
        .flat_map(|t| &t.data)
        .map(|v| v.to_bits())
        .collect()
}

fn plain_tokens(backbone: &FrozenVit) -> Vec<f32> {
    let none = Insertions::zeros(InsertionSpec::none(backbone.config())).unwrap();
    let tokens = Images::new(backbone).tokens.concat();
    backbone
        .forward(
            Embedded {
                tokens: &tokens,
                grid: GRID,
            },
            &none,
            &[DEPTH - 1],
        )
        .unwrap()
        .remove(0)
}

#[test]
fn every_combination_trains_saves_and_resumes() {
    for family in [Family::DinoV3, Family::DinoV2] {
        let backbone = backbone(family);
        let untouched = plain_tokens(&backbone);
        for inside in combinations() {
            // every tensor has a gradient from the first step on
            let images = Images::new(&backbone);
            let mut output = adaptation(&inside, false);
            let mut learner = learner(&backbone, &inside, &images, &mut output);
            let mut gradients = Gradients::zeros_for(learner.parameters());
            learner.forward(&batch(), Loss::Separability).unwrap();
            learner.backward(&mut gradients).unwrap();
            for t in &gradients.parameters {
                assert!(
                    t.data.iter().all(|v| v.is_finite()),
                    "{inside:?} {}",
                    t.name
                );
                assert!(
                    t.data.iter().any(|v| *v != 0.0),
                    "{inside:?}: {} has no gradient",
                    t.name
                );
            }

            // two steps: as many tensors as were asked for, saved and loaded to the same bytes
            let folder = tempfile::tempdir().unwrap();
            let whole = run(&backbone, &inside, &training(), None, 0);
            assert!(!whole.interrupted && whole.state.epochs_done == 2);
            let own = if inside.modulate_output {
                whole.adaptation.parameters().count()
            } else {
                0
            };
            assert_eq!(
                whole.state.parameters.count(),
                inside.spec(backbone.config()).count() + own,
                "{inside:?}"
            );
            let path = whole
                .checkpoint()
                .save(&folder.path().join("whole"))
                .unwrap();
            let read = Checkpoint::read(&path).unwrap();
            assert_eq!(read.inserted.as_ref(), Some(&whole.inserted), "{inside:?}");
            assert_eq!(read.parameters, *whole.adaptation.parameters());
            assert_eq!((read.format_version, read.others.len()), (Some(2), 0));
            let again = read.save(&folder.path().join("again")).unwrap();
            assert_eq!(
                std::fs::read(&path).unwrap(),
                std::fs::read(again).unwrap(),
                "{inside:?}"
            );

            // interrupted after the first step, through a file, and on
            let half = run(&backbone, &inside, &training(), None, 1);
            assert!(half.interrupted && half.state.epochs_done == 1);
            let state = half.checkpoint().save(&folder.path().join("half")).unwrap();
            let state = Checkpoint::read(&state).unwrap();
            let on = run(&backbone, &inside, &training(), state.resume, 0);
            let resumed = on
                .checkpoint()
                .save(&folder.path().join("resumed"))
                .unwrap();
            assert_eq!(
                std::fs::read(&path).unwrap(),
                std::fs::read(resumed).unwrap(),
                "{inside:?}"
            );
        }
        let same = plain_tokens(&backbone)
            .iter()
            .zip(&untouched)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "the frozen weights changed");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a case for each tensor")]
fn gradients_agree_with_finite_differences_through_the_whole_chain() {
    /// Half the length of the way along a unit direction. The loss, in f32, is off by about 1e-6.
    const HALF: f64 = 4e-3;
    /// Where best matches change the slope jumps, so that a difference is compared with the mean of the slopes on its
    /// way: those at the middles of so many parts.
    const PARTS: usize = 16;
    /// Part of the tensor's gradient norm (a jump is placed to a sixteenth of the way only), and absolute: the loss's error
    /// over the way, with room.
    const TOLERANCE: (f64, f64) = (0.02, 1e-3);
    let base = InsideOptions {
        adapter_dim: Some(2),
        scaling: Scaling::Channel,
        modulate_output: true,
        ..PLAIN
    };
    for family in [Family::DinoV3, Family::DinoV2] {
        for prompt_depth in [PromptDepth::Shallow, PromptDepth::Deep] {
            for (loss, use_cls) in [
                (Loss::Separability, false),
                (Loss::Contrastive { margin: 0.1 }, false),
                (Loss::Contrastive { margin: 0.1 }, true),
                (
                    Loss::Scores(ScoreLoss {
                        top_fraction: 0.5,
                        ..ScoreLoss::new(ScoreComparison::Ranking)
                    }),
                    false,
                ),
            ] {
                let inside = InsideOptions {
                    prompt_depth,
                    prompt_dropout: 0.2,
                    ..base.clone()
                };
                let backbone = backbone(family);
                let images = Images::new(&backbone);
                let mut output = adaptation(&inside, use_cls);
                let mut learner = learner(&backbone, &inside, &images, &mut output);
                // of one defect it is known where the flaw is, of one that it is nowhere to be seen
                let patches = GRID.0 * GRID.1;
                let masks = [
                    Some((0..patches).map(|p| p % 3 == 1).collect()),
                    None,
                    Some(vec![false; patches]),
                ];
                if matches!(loss, Loss::Scores(_)) {
                    learner.masks = &masks;
                }
                // away from the start, where adapters are nearly switched off
                let s = &mut Stream::new(2, Purpose::Init);
                for v in learner
                    .parameters_mut()
                    .iter_mut()
                    .flat_map(|t| &mut t.data)
                {
                    *v += (0.6 * (s.uniform() - 0.5)) as f32;
                }
                let at = learner.parameters().clone();
                let mut gradients = Gradients::zeros_for(&at);
                learner.forward(&batch(), loss).unwrap();
                learner.backward(&mut gradients).unwrap();
                for (i, g) in gradients.parameters.iter().enumerate() {
                    let size = g
                        .data
                        .iter()
                        .map(|v| f64::from(*v).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    let along: Vec<f64> = g.data.iter().map(|v| f64::from(*v) / size).collect();
                    let random: Vec<f64> = g.data.iter().map(|_| s.uniform() - 0.5).collect();
                    let length = random.iter().map(|v| v * v).sum::<f64>().sqrt();
                    let random: Vec<f64> = random.iter().map(|v| v / length).collect();
                    for direction in [along, random] {
                        // loss and slope after moving tensor i
                        let mut moved = |by: f64| {
                            let to = learner.parameters_mut();
                            to.copy_from(&at).unwrap();
                            let t = to.iter_mut().nth(i).unwrap();
                            t.data
                                .iter_mut()
                                .zip(&direction)
                                .for_each(|(v, d)| *v += (by * d) as f32);
                            let mut there = Gradients::zeros_for(&at);
                            let found = learner.forward(&batch(), loss).unwrap().loss;
                            learner.backward(&mut there).unwrap();
                            let t = there.parameters.iter().nth(i).unwrap();
                            (
                                found,
                                t.data
                                    .iter()
                                    .zip(&direction)
                                    .map(|(g, d)| f64::from(*g) * d)
                                    .sum::<f64>(),
                            )
                        };
                        let found = (moved(HALF).0 - moved(-HALF).0) / (2.0 * HALF);
                        let middle =
                            |part: usize| HALF * ((2 * part + 1) as f64 / PARTS as f64 - 1.0);
                        let wanted =
                            (0..PARTS).map(|p| moved(middle(p)).1).sum::<f64>() / PARTS as f64;
                        assert!(
                            (found - wanted).abs() <= TOLERANCE.0 * size + TOLERANCE.1,
                            "{family:?} {prompt_depth:?} {loss} cls {use_cls} {}: difference {found}, gradient {wanted}, \
                             norm {size}",
                            g.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_loss_falls() {
    let backbone = backbone(Family::DinoV3);
    let deep = InsideOptions {
        prompt_depth: PromptDepth::Deep,
        ..PLAIN
    };
    let shallow = InsideOptions {
        prompt_depth: PromptDepth::Shallow,
        ..PLAIN
    };
    let adapters = InsideOptions {
        adapter_dim: Some(4),
        ..PLAIN
    };
    for inside in [shallow, deep, adapters] {
        for loss in ["separability", "contrastive", "ranking", "logistic"] {
            let loss: Loss = loss.parse().unwrap();
            // all images in every batch, so that the losses of two epochs can be compared
            let options = TrainOptions {
                epochs: 40,
                batch_size: 8,
                loss,
                hold_out: None,
                ..training()
            };
            let history = run(&backbone, &inside, &options, None, 0).state.history;
            assert!(
                history[39].loss < history[0].loss,
                "{inside:?} {loss}: {history:?}"
            );
        }
    }
}

#[test]
fn threads_and_memory_change_no_bit() {
    let backbone = backbone(Family::DinoV2);
    let inside = InsideOptions {
        prompt_depth: PromptDepth::Deep,
        adapter_dim: Some(2),
        scaling: Scaling::Scalar,
        prompt_dropout: 0.4,
        prompt_init: PromptInit::Patches,
        modulate_output: true,
        ..PLAIN
    };
    let with = |threads: usize, memory: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let images = Images::new(&backbone);
            let mut output = adaptation(&inside, false);
            let model = InsideModel {
                backbone: &backbone,
                layer: DEPTH - 1,
            };
            let data = InsideData {
                memory,
                ..data(&images)
            };
            let go = AtomicBool::new(false);
            let (outcome, inserted) = train_inside(
                model,
                &inside,
                &mut output,
                data,
                &training(),
                None,
                &go,
                &mut |_| {},
            )
            .unwrap();
            (
                bits(&outcome.state().parameters),
                bits(output.parameters()),
                inserted.hash(),
            )
        })
    };
    let one = with(1, DEFAULT_MEMORY);
    assert_eq!(one, with(2, DEFAULT_MEMORY));
    assert_eq!(one, with(2, 0));
    // room for some of the images only
    assert_eq!(one, with(3, 3 * 4 * Images::new(&backbone).tokens[0].len()));
}

#[test]
fn dropout_leaves_prompts_out_and_other_steps_others() {
    let backbone = backbone(Family::DinoV3);
    let images = Images::new(&backbone);
    let inside = InsideOptions {
        prompt_depth: PromptDepth::Shallow,
        prompt_dropout: 0.5,
        ..PLAIN
    };
    let mut output = adaptation(&inside, false);
    let mut learner = learner(&backbone, &inside, &images, &mut output);
    let mut loss = |step| {
        learner
            .forward(&Batch { step, ..batch() }, Loss::Separability)
            .unwrap()
            .loss
            .to_bits()
    };
    assert_eq!(loss(0), loss(0));
    assert_ne!(loss(0), loss(1));
}

#[test]
fn combinations_that_make_no_sense_are_named() {
    let refused = |o: InsideOptions, part: &str| {
        let text = o.check().unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    refused(PLAIN, "`prompt_depth` is output; nothing is put");
    refused(
        InsideOptions {
            scaling: Scaling::Channel,
            ..PLAIN
        },
        "`learn_scaling` is channel",
    );
    refused(
        InsideOptions {
            prompt_dropout: 0.1,
            ..PLAIN
        },
        "`prompt_dropout` is 0.1; it needs prompts",
    );
    refused(
        InsideOptions {
            prompt_init: PromptInit::Patches,
            ..PLAIN
        },
        "`prompt_init` is patches",
    );
    refused(
        InsideOptions {
            adapter_dim: Some(0),
            ..PLAIN
        },
        "`adapter_dim` is 0",
    );
    let shallow = InsideOptions {
        prompt_depth: PromptDepth::Shallow,
        ..PLAIN
    };
    refused(
        InsideOptions {
            prompt_dropout: 1.0,
            ..shallow.clone()
        },
        "`prompt_dropout` is 1",
    );
    refused(
        InsideOptions {
            prompt_dropout: f32::NAN,
            ..shallow.clone()
        },
        "`prompt_dropout` is NaN",
    );
    refused(
        InsideOptions {
            num_prompts: 0,
            ..shallow
        },
        "`num_prompts` is 0",
    );
}

#[test]
fn checkpoints_with_wrong_tensors_are_refused() {
    let backbone = backbone(Family::DinoV3);
    let inside = InsideOptions {
        prompt_depth: PromptDepth::Shallow,
        adapter_dim: Some(2),
        ..PLAIN
    };
    let good = run(&backbone, &inside, &training(), None, 0).checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tile_prompts.pt");
    let refused = |key: &str, value: Option<Value>, part: &str| {
        let Value::Dict(pairs) = good.to_value() else {
            panic!("no dictionary")
        };
        let kept = pairs.into_iter().filter(|(k, _)| k.as_str() != Some(key));
        let new = value.map(|v| (Value::from(key), v));
        flawtune_backbone::torch_file::write(&path, &Value::Dict(kept.chain(new).collect()))
            .unwrap();
        let error = Checkpoint::read(&path).unwrap_err();
        assert!(matches!(error, AdaptError::Checkpoint { .. }));
        assert!(error.to_string().contains(part), "{error}");
    };
    let tensor = |shape: [usize; 2], v: f32| {
        let data = vec![v; shape[0] * shape[1]];
        Some(Value::Tensor(
            flawtune_backbone::torch_file::Tensor::from_f32(shape, &data),
        ))
    };
    refused("vpt.prompts", None, "'vpt.prompts' is missing");
    refused(
        "vpt.prompts",
        tensor([3, 4], 0.0),
        "'vpt.prompts' has shape [3, 4]",
    );
    refused("vpt.prompts", tensor([3, DIM], f32::NAN), "not finite");
    refused(
        "adapters.up.weight",
        Some(Value::Int(1)),
        "'adapters.up.weight'",
    );
    refused(
        "insertions",
        Some(Value::dict([("dim", Value::Int(16))])),
        "'insertions.prompt_depth'",
    );
}
