//! What a training tells after each epoch.

/// What one epoch showed: means over its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochRecord {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Loss.
    pub loss: f64,
    /// Separability.
    pub separability: f64,
    /// Mean similarity among normals.
    pub mu_nn: f64,
    /// Mean similarity from normals to defects.
    pub mu_nd: f64,
    /// Standard deviation among normals.
    pub sd_nn: f64,
    /// Standard deviation from normals to defects.
    pub sd_nd: f64,
    /// Learning rate in this epoch.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// The hold-out metric after this epoch, where it was measured.
    pub hold_out: Option<f64>,
}

/// What the callback is told after each epoch.
#[derive(Debug, Clone, Copy)]
pub struct EpochReport {
    /// What the epoch showed.
    pub record: EpochRecord,
    /// Epochs in all.
    pub epochs: usize,
    /// Wall-clock time of this epoch. Kept out of what is saved, which depends on the seed only.
    pub seconds: f64,
}
