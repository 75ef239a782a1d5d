use flawtune_kernels::matching::PackedPatches;

use super::*;
use crate::bundle::rows::RowBank;
use crate::unit::normalise_rows;

/// Rows about `kinds` directions, `[count, dim]`, so wide that neighbours lie in different cells too.
fn rows(count: usize, dim: usize, kinds: usize, seed: usize) -> Vec<f32> {
    let drawn = |seed: usize, count: usize| {
        let mut state = (seed as u32).wrapping_mul(747_796_405).wrapping_add(1);
        let next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        std::iter::repeat_with(next)
            .skip(8)
            .take(count)
            .collect::<Vec<f32>>()
    };
    let (common, mut rows) = (drawn(1000, kinds * dim), drawn(seed, count * dim));
    for (i, row) in rows.chunks_exact_mut(dim).enumerate() {
        row.iter_mut()
            .zip(&common[i % kinds * dim..])
            .for_each(|(v, c)| *v += c);
    }
    normalise_rows(&mut rows, dim, &mut vec![0.0; count]);
    rows
}

struct World {
    /// In its first order, in parts.
    plain: RowBank,
    cells: Cells,
    owners: Vec<u32>,
    indexed: CellBank,
    tests: Vec<PackedPatches>,
}

/// A bank of images of these many rows, of which the tests are the first ones.
fn world(lengths: &[usize], dim: usize, precision: Precision) -> World {
    let parts: Vec<Vec<f32>> = lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| rows(n, dim, 9, i))
        .collect();
    let bank = Bank::of(&parts.concat(), dim, precision);
    let (plain, frame) = RowBank::new(bank.clone(), lengths.to_vec()).into_bank();
    let (sorted, cells, order) = Cells::sort(bank, 5);
    let mut image = Vec::new();
    for (i, &n) in lengths.iter().enumerate() {
        image.extend(vec![i as u32; n]);
    }
    let owners: Vec<u32> = order.iter().map(|&row| image[row]).collect();
    World {
        plain: RowBank::new(plain, lengths.to_vec()),
        indexed: CellBank::new(sorted, frame, cells.clone(), 3, owners.clone()),
        cells,
        owners,
        tests: parts
            .iter()
            .take(4)
            .map(|rows| PackedPatches::pack(rows, dim))
            .collect(),
    }
}

#[test]
fn rows_lie_with_the_centre_that_is_nearest() {
    let (dim, count) = (12, 900);
    let before = Bank::of(&rows(count, dim, 9, 1), dim, Precision::F16);
    let (after, cells, order) = Cells::sort(before.clone(), 1);
    assert_eq!(
        (cells.centres.rows(), cells.lengths().sum::<u64>()),
        (cells.len(), count as u64)
    );
    assert!((9..=30).contains(&cells.len()), "{}", cells.len());
    let centres = PackedPatches::pack(&cells.centres.decode(0, cells.len()), dim);
    let mut seen = vec![false; count];
    for cell in 0..cells.len() {
        let own = cells.starts[cell]..cells.starts[cell + 1];
        assert!(order[own.clone()].is_sorted(), "a cell keeps the order");
        for row in own {
            assert!(!std::mem::replace(&mut seen[order[row]], true));
            let values = after.decode(row, 1);
            assert_eq!(values, before.decode(order[row], 1));
            let mut found = Matches::default();
            match_patches(&PackedPatches::pack(&values, dim), &centres, &mut found);
            assert_eq!(found.index, [cell as u32]);
        }
    }
    let (again, same, _) = Cells::sort(before.clone(), 1);
    assert_eq!(
        (again.bytes(), same.centres.bytes()),
        (after.bytes(), cells.centres.bytes())
    );
    assert_ne!(
        Cells::sort(before, 2).0.bytes(),
        after.bytes(),
        "another seed, other cells"
    );
}

#[test]
fn nothing_is_found_nearer_than_the_nearest_and_all_cells_find_it() {
    // with and without a coarse pass, few and many that ask, an image that fills cells of its own
    for (dim, lengths) in [
        (12, vec![40, 7, 0, 90, 300, 400]),
        (128, vec![150, 3, 200, 140, 300, 2]),
    ] {
        for precision in [Precision::F16, Precision::F32] {
            let w = world(&lengths, dim, precision);
            for own in [false, true] {
                let left_out = |i: usize| own.then_some(i);
                let packed: Vec<PackedPatches> =
                    w.tests.iter().map(|t| w.plain.pack(&t.rows())).collect();
                let exact = w.plain.distances_without(&packed, left_out);
                let all = w
                    .indexed
                    .distances_without(&w.tests, w.cells.len(), left_out);
                assert_eq!(all, exact, "all cells, own {own}");
                let mut missed = Vec::new();
                for probes in [1, 3, 10, w.cells.len() - 1] {
                    let found = w.indexed.distances_without(&w.tests, probes, left_out);
                    let pairs: Vec<(f32, f32)> = found
                        .iter()
                        .flatten()
                        .copied()
                        .zip(exact.iter().flatten().copied())
                        .collect();
                    assert!(
                        pairs.iter().all(|(found, exact)| found >= exact),
                        "{probes} cells"
                    );
                    assert!(
                        pairs.iter().all(|(found, _)| *found < 2.0),
                        "{probes} cells"
                    );
                    missed.push(pairs.iter().filter(|(found, exact)| found > exact).count());
                }
                // a patch of the bank finds itself in its own cell
                assert_eq!(missed[0] > 0, own, "{missed:?}");
                assert!(missed.is_sorted_by(|a, b| a >= b), "{missed:?}");
            }
        }
    }
}

#[test]
fn leaving_an_image_out_equals_its_rows_never_having_been_there() {
    let w = world(&[40, 7, 0, 90, 300, 400], 12, Precision::F16);
    for image in [0usize, 1, 3] {
        // the same centres without the image's rows, and without cells that held nothing else
        let (mut kept, mut lengths, mut centres) = (Vec::new(), Vec::new(), Vec::new());
        for cell in 0..w.cells.len() {
            let rows = w.cells.starts[cell]..w.cells.starts[cell + 1];
            let others: Vec<usize> = rows
                .filter(|&row| w.owners[row] as usize != image)
                .collect();
            if !others.is_empty() {
                lengths.push(others.len() as u64);
                centres.extend(w.cells.centres.decode(cell, 1));
                for &row in &others {
                    kept.extend(w.indexed.bank().decode(row, 1));
                }
            }
        }
        let bank = Bank::of(&kept, 12, Precision::F16);
        let centres = Bank::of(&centres, 12, Precision::F32);
        let cells = Cells::checked(centres, lengths.into_iter(), bank.rows()).unwrap();
        let without = CellBank::new(bank, None, cells, 3, Vec::new());
        let test = std::slice::from_ref(&w.tests[image]);
        for probes in [1, 3] {
            let found = w.indexed.distances_without(test, probes, |_| Some(image));
            assert_eq!(
                found,
                without.distances_without(test, probes, |_| None),
                "image {image}"
            );
        }
    }
}

#[test]
fn threads_and_other_pictures_change_no_bit() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let w = world(&[150, 40, 200, 140, 900], 128, Precision::F16);
            let together = w.indexed.distances_without(&w.tests, 3, |_| None);
            let alone = |t: &PackedPatches| {
                w.indexed
                    .distances_without(std::slice::from_ref(t), 3, |_| None)
            };
            let alone: Vec<Vec<f32>> = w.tests.iter().flat_map(alone).collect();
            assert_eq!(together, alone);
            (
                w.indexed.bank().bytes().to_vec(),
                w.cells.centres.bytes().to_vec(),
                together,
            )
        })
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3));
}

#[test]
fn cells_that_do_not_fit_a_bank_are_refused() {
    let centres = Bank::of(&rows(3, 4, 3, 1), 4, Precision::F32);
    let checked = |lengths: &[u64]| {
        Cells::checked(centres.clone(), lengths.iter().copied(), 10).map(|c| c.len())
    };
    assert_eq!(checked(&[1, 4, 5]), Ok(3));
    assert_eq!(
        checked(&[1, 4, 6]),
        Err("has a cell of 6 of 10 patches".into())
    );
    assert_eq!(
        checked(&[1, 9, 0]),
        Err("has a cell of 0 of 10 patches".into())
    );
    assert_eq!(
        checked(&[1, u64::MAX, 1]),
        Err(format!("has a cell of {} of 10 patches", u64::MAX))
    );
    assert_eq!(
        checked(&[1, 4, 4]),
        Err("does not share 10 patches among 3 cells".into())
    );
    assert_eq!(
        checked(&[5, 5]),
        Err("does not share 10 patches among 3 cells".into())
    );
    let nan = Bank::of(&[f32::NAN; 4], 4, Precision::F32);
    let what = Cells::checked(nan, [10].into_iter(), 10).map(|c| c.len());
    assert_eq!(
        what,
        Err("holds a centre with a number that no unit vector has".into())
    );
}
