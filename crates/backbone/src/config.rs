//! What a vision transformer looks like: sizes, position encoding, normalisation.

use serde::{Deserialize, Serialize};

/// Which family a backbone belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// DINOv2: patch 14, learned position embedding.
    DinoV2,
    /// DINOv3: patch 16, rotary position embedding on patches.
    DinoV3,
}

/// The feed-forward part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedForward {
    /// `fc2(gelu(fc1(x)))`, exact (erf) GELU.
    Mlp,
    /// `down(silu(gate(x)) * up(x))`.
    SwiGlu,
}

/// How positions enter the network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Position {
    /// Axial rotary embedding on q and k of the patch tokens; period `base^(4j/head_dim)`.
    Rope {
        /// Base of the geometric series of periods (100 for DINOv3).
        base: f32,
        /// Round the periods to bf16 first, as the official code does after loading its file.
        round_periods: bool,
    },
    /// A learned `[1 + grid², dim]` table added after the patch embedding, bicubically resized for other sizes.
    Learned {
        /// Side of the square grid of the table (37 for DINOv2).
        grid: usize,
    },
}

/// Per-channel mean and standard deviation, for pixels in 0..1, RGB.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Subtracted from each channel.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet statistics: every model but the satellite ones.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    /// `(value / 255 − mean) / std` of every byte of a channel (0 red, 1 green, 2 blue).
    ///
    /// # Panics
    /// If there is no such channel.
    pub fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|v| (v as f32 / 255.0 - self.mean[channel]) / self.std[channel])
    }

    /// Statistics of the SAT-493M models.
    pub const SAT493M: Self = Self {
        mean: [0.430, 0.411, 0.296],
        std: [0.213, 0.156, 0.143],
    };
}

/// Floating-point operations of one image by operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Patch embedding.
    pub embed: u64,
    /// Queries, keys and values.
    pub qkv: u64,
    /// Both products of attention.
    pub attention: u64,
    /// The projection after it.
    pub projection: u64,
    /// First feed-forward layer, with its gate if it has one.
    pub expand: u64,
    /// Second feed-forward layer.
    pub contract: u64,
}

impl Work {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.embed + self.qkv + self.attention + self.projection + self.expand + self.contract
    }
}

/// The sizes of a vision transformer and how its input is prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    /// Short name, `dinov3_vits16`.
    pub name: String,
    /// Family.
    pub family: Family,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Numbers per token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; `head_dim = dim / heads`.
    pub heads: usize,
    /// Register tokens between the class token and the patches.
    pub registers: usize,
    /// Feed-forward kind.
    pub feed_forward: FeedForward,
    /// Hidden width of the feed-forward part.
    pub hidden: usize,
    /// Epsilon of every layer norm.
    pub norm_eps: f32,
    /// Position encoding.
    pub position: Position,
    /// Pixel normalisation.
    pub normalization: Normalization,
}

impl VitConfig {
    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Tokens before the patches: the class token and the registers.
    pub fn prefix(&self) -> usize {
        1 + self.registers
    }

    /// Rows and columns of the patch grid of a `height`×`width` image; the rest at the bottom and right is dropped.
    pub fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        (height / self.patch_size, width / self.patch_size)
    }

    /// Floating-point operations of one image's products, a multiply-add counting two; norms and activations not counted.
    pub fn work(&self, height: usize, width: usize) -> Work {
        let (rows, columns) = self.grid(height, width);
        let (dim, patches) = (self.dim, rows * columns);
        let tokens = self.prefix() + patches;
        let linear = |outputs: usize| (2 * self.depth * tokens * dim * outputs) as u64;
        let expand = match self.feed_forward {
            FeedForward::Mlp => self.hidden,
            FeedForward::SwiGlu => 2 * self.hidden,
        };
        Work {
            embed: (2 * patches * 3 * self.patch_size * self.patch_size * dim) as u64,
            qkv: linear(3 * dim),
            attention: (4 * self.depth * tokens * tokens * dim) as u64,
            projection: linear(dim),
            expand: linear(expand),
            contract: linear(self.hidden),
        }
    }
}
