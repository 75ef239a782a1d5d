//! Spacings as bytes: how a file, and the cache, hold how far the patches of banks lie from each other.

use crate::little_endian::{f32s, u32s};
use crate::score::residual::Spacing;

/// Tensor of the distances to the nearest patch of another good image and to that of a further one.
pub(super) const SPACING: &str = "spacing";
/// Tensor of the images that the nearest are of.
pub(super) const SPACING_IMAGE: &str = "spacing_image";

/// The bytes of the two tensors.
pub(crate) fn bytes(spacings: &[Spacing]) -> [Vec<u8>; 2] {
    let far = spacings
        .iter()
        .flat_map(|s| s.nearest.iter().zip(&s.second));
    let far = far.flat_map(|(nearest, second)| [nearest.to_le_bytes(), second.to_le_bytes()]);
    let images = spacings.iter().flat_map(|s| &s.image);
    [
        far.flatten().collect(),
        images.flat_map(|image| image.to_le_bytes()).collect(),
    ]
}

/// The spacings of blocks of `rows` patches from the bytes of both tensors; `None` if they cannot be used.
pub(crate) fn of_bytes([far, images]: [&[u8]; 2], rows: usize) -> Option<Vec<Spacing>> {
    // a bank without rows has none of them
    let far = far.chunks_exact((8 * rows).max(1));
    let blocks = far.zip(images.chunks_exact((4 * rows).max(1)));
    let one = |(far, images): (&[u8], &[u8])| Spacing {
        nearest: f32s(far).step_by(2).collect(),
        second: f32s(far).skip(1).step_by(2).collect(),
        image: u32s(images).collect(),
    };
    let all: Vec<Spacing> = blocks.map(one).collect();
    let usable = all.iter().all(|spacing| spacing.is_usable(rows));
    usable.then_some(all)
}
