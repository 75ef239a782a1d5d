//! What changes tokens between the backbone and a scorer, as fit and a detector see it. Whoever makes such a thing, a
//! training for example, implements [`LearnedTokens`] and [`TokenSource`]; nothing here knows how.

use std::fmt::Debug;
use std::path::PathBuf;

use flawtune_backbone::preprocess::Preprocess;

use super::{BackboneOverrides, Engine, OnEvent, WorkflowError};
use crate::evaluate::protocol::SplitManifest;
use crate::features::{Forward, ImageTokens, Inputs, TokenSet};
use crate::score::heads::EnsembleRecord;

/// Changes the tokens of one backbone. The tokens of an image depend on that image only.
pub trait TokenSource: Debug + Send + Sync {
    /// The network whose tokens are to be taken, round `engine`; `None`: those of the untouched engine are all that is
    /// needed.
    fn network<'a>(&'a self, engine: &'a Engine) -> Option<Box<dyn Forward + 'a>>;

    /// Changes the network's tokens.
    ///
    /// # Errors
    /// Tokens of another width.
    fn modulate(&self, tokens: &mut TokenSet) -> Result<(), WorkflowError>;
}

/// What was learned and changes tokens, before it meets its backbone.
pub trait LearnedTokens: Debug + Send + Sync {
    /// The backbone it was learned on, with what the user says over it.
    ///
    /// # Errors
    /// A backbone that cannot be opened, or another than it was learned on.
    fn backbone(
        &self,
        overrides: &BackboneOverrides,
        on_event: OnEvent<'_>,
    ) -> Result<Engine, WorkflowError>;

    /// Ready for a backbone.
    ///
    /// # Errors
    /// Tensors made for another backbone, or for tokens that have no place in an image.
    fn source(&self, engine: &Engine) -> Result<Box<dyn TokenSource>, WorkflowError>;

    /// As a bundle keeps it, for the [`TokenOpener`] of the same maker.
    ///
    /// # Errors
    /// What cannot be written.
    fn to_bytes(&self) -> Result<Vec<u8>, String>;
}

/// Reads the bytes of [`LearnedTokens::to_bytes`]; an error says what is wrong with them.
pub type TokenOpener = fn(&[u8]) -> Result<Box<dyn LearnedTokens>, String>;

/// What a training brings along for a fit.
#[derive(Debug)]
pub struct Learned {
    /// The file it lies in.
    pub path: PathBuf,
    /// Hash of that file.
    pub hash: String,
    /// Which images it learned from.
    pub manifest: SplitManifest,
    /// The ensemble, where it has one.
    pub ensemble: Option<EnsembleRecord>,
    /// What changes the tokens.
    pub tokens: Box<dyn LearnedTokens>,
    /// Whether images that did not train speak against changing them: then they stay as they are.
    pub falls_back: bool,
}

/// Calls `with` with the network whose tokens are to be taken.
pub(super) fn network<T>(
    source: Option<&dyn TokenSource>,
    engine: &Engine,
    with: impl FnOnce(&dyn Forward) -> T,
) -> T {
    match source.and_then(|s| s.network(engine)) {
        Some(network) => with(&*network),
        None => with(engine),
    }
}

/// Whether tokens of the untouched network are all that is needed from it.
pub(super) fn leaves_network(source: Option<&dyn TokenSource>, engine: &Engine) -> bool {
    source.is_none_or(|s| s.network(engine).is_none())
}

/// Changes the network's tokens where there is something that does.
///
/// # Errors
/// As [`TokenSource::modulate`].
pub(super) fn modulate(
    source: Option<&dyn TokenSource>,
    tokens: &mut TokenSet,
) -> Result<(), WorkflowError> {
    source.map_or(Ok(()), |s| s.modulate(tokens))
}

/// Tokens of `batch` images that were prepared by `preprocess`, as they are compared: by the network of `source`, and changed by it.
///
/// # Errors
/// A forward pass that gives no numbers; as [`TokenSource::modulate`].
pub(super) fn tokens(
    source: Option<&dyn TokenSource>,
    engine: &Engine,
    preprocess: &Preprocess,
    (inputs, batch): (&Inputs, usize),
) -> Result<TokenSet, WorkflowError> {
    let (grid, dim) = (engine.grid_of(preprocess), engine.dim());
    let found = network(source, engine, |network| {
        inputs.tokens(network, batch, preprocess.size)
    })?;
    let own = |tokens| ImageTokens::owned(tokens, grid.0 * grid.1, dim);
    let mut tokens = TokenSet {
        grid,
        dim,
        images: found.into_iter().map(own).collect(),
    };
    modulate(source, &mut tokens)?;
    Ok(tokens)
}
