//! The nearest patches of a bank for each patch of an image, with where they are.

use rayon::prelude::*;

use super::PackedPatches;
use crate::kernels::Kernels;
use crate::matmul::{Op, matmul_with};

/// Patches of the bank that are multiplied at once; their products stay in the second-level cache.
const BANK_PATCHES: usize = 512;
/// Patches of the image in one piece of work.
const IMAGE_PATCHES: usize = 64;

/// A patch of a bank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its image.
    pub image: usize,
    /// Its place in the image.
    pub patch: usize,
    /// Its product with the patch that asks.
    pub similarity: f32,
}

/// For each patch of `a` its `k` nearest patches among those of all images of `bank` (all, if there are fewer): largest product
/// first, the lower image and then the lower patch first among equals. Products that are not numbers are left out.
///
/// Products have the bits that [`match_patches`](super::match_patches) finds, whatever the number of threads. Runs on the
/// current rayon pool.
///
/// # Panics
/// If the dims differ.
pub fn nearest_patches(a: &PackedPatches, bank: &[PackedPatches], k: usize) -> Vec<Vec<Neighbour>> {
    for image in bank {
        super::check(a, image);
    }
    let (dim, rows) = (a.dim, a.rows());
    let mut found: Vec<Vec<Neighbour>> = vec![Vec::new(); a.patches()];
    if k == 0 {
        return found;
    }
    for (image, other) in bank.iter().enumerate() {
        let others = other.rows();
        let pieces = rows
            .par_chunks(IMAGE_PATCHES * dim)
            .zip(found.par_chunks_mut(IMAGE_PATCHES));
        pieces.for_each_init(Vec::new, |products, (rows, found)| {
            for (part, others) in others.chunks(BANK_PATCHES * dim).enumerate() {
                collect(a.kernels, dim, rows, others, products);
                for (found, products) in found
                    .iter_mut()
                    .zip(products.chunks_exact(others.len() / dim))
                {
                    offer(found, k, image, part * BANK_PATCHES, products);
                }
            }
        });
    }
    found
}

/// The products of some patches with some of the bank.
fn collect(kernels: &Kernels, dim: usize, rows: &[f32], others: &[f32], products: &mut Vec<f32>) {
    let (m, n) = (rows.len() / dim, others.len() / dim);
    products.resize(m * n, 0.0);
    matmul_with(
        kernels,
        m,
        n,
        dim,
        rows,
        Op::None,
        others,
        Op::Transpose,
        products,
        false,
    );
}

/// Takes in the patches from `first` on of an image that comes after all seen before.
fn offer(found: &mut Vec<Neighbour>, k: usize, image: usize, first: usize, products: &[f32]) {
    // an equal that comes later never displaces one that is kept
    let limit = |found: &[Neighbour]| {
        if found.len() < k {
            None
        } else {
            found.last().map(|n| n.similarity)
        }
    };
    let mut worst = limit(found);
    for (i, &similarity) in products.iter().enumerate() {
        if similarity.is_nan() || worst.is_some_and(|worst| similarity <= worst) {
            continue;
        }
        let at = found.partition_point(|other| other.similarity >= similarity);
        found.insert(
            at,
            Neighbour {
                image,
                patch: first + i,
                similarity,
            },
        );
        found.truncate(k);
        worst = limit(found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::patches;
    use super::*;
    use crate::dispatch::Isa;
    use proptest::prelude::*;

    fn check_case(n: usize, images: &[usize], dim: usize, k: usize, seed: u64) {
        let rows = patches(n, dim, seed);
        let bank: Vec<Vec<f32>> = images
            .iter()
            .zip(1..)
            .map(|(&n, i)| patches(n, dim, seed + i))
            .collect();
        let wanted: Vec<Vec<Neighbour>> = rows
            .chunks_exact(dim)
            .map(|row| {
                let mut all = Vec::new();
                for (image, others) in bank.iter().enumerate() {
                    for (patch, other) in others.chunks_exact(dim).enumerate() {
                        let similarity = row
                            .iter()
                            .zip(other)
                            .fold(0.0f32, |s, (x, y)| x.mul_add(*y, s));
                        all.push(Neighbour {
                            image,
                            patch,
                            similarity,
                        });
                    }
                }
                // a stable sort: the lower index first among equals; -0 equals 0
                all.sort_by(|x, y| y.similarity.partial_cmp(&x.similarity).unwrap());
                all.truncate(k);
                all
            })
            .collect();
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let a = PackedPatches::pack_with(kernels, &rows, dim);
            let packs: Vec<_> = bank
                .iter()
                .map(|b| PackedPatches::pack_with(kernels, b, dim))
                .collect();
            assert_eq!(
                nearest_patches(&a, &packs, k),
                wanted,
                "{} {n} in {images:?}",
                kernels.isa
            );
        }
    }

    #[test]
    fn a_few_neighbours() {
        // also run under Miri
        check_case(3, &[4, 0, 2], 2, 3, 5);
        check_case(1, &[], 2, 3, 5);
        check_case(2, &[2], 1, 0, 5);
    }

    #[cfg(not(miri))]
    #[test]
    fn neighbours_beyond_one_piece_of_work() {
        check_case(150, &[1100, 30], 5, 7, 3);
    }

    #[cfg(not(miri))]
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn neighbours_are_those_of_a_full_sort(
            n in 1usize..40, images in prop::collection::vec(0usize..60, 1..5), dim in 1usize..20, k in 1usize..20,
            seed in 1u64..1000,
        ) {
            check_case(n, &images, dim, k, seed);
        }
    }
}
