//! Banks of several blocks, and what they say of an image.

use flawtune_kernels::matching::PackedPatches;
use rayon::prelude::*;

use crate::bundle::{Bank, BankBuilder, Precision, RowBank};
use crate::features::ImageTokens;
use crate::unit::normalise_rows;

/// Images that are packed for matching at once; bounds memory, changes no result.
const IMAGES_AT_ONCE: usize = 32;

/// Whole banks of good patches, one a block.
#[derive(Debug)]
pub struct BlockBanks {
    dim: usize,
    banks: Vec<RowBank>,
}

/// The nearest good patch of every patch of an image, in each block.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// `1 − cos` to it, `[blocks][patches]`.
    pub distances: Vec<Vec<f32>>,
    /// Its row in the block's bank, `[blocks][patches]`.
    pub nearest: Vec<Vec<u32>>,
}

/// The patch tokens of an image block by block, each of unit length: `[blocks][patches · dim]` of tokens `[patches, blocks · dim]`.
pub fn unit_blocks(image: &ImageTokens, blocks: usize, dim: usize) -> Vec<Vec<f32>> {
    (0..blocks)
        .map(|block| unit_block(image, block, blocks, dim))
        .collect()
}

/// Those of one block, `[patches · dim]`.
fn unit_block(image: &ImageTokens, block: usize, blocks: usize, dim: usize) -> Vec<f32> {
    let rows = image.patches().chunks_exact(blocks * dim);
    let mut norms = vec![0.0; rows.len()];
    let mut rows: Vec<f32> = rows
        .flat_map(|row| &row[block * dim..(block + 1) * dim])
        .copied()
        .collect();
    normalise_rows(&mut rows, dim, &mut norms);
    rows
}

/// The patches of good images in each block, `[blocks · rows, dim]`, one block after the other: what [`BlockBanks::new`] takes.
pub fn block_bank<'a>(
    images: impl IntoIterator<Item = &'a ImageTokens, IntoIter: Clone>,
    blocks: usize,
    dim: usize,
    precision: Precision,
) -> Bank {
    let images = images.into_iter();
    let rows = images.clone().map(|i| i.patches().len() / dim).sum();
    let mut builder = BankBuilder::new(rows, dim, precision);
    for block in 0..blocks {
        for image in images.clone() {
            builder.push(&unit_block(image, block, blocks, dim));
        }
    }
    builder.finish()
}

impl BlockBanks {
    /// Of a bank `[blocks · rows, dim]`, one block after the other, whose rows belong to images of `parts` patches each.
    ///
    /// # Panics
    /// If the parts do not add up to the rows of a block.
    pub fn new(bank: &Bank, blocks: usize, parts: &[usize]) -> Self {
        let rows = bank.rows() / blocks;
        assert_eq!(parts.iter().sum::<usize>(), rows, "parts of each block");
        let of = |block: usize| RowBank::new(bank.part(block * rows, rows), parts.to_vec());
        Self {
            dim: bank.dim(),
            banks: (0..blocks).into_par_iter().map(of).collect(),
        }
    }

    /// Numbers a patch in one block.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Blocks.
    pub fn blocks(&self) -> usize {
        self.banks.len()
    }

    /// Numbers of a residual: those of all blocks side by side.
    pub fn width(&self) -> usize {
        self.dim * self.banks.len()
    }

    /// Looks at images, whose tokens are `[patches, blocks · dim]`. Image i is compared with all parts of the banks but the one that
    /// `left_out` names for it. Spread over the current rayon pool; the result depends on nothing but image and bank.
    pub fn look(
        &self,
        images: &[&ImageTokens],
        left_out: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Look> {
        let mut looks = Vec::with_capacity(images.len());
        for (chunk, images) in images.chunks(IMAGES_AT_ONCE).enumerate() {
            let rows: Vec<Vec<Vec<f32>>> = images
                .par_iter()
                .map(|image| unit_blocks(image, self.blocks(), self.dim))
                .collect();
            let first = looks.len();
            looks.resize_with(first + images.len(), Look::default);
            for (block, bank) in self.banks.iter().enumerate() {
                let packed: Vec<PackedPatches> = rows
                    .par_iter()
                    .map(|rows| bank.pack(&rows[block]))
                    .collect();
                let found = bank.nearest_without(&packed, |i| left_out(chunk * IMAGES_AT_ONCE + i));
                for (look, found) in looks[first..].iter_mut().zip(found) {
                    look.distances
                        .push(found.best.iter().map(|best| 1.0 - best).collect());
                    look.nearest.push(found.index);
                }
            }
        }
        looks
    }

    /// Appends the residual of a patch, the blocks side by side, times `scale`; 0 in a block where there was no patch to compare
    /// with. `rows` are the image's [`unit_blocks`].
    pub fn residual(
        &self,
        rows: &[Vec<f32>],
        look: &Look,
        patch: usize,
        scale: f32,
        to: &mut Vec<f32>,
    ) {
        let mut room = Vec::new();
        for (block, bank) in self.banks.iter().enumerate() {
            let own = &rows[block][patch * self.dim..][..self.dim];
            let nearest = look.nearest[block][patch];
            if nearest == u32::MAX {
                to.extend(std::iter::repeat_n(0.0, self.dim));
                continue;
            }
            let normal = bank.row(nearest as usize, &mut room);
            to.extend(own.iter().zip(normal).map(|(x, n)| scale * (x - n)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of tokens `[1 + patches, blocks · dim]`.
    fn images(count: usize, patches: usize, width: usize) -> Vec<ImageTokens> {
        (0..count)
            .map(|i| {
                let values = (0..(1 + patches) * width)
                    .map(|v| ((v * 37 + i * 101) % 89) as f32 / 40.0 - 1.0);
                ImageTokens::owned(values.collect(), patches, width)
            })
            .collect()
    }

    #[test]
    fn each_block_has_its_own_nearest_patch_and_an_image_can_be_left_out() {
        let (blocks, dim, patches) = (3, 16, 5);
        let good = images(4, patches, blocks * dim);
        let rows: Vec<Vec<Vec<f32>>> = good.iter().map(|i| unit_blocks(i, blocks, dim)).collect();
        let bank = block_bank(&good, blocks, dim, Precision::F32);
        let banks = BlockBanks::new(&bank, blocks, &[patches; 4]);
        let all: Vec<&ImageTokens> = good.iter().collect();
        let own = banks.look(&all, |_| None);
        for (image, look) in own.iter().enumerate() {
            for block in 0..blocks {
                for patch in 0..patches {
                    // its own patch, or an equal one that comes earlier
                    assert!(look.distances[block][patch] < 1e-6);
                    assert!(look.nearest[block][patch] <= (image * patches + patch) as u32);
                }
            }
            let mut residual = Vec::new();
            banks.residual(&rows[image], look, 2, 3.0, &mut residual);
            assert_eq!(residual.len(), banks.width());
            assert!(residual.iter().all(|r| r.abs() < 1e-3));
        }
        let others = banks.look(&all, Some);
        for (image, look) in others.iter().enumerate() {
            for (block, own) in rows[image].iter().enumerate() {
                for patch in 0..patches {
                    let x = &own[patch * dim..][..dim];
                    let cosine = |i: usize, p: usize| {
                        let n = &rows[i][block][p * dim..][..dim];
                        x.iter().zip(n).map(|(a, b)| a * b).sum::<f32>()
                    };
                    let best = (0..4)
                        .filter(|i| *i != image)
                        .flat_map(|i| (0..patches).map(move |p| (i, p)))
                        .map(|(i, p)| cosine(i, p))
                        .fold(f32::MIN, f32::max);
                    assert!((look.distances[block][patch] - (1.0 - best)).abs() < 1e-5);
                    let row = look.nearest[block][patch] as usize;
                    assert_ne!(row / patches, image);
                    assert!((cosine(row / patches, row % patches) - best).abs() < 1e-5);
                }
            }
        }
        // one image alone has nothing to be compared with
        let bank = Bank::of(&rows[0].concat(), dim, Precision::F32);
        let alone = BlockBanks::new(&bank, blocks, &[patches]);
        let look = &alone.look(&all[..1], Some)[0];
        assert_eq!(look.distances, vec![vec![2.0; patches]; blocks]);
        let mut residual = Vec::new();
        alone.residual(&rows[0], look, 0, 1.0, &mut residual);
        assert_eq!(residual, vec![0.0; blocks * dim]);
    }
}
