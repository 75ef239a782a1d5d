//! The forward pass against the golden tokens of the tiny networks.

#![allow(clippy::unwrap_used)] // a test may stop

use std::process::Command;
use std::sync::Arc;

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection, VitError};
use flawtune_backbone::weights::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};
use flawtune_kernels::dispatch::{self, Isa};
use flawtune_testing::{Golden, golden};

/// Largest absolute difference from tokens computed in f64: what the golden folder's README asks of f32.
const TOKENS: f32 = 1e-5;
/// From tokens computed in f32, which are themselves up to 6e-6 from the f64 ones.
const TOKENS_F32: f32 = 2e-5;
/// Tokens inside the network are up to ten times larger than normed ones.
const BLOCKS: f32 = 4e-5;
/// Probabilities are at most 1.
const PROBABILITIES: f32 = 4e-6;

/// The values of a tensor.
fn values(file: &Golden, name: &str) -> Vec<f32> {
    file.f32s(name).1
}

fn linear(file: &Golden, names: &[String]) -> Linear {
    let mut weight = vec![];
    let (mut bias, mut inputs, mut outputs) = (vec![], 0, 0);
    for name in names {
        let (shape, weights) = file.f32s(&format!("{name}.weight"));
        inputs = shape[1..].iter().product();
        outputs += shape[0];
        bias.extend(if file.has(&format!("{name}.bias")) {
            values(file, &format!("{name}.bias"))
        } else {
            vec![0.0; shape[0]]
        });
        let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
        weight.push(StoredTensor {
            storage: Storage::Owned(Arc::new(bytes)),
            offset: 0,
            dtype: DType::F32,
            shape,
        });
    }
    Linear {
        weight,
        bias,
        inputs,
        outputs,
    }
}

fn norm(file: &Golden, name: &str) -> Norm {
    Norm {
        weight: values(file, &format!("{name}.weight")),
        bias: values(file, &format!("{name}.bias")),
    }
}

fn weights(file: &Golden, config: &VitConfig) -> VitWeights {
    let block = |i: usize| {
        let one = |part: &str| linear(file, &[format!("layer.{i}.{part}")]);
        let feed_forward = match config.feed_forward {
            FeedForward::Mlp => FeedForwardWeights::Mlp {
                fc1: one("mlp.up_proj"),
                fc2: one("mlp.down_proj"),
            },
            FeedForward::SwiGlu => FeedForwardWeights::SwiGlu {
                gate: one("mlp.gate_proj"),
                up: one("mlp.up_proj"),
                down: one("mlp.down_proj"),
            },
        };
        BlockWeights {
            norm1: norm(file, &format!("layer.{i}.norm1")),
            qkv: linear(
                file,
                &["q", "k", "v"].map(|p| format!("layer.{i}.attention.{p}_proj")),
            ),
            proj: one("attention.o_proj"),
            scale1: values(file, &format!("layer.{i}.layer_scale1.lambda1")),
            norm2: norm(file, &format!("layer.{i}.norm2")),
            feed_forward,
            scale2: values(file, &format!("layer.{i}.layer_scale2.lambda1")),
        }
    };
    VitWeights {
        cls: values(file, "embeddings.cls_token"),
        registers: values(file, "embeddings.register_tokens"),
        patch: linear(file, &["embeddings.patch_embeddings".to_owned()]),
        positions: None,
        blocks: (0..config.depth).map(block).collect(),
        norm: norm(file, "norm"),
        content_hash: String::new(),
    }
}

fn config(name: &str, file: &Golden, round_periods: bool) -> VitConfig {
    let path = golden("ckpt").join(name).join("arch.json");
    let arch: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let size = |key: &str| usize::try_from(arch[key].as_u64().unwrap()).unwrap();
    let depth = (0..1000)
        .take_while(|i| file.has(&format!("layer.{i}.norm1.weight")))
        .count();
    assert_eq!(depth, size("depth"));
    VitConfig {
        name: name.to_owned(),
        family: Family::DinoV3,
        patch_size: size("patch"),
        dim: size("dim"),
        depth,
        heads: size("heads"),
        registers: size("registers"),
        feed_forward: if arch["ffn"] == "swiglu" {
            FeedForward::SwiGlu
        } else {
            FeedForward::Mlp
        },
        hidden: size("hidden"),
        norm_eps: arch["norm_eps"].as_f64().unwrap() as f32,
        position: Position::Rope {
            base: arch["rope_base"].as_f64().unwrap() as f32,
            round_periods,
        },
        normalization: Normalization::IMAGENET,
    }
}

const NETWORKS: [&str; 3] = ["tiny_mlp", "tiny_swiglu", "tiny_nobias"];

fn backbone(name: &str, round_periods: bool) -> Backbone {
    let file = Golden::open(format!("ckpt/{name}/hf.safetensors"));
    let config = config(name, &file, round_periods);
    Backbone::new(&config, &weights(&file, &config)).unwrap()
}

fn assert_close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}: length");
    let worst = got
        .iter()
        .zip(wanted)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
    assert!(
        worst <= tolerance,
        "{what}: off by {worst}, allowed {tolerance}"
    );
}

#[test]
fn every_stage_equals_the_goldens() {
    let inputs = Golden::open("backbone/inputs.safetensors");
    for network in NETWORKS {
        let wanted = Golden::open(format!("backbone/{network}.safetensors"));
        let (exact, rounded) = (backbone(network, false), backbone(network, true));
        for input in inputs.names() {
            let (shape, pixels) = inputs.f32s(&input);
            let [batch, _, height, width] = shape[..] else {
                panic!("pixels are [B,3,H,W]")
            };
            let what = |stage: &str| format!("{network} {input}.{stage}");
            let at = |stage: &str| values(&wanted, &format!("{input}.{stage}"));
            let trace = exact.forward_trace(&pixels, batch, height, width).unwrap();
            assert_close(&what("embed"), &trace.embed, &at("embed"), TOKENS);
            for (i, block) in trace.blocks.iter().enumerate() {
                assert_close(
                    &what(&format!("block{i}")),
                    block,
                    &at(&format!("block{i}")),
                    BLOCKS,
                );
            }
            assert_close(
                &what("attn_last"),
                &trace.attention,
                &at("attn_last"),
                PROBABILITIES,
            );
            assert_close(
                &what("normed_f64"),
                &trace.normed,
                &at("normed_f64"),
                TOKENS,
            );
            assert_close(&what("normed"), &trace.normed, &at("normed"), TOKENS_F32);
            let trace = rounded
                .forward_trace(&pixels, batch, height, width)
                .unwrap();
            assert_close(
                &what("normed_bf16_periods"),
                &trace.normed,
                &at("normed_bf16_periods"),
                TOKENS_F32,
            );
        }
    }
}

#[test]
fn every_instruction_set_equals_the_goldens() {
    // the choice is made once a process, so each set gets one that runs the test above
    let mut sets = 0;
    for isa in Isa::available() {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "every_stage_equals_the_goldens"])
            .env(dispatch::VARIABLE, isa.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.contains("1 passed"),
            "{isa}: {said}"
        );
        sets += 1;
    }
    assert!(sets > 0);
}

/// The class and patch tokens of `all` (`[batch, T, dim]`).
fn without_registers(all: &[f32], backbone: &Backbone, batch: usize) -> Vec<f32> {
    let (dim, prefix) = (backbone.config().dim, backbone.config().prefix());
    let image = all.len() / batch;
    all.chunks_exact(image)
        .flat_map(|t| [&t[..dim], &t[prefix * dim..]].concat())
        .collect()
}

#[test]
fn selected_layers_are_normed_and_combined() {
    let backbone = backbone("tiny_mlp", false);
    let inputs = Golden::open("backbone/inputs.safetensors");
    let (shape, pixels) = inputs.f32s("rect");
    let (batch, height, width) = (shape[0], shape[2], shape[3]);
    let depth = backbone.config().depth;
    let forward = |layers: &[usize], combine| {
        let selection = LayerSelection {
            layers: layers.to_vec(),
            combine,
        };
        backbone
            .forward(&pixels, batch, height, width, &selection)
            .unwrap()
    };
    let last = backbone
        .forward(&pixels, batch, height, width, &LayerSelection::last(depth))
        .unwrap();
    let trace = backbone
        .forward_trace(&pixels, batch, height, width)
        .unwrap();
    assert_eq!(
        last.data,
        without_registers(&trace.normed, &backbone, batch)
    );
    assert_eq!(last.grid, (height / 16, width / 16));
    let first = forward(&[0], Combine::Mean);
    let mean = forward(&[depth - 1, 0], Combine::Mean);
    let concat = forward(&[depth - 1, 0], Combine::Concat);
    let dim = last.dim;
    assert_eq!((mean.dim, concat.dim), (dim, 2 * dim));
    for token in 0..last.data.len() / dim {
        let (a, b) = (
            &last.data[token * dim..][..dim],
            &first.data[token * dim..][..dim],
        );
        assert_eq!(concat.data[token * 2 * dim..][..2 * dim], [a, b].concat());
        let halves: Vec<f32> = a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect();
        assert_eq!(mean.data[token * dim..][..dim], halves);
    }
}

/// Repeats enough to catch a missing barrier: that shows in some runs only.
const REPEATS: usize = 60;

#[test]
fn threads_and_batch_change_no_byte() {
    let inputs = Golden::open("backbone/inputs.safetensors");
    for network in NETWORKS {
        let backbone = backbone(network, false);
        let selection = LayerSelection::last(backbone.config().depth);
        for input in inputs.names() {
            let (shape, pixels) = inputs.f32s(&input);
            let (batch, height, width) = (shape[0], shape[2], shape[3]);
            let image = pixels.len() / batch;
            let mut singles = vec![];
            for one in pixels.chunks_exact(image) {
                singles.extend(
                    backbone
                        .forward(one, 1, height, width, &selection)
                        .unwrap()
                        .data,
                );
            }
            let seven: Vec<f32> = pixels.iter().copied().cycle().take(7 * image).collect();
            for threads in [1, 2, 3, 5] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    for _ in 0..REPEATS / threads {
                        let tokens = backbone
                            .forward(&pixels, batch, height, width, &selection)
                            .unwrap();
                        assert_eq!(tokens.data, singles, "{network} {input}, {threads} threads");
                    }
                    let tokens = backbone
                        .forward(&seven, 7, height, width, &selection)
                        .unwrap();
                    for i in 0..7 {
                        let len = singles.len() / batch;
                        assert_eq!(
                            tokens.image(i),
                            &singles[i % batch * len..][..len],
                            "{network} {input} image {i}"
                        );
                    }
                });
            }
        }
    }
}

#[test]
fn wrong_inputs_say_what_is_wrong() {
    let backbone = backbone("tiny_mlp", false);
    let last = LayerSelection::last(3);
    let error = backbone.forward(&[0.0; 10], 1, 64, 64, &last).unwrap_err();
    assert_eq!(
        error.to_string(),
        "10 pixel values given, but [1, 3, 64, 64] has 12288"
    );
    let error = backbone
        .forward(&[0.0; 3 * 15 * 64], 1, 15, 64, &last)
        .unwrap_err();
    assert_eq!(
        error,
        VitError::TooSmall {
            height: 15,
            width: 64,
            patch: 16
        }
    );
    for layers in [vec![], vec![3], vec![1, 1]] {
        let selection = LayerSelection {
            layers: layers.clone(),
            combine: Combine::Mean,
        };
        let error = backbone
            .forward(&[0.0; 3 * 16 * 16], 1, 16, 16, &selection)
            .unwrap_err();
        assert_eq!(error, VitError::Layers { layers, depth: 3 });
    }
    let file = Golden::open("ckpt/tiny_mlp/hf.safetensors");
    let mut wide = config("tiny_mlp", &file, false);
    let weights = weights(&file, &wide);
    wide.hidden = 128;
    let error = Backbone::new(&wide, &weights).unwrap_err().to_string();
    assert_eq!(
        error,
        "block 0: fc1.weight has shape [256, 64], but the configuration of tiny_mlp wants [128, 64]\n\
         hint: choose the variant that the weight file was made for"
    );
}
