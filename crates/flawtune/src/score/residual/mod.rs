//! How the patches of an image depart from what is normal at their place: distances to whole banks, block by block, and a head
//! that has learned which departures are defects.
//!
//! For each block b of a spread over the network, with the unit patch token `x_b` and its nearest patch `n_b` among the good
//! images' (an image of the bank without itself):
//!
//! ```text
//! distance  d_b = 1 − x_b · n_b
//! spacing   s_b = 1 − n_b · (nearest patch of another good image)
//! excess    e_b = d_b − slope_b · s_b          d = mean over b of (e_b − μ_b) / σ_b      (slope, μ, σ of good images)
//! residual  r_b = x_b − n_b                    l = w · [r_1 … r_B] · 20 / √(B/2) + bias
//! odd       O = mean of the largest d          known    K = mean of the largest l
//! score     z(O) + weight · z(K)               z: standardised on good images
//! ```
//!
//! Where good patches are alike, a small distance is odd; where they differ from image to image, a larger one is not. The spacing of
//! the nearest good patch says which of the two it is, and the slope is the line of least squares through what good images have.
//!
//! A residual says how a patch departs from what is normal there, not what the patch is: so a head on residuals carries over
//! from the place of a known defect to other places. The weight grows with the number of shots; without shots it is 0 and the score
//! is the bank's alone.
//!
//! | file | holds |
//! |---|---|
//! | `look.rs` | banks of several blocks, and what they say of an image |
//! | `looks.rs` | what good images said of the banks, as bytes for a cache |
//! | `model.rs` | what is learned beside the banks, and the scores that follow |
//! | `spacing.rs` | how far good patches lie from each other |
//! | `fit.rs` | learning it from good images and shots |
//! | `join.rs` | several sizes of an image as one |
//! | `kinds.rs` | what type of flaw an image shows |

mod fit;
mod join;
mod kinds;
mod look;
mod looks;
mod model;
mod spacing;

pub use fit::{Good, LookedAt, ResidualFit, ResidualOptions, Shot, learn_residual, look_at_good};
pub use join::joined;
pub use kinds::{Kind, Kinds, UNKNOWN};
pub use look::{BlockBanks, Look, block_bank, grown, of_blocks, unit_blocks};
pub use model::{Judged, ResidualHead, ResidualModel, ResidualScorer, Scale, Usual};
pub use spacing::Spacing;

/// Blocks of a network of `depth` blocks that are looked at by default, counted from 0: four, spread evenly over the last two thirds
/// (of twelve 4, 6, 8 and 10). Fewer where the network is shallow.
///
/// A fixed spread beats every choice by data that was tried, on average over categories.
pub fn default_blocks(depth: usize) -> Vec<usize> {
    let wanted = 4.min(depth.div_ceil(2)).max(1);
    let first = depth / 3;
    let mut blocks: Vec<usize> = (0..wanted)
        .map(|i| first + i * (depth - first) / wanted)
        .collect();
    blocks.dedup();
    blocks
}

/// Sides of the squares that images are looked at by default, in pixels, the largest first.
///
/// Small flaws need the larger one, and large things that are out of place the smaller one (docs/evidence/sizes.md).
pub const DEFAULT_SIZES: [usize; 2] = [448, 224];

/// Patches whose mean is an image's score: the two oddest, three where there are many. The share belongs to the size: a flaw of
/// the same area covers more patches of a larger image, and yet the fewer are the better.
pub fn default_top(patches: usize) -> usize {
    const MANY: usize = 512;
    if patches < MANY {
        2.min(patches.max(1))
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_spread_over_the_last_two_thirds() {
        assert_eq!(default_blocks(12), [4, 6, 8, 10]);
        assert_eq!(default_blocks(24), [8, 12, 16, 20]);
        assert_eq!(default_blocks(6), [2, 3, 4]);
        assert_eq!(default_blocks(2), [0]);
        assert_eq!(default_blocks(1), [0]);
    }

    #[test]
    fn the_share_belongs_to_the_size() {
        assert_eq!([1, 2, 256, 1024].map(default_top), [1, 2, 2, 3]);
    }
}
