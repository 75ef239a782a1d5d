//! Attention rollout and Grad-CAM against `golden/visualize` (PyTorch, f64, autograd), and on images where the answer is
//! known: one odd patch among equal ones.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune_backbone::config::VitConfig;
use flawtune_backbone::vit::Backbone;
use flawtune_backbone::vjp::{
    Activations, Embedded, FrozenVit, InsertionSpec, Insertions, PromptDepth,
};
use flawtune_backbone::weights::{VitWeights, load};
use flawtune_lab::adapt::{
    Adaptation, AdaptationOptions, Gradients, ModulationType, PROMPT_SCALES, PROMPTS, Parameters,
    Tape,
};
use flawtune_lab::visualize::{PatchBank, PatchScore, Rollout, TokenLayout, grad_cam, mean_row};
use flawtune_testing::{Golden, Noise, golden, golden_json};

/// Attention weights and rollout: absolute, values up to 1; f32 through three blocks against f64.
const ATTENTION: f64 = 1e-5;
/// Distances and scores: absolute, as for tokens (golden README).
const DISTANCE: f64 = 1e-5;
/// Gradients and what is made of them: of the largest magnitude (golden README).
const GRADIENT: f64 = 2e-5;
/// Tokens that enter a block: absolute, of magnitude 4.
const TOKENS: f64 = 2e-5;

#[track_caller]
fn close(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let error = found
        .iter()
        .zip(wanted)
        .map(|(&f, w)| (f64::from(f) - w).abs())
        .fold(0.0, f64::max);
    assert!(error < tolerance, "{what}: differs by {error:e}");
}

#[track_caller]
fn close_relative(what: &str, found: &[f32], wanted: &[f64]) {
    let scale = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(scale > 0.0, "{what}: nothing to compare");
    close(what, found, wanted, GRADIENT * scale);
}

/// The tiny backbone of the goldens.
struct Vit {
    config: VitConfig,
    weights: VitWeights,
    frozen: FrozenVit,
}

impl Vit {
    fn open() -> Self {
        let loaded = load(&golden("ckpt/tiny_mlp/hf.safetensors"), None).unwrap();
        let frozen = FrozenVit::new(&loaded.config, &loaded.weights).unwrap();
        Self {
            config: loaded.config,
            weights: loaded.weights,
            frozen,
        }
    }

    /// Images as they enter the first block, one tensor each, and their grid.
    fn embed(&self, pixels: &[f32], count: usize, side: usize) -> (Vec<Vec<f32>>, (usize, usize)) {
        let backbone = Backbone::new(&self.config, &self.weights).unwrap();
        let (tokens, grid) = backbone.embed_tokens(pixels, count, side, side).unwrap();
        (
            tokens
                .chunks_exact(tokens.len() / count)
                .map(<[f32]>::to_vec)
                .collect(),
            grid,
        )
    }

    fn last(&self) -> usize {
        self.config.depth - 1
    }

    /// Normed patch tokens of an image.
    fn patches(&self, tokens: &[f32], grid: (usize, usize), insertions: &Insertions) -> Vec<f32> {
        let found = self
            .frozen
            .forward(Embedded { tokens, grid }, insertions, &[self.last()])
            .unwrap();
        found[0][self.config.dim..].to_vec()
    }

    /// The patch-bank score of an image, and what enters block `block` with the score's gradient there: patches after
    /// prefix and prompts.
    fn score(
        &self,
        tokens: &[f32],
        grid: (usize, usize),
        insertions: &Insertions,
        adaptation: Option<&Adaptation>,
        bank: &PatchBank,
        fraction: f64,
        block: usize,
    ) -> (PatchScore, Activations) {
        let (features, tape) = self
            .frozen
            .forward_recorded(Embedded { tokens, grid }, insertions, None, &[self.last()])
            .unwrap();
        let dim = self.config.dim;
        let raw = &features[0][dim..];
        let mut gradient = vec![0.0; features[0].len()];
        let score = match adaptation {
            None => {
                let score = bank.score(raw, None, fraction).unwrap();
                gradient[dim..].copy_from_slice(&score.gradient);
                score
            }
            Some(adaptation) => {
                let (m, mut kept, mut out) = (
                    adaptation.modulation(),
                    Tape::default(),
                    vec![0.0; raw.len()],
                );
                m.forward(&[raw], &mut out, &mut kept);
                let score = bank.score(&out, None, fraction).unwrap();
                let mut unused = Gradients::zeros_for(m.parameters());
                m.backward(
                    &[raw],
                    &mut kept,
                    &score.gradient,
                    &mut unused,
                    Some(&mut gradient[dim..]),
                );
                score
            }
        };
        (
            score,
            self.frozen.at_block(&tape, &[&gradient], block).unwrap(),
        )
    }
}

/// The three kinds of the golden with its prompts.
fn insertions(vit: &Vit) -> Vec<(&'static str, Insertions)> {
    let none = InsertionSpec::none(&vit.config);
    let peft = Golden::open("peft/tiny_mlp.safetensors");
    let with = |kind: &str, prompt_depth| {
        let (shape, values) = peft.f32s(&format!("{kind}.in.prompts"));
        let spec = InsertionSpec {
            prompt_depth,
            prompts: shape[shape.len() - 2],
            ..none
        };
        Insertions::from_named(spec, [("vpt.prompts", &shape[..], &values[..])]).unwrap()
    };
    vec![
        ("none", Insertions::zeros(none).unwrap()),
        ("vpt_shallow", with("vpt_shallow", PromptDepth::Shallow)),
        ("vpt_deep", with("vpt_deep", PromptDepth::Deep)),
    ]
}

#[test]
fn attention_and_rollout_are_those_of_pytorch() {
    let (vit, golden) = (Vit::open(), Golden::open("visualize/tiny_mlp.safetensors"));
    let inputs = Golden::open("peft/inputs.safetensors");
    let (shape, pixels) = inputs.f32s("pixels");
    let (images, grid) = vit.embed(&pixels, shape[0], shape[2]);
    let image = &images[inputs.f64s("defects").1[0] as usize];
    for (kind, insertions) in insertions(&vit) {
        let spec = insertions.spec();
        let layout = TokenLayout {
            prefix: vit.config.prefix(),
            prompts: spec.prompt_tokens(),
            patches: grid.0 * grid.1,
            depth: spec.prompt_depth,
        };
        let mut rollout = Rollout::new(layout, vit.config.depth);
        let mut blocks = 0;
        vit.frozen
            .attentions(
                Embedded {
                    tokens: image,
                    grid,
                },
                &insertions,
                vit.last(),
                &mut |i, attention| {
                    let name = format!("{kind}.attention{i}");
                    close(&name, attention, &golden.f64s(&name).1, ATTENTION);
                    rollout.push(attention).unwrap();
                    blocks += 1;
                },
            )
            .unwrap();
        assert_eq!(blocks, vit.config.depth);
        let name = format!("{kind}.rollout");
        close(&name, rollout.rows(), &golden.f64s(&name).1, ATTENTION);
        let from_prompts: f32 = rollout.class_from_prompts().iter().sum();
        assert_eq!(
            from_prompts > 0.01,
            kind != "none",
            "{kind}: {from_prompts}"
        );
    }
}

#[test]
fn grad_cam_is_that_of_autograd() {
    let (vit, golden) = (Vit::open(), Golden::open("visualize/tiny_mlp.safetensors"));
    let manifest: serde_json::Value = golden_json("visualize/manifest.json");
    let fraction = manifest["top_fraction"].as_f64().unwrap();
    let inputs = Golden::open("peft/inputs.safetensors");
    let (shape, pixels) = inputs.f32s("pixels");
    let (images, grid) = vit.embed(&pixels, shape[0], shape[2]);
    let defect = &images[inputs.f64s("defects").1[0] as usize];
    let modulation = per_patch(&manifest["per_patch"]);
    let dim = vit.config.dim;
    let mut cases: Vec<_> = insertions(&vit)
        .into_iter()
        .map(|(kind, i)| (kind.to_owned(), i, None))
        .collect();
    let nothing = cases[0].1.clone();
    cases.push(("none.per_patch".to_owned(), nothing, Some(&modulation)));
    for (kind, insertions, adaptation) in cases {
        let normals: Vec<Vec<f32>> = inputs
            .f64s("normals")
            .1
            .iter()
            .map(|&i| {
                let patches = vit.patches(&images[i as usize], grid, &insertions);
                let mut out = patches.clone();
                if let Some(a) = adaptation {
                    a.apply(&[&patches], &mut out, &mut Tape::default());
                }
                out
            })
            .collect();
        let bank =
            PatchBank::new(&normals.iter().map(Vec::as_slice).collect::<Vec<_>>(), dim).unwrap();
        for block in 0..vit.config.depth {
            let (score, found) = vit.score(
                defect,
                grid,
                &insertions,
                adaptation,
                &bank,
                fraction,
                block,
            );
            let read = |name: &str| golden.f64s(&format!("{kind}.{name}")).1;
            close(&kind, &score.distances, &read("distances"), DISTANCE);
            assert!(
                (score.score - read("score")[0]).abs() < DISTANCE,
                "{kind}: {}",
                score.score
            );
            assert_eq!(score.top.len(), 4);
            let at = |what: &str| read(&format!("block{block}.{what}"));
            close(&kind, &found.tokens, &at("tokens"), TOKENS);
            close_relative(
                &format!("{kind}, block {block}"),
                &found.gradient,
                &at("gradient"),
            );
            let from = (vit.config.prefix() + insertions.spec().prompt_tokens()) * dim;
            let patches = &found.tokens[from..];
            let cam = grad_cam(
                patches,
                &found.gradient[from..],
                &vec![0.0; patches.len()],
                dim,
            )
            .unwrap();
            close_relative(&format!("{kind}, block {block}: CAM"), &cam, &at("cam"));
        }
    }
}

/// The output modulation of the golden.
fn per_patch(said: &serde_json::Value) -> Adaptation {
    let (shape, prompts) = Golden::open("peft/tiny_mlp.safetensors").f32s("vpt_shallow.in.prompts");
    let scales = said["scales"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();
    let mut p = Parameters::new();
    p.push(PROMPTS, &shape, prompts).unwrap();
    p.push(PROMPT_SCALES, &shape[..1], scales).unwrap();
    let options = AdaptationOptions {
        modulation: ModulationType::PerPatch,
        scaling_factor: said["alpha"].as_f64().unwrap() as f32,
        ..AdaptationOptions::default()
    };
    Adaptation::from_parameters(options, &p).unwrap()
}

/// Numbers in −1..1 that repeat for the same seed.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).many(count, 1.0)
}

/// Images of one colour with a little noise; one patch of one of them is planted: filled with another pattern. At the last
/// block, the default: farther from the score a mean of gradients need not mean much, with random weights least of all.
#[test]
fn a_planted_patch_lights_up() {
    const SIDE: usize = 96;
    let vit = Vit::open();
    let (dim, patch) = (vit.config.dim, vit.config.patch_size);
    let columns = SIDE / patch;
    let picture = |seed: u64| -> Vec<f32> {
        noise(seed, 3 * SIDE * SIDE)
            .iter()
            .map(|v| 0.3 + 0.02 * v)
            .collect()
    };
    let nothing = Insertions::zeros(InsertionSpec::none(&vit.config)).unwrap();
    let normals: Vec<f32> = (0..4).flat_map(picture).collect();
    let (normals, grid) = vit.embed(&normals, 4, SIDE);
    let patches: Vec<Vec<f32>> = normals
        .iter()
        .map(|n| vit.patches(n, grid, &nothing))
        .collect();
    let bank = PatchBank::new(&patches.iter().map(Vec::as_slice).collect::<Vec<_>>(), dim).unwrap();
    let pattern = noise(99, 3 * patch * patch);
    for planted in [0, 7, 14, 22, 35] {
        let mut odd = picture(50 + planted as u64);
        for (i, v) in pattern.iter().enumerate() {
            let (c, y, x) = (i / (patch * patch), i / patch % patch, i % patch);
            let at = (planted / columns * patch + y, planted % columns * patch + x);
            odd[(c * SIDE + at.0) * SIDE + at.1] = 2.0 * v;
        }
        let (odd, _) = vit.embed(&odd, 1, SIDE);
        let run = |image: &[f32]| vit.score(image, grid, &nothing, None, &bank, 0.01, vit.last());
        let (score, found) = run(&odd[0]);
        let largest = |values: &[f32]| {
            (0..values.len())
                .max_by(|&a, &b| values[a].total_cmp(&values[b]))
                .unwrap()
        };
        assert_eq!(largest(&score.distances), planted, "map");
        assert_eq!(score.top[..], [planted]);
        let from = vit.config.prefix() * dim;
        let rows: Vec<Vec<f32>> = normals
            .iter()
            .map(|n| run(n).1.tokens[from..].to_vec())
            .collect();
        let normal = mean_row(rows.iter().map(Vec::as_slice), rows[0].len());
        let cam = grad_cam(&found.tokens[from..], &found.gradient[from..], &normal, dim).unwrap();
        assert_eq!(largest(&cam), planted, "Grad-CAM: {cam:?}");
        let mut others = cam.clone();
        others.remove(planted);
        let second = others.iter().copied().fold(0.0, f32::max);
        assert!(cam[planted] > 2.0 * second, "{} and {second}", cam[planted]);
    }
}
