//! The support set: normal images, adapted and laid out for matching once, then compared with any number of tests.

use flawtune_kernels::matching::{NearestImages, PackedPatches};

use crate::adapt::{Adaptation, Tape, pack_images, rows_of};
use crate::features::{ImageTokens, TokenSet};

use super::ScoreError;

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
    adaptation: Option<&'a Adaptation>,
    kind: TokenKind,
    dim: usize,
    pub(super) images: NearestImages,
}

impl<'a> SupportSet<'a> {
    /// Adapts (if asked) and packs the tokens of normal images.
    ///
    /// # Errors
    /// [`ScoreError::NoSupport`] without images, [`ScoreError::Kind`] and [`ScoreError::Adapt`] if the adaptation is for
    /// other tokens.
    pub fn new(
        tokens: &TokenSet,
        kind: TokenKind,
        adaptation: Option<&'a Adaptation>,
    ) -> Result<Self, ScoreError> {
        if tokens.images.is_empty()
            || tokens.dim == 0
            || (kind == TokenKind::Patches && tokens.patches() == 0)
        {
            return Err(ScoreError::NoSupport);
        }
        if let Some(a) = adaptation {
            let trained = if a.options().use_cls {
                TokenKind::Class
            } else {
                TokenKind::Patches
            };
            if trained != kind {
                return Err(ScoreError::Kind {
                    trained: trained.name(),
                    asked: kind.name(),
                });
            }
            a.check(tokens)?;
        }
        let images = NearestImages::new(pack(adaptation, kind, &tokens.images, tokens.dim));
        Ok(Self {
            adaptation,
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
        let mut packs = pack(self.adaptation, self.kind, images, self.dim);
        self.images.prepare(&mut packs);
        packs
    }
}

fn pack(
    adaptation: Option<&Adaptation>,
    kind: TokenKind,
    images: &[ImageTokens],
    dim: usize,
) -> Vec<PackedPatches> {
    let rows: Vec<&[f32]> = images
        .iter()
        .map(|i| rows_of(i, kind == TokenKind::Class))
        .collect();
    pack_images(
        adaptation.map(Adaptation::modulation),
        &rows,
        dim,
        &mut Tape::default(),
    )
}
