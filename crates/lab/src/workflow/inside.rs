//! Training and scoring through the backbone with tensors inside it, for a category.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use flawtune_backbone::preprocess::Preprocess;
use flawtune_backbone::vjp::{Embedded, FrozenVit};
use rayon::prelude::*;

use super::{Category, Engine, OnEvent, WorkflowError};
use crate::adapt::inside::{
    DEFAULT_MEMORY, Embed, Inserted, InsideData, InsideModel, InsideOptions, train_inside,
};
use crate::adapt::{
    AdaptError, Adaptation, EpochReport, Outcome, TrainData, TrainOptions, TrainState,
};
use flawtune::features::{Forward, ForwardError, TokenSet, Turn};

/// The images of a run, decoded and embedded when they are asked for.
struct Pictures<'a> {
    engine: &'a Engine,
    preprocess: Preprocess,
    paths: Vec<PathBuf>,
}

impl Embed for Pictures<'_> {
    fn grid(&self) -> (usize, usize) {
        let (height, width) = self.preprocess.size;
        self.engine.grid(height, width)
    }

    fn embed(&self, images: &[usize]) -> Result<Vec<f32>, ForwardError> {
        let (height, width) = self.preprocess.size;
        let pixels: Vec<Vec<f32>> = images
            .par_iter()
            .map(|&i| self.preprocess.load(&self.paths[i]).map(|p| p.data))
            .collect::<Result<_, _>>()?;
        Ok(self
            .engine
            .embed(&pixels.concat(), images.len(), height, width)?
            .0)
    }
}

/// A backbone laid out for training through it, for the images of a category.
#[derive(Debug)]
pub(super) struct Through {
    pub(super) frozen: FrozenVit,
    /// The block that tokens are taken from.
    pub(super) layer: usize,
}

impl Through {
    /// # Errors
    /// Several layers; weights that cannot be read any more.
    pub(super) fn open(engine: &Engine) -> Result<Self, WorkflowError> {
        Ok(Self {
            layer: engine.single_layer()?,
            frozen: engine.frozen()?,
        })
    }

    /// Trains on the images at `normals` and `shots` of the category and on `views`, which count as shots after the
    /// last; `data` says which of them.
    pub(super) fn train(
        &self,
        inside: &InsideOptions,
        adaptation: &mut Adaptation,
        (engine, category): (&Engine, &Category),
        (normals, shots, views): (&[usize], &[usize], &[PathBuf]),
        data: &TrainData<'_>,
        options: &TrainOptions,
        resume: Option<TrainState>,
        cancel: &AtomicBool,
        on_epoch: &mut dyn FnMut(&EpochReport),
    ) -> Result<(Outcome, Inserted), AdaptError> {
        let path = |&i: &usize| category.dataset.samples[i].path.clone();
        let pictures = Pictures {
            engine,
            preprocess: engine.preprocess(),
            paths: normals
                .iter()
                .chain(shots)
                .map(path)
                .chain(views.iter().cloned())
                .collect(),
        };
        let data = InsideData {
            images: &pictures,
            normals: normals.len(),
            normal_indices: data.normal_indices,
            defects: shots.len() + views.len(),
            defect_indices: data.defect_indices,
            masks: data.masks,
            memory: DEFAULT_MEMORY,
        };
        let model = InsideModel {
            backbone: &self.frozen,
            layer: self.layer,
        };
        train_inside(
            model, inside, adaptation, data, options, resume, cancel, on_epoch,
        )
    }
}

/// What is trained, by tensor: name and count.
pub(super) fn trainable(
    inside: &InsideOptions,
    engine: &Engine,
    adaptation: &Adaptation,
) -> Vec<(String, usize)> {
    let layout = inside.spec(engine.config()).layout();
    let mut list: Vec<(String, usize)> = layout
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shape.iter().product()))
        .collect();
    if inside.modulate_output {
        list.extend(adaptation.trainable());
    }
    list
}

/// A backbone with tensors inside it, as extraction sees it.
#[derive(Debug)]
pub(super) struct InsertedEngine<'a> {
    pub(super) engine: &'a Engine,
    pub(super) through: &'a Through,
    pub(super) inserted: &'a Inserted,
}

impl Forward for InsertedEngine<'_> {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn weights_hash(&self) -> &str {
        self.engine.weights_hash()
    }

    fn variant(&self) -> String {
        format!(
            "{} insertions {}",
            self.engine.variant(),
            self.inserted.hash().to_hex()
        )
    }

    fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        self.engine.grid(height, width)
    }

    fn dim(&self) -> usize {
        self.engine.dim()
    }

    fn forward(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        let (tokens, grid) = self.engine.embed(pixels, batch, height, width)?;
        let images = Embedded {
            tokens: &tokens,
            grid,
        };
        let found =
            self.through
                .frozen
                .forward(images, &self.inserted.tensors, &[self.through.layer])?;
        Ok(found.concat())
    }
}

/// Whether tensors were made for this backbone.
///
/// # Errors
/// They were not.
pub(super) fn check(engine: &Engine, inserted: &Inserted) -> Result<(), WorkflowError> {
    let (spec, config) = (inserted.tensors.spec(), engine.config());
    if (spec.dim, spec.depth) != (config.dim, config.depth) {
        return Err(WorkflowError::Input(format!(
            "the checkpoint's tensors were made for a backbone of {} blocks of {} numbers a token, but {} has {} of {}\nhint: name the backbone it was trained on",
            spec.depth, spec.dim, config.name, config.depth, config.dim
        )));
    }
    Ok(())
}

/// Tokens of images with `inserted` in the backbone, a set for each list. They are not kept in the cache: every
/// checkpoint has its own, as large as those of the untouched backbone.
///
/// # Errors
/// Tensors made for another backbone; as [`Category::tokens`].
pub(super) fn tokens(
    category: &Category,
    engine: &Engine,
    inserted: &Inserted,
    lists: &[&[usize]],
    on_event: OnEvent<'_>,
) -> Result<Vec<TokenSet>, WorkflowError> {
    check(engine, inserted)?;
    let through = Through::open(engine)?;
    let adapted = InsertedEngine {
        engine,
        through: &through,
        inserted,
    };
    lists
        .iter()
        .map(|list| {
            Ok(category
                .tokens_of(
                    &adapted,
                    engine.preprocess(),
                    None,
                    list,
                    Turn::default(),
                    on_event,
                )?
                .1)
        })
        .collect()
}
