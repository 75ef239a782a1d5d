//! Fit a bundle: bank, threshold and scales from train/good, and from what was learned before where there is anything.

mod bank;
mod index;

use std::path::PathBuf;

use flawtune_backbone::preprocess::{DecodeOptions, decode, read_file};
use rayon::prelude::*;

use bank::View;
pub use index::{EXACT_UP_TO, IndexChoice};

use super::place::{Drawing, Seen};
use super::source::{self, Learned, TokenSource};
use super::{
    BackboneOptions, BackboneOverrides, Category, CategoryOptions, Engine, Event, OnEvent,
    WorkflowError, default_layers, folder_of, sorted, writable_or,
};
use crate::bundle::{
    BankInfo, Bundle, CheckpointRef, Finding, Header, MOST_NEIGHBOURHOOD, MapScale, PatchOptions,
    Precision, Scorer, TokenScorer,
};
use crate::evaluate::protocol::{ImageRef, Protocol, SplitOptions};
use crate::features::{Forward as _, TokenSet, Turn};
use crate::score::Aggregate;
use crate::score::heads::{
    BANK_SHARE, Ensemble, EnsembleOptions, EnsembleRecord, Evidence, NORMALS_NEEDED,
};
use crate::score::map::DEFAULT_SIGMA;
use crate::score::threshold::{self, Calibration, Method, Threshold};

/// Which scorer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScorerChoice {
    /// Nearest support images.
    ImagePair,
    /// Nearest support patches.
    PatchBank,
    /// The checkpoint's ensemble.
    Ensemble,
}

/// Whether the background is cut away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskChoice {
    /// If the object is found on nine of ten support images.
    Auto,
    /// Wherever it is found.
    On,
    /// Never.
    Off,
}

/// What the threshold is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdChoice {
    /// Good images alone, for a false-alarm rate.
    Good,
    /// Good images and the checkpoint's unseen defects: the largest F1.
    F1Max,
    /// The same: the lowest threshold that keeps the false-alarm rate on the good images.
    Recall,
}

/// What to fit.
#[derive(Debug, Clone)]
pub struct FitRequest {
    /// The pictures.
    pub data: CategoryOptions,
    /// The backbone; it must agree with the one of what was learned.
    pub backbone: BackboneOverrides,
    /// The bundle to write.
    pub output: PathBuf,
    /// The scorer; `None`: the ensemble where the checkpoint has one, else the patch bank.
    pub scorer: Option<ScorerChoice>,
    /// How patch distances become a score, for the patch bank.
    pub aggregate: Aggregate,
    /// Support images whose similarities are averaged, for image pairs.
    pub k_neighbors: usize,
    /// Good images in the support; `None`: all.
    pub support_shots: Option<usize>,
    /// Share of the support's patches that is kept.
    pub coreset: Option<f64>,
    /// Background.
    pub mask: MaskChoice,
    /// A patch is the mean of this many by this many patches round it; odd, 1: itself. Not with the ensemble.
    pub neighbourhood: usize,
    /// Keep every support image in eight directions, for the patch bank.
    pub rotations: bool,
    /// Element type of the bank.
    pub precision: Precision,
    /// How the nearest patch is found, for the patch bank and the ensemble.
    pub index: IndexChoice,
    /// Cells of the index that are searched for each patch.
    pub index_probes: usize,
    /// False-alarm rate wanted.
    pub max_false_alarm: f64,
    /// What the threshold is chosen from.
    pub threshold: ThresholdChoice,
    /// Most bytes that the bank may take.
    pub max_memory: Option<usize>,
    /// Leave the checkpoint's prompts or shots unused where its guard says so.
    pub guard: bool,
    /// Seed of the support and the coreset, and without a checkpoint of the split.
    pub seed: u64,
}

impl FitRequest {
    /// Checks what can be checked before anything is read; makes the output's folder.
    ///
    /// # Errors
    /// An output that cannot be written, an aggregate that has no meaning.
    pub fn check(&self) -> Result<(), WorkflowError> {
        if self.output.is_dir() {
            return Err(WorkflowError::Input(format!(
                "{}: is a folder; name a file in it with --output",
                self.output.display()
            )));
        }
        let folder = folder_of(&self.output);
        writable_or(folder, "choose a folder that can be written with --output")?;
        Ok(self.aggregate.check()?)
    }
}

/// A bundle that was written.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// What it says.
    pub header: Header,
    /// Its size in bytes.
    pub bytes: u64,
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
/// As [`fit`]; what was learned from other pictures or on another backbone.
pub fn fit_learned(
    request: &FitRequest,
    learned: &Learned,
    on_event: OnEvent<'_>,
) -> Result<Fitted, WorkflowError> {
    fit_given(request, Some(learned), on_event)
}

fn fit_given(
    request: &FitRequest,
    given: Option<&Learned>,
    on_event: OnEvent<'_>,
) -> Result<Fitted, WorkflowError> {
    request.check()?;
    let choice = scorer(request, given)?;
    let category = Category::open(&request.data, on_event)?;
    let split = category.split(&split_options(request, given))?;
    if let Some(given) = given.filter(|g| g.manifest.hash != split.manifest.hash) {
        return Err(WorkflowError::Input(format!(
            "{}: the pictures of {} are not those it was trained with; train it again",
            given.path.display(),
            given.manifest.category
        )));
    }
    let normals = sorted(split.train_normals.iter().chain(&split.holdout_normals));
    on_event(Event::Split(&split.manifest));
    let support = bank::draw_support(&normals, request)?;
    let engine = open_engine(request, given, choice, on_event)?;
    let applied = given.filter(|g| choice != ScorerChoice::Ensemble && !g.falls_back);
    let adapted = applied.map(|g| g.tokens.source(&engine)).transpose()?;

    let (height, width) = engine.preprocess().size;
    let (grid, dim) = (engine.grid(height, width), engine.dim());
    let directions = if request.rotations {
        Turn::all().count()
    } else {
        1
    };
    bank::state_memory(
        request,
        choice,
        support.len() * grid.0 * grid.1 * directions,
        dim,
        on_event,
    )?;
    let source = Pictures {
        category: &category,
        engine: &engine,
        adapted: adapted.as_deref(),
    };
    let (support, tokens) = source.tokens(&support, on_event)?;
    let others: Vec<usize> = normals
        .iter()
        .filter(|n| support.binary_search(n).is_err())
        .copied()
        .collect();

    on_event(Event::PartBegins("scoring"));
    on_event(Event::Scoring("support"));
    let patches = PatchOptions {
        mask: bank::mask(request.mask, &tokens)?,
        neighbourhood: request.neighbourhood,
    };
    let views = if request.rotations {
        source.turned(&support, on_event)?
    } else {
        Vec::new()
    };
    let (bank, parts) = bank::bank(request, &tokens, &views, patches)?;
    drop(views);
    let indexed = index::wanted(request, choice, bank.rows());
    let index::Sorted {
        bank,
        cells,
        owners,
    } = index::sorted(indexed, bank, &parts, request.seed);
    let scorer = match choice {
        ScorerChoice::ImagePair if request.k_neighbors >= support.len() => {
            return Err(WorkflowError::Input(format!(
                "--k-neighbors {} with {} support images: an image is compared with the others when the threshold is \
                 chosen, so at most {} can be asked for",
                request.k_neighbors,
                support.len(),
                support.len() - 1
            )));
        }
        ScorerChoice::ImagePair => Scorer::ImagePair {
            k: request.k_neighbors,
        },
        ScorerChoice::PatchBank => Scorer::PatchBank {
            aggregate: request.aggregate,
        },
        ScorerChoice::Ensemble => Scorer::Ensemble,
    };
    let mut token_scorer =
        TokenScorer::new(&request.output, scorer, patches, grid, &bank, &parts, None)?;
    let mut index = None;
    if let Some(cells) = &cells {
        let probes = request.index_probes.min(cells.len());
        token_scorer = token_scorer.with_cells(cells.clone(), probes, owners);
        if support.len() > 1 {
            index = index::info(&token_scorer, cells, probes, &tokens, true, on_event)?;
        }
    }
    let whole = request.coreset.is_none() && !request.rotations;
    let left_out = |scorer: &TokenScorer| scorer.score_left_out(&tokens, whole);
    let mut own: Option<Vec<Finding>> = None;
    let mut ensemble = None;
    if choice == ScorerChoice::Ensemble {
        let mut findings = left_out(&token_scorer)?;
        let shots = source.tokens(&split.shots, on_event)?.1;
        let given = given.and_then(|g| g.ensemble.as_ref());
        let fitted = fit_ensemble(
            &token_scorer,
            &tokens,
            &findings,
            &shots,
            given,
            request.guard,
        )?;
        if fitted.guard.fallback {
            on_event(Event::Warning(fitted.guard.fallback_text()));
        }
        findings
            .iter_mut()
            .zip(&fitted.held_out_normals)
            .for_each(|(f, score)| f.score = *score);
        own = Some(findings);
        token_scorer.set_ensemble(fitted.clone());
        ensemble = Some(fitted);
    }

    // good images that took no part in their own score
    let (mut good_at, mut good) = (others.clone(), Vec::new());
    if !others.is_empty() {
        let (kept, tokens) = source.tokens(&others, on_event)?;
        good = token_scorer.score(&tokens)?;
        good_at = kept;
        if let (None, Some(cells)) = (&index, &cells) {
            let probes = request.index_probes.min(cells.len());
            index = index::info(&token_scorer, cells, probes, &tokens, false, on_event)?;
        }
    }
    if good.len() < support.len() {
        if support.len() < 2 {
            return Err(WorkflowError::Input(format!(
                "{}: one good image cannot be scored without itself; a threshold needs two in train/good",
                category.dataset.category
            )));
        }
        good.extend(match own {
            Some(findings) => findings,
            None => left_out(&token_scorer)?,
        });
        good_at.extend(&support);
    }
    let defects = unseen_defects(
        &split.pool,
        split.shots.len(),
        choice,
        given,
        ensemble.as_ref(),
        &source,
        &token_scorer,
        on_event,
    )?;
    let good_scores: Vec<f64> = good.iter().map(|f| f.score).collect();
    let threshold = choose_threshold(request, &good_scores, &defects)?;
    let calibration = if defects.is_empty() {
        Calibration::of_threshold(&good_scores, threshold.value, request.max_false_alarm)?
    } else {
        Calibration::fit(&good_scores, &defects)?
    };
    if calibration.slope < 0.0 {
        on_event(Event::Warning(
            "the known defects score lower than good images: probabilities fall with the score; look at the pictures"
                .into(),
        ));
    }
    let map = map_scale(request, &source, grid, &good_at, &good)?;

    let infos = category.infos();
    let header = Header {
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
        category: category.dataset.category.clone(),
        model_name: engine.config().name.clone(),
        backbone: serde_json::to_value(engine.options()).map_err(|e| {
            WorkflowError::Input(format!(
                "the backbone options cannot be written as JSON: {e}"
            ))
        })?,
        weights_hash: engine.weights_hash().to_owned(),
        preprocessing: engine.preprocess().id(),
        variant: engine.variant(),
        grid,
        dim,
        scorer,
        patches,
        bank: BankInfo {
            rows: bank.rows(),
            precision: bank.precision(),
            coreset: request.coreset,
            rotations: request.rotations,
            parts: if choice == ScorerChoice::ImagePair {
                parts
            } else {
                Vec::new()
            },
            index,
        },
        threshold,
        calibration,
        map,
        checkpoint: given.map(|g| CheckpointRef {
            file: g
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            hash: g.hash.clone(),
            applied: applied.is_some(),
        }),
        support: support
            .iter()
            .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
            .collect(),
        manifest: split.manifest.clone(),
        data_hash: String::new(),
    };
    let adaptation = applied
        .map(|g| g.tokens.to_bytes())
        .transpose()
        .map_err(|what| Bundle::unwritable_adaptation(&request.output, &what))?;
    let mut bundle = Bundle {
        header,
        bank,
        cells,
        ensemble,
        adaptation,
    };
    bundle.write(&request.output)?;
    on_event(Event::Wrote(&request.output));
    on_event(Event::PartEnds("scoring"));
    let bytes = std::fs::metadata(&request.output).map_or(0, |m| m.len());
    Ok(Fitted {
        header: bundle.header,
        bytes,
    })
}

fn scorer(request: &FitRequest, given: Option<&Learned>) -> Result<ScorerChoice, WorkflowError> {
    let has_ensemble = given.is_some_and(|g| g.ensemble.is_some());
    let choice = request.scorer.unwrap_or(if has_ensemble {
        ScorerChoice::Ensemble
    } else {
        ScorerChoice::PatchBank
    });
    if choice == ScorerChoice::Ensemble && !has_ensemble {
        return Err(WorkflowError::Input(
            "--scorer ensemble needs a checkpoint that holds one: train without --no-ensemble and name it with --checkpoint"
                .into(),
        ));
    }
    if choice == ScorerChoice::ImagePair && request.coreset.is_some() {
        return Err(WorkflowError::Input(
            "--coreset thins the patch bank; image pairs compare whole images: leave it away, or use --scorer patch-bank"
                .into(),
        ));
    }
    if request.rotations && choice != ScorerChoice::PatchBank {
        return Err(WorkflowError::Input(
            "--augment rotations turns the support of the patch bank: leave it away, or use --scorer patch-bank".into(),
        ));
    }
    index::check(request, choice)?;
    if !PatchOptions::has_middle(request.neighbourhood) {
        return Err(WorkflowError::Input(format!(
            "--neighbourhood {} is not an odd number from 1 to {MOST_NEIGHBOURHOOD}: a patch is in the middle of its own",
            request.neighbourhood
        )));
    }
    if request.neighbourhood > 1 && choice == ScorerChoice::Ensemble {
        return Err(WorkflowError::Input(
            "--neighbourhood: the ensemble was fitted to single patches; leave it away, or use --scorer patch-bank".into(),
        ));
    }
    Ok(choice)
}

fn split_options(request: &FitRequest, given: Option<&Learned>) -> SplitOptions {
    match given.map(|g| &g.manifest) {
        Some(m) => SplitOptions {
            protocol: m.protocol.clone(),
            seed: m.seed,
            shots: m.shots,
            pool: (m.protocol != Protocol::Leaky).then_some(m.pool.len()),
            holdout_fraction: m.holdout_fraction,
        },
        None => SplitOptions::held_out(request.seed, 0),
    }
}

fn open_engine(
    request: &FitRequest,
    given: Option<&Learned>,
    choice: ScorerChoice,
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    let Some(given) = given else {
        let engine = Engine::open(request.backbone.over(BackboneOptions::default()), on_event)?;
        if request.backbone.layers.is_some() {
            return Ok(engine);
        }
        let config = engine.config();
        let layers = default_layers(&config.name, config.depth);
        on_event(Event::Note(format!(
            "tokens of block {} of 0 to {}; --layers chooses others",
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

/// Tokens as the bundle sees them.
struct Pictures<'a> {
    category: &'a Category,
    engine: &'a Engine,
    adapted: Option<&'a dyn TokenSource>,
}

impl Pictures<'_> {
    /// Tokens of the samples at `positions`; an empty list gives none.
    fn tokens(
        &self,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        self.tokens_in(Turn::default(), positions, on_event)
    }

    /// The same of the pictures turned.
    fn tokens_in(
        &self,
        turn: Turn,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<(Vec<usize>, TokenSet), WorkflowError> {
        let (height, width) = self.engine.preprocess().size;
        if positions.is_empty() {
            let (grid, dim) = (self.engine.grid(height, width), self.engine.dim());
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
                .turned_tokens(self.engine, positions, turn, on_event)?
        } else {
            source::network(self.adapted, self.engine, |network| {
                self.category.tokens_of(
                    network,
                    self.engine.preprocess(),
                    None,
                    positions,
                    turn,
                    on_event,
                )
            })?
        };
        source::modulate(self.adapted, &mut tokens)?;
        Ok((kept, tokens))
    }

    /// The samples at `positions`, which can be read, in every direction but their own.
    fn turned(
        &self,
        positions: &[usize],
        on_event: OnEvent<'_>,
    ) -> Result<Vec<View>, WorkflowError> {
        let preprocess = self.engine.preprocess();
        let sizes: Vec<(usize, usize)> = positions
            .par_iter()
            .map(|&p| self.size(p))
            .collect::<Result<_, _>>()?;
        let turns = Turn::all().filter(|t| !t.is_none());
        turns
            .map(|turn| {
                let (kept, tokens) = self.tokens_in(turn, positions, on_event)?;
                if kept.len() != positions.len() {
                    return Err(WorkflowError::Input(
                        "pictures changed while they were read; run it again".into(),
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

    /// Height and width of a sample's picture.
    fn size(&self, position: usize) -> Result<(usize, usize), WorkflowError> {
        let path = &self.category.dataset.samples[position].path;
        let options: DecodeOptions = self.engine.preprocess().decode_options();
        let picture = decode(&read_file(path, &options)?, path, &options)?;
        Ok((picture.height(), picture.width()))
    }
}

/// The checkpoint's ensemble, fitted again to this bank.
fn fit_ensemble(
    scorer: &TokenScorer,
    normals: &TokenSet,
    left_out: &[Finding],
    shots: &TokenSet,
    record: Option<&EnsembleRecord>,
    guard: bool,
) -> Result<Ensemble, WorkflowError> {
    if normals.images.len() < NORMALS_NEEDED {
        return Err(WorkflowError::Input(format!(
            "the ensemble needs {NORMALS_NEEDED} good images in the support, and there are {}; raise --support-shots, or \
             use --scorer patch-bank",
            normals.images.len()
        )));
    }
    let evidence = |tokens: &TokenSet, found: &[Finding]| {
        let distances: Vec<Vec<f32>> = found.iter().map(|f| f.distances.clone()).collect();
        Evidence::with_distances(&tokens.images, &distances, BANK_SHARE)
    };
    let shot_findings = scorer.score(shots)?;
    let saved = record.map(|r| r.options.clone()).unwrap_or_default();
    let options = EnsembleOptions {
        guard: saved.guard && guard,
        ..saved
    };
    Ok(Ensemble::fit(
        &evidence(normals, left_out)?,
        &evidence(shots, &shot_findings)?,
        &options,
    )?)
}

/// Scores of the pool's defects by models that have not seen them.
fn unseen_defects(
    pool: &[usize],
    shots: usize,
    choice: ScorerChoice,
    given: Option<&Learned>,
    ensemble: Option<&Ensemble>,
    source: &Pictures<'_>,
    scorer: &TokenScorer,
    on_event: OnEvent<'_>,
) -> Result<Vec<f64>, WorkflowError> {
    // without a checkpoint the pool is no one's to look at
    let Some(given) = given else {
        return Ok(Vec::new());
    };
    let learned = choice == ScorerChoice::Ensemble || !given.falls_back;
    let unseen = if learned { &pool[shots..] } else { pool };
    let tokens = source.tokens(unseen, on_event)?.1;
    let mut scores: Vec<f64> = scorer.score(&tokens)?.iter().map(|f| f.score).collect();
    scores.extend(ensemble.iter().flat_map(|e| &e.held_out_shots));
    Ok(scores)
}

fn choose_threshold(
    request: &FitRequest,
    good: &[f64],
    defects: &[f64],
) -> Result<Threshold, WorkflowError> {
    let rate = request.max_false_alarm;
    if request.threshold != ThresholdChoice::Good && defects.is_empty() {
        return Err(WorkflowError::Input(
            "--threshold f1 and recall need defects that training has not seen: a checkpoint whose pool is larger than \
             its shots, or with an ensemble of two shots or more; leave --threshold away to choose from good images"
                .into(),
        ));
    }
    Ok(match request.threshold {
        ThresholdChoice::Good => threshold::from_good(good, rate, Method::Auto)?,
        ThresholdChoice::F1Max => threshold::f1_max(good, defects)?,
        ThresholdChoice::Recall => threshold::recall_at(good, defects, rate)?,
    })
}

/// Threshold and colours of maps, from the maps of the good images.
fn map_scale(
    request: &FitRequest,
    source: &Pictures<'_>,
    grid: (usize, usize),
    positions: &[usize],
    good: &[Finding],
) -> Result<MapScale, WorkflowError> {
    let (preprocess, patch) = (
        source.engine.preprocess(),
        source.engine.config().patch_size,
    );
    let one = |(&position, found): (&usize, &Finding)| -> Result<(f64, f64), WorkflowError> {
        let size = source.size(position)?;
        let map =
            Drawing::new(&preprocess, grid, patch, size, DEFAULT_SIGMA)?.draw(&found.distances)?;
        let (low, high) = map.range().unwrap_or((f32::NAN, f32::NAN));
        Ok((low.into(), high.into()))
    };
    let ranges: Vec<(f64, f64)> = positions
        .par_iter()
        .zip(good)
        .map(one)
        .collect::<Result<_, _>>()?;
    let (mut lows, peaks): (Vec<f64>, Vec<f64>) = ranges.into_iter().unzip();
    let chosen = threshold::from_good(&peaks, request.max_false_alarm, Method::Auto)?;
    lows.sort_by(f64::total_cmp);
    let threshold = chosen.value as f32;
    let low = (lows[lows.len() / 2] as f32).min(threshold - f32::EPSILON);
    Ok(MapScale {
        sigma: DEFAULT_SIGMA,
        threshold,
        low,
        high: threshold + (threshold - low),
        good_peaks: chosen.good,
    })
}
