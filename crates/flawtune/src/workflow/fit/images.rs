//! Tokens of the images that a detector is fitted to, as it will see them.

use flawtune_backbone::preprocess::Preprocess;
use rayon::prelude::*;

use super::bank::View;
use crate::features::{Extractor, Forward as _, Source, TokenSet, Turn};
use crate::image_size::ImageSize;
use crate::workflow::place::Seen;
use crate::workflow::source::{self, TokenSource};
use crate::workflow::{Category, Engine, OnEvent, WorkflowError};

/// Tokens as the bundle sees them.
pub(super) struct Images<'a> {
    pub(super) category: &'a Category,
    pub(super) engine: &'a Engine,
    pub(super) adapted: Option<&'a dyn TokenSource>,
    /// How images become pixels.
    pub(super) preprocess: Preprocess,
}

impl Images<'_> {
    /// The same at another size.
    pub(super) fn at(&self, size: ImageSize) -> Self {
        Self {
            preprocess: self.engine.preprocess_at(size),
            ..*self
        }
    }

    /// What decides the tokens of a bundle without anything learned besides the images.
    pub(super) fn source(&self) -> Source {
        Extractor::new(self.engine, self.preprocess).source()
    }

    /// Tokens of the samples at `positions`; an empty list gives none.
    pub(super) fn tokens(
        &self,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        self.tokens_in(Turn::default(), positions, on_event)
    }

    /// The same of the images turned.
    fn tokens_in(
        &self,
        turn: Turn,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        if positions.is_empty() {
            let (grid, dim) = (self.engine.grid_of(&self.preprocess), self.engine.dim());
            return Ok((
                Vec::new(),
                TokenSet {
                    grid,
                    dim,
                    images: Vec::new(),
                },
            ));
        }
        let (kept, mut tokens) = if source::leaves_network(self.adapted, self.engine) {
            self.category
                .turned_tokens(self.engine, self.preprocess, positions, turn, on_event)?
        } else {
            source::network(self.adapted, self.engine, |network| {
                self.category
                    .tokens_of(network, self.preprocess, None, positions, turn, on_event)
            })?
        };
        source::modulate(self.adapted, &mut tokens)?;
        Ok((kept, tokens))
    }

    /// The samples at `positions`, which can be read, in every direction but their own.
    pub(super) fn turned(
        &self,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<Vec<View>, WorkflowError> {
        // what is turned is the part that is looked at
        let preprocess = Preprocess {
            roi: None,
            ..self.preprocess
        };
        let part = |&position: &usize| {
            let (height, width) = self.size(position)?;
            let part = self.preprocess.part(height, width);
            Ok((part.height, part.width))
        };
        let sizes: Vec<(usize, usize)> = positions
            .par_iter()
            .map(part)
            .collect::<Result<_, WorkflowError>>()?;
        let turns = Turn::all().filter(|t| !t.is_none());
        turns
            .map(|turn| {
                let (kept, tokens) = self.tokens_in(turn, positions, on_event)?;
                if kept.len() != positions.len() {
                    return Err(WorkflowError::Input(
                        "images changed while they were read\nhint: run it again".into(),
                    ));
                }
                let patch = self.engine.config().patch_size;
                let shown = sizes.iter().map(|&size| {
                    Seen::of(&preprocess, tokens.grid, patch, size).shown(turn, tokens.grid, size)
                });
                Ok(View {
                    shown: shown.collect(),
                    tokens,
                })
            })
            .collect()
    }

    /// Height and width of a sample's image.
    pub(super) fn size(&self, position: usize) -> Result<(usize, usize), WorkflowError> {
        self.category.image_size(position, &self.preprocess)
    }
}
