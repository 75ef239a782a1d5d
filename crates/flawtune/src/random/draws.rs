//! Random draws that stay the same for a seed: across platforms, thread counts and versions of the `rand` crate.
//!
//! Only the `ChaCha8` bit stream is taken from a crate; what is made of the bits is written out here, so that a split
//! published with its seed can be rebuilt years later.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A generator for `seed`; different `stream`s of one seed are independent of each other.
pub fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    // the key is spelled out: how a crate stretches a 64-bit seed is its own affair and has changed before
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    rng
}

/// A whole number below `bound`, each equally likely (rejection, no modulo bias).
///
/// # Panics
/// If `bound` is 0.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    assert!(bound > 0, "nothing lies below 0");
    let bound = bound as u64;
    // the largest multiple of `bound` that fits: draws at or above it would favour small remainders
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < limit {
            return (draw % bound) as usize;
        }
    }
}

/// Fisher–Yates: every order is equally likely.
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_item_and_depends_on_seed_and_stream() {
        let order = |seed, stream| {
            let mut items: Vec<usize> = (0..50).collect();
            shuffle(&mut generator(seed, stream), &mut items);
            items
        };
        let mut sorted = order(3, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(order(3, 0), order(3, 0));
        assert_ne!(order(3, 0), order(4, 0));
        assert_ne!(order(3, 0), order(3, 1));
    }

    #[test]
    fn every_order_of_three_is_about_equally_likely() {
        let mut rng = generator(1, 0);
        let mut counts = [0usize; 27];
        let draws = 6000;
        for _ in 0..draws {
            let mut items = [0usize, 1, 2];
            shuffle(&mut rng, &mut items);
            counts[items[0] * 9 + items[1] * 3 + items[2]] += 1;
        }
        let seen: Vec<usize> = counts.into_iter().filter(|c| *c > 0).collect();
        assert_eq!(seen.len(), 6);
        // 1000 expected, standard deviation 29
        assert!(seen.iter().all(|c| c.abs_diff(1000) < 150), "{seen:?}");
    }

    #[test]
    fn the_first_draws_of_a_seed_are_pinned() {
        // a changed number here would silently change every published split
        let mut items: Vec<usize> = (0..10).collect();
        shuffle(&mut generator(0, 0), &mut items);
        assert_eq!(items, PINNED_SEED_0);
    }

    const PINNED_SEED_0: [usize; 10] = [3, 0, 5, 9, 6, 7, 2, 4, 1, 8];
}
