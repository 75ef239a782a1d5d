use super::super::tests::patches;
use super::super::{
    Matches, match_both, match_patches, match_with_second, max_similarity, raise_both,
};
use super::*;
use crate::dispatch::Isa;
use proptest::prelude::*;

/// What the patches of a test are like.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Few distinct numbers: ties.
    Few,
    /// Unit vectors near a common one, as features are.
    Near,
    /// As `Near`, in groups that differ in their last bits.
    Twins,
    /// All the same.
    Constant,
    /// Some are zero.
    Zeros,
    /// So small that squares vanish.
    Tiny,
    /// Numbers below the normal range.
    Denormal,
    /// Of very different norms.
    Scales,
    /// One has an infinite number.
    Infinite,
}

const KINDS: [Kind; 9] = [
    Kind::Few,
    Kind::Near,
    Kind::Twins,
    Kind::Constant,
    Kind::Zeros,
    Kind::Tiny,
    Kind::Denormal,
    Kind::Scales,
    Kind::Infinite,
];

fn make(kind: Kind, n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rows = patches(n, dim, seed);
    match kind {
        Kind::Few => {}
        Kind::Near | Kind::Twins | Kind::Zeros => {
            let common = patches(1, dim, 1);
            for (p, row) in rows.chunks_exact_mut(dim).enumerate() {
                row.iter_mut()
                    .zip(&common)
                    .for_each(|(x, c)| *x = c + *x * 0.3);
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                for x in row.iter_mut() {
                    *x /= norm;
                }
                if matches!(kind, Kind::Zeros) && p % 3 == 0 {
                    row.fill(0.0);
                }
            }
            if matches!(kind, Kind::Twins) {
                for p in 1..n {
                    let (before, row) = rows[..(p + 1) * dim].split_at_mut(p * dim);
                    if p % 4 != 0 {
                        row.copy_from_slice(&before[(p - 1) * dim..]);
                        row[p % dim] = row[p % dim].next_up();
                    }
                }
            }
        }
        Kind::Constant => rows.fill(0.25),
        Kind::Tiny => rows.iter_mut().for_each(|x| *x *= 1e-25),
        Kind::Denormal => rows.iter_mut().for_each(|x| *x *= 1e-40),
        Kind::Scales => {
            let factors = [1.0, 1e-5, 300.0, 1e5, 0.03];
            for (p, row) in rows.chunks_exact_mut(dim).enumerate() {
                for x in row.iter_mut() {
                    *x *= factors[p % 5];
                }
            }
        }
        Kind::Infinite => rows[n / 2 * dim + dim / 3] = f32::INFINITY,
    }
    rows
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Sketched patches have the matches of plain ones, to the last bit.
fn check_case(kinds: (Kind, Kind), na: usize, nb: usize, dim: usize, seed: u64) {
    let (ra, rb) = (
        make(kinds.0, na, dim, seed),
        make(kinds.1, nb, dim, seed + 1),
    );
    for kernels in Isa::available().filter_map(Isa::kernels) {
        let pack = |rows: &[f32]| PackedPatches::pack_with(kernels, rows, dim);
        let (a, b) = (pack(&ra), pack(&rb));
        let middle = [&ra[..], &rb[..]].concat();
        let Some(frame) = Frame::around_with(kernels, &middle, dim) else {
            continue;
        };
        let (mut sa, mut sb) = (a.clone(), b.clone());
        sa.sketch(&frame);
        sb.sketch(&frame);
        assert_eq!(bits(&sa.rows()), bits(&ra));
        let what = format!("{} {kinds:?} {na}x{nb}x{dim}, seed {seed}", kernels.isa);
        let (mut plain, mut found) = (vec![0.0; na], vec![0.0; na]);
        max_similarity(&a, &b, &mut plain);
        max_similarity(&sa, &sb, &mut found);
        assert_eq!(bits(&found), bits(&plain), "{what}");
        let same = |found: &Matches, plain: &Matches, how: &str| {
            assert_eq!(bits(&found.best), bits(&plain.best), "{what} {how}");
            assert_eq!(found.index, plain.index, "{what} {how}");
        };
        let [mut ab, mut ba, mut found_ab, mut found_ba] = [(); 4].map(|()| Matches::default());
        match_patches(&a, &b, &mut ab);
        match_patches(&sa, &sb, &mut found_ab);
        same(&found_ab, &ab, "one way");
        match_both(&a, &b, &mut ab, &mut ba);
        match_both(&sa, &sb, &mut found_ab, &mut found_ba);
        same(&found_ab, &ab, "both");
        same(&found_ba, &ba, "back");
        // part by part, the later one first, so that the second goes on from matches
        let cut = na / 2;
        let none = |n| Matches::none(n, f32::NEG_INFINITY);
        let (mut found_ab, mut found_ba) = (none(na), none(nb));
        for (first, rows) in [(cut, &ra[cut * dim..]), (0, &ra[..cut * dim])] {
            let mut part = pack(rows);
            part.sketch(&frame);
            let mut of_part = none(part.patches());
            let places = first..first + part.patches();
            raise_both((&part, first as u32), (&sb, 0), &mut of_part, &mut found_ba);
            found_ab.best[places.clone()].copy_from_slice(&of_part.best);
            found_ab.index[places].copy_from_slice(&of_part.index);
        }
        if !matches!(kinds.0, Kind::Infinite) && !matches!(kinds.1, Kind::Infinite) {
            same(&found_ab, &ab, "raised both");
            same(&found_ba, &ba, "raised both, back");
        }
        let (mut second, mut bound) = (vec![], vec![]);
        match_with_second(&a, &b, &mut ab, &mut second);
        match_with_second(&sa, &sb, &mut found_ab, &mut bound);
        same(&found_ab, &ab, "with second");
        assert!(
            second.iter().zip(&bound).all(|(s, b)| s <= b || s.is_nan()),
            "{what}"
        );
        // mixed with plain ones
        match_patches(&sa, &b, &mut found_ab);
        same(&found_ab, &ab, "mixed");
    }
}

#[test]
fn sketched_matches_are_the_plain_ones() {
    // also run under Miri
    let kinds = if cfg!(miri) { &KINDS[..3] } else { &KINDS };
    for &kind in kinds {
        check_case((kind, kind), 17, 19, 128, 3);
    }
}

/// Upper bounds of all products, `[patches of a][patches of b]`, and the largest lower bounds.
fn bounds(
    kernels: &'static Kernels,
    ra: &[f32],
    rb: &[f32],
    dim: usize,
) -> Option<(Vec<f32>, Vec<f32>, f32)> {
    let frame = Frame::around_with(kernels, rb, dim)?;
    let mut packs = [ra, rb].map(|r| PackedPatches::pack_with(kernels, r, dim));
    for pack in &mut packs {
        pack.sketch(&frame);
    }
    let contest = packs[0].contest(&packs[1])?;
    let mut room = Room::default();
    let (upper, lower) = contest.bounds(&mut room);
    Some((
        upper,
        lower,
        margin(&contest.a.digits, &contest.b.digits, dim),
    ))
}

#[test]
fn bounds_hold_and_are_the_same_on_every_instruction_set() {
    let dim = 128;
    for kind in [
        Kind::Few,
        Kind::Near,
        Kind::Twins,
        Kind::Constant,
        Kind::Zeros,
        Kind::Scales,
    ] {
        let (ra, rb) = (make(kind, 21, dim, 5), make(kind, 18, dim, 6));
        let mut first = None;
        let mut seen = 0;
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let Some((upper, lower, allowed)) = bounds(kernels, &ra, &rb, dim) else {
                continue;
            };
            seen += 1;
            for (p, a) in ra.chunks_exact(dim).enumerate() {
                let mut best = f32::NEG_INFINITY;
                for (q, b) in rb.chunks_exact(dim).enumerate() {
                    let product = a.iter().zip(b).fold(0.0f32, |s, (x, y)| x.mul_add(*y, s));
                    best = best.max(product);
                    assert!(product <= upper[p * 18 + q] + allowed, "{kind:?} {p} {q}");
                }
                assert!(lower[p] <= best + allowed, "{kind:?} {p}");
            }
            let found = (bits(&upper), bits(&lower));
            assert_eq!(
                first.get_or_insert_with(|| found.clone()),
                &found,
                "{} {kind:?}",
                kernels.isa
            );
        }
        assert!(seen > 0, "{kind:?}: the reference at least");
    }
}

#[test]
fn few_contend_where_patches_are_like_features() {
    let dim = 384;
    let (ra, rb) = (make(Kind::Near, 40, dim, 8), make(Kind::Near, 60, dim, 9));
    for kernels in Isa::available().filter_map(Isa::kernels) {
        let Some(frame) = Frame::around_with(kernels, &rb, dim) else {
            continue;
        };
        let mut packs = [&ra, &rb].map(|r| PackedPatches::pack_with(kernels, r, dim));
        for pack in &mut packs {
            pack.sketch(&frame);
        }
        let contest = packs[0].contest(&packs[1]).unwrap();
        let mut room = Room::default();
        let mut best = vec![f32::NEG_INFINITY; 40];
        assert!(contest.settle(
            &mut room,
            Winners {
                best: &mut best,
                index: &mut []
            },
            None,
            None
        ));
        // 40 of 2400 win
        assert!(
            room.contending() < 200,
            "{} {}",
            kernels.isa,
            room.contending()
        );
    }
}

#[cfg(not(miri))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn sketched_matches_are_the_plain_ones_for_any_patches(
        a in 0usize..KINDS.len(), b in 0usize..KINDS.len(),
        na in 10usize..90, nb in 10usize..90, groups in 1usize..4, seed in 1u64..10_000,
    ) {
        check_case((KINDS[a], KINDS[b]), na, nb, groups * GROUP, seed);
    }
}
