//! Weights drawn at random: for measuring speed and memory, which do not depend on what a network has learned.

use std::sync::Arc;

use super::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};
use crate::config::{FeedForward, Position, VitConfig};

/// Uniform numbers in −1..1 from a linear congruence.
struct Numbers(u64);

impl Numbers {
    fn many(&mut self, n: usize, bound: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            bound * ((self.0 >> 40) as f32 / 8_388_608.0 - 1.0)
        };
        (0..n).map(|_| next()).collect()
    }

    /// Weights of variance 1 / inputs, so that activations keep their size through the blocks.
    fn linear(&mut self, outputs: usize, inputs: usize) -> Linear {
        let values = self.many(outputs * inputs, (3.0 / inputs as f32).sqrt());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weight = StoredTensor {
            storage: Storage::Owned(Arc::new(bytes)),
            offset: 0,
            dtype: DType::F32,
            shape: vec![outputs, inputs],
        };
        Linear {
            weight: vec![weight],
            bias: self.many(outputs, 0.1),
            inputs,
            outputs,
        }
    }
}

/// Weights of the sizes in `c`, the same for the same seed. Their `content_hash` is empty: nothing made with them
/// belongs in a cache.
pub fn random(c: &VitConfig, seed: u64) -> VitWeights {
    let mut n = Numbers(seed);
    let norm = || Norm {
        weight: vec![1.0; c.dim],
        bias: vec![0.0; c.dim],
    };
    let block = |n: &mut Numbers| BlockWeights {
        norm1: norm(),
        qkv: n.linear(3 * c.dim, c.dim),
        proj: n.linear(c.dim, c.dim),
        scale1: vec![0.2; c.dim],
        norm2: norm(),
        feed_forward: match c.feed_forward {
            FeedForward::Mlp => FeedForwardWeights::Mlp {
                fc1: n.linear(c.hidden, c.dim),
                fc2: n.linear(c.dim, c.hidden),
            },
            FeedForward::SwiGlu => FeedForwardWeights::SwiGlu {
                gate: n.linear(c.hidden, c.dim),
                up: n.linear(c.hidden, c.dim),
                down: n.linear(c.dim, c.hidden),
            },
        },
        scale2: vec![0.2; c.dim],
    };
    VitWeights {
        cls: n.many(c.dim, 0.1),
        registers: n.many(c.registers * c.dim, 0.1),
        patch: n.linear(c.dim, 3 * c.patch_size * c.patch_size),
        positions: match c.position {
            Position::Rope { .. } => None,
            Position::Learned { grid } => Some(n.many((1 + grid * grid) * c.dim, 0.1)),
        },
        blocks: (0..c.depth).map(|_| block(&mut n)).collect(),
        norm: norm(),
        content_hash: String::new(),
    }
}
