//! Checkpoints for fit and detectors: what a training learned, as a source of tokens.

use std::path::Path;

use super::inside::{self, InsertedEngine, Through};
use super::universal::adaptation_for;
use super::{
    BackboneOverrides, Engine, Event, FitRequest, Fitted, Learned, LearnedTokens, OnEvent,
    TokenSource, WorkflowError, adapted, evaluate, fit_learned, manifests,
};
use crate::adapt::inside::Inserted;
use crate::adapt::{Adaptation, Checkpoint};
use flawtune::features::{Forward, TokenSet};

/// Fits a bundle to what a checkpoint of `train` learned; see [`fit_learned`].
///
/// # Errors
/// As [`fit_learned`]; anything wrong with the checkpoint.
pub fn fit_checkpoint(
    checkpoint: &Path,
    request: &FitRequest,
    on_event: OnEvent<'_>,
) -> Result<Fitted, WorkflowError> {
    request.check()?;
    let learned = learned(checkpoint, request, on_event)?;
    fit_learned(request, &learned, on_event)
}

/// The [`TokenOpener`](flawtune::workflow::TokenOpener) of bundles that were fitted with a checkpoint.
///
/// # Errors
/// What is wrong with the bytes.
pub fn checkpoint_tokens(bytes: &[u8]) -> Result<Box<dyn LearnedTokens>, String> {
    Ok(Box::new(OfCheckpoint {
        checkpoint: Checkpoint::from_bytes(bytes)?,
        path: None,
    }))
}

/// Reads a checkpoint and what it says of itself.
fn learned(
    path: &Path,
    request: &FitRequest,
    on_event: OnEvent<'_>,
) -> Result<Learned, WorkflowError> {
    on_event(Event::Read(path));
    let mut checkpoint = Checkpoint::read(path)?;
    let manifest =
        manifests::manifest(path, &checkpoint, &request.data.category)?.ok_or_else(|| {
            WorkflowError::Input(format!(
                "{} does not say which images it was trained on\nhint: train it with this program",
                path.display()
            ))
        })?;
    if manifest.category != request.data.category {
        return Err(WorkflowError::Input(format!(
            "{} was trained on {trained}, not on {}\nhint: fit it with `category` {trained}, or omit `checkpoint`",
            path.display(),
            request.data.category,
            trained = manifest.category,
        )));
    }
    // the bundle keeps no word of other categories: what it scores by is this one's
    checkpoint.parameters = adaptation_for(&checkpoint, &request.data.category)?
        .parameters()
        .clone();
    let guard = evaluate::guard_of(path, &checkpoint)?;
    let falls_back = request.options.guard && guard.is_some_and(|g| g.fallback);
    if let Some(guard) = guard.filter(|_| falls_back) {
        on_event(Event::Note(evaluate::fallback_text(&guard)));
    }
    let failed = |source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "name a checkpoint",
    };
    let hash = blake3::hash(&std::fs::read(path).map_err(failed)?)
        .to_hex()
        .to_string();
    let ensemble = evaluate::ensemble_of(path, &checkpoint)?;
    Ok(Learned {
        path: path.to_owned(),
        hash,
        manifest,
        ensemble,
        tokens: Box::new(OfCheckpoint {
            checkpoint,
            path: Some(path.to_owned()),
        }),
        falls_back,
    })
}

/// A checkpoint, from its own file or from a bundle.
#[derive(Debug)]
struct OfCheckpoint {
    checkpoint: Checkpoint,
    /// Its file, where it has one of its own.
    path: Option<std::path::PathBuf>,
}

impl LearnedTokens for OfCheckpoint {
    fn backbone(
        &self,
        overrides: &BackboneOverrides,
        on_event: OnEvent<'_>,
    ) -> Result<Engine, WorkflowError> {
        let path = self.path.as_deref().unwrap_or(Path::new("the checkpoint"));
        evaluate::open_backbone(path, overrides, &self.checkpoint, on_event)
    }

    fn source(&self, engine: &Engine) -> Result<Box<dyn TokenSource>, WorkflowError> {
        Ok(Box::new(Adapted::of(&self.checkpoint, engine)?))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        self.checkpoint.to_bytes()
    }
}

/// What a checkpoint does to tokens.
#[derive(Debug)]
struct Adapted {
    inserted: Option<(Inserted, Through)>,
    modulation: Option<Adaptation>,
}

impl Adapted {
    /// # Errors
    /// Tensors made for another backbone, or for class tokens, which have no place in an image.
    fn of(checkpoint: &Checkpoint, engine: &Engine) -> Result<Self, WorkflowError> {
        let adaptation = checkpoint.adaptation()?;
        if adaptation.options().use_cls {
            return Err(WorkflowError::Input(
                "the checkpoint was trained on class tokens, which have no place in an image\nhint: train without `use_cls`, or \
                 fit with `scorer` ensemble"
                    .into(),
            ));
        }
        let inserted = match &checkpoint.inserted {
            None => None,
            Some(inserted) => {
                inside::check(engine, inserted)?;
                Some((inserted.clone(), Through::open(engine)?))
            }
        };
        let modulates = inserted
            .as_ref()
            .is_none_or(|(i, _)| i.options.modulate_output);
        Ok(Self {
            inserted,
            modulation: modulates.then_some(adaptation),
        })
    }
}

impl TokenSource for Adapted {
    fn network<'a>(&'a self, engine: &'a Engine) -> Option<Box<dyn Forward + 'a>> {
        let (inserted, through) = self.inserted.as_ref()?;
        Some(Box::new(InsertedEngine {
            engine,
            through,
            inserted,
        }))
    }

    /// Where an output modulation was trained.
    fn modulate(&self, tokens: &mut TokenSet) -> Result<(), WorkflowError> {
        if let Some(modulation) = &self.modulation {
            modulation.check(tokens)?;
            adapted::modulate(tokens, modulation);
        }
        Ok(())
    }
}
