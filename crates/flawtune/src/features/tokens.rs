//! The tokens of one image and of a list of images, in memory or mapped from the cache.

use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;

#[derive(Debug, Clone)]
enum Data {
    Owned(Arc<Vec<f32>>),
    Mapped {
        file: Arc<MappedFile>,
        offset: usize,
    },
}

/// The class token `[dim]` and patch tokens `[patches, dim]` of one image (after the final norm), f32.
#[derive(Debug, Clone)]
pub struct ImageTokens {
    data: Data,
    patches: usize,
    dim: usize,
}

impl ImageTokens {
    /// Tokens in memory: `data` is the class token followed by the patches, `[1 + patches, dim]`.
    ///
    /// # Panics
    /// If the length does not fit.
    pub fn owned(data: Vec<f32>, patches: usize, dim: usize) -> Self {
        assert_eq!(
            data.len(),
            (1 + patches) * dim,
            "tokens are [1 + patches, dim]"
        );
        Self {
            data: Data::Owned(Arc::new(data)),
            patches,
            dim,
        }
    }

    /// Tokens in a mapped file, `[1 + patches, dim]` little-endian f32 from byte `offset` (a multiple of 4).
    /// `None` if the file is too short or the offset is not aligned.
    pub fn mapped(
        file: Arc<MappedFile>,
        offset: usize,
        patches: usize,
        dim: usize,
    ) -> Option<Self> {
        let end = (1 + patches)
            .checked_mul(dim)?
            .checked_mul(4)?
            .checked_add(offset)?;
        (end <= file.bytes().len() && offset.is_multiple_of(4) && cfg!(target_endian = "little"))
            .then_some(Self {
                data: Data::Mapped { file, offset },
                patches,
                dim,
            })
    }

    fn all(&self) -> &[f32] {
        match &self.data {
            Data::Owned(v) => v,
            Data::Mapped { file, offset } => {
                bytemuck::cast_slice(&file.bytes()[*offset..][..(1 + self.patches) * self.dim * 4])
            }
        }
    }

    /// Class token `[dim]`.
    pub fn cls(&self) -> &[f32] {
        &self.all()[..self.dim]
    }

    /// Patch tokens `[patches, dim]`, row-major over the grid.
    pub fn patches(&self) -> &[f32] {
        &self.all()[self.dim..]
    }
}

/// Tokens of a list of images that share one grid and one width.
#[derive(Debug, Clone)]
pub struct TokenSet {
    /// Rows and columns of the patch grid.
    pub grid: (usize, usize),
    /// Numbers per token.
    pub dim: usize,
    /// One entry an image, in the order asked for.
    pub images: Vec<ImageTokens>,
}

impl TokenSet {
    /// Patches per image.
    pub fn patches(&self) -> usize {
        self.grid.0 * self.grid.1
    }
}
