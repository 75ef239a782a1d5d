//! The forward pass against the golden tokens of the tiny networks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection, VitError};
use flawtune_backbone::weights::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};
use flawtune_kernels::dispatch::{self, Isa};
use safetensors::{Dtype, SafeTensors};

/// Largest absolute difference from tokens computed in f64: what the golden folder's README asks of f32.
const TOKENS: f32 = 1e-5;
/// From tokens computed in f32, which are themselves up to 6e-6 from the f64 ones.
const TOKENS_F32: f32 = 2e-5;
/// Tokens inside the network are up to ten times larger than normed ones.
const BLOCKS: f32 = 4e-5;
/// Probabilities are at most 1.
const PROBABILITIES: f32 = 4e-6;

fn golden() -> PathBuf {
    std::env::var_os("FLAWTUNE_GOLDEN").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).into(),
        PathBuf::from,
    )
}

struct File(Vec<u8>);

impl File {
    fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).ok()?;
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F64 => bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32)
                .collect(),
            _ => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        };
        Some((tensor.shape().to_vec(), values))
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.get(name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .1
    }

    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0)
            .unwrap()
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }
}

fn linear(file: &File, names: &[String]) -> Linear {
    let mut weight = vec![];
    let (mut bias, mut inputs, mut outputs) = (vec![], 0, 0);
    for name in names {
        let (shape, values) = file.get(&format!("{name}.weight")).unwrap();
        inputs = shape[1..].iter().product();
        outputs += shape[0];
        bias.extend(
            file.get(&format!("{name}.bias"))
                .map_or_else(|| vec![0.0; shape[0]], |b| b.1),
        );
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
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

fn norm(file: &File, name: &str) -> Norm {
    Norm {
        weight: file.values(&format!("{name}.weight")),
        bias: file.values(&format!("{name}.bias")),
    }
}

fn weights(file: &File, config: &VitConfig) -> VitWeights {
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
            scale1: file.values(&format!("layer.{i}.layer_scale1.lambda1")),
            norm2: norm(file, &format!("layer.{i}.norm2")),
            feed_forward,
            scale2: file.values(&format!("layer.{i}.layer_scale2.lambda1")),
        }
    };
    VitWeights {
        cls: file.values("embeddings.cls_token"),
        registers: file.values("embeddings.register_tokens"),
        patch: linear(file, &["embeddings.patch_embeddings".to_owned()]),
        positions: None,
        blocks: (0..config.depth).map(block).collect(),
        norm: norm(file, "norm"),
        content_hash: String::new(),
    }
}

fn config(name: &str, file: &File, round_periods: bool) -> VitConfig {
    let path = golden().join("ckpt").join(name).join("arch.json");
    let arch: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let size = |key: &str| usize::try_from(arch[key].as_u64().unwrap()).unwrap();
    let depth = (0..1000)
        .take_while(|i| file.get(&format!("layer.{i}.norm1.weight")).is_some())
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
    let file = File::open(&golden().join("ckpt").join(name).join("hf.safetensors"));
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
    let inputs = File::open(&golden().join("backbone/inputs.safetensors"));
    for network in NETWORKS {
        let wanted = File::open(
            &golden()
                .join("backbone")
                .join(format!("{network}.safetensors")),
        );
        let (exact, rounded) = (backbone(network, false), backbone(network, true));
        for input in inputs.names() {
            let (shape, pixels) = inputs.get(&input).unwrap();
            let [batch, _, height, width] = shape[..] else {
                panic!("pixels are [B,3,H,W]")
            };
            let what = |stage: &str| format!("{network} {input}.{stage}");
            let values = |stage: &str| wanted.values(&format!("{input}.{stage}"));
            let trace = exact.forward_trace(&pixels, batch, height, width).unwrap();
            assert_close(&what("embed"), &trace.embed, &values("embed"), TOKENS);
            for (i, block) in trace.blocks.iter().enumerate() {
                assert_close(
                    &what(&format!("block{i}")),
                    block,
                    &values(&format!("block{i}")),
                    BLOCKS,
                );
            }
            assert_close(
                &what("attn_last"),
                &trace.attention,
                &values("attn_last"),
                PROBABILITIES,
            );
            assert_close(
                &what("normed_f64"),
                &trace.normed,
                &values("normed_f64"),
                TOKENS,
            );
            assert_close(
                &what("normed"),
                &trace.normed,
                &values("normed"),
                TOKENS_F32,
            );
            let trace = rounded
                .forward_trace(&pixels, batch, height, width)
                .unwrap();
            assert_close(
                &what("normed_bf16_periods"),
                &trace.normed,
                &values("normed_bf16_periods"),
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
    let inputs = File::open(&golden().join("backbone/inputs.safetensors"));
    let (shape, pixels) = inputs.get("rect").unwrap();
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
    let inputs = File::open(&golden().join("backbone/inputs.safetensors"));
    for network in NETWORKS {
        let backbone = backbone(network, false);
        let selection = LayerSelection::last(backbone.config().depth);
        for input in inputs.names() {
            let (shape, pixels) = inputs.get(&input).unwrap();
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
    let file = File::open(&golden().join("ckpt/tiny_mlp/hf.safetensors"));
    let mut wide = config("tiny_mlp", &file, false);
    let weights = weights(&file, &wide);
    wide.hidden = 128;
    let error = Backbone::new(&wide, &weights).unwrap_err().to_string();
    assert_eq!(
        error,
        "block 0: fc1.weight has shape [256, 64], but the configuration of tiny_mlp wants [128, 64]: \
         choose the variant that the weight file was made for"
    );
}
