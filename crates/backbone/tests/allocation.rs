//! A forward pass of a size that was seen before allocates nothing. The only test of its binary: it counts what the whole
//! process allocates.

#![allow(clippy::unwrap_used)] // a test may stop

use std::alloc::System;

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::vit::{Backbone, Combine, LayerSelection, Tokens};
use flawtune_backbone::weights::random;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn config(feed_forward: FeedForward, position: Position) -> VitConfig {
    VitConfig {
        name: "small".to_owned(),
        family: Family::DinoV3,
        patch_size: 8,
        dim: 48,
        depth: 3,
        heads: 4,
        registers: 2,
        feed_forward,
        hidden: 64,
        norm_eps: 1e-5,
        position,
        normalization: Normalization::IMAGENET,
    }
}

/// Allocations of the second and the third of three equal passes.
fn allocations(
    pool: &rayon::ThreadPool,
    config: &VitConfig,
    batch: usize,
    layers: &LayerSelection,
) -> usize {
    pool.install(|| {
        let backbone = Backbone::new(config, &random(config, 1)).unwrap();
        let (height, width) = (56, 40);
        let pixels: Vec<f32> = (0..batch * 3 * height * width)
            .map(|i| (i % 251) as f32 / 125.0 - 1.0)
            .collect();
        let mut tokens = Tokens::default();
        let mut forward = || {
            backbone
                .forward_into(&pixels, batch, height, width, layers, &mut tokens)
                .unwrap();
        };
        forward();
        let region = Region::new(ALLOCATOR);
        forward();
        forward();
        let change = region.change();
        change.allocations + change.reallocations
    })
}

#[test]
fn a_warm_forward_pass_allocates_nothing() {
    // the counter counts
    let region = Region::new(ALLOCATOR);
    let cold = std::hint::black_box(vec![0u8; 100]);
    assert_eq!((region.change().allocations, cold.len()), (1, 100));
    // threads that start or end allocate, so all pools are made before anything is counted and live to the end
    let pools = [1, 2, 3].map(|threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    });
    for pool in &pools {
        pool.broadcast(|_| ());
    }
    let rope = Position::Rope {
        base: 100.0,
        round_periods: false,
    };
    for (feed_forward, position) in [
        (FeedForward::Mlp, rope),
        (FeedForward::SwiGlu, rope),
        (FeedForward::Mlp, Position::Learned { grid: 4 }),
    ] {
        let config = config(feed_forward, position);
        for batch in [1, 5] {
            for (layers, combine) in [
                (vec![2], Combine::Mean),
                (vec![2, 0], Combine::Mean),
                (vec![1, 2], Combine::Concat),
            ] {
                let selection = LayerSelection { layers, combine };
                for pool in &pools {
                    let count = allocations(pool, &config, batch, &selection);
                    let threads = pool.current_num_threads();
                    assert_eq!(
                        count, 0,
                        "{config:?}, batch {batch}, {selection:?}, {threads} threads"
                    );
                }
            }
        }
    }
}
