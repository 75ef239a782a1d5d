//! What can be wrong with a configuration, its weights or an input.

use flawtune_kernels::dispatch::UnavailableIsa;

/// Why a backbone cannot be built or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VitError {
    /// The configuration contradicts itself.
    #[error("the configuration of {model} cannot be: {reason}")]
    Config {
        /// Its name.
        model: String,
        /// What contradicts what.
        reason: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error(
        "{tensor} has shape {found:?}, but the configuration of {model} wants {wanted:?}\nhint: choose the variant that the weight file was made for"
    )]
    Shape {
        /// Name of the configuration.
        model: String,
        /// Which tensor.
        tensor: String,
        /// Shape wanted.
        wanted: Vec<usize>,
        /// Shape (or element count) found.
        found: Vec<usize>,
    },
    /// The image has no whole patch.
    #[error(
        "an image of {height}x{width} pixels holds no patch of {patch}x{patch}\nhint: use a larger image size"
    )]
    TooSmall {
        /// Pixel rows.
        height: usize,
        /// Pixel columns.
        width: usize,
        /// Side of a patch.
        patch: usize,
    },
    /// The pixel slice is not `[batch, 3, height, width]`.
    #[error("{found} pixel values given, but [{batch}, 3, {height}, {width}] has {wanted}")]
    Pixels {
        /// Images.
        batch: usize,
        /// Pixel rows.
        height: usize,
        /// Pixel columns.
        width: usize,
        /// Values that shape has.
        wanted: usize,
        /// Values given.
        found: usize,
    },
    /// The layer selection is empty or names a block that does not exist.
    #[error("layers {layers:?} cannot be used\nhint: choose one or more of 0..{depth}, each once")]
    Layers {
        /// What was asked for.
        layers: Vec<usize>,
        /// Number of blocks.
        depth: usize,
    },
    /// `FLAWTUNE_KERNELS` names an instruction set that this machine lacks.
    #[error(transparent)]
    Kernels(#[from] UnavailableIsa),
}
