//! Tiny backbones with random weights.

use flawtune_backbone::config::{Family, FeedForward, Normalization, Position, VitConfig};
use flawtune_backbone::weights::{BlockWeights, FeedForwardWeights, Linear, Norm, VitWeights};

use flawtune_testing::Noise;

use super::golden::stored;

/// Parts of a network of small random numbers.
trait Parts {
    fn around_one(&mut self, n: usize) -> Vec<f32>;
    fn linear(&mut self, outputs: usize, inputs: usize) -> Linear;
    fn norm(&mut self, n: usize) -> Norm;
}

impl Parts for Noise {
    fn around_one(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| 1.0 + 0.3 * self.signed()).collect()
    }

    fn linear(&mut self, outputs: usize, inputs: usize) -> Linear {
        let values = self.many(outputs * inputs, (3.0 / inputs as f32).sqrt());
        Linear {
            weight: vec![stored(&values, &[outputs, inputs])],
            bias: self.many(outputs, 0.2),
            inputs,
            outputs,
        }
    }

    fn norm(&mut self, n: usize) -> Norm {
        Norm {
            weight: self.around_one(n),
            bias: self.many(n, 0.2),
        }
    }
}

/// `DINOv2`-like: learned positions on a grid that the images do not have, so that they are resized.
pub(crate) fn dinov2(feed_forward: FeedForward, registers: usize) -> (VitConfig, VitWeights) {
    let config = VitConfig {
        name: "tiny dinov2".to_owned(),
        family: Family::DinoV2,
        patch_size: 4,
        dim: 18,
        depth: 3,
        heads: 3,
        registers,
        feed_forward,
        hidden: 28,
        norm_eps: 1e-6,
        position: Position::Learned { grid: 4 },
        normalization: Normalization::IMAGENET,
    };
    let mut n = Noise(7);
    let (d, hidden) = (config.dim, config.hidden);
    let block = |n: &mut Noise| BlockWeights {
        norm1: n.norm(d),
        qkv: n.linear(3 * d, d),
        proj: n.linear(d, d),
        scale1: n.around_one(d),
        norm2: n.norm(d),
        feed_forward: match feed_forward {
            FeedForward::Mlp => FeedForwardWeights::Mlp {
                fc1: n.linear(hidden, d),
                fc2: n.linear(d, hidden),
            },
            FeedForward::SwiGlu => FeedForwardWeights::SwiGlu {
                gate: n.linear(hidden, d),
                up: n.linear(hidden, d),
                down: n.linear(d, hidden),
            },
        },
        scale2: n.around_one(d),
    };
    let weights = VitWeights {
        cls: n.many(d, 1.0),
        registers: n.many(registers * d, 1.0),
        patch: n.linear(d, 3 * config.patch_size * config.patch_size),
        positions: Some(n.many((1 + 16) * d, 0.5)),
        blocks: (0..config.depth).map(|_| block(&mut n)).collect(),
        norm: n.norm(d),
        content_hash: String::new(),
    };
    (config, weights)
}
