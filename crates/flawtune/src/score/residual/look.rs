//! Banks of several blocks, and what they say of an image.

use flawtune_kernels::matching::{Matches, PackedPatches};
use rayon::prelude::*;

use crate::bundle::{Bank, BankBuilder, Precision, RowBank};
use crate::features::ImageTokens;
use crate::score::search::{Found as _, TwoMatches};
use crate::unit::normalise_rows;

use super::spacing::{LEAST_IMAGES, Spacing};

/// Images that are packed for matching at once; bounds memory, changes no result.
const IMAGES_AT_ONCE: usize = 32;

/// Rows that are copied at a time.
const GROWN_ROWS: usize = 4096;

/// Whole banks of good patches, one a block.
#[derive(Debug)]
pub struct BlockBanks {
    dim: usize,
    banks: Vec<RowBank>,
}

/// The nearest good patch of every patch of an image, in each block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// `1 − cos` to it, `[blocks][patches]`.
    pub distances: Vec<Vec<f32>>,
    /// Its row in the block's bank, `[blocks][patches]`.
    pub nearest: Vec<Vec<u32>>,
}

impl Look {
    /// Takes what is nearer among the patches that were appended to each block's bank, which had `rows` before.
    pub fn raise(&mut self, more: &Self, rows: usize) {
        for (block, (nearest, distances)) in more.nearest.iter().zip(&more.distances).enumerate() {
            let found = nearest.iter().copied().zip(distances.iter().copied());
            self.raise_block(block, found, rows);
        }
    }

    /// Takes what is nearer in one block, of rows that are counted from `first` on.
    fn raise_block(&mut self, block: usize, found: impl Iterator<Item = (u32, f32)>, first: usize) {
        let places = self.nearest[block]
            .iter_mut()
            .zip(&mut self.distances[block]);
        for ((nearest, distance), (row, new)) in places.zip(found) {
            // the first among equals stays
            if new < *distance {
                *distance = new;
                *nearest = row + first as u32;
            }
        }
    }

    /// Appends a block.
    fn push(&mut self, found: Matches) {
        self.distances.push(far(&found).map(|(_, d)| d).collect());
        self.nearest.push(found.index);
    }
}

/// Rows of matches and how far they are.
fn far(found: &Matches) -> impl Iterator<Item = (u32, f32)> {
    let rows = found.index.iter().copied();
    rows.zip(found.best.iter().map(|best| 1.0 - best))
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

/// A bank of several blocks, one block after the other, with the patches of further images at the end of each.
pub fn grown(bank: &Bank, blocks: usize, more: &[ImageTokens], precision: Precision) -> Bank {
    let (rows, dim) = (bank.rows() / blocks, bank.dim());
    let added: usize = more.iter().map(|i| i.patches().len() / dim).sum();
    let mut builder = BankBuilder::new(bank.rows() + added, dim, precision);
    for block in 0..blocks {
        for first in (0..rows).step_by(GROWN_ROWS) {
            let some = GROWN_ROWS.min(rows - first);
            builder.push(&bank.decode(block * rows + first, some));
        }
        for image in more {
            builder.push(&unit_block(image, block, blocks, dim));
        }
    }
    builder.finish()
}

/// Tokens of an image of which only its [`unit_blocks`] are known; the class token is 0.
pub fn of_blocks(blocks: &[Vec<f32>], dim: usize) -> ImageTokens {
    let patches = blocks.first().map_or(0, Vec::len) / dim;
    let width = blocks.len() * dim;
    let mut tokens = vec![0.0; width];
    for patch in 0..patches {
        for block in blocks {
            tokens.extend_from_slice(&block[patch * dim..][..dim]);
        }
    }
    ImageTokens::owned(tokens, patches, width)
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

    /// Looks at images, whose tokens are `[patches, blocks · dim]`. Spread over the current rayon pool; the result depends on nothing
    /// but image and bank.
    pub fn look(&self, images: &[&ImageTokens]) -> Vec<Look> {
        let blocks = |image: &&ImageTokens| unit_blocks(image, self.blocks(), self.dim);
        self.look_each(images, blocks)
    }

    /// As [`Self::look`], of changed images of the banks, each without the image of the banks that it was.
    pub fn look_changed(&self, images: &[(&ImageTokens, usize)]) -> Vec<Look> {
        let blocks =
            |(image, _): &(&ImageTokens, usize)| unit_blocks(image, self.blocks(), self.dim);
        self.look_without(images, blocks, |(_, own)| Some(*own))
    }

    /// As [`Self::look`], of images whose [`unit_blocks`] `blocks` gives.
    pub fn look_each<T: Sync>(
        &self,
        images: &[T],
        blocks: impl Fn(&T) -> Vec<Vec<f32>> + Sync,
    ) -> Vec<Look> {
        self.look_without(images, blocks, |_| None)
    }

    /// As [`Self::look_each`], each without the image of the banks that `without` names.
    fn look_without<T: Sync>(
        &self,
        images: &[T],
        blocks: impl Fn(&T) -> Vec<Vec<f32>> + Sync,
        without: impl Fn(&T) -> Option<usize> + Sync,
    ) -> Vec<Look> {
        let mut looks = Vec::with_capacity(images.len());
        for images in images.chunks(IMAGES_AT_ONCE) {
            let rows: Vec<Vec<Vec<f32>>> = images.par_iter().map(&blocks).collect();
            let first = looks.len();
            looks.resize_with(first + images.len(), Look::default);
            for (block, bank) in self.banks.iter().enumerate() {
                let packed: Vec<PackedPatches> = rows
                    .par_iter()
                    .map(|rows| bank.pack(&rows[block]))
                    .collect();
                let found = bank.nearest_without(&packed, |i| without(&images[i]));
                for (look, found) in looks[first..].iter_mut().zip(found) {
                    look.push(found);
                }
            }
        }
        looks
    }

    /// Looks at these images of the banks themselves, each without itself. The two ways of a pair come from one product.
    pub fn look_own(&self, parts: &[usize]) -> Vec<Look> {
        let rest = self.others(parts);
        let mut looks = vec![Look::default(); parts.len()];
        for bank in &self.banks {
            let found = bank.compared::<Matches>(parts, &rest, &mut |_| {});
            let all = looks.iter_mut().zip(found.among).zip(found.beyond);
            for ((look, mut among), beyond) in all {
                among.take(&beyond);
                look.push(among);
            }
        }
        looks
    }

    /// The images of the banks but these.
    fn others(&self, parts: &[usize]) -> Vec<usize> {
        (0..self.images()).filter(|p| !parts.contains(p)).collect()
    }

    /// Looks at these images of the banks themselves, each without itself, and measures how far every patch of the banks lies from
    /// those of these images. Nothing is measured in banks of too few images. `on_share` hears which share of the work is done.
    pub fn look_and_measure(
        &self,
        parts: &[usize],
        on_share: &mut dyn FnMut(f64),
    ) -> (Vec<Look>, Vec<Spacing>) {
        if self.images() < LEAST_IMAGES {
            return (self.look_own(parts), Vec::new());
        }
        let rest = self.others(parts);
        let mut looks = vec![Look::default(); parts.len()];
        let mut spacings = Vec::with_capacity(self.banks.len());
        let blocks = self.banks.len() as f64;
        for (block, bank) in self.banks.iter().enumerate() {
            let on_share = &mut |share: f64| on_share((block as f64 + share) / blocks);
            let found = bank.compared::<TwoMatches>(parts, &rest, on_share);
            let mut of_parts: Vec<Option<&TwoMatches>> = vec![None; self.images()];
            for (of, which) in [(&found.among, parts), (&found.back, &rest[..])] {
                of.iter()
                    .zip(which)
                    .for_each(|(two, &part)| of_parts[part] = Some(two));
            }
            let mut spacing = Spacing::default();
            for two in of_parts.into_iter().flatten() {
                spacing.push(two, |row| bank.part_of(row));
            }
            spacings.push(spacing);
            let all = looks.iter_mut().zip(found.among).zip(found.beyond);
            for ((look, mut among), beyond) in all {
                among.take(&beyond);
                look.push(among.best);
            }
        }
        (looks, spacings)
    }

    /// As [`Self::look_and_measure`], of the images `judged` and of those from `first` on, in banks that the latter were appended to:
    /// what was found before, `looks` of the judged ones and `spacings`, takes them in.
    pub fn look_and_go_on(
        &self,
        first: usize,
        judged: &[usize],
        (looks, spacings): (&mut Vec<Look>, &mut [Spacing]),
    ) {
        let new: Vec<usize> = (first..self.images()).collect();
        let rest: Vec<usize> = (0..first).filter(|p| !judged.contains(p)).collect();
        let mut looks_of_new = vec![Look::default(); new.len()];
        for (block, (bank, spacing)) in self.banks.iter().zip(spacings).enumerate() {
            let image_of = |row| bank.part_of(row);
            let found = bank.compared::<TwoMatches>(&new, judged, &mut |_| {});
            let beyond = bank.compared::<TwoMatches>(&new, &rest, &mut |_| {});
            for (back, parts) in [(&found.back, judged), (&beyond.back, &rest)] {
                for (two, &part) in back.iter().zip(parts) {
                    spacing.raise(bank.first_row(part), two, image_of);
                }
            }
            for (look, two) in looks.iter_mut().zip(&found.back) {
                look.raise_block(block, far(&two.best), 0);
            }
            let all = looks_of_new.iter_mut().zip(found.among).zip(found.beyond);
            for (((look, mut among), by_judged), beyond) in all.zip(beyond.beyond) {
                among.take(&by_judged);
                spacing.push(&among, image_of);
                among.take(&beyond);
                look.push(among.best);
            }
        }
        looks.extend(looks_of_new);
    }

    /// The patches of an image of the banks, as [`unit_blocks`] gives those of another.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn own_blocks(&self, part: usize) -> Vec<Vec<f32>> {
        self.banks.iter().map(|bank| bank.part_rows(part)).collect()
    }

    /// Images in the banks.
    pub fn images(&self) -> usize {
        self.banks.first().map_or(0, RowBank::parts)
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

    #[test]
    fn a_bank_that_grew_is_that_of_all_images_and_looks_follow() {
        let (blocks, dim, patches) = (2, 16, 3);
        let good = images(5, patches, blocks * dim);
        let first = block_bank(&good[..3], blocks, dim, Precision::F16);
        let all = block_bank(&good, blocks, dim, Precision::F16);
        let bank = grown(&first, blocks, &good[3..], Precision::F16);
        assert_eq!(bank.decode(0, bank.rows()), all.decode(0, all.rows()));
        let banks = |bank: &Bank, images| BlockBanks::new(bank, blocks, &vec![patches; images]);
        let (before, after) = (banks(&first, 3), banks(&all, 5));
        let more = banks(&block_bank(&good[3..], blocks, dim, Precision::F16), 2);
        let own = before.own_blocks(1);
        let looked = more.look_each(&[1], |&part| before.own_blocks(part));
        let mut look = before.look_own(&[1]).remove(0);
        look.raise(&looked[0], 3 * patches);
        assert_eq!(look, after.look_own(&[1])[0]);
        let again = of_blocks(&own, dim);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(
            unit_blocks(&again, blocks, dim)
                .iter()
                .zip(&own)
                .all(|(a, b)| near(a, b))
        );
    }

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
        let own = banks.look(&all);
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
        let others = banks.look_own(&[0, 1, 2, 3]);
        assert_eq!(banks.look_own(&[1, 3]), [1, 3].map(|i| others[i].clone()));
        assert_eq!(banks.own_blocks(2), rows[2]);
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
        let look = &alone.look_own(&[0])[0];
        assert_eq!(look.distances, vec![vec![2.0; patches]; blocks]);
        let mut residual = Vec::new();
        alone.residual(&rows[0], look, 0, 1.0, &mut residual);
        assert_eq!(residual, vec![0.0; blocks * dim]);
    }
}
