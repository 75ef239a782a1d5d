use super::*;
use crate::dispatch::Isa;
use proptest::prelude::*;

pub(super) fn patches(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n * dim)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // few distinct values, so that ties happen
            ((state >> 60) as f32 - 8.0) / 8.0
        })
        .collect()
}

/// The definition: every product, strict maximum, lowest index.
fn naive(a: &[f32], b: &[f32], dim: usize) -> (Vec<f32>, Vec<u32>) {
    let (mut bests, mut indices) = (vec![], vec![]);
    for p in a.chunks_exact(dim) {
        let (mut best, mut index) = (f32::NEG_INFINITY, 0);
        for (q, other) in b.chunks_exact(dim).enumerate() {
            let dot = p
                .iter()
                .zip(other)
                .fold(0.0f32, |s, (x, y)| x.mul_add(*y, s));
            if dot > best {
                (best, index) = (dot, q as u32);
            }
        }
        bests.push(best);
        indices.push(index);
    }
    (bests, indices)
}

fn check_case(na: usize, nb: usize, dim: usize, seed: u64) {
    let (ra, rb) = (patches(na, dim, seed), patches(nb, dim, seed + 1));
    let (best_ab, index_ab) = naive(&ra, &rb, dim);
    let (best_ba, index_ba) = naive(&rb, &ra, dim);
    for kernels in Isa::available().filter_map(Isa::kernels) {
        let what = format!("{} {na}x{nb}x{dim}", kernels.isa);
        let (a, b) = (
            PackedPatches::pack_with(kernels, &ra, dim),
            PackedPatches::pack_with(kernels, &rb, dim),
        );
        let mut best = vec![0.0; na];
        max_similarity(&a, &b, &mut best);
        assert_eq!(best, best_ab, "{what}");
        let (mut ab, mut ba) = (Matches::default(), Matches::default());
        match_patches(&a, &b, &mut ab);
        assert_eq!((&ab.best, &ab.index), (&best_ab, &index_ab), "{what}");
        let mut second = Vec::new();
        match_with_second(&a, &b, &mut ab, &mut second);
        assert_eq!(
            (&ab.best, &ab.index),
            (&best_ab, &index_ab),
            "{what} with second"
        );
        for (p, row) in ra.chunks_exact(dim).enumerate() {
            let others: Vec<f32> = rb
                .chunks_exact(dim)
                .enumerate()
                .filter(|(q, _)| *q != index_ab[p] as usize)
                .flat_map(|(_, r)| r)
                .copied()
                .collect();
            assert_eq!(
                second[p],
                naive(row, &others, dim).0[0],
                "{what} second of {p}"
            );
        }
        if nb > 0 {
            best.fill(0.0);
            chosen_products_with(kernels, &ra, &rb, dim, &index_ab, &mut best);
            assert_eq!(best, best_ab, "{what} chosen");
        }
        // in two parts, the later one first
        let cut = nb / 2;
        let parts = [(0, &rb[..cut * dim]), (cut, &rb[cut * dim..])];
        let mut raised = Matches::none(na, f32::NEG_INFINITY);
        for (first, rows) in parts.into_iter().rev().filter(|(_, rows)| !rows.is_empty()) {
            let part = PackedPatches::pack_with(kernels, rows, dim);
            raise_matches(&a, &part, first as u32, &mut raised);
        }
        if nb > 0 {
            assert_eq!(
                (&raised.best, &raised.index),
                (&best_ab, &index_ab),
                "{what} raised"
            );
        }
        let mut back = Matches::none(nb, f32::NEG_INFINITY);
        let mut there = Matches::none(na, f32::NEG_INFINITY);
        for (first, rows) in parts.into_iter().rev().filter(|(_, rows)| !rows.is_empty()) {
            let part = PackedPatches::pack_with(kernels, rows, dim);
            let mut of_part = Matches::none(part.patches(), f32::NEG_INFINITY);
            raise_both((&a, 0), (&part, first as u32), &mut there, &mut of_part);
            let places = first..first + part.patches();
            back.best[places.clone()].copy_from_slice(&of_part.best);
            back.index[places].copy_from_slice(&of_part.index);
        }
        if na > 0 && nb > 0 {
            let ways = [(&there, &best_ab, &index_ab), (&back, &best_ba, &index_ba)];
            for (found, best, index) in ways {
                assert_eq!(
                    (&found.best, &found.index),
                    (best, index),
                    "{what} raised both"
                );
            }
        }
        match_both(&a, &b, &mut ab, &mut ba);
        assert_eq!((&ab.best, &ab.index), (&best_ab, &index_ab), "{what} both");
        assert_eq!(
            (&ba.best, &ba.index),
            (&best_ba, &index_ba),
            "{what} both, back"
        );
    }
}

#[test]
fn small_matches_equal_the_definition() {
    // also run under Miri
    for (na, nb, dim) in [(1, 1, 1), (9, 4, 2), (5, 9, 3), (17, 13, 1), (3, 0, 2)] {
        check_case(na, nb, dim, 7);
    }
}

#[test]
fn repacking_keeps_the_buffer() {
    let rows = patches(20, 6, 3);
    let mut packed = PackedPatches::pack(&rows, 6);
    let before = packed.data.as_ptr();
    packed.repack(&rows[..12 * 6], 6);
    assert_eq!(packed.patches(), 12);
    assert_eq!(packed.data.as_ptr(), before);
    assert_eq!(packed.get(11, 5), rows[11 * 6 + 5]);
    assert_eq!(packed.rows(), rows[..12 * 6]);
}

#[cfg(not(miri))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn matches_have_the_same_bits_on_every_instruction_set(
        na in 1usize..120, nb in 1usize..120, dim in 1usize..24, seed in 1u64..1000,
    ) {
        check_case(na, nb, dim, seed);
    }
}

#[cfg(not(miri))]
#[test]
fn all_pairs_equal_the_single_products() {
    let dim = 12;
    for kernels in Isa::available().filter_map(Isa::kernels) {
        let pack = |n, seed| PackedPatches::pack_with(kernels, &patches(n, dim, seed), dim);
        let tests: Vec<_> = [9, 900, 700, 1, 1000, 13]
            .iter()
            .zip(1..)
            .map(|(&n, s)| pack(n, s))
            .collect();
        let supports: Vec<_> = [5, 49, 8]
            .iter()
            .zip(50..)
            .map(|(&n, s)| pack(n, s))
            .collect();
        let all = mean_max_all_pairs(&tests, &supports);
        for (t, test) in tests.iter().enumerate() {
            for (s, support) in supports.iter().enumerate() {
                let mut best = vec![0.0; test.patches()];
                max_similarity(test, support, &mut best);
                let mean = best.iter().sum::<f32>() / best.len() as f32;
                assert_eq!(all[t * supports.len() + s], mean, "{} {t} {s}", kernels.isa);
            }
        }
    }
}
