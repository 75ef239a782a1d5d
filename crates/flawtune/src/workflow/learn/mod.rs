//! Teach a detector more: shots and good images that come after its first fit. Nothing of that fit is read again but what its file
//! keeps.

mod compare;
mod images;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use compare::Comparable;
pub use compare::Tally;
use images::NewImages;

use super::fit::finish::{MapsOf, calibrated, untaught_threshold};
use super::fit::residual::{AtSize, cover, together};
use super::{Detector, Event, OnEvent, WorkflowError};
use crate::bundle::{Bank, Bundle, Finding, Header, Keeping, Kept, KeptSize, ScorerKind};
use crate::dataset::MoreImages;
use crate::evaluate::protocol::ImageRef;
use crate::features::{FeatureCache, ImageTokens};
use crate::score::residual::{
    BlockBanks, Good, LookedAt, ResidualOptions, Shot, Spacing, block_bank, default_top, grown,
    learn_residual, of_blocks, unit_blocks,
};
use crate::score::threshold::{Method, from_good};

/// What a detector is to learn.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Lessons {
    /// The images.
    pub images: MoreImages,
    /// Take what was learned even where known images are told apart worse.
    pub force: bool,
    /// Leave unreadable images out.
    pub skip_bad_images: bool,
    /// Fail where something would only be warned of.
    pub strict: bool,
    /// Images a forward pass.
    pub batch_size: usize,
    /// Where tokens of the images are kept for the next time.
    pub cache: Option<FeatureCache>,
}

impl Lessons {
    /// To learn from these images.
    pub fn new(images: MoreImages) -> Self {
        Self {
            images,
            force: false,
            skip_bad_images: false,
            strict: false,
            batch_size: 8,
            cache: None,
        }
    }
}

/// A detector file that is to learn.
#[derive(Debug, Clone)]
pub struct LearnRequest {
    /// The detector.
    pub detector: PathBuf,
    /// Weight file to use.
    pub weights: Option<PathBuf>,
    /// What it is to learn.
    pub lessons: Lessons,
    /// Where the detector is written; where that is the detector itself, its old version stays beside it.
    pub output: PathBuf,
}

/// A detector that learned, without a file yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taught {
    /// The detector as it is now.
    pub detector: Detector,
    /// Good images it learned now.
    pub good: usize,
    /// Defects it learned now.
    pub defects: usize,
    /// The same images by the old detector and by the new one, each by models that had not seen it.
    pub before: Tally,
    /// See `before`.
    pub after: Tally,
}

/// A detector file that learned.
#[derive(Debug, Clone)]
pub struct Learnt {
    /// What its file says.
    pub header: Header,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Good images it learned now.
    pub good: usize,
    /// Defects it learned now.
    pub defects: usize,
    /// The same images by the old detector and by the new one.
    pub before: Tally,
    /// See `before`.
    pub after: Tally,
    /// Where the old version is.
    pub old_version: Option<PathBuf>,
}

impl Detector {
    /// The detector after it learned from more images, in seconds: what it learned from before is kept in it. This one stays as it is.
    ///
    /// # Errors
    /// A detector that keeps nothing to learn from; an image that it knows under the other label; no image that it does not know; what
    /// was learned and tells known images apart worse, unless it is forced; anything wrong with the images.
    pub fn learn(&self, lessons: &Lessons) -> Result<Taught, WorkflowError> {
        self.learn_with(lessons, &mut |_| {})
    }

    /// As [`Self::learn`], and tells what happens on the way.
    ///
    /// # Errors
    /// As [`Self::learn`].
    pub fn learn_with(
        &self,
        lessons: &Lessons,
        on_event: OnEvent<'_>,
    ) -> Result<Taught, WorkflowError> {
        let kept = match self.header().scorer {
            ScorerKind::Residual { .. } => self.kept()?,
            _ => None,
        };
        let kept = kept.ok_or_else(|| {
            WorkflowError::Input(
                "the detector keeps nothing that it could learn more from\nhint: fit it again with the scorer residual and all good \
                 images"
                    .into(),
            )
        })?;
        let kept = (*kept).clone().as_in_file();
        let new = NewImages::read(lessons, self, &kept, on_event)?;
        let sizes = at_sizes(self, &kept, &new, on_event)?;
        let (good, defects) = together(&sizes);
        let bundle = bundle(self, kept, &new, sizes, &good, &defects, on_event)?;

        let was = self.header();
        let comparable = Comparable::of(was, &new, &good, &defects);
        let (before, after) =
            comparable.tallies(was.threshold.value, bundle.header.threshold.value);
        if let Some((was, is)) = comparable.worse()
            && !lessons.force
        {
            return Err(WorkflowError::Worse {
                good: before.good,
                defects: before.defects,
                was,
                is,
            });
        }
        Ok(Taught {
            detector: Self::fitted(bundle, Arc::clone(self.engine()), None)?,
            good: new.good.len(),
            defects: new.defects.len(),
            before,
            after,
        })
    }
}

/// Learns and writes the detector; see [`Detector::learn`].
///
/// # Errors
/// As [`Detector::learn`]; anything wrong with the file.
pub fn learn(request: &LearnRequest, on_event: OnEvent<'_>) -> Result<Learnt, WorkflowError> {
    let path = &request.detector;
    let old = Detector::open_with(path, request.weights.as_deref(), None, on_event)?;
    on_event(Event::Read(path));
    let taught = old.learn_with(&request.lessons, on_event);
    let taught = taught.map_err(|error| match error {
        WorkflowError::Input(what) => WorkflowError::Input(format!("{}: {what}", path.display())),
        other => other,
    })?;
    let old_version = if request.output == *path {
        let beside = free_name(path);
        std::fs::copy(path, &beside).map_err(|source| WorkflowError::Io {
            path: beside.clone(),
            source,
            hint: "make room, or name another output",
        })?;
        Some(beside)
    } else {
        None
    };
    taught.detector.save(&request.output)?;
    on_event(Event::Wrote(&request.output));
    Ok(Learnt {
        header: taught.detector.header().clone(),
        bytes: std::fs::metadata(&request.output).map_or(0, |m| m.len()),
        good: taught.good,
        defects: taught.defects,
        before: taught.before,
        after: taught.after,
        old_version,
    })
}

/// `parts.1.flaw` beside `parts.flaw`, or the first number that is free.
fn free_name(path: &Path) -> PathBuf {
    let mut numbers = 1..;
    let name = |n: u32| path.with_extension(format!("{n}.flaw"));
    numbers
        .find(|n| !name(*n).exists())
        .map_or_else(|| name(0), name)
}

/// Banks that grew, and heads that were fitted again, at each size.
fn at_sizes(
    old: &Detector,
    kept: &Kept,
    new: &NewImages,
    on_event: OnEvent<'_>,
) -> Result<Vec<AtSize>, WorkflowError> {
    let engine = old.engine();
    let blocks = old.header().scorer.blocks();
    let (old_banks, spacings) = (old.banks(), old.spacings());
    let samples = &new.category.dataset.samples;
    let new_types = new
        .defects
        .iter()
        .map(|&i| samples[i].defect_type.as_deref());
    let types: Vec<&str> = kept
        .images
        .types
        .iter()
        .map(String::as_str)
        .chain(new_types.map(Option::unwrap_or_default))
        .collect();
    let mut all = Vec::new();
    let old_banks = old_banks.into_iter().zip(spacings);
    let sizes = engine.sizes().into_iter().zip(&kept.sizes);
    for (at, ((size, kept_size), (old_bank, spacings))) in sizes.zip(old_banks).enumerate() {
        let preprocess = engine.preprocess_at(size);
        let grid = engine.grid_of(&preprocess);
        let (good, defects) = new.tokens(at);
        on_event(Event::Scoring("what was kept, and new images"));
        let mut covers = kept_size.covers.clone();
        for &position in &new.defects {
            covers.push(cover(engine, &preprocess, &samples[position])?);
        }
        let size = Growing {
            blocks,
            patches: grid.0 * grid.1,
            old_bank,
            spacings,
            kept: kept_size,
            judged: &kept.images.judged,
            good,
            defects,
            types: types.clone(),
        };
        all.push(size.fit(grid, covers, kept.images.seed)?);
    }
    Ok(all)
}

/// One size of a detector that learns.
struct Growing<'a> {
    blocks: usize,
    patches: usize,
    old_bank: &'a Bank,
    spacings: &'a [Spacing],
    kept: &'a KeptSize,
    judged: &'a [usize],
    good: &'a [ImageTokens],
    defects: &'a [ImageTokens],
    /// Of the shots that are kept, then of the new ones.
    types: Vec<&'a str>,
}

impl Growing<'_> {
    fn fit(
        &self,
        grid: (usize, usize),
        covers: Vec<Option<Vec<f32>>>,
        seed: u64,
    ) -> Result<AtSize, WorkflowError> {
        let (blocks, dim) = (self.blocks, self.old_bank.dim());
        let precision = self.old_bank.precision();
        let rows = self.old_bank.rows() / blocks;
        let images = rows / self.patches;
        let bank = grown(self.old_bank, blocks, self.good, precision);
        let parts = |images: usize| vec![self.patches; images];
        let banks = BlockBanks::new(&bank, blocks, &parts(images + self.good.len()));

        // what was seen before looks at the new good images only
        let mut looks = self.kept.looks.clone();
        let mut of_shots = looks.split_off(self.judged.len());
        if !self.good.is_empty() {
            let more = block_bank(self.good, blocks, dim, precision);
            let more = BlockBanks::new(&more, blocks, &parts(self.good.len()));
            let shots = more.look_each(&self.kept.shots, Clone::clone);
            for (look, found) in of_shots.iter_mut().zip(&shots) {
                look.raise(found, rows);
            }
        }
        of_shots.extend(banks.look(&self.defects.iter().collect::<Vec<_>>()));
        let new = images..banks.images();
        let judged: Vec<usize> = self.judged.iter().copied().chain(new).collect();
        let mut spacings = self.spacings.to_vec();
        if spacings.is_empty() {
            // a file of an earlier version, or of very few good images
            (looks, spacings) = banks.look_and_measure(&judged, &mut |_| {});
        } else {
            banks.look_and_go_on(images, self.judged, (&mut looks, &mut spacings));
        }
        let looked_at = LookedAt { looks, spacings };

        let judged = judged.iter().copied();
        let good: Vec<Good<'_>> = judged.map(Good::Own).collect();
        let mut shown: Vec<ImageTokens> =
            self.kept.shots.iter().map(|s| of_blocks(s, dim)).collect();
        shown.extend(self.defects.iter().cloned());
        let shots: Vec<Shot<'_>> = shown
            .iter()
            .zip(covers)
            .zip(&self.types)
            .map(|((image, covered), kind)| Shot {
                image,
                covered,
                kind,
            })
            .collect();
        let options = ResidualOptions {
            seed,
            ..ResidualOptions::default()
        };
        let top = default_top(self.patches);
        let fitted = learn_residual(
            &banks,
            (&good, &looked_at),
            (&shots, &of_shots),
            top,
            &options,
        )?;
        let mut looks = looked_at.looks;
        looks.extend(of_shots);
        let mut kept_shots = self.kept.shots.clone();
        kept_shots.extend(
            self.defects
                .iter()
                .map(|image| unit_blocks(image, blocks, dim)),
        );
        Ok(AtSize {
            grid,
            fitted,
            kept: KeptSize {
                looks,
                shots: kept_shots,
                covers: shots.into_iter().map(|shot| shot.covered).collect(),
            },
            bank,
            synthetic: Vec::new(),
        })
    }
}

/// The detector that learned.
fn bundle(
    old: &Detector,
    mut kept: Kept,
    new: &NewImages,
    mut sizes: Vec<AtSize>,
    good: &[Finding],
    defects: &[f64],
    on_event: OnEvent<'_>,
) -> Result<Bundle, WorkflowError> {
    let engine = old.engine();
    let mut header = old.header().clone();
    let infos = new.category.infos();
    let refs = |positions: &[usize]| -> Vec<ImageRef> {
        let one = |&i: &usize| ImageRef::new(infos[i].id, infos[i].content);
        positions.iter().map(one).collect()
    };
    let (new_good, new_defects) = (refs(&new.good), refs(&new.defects));
    let first_new = header.support.len();
    header.support.extend(new_good.iter().cloned());
    header
        .manifest
        .add(new_good.into_iter().chain(new_defects.iter().cloned()));
    kept.images.judged.extend(first_new..header.support.len());
    kept.images.judged_sizes.extend(&new.sizes);
    kept.images.shots.extend(new_defects);
    let types = new
        .defects
        .iter()
        .map(|&i| infos[i].defect_type.unwrap_or_default().to_owned());
    kept.images.types.extend(types);
    kept.sizes = sizes
        .iter_mut()
        .map(|size| std::mem::take(&mut size.kept))
        .collect();

    let rate = kept.images.max_false_alarm;
    let scores: Vec<f64> = good.iter().map(|f| f.score).collect();
    header.threshold = from_good(&scores, rate, Method::Auto)?;
    header.threshold.defects = defects.to_vec();
    header.threshold.defects.sort_by(f64::total_cmp);
    header.untaught_threshold = untaught_threshold(good, rate)?;
    header.calibration = calibrated(&scores, defects, &header.threshold, rate, true, on_event)?;
    header.map = MapsOf {
        preprocess: engine.preprocess(),
        patch: engine.config().patch_size,
        grid: header.grid,
    }
    .scale(&kept.images.judged_sizes, good, rate)?;
    env!("CARGO_PKG_VERSION").clone_into(&mut header.flawtune_version);

    let blocks = header.scorer.blocks();
    let mut sizes = sizes.into_iter();
    let main = sizes
        .next()
        .ok_or_else(|| WorkflowError::Input("the detector looks at no image size".into()))?;
    header.bank.rows = main.bank.rows() / blocks;
    let more: Vec<_> = sizes.map(|size| (size.bank, size.fitted.model)).collect();
    for (info, (bank, _)) in header.more_sizes.iter_mut().zip(&more) {
        info.rows = bank.rows() / blocks;
    }
    Ok(Bundle {
        header,
        bank: main.bank,
        cells: None,
        residual: Some(main.fitted.model),
        more,
        kept: Keeping::Here(Arc::new(kept)),
        ensemble: None,
        adaptation: None,
    })
}
