use super::*;
use crate::adapt::{PairwiseMatches, Similarities};
use flawtune::random::{Purpose, Stream};
use flawtune::unit::normalise_rows;

const ROWS: usize = 24;
const DIM: usize = 12;

/// Images that drift by `step` in each visit; every sixth patch is a copy of another, so that there are ties.
fn drift(images: &mut [f32], step: f32, stream: &mut Stream) {
    for v in images.iter_mut() {
        *v += step * (2.0 * stream.uniform() - 1.0) as f32;
    }
    for image in images.chunks_exact_mut(ROWS * DIM) {
        for p in (0..ROWS).step_by(6) {
            image.copy_within((p + 1) * DIM..(p + 2) * DIM, p * DIM);
        }
    }
}

#[test]
fn what_is_kept_is_what_a_search_finds() {
    for (step, least) in [(0.0, 0.5), (1e-4, 0.5), (1e-2, 0.0), (0.5, 0.0)] {
        let (normals, defects) = (5, 3);
        let mut stream = Stream::new(4, Purpose::Init);
        let mut images = vec![0.0; (normals + defects) * ROWS * DIM];
        drift(&mut images, 1.0, &mut stream);
        let (mut plain, mut kept) = (PairwiseMatches::default(), PairwiseMatches::default());
        kept.remember(MatchMemory::new(normals, defects, ROWS, DIM).unwrap());
        for visit in 0..12 {
            drift(&mut images, step, &mut stream);
            // other images, in another order, each time
            let n: Vec<usize> = (0..3).map(|i| (visit + 2 * i) % normals).collect();
            let d: Vec<usize> = (0..2).map(|i| (visit + i) % defects).collect();
            let batch: Vec<f32> = n
                .iter()
                .copied()
                .chain(d.iter().map(|d| normals + d))
                .flat_map(|i| images[i * ROWS * DIM..][..ROWS * DIM].to_vec())
                .collect();
            let run = |matches: &mut PairwiseMatches| {
                matches.tokens_mut(3, 2, ROWS, DIM).copy_from_slice(&batch);
                let mut found = Similarities::default();
                matches.forward(&mut found);
                let mut weights = Similarities::zeros(3, 2);
                weights.nd.fill(0.3);
                let mut gradient = vec![0.0; batch.len()];
                matches.backward(&weights, &mut gradient);
                (found, gradient)
            };
            kept.announce(&n, &d);
            assert_eq!(
                run(&mut kept),
                run(&mut plain),
                "step {step}, visit {visit}"
            );
        }
        let share = kept.memory().unwrap().proven_share();
        assert!(share >= least, "step {step}: {share} proven");
    }
}

#[test]
fn too_many_images_are_not_kept() {
    assert!(MatchMemory::new(320, 20, 196, 384).is_some());
    assert!(MatchMemory::new(3200, 20, 196, 384).is_none());
}

#[test]
fn a_moved_patch_loses_its_proof() {
    let mut rows = [1.0, 0.0, 0.0, 1.0];
    normalise_rows(&mut rows, 2, &mut [0.0; 2]);
    let mut memory = MatchMemory::new(1, 1, 2, 2).unwrap();
    memory.visit(&[0], &rows, 2);
    memory.visit(&[0], &[0.0, 1.0, 0.0, 1.0], 2);
    assert!(memory.images[0].paths[0] >= 2f64.sqrt() && memory.images[0].paths[1] == 0.0);
    assert!(memory.images[0].longest >= 2f64.sqrt());
}
