//! Changing tokens before they are compared, as scorers see it.

use std::fmt::Debug;

use flawtune_kernels::matching::PackedPatches;
use rayon::prelude::*;

use super::TokenKind;
use crate::features::TokenSet;
use crate::unit::normalise_rows;

/// Images that are changed at once.
const IMAGES_AT_ONCE: usize = 16;

/// Writes the changed rows of some images to a slice, `[images, rows, dim]`.
pub type ChangeRows<'a> = dyn FnMut(&[&[f32]], &mut [f32]) + 'a;

/// Changes the tokens of support and test images alike. The result for one image depends on that image only.
pub trait TokenChange: Debug + Sync {
    /// Which tokens it changes.
    fn kind(&self) -> TokenKind;

    /// Checks that it was made for tokens like these.
    ///
    /// # Errors
    /// Tokens of another width.
    fn check(&self, tokens: &TokenSet) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// What changes the rows of images, with room to work in.
    fn rows(&self) -> Box<ChangeRows<'_>>;
}

/// Images changed (if asked), divided by their norms and laid out for matching.
pub fn pack_images(
    mut change: Option<&mut ChangeRows<'_>>,
    images: &[&[f32]],
    dim: usize,
) -> Vec<PackedPatches> {
    let Some(size) = images.first().map(|i| i.len()) else {
        return Vec::new();
    };
    let mut packs = Vec::with_capacity(images.len());
    let mut room = vec![0.0; size * images.len().min(IMAGES_AT_ONCE)];
    for images in images.chunks(IMAGES_AT_ONCE) {
        let room = &mut room[..size * images.len()];
        match &mut change {
            Some(change) => change(images, room),
            None => room
                .chunks_exact_mut(size)
                .zip(images)
                .for_each(|(to, from)| to.copy_from_slice(from)),
        }
        packs.par_extend(room.par_chunks_exact_mut(size).map(|rows| {
            normalise_rows(rows, dim, &mut vec![0.0; rows.len() / dim]);
            PackedPatches::pack(rows, dim)
        }));
    }
    packs
}
