//! Whole banks of several blocks, and what defects teach beside them.

use std::time::Duration;

use flawtune_backbone::preprocess::Preprocess;

use super::search::Search;
use super::twins::near_twins;
use super::{FitRequest, IndexChoice, Job, MaskChoice, Scored};
use crate::bundle::{
    Bank, Finding, Kept, KeptImages, KeptSize, PatchOptions, ScorerKind, SearchRecord,
};
use crate::dataset::Sample;
use crate::evaluate::protocol::ImageRef;
use crate::features::{Progress, Source as FeatureSource, Stage, TokenSet, patch_cover};
use crate::image_size::ImageSize;
use crate::score::Aggregate;
use crate::score::residual::{
    BlockBanks, Good, Judged, LookedAt, ResidualFit, ResidualOptions, Shot, block_bank,
    default_blocks, default_top, joined, learn_residual, look_at_good, unit_blocks,
};
use crate::workflow::{Category, Engine, Event, OnEvent, WorkflowError};

/// Products of patches that good images may cost to be judged: beyond, a part of them is judged, spread over all.
const MOST_PRODUCTS: f64 = 4e11;
/// Products of patches, in all blocks, from which on what they find is kept in the cache.
const WORTH_KEEPING: f64 = 1e9;
/// What the keys of what is kept begin with.
const LOOKS_FORMAT: &[u8] = b"looks of good images and spacings, 2";
/// Good images that are judged in any case.
const LEAST_JUDGED: usize = 50;

/// What is fitted at one size.
pub(in crate::workflow) struct AtSize {
    pub(in crate::workflow) grid: (usize, usize),
    pub(in crate::workflow) bank: Bank,
    pub(in crate::workflow) fitted: ResidualFit,
    pub(in crate::workflow) kept: KeptSize,
    /// Scores of synthetic defects, where sizes are searched for.
    pub(in crate::workflow) synthetic: Vec<f64>,
}

/// What the sizes say together of the good images that were judged and of the shots.
pub(in crate::workflow) fn together(sizes: &[AtSize]) -> (Vec<Finding>, Vec<f64>) {
    let found = |of: fn(&ResidualFit) -> &[Judged]| {
        let of_size = |size: &AtSize| {
            let model = &size.fitted.model;
            let judged = of(&size.fitted).iter().cloned();
            (size.grid, judged.map(|j| model.finding(j)).collect())
        };
        joined(sizes.iter().map(of_size).collect())
    };
    let defects = found(|fit| &fit.shots);
    (
        found(|fit| &fit.good),
        defects.iter().map(|f| f.score).collect(),
    )
}

/// Fits banks and heads, and scores each good image and each shot without itself; where sizes were searched for, what was found.
pub(super) fn fit(
    job: &Job<'_>,
    searches: bool,
    on_event: OnEvent<'_>,
) -> Result<(Scored, Option<SearchRecord>), WorkflowError> {
    let alone = job.support.len() + job.others.len() < 2;
    if alone {
        on_event(Event::Warning(
            "one good image is compared with itself, its upper half with its lower: what is odd can be ranked by it, but nothing \
             says how odd is too odd, and the threshold is a guess\nhint: add good images, or give a threshold that you have seen \
             to work"
                .into(),
        ));
    }
    let engine = job.images.engine;
    let blocks = engine.options().layers.len();
    if !alone {
        on_event(Event::Note(chosen(job, engine)));
    }
    let judged = judged(job, blocks, on_event);
    let by_halves = alone.then_some(&[0, 1][..]);
    let shown = Shown {
        others: job.images.tokens(&job.others, on_event)?,
        shots: job.images.tokens(job.shots(), on_event)?,
    };
    tell_outside(job, &shown.shots.0, on_event)?;
    let mut sizes = Vec::new();
    let time = job.request.options.search.filter(|_| searches);
    let mut search = time.and_then(|time| search_of(job, alone, &judged, time, on_event));
    for size in engine.sizes() {
        let asked = (by_halves.unwrap_or(&judged), search.as_mut());
        sizes.push(at_size(job, size, asked, &shown, on_event)?);
    }
    let named: Vec<_> = engine.sizes().into_iter().zip(&sizes).collect();
    let searched = search.map(|search| search.record(&named)).transpose()?;
    let (good, defects) = together(&sizes);
    let kept = kept(job, &judged, &shown, &mut sizes);
    let mut sizes = sizes.into_iter();
    let Some(main) = sizes.next() else {
        return Err(WorkflowError::Input("no image size to look at".into()));
    };
    if let Some(head) = &main.fitted.model.head {
        on_event(Event::Note(format!(
            "learned from {} defects, {} with masks: {} patches, weight {:.2}",
            head.shots, head.masked_shots, head.positives, head.weight
        )));
    }
    let scored = Scored {
        kind: ScorerKind::Residual { blocks },
        patches: PatchOptions::default(),
        good,
        good_at: judged
            .iter()
            .map(|&i| job.support[i])
            .chain(shown.others.0)
            .collect(),
        defects,
        residual: Some(main.fitted.model),
        kept,
        bank: main.bank,
        more: sizes
            .map(|size| (size.grid, size.bank, size.fitted.model))
            .collect(),
        parts: Vec::new(),
        cells: None,
        index: None,
        ensemble: None,
    };
    Ok((scored, searched))
}

/// The search that was asked for, if there is anything to choose from.
fn search_of(
    job: &Job<'_>,
    alone: bool,
    judged: &[usize],
    time: Duration,
    on_event: OnEvent<'_>,
) -> Option<Search> {
    if job.images.engine.sizes().len() > 1 && !alone {
        return Some(Search::new(judged, time));
    }
    on_event(Event::Warning(
        "nothing is searched: one image size, or one good image, leaves nothing to choose\nhint: name several image sizes, such as \
         448,224"
            .into(),
    ));
    None
}

/// Warns of shots whose masks mark nothing inside of the region of interest: what is odd there is taken for their flaw.
fn tell_outside(
    job: &Job<'_>,
    shots: &[usize],
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let preprocess = job.images.preprocess;
    if preprocess.roi.is_none() {
        return Ok(());
    }
    let samples = &job.images.category.dataset.samples;
    let mut outside = Vec::new();
    for sample in shots.iter().map(|&i| &samples[i]) {
        if !sample.masks.is_empty() && cover(job.images.engine, &preprocess, sample)?.is_none() {
            outside.push(sample.id.as_str());
        }
    }
    if let Some(first) = outside.first() {
        on_event(Event::Warning(format!(
            "{} of {} defects are marked outside of the region only, such as {first}: the oddest places inside are taken for \
             their flaws\nhint: leave such defects out, or widen `roi`",
            outside.len(),
            shots.len()
        )));
    }
    Ok(())
}

/// What is looked at, why, and what else could be.
fn chosen(job: &Job<'_>, engine: &Engine) -> String {
    let options = engine.options();
    let depth = engine.config().depth;
    let from_first = |&layer: &i32| {
        let last = if layer < 0 { depth } else { 0 };
        last.saturating_add_signed(layer as isize)
    };
    let blocks: Vec<usize> = options.layers.iter().map(from_first).collect();
    let why = if blocks == default_blocks(depth) {
        "a fixed spread; no choice by data was better on average over the categories measured"
    } else {
        "as asked for"
    };
    let next = if options.more_sizes.is_empty() {
        "a second, larger size finds more small flaws and takes about ten times as long"
    } else {
        "the smallest size alone takes about a tenth of the time and finds somewhat less"
    };
    // people count from 1
    let blocks: Vec<String> = blocks.iter().map(|b| (b + 1).to_string()).collect();
    format!(
        "looks at {} px, blocks {}, and all patches of {} good images\n  blocks: {why}\n  next best: {next}",
        engine.sizes_text(" and "),
        blocks.join(", "),
        job.support.len()
    )
}

/// What is kept to learn more; nothing where good images outside of the bank were judged, for their patches are not kept.
fn kept(job: &Job<'_>, judged: &[usize], shown: &Shown, sizes: &mut [AtSize]) -> Option<Kept> {
    if !shown.others.0.is_empty() || job.support.len() < 2 {
        return None;
    }
    let category = job.images.category;
    let infos = category.infos();
    let shots = &shown.shots.0;
    Some(Kept {
        images: KeptImages {
            judged: judged.to_vec(),
            judged_sizes: Vec::new(),
            shots: shots
                .iter()
                .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
                .collect(),
            types: shots
                .iter()
                .map(|&i| infos[i].defect_type.unwrap_or_default().to_owned())
                .collect(),
            max_false_alarm: job.request.options.max_false_alarm,
            seed: job.request.options.seed,
        },
        sizes: sizes
            .iter_mut()
            .map(|size| std::mem::take(&mut size.kept))
            .collect(),
    })
}

/// Positions and tokens, at the largest size, of the images beside the support.
struct Shown {
    others: (Vec<usize>, TokenSet),
    shots: (Vec<usize>, TokenSet),
}

/// Which images of the support are judged, each without itself: all of them, or as many as take bearable time.
fn judged(job: &Job<'_>, blocks: usize, on_event: OnEvent<'_>) -> Vec<usize> {
    let images = job.support.len();
    let engine = job.images.engine;
    let patches = |size: ImageSize| engine.patches_at(size) as f64;
    // one image against all patches, in every block and size
    let sizes = engine.sizes().into_iter();
    let one: f64 =
        sizes.map(|size| patches(size) * patches(size)).sum::<f64>() * (images * blocks) as f64;
    // all of them together take half the time, for each pair is compared once
    if 0.5 * one * images as f64 <= MOST_PRODUCTS {
        return (0..images).collect();
    }
    let count = ((MOST_PRODUCTS / one) as usize).clamp(LEAST_JUDGED.min(images), images);
    if count < images {
        on_event(Event::Note(format!(
            "{count} of {images} good images are judged, spread over all; the bank holds all of them"
        )));
    }
    (0..count).map(|i| i * images / count).collect()
}

/// Fits bank and head at one size.
fn at_size(
    job: &Job<'_>,
    size: ImageSize,
    (judged, search): (&[usize], Option<&mut Search>),
    shown: &Shown,
    on_event: OnEvent<'_>,
) -> Result<AtSize, WorkflowError> {
    let images = job.images.at(size);
    let is_main = size == images.engine.options().image_size;
    let mut tokens = |positions: &[usize], at_main: &TokenSet| {
        if is_main {
            return Ok(at_main.clone());
        }
        let (kept, tokens) = images.tokens(positions, on_event)?;
        if kept != positions {
            return Err(WorkflowError::Input(
                "images changed while they were read\nhint: run it again".into(),
            ));
        }
        Ok(tokens)
    };
    let support = tokens(&job.support, &job.tokens)?;
    let others = tokens(&shown.others.0, &shown.others.1)?;
    let shot_tokens = tokens(&shown.shots.0, &shown.shots.1)?;
    let samples = &images.category.dataset.samples;
    let cover = |&i: &usize| cover(images.engine, &images.preprocess, &samples[i]);
    let covered: Vec<_> = shown.shots.0.iter().map(cover).collect::<Result<_, _>>()?;

    let blocks = images.engine.options().layers.len();
    let dim = support.dim / blocks;
    let bank = block_bank(&support.images, blocks, dim, job.request.options.precision);
    let patches = support.patches();
    // a single image is compared with itself, half by half
    let alone = job.support.len() + others.images.len() < 2;
    let parts = if alone {
        vec![patches / 2, patches - patches / 2]
    } else {
        vec![patches; job.support.len()]
    };
    let banks = BlockBanks::new(&bank, blocks, &parts);
    on_event(Event::Scoring(if shown.shots.0.is_empty() {
        "good images, each without itself"
    } else {
        "good images, each without itself, and shots"
    }));
    let own = judged.iter().copied().map(Good::Own);
    let good: Vec<Good<'_>> = own.chain(others.images.iter().map(Good::Other)).collect();
    let shots: Vec<Shot<'_>> = shot_tokens
        .images
        .iter()
        .zip(covered)
        .zip(&shown.shots.0)
        .map(|((image, covered), &position)| Shot {
            image,
            covered,
            kind: samples[position].defect_type.as_deref().unwrap_or_default(),
        })
        .collect();
    let options = ResidualOptions {
        seed: job.request.options.seed,
        ..ResidualOptions::default()
    };
    let looked_at = compared(
        images.category,
        &images.source(),
        (&bank, &banks),
        &good,
        on_event,
    );
    if is_main && others.images.is_empty() && !alone {
        tell_twins(job, judged, &looked_at, patches, on_event);
    }
    let of_shots = banks.look(&shot_tokens.images.iter().collect::<Vec<_>>());
    let mut fitted = learn_residual(
        &banks,
        (&good, &looked_at),
        (&shots, &of_shots),
        default_top(patches),
        &options,
    )?;
    if alone {
        fitted.good = vec![whole(&fitted.good)];
    }
    let synthetic = search.map_or(Ok(Vec::new()), |search| {
        search.scores(job, &images.preprocess, &banks, &fitted.model)
    })?;
    let mut looks = looked_at.looks;
    looks.extend(of_shots);
    Ok(AtSize {
        grid: support.grid,
        synthetic,
        fitted,
        kept: KeptSize {
            looks,
            shots: shots
                .iter()
                .map(|shot| unit_blocks(shot.image, blocks, dim))
                .collect(),
            covers: shots.into_iter().map(|shot| shot.covered).collect(),
        },
        bank,
    })
}

/// Shows which share of so many images was compared.
pub(super) fn shown(total: usize, on_event: OnEvent<'_>) -> impl FnMut(f64) {
    let mut last = None;
    move |share| {
        let done = (share * total as f64) as usize;
        if last.replace(done) != Some(done) {
            let stage = Stage::Comparing;
            on_event(Event::Images(Progress { stage, done, total }));
        }
    }
}

/// Warns of good images that are nearly the same.
fn tell_twins(
    job: &Job<'_>,
    judged: &[usize],
    looked_at: &LookedAt,
    patches: usize,
    on_event: OnEvent<'_>,
) {
    let all = (job.support.len(), patches);
    let pairs = near_twins(judged, &looked_at.looks, all);
    let samples = &job.images.category.dataset.samples;
    let name = |own: usize| samples[job.support[own]].id.as_str();
    if let Some(&(one, other)) = pairs.first() {
        let count = match pairs.len() {
            1 => "two good images are".to_owned(),
            n => format!("{n} pairs of good images are"),
        };
        on_event(Event::Warning(format!(
            "{count} nearly the same, such as {} and {}: what is judged beside its twin looks too good, and the threshold stops \
             more good parts than it promises\nhint: keep one of each, and leave the others out with `exclude`",
            name(one),
            name(other)
        )));
    }
}

/// What good images say of the banks, from the cache where they were compared before.
fn compared(
    category: &Category,
    source: &FeatureSource,
    (bank, banks): (&Bank, &BlockBanks),
    good: &[Good<'_>],
    on_event: OnEvent<'_>,
) -> LookedAt {
    let mut compare = || look_at_good(banks, good, &mut shown(good.len(), on_event));
    let all_own = good.iter().all(|g| matches!(g, Good::Own(_)));
    let rows = bank.rows() / banks.blocks().max(1);
    let work = bank.rows() as f64 * (good.len() * rows / banks.images().max(1)) as f64;
    let cache = category.cache().filter(|_| all_own && work > WORTH_KEEPING);
    let Some(cache) = cache else {
        return compare();
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(LOOKS_FORMAT);
    for number in [banks.blocks(), banks.images(), bank.dim()] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    for image in good {
        if let Good::Own(part) = image {
            hasher.update(&(*part as u64).to_le_bytes());
        }
    }
    let key = hasher.update_rayon(bank.bytes()).finalize();
    let kept = cache.load_looks(source, &key);
    if let Some(kept) = kept.and_then(|kept| LookedAt::of_bytes(&kept, banks.blocks(), rows)) {
        return kept;
    }
    let found = compare();
    // a cache that cannot be written was named when tokens were stored
    let _ = cache.store_looks(source, &key, &found.to_bytes());
    found
}

/// An image of which parts were judged, one after the other.
fn whole(parts: &[Judged]) -> Judged {
    let most = |of: fn(&Judged) -> f64| parts.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
    Judged {
        score: most(|part| part.score),
        untaught: most(|part| part.untaught),
        drift: most(|part| part.drift),
        kind: None,
        map: parts.iter().flat_map(|part| part.map.clone()).collect(),
        untaught_map: parts
            .iter()
            .flat_map(|part| part.untaught_map.clone())
            .collect(),
    }
}

/// The share of each patch that the masks of a shot cover; `None` for a shot without one.
pub(in crate::workflow) fn cover(
    engine: &Engine,
    preprocess: &Preprocess,
    sample: &Sample,
) -> Result<Option<Vec<f32>>, WorkflowError> {
    if sample.masks.is_empty() {
        return Ok(None);
    }
    let cover = patch_cover(
        &sample.path,
        &sample.masks,
        preprocess,
        engine.grid_of(preprocess),
        engine.config().patch_size,
    )?;
    // a mask that marks nothing says no more than none
    Ok(cover.iter().any(|share| *share > 0.0).then_some(cover))
}

/// What a request names that only the patch bank has.
pub(super) fn of_patch_bank(request: &FitRequest) -> Vec<&'static str> {
    [
        (
            request.options.aggregate != Aggregate::default(),
            "a share of the oddest patches",
        ),
        (request.options.coreset.is_some(), "a coreset"),
        (request.options.mask != MaskChoice::Off, "a background mask"),
        (request.options.neighbourhood > 1, "a neighbourhood"),
        (request.options.rotations, "rotations"),
        (
            request.options.index == IndexChoice::Approximate,
            "an approximate index",
        ),
    ]
    .into_iter()
    .filter_map(|(asked, what)| asked.then_some(what))
    .collect()
}

/// Refuses what belongs to another scorer.
pub(super) fn check(request: &FitRequest) -> Result<(), WorkflowError> {
    let others = of_patch_bank(request);
    if others.is_empty() {
        return Ok(());
    }
    Err(WorkflowError::Input(format!(
        "{} and the scorer residual do not go together: it searches whole banks of single patches\nhint: take the scorer \
         patch-bank",
        others.join(" and ")
    )))
}
