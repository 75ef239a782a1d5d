//! A bundle put to work: pictures in, scores and patch distances out.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flawtune_backbone::preprocess::{Preprocess, RgbImage8};

use super::place::Drawing;
use super::source::{TokenOpener, TokenSource, modulate, network};
use super::{BackboneOptions, Engine, OnEvent, WorkflowError};
use crate::bundle::{Bundle, Finding, Header, TokenScorer};
use crate::features::{Forward as _, ImageTokens, Inputs, TokenSet};

/// Sizes of pictures whose weights for drawing are kept.
const DRAWINGS: usize = 8;

/// A bundle with its backbone, ready to score pictures.
#[derive(Debug)]
pub struct Detector {
    header: Header,
    engine: Engine,
    adapted: Option<Box<dyn TokenSource>>,
    scorer: TokenScorer,
    drawings: Mutex<Vec<Arc<Drawing>>>,
}

impl Detector {
    /// Reads a bundle, finds its backbone and checks that it is the one the bundle was fitted with. `weights` names the
    /// weight file; otherwise the path it was fitted with is tried, then its name.
    ///
    /// # Errors
    /// Anything wrong with the bundle; one whose tokens something learned changes, which [`Self::open_with`] opens; weights
    /// that cannot be found, or others than those of the bundle.
    pub fn open(
        path: &Path,
        weights: Option<&Path>,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        Self::open_with(path, weights, None, on_event)
    }

    /// As [`Self::open`]; `opener` reads what was learned and changes the tokens, where the bundle holds it.
    ///
    /// # Errors
    /// As [`Self::open`], without an opener; what was learned and cannot be read or was made for another backbone.
    pub fn open_with(
        path: &Path,
        weights: Option<&Path>,
        opener: Option<TokenOpener>,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let bundle = Bundle::read(path)?;
        let learned = match (&bundle.adaptation, opener) {
            (None, _) => None,
            (Some(bytes), Some(opener)) => {
                let read = opener(bytes);
                Some(read.map_err(|what| Bundle::unreadable_adaptation(path, &what))?)
            }
            (Some(_), None) => {
                return Err(WorkflowError::Input(format!(
                    "{}: a checkpoint changes its tokens, and nothing was given that reads checkpoints; open it with the \
                     opener of the crate that trained it, or fit again without a checkpoint",
                    path.display()
                )));
            }
        };
        let header = bundle.header;
        let mut options: BackboneOptions = serde_json::from_value(header.backbone.clone())
            .map_err(|e| {
                WorkflowError::Input(format!(
                    "{}: 'backbone' cannot be read ({e}); update flawtune or fit again",
                    path.display()
                ))
            })?;
        match weights {
            Some(weights) => options.weights = Some(weights.to_owned()),
            // a path of the machine it was fitted on may not exist here: then the weights are found by name
            None if options.weights.as_ref().is_some_and(|p| !p.exists()) => options.weights = None,
            None => {}
        }
        let engine = Engine::open(options, on_event)?;
        let differs = |what: &str, then: &str, now: &str, todo: &str| {
            Err(WorkflowError::Input(format!(
                "{}: fitted with {what} {then}, but this is {now}; {todo}",
                path.display()
            )))
        };
        if engine.weights_hash() != header.weights_hash {
            let todo = "give the same weight file with --weights";
            return differs(
                "the weights",
                &header.weights_hash,
                engine.weights_hash(),
                todo,
            );
        }
        let (now, again) = (engine.preprocess().id(), "fit again with this version");
        if now != header.preprocessing {
            return differs("the preprocessing", &header.preprocessing, &now, again);
        }
        if engine.variant() != header.variant {
            return differs("the tokens of", &header.variant, &engine.variant(), again);
        }
        let (height, width) = engine.preprocess().size;
        let (grid, dim) = (engine.grid(height, width), engine.dim());
        if (grid, dim) != (header.grid, header.dim) {
            let text =
                |(rows, columns): (usize, usize), dim| format!("{rows}×{columns} patches of {dim}");
            return differs(
                "tokens of",
                &text(header.grid, header.dim),
                &text(grid, dim),
                again,
            );
        }
        let parts = &header.bank.parts;
        let (warm, scorer) = rayon::join(
            || engine.warm(),
            || {
                TokenScorer::new(
                    path,
                    header.scorer,
                    header.patches,
                    grid,
                    &bundle.bank,
                    parts,
                    bundle.ensemble,
                )
            },
        );
        warm?;
        let mut scorer = scorer?;
        if let (Some(cells), Some(index)) = (bundle.cells, &header.bank.index) {
            scorer = scorer.with_cells(cells, index.probes, Vec::new());
        }
        let adapted = learned.map(|l| l.source(&engine)).transpose()?;
        Ok(Self {
            header,
            engine,
            adapted,
            scorer,
            drawings: Mutex::default(),
        })
    }

    /// What the bundle says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How pictures become pixels.
    pub fn preprocess(&self) -> Preprocess {
        self.engine.preprocess()
    }

    /// Prepares the pictures that `load` hands over for [`Self::score`]; see [`Inputs::load`].
    pub fn prepare<I: Sync, R: Send, E: Send>(
        &self,
        items: &[I],
        load: impl Fn(&I, &mut dyn FnMut(&RgbImage8)) -> Result<R, E> + Sync,
    ) -> (Inputs, Vec<Result<R, E>>) {
        network(self.adapted.as_deref(), &self.engine, |network| {
            Inputs::load(items, network, &self.preprocess(), load)
        })
    }

    /// Score and patch distances of `batch` pictures.
    ///
    /// # Errors
    /// Pictures of another number or size; a forward pass that gives no numbers.
    pub fn score(&self, inputs: &Inputs, batch: usize) -> Result<Vec<Finding>, WorkflowError> {
        if batch == 0 {
            return Ok(Vec::new());
        }
        let (grid, dim) = (self.header.grid, self.header.dim);
        let tokens = network(self.adapted.as_deref(), &self.engine, |network| {
            inputs.tokens(network, batch, self.preprocess().size)
        })?;
        let images = tokens
            .into_iter()
            .map(|t| ImageTokens::owned(t, grid.0 * grid.1, dim))
            .collect();
        let mut tokens = TokenSet { grid, dim, images };
        modulate(self.adapted.as_deref(), &mut tokens)?;
        Ok(self.scorer.score(&tokens)?)
    }

    /// Draws maps of pictures of `size` (height, width).
    pub(super) fn drawing(&self, size: (usize, usize)) -> Result<Arc<Drawing>, WorkflowError> {
        let mut kept = self.drawings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|d| d.size() == size) {
            return Ok(Arc::clone(found));
        }
        let patch = self.engine.config().patch_size;
        let new = Arc::new(Drawing::new(
            &self.preprocess(),
            self.header.grid,
            patch,
            size,
            self.header.map.sigma,
        )?);
        if kept.len() == DRAWINGS {
            kept.remove(0);
        }
        kept.push(Arc::clone(&new));
        Ok(new)
    }
}
