//! Which images of a category make up a step's batch. It depends on seed, category and step alone, so that training goes
//! on after an interruption without a sampler's state for every category.

use flawtune::random::{Purpose, Stream};

/// Draws the batches of one category among several.
#[derive(Debug, Clone, Copy)]
pub(super) struct CategorySampler {
    seed: u64,
    category: usize,
    batch_size: usize,
}

impl CategorySampler {
    pub(super) fn new(seed: u64, category: usize, batch_size: usize) -> Self {
        Self {
            seed,
            category,
            batch_size,
        }
    }

    /// Positions among `count` normals for a step. Full passes in a new order each; of a pass the short last batch is
    /// dropped, unless it is the only one.
    pub(super) fn normals(&self, step: u64, count: usize) -> Vec<usize> {
        self.batch(Purpose::Normals, step, count)
    }

    /// The same among `count` defects.
    pub(super) fn defects(&self, step: u64, count: usize) -> Vec<usize> {
        self.batch(Purpose::Defects, step, count)
    }

    fn batch(&self, purpose: Purpose, step: u64, count: usize) -> Vec<usize> {
        let size = self.batch_size.min(count);
        if size == 0 {
            return Vec::new();
        }
        let batches = (count / size) as u64;
        let mut order: Vec<usize> = (0..count).collect();
        self.stream(purpose, step / batches).shuffle(&mut order);
        let from = (step % batches) as usize * size;
        order[from..from + size].to_vec()
    }

    /// The random numbers of one pass over one category.
    fn stream(&self, purpose: Purpose, pass: u64) -> Stream {
        let mut hasher = blake3::Hasher::new();
        for part in [self.seed, self.category as u64, pass] {
            hasher.update(&part.to_le_bytes());
        }
        let mut seed = [0; 8];
        seed.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Stream::new(u64::from_le_bytes(seed), purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_uses_every_image_once_and_passes_differ() {
        let sampler = CategorySampler::new(3, 1, 4);
        let pass = |from: u64| -> Vec<usize> {
            (from..from + 3)
                .flat_map(|s| sampler.normals(s, 12))
                .collect()
        };
        let mut all = pass(0);
        assert_ne!(all, pass(3));
        all.sort_unstable();
        assert_eq!(all, (0..12).collect::<Vec<_>>());
        // of 14 the last two are dropped: the fourth step begins a new pass
        let mut seen: Vec<usize> = (0..3).flat_map(|s| sampler.normals(s, 14)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 12);
    }

    #[test]
    fn few_images_make_a_batch_of_all_of_them() {
        let sampler = CategorySampler::new(3, 0, 16);
        let mut batch = sampler.defects(7, 3);
        batch.sort_unstable();
        assert_eq!(batch, [0, 1, 2]);
        assert!(sampler.defects(7, 0).is_empty());
    }

    #[test]
    fn categories_and_seeds_have_their_own_orders() {
        let of = |seed, category| CategorySampler::new(seed, category, 16).normals(0, 64);
        assert_ne!(of(0, 0), of(0, 1));
        assert_ne!(of(0, 0), of(1, 0));
        assert_eq!(of(4, 2), of(4, 2));
    }
}
