//! A bundle put to work: pictures in, scores and patch distances out.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flawtune_backbone::preprocess::{Preprocess, RgbImage8};

use super::inside::{self, InsertedEngine, Through};
use super::place::Drawing;
use super::{BackboneOptions, Engine, OnEvent, WorkflowError, adapted};
use crate::adapt::inside::Inserted;
use crate::adapt::{Adaptation, Checkpoint};
use crate::bundle::{Bundle, Finding, Header, TokenScorer};
use crate::features::{Forward, ImageTokens, Inputs, TokenSet};

/// Sizes of pictures whose weights for drawing are kept.
const DRAWINGS: usize = 8;

/// What a checkpoint does to tokens.
#[derive(Debug)]
pub(super) struct Adapted {
    inserted: Option<(Inserted, Through)>,
    modulation: Option<Adaptation>,
}

impl Adapted {
    /// # Errors
    /// Tensors made for another backbone, or for class tokens, which have no place in a picture.
    pub(super) fn of(checkpoint: &Checkpoint, engine: &Engine) -> Result<Self, WorkflowError> {
        let adaptation = checkpoint.adaptation()?;
        if adaptation.options().use_cls {
            return Err(WorkflowError::Input(
                "the checkpoint was trained on class tokens, which have no place in a picture; train without --use-cls, or \
                 fit with --scorer ensemble"
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

    /// Calls `with` with the network whose tokens are to be taken.
    pub(super) fn network<T>(
        this: Option<&Self>,
        engine: &Engine,
        with: impl FnOnce(&dyn Forward) -> T,
    ) -> T {
        match this.and_then(|a| a.inserted.as_ref()) {
            Some((inserted, through)) => with(&InsertedEngine {
                engine,
                through,
                inserted,
            }),
            None => with(engine),
        }
    }

    /// Whether tokens of the untouched network are all that is needed from it.
    pub(super) fn leaves_network(this: Option<&Self>) -> bool {
        this.is_none_or(|a| a.inserted.is_none())
    }

    /// Changes the network's tokens where an output modulation was trained.
    pub(super) fn modulate(
        this: Option<&Self>,
        tokens: &mut TokenSet,
    ) -> Result<(), WorkflowError> {
        if let Some(modulation) = this.and_then(|a| a.modulation.as_ref()) {
            modulation.check(tokens)?;
            adapted::modulate(tokens, modulation);
        }
        Ok(())
    }
}

/// A bundle with its backbone, ready to score pictures.
#[derive(Debug)]
pub struct Detector {
    header: Header,
    engine: Engine,
    adapted: Option<Adapted>,
    scorer: TokenScorer,
    drawings: Mutex<Vec<Arc<Drawing>>>,
}

impl Detector {
    /// Reads a bundle, finds its backbone and checks that it is the one the bundle was fitted with. `weights` names the
    /// weight file; otherwise the path it was fitted with is tried, then its name.
    ///
    /// # Errors
    /// Anything wrong with the bundle; weights that cannot be found, or others than those of the bundle.
    pub fn open(
        path: &Path,
        weights: Option<&Path>,
        on_event: OnEvent<'_>,
    ) -> Result<Self, WorkflowError> {
        let bundle = Bundle::read(path)?;
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
        let adapted = bundle
            .adaptation
            .as_ref()
            .map(|c| Adapted::of(c, &engine))
            .transpose()?;
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
        Adapted::network(self.adapted.as_ref(), &self.engine, |network| {
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
        let tokens = Adapted::network(self.adapted.as_ref(), &self.engine, |network| {
            inputs.tokens(network, batch, self.preprocess().size)
        })?;
        let images = tokens
            .into_iter()
            .map(|t| ImageTokens::owned(t, grid.0 * grid.1, dim))
            .collect();
        let mut tokens = TokenSet { grid, dim, images };
        Adapted::modulate(self.adapted.as_ref(), &mut tokens)?;
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
