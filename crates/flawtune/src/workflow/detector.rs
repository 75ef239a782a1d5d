//! The detector: what a `.flaw` file holds, put to work.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flawtune_backbone::preprocess::{Preprocess, RgbImage8};
use rayon::prelude::*;

use super::build::DetectorBuilder;
use super::place::{Drawing, Seen};
use super::predict::{Prediction, Wanted, judge};
use super::set_threshold::{NewThreshold, change};
use super::source::{self, TokenOpener, TokenSource, network};
use super::{BackboneOptions, Engine, OnEvent, WorkflowError};
use crate::bundle::{Bank, Bundle, Finding, Header, Kept, ScorerKind, TokenScorer};
use crate::evaluate::protocol::ImageRef;
use crate::features::{Forward as _, Inputs, TokenSet};
use crate::image_size::ImageSize;
use crate::score::Scorer;
use crate::score::residual::{BlockBanks, ResidualScorer, Spacing, joined};

/// Sizes of images whose weights for drawing are kept.
const DRAWINGS: usize = 8;

/// Backbone, scorer, threshold, calibration and map: everything that turns an image into a verdict.
#[derive(Debug)]
pub struct Detector {
    bundle: Bundle,
    engine: Arc<Engine>,
    adapted: Option<Box<dyn TokenSource>>,
    /// What it looks at: the image at one size or more, the largest first.
    looks: Vec<AtSize>,
    drawings: Mutex<Vec<Arc<Drawing>>>,
}

/// An image at one size, and what scores it there.
#[derive(Debug)]
struct AtSize {
    preprocess: Preprocess,
    grid: (usize, usize),
    scorer: Box<dyn Scorer>,
}

/// A place of an image, and the place of a good image that looks most like it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Alike {
    /// The good image.
    pub good: ImageRef,
    /// Row and column of the patch of the image that was asked for; [`Detector::place_of`] says where it lies.
    pub here: (usize, usize),
    /// Row and column of the patch of the good image.
    pub there: (usize, usize),
}

impl Detector {
    /// Collects what a detector is fitted to, on this backbone.
    pub fn builder(backbone: &crate::Backbone) -> DetectorBuilder {
        DetectorBuilder::new(backbone)
    }

    /// Opens a file that [`Self::save`] or `flawtune fit` wrote. The backbone's weights are looked for where they were when it was
    /// fitted, then by the backbone's name; [`Self::open_with`] takes them from elsewhere.
    ///
    /// # Errors
    /// Anything wrong with the file; weights that cannot be found, or others than it was fitted with; a detector whose tokens
    /// something learned changes, which [`Self::open_with`] opens.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WorkflowError> {
        Self::open_with(path.as_ref(), None, None, &mut |_| {})
    }

    /// As [`Self::open`]. `weights` names the weight file; `opener` reads what was learned and changes the tokens, where the file
    /// holds it.
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
        let header = &bundle.header;
        let mut options: BackboneOptions = serde_json::from_value(header.backbone.clone())
            .map_err(|e| {
                WorkflowError::Input(format!(
                    "{}: 'backbone' cannot be read ({e})\nhint: update flawtune or fit again",
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
            let todo = "give the same weight file with `weights`";
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
        let (grid, dim) = (engine.grid_of(&engine.preprocess()), engine.dim());
        let more: Vec<ImageSize> = header.more_sizes.iter().map(|s| s.image_size).collect();
        if engine.options().more_sizes != more {
            let text = |sizes: &[ImageSize]| format!("[{}]", ImageSize::join(sizes, ", "));
            let sizes = text(&engine.options().more_sizes);
            return differs("the sizes", &text(&more), &sizes, again);
        }
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
        let (warm, looks) = rayon::join(|| engine.warm(), || looks(path, &bundle, &engine));
        warm?;
        let looks = looks?;
        let adapted = learned.map(|l| l.source(&engine)).transpose()?;
        Ok(Self::of(bundle, Arc::new(engine), adapted, looks))
    }

    /// A detector that was just fitted: without a file.
    pub(super) fn fitted(
        bundle: Bundle,
        engine: Arc<Engine>,
        adapted: Option<Box<dyn TokenSource>>,
    ) -> Result<Self, WorkflowError> {
        let looks = looks(Path::new("the detector"), &bundle, &engine)?;
        Ok(Self::of(bundle, engine, adapted, looks))
    }

    fn of(
        bundle: Bundle,
        engine: Arc<Engine>,
        adapted: Option<Box<dyn TokenSource>>,
        looks: Vec<AtSize>,
    ) -> Self {
        Self {
            bundle,
            engine,
            adapted,
            looks,
            drawings: Mutex::default(),
        }
    }

    /// Writes the detector as one file, whole or not at all: everything but the backbone's weights, which it names with their hash.
    ///
    /// # Errors
    /// A file that cannot be written; the file that it was opened from is gone or damaged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), WorkflowError> {
        // what is large in it is shared
        Ok(self.bundle.clone().write(path.as_ref())?)
    }

    /// What it keeps to learn more; none where it cannot.
    pub(super) fn kept(&self) -> Result<Option<Arc<Kept>>, WorkflowError> {
        Ok(self.bundle.kept()?)
    }

    /// Looks at one image: verdict, places and map. It is what `flawtune predict` says of the image, to the last bit.
    ///
    /// # Errors
    /// A forward pass that gives no numbers.
    pub fn predict(&self, image: &RgbImage8) -> Result<Prediction, WorkflowError> {
        let name = |_| "the image".to_owned();
        let found = self.judged(&[image], name, Wanted::ALL)?.pop();
        found
            .ok_or_else(|| WorkflowError::Input("the backbone gave no tokens for the image".into()))
    }

    /// Looks at several images in one forward pass, which is faster than one after the other and says the same to the last bit. Without
    /// `maps` only those of flaws are drawn, for their regions, and none is kept.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn predict_all(
        &self,
        images: &[RgbImage8],
        maps: bool,
    ) -> Result<Vec<Prediction>, WorkflowError> {
        let wanted = Wanted {
            map: maps,
            ..Wanted::ALL
        };
        self.judged(images, |position| format!("image {position}"), wanted)
    }

    /// What is `wanted` of images, which errors call by their `name`.
    fn judged<I: Borrow<RgbImage8> + Sync>(
        &self,
        images: &[I],
        name: impl Fn(usize) -> String,
        wanted: Wanted,
    ) -> Result<Vec<Prediction>, WorkflowError> {
        let size = |image: &I| (image.borrow().height(), image.borrow().width());
        let found = self.found_in(images, name)?;
        images
            .par_iter()
            .zip(found)
            .map(|(image, found)| judge(self, wanted, size(image), &found))
            .collect()
    }

    /// What it finds in images before anything is judged or drawn, in one forward pass; [`Self::verdict`] says what comes of it.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn find(&self, images: &[RgbImage8]) -> Result<Vec<Finding>, WorkflowError> {
        self.found_in(images, |position| format!("image {position}"))
    }

    /// The verdict on an image of `size` (height, width) in which this was found: what [`Self::predict`] says. The map is drawn where
    /// one of so many pixels at most is wanted.
    ///
    /// # Errors
    /// Scores of another grid.
    pub fn verdict(
        &self,
        size: (usize, usize),
        found: &Finding,
        map: Option<usize>,
    ) -> Result<Prediction, WorkflowError> {
        let wanted = Wanted {
            map: map.is_some(),
            max_pixels: map,
            ..Wanted::ALL
        };
        judge(self, wanted, size, found)
    }

    /// What the oddest place of an image was compared with: the good image that looks most like it there. `None` where the detector
    /// does not tell: without whole banks of several blocks, or where nothing was found.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn alike(&self, image: &RgbImage8) -> Result<Option<Alike>, WorkflowError> {
        let load = |image: &&RgbImage8, put: &mut dyn FnMut(&RgbImage8)| {
            put(image);
            Ok::<(), WorkflowError>(())
        };
        let (inputs, _) = self.prepare(&[image], load);
        let found = self.score(&inputs, 1)?;
        let (look, inputs) = (&self.looks[0], &inputs[0]);
        let adapted = self.adapted.as_deref();
        let tokens = source::tokens(adapted, &self.engine, &look.preprocess, (inputs, 1))?;
        let distances = found.first().map(|found| found.distances.as_slice());
        let oddest = distances.unwrap_or_default().iter().enumerate();
        let oddest = oddest.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        let Some((patch, _)) = oddest.filter(|(_, distance)| **distance > 0.0) else {
            return Ok(None);
        };
        let patches = look.grid.0 * look.grid.1;
        let header = self.header();
        let row = look.scorer.nearest(&tokens, patch)?;
        let whole = header.bank.rows == patches * header.support.len();
        let Some(row) = row.filter(|_| whole) else {
            return Ok(None);
        };
        let at = |patch: usize| (patch / look.grid.1, patch % look.grid.1);
        Ok(header.support.get(row / patches).map(|good| Alike {
            good: good.clone(),
            here: at(patch),
            there: at(row % patches),
        }))
    }

    /// Where a patch (row, column) of the grid lies on an image of `size` (height, width): left, top, width and height in its pixels.
    pub fn place_of(&self, patch: (usize, usize), size: (usize, usize)) -> (f64, f64, f64, f64) {
        let grid = self.header().grid;
        let side = self.engine.config().patch_size;
        Seen::of(&self.preprocess(), grid, side, size).patch(grid, patch)
    }

    /// What is found in images, which errors call by their `name`.
    fn found_in<I: Borrow<RgbImage8> + Sync>(
        &self,
        images: &[I],
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<Finding>, WorkflowError> {
        for (position, image) in images.iter().enumerate() {
            let (name, image) = (name(position), image.borrow());
            self.preprocess()
                .check_size(Path::new(&name), (image.height(), image.width()))?;
        }
        let load = |image: &I, put: &mut dyn FnMut(&RgbImage8)| {
            put(image.borrow());
            Ok::<(), WorkflowError>(())
        };
        let (inputs, _) = self.prepare(images, load);
        self.score(&inputs, images.len())
    }

    /// The same detector with another threshold; nothing is fitted again, and its file stays as it is.
    ///
    /// # Errors
    /// A share of defects where it knows none; a value that is not finite.
    pub fn with_threshold(mut self, new: NewThreshold) -> Result<Self, WorkflowError> {
        change(&mut self.bundle.header, new, Path::new("the detector"))?;
        Ok(self)
    }

    /// What its file says.
    pub fn header(&self) -> &Header {
        &self.bundle.header
    }

    /// Defects that it learned.
    pub fn defects(&self) -> usize {
        let head = self
            .bundle
            .residual
            .as_ref()
            .and_then(|model| model.head.as_ref());
        head.map_or(0, |head| head.shots)
    }

    /// Types of flaws that it can name.
    pub fn kinds(&self) -> Vec<&str> {
        let model = self.bundle.residual.as_ref();
        let kinds = model.and_then(|model| model.kinds.as_ref());
        let kinds = kinds.map(|kinds| kinds.kinds.iter());
        kinds
            .into_iter()
            .flatten()
            .map(|kind| kind.name.as_str())
            .collect()
    }

    /// The backbone.
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The bank of each size that it looks at.
    pub(super) fn banks(&self) -> Vec<&Bank> {
        let more = self.bundle.more.iter().map(|(bank, _)| bank);
        std::iter::once(&self.bundle.bank).chain(more).collect()
    }

    /// How far the patches of each of these banks lie from each other, block by block; empty where it is not known.
    pub(super) fn spacings(&self) -> Vec<&[Spacing]> {
        let more = self.bundle.more.iter().map(|(_, model)| model);
        let models = self.bundle.residual.iter().chain(more);
        models.map(|model| &model.spacings[..]).collect()
    }

    /// The lowest and the highest number that its maps tell apart.
    pub(super) fn span(&self) -> (f32, f32) {
        self.looks[0].scorer.span()
    }

    /// How images become pixels.
    pub fn preprocess(&self) -> Preprocess {
        self.engine.preprocess()
    }

    /// Prepares the images that `load` hands over for [`Self::score`], at every size that it looks at; see [`Inputs::load_at`].
    pub fn prepare<I: Sync, R: Send, E: Send>(
        &self,
        items: &[I],
        load: impl Fn(&I, &mut dyn FnMut(&RgbImage8)) -> Result<R, E> + Sync,
    ) -> (Vec<Inputs>, Vec<Result<R, E>>) {
        let ways: Vec<Preprocess> = self.looks.iter().map(|look| look.preprocess).collect();
        network(self.adapted.as_deref(), &self.engine, |network| {
            Inputs::load_at(items, network, &ways, load)
        })
    }

    /// Score and patch distances of `batch` images, which [`Self::prepare`] prepared.
    ///
    /// # Errors
    /// Images of another number or size; a forward pass that gives no numbers.
    pub fn score(&self, inputs: &[Inputs], batch: usize) -> Result<Vec<Finding>, WorkflowError> {
        if batch == 0 {
            return Ok(Vec::new());
        }
        let adapted = self.adapted.as_deref();
        let one = |(look, inputs): (&AtSize, &Inputs)| {
            source::tokens(adapted, &self.engine, &look.preprocess, (inputs, batch))
        };
        let tokens: Vec<TokenSet> = self
            .looks
            .iter()
            .zip(inputs)
            .map(one)
            .collect::<Result<_, WorkflowError>>()?;
        self.found(&tokens)
    }

    /// What it says of images by their tokens, at each size that it looks at.
    pub(super) fn found(&self, tokens: &[TokenSet]) -> Result<Vec<Finding>, WorkflowError> {
        let one =
            |(look, tokens): (&AtSize, &TokenSet)| Ok((look.grid, look.scorer.score(tokens)?));
        let found = self.looks.iter().zip(tokens).map(one);
        Ok(joined(found.collect::<Result<_, WorkflowError>>()?))
    }

    /// Draws maps of size `drawn` (height, width) of images of size `of`.
    pub(super) fn drawing(
        &self,
        drawn: (usize, usize),
        of: (usize, usize),
    ) -> Result<Arc<Drawing>, WorkflowError> {
        let sizes = (of, drawn);
        let mut kept = self.drawings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|d| d.sizes() == sizes) {
            return Ok(Arc::clone(found));
        }
        let patch = self.engine.config().patch_size;
        let new = Arc::new(Drawing::new(
            &self.preprocess(),
            self.bundle.header.grid,
            patch,
            sizes,
            self.bundle.header.map.sigma,
        )?);
        if kept.len() == DRAWINGS {
            kept.remove(0);
        }
        kept.push(Arc::clone(&new));
        Ok(new)
    }
}

/// What a bundle scores by, at each size.
fn looks(path: &Path, bundle: &Bundle, engine: &Engine) -> Result<Vec<AtSize>, WorkflowError> {
    let header = &bundle.header;
    let at = |size: ImageSize, scorer: Box<dyn Scorer>| {
        let preprocess = engine.preprocess_at(size);
        AtSize {
            preprocess,
            grid: engine.grid_of(&preprocess),
            scorer,
        }
    };
    let mut looks = vec![at(
        engine.options().image_size,
        scorer_of(path, bundle, header.grid)?,
    )];
    for (size, (bank, model)) in header.more_sizes.iter().zip(&bundle.more) {
        bank.check(path)?;
        let banks = BlockBanks::new(bank, header.scorer.blocks(), &[size.rows]);
        let scorer = ResidualScorer::new(banks, model.clone(), size.grid);
        looks.push(at(size.image_size, Box::new(scorer)));
    }
    Ok(looks)
}

/// What a bundle scores by, for images of a `grid` of patches.
fn scorer_of(
    path: &Path,
    bundle: &Bundle,
    grid: (usize, usize),
) -> Result<Box<dyn Scorer>, WorkflowError> {
    let header = &bundle.header;
    if let (ScorerKind::Residual { blocks }, Some(model)) = (header.scorer, &bundle.residual) {
        bundle.bank.check(path)?;
        let banks = BlockBanks::new(&bundle.bank, blocks, &[header.bank.rows]);
        return Ok(Box::new(ResidualScorer::new(banks, model.clone(), grid)));
    }
    let mut scorer = TokenScorer::new(
        path,
        header.scorer,
        header.patches,
        grid,
        &bundle.bank,
        &header.bank.parts,
        bundle.ensemble.clone(),
    )?;
    if let (Some(cells), Some(index)) = (&bundle.cells, &header.bank.index) {
        scorer = scorer.with_cells(cells.clone(), index.probes, Vec::new());
    }
    Ok(Box::new(scorer))
}
