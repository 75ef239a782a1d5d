use super::super::tests::patches;
use super::*;
use crate::dispatch::Isa;
use proptest::prelude::*;

/// Patches of images by kind: what bounds do well with, and what they can do nothing with.
fn images(kind: usize, count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    (0..count as u64)
        .map(|i| {
            let n = 1 + ((seed + 3 * i) % 13) as usize;
            let mut rows = match kind {
                // coarse random numbers: many ties between patches
                0 => patches(n, dim, seed + i),
                // a common direction, and little else
                1 => {
                    let common = patches(1, dim, seed ^ 0x5555);
                    let own = patches(n, dim, seed + i);
                    own.iter()
                        .zip(common.iter().cycle())
                        .map(|(o, c)| c + 0.02 * (i % 5) as f32 * o)
                        .collect()
                }
                // the same few images again and again: ties between images
                2 => patches(n.min(4), dim, seed + i % 3),
                // zero patches among others
                _ => patches(n, dim, seed + i)
                    .into_iter()
                    .enumerate()
                    .map(|(j, x)| if (j / dim).is_multiple_of(2) { 0.0 } else { x })
                    .collect(),
            };
            if kind != 0 {
                for row in rows.chunks_exact_mut(dim) {
                    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    for x in row {
                        *x /= norm + 1e-8;
                    }
                }
            }
            rows
        })
        .collect()
}

fn check_case(
    kind: usize,
    supports: usize,
    tests: usize,
    dim: usize,
    seed: u64,
    levels: &[usize],
) -> usize {
    let mut compared = 0;
    for kernels in Isa::available().filter_map(Isa::kernels) {
        let pack = |all: Vec<Vec<f32>>| -> Vec<PackedPatches> {
            all.iter()
                .map(|rows| PackedPatches::pack_with(kernels, rows, dim))
                .collect()
        };
        let support = pack(images(kind, supports, dim, seed));
        // the first test is a support image
        let mut tests = pack(images(kind, tests, dim, seed + 1000));
        tests.push(support[supports / 2].clone());
        let pruned = NearestImages::with_levels(support.clone(), levels.to_vec());
        let plain = NearestImages::with_levels(support, Vec::new());
        for k in 1..=supports {
            let (found, wanted) = (pruned.nearest(&tests, k), plain.nearest(&tests, k));
            for (found, wanted) in found.iter().zip(&wanted) {
                let bits = |n: &Nearest| {
                    n.images
                        .iter()
                        .map(|i| (i.0, i.1.to_bits()))
                        .collect::<Vec<_>>()
                };
                assert_eq!(
                    bits(found),
                    bits(wanted),
                    "{} kind {kind}, k = {k}",
                    kernels.isa
                );
                assert!(found.compared >= k);
            }
            compared += found.iter().map(|f| f.compared).sum::<usize>();
        }
    }
    compared
}

#[cfg(not(miri))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn pruning_changes_no_bit(
        kind in 0usize..4, supports in 1usize..12, tests in 1usize..4, dim in 1usize..24, seed in 1u64..1000,
        first in 2usize..4, second in 4usize..9,
    ) {
        check_case(kind, supports, tests, dim, seed, &[first, second]);
    }
}

#[test]
fn few_images_without_a_direction() {
    // also run under Miri
    check_case(3, 3, 1, 3, 2, &[2]);
    let zero = PackedPatches::pack(&[0.0; 12], 3);
    let set = NearestImages::with_levels(vec![zero.clone(), zero.clone()], vec![2]);
    assert_eq!(set.nearest(&[zero.clone(), zero], 1)[1].images, [(0, 0.0)]);
}

#[cfg(not(miri))]
#[test]
fn patches_that_are_no_numbers_are_not_bounded() {
    let dim = 6;
    let mut rows = images(1, 9, dim, 5);
    rows[4][2] = f32::NAN;
    rows[5][0] = f32::INFINITY;
    rows[6].iter_mut().for_each(|x| *x *= 1e-30);
    rows[7].iter_mut().for_each(|x| *x *= 1e15);
    let packs: Vec<_> = rows.iter().map(|r| PackedPatches::pack(r, dim)).collect();
    let pruned = NearestImages::with_levels(packs.clone(), vec![2, 4]).nearest(&packs, 3);
    let plain = NearestImages::with_levels(packs.clone(), Vec::new()).nearest(&packs, 3);
    for (a, b) in pruned.iter().zip(&plain) {
        let bits = |n: &Nearest| {
            n.images
                .iter()
                .map(|i| (i.0, i.1.to_bits()))
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(a), bits(b));
    }
}

#[cfg(not(miri))]
#[test]
fn bounds_leave_images_out() {
    let dim = 64;
    let support: Vec<_> = (0..40)
        .map(|i| {
            let mut rows = images(1, 1, dim, 3 + i / 10 * 100).remove(0);
            rows.iter_mut()
                .enumerate()
                .for_each(|(j, x)| *x += 1e-3 * ((i as usize + j) % 3) as f32);
            PackedPatches::pack(&rows, dim)
        })
        .collect();
    let found = NearestImages::with_levels(support.clone(), vec![4, 16]).nearest(&support, 1);
    let compared: usize = found.iter().map(|f| f.compared).sum();
    assert!(compared < 40 * 40 / 2, "{compared} of 1600 pairs compared");
}
