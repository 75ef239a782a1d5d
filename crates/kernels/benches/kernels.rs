//! The kernels at the sizes of ViT-S/16 on 224-pixel images; an element is a floating-point operation, so Gelem/s are GFLOP/s.
//!
//! `cargo bench -p flawtune-kernels`; `FLAWTUNE_KERNELS=` chooses the instruction set, `RAYON_NUM_THREADS=` the threads. The
//! rate of `tile` is the most that any product here can reach.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use flawtune_kernels::encoder::{
    Affine, Block, Dense, Encoder, FeedForward, PackedBlock, Pixels, Precision, Shape, Values,
    Workspace,
};
use flawtune_kernels::matching::{
    Matches, PackedPatches, match_both, match_patches, max_similarity, mean_max_all_pairs,
};
use flawtune_kernels::matmul::{Op, matmul};
use flawtune_kernels::prepacked::{Prepacked, Scratch};
use flawtune_kernels::{peak, profile};

const DIM: usize = 384;
const HEADS: usize = 6;
const HIDDEN: usize = 4 * DIM;
/// Patches of a row, and of a column.
const SIDE: usize = 14;
const PATCHES: usize = SIDE * SIDE;
/// Class and register tokens.
const PREFIX: usize = 5;
const TOKENS: usize = PREFIX + PATCHES;
/// Multiply-adds that a turn of the yardstick stands for.
const TILE_WORK: usize = 1 << 30;

/// Uniform numbers in −bound..bound.
fn numbers(n: usize, bound: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bound * ((state >> 40) as f32 / 8_388_608.0 - 1.0)
    };
    (0..n).map(|_| next()).collect()
}

/// Multiply-adds, counted as two operations each.
fn throughput(group: &mut BenchmarkGroup<'_, WallTime>, multiply_adds: usize) {
    group.throughput(Throughput::Elements(2 * multiply_adds as u64));
}

fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
}

/// One block with a patch embedding of one pixel, and a workspace that holds `images` images.
fn encoder(images: usize, precision: Precision) -> (Encoder, Workspace) {
    let shape = Shape {
        dim: DIM,
        heads: HEADS,
        hidden: HIDDEN,
        gated: false,
        rotary: true,
        eps: 1e-5,
    };
    let weight =
        |outputs: usize, inputs: usize| numbers(outputs * inputs, (3.0 / inputs as f32).sqrt());
    let (qkv, proj) = (weight(3 * DIM, DIM), weight(DIM, DIM));
    let (fc1, fc2) = (weight(HIDDEN, DIM), weight(DIM, HIDDEN));
    let (ones, zeros, small) = (vec![1.0; DIM], vec![0.0; 3 * HIDDEN], vec![1e-3; DIM]);
    let affine = Affine {
        weight: &ones,
        bias: &zeros[..DIM],
    };
    let block = Block {
        norm1: affine,
        qkv: Dense {
            weight: &qkv,
            bias: &zeros[..3 * DIM],
        },
        proj: Dense {
            weight: &proj,
            bias: &zeros[..DIM],
        },
        // small: the block runs on its own output again and again
        scale1: &small,
        norm2: affine,
        feed_forward: FeedForward::Mlp {
            fc1: Dense {
                weight: &fc1,
                bias: &zeros[..HIDDEN],
            },
            fc2: Dense {
                weight: &fc2,
                bias: &zeros[..DIM],
            },
        },
        scale2: &small,
    };
    let encoder = Encoder::new(
        shape,
        &numbers(DIM, 1.0),
        1,
        1,
        vec![PackedBlock::pack(&shape, &block, precision)],
    );
    let angles = numbers(TOKENS * DIM / HEADS / 2, 3.0);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let mut work = Workspace::default();
    work.configure(&encoder, images, TOKENS, Some((&cos, &sin)));
    let pixels = Pixels {
        data: Values::Normalised(&numbers(images * PATCHES, 1.0)),
        height: SIDE,
        width: SIDE,
        rows: SIDE,
        columns: SIDE,
        start: &numbers(TOKENS * DIM, 1.0),
    };
    encoder.embed(&mut work, &pixels);
    (encoder, work)
}

fn block(c: &mut Criterion) {
    let mut group = c.benchmark_group("block");
    settings(&mut group);
    let products = TOKENS * (4 * DIM * DIM + 2 * DIM * HIDDEN);
    let attention = 2 * TOKENS * TOKENS * DIM;
    for images in [1, 8] {
        throughput(&mut group, images * (products + attention));
        for precision in [Precision::F16, Precision::Bf16, Precision::Int8] {
            let (encoder, mut work) = encoder(images, precision);
            group.bench_function(format!("whole {precision}/batch {images}"), |b| {
                b.iter(|| encoder.run(&mut work, 0..1));
            });
        }
        let (encoder, mut work) = encoder(images, Precision::F32);
        group.bench_function(format!("whole/batch {images}"), |b| {
            b.iter(|| encoder.run(&mut work, 0..1));
        });
        // time of the operator alone, summed over threads: the rate of one thread
        for (operator, multiply_adds) in [
            ("attention", attention),
            ("qkv", 3 * TOKENS * DIM * DIM),
            ("projection", TOKENS * DIM * DIM),
            ("expand", TOKENS * DIM * HIDDEN),
            ("contract", TOKENS * DIM * HIDDEN),
        ] {
            throughput(&mut group, images * multiply_adds);
            group.bench_function(format!("{operator}/batch {images}"), |b| {
                b.iter_custom(|turns| {
                    let ((), report) =
                        profile::collect(|| (0..turns).for_each(|_| encoder.run(&mut work, 0..1)));
                    let entry = report.entries.iter().find(|e| e.operator == operator);
                    Duration::from_secs_f64(entry.map_or(0.0, |e| e.seconds))
                });
            });
        }
    }
    group.finish();
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    settings(&mut group);
    // the yardstick: criterion's time of it means nothing, its rate does
    throughput(&mut group, TILE_WORK);
    group.bench_function("tile, all threads", |b| {
        b.iter_custom(|turns| {
            let rate = peak::attainable(Duration::from_millis(100));
            Duration::from_secs_f64(turns as f64 * 2.0 * TILE_WORK as f64 / 1e9 / rate)
        });
    });
    let (a, b, bias) = (
        numbers(PATCHES * DIM, 1.0),
        numbers(DIM * DIM, 1.0),
        numbers(DIM, 1.0),
    );
    let mut out = vec![0.0; PATCHES * DIM];
    throughput(&mut group, PATCHES * DIM * DIM);
    group.bench_function("matmul 196x384x384", |bencher| {
        bencher.iter(|| {
            matmul(
                PATCHES,
                DIM,
                DIM,
                &a,
                Op::None,
                &b,
                Op::Transpose,
                &mut out,
                false,
            );
        });
    });
    let packed = Prepacked::new(DIM, DIM, &b, Op::Transpose, &bias);
    let mut scratch = Scratch::default();
    group.bench_function("prepacked 196x384x384, 1 thread", |bencher| {
        bencher.iter(|| packed.multiply(&a, &mut out, false, &mut scratch));
    });
    group.finish();
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("matching");
    settings(&mut group);
    let rows = numbers(2 * PATCHES * DIM, 0.1);
    let (a, b) = rows.split_at(PATCHES * DIM);
    let (a, b) = (PackedPatches::pack(a, DIM), PackedPatches::pack(b, DIM));
    throughput(&mut group, PATCHES * PATCHES * DIM);
    let mut best = vec![0.0; PATCHES];
    group.bench_function("max, 1 thread", |bencher| {
        bencher.iter(|| max_similarity(&a, &b, &mut best));
    });
    let (mut ab, mut ba) = (Matches::default(), Matches::default());
    group.bench_function("argmax, 1 thread", |bencher| {
        bencher.iter(|| match_patches(&a, &b, &mut ab));
    });
    group.bench_function("both ways, 1 thread", |bencher| {
        bencher.iter(|| match_both(&a, &b, &mut ab, &mut ba));
    });
    let (tests, supports) = (vec![a; 8], vec![b; 16]);
    throughput(
        &mut group,
        tests.len() * supports.len() * PATCHES * PATCHES * DIM,
    );
    group.bench_function("all pairs 8x16", |bencher| {
        bencher.iter(|| black_box(mean_max_all_pairs(&tests, &supports)));
    });
    group.finish();
}

criterion_group!(benches, block, products, matching);
criterion_main!(benches);
