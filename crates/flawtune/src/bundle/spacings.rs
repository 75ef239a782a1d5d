//! How a file holds how far the patches of its banks lie from each other.

use crate::score::residual::{ResidualModel, Spacing};

/// Tensor of the distances to the nearest patch of another good image and to that of a further one.
pub(super) const SPACING: &str = "spacing";
/// Tensor of the images that the nearest are of.
pub(super) const SPACING_IMAGE: &str = "spacing_image";

/// The bytes of the two tensors of a model; none where it knows no spacings.
pub(super) fn bytes(model: &ResidualModel) -> Option<[Vec<u8>; 2]> {
    if model.spacings.is_empty() {
        return None;
    }
    let spacings = model.spacings.iter();
    let far = spacings
        .clone()
        .flat_map(|s| s.nearest.iter().zip(&s.second));
    let far = far.flat_map(|(nearest, second)| [nearest.to_le_bytes(), second.to_le_bytes()]);
    let images = spacings.flat_map(|s| &s.image);
    Some([
        far.flatten().collect(),
        images.flat_map(|image| image.to_le_bytes()).collect(),
    ])
}

/// The spacings of blocks of `rows` patches from the bytes of both tensors; `None` if they cannot be used.
pub(super) fn of_bytes([far, images]: [&[u8]; 2], rows: usize) -> Option<Vec<Spacing>> {
    let four = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    let blocks = far
        .chunks_exact(8 * rows)
        .zip(images.chunks_exact(4 * rows));
    let one = |(far, images): (&[u8], &[u8])| Spacing {
        nearest: far
            .chunks_exact(8)
            .map(|b| f32::from_le_bytes(four(b)))
            .collect(),
        second: far
            .chunks_exact(8)
            .map(|b| f32::from_le_bytes(four(&b[4..])))
            .collect(),
        image: images
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(four(b)))
            .collect(),
    };
    let all: Vec<Spacing> = blocks.map(one).collect();
    all.iter()
        .all(|spacing| spacing.is_usable(rows))
        .then_some(all)
}
