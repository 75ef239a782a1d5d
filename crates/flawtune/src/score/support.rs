//! The support set: normal images, changed if asked and laid out for matching once, then compared with any number of tests.

use flawtune_kernels::matching::{NearestImages, PackedPatches};

use crate::features::{ImageTokens, TokenSet};

use super::{ScoreError, TokenChange, pack_images};

/// Which tokens are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// All patch tokens of an image.
    Patches,
    /// Its class token.
    Class,
}

impl TokenKind {
    fn name(self) -> &'static str {
        match self {
            Self::Patches => "patch tokens",
            Self::Class => "class tokens",
        }
    }
}

/// Normal images that tests are compared with; holds a copy of their tokens.
#[derive(Debug)]
pub struct SupportSet<'a> {
    change: Option<&'a dyn TokenChange>,
    kind: TokenKind,
    dim: usize,
    pub(super) images: NearestImages,
}

impl<'a> SupportSet<'a> {
    /// Changes (if asked) and packs the tokens of normal images.
    ///
    /// # Errors
    /// [`ScoreError::NoSupport`] without images, [`ScoreError::Kind`] and [`ScoreError::Change`] if the change is for
    /// other tokens.
    pub fn new(
        tokens: &TokenSet,
        kind: TokenKind,
        change: Option<&'a dyn TokenChange>,
    ) -> Result<Self, ScoreError> {
        if tokens.images.is_empty()
            || tokens.dim == 0
            || (kind == TokenKind::Patches && tokens.patches() == 0)
        {
            return Err(ScoreError::NoSupport);
        }
        if let Some(change) = change {
            if change.kind() != kind {
                return Err(ScoreError::Kind {
                    trained: change.kind().name(),
                    asked: kind.name(),
                });
            }
            change.check(tokens).map_err(ScoreError::Change)?;
        }
        let images = NearestImages::new(pack(change, kind, &tokens.images, tokens.dim));
        Ok(Self {
            change,
            kind,
            dim: tokens.dim,
            images,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.images().len()
    }

    /// Never: an empty support set is not built.
    pub fn is_empty(&self) -> bool {
        self.images.images().is_empty()
    }

    /// Checks that test tokens can be compared with these.
    pub(super) fn check(&self, test: &TokenSet) -> Result<(), ScoreError> {
        if test.dim == self.dim {
            Ok(())
        } else {
            Err(ScoreError::Width {
                test: test.dim,
                support: self.dim,
            })
        }
    }

    /// Images treated like those of the support set.
    pub(super) fn pack(&self, images: &[ImageTokens]) -> Vec<PackedPatches> {
        let mut packs = pack(self.change, self.kind, images, self.dim);
        self.images.prepare(&mut packs);
        packs
    }
}

fn pack(
    change: Option<&dyn TokenChange>,
    kind: TokenKind,
    images: &[ImageTokens],
    dim: usize,
) -> Vec<PackedPatches> {
    let rows: Vec<&[f32]> = images
        .iter()
        .map(|image| match kind {
            TokenKind::Class => image.cls(),
            TokenKind::Patches => image.patches(),
        })
        .collect();
    let mut change = change.map(TokenChange::rows);
    pack_images(change.as_deref_mut(), &rows, dim)
}
