//! The backward pass through the frozen backbone against `golden/peft`: outputs, losses and every gradient, computed
//! with PyTorch in f64.

#![allow(clippy::unwrap_used)] // a test may stop

mod peft;

use flawtune_backbone::vjp::{
    Embedded, FrozenVit, InsertionSpec, Insertions, PromptDepth, Scaling,
};

use flawtune_testing::Golden;
use peft::golden::{embed, load_backbone, read};
use peft::loss::separability;

/// Absolute, on tokens of magnitude 4: what PyTorch's own f32 run needs (golden README).
const TOKENS: f64 = 1e-5;
/// Of the tensor's largest magnitude: what PyTorch's own f32 run needs (golden README).
const GRADIENT: f64 = 2e-5;
/// The separability ratio divides by a spread of about 0.01, which magnifies the tokens' error.
const LOSS: f64 = 2e-5;

#[derive(Clone, Copy)]
enum Kind {
    None,
    Shallow,
    Deep,
    Adapter,
}

impl Kind {
    const ALL: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("vpt_shallow", Self::Shallow),
        ("vpt_deep", Self::Deep),
        ("adapter", Self::Adapter),
    ];
}

/// The golden's inputs as insertions, and which golden gradient belongs to which tensor.
fn insertions(
    golden: &Golden,
    name: &str,
    kind: Kind,
    none: InsertionSpec,
) -> (Insertions, Vec<(&'static str, &'static str)>) {
    let names: Vec<(&str, &str)> = match kind {
        Kind::None => vec![],
        Kind::Shallow | Kind::Deep => vec![("vpt.prompts", "prompts")],
        Kind::Adapter => vec![
            ("adapters.down.weight", "down.weight"),
            ("adapters.down.bias", "down.bias"),
            ("adapters.up.weight", "up.weight"),
            ("adapters.up.bias", "up.bias"),
        ],
    };
    let tensors: Vec<_> = names
        .iter()
        .map(|(ours, theirs)| (*ours, read(golden, &format!("{name}.in.{theirs}"))))
        .collect();
    let inner = |i: usize, at: usize| tensors[i].1.shape[at];
    let spec = match kind {
        Kind::None => none,
        Kind::Shallow => InsertionSpec {
            prompt_depth: PromptDepth::Shallow,
            prompts: inner(0, 0),
            ..none
        },
        Kind::Deep => InsertionSpec {
            prompt_depth: PromptDepth::Deep,
            prompts: inner(0, 1),
            ..none
        },
        Kind::Adapter => InsertionSpec {
            adapter_dim: Some(inner(0, 1)),
            adapter_up_bias: true,
            ..none
        },
    };
    assert_eq!(spec.scaling, Scaling::Fixed);
    let values: Vec<_> = tensors
        .iter()
        .map(|(n, t)| (*n, &t.shape[..], t.f32()))
        .collect();
    let loaded =
        Insertions::from_named(spec, values.iter().map(|(n, s, v)| (*n, *s, &v[..]))).unwrap();
    (loaded, names)
}

fn worst(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    found
        .iter()
        .zip(wanted)
        .map(|(&f, w)| (f64::from(f) - w).abs())
        .fold(0.0, f64::max)
}

fn relative(what: &str, found: &[f32], wanted: &[f64]) {
    let scale = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let error = worst(found, wanted) / scale;
    assert!(
        error < GRADIENT,
        "{what}: {error:e} of the largest magnitude {scale}"
    );
}

/// `[B, 1 + P, D]` out of `[B, 1 + R + P, D]`.
fn without_registers(tokens: &[f64], rows: usize, registers: usize, dim: usize) -> Vec<f64> {
    let keep = |i: usize| i == 0 || i > registers;
    tokens
        .chunks_exact(rows * dim)
        .flat_map(|t| {
            t.chunks_exact(dim)
                .enumerate()
                .filter(move |(i, _)| keep(*i))
                .flat_map(|(_, r)| r.iter().copied())
        })
        .collect()
}

#[expect(clippy::too_many_lines, reason = "a case for each tensor")]
fn check(model: &str) {
    let (config, weights) = load_backbone(model);
    let backbone = FrozenVit::new(&config, &weights).unwrap();
    let inputs = Golden::open("peft/inputs.safetensors");
    let golden = Golden::open(format!("peft/{model}.safetensors"));
    let pixels = read(&inputs, "pixels");
    let (tokens_in, grid) = embed(&config, &weights, &pixels);
    let images = Embedded {
        tokens: &tokens_in,
        grid,
    };
    let (count, patches, dim) = (pixels.shape[0], grid.0 * grid.1, config.dim);
    let normals: Vec<usize> = read(&inputs, "normals")
        .f64()
        .iter()
        .map(|&i| i as usize)
        .collect();
    let defects: Vec<usize> = read(&inputs, "defects")
        .f64()
        .iter()
        .map(|&i| i as usize)
        .collect();
    let last = [config.depth - 1];

    for (name, kind) in Kind::ALL {
        let (inserted, names) = insertions(&golden, name, kind, InsertionSpec::none(&config));
        let (features, tape) = backbone
            .forward_recorded(images, &inserted, None, &last)
            .unwrap();
        let wanted = read(&golden, &format!("{name}.f64.tokens"));
        let wanted = without_registers(
            &wanted.f64(),
            config.prefix() + patches,
            config.registers,
            dim,
        );
        let error = worst(&features[0], &wanted);
        assert!(error < TOKENS, "{model} {name} tokens: {error:e}");
        assert_eq!(
            features,
            backbone.forward(images, &inserted, &last).unwrap()
        );

        let of =
            |i: usize| &features[0][(i * (1 + patches) + 1) * dim..(i + 1) * (1 + patches) * dim];
        let sep = separability(
            &normals.iter().map(|&i| of(i)).collect::<Vec<_>>(),
            &defects.iter().map(|&i| of(i)).collect::<Vec<_>>(),
            dim,
        );
        let wanted = read(&golden, &format!("{name}.f64.sep")).f64()[0];
        assert!(
            (sep.loss - wanted).abs() < LOSS,
            "{model} {name} sep: {} {wanted}",
            sep.loss
        );
        let mut sep_grad = vec![0.0f32; features[0].len()];
        for (g, &i) in sep.gradients.iter().zip(normals.iter().chain(&defects)) {
            sep_grad[(i * (1 + patches) + 1) * dim..(i + 1) * (1 + patches) * dim]
                .copy_from_slice(g);
        }
        let on_patches: Vec<f32> = (0..count)
            .flat_map(|i| {
                sep_grad[(i * (1 + patches) + 1) * dim..(i + 1) * (1 + patches) * dim].to_vec()
            })
            .collect();
        relative(
            &format!("{model} {name} sep features"),
            &on_patches,
            &read(&golden, &format!("{name}.f64.sep.grad.features")).f64(),
        );

        let probe = read(&golden, "linear_probe").f32();
        let lin_grad: Vec<f32> = probe
            .chunks_exact(patches * dim)
            .flat_map(|p| [&vec![0.0; dim][..], p].concat())
            .collect();
        let lin: f64 = lin_grad
            .iter()
            .zip(&features[0])
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum();
        let wanted = read(&golden, &format!("{name}.f64.lin")).f64()[0];
        assert!(
            (lin - wanted).abs() < LOSS,
            "{model} {name} lin: {lin} {wanted}"
        );

        for (loss, grad) in [("sep", &sep_grad), ("lin", &lin_grad)] {
            let found = backbone.backward(&tape, &[grad], true).unwrap();
            let at = format!("{name}.f64.{loss}.grad");
            for (ours, theirs) in &names {
                let wanted = read(&golden, &format!("{at}.{theirs}")).f64();
                relative(
                    &format!("{model} {at}.{theirs}"),
                    found.insertions.get(ours).unwrap(),
                    &wanted,
                );
            }
            let wanted = read(&golden, &format!("{at}.tokens_in")).f64();
            relative(
                &format!("{model} {at}.tokens_in"),
                &found.tokens_in.unwrap(),
                &wanted,
            );
            // leaving the input's gradient out changes nothing else
            let without = backbone.backward(&tape, &[grad], false).unwrap();
            assert_eq!(without.insertions, found.insertions);
            assert!(without.tokens_in.is_none());
        }
    }
}

#[test]
fn mlp_backbone() {
    check("tiny_mlp");
}

#[test]
fn gated_backbone() {
    check("tiny_swiglu");
}
