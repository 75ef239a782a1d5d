//! The images of a run as the tokens that enter the first block.

use crate::adapt::AdaptError;
use flawtune::features::ForwardError;

/// Bytes of embedded images that are kept, unless another bound is given: about 2700 images of ViT-S/14 at 224 px.
pub const DEFAULT_MEMORY: usize = 1 << 30;

/// Brings images up to the first block of a backbone.
pub trait Embed: Sync {
    /// Rows and columns of the patch grid of every image.
    fn grid(&self) -> (usize, usize);

    /// Tokens `[images, 1 + registers + patches, dim]` of the images with these indices, in this order.
    ///
    /// # Errors
    /// Whatever reading or embedding reports; the run ends with it.
    fn embed(&self, images: &[usize]) -> Result<Vec<f32>, ForwardError>;
}

/// Images that are embedded when they are first asked for and kept as long as there is room. What is returned does
/// not depend on the room.
pub struct EmbeddedImages<'a> {
    source: &'a dyn Embed,
    /// Numbers per image.
    each: usize,
    kept: Vec<Option<Vec<f32>>>,
    /// Bytes that may still be kept.
    room: usize,
}

impl std::fmt::Debug for EmbeddedImages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedImages")
            .field("images", &self.kept.len())
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl<'a> EmbeddedImages<'a> {
    /// `count` images of `each` numbers, `[1 + registers + patches, dim]`; at most `memory` bytes are kept.
    pub fn new(source: &'a dyn Embed, count: usize, each: usize, memory: usize) -> Self {
        Self {
            source,
            each,
            kept: vec![None; count],
            room: memory,
        }
    }

    /// Rows and columns of the patch grid.
    pub fn grid(&self) -> (usize, usize) {
        self.source.grid()
    }

    /// Bytes kept at present.
    pub fn bytes(&self) -> usize {
        self.kept
            .iter()
            .flatten()
            .map(|t| size_of_val(&t[..]))
            .sum()
    }

    /// Writes the tokens of some images to `out`, `[images, 1 + registers + patches, dim]`.
    ///
    /// # Errors
    /// [`AdaptError::Images`] if they cannot be embedded.
    pub fn gather(&mut self, images: &[usize], out: &mut Vec<f32>) -> Result<(), AdaptError> {
        let mut missing: Vec<usize> = images
            .iter()
            .copied()
            .filter(|&i| self.kept[i].is_none())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let new = if missing.is_empty() {
            Vec::new()
        } else {
            self.source.embed(&missing).map_err(AdaptError::Images)?
        };
        if new.len() != missing.len() * self.each {
            return Err(AdaptError::Shape {
                name: "embedded images".to_owned(),
                found: vec![new.len()],
                wanted: vec![missing.len(), self.each],
                hint: "; all images of a run have the same size",
            });
        }
        out.clear();
        for &i in images {
            match (&self.kept[i], missing.binary_search(&i)) {
                (Some(kept), _) => out.extend_from_slice(kept),
                (None, Ok(at)) => out.extend_from_slice(&new[at * self.each..(at + 1) * self.each]),
                (None, Err(_)) => {}
            }
        }
        for (&i, tokens) in missing.iter().zip(new.chunks_exact(self.each)) {
            let bytes = size_of_val(tokens);
            if bytes <= self.room {
                self.room -= bytes;
                self.kept[i] = Some(tokens.to_vec());
            }
        }
        Ok(())
    }
}
