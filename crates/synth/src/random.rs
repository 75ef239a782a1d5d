//! The one source of chance: a `ChaCha8` stream for each named thing.
//!
//! Every image takes its stream from a hash of what it is (seed, category, split, number), so it
//! does not matter which thread draws it, or when. Only `next_u32` is taken from the generator; how
//! its bits become numbers is written here, so an update of the `rand` crates cannot change an image.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A named stream of random numbers.
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream that belongs to these names; each part is hashed with its length in front.
    pub(super) fn named(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"flawtune synth v1");
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// 32 random bits, also used to seed a noise field.
    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `[0, 1)`, 24 bits: every value is exact in f32.
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; 0 for an empty range.
    pub(super) fn below(&mut self, count: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(count)) >> 32) as u32
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// -1 or 1.
    pub(super) fn sign(&mut self) -> f32 {
        if self.bits() & 1 == 0 { -1.0 } else { 1.0 }
    }

    /// Bell-shaped, mean 0, variance 1, within ±3.5: the sum of four uniforms, so that no logarithm
    /// is needed.
    pub(super) fn bell(&mut self) -> f32 {
        let bits = self.bits();
        let more = self.bits();
        let sum = (bits & 0xffff) + (bits >> 16) + (more & 0xffff) + (more >> 16);
        (sum as f32 * (1.0 / 65_536.0) - 2.0) * 1.732_050_8
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn names_separate_streams_and_length_prefix_stops_collisions() {
        let first = |parts: &[&[u8]]| Chance::named(parts).bits();
        assert_eq!(first(&[b"ab", b"c"]), first(&[b"ab", b"c"]));
        assert_ne!(first(&[b"ab", b"c"]), first(&[b"a", b"bc"]));
        assert_ne!(first(&[b"ab"]), first(&[b"ab", b""]));
    }

    #[test]
    fn moments_of_the_bell() {
        let mut chance = Chance::named(&[b"moments"]);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(chance.bell())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance =
            draws.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
        assert!(draws.iter().all(|v| v.abs() < 3.5));
    }

    #[test]
    fn below_stays_in_range() {
        let mut chance = Chance::named(&[b"below"]);
        assert_eq!(chance.below(0), 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[chance.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
