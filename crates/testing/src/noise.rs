//! Numbers from linear congruences: cheap, and the same in every language.

/// A 64-bit congruence (Knuth's multiplier); its upper bits are good enough for tests.
#[derive(Debug, Clone)]
pub struct Noise(pub u64);

impl Noise {
    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0
    }

    /// Uniform in `0..1`, a multiple of 2⁻³¹.
    pub fn uniform(&mut self) -> f64 {
        (self.word() >> 33) as f64 / 2f64.powi(31)
    }

    /// Uniform in `−½..½`.
    pub fn centred(&mut self) -> f32 {
        (self.uniform() - 0.5) as f32
    }

    /// Uniform in `−1..1`, a multiple of 2⁻²³.
    pub fn signed(&mut self) -> f32 {
        (self.word() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// `n` numbers, uniform in `−bound..bound`.
    pub fn many(&mut self, n: usize, bound: f32) -> Vec<f32> {
        (0..n).map(|_| bound * self.signed()).collect()
    }
}

/// A 32-bit congruence (that of Numerical Recipes).
#[derive(Debug, Clone)]
pub struct SmallNoise(pub u32);

impl SmallNoise {
    /// The next word.
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    /// Uniform in `−1..1`, a multiple of 2⁻²³.
    pub fn signed(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 8_388_608.0 - 1.0
    }
}
