//! Fit a bundle: bank, threshold and scales from train/good, and from what was learned before where there is anything.

mod bank;
pub(super) mod finish;
mod images;
mod index;
mod oddest;
mod options;
mod plain;
pub(super) mod residual;
mod search;
mod shape;
mod sizes;
mod twins;

use std::path::PathBuf;
use std::sync::Arc;

use images::Images;
pub use index::{EXACT_UP_TO, IndexChoice};
pub use oddest::OddImage;
pub use options::FitOptions;
use shape::{Shape, tell_region};

use super::source::Learned;
use super::{
    BackboneOverrides, Category, CategoryOptions, Detector, Engine, Event, OnEvent, WorkflowError,
    default_layers, folder_of, sorted, writable_or,
};
use crate::bundle::{
    Bank, Cells, Finding, Header, IndexInfo, Kept, MOST_NEIGHBOURHOOD, PatchOptions, ScorerKind,
    SearchRecord,
};
use crate::dataset::{Sample, Source, Subset};
use crate::evaluate::protocol::{Split, SplitOptions};
use crate::features::{Forward as _, TokenSet, Turn};
use crate::score::heads::Ensemble;
use crate::score::residual::{ResidualModel, default_blocks};

/// Which scorer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ScorerChoice {
    /// Unlikeness to the nearest good images, as the original recipe has it
    ImagePair,
    /// Distance of the oddest patches to the nearest patch of any good image
    PatchBank,
    /// The ensemble of the checkpoint
    Ensemble,
    /// Distances of several blocks to whole banks, and what known defects teach about them
    Residual,
}

/// Whether the background is cut away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum MaskChoice {
    /// If an object is found on nine of ten good images
    Auto,
    /// Wherever an object is found
    On,
    /// Never
    Off,
}

/// What the threshold is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ThresholdChoice {
    /// Good images alone, for --max-false-alarm
    Good,
    /// Good images and defects that training has not seen: the largest F1
    #[cfg_attr(feature = "clap", value(name = "f1"))]
    F1Max,
    /// The same images: as many defects as --max-false-alarm allows
    Recall,
}

/// What to fit.
#[derive(Debug, Clone)]
pub struct FitRequest {
    /// The images.
    pub data: CategoryOptions,
    /// The backbone; it must agree with the one of what was learned.
    pub backbone: BackboneOverrides,
    /// The bundle to write.
    pub output: PathBuf,
    /// What it may choose.
    pub options: FitOptions,
}

impl FitRequest {
    /// The defaults, for these images; written to `output`.
    pub fn new(data: CategoryOptions, output: impl Into<PathBuf>) -> Self {
        Self {
            data: CategoryOptions {
                needs_test: false,
                ..data
            },
            backbone: BackboneOverrides::default(),
            output: output.into(),
            options: FitOptions::default(),
        }
    }

    /// Checks what can be checked before anything is read; makes the output's folder.
    ///
    /// # Errors
    /// An output that cannot be written, an aggregate that has no meaning.
    pub fn check(&self) -> Result<(), WorkflowError> {
        if self.output.is_dir() {
            return Err(WorkflowError::Input(format!(
                "{}: is a folder\nhint: name a file in it with `output`",
                self.output.display()
            )));
        }
        let folder = folder_of(&self.output);
        writable_or(folder, "choose a folder that can be written with `output`")?;
        Ok(self.options.aggregate.check()?)
    }
}

/// A bundle that was written.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// What it says.
    pub header: Header,
    /// Its size in bytes.
    pub bytes: u64,
    /// The oddest good images, the oddest first, each judged without itself.
    pub oddest: Vec<OddImage>,
    /// The PNG that shows them; none where there are none.
    pub oddest_file: Option<PathBuf>,
}

/// What every scorer is fitted to.
struct Job<'a> {
    request: &'a FitRequest,
    choice: ScorerChoice,
    given: Option<&'a Learned>,
    images: Images<'a>,
    split: &'a Split,
    grid: (usize, usize),
    /// Positions of the good images that form the bank.
    support: Vec<usize>,
    /// Positions of the others.
    others: Vec<usize>,
    /// Tokens of the support.
    tokens: TokenSet,
}

impl Job<'_> {
    /// Positions of the defects to learn from.
    fn shots(&self) -> &[usize] {
        &self.split.shots
    }
}

/// A scorer that was fitted, and what it says of images that took no part in their own score.
struct Scored {
    kind: ScorerKind,
    patches: PatchOptions,
    bank: Bank,
    /// Patches of each support image, where images are compared with images; empty otherwise.
    parts: Vec<usize>,
    cells: Option<Cells>,
    index: Option<IndexInfo>,
    ensemble: Option<Ensemble>,
    residual: Option<ResidualModel>,
    /// What is kept to learn more.
    kept: Option<Kept>,
    /// Grid, bank and model of each further image size.
    more: Vec<((usize, usize), Bank, ResidualModel)>,
    /// Positions of good images.
    good_at: Vec<usize>,
    /// What was found of each.
    good: Vec<Finding>,
    /// Scores of defects.
    defects: Vec<f64>,
}

/// Fits a bundle and writes it, whole or not at all.
///
/// The threshold comes from good images that took no part in their own score: those outside of the support if there
/// are at least as many as in it, otherwise all, those of the support each without itself.
///
/// # Errors
/// Anything wrong with the data or the backbone; options that do not fit together; a bank larger than `max_memory`.
pub fn fit(request: &FitRequest, on_event: OnEvent<'_>) -> Result<Fitted, WorkflowError> {
    fit_given(request, None, on_event)
}

/// As [`fit`], with the split, the ensemble and the changed tokens of what was learned before.
///
/// # Errors
/// As [`fit`]; what was learned from other images or on another backbone.
pub fn fit_learned(
    request: &FitRequest,
    learned: &Learned,
    on_event: OnEvent<'_>,
) -> Result<Fitted, WorkflowError> {
    fit_given(request, Some(learned), on_event)
}

/// Fits and writes.
fn fit_given(
    request: &FitRequest,
    given: Option<&Learned>,
    on_event: OnEvent<'_>,
) -> Result<Fitted, WorkflowError> {
    request.check()?;
    let (detector, oddest) = fitted(request, given, None, on_event)?;
    detector.save(&request.output)?;
    on_event(Event::Wrote(&request.output));
    let mut oddest_file = None;
    if !oddest.is_empty() {
        let file = oddest::file_beside(&request.output);
        oddest::write(&oddest, &detector.preprocess(), &file)?;
        on_event(Event::Wrote(&file));
        oddest_file = Some(file);
    }
    let bytes = std::fs::metadata(&request.output).map_or(0, |m| m.len());
    Ok(Fitted {
        header: detector.header().clone(),
        bytes,
        oddest,
        oddest_file,
    })
}

/// Fits a detector and keeps it in memory; nothing is written.
///
/// # Errors
/// As [`fit`].
pub fn fit_in_memory(
    request: &FitRequest,
    on_event: OnEvent<'_>,
) -> Result<Detector, WorkflowError> {
    request.options.aggregate.check()?;
    Ok(fitted(request, None, None, on_event)?.0)
}

/// Fits; at the sizes that a search chose, where there was one already.
fn fitted(
    request: &FitRequest,
    given: Option<&Learned>,
    searched: Option<SearchRecord>,
    on_event: OnEvent<'_>,
) -> Result<(Detector, Vec<OddImage>), WorkflowError> {
    let choice = scorer(request, given)?;
    let mut category = Category::open(&request.data, on_event)?;
    if choice == ScorerChoice::Residual {
        learn_from_all(&mut category, &request.data.source);
    }
    let split = category.split(&split_options(request, given, choice, &category))?;
    if let Some(given) = given.filter(|g| g.manifest.hash != split.manifest.hash) {
        return Err(WorkflowError::Input(format!(
            "{}: the images of {} are not those it was trained with\nhint: train it again",
            given.path.display(),
            given.manifest.category
        )));
    }
    let normals = sorted(split.train_normals.iter().chain(&split.holdout_normals));
    on_event(Event::Split(&split.manifest));
    let support = bank::draw_support(&normals, request)?;
    let shape = Shape {
        category: &category,
        normals: &normals,
        shots: &split.shots,
        support: support.len(),
    };
    let mut engine = open_engine(request, given, choice, &shape, on_event)?;
    if let Some(searched) = &searched {
        engine = engine.with_sizes(&searched.chosen)?;
    }
    tell_region(&shape, &engine, on_event)?;
    let applied = given.filter(|g| choice != ScorerChoice::Ensemble && !g.falls_back);
    let adapted = applied.map(|g| g.tokens.source(&engine)).transpose()?;

    let (grid, dim) = (engine.grid_of(&engine.preprocess()), engine.dim());
    let sizes = engine.sizes().into_iter();
    let patches: usize = sizes.map(|size| engine.patches_at(size)).sum();
    let directions = if request.options.rotations {
        Turn::all().count()
    } else {
        1
    };
    bank::state_memory(
        request,
        choice,
        support.len() * patches * directions,
        dim,
        on_event,
    )?;
    let images = Images {
        category: &category,
        engine: &engine,
        adapted: adapted.as_deref(),
        preprocess: engine.preprocess(),
    };
    let (support, tokens) = images.tokens(&support, on_event)?;
    let others: Vec<usize> = normals
        .iter()
        .filter(|n| support.binary_search(n).is_err())
        .copied()
        .collect();

    let job = Job {
        request,
        choice,
        given,
        images,
        split: &split,
        grid,
        support,
        others,
        tokens,
    };
    on_event(Event::PartBegins("scoring"));
    let mut recorded = searched;
    let (scored, searched) = match choice {
        ScorerChoice::Residual => residual::fit(&job, recorded.is_none(), on_event)?,
        ScorerChoice::ImagePair | ScorerChoice::PatchBank | ScorerChoice::Ensemble => {
            (plain::fit(&job, on_event)?, None)
        }
    };
    if let Some(searched) = searched {
        search::tell(&searched, on_event);
        if searched.chosen != engine.sizes() {
            drop((job, scored));
            on_event(Event::PartEnds("scoring"));
            return fitted(request, given, Some(searched), on_event);
        }
        recorded = Some(searched);
    }
    let oddest = oddest::oddest(&category, &scored);
    on_event(Event::Oddest(&oddest));
    let mut bundle = finish::bundle(&job, scored, applied, on_event)?;
    bundle.header.search = recorded;
    drop(job);
    on_event(Event::PartEnds("scoring"));
    Ok((Detector::fitted(bundle, Arc::new(engine), adapted)?, oddest))
}

fn scorer(request: &FitRequest, given: Option<&Learned>) -> Result<ScorerChoice, WorkflowError> {
    let has_ensemble = given.is_some_and(|g| g.ensemble.is_some());
    let choice = request.options.scorer.unwrap_or(if has_ensemble {
        ScorerChoice::Ensemble
    } else if given.is_some() || !residual::of_patch_bank(request).is_empty() {
        ScorerChoice::PatchBank
    } else {
        ScorerChoice::Residual
    });
    if choice == ScorerChoice::Residual {
        residual::check(request)?;
    } else if given.is_none() && request.options.shots.is_some_and(|shots| shots > 0) {
        return Err(WorkflowError::Input(
            "only the scorer residual learns from defects while it is fitted\nhint: take it, or train first and fit with the \
             checkpoint"
                .into(),
        ));
    }
    let of_residual = [
        (
            request.backbone.image_size.len() > 1,
            "looks at several image sizes\nhint: name one",
        ),
        (
            request.options.budget.is_some(),
            "chooses its image sizes by a time an image may take\nhint: name the image size instead",
        ),
        (
            request.options.search.is_some(),
            "searches for image sizes\nhint: omit `search`",
        ),
    ];
    let asked = of_residual.iter().find(|(asked, _)| *asked);
    if let Some((_, what)) = asked.filter(|_| choice != ScorerChoice::Residual) {
        return Err(WorkflowError::Input(format!(
            "only the scorer residual {what}"
        )));
    }
    if choice == ScorerChoice::Ensemble && !has_ensemble {
        return Err(WorkflowError::Input(
            "`scorer` ensemble needs a checkpoint that holds one\nhint: train without `no_ensemble` and name it with `checkpoint`"
                .into(),
        ));
    }
    if choice == ScorerChoice::ImagePair && request.options.coreset.is_some() {
        return Err(WorkflowError::Input(
            "`coreset` thins the patch bank; image pairs compare whole images\nhint: omit it, or use `scorer` patch-bank"
                .into(),
        ));
    }
    if request.options.rotations && choice != ScorerChoice::PatchBank {
        return Err(WorkflowError::Input(
            "`augment` rotations turns the support of the patch bank\nhint: omit it, or use `scorer` patch-bank".into(),
        ));
    }
    check_images(request, given)?;
    index::check(request, choice)?;
    if !PatchOptions::has_middle(request.options.neighbourhood) {
        return Err(WorkflowError::Input(format!(
            "`neighbourhood` {} is not an odd number from 1 to {MOST_NEIGHBOURHOOD}: a patch is in the middle of its own",
            request.options.neighbourhood
        )));
    }
    if request.options.neighbourhood > 1 && choice == ScorerChoice::Ensemble {
        return Err(WorkflowError::Input(
            "`neighbourhood`: the ensemble was fitted to single patches\nhint: omit it, or use `scorer` patch-bank".into(),
        ));
    }
    Ok(choice)
}

/// Refuses choices of images that a checkpoint has made already.
fn check_images(request: &FitRequest, given: Option<&Learned>) -> Result<(), WorkflowError> {
    let (roi, exclude) = (request.backbone.roi.is_some(), &request.data.exclude);
    let what = match given {
        Some(_) if roi => "`roi`: the checkpoint was trained with whole images",
        Some(_) if !exclude.is_empty() => {
            "`exclude`: the checkpoint was trained with all good images"
        }
        _ => return Ok(()),
    };
    Err(WorkflowError::Input(format!(
        "{what}\nhint: fit without a checkpoint"
    )))
}

/// Of folders that the user names as good and defective nothing is kept back for a test.
fn learn_from_all(category: &mut Category, source: &Source) {
    let Source::Folders(folders) = source else {
        return;
    };
    for sample in &mut category.dataset.samples {
        if sample.defect_type.is_some() || folders.test_good.is_none() {
            sample.subset = Subset::Train;
        }
    }
}

fn split_options(
    request: &FitRequest,
    given: Option<&Learned>,
    choice: ScorerChoice,
    category: &Category,
) -> SplitOptions {
    let set_apart = |sample: &&Sample| sample.is_defect() && sample.subset == Subset::Train;
    let shots = request.options.shots.unwrap_or_else(|| match choice {
        ScorerChoice::Residual => category.dataset.samples.iter().filter(set_apart).count(),
        _ => 0,
    });
    if let Some(given) = given {
        return given.manifest.options();
    }
    let good = |s: &&Sample| !s.is_defect() && s.subset == Subset::Train;
    let few = category.dataset.samples.iter().filter(good).count() < 3;
    let options = SplitOptions::held_out(request.options.seed, shots);
    SplitOptions {
        // nothing is chosen on a hold-out here, and of two images none can be spared
        holdout_fraction: if few { 0.0 } else { options.holdout_fraction },
        ..options
    }
}

fn open_engine(
    request: &FitRequest,
    given: Option<&Learned>,
    choice: ScorerChoice,
    shape: &Shape<'_>,
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    let Some(given) = given else {
        let engine = Engine::open_unshaped(shape::options(request)?, on_event)?;
        if choice == ScorerChoice::Residual {
            let layers = match &request.backbone.layers {
                Some(layers) => layers.clone(),
                None => default_blocks(engine.config().depth)
                    .into_iter()
                    .filter_map(|block| i32::try_from(block).ok())
                    .collect(),
            };
            let engine = engine.with_layers_apart(&layers)?;
            return sizes::with_sizes(request, engine, shape, on_event);
        }
        let engine = shape.given_to(engine, on_event)?;
        if request.backbone.layers.is_some() {
            return Ok(engine);
        }
        let config = engine.config();
        let layers = default_layers(&config.name, config.depth);
        on_event(Event::Note(format!(
            "tokens of block {} of 0 to {}; `layers` chooses others",
            layers[0],
            config.depth - 1
        )));
        return engine.with_layers(&layers);
    };
    let engine = given.tokens.backbone(&request.backbone, on_event)?;
    match &given.ensemble {
        Some(record) if choice == ScorerChoice::Ensemble => {
            let layers = &record.layers;
            let engine = engine.with_layers(layers)?;
            on_event(Event::Note(format!(
                "the ensemble looks at the untouched tokens of block {layers:?}; prompts are not used"
            )));
            Ok(engine)
        }
        _ => Ok(engine),
    }
}
