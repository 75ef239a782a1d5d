//! Forward pass and matching throughput on random weights, interleaved with the machine's yardsticks.
//!
//! `speed [s|b] <image side> <batch> <threads> [rounds] [f32|f16|bf16|int8]`, `speed match <threads> [rounds]` (every
//! product in f32) or `speed contest <threads> [rounds]` (the same result by a coarse pass; its rate counts the products it is spared)
#![allow(clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use flawtune_kernels::encoder::{
    Affine, Block, Dense, Encoder, FeedForward, PackedBlock, Pixels, Precision, Shape, Values,
    Workspace,
};
use flawtune_kernels::matching::{Frame, PackedPatches, mean_max_all_pairs};
use flawtune_kernels::{dispatch, peak};

fn numbers(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / 8_388_608.0 - 1.0) * scale
        })
        .collect()
}

fn encoder(dim: usize, heads: usize, depth: usize, precision: Precision) -> Encoder {
    let hidden = 4 * dim;
    let shape = Shape {
        dim,
        heads,
        hidden,
        gated: false,
        rotary: true,
        eps: 1e-5,
    };
    let (ones, small, bias) = (
        vec![1.0; dim],
        vec![0.1; dim],
        numbers(hidden.max(3 * dim), 9, 0.1),
    );
    let blocks = (0..depth as u64)
        .map(|i| {
            let w = [
                numbers(3 * dim * dim, i + 1, 0.05),
                numbers(dim * dim, i + 2, 0.05),
                numbers(hidden * dim, i + 3, 0.05),
                numbers(hidden * dim, i + 4, 0.05),
            ];
            let norm = Affine {
                weight: &ones,
                bias: &bias[..dim],
            };
            let dense = |i: usize, n: usize| Dense {
                weight: &w[i],
                bias: &bias[..n],
            };
            let block = Block {
                norm1: norm,
                qkv: dense(0, 3 * dim),
                proj: dense(1, dim),
                scale1: &small,
                norm2: norm,
                feed_forward: FeedForward::Mlp {
                    fc1: dense(2, hidden),
                    fc2: dense(3, dim),
                },
                scale2: &small,
            };
            PackedBlock::pack(&shape, &block, precision)
        })
        .collect();
    Encoder::new(shape, &numbers(dim * 768, 77, 0.02), 3, 16, blocks)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const YARD: Duration = Duration::from_millis(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| args.get(i).and_then(|s| s.parse().ok()).unwrap_or(default);
    let what = args.first().map_or("s", String::as_str);
    let matching = what == "match" || what == "contest";
    let threads = if matching { number(1, 1) } else { number(3, 1) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .unwrap();
    let wanted = args.get(5).map_or("f32", String::as_str);
    let precision: Precision = wanted.parse().unwrap();
    println!(
        "kernels {}, {threads} threads, {wanted}",
        dispatch::isa().unwrap()
    );
    let (mut peaks, mut attainables, mut rates) = (vec![], vec![], vec![]);
    let mut yard = |work: &mut dyn FnMut() -> f64, rounds: usize| {
        work();
        for _ in 0..rounds {
            peaks.push(peak::fma_peak(YARD));
            attainables.push(peak::attainable(YARD));
            rates.push(work());
        }
        let best = rates.iter().copied().fold(0.0, f64::max);
        let (p, a, r) = (
            median(&mut peaks),
            median(&mut attainables),
            median(&mut rates),
        );
        println!(
            "FMA {p:.1}, attainable {a:.1}, reached {r:.1} GFLOP/s (best {best:.1}) = {:.3} of FMA, {:.3} of attainable",
            r / p,
            r / a
        );
        r
    };
    if matching {
        let (tests, supports, patches, dim) = (24, 64, 196, 384);
        let pack = |n: usize, seed| -> Vec<PackedPatches> {
            (0..n as u64)
                .map(|i| PackedPatches::pack(&numbers(patches * dim, i + seed, 0.1), dim))
                .collect()
        };
        let (mut t, mut s) = (pack(tests, 1), pack(supports, 1000));
        if what == "contest" {
            let Some(frame) = Frame::around_images(&s) else {
                return println!("no coarse pass on this machine");
            };
            t.iter_mut()
                .chain(&mut s)
                .for_each(|image| image.sketch(&frame));
        }
        let flops = 2.0 * (tests * supports * patches * patches * dim) as f64;
        let mut work = || {
            let start = Instant::now();
            std::hint::black_box(mean_max_all_pairs(&t, &s));
            flops / start.elapsed().as_secs_f64() / 1e9
        };
        yard(&mut work, number(2, 9));
        return;
    }
    let (dim, heads) = if what == "b" { (768, 12) } else { (384, 6) };
    let (side, batch) = (number(1, 224), number(2, 1));
    let encoder = encoder(dim, heads, 12, precision);
    let grid = side / 16;
    let tokens = 5 + grid * grid;
    let pixels = numbers(batch * 3 * side * side, 5, 2.0);
    let start = numbers(tokens * dim, 6, 0.5);
    let angles = numbers(tokens * 32, 7, 1.0);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let mut work_space = Workspace::default();
    let mut out = vec![0.0; batch * tokens * dim];
    let gain = vec![1.0; dim];
    let linear = 2.0 * 12.0 * (tokens * dim * dim * 12) as f64;
    let attention = 4.0 * 12.0 * (tokens * tokens * dim) as f64;
    let flops = batch as f64 * (linear + attention + 2.0 * (grid * grid * 768 * dim) as f64);
    let mut work = || {
        let begin = Instant::now();
        work_space.configure(&encoder, batch, tokens, Some((&cos, &sin)));
        let input = Pixels {
            data: Values::Normalised(&pixels),
            height: side,
            width: side,
            rows: grid,
            columns: grid,
            start: &start,
        };
        encoder.embed(&mut work_space, &input);
        encoder.run(&mut work_space, 0..12);
        let norm = Affine {
            weight: &gain,
            bias: &gain,
        };
        encoder.read(
            &mut work_space,
            Some(norm),
            std::slice::from_ref(&(0..tokens)),
            &mut out,
        );
        flops / begin.elapsed().as_secs_f64() / 1e9
    };
    let rate = yard(&mut work, number(4, 15));
    println!("{:.2} images/s", rate * 1e9 / flops * batch as f64);
    if std::env::var_os("FLAWTUNE_PROFILE").is_some() {
        let mut runs: Vec<(&str, Vec<f64>)> = vec![];
        for _ in 0..number(4, 15) {
            flawtune_kernels::profile::reset();
            work();
            for e in flawtune_kernels::profile::report().entries {
                match runs.iter_mut().find(|r| r.0 == e.operator) {
                    Some(r) => r.1.push(e.seconds),
                    None => runs.push((e.operator, vec![e.seconds])),
                }
            }
        }
        let d = (12 * batch * tokens * dim * dim) as f64;
        for (name, mut seconds) in runs {
            let flops = match name {
                "embed" => batch as f64 * 2.0 * (grid * grid * 768 * dim) as f64,
                "qkv" => 6.0 * d,
                "projection" => 2.0 * d,
                "expand" | "contract" => 8.0 * d,
                "attention" => batch as f64 * attention,
                _ => 0.0,
            };
            let m = median(&mut seconds);
            println!(
                "{name:<11} {:8.2} ms (best {:.2}) {:6.1} GFLOP/s (best {:.1})",
                m * 1e3,
                seconds[0] * 1e3,
                flops / m / 1e9,
                flops / seconds[0] / 1e9
            );
        }
    }
}
