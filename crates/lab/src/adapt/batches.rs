//! Which images make up each step's batch.

use flawtune::random::{Purpose, Stream};

/// How many steps make an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum EpochSteps {
    /// One pass over the normal images
    ///
    /// A short last batch is dropped unless it is the only one.
    #[cfg_attr(feature = "clap", value(name = "full"))]
    #[default]
    FullPass,
    /// One step, as the original recipe has it
    One,
}

impl EpochSteps {
    /// Name in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullPass => "full_pass",
            Self::One => "one",
        }
    }
}

/// Draws batches: normals in a new order every epoch, defects in a long list reshuffled whenever it is used up.
#[derive(Debug, Clone)]
pub struct Sampler {
    normals: Stream,
    defects: Stream,
    normal_count: usize,
    batch_size: usize,
    order: Vec<usize>,
    next: usize,
}

/// Where a [`Sampler`] stands between two epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerState {
    /// Words used of the stream for normals.
    pub normals_position: u64,
    /// Words used of the stream for defects.
    pub defects_position: u64,
    /// Present order of the defects.
    pub order: Vec<usize>,
    /// How many of them have been used.
    pub next: usize,
}

impl Sampler {
    /// For positions `0..normals` and `0..defects` of the caller's lists.
    pub fn new(seed: u64, normals: usize, defects: usize, batch_size: usize) -> Self {
        Self {
            normals: Stream::new(seed, Purpose::Normals),
            defects: Stream::new(seed, Purpose::Defects),
            normal_count: normals,
            batch_size,
            order: (0..defects).collect(),
            next: defects,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> SamplerState {
        SamplerState {
            normals_position: self.normals.position(),
            defects_position: self.defects.position(),
            order: self.order.clone(),
            next: self.next,
        }
    }

    /// Goes on from a state; `false` if the state is not one of this sampler's.
    pub fn restore(&mut self, state: &SamplerState) -> bool {
        let mut sorted = state.order.clone();
        sorted.sort_unstable();
        if sorted != (0..self.order.len()).collect::<Vec<_>>() || state.next > self.order.len() {
            return false;
        }
        self.normals.seek(state.normals_position);
        self.defects.seek(state.defects_position);
        self.order.clone_from(&state.order);
        self.next = state.next;
        true
    }

    /// The batches of the normals for one epoch.
    pub fn epoch(&mut self, steps: EpochSteps) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.normal_count).collect();
        self.normals.shuffle(&mut order);
        let full = (self.normal_count / self.batch_size).max(1);
        let count = if steps == EpochSteps::One { 1 } else { full };
        order
            .chunks(self.batch_size)
            .take(count)
            .map(<[usize]>::to_vec)
            .collect()
    }

    /// The next batch of defects: as many as a batch holds, or all there are. No defect comes twice in a batch.
    pub fn defects(&mut self) -> Vec<usize> {
        let mut batch = Vec::new();
        while batch.len() < self.batch_size.min(self.order.len()) {
            if self.next == self.order.len() {
                self.defects.shuffle(&mut self.order);
                // those in the batch already go to the end of the new round
                self.order.sort_by_key(|i| batch.contains(i));
                self.next = 0;
            }
            batch.push(self.order[self.next]);
            self.next += 1;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_uses_every_normal_once_but_for_a_short_last_batch() {
        let mut sampler = Sampler::new(3, 37, 5, 16);
        let batches = sampler.epoch(EpochSteps::FullPass);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16]);
        let mut all = batches.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 32);
        assert_ne!(sampler.epoch(EpochSteps::FullPass), batches);
        assert_eq!(sampler.epoch(EpochSteps::One).len(), 1);
        assert_eq!(
            Sampler::new(3, 9, 5, 16).epoch(EpochSteps::FullPass)[0].len(),
            9
        );
    }

    #[test]
    fn defects_cycle_evenly_without_repeats_in_a_batch() {
        let mut sampler = Sampler::new(3, 8, 5, 3);
        let mut counts = [0; 5];
        for _ in 0..10 {
            let mut batch = sampler.defects();
            assert_eq!(batch.len(), 3);
            for &d in &batch {
                counts[d] += 1;
            }
            batch.sort_unstable();
            batch.dedup();
            assert_eq!(batch.len(), 3);
        }
        assert_eq!(counts, [6; 5]);
        assert_eq!(Sampler::new(3, 8, 2, 16).defects().len(), 2);
    }

    #[test]
    fn a_restored_sampler_goes_on_alike() {
        let mut sampler = Sampler::new(3, 40, 7, 4);
        sampler.epoch(EpochSteps::FullPass);
        (0..10).for_each(|_| drop(sampler.defects()));
        let state = sampler.state();
        let mut other = Sampler::new(3, 40, 7, 4);
        assert!(other.restore(&state));
        assert_eq!(
            other.epoch(EpochSteps::FullPass),
            sampler.epoch(EpochSteps::FullPass)
        );
        assert_eq!(other.defects(), sampler.defects());
        assert!(!Sampler::new(3, 40, 6, 4).restore(&state));
    }
}
