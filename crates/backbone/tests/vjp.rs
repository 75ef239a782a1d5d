//! The backward pass on a backbone with learned positions, against differences of a plain f64 forward pass, and what
//! must hold for every combination of insertions.

#![allow(clippy::unwrap_used)] // a test may stop

mod peft;

use flawtune_backbone::config::{FeedForward, VitConfig};
use flawtune_backbone::vit::{Backbone, LayerSelection};
use flawtune_backbone::vjp::{
    Embedded, FrozenVit, InsertionSpec, Insertions, PromptDepth, Scaling, VjpError,
};
use flawtune_backbone::weights::VitWeights;

use flawtune_testing::Noise;
use peft::golden::load_backbone;
use peft::reference::{Reference, Values, values};
use peft::tiny::dinov2;

const SIZE: (usize, usize) = (12, 8);
const IMAGES: usize = 3;
/// Absolute, on normed tokens of magnitude 4, f32 against f64.
const TOKENS: f64 = 1e-5;
/// Of the tensor's largest gradient: f32 against f64, as for the goldens; the differences themselves are exact to 1e-8.
const GRADIENT: f64 = 2e-5;

/// Embedded images, and the grid of their patches.
fn embedded(config: &VitConfig, weights: &VitWeights) -> (Vec<f32>, (usize, usize)) {
    let (height, width) = (
        SIZE.0 / 4 * config.patch_size,
        SIZE.1 / 4 * config.patch_size,
    );
    let pixels = Noise(3).many(IMAGES * 3 * height * width, 1.5);
    Backbone::new(config, weights)
        .unwrap()
        .embed_tokens(&pixels, IMAGES, height, width)
        .unwrap()
}

/// Every prompt depth, with and without adapters, every scaling, where anything is inserted.
fn combinations(config: &VitConfig) -> Vec<InsertionSpec> {
    let mut out = Vec::new();
    for prompt_depth in [PromptDepth::Output, PromptDepth::Shallow, PromptDepth::Deep] {
        for adapter_dim in [None, Some(5)] {
            for adapter_up_bias in [false, true] {
                for scaling in [Scaling::Fixed, Scaling::Scalar, Scaling::Channel] {
                    let spec = InsertionSpec {
                        prompt_depth,
                        adapter_dim,
                        adapter_up_bias,
                        scaling,
                        prompts: 2,
                        ..InsertionSpec::none(config)
                    };
                    if spec.count() > 0 && (adapter_dim.is_some() || !adapter_up_bias) {
                        out.push(spec);
                    }
                }
            }
        }
    }
    out
}

/// Random values everywhere, so that no branch is close to switched off.
fn random(spec: InsertionSpec, seed: u64) -> Insertions {
    let mut numbers = Noise(seed);
    let mut out = Insertions::zeros(spec).unwrap();
    for (name, data) in out.values_mut() {
        let middle = if name.ends_with("scales") { 1.0 } else { 0.0 };
        data.fill_with(|| middle + 0.5 * numbers.signed());
    }
    out
}

fn check(
    feed_forward: FeedForward,
    registers: usize,
    spec: impl Fn(InsertionSpec) -> InsertionSpec,
) {
    let (config, weights) = dinov2(feed_forward, registers);
    let spec = spec(InsertionSpec::none(&config));
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let inserted = random(spec, 11);
    let layers = [0, config.depth - 1];
    let sets = spec.prompt_sets();
    // dropout: some prompts away, the others larger
    let keep: Vec<f32> = (0..IMAGES * sets * spec.prompts)
        .map(|i| if i % 3 == 1 { 0.0 } else { 1.5 })
        .collect();
    let (features, tape) = frozen
        .forward_recorded(
            Embedded {
                tokens: &tokens,
                grid,
            },
            &inserted,
            Some(&keep),
            &layers,
        )
        .unwrap();
    let reference = Reference {
        config: &config,
        weights: &weights,
        keep: &keep,
        layers: &layers,
        prompts: spec.prompts,
        sets,
    };
    let wide: Vec<f64> = tokens.iter().map(|&v| f64::from(v)).collect();
    let per_image = tokens.len() / IMAGES;
    let run = |tokens: &[f64], inserted: &Values| -> Vec<Vec<f64>> {
        let images: Vec<_> = tokens
            .chunks_exact(per_image)
            .enumerate()
            .map(|(b, t)| reference.forward(b, t, inserted))
            .collect();
        (0..layers.len())
            .map(|l| images.iter().flat_map(|f| f[l].clone()).collect())
            .collect()
    };
    let plain = values(&inserted);
    for (found, wanted) in features.iter().zip(run(&wide, &plain)) {
        let error = found
            .iter()
            .zip(&wanted)
            .map(|(&f, w)| (f64::from(f) - w).abs())
            .fold(0.0, f64::max);
        assert!(error < TOKENS, "tokens differ by {error:e}");
    }

    // a loss linear in the features, so that its gradient is what we choose
    let probes: Vec<Vec<f32>> = (0..layers.len())
        .map(|l| Noise(20 + l as u64).many(features[0].len(), 1.0))
        .collect();
    let loss = |tokens: &[f64], inserted: &Values| -> f64 {
        let features = run(tokens, inserted);
        features
            .iter()
            .zip(&probes)
            .map(|(f, p)| f.iter().zip(p).map(|(a, &b)| a * f64::from(b)).sum::<f64>())
            .sum()
    };
    let grads: Vec<&[f32]> = probes.iter().map(Vec::as_slice).collect();
    let found = frozen.backward(&tape, &grads, true).unwrap();
    let step = 1e-5;
    let difference = |up: f64, down: f64| (up - down) / (2.0 * step);
    let compare = |name: &str, gradient: &[f32], at: &dyn Fn(usize, f64) -> f64| {
        let scale = gradient.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(scale > 0.0, "{name}: no gradient");
        // about thirty places spread over the tensor
        for i in (0..gradient.len()).step_by(gradient.len().div_ceil(30)) {
            let wanted = difference(at(i, step), at(i, -step));
            let error = (f64::from(gradient[i]) - wanted).abs() / f64::from(scale);
            assert!(
                error < GRADIENT,
                "{name}[{i}]: {} {wanted} off by {error:e}",
                gradient[i]
            );
        }
    };
    for (t, tensor) in found.insertions.tensors().iter().enumerate() {
        compare(tensor.name, &tensor.data, &|i, h| {
            let mut moved = plain.clone();
            moved[t].1[i] += h;
            loss(&wide, &moved)
        });
    }
    compare("tokens_in", &found.tokens_in.unwrap(), &|i, h| {
        let mut moved = wide.clone();
        moved[i] += h;
        loss(&moved, &plain)
    });
}

#[test]
fn learned_positions_deep_prompts_adapters_and_channel_factors() {
    check(FeedForward::Mlp, 0, |none| InsertionSpec {
        prompt_depth: PromptDepth::Deep,
        prompts: 2,
        adapter_dim: Some(3),
        adapter_up_bias: true,
        scaling: Scaling::Channel,
        ..none
    });
}

#[test]
fn learned_positions_with_registers_a_gate_shallow_prompts_and_scalar_factors() {
    check(FeedForward::SwiGlu, 2, |none| InsertionSpec {
        prompt_depth: PromptDepth::Shallow,
        prompts: 3,
        adapter_dim: Some(4),
        scaling: Scaling::Scalar,
        ..none
    });
}

#[test]
fn every_trainable_tensor_gets_a_gradient_from_the_first_step() {
    let (config, weights) = dinov2(FeedForward::Mlp, 1);
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let combinations = combinations(&config);
    assert_eq!(combinations.len(), 24);
    for spec in combinations {
        let mut numbers = Noise(5);
        let inserted = Insertions::initial(spec, || numbers.signed()).unwrap();
        let (features, tape) = frozen
            .forward_recorded(
                Embedded {
                    tokens: &tokens,
                    grid,
                },
                &inserted,
                None,
                &[config.depth - 1],
            )
            .unwrap();
        let probe = Noise(6).many(features[0].len(), 1.0);
        let found = frozen.backward(&tape, &[&probe], false).unwrap().insertions;
        assert_eq!(found.spec(), &spec);
        for t in found.tensors() {
            // every block's own part of the tensor, not only some of them
            let parts = if t.name.starts_with("vpt") {
                spec.prompt_sets()
            } else {
                spec.depth
            };
            for (i, part) in t.data.chunks_exact(t.data.len() / parts).enumerate() {
                assert!(
                    part.iter().any(|v| *v != 0.0),
                    "{spec:?}: {} of block {i} gets no gradient",
                    t.name
                );
                assert!(
                    part.iter().all(|v| v.is_finite()),
                    "{spec:?}: {} of block {i}",
                    t.name
                );
            }
        }
    }
}

#[test]
fn neither_threads_nor_the_other_images_change_a_bit() {
    let (config, weights) = dinov2(FeedForward::SwiGlu, 1);
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let spec = InsertionSpec {
        prompt_depth: PromptDepth::Deep,
        prompts: 2,
        adapter_dim: Some(3),
        scaling: Scaling::Channel,
        ..InsertionSpec::none(&config)
    };
    let inserted = random(spec, 31);
    let layers = [config.depth - 1];
    let probe = Noise(6).many(IMAGES * (1 + grid.0 * grid.1) * config.dim, 1.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let images = Embedded {
                tokens: &tokens,
                grid,
            };
            let (features, tape) = frozen
                .forward_recorded(images, &inserted, None, &layers)
                .unwrap();
            let gradients = frozen.backward(&tape, &[&probe], true).unwrap();
            (features, gradients.insertions, gradients.tokens_in)
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
    let per_image = tokens.len() / IMAGES;
    let alone = Embedded {
        tokens: &tokens[per_image..2 * per_image],
        grid,
    };
    let alone = frozen.forward(alone, &inserted, &layers).unwrap();
    let rows = alone[0].len();
    assert_eq!(alone[0], one.0[0][rows..2 * rows]);
}

#[test]
fn with_nothing_inserted_it_is_the_plain_forward_pass() {
    let models = [
        dinov2(FeedForward::Mlp, 0),
        dinov2(FeedForward::SwiGlu, 2),
        load_backbone("tiny_mlp"),
    ];
    for (config, weights) in models {
        let (height, width) = (3 * config.patch_size, 2 * config.patch_size);
        let pixels = Noise(3).many(IMAGES * 3 * height * width, 1.5);
        let plain = Backbone::new(&config, &weights).unwrap();
        let selection = LayerSelection::last(config.depth);
        let wanted = plain
            .forward(&pixels, IMAGES, height, width, &selection)
            .unwrap();
        let (tokens, grid) = plain.embed_tokens(&pixels, IMAGES, height, width).unwrap();
        assert_eq!(grid, wanted.grid);
        let none = Insertions::zeros(InsertionSpec::none(&config)).unwrap();
        let frozen = FrozenVit::new(&config, &weights).unwrap();
        let found = frozen
            .forward(
                Embedded {
                    tokens: &tokens,
                    grid,
                },
                &none,
                &[config.depth - 1],
            )
            .unwrap();
        let error = found[0]
            .iter()
            .zip(&wanted.data)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(f64::from(error) < TOKENS, "{}: {error:e}", config.name);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (config, weights) = dinov2(FeedForward::Mlp, 0);
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let none = Insertions::zeros(InsertionSpec::none(&config)).unwrap();
    let images = Embedded {
        tokens: &tokens,
        grid,
    };
    let message = |r: Result<_, VjpError>| r.map(|_: Vec<Vec<f32>>| ()).unwrap_err().to_string();
    assert!(
        message(frozen.forward(images, &none, &[3]))
            .starts_with("layers: found shape [3], wanted [2]")
    );
    let short = Embedded {
        tokens: &tokens[1..],
        grid,
    };
    assert!(
        message(frozen.forward(short, &none, &[2]))
            .starts_with("embedded images: found shape [377], wanted [2, 7, 18]")
    );
    let other = InsertionSpec {
        depth: 2,
        ..InsertionSpec::none(&config)
    };
    let other = Insertions::zeros(other).unwrap();
    assert!(
        message(frozen.forward(images, &other, &[2]))
            .contains("they were made for another backbone")
    );
    let (_, tape) = frozen.forward_recorded(images, &none, None, &[2]).unwrap();
    let error = frozen
        .backward(&tape, &[&[0.0; 4]], true)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("gradient of the features: found shape [4], wanted [3, 7, 18]"),
        "{error}"
    );
    let wrong = VitConfig {
        hidden: 27,
        ..config
    };
    assert!(
        FrozenVit::new(&wrong, &weights)
            .unwrap_err()
            .to_string()
            .contains("fc1")
    );
}

/// What enters block 0 are the input tokens with the prompts between; the gradient there is that of the input and of the
/// prompts, which the backward pass gives too.
#[test]
fn the_gradient_at_a_block_is_that_of_the_backward_pass() {
    let (config, weights) = dinov2(FeedForward::SwiGlu, 2);
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let spec = InsertionSpec {
        prompt_depth: PromptDepth::Deep,
        prompts: 2,
        adapter_dim: Some(5),
        ..InsertionSpec::none(&config)
    };
    let inserted = random(spec, 11);
    let layers = [config.depth - 2];
    let (features, tape) = frozen
        .forward_recorded(
            Embedded {
                tokens: &tokens,
                grid,
            },
            &inserted,
            None,
            &layers,
        )
        .unwrap();
    let probe = Noise(20).many(features[0].len(), 1.0);
    let whole = frozen.backward(&tape, &[&probe], true).unwrap();
    let input = whole.tokens_in.unwrap();
    let found = frozen.at_block(&tape, &[&probe], 0).unwrap();
    let (d, prefix) = (config.dim, config.prefix());
    let own = prefix + grid.0 * grid.1;
    let mut prompts = vec![0.0; 2 * d];
    for b in 0..IMAGES {
        let (image, gradient) = (
            &tokens[b * own * d..][..own * d],
            &input[b * own * d..][..own * d],
        );
        let inside = |all: &[f32]| all[b * (own + 2) * d..][..(own + 2) * d].to_vec();
        for (all, wanted) in [
            (inside(&found.tokens), image),
            (inside(&found.gradient), gradient),
        ] {
            assert_eq!(all[..prefix * d], wanted[..prefix * d]);
            assert_eq!(all[(prefix + 2) * d..], wanted[prefix * d..]);
        }
        let of_prompts = &inside(&found.gradient)[prefix * d..(prefix + 2) * d];
        prompts
            .iter_mut()
            .zip(of_prompts)
            .for_each(|(p, v)| *p += v);
        assert_eq!(
            inside(&found.tokens)[prefix * d..(prefix + 2) * d],
            inserted.tensors()[0].data[..2 * d]
        );
    }
    // summed here in f32, there in f64
    let wanted = &whole.insertions.tensors()[0].data[..2 * d];
    assert!(
        prompts
            .iter()
            .zip(wanted)
            .all(|(p, w)| (p - w).abs() < 1e-4 * (1.0 + w.abs()))
    );
    let late = frozen.at_block(&tape, &[&probe], config.depth - 1);
    assert!(matches!(late, Err(VjpError::Shape { found, .. }) if found == [config.depth - 1]));
}

#[test]
fn attention_rows_sum_to_one_and_a_prompt_can_be_left_out() {
    let (config, weights) = dinov2(FeedForward::Mlp, 1);
    let frozen = FrozenVit::new(&config, &weights).unwrap();
    let (tokens, grid) = embedded(&config, &weights);
    let one = &tokens[..tokens.len() / IMAGES];
    let spec = InsertionSpec {
        prompt_depth: PromptDepth::Shallow,
        prompts: 2,
        scaling: Scaling::Channel,
        ..InsertionSpec::none(&config)
    };
    let inserted = random(spec, 5);
    let t = config.prefix() + 2 + grid.0 * grid.1;
    let mut blocks = Vec::new();
    frozen
        .attentions(
            Embedded { tokens: one, grid },
            &inserted,
            1,
            &mut |i, attention| {
                assert_eq!(attention.len(), t * t);
                assert!(
                    attention
                        .chunks_exact(t)
                        .all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5)
                );
                blocks.push(i);
            },
        )
        .unwrap();
    assert_eq!(blocks, [0, 1]);
    let several = frozen.attentions(
        Embedded {
            tokens: &tokens,
            grid,
        },
        &inserted,
        1,
        &mut |_, _| {},
    );
    assert!(matches!(several, Err(VjpError::Shape { .. })));

    let d = config.dim;
    let first = inserted.without_prompt(1).unwrap();
    assert_eq!(
        (first.spec().prompts, &first.tensors()[0].data[..]),
        (1, &inserted.tensors()[0].data[..d])
    );
    assert_eq!(first.tensors()[1], inserted.tensors()[1]);
    // without the last one nothing is inside any more
    let none = first.without_prompt(0).unwrap();
    assert_eq!((none.spec().prompt_tokens(), none.tensors().len()), (0, 0));
    let last = [config.depth - 1];
    let plain = Insertions::zeros(InsertionSpec::none(&config)).unwrap();
    let run = |i: &Insertions| {
        frozen
            .forward(Embedded { tokens: one, grid }, i, &last)
            .unwrap()
    };
    assert_eq!(run(&none), run(&plain));
    assert_ne!(run(&first), run(&plain));
    assert!(matches!(
        first.without_prompt(1),
        Err(VjpError::Size { found: 1, .. })
    ));
}
