//! Time and memory of one training step through a frozen ViT-S/16 at 224 px against its plain forward pass.
//!
//! `cargo run --release -p flawtune-backbone --example training_step -- [images] [rounds] [threads]`; the weights are random.
#![allow(clippy::print_stdout, reason = "it reports measurements")]

use std::time::{Duration, Instant};

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::vit::{Backbone, LayerSelection};
use flawtune_backbone::vjp::{
    DEFAULT_ADAPTER_DIM, Embedded, FrozenVit, InsertionSpec, Insertions, PromptDepth, Scaling,
};
use flawtune_backbone::weights;
use flawtune_testing::Noise;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|v| v.parse::<f64>().ok())
        .map_or(f64::NAN, |kib| kib / 1024.0)
}

#[expect(
    clippy::too_many_lines,
    reason = "a program to read from top to bottom"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<usize> = std::env::args()
        .skip(1)
        .map(|a| a.parse())
        .collect::<Result<_, _>>()?;
    let at = |i: usize, default: usize| arguments.get(i).copied().unwrap_or(default);
    let (images, rounds, threads) = (at(0, 32), at(1, 3), at(2, 2));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let config = VitConfig {
        name: "random vits16".to_owned(),
        family: Family::DinoV3,
        patch_size: 16,
        dim: 384,
        depth: 12,
        heads: 6,
        registers: 4,
        feed_forward: FeedForward::Mlp,
        hidden: 1536,
        norm_eps: 1e-5,
        position: Position::Rope {
            base: 100.0,
            round_periods: false,
        },
        normalization: Normalization::IMAGENET,
    };
    let weights = weights::random(&config, 1);
    let plain = Backbone::new(&config, &weights)?;
    let frozen = FrozenVit::new(&config, &weights)?;
    let mut numbers = Noise(2);
    let (height, width) = (224, 224);
    let pixels = numbers.many(images * 3 * height * width, 1.7);
    let (tokens, grid) = plain.embed_tokens(&pixels, images, height, width)?;
    let embedded = Embedded {
        tokens: &tokens,
        grid,
    };
    let last = [config.depth - 1];
    let none = InsertionSpec::none(&config);
    let adapters = InsertionSpec {
        adapter_dim: Some(DEFAULT_ADAPTER_DIM),
        ..none
    };
    let shallow = InsertionSpec {
        prompt_depth: PromptDepth::Shallow,
        prompts: 10,
        ..none
    };
    let deep = InsertionSpec {
        prompt_depth: PromptDepth::Deep,
        prompts: 10,
        ..none
    };
    let all = InsertionSpec {
        scaling: Scaling::Channel,
        ..InsertionSpec {
            adapter_dim: Some(DEFAULT_ADAPTER_DIM),
            ..deep
        }
    };
    println!("{images} images, {threads} threads, medians of {rounds} interleaved rounds");
    let specs = [
        ("nothing", none),
        ("shallow", shallow),
        ("deep", deep),
        ("adapters", adapters),
        ("deep + adapters", all),
    ];
    let grad = numbers.many(images * (1 + grid.0 * grid.1) * config.dim, 1e-3);
    let mut times = vec![(vec![], vec![], vec![]); specs.len()];
    let mut tape_mib = vec![0.0; specs.len()];
    let mut plain_times = vec![];
    for _ in 0..rounds {
        for (i, (_, spec)) in specs.iter().enumerate() {
            let start = Instant::now();
            plain.forward(
                &pixels,
                images,
                height,
                width,
                &LayerSelection::last(config.depth),
            )?;
            plain_times.push(start.elapsed());
            let inserted = Insertions::initial(*spec, || numbers.signed())?;
            let start = Instant::now();
            frozen.forward(embedded, &inserted, &last)?;
            times[i].0.push(start.elapsed());
            let start = Instant::now();
            let (_, tape) = frozen.forward_recorded(embedded, &inserted, None, &last)?;
            times[i].1.push(start.elapsed());
            tape_mib[i] = tape.bytes() as f64 / 1_048_576.0;
            frozen.backward(&tape, &[&grad], false)?;
            times[i].2.push(start.elapsed());
        }
    }
    let base = median(plain_times);
    println!(
        "plain forward: {base:.3} s, {:.2} images/s",
        images as f64 / base
    );
    for (((name, spec), (forward, recorded, step)), tape) in specs.iter().zip(times).zip(tape_mib) {
        let (forward, recorded, step) = (median(forward), median(recorded), median(step));
        println!(
            "{name} ({} numbers): forward {forward:.3} s, recorded {recorded:.3} s, step {step:.3} s = {:.2} plain \
             forwards; kept {tape:.0} MiB",
            spec.count(),
            step / base
        );
    }
    println!(
        "peak memory {:.0} MiB, both copies of the weights and the pixels included",
        peak_rss_mib()
    );
    Ok(())
}
