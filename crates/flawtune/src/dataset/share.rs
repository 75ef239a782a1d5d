//! Good images for the test where nobody said which.

use super::{Sample, Subset};

/// One good image in this many is tested.
const ONE_IN: usize = 5;

/// Gives a fifth of the good training images to the test, rounded, at least one and never all: those whose ids have
/// the lowest blake3. So the choice depends on names alone, not on a seed, the machine or what the images show, is
/// spread over the names, and hardly moves when images are added.
pub(super) fn give_to_test(samples: &mut [Sample]) {
    let mut good: Vec<(blake3::Hash, &mut Sample)> = samples
        .iter_mut()
        .filter(|s| s.subset == Subset::Train && !s.is_defect())
        .map(|s| (blake3::hash(s.id.as_bytes()), s))
        .collect();
    good.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let most = good.len().saturating_sub(1);
    let count = ((good.len() + ONE_IN / 2) / ONE_IN).max(1).min(most);
    for (_, sample) in good.into_iter().take(count) {
        sample.subset = Subset::Test;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(names: std::ops::Range<usize>) -> Vec<String> {
        let sample = |i: usize| Sample {
            path: format!("{i}.png").into(),
            id: format!("{i}.png"),
            subset: Subset::Train,
            defect_type: None,
            masks: Vec::new(),
        };
        let mut samples: Vec<Sample> = names.map(sample).collect();
        give_to_test(&mut samples);
        samples
            .into_iter()
            .filter(|s| s.subset == Subset::Test)
            .map(|s| s.id)
            .collect()
    }

    #[test]
    fn a_fifth_is_tested_and_hardly_moves() {
        for (pictures, wanted) in [(0, 0), (1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (100, 20)] {
            assert_eq!(tested(0..pictures).len(), wanted, "{pictures}");
        }
        let (before, after) = (tested(0..100), tested(0..105));
        // five more images bring one more place
        assert!(before.iter().filter(|id| after.contains(id)).count() >= before.len() - 4);
        assert_eq!(before, tested(0..100));
    }
}
