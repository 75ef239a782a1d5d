//! Whole banks of several blocks, and what defects teach beside them.

use super::{FitRequest, IndexChoice, Job, MaskChoice, Scored};
use crate::bundle::{PatchOptions, ScorerKind};
use crate::features::{ImageTokens, patch_cover};
use crate::score::Aggregate;
use crate::score::residual::{
    BlockBanks, Judged, ResidualOptions, Shot, block_bank, default_top, fit_residual,
};
use crate::workflow::{Event, OnEvent, WorkflowError};

/// Fits banks and head, and scores each good image and each shot without itself.
pub(super) fn fit(job: &Job<'_>, on_event: OnEvent<'_>) -> Result<Scored, WorkflowError> {
    if job.support.len() + job.others.len() < 2 {
        return Err(WorkflowError::Input(format!(
            "{}: one good image cannot be compared with another, so nothing says how odd is too odd\nhint: add a second good \
             image",
            job.images.category.dataset.category
        )));
    }
    let blocks = job.images.engine.options().layers.len();
    let bank = block_bank(
        &job.tokens.images,
        blocks,
        job.tokens.dim / blocks,
        job.request.precision,
    );
    let patches = job.tokens.patches();
    let parts = vec![patches; job.support.len()];
    let banks = BlockBanks::new(&bank, blocks, &parts);

    let (others_at, others) = job.images.tokens(&job.others, on_event)?;
    let (shots_at, shot_tokens) = job.images.tokens(job.shots(), on_event)?;
    let covered = covers(job, &shots_at)?;
    on_event(Event::Scoring(if shots_at.is_empty() {
        "good images, each without itself"
    } else {
        "good images, each without itself, and shots"
    }));
    let own = job.tokens.images.iter().zip((0..).map(Some));
    let good: Vec<(&ImageTokens, Option<usize>)> = own
        .chain(others.images.iter().map(|image| (image, None)))
        .collect();
    let shots: Vec<Shot<'_>> = shot_tokens
        .images
        .iter()
        .zip(covered)
        .map(|(image, covered)| Shot { image, covered })
        .collect();
    let options = ResidualOptions {
        seed: job.request.seed,
        ..ResidualOptions::default()
    };
    let fitted = fit_residual(&banks, &good, &shots, default_top(patches), &options)?;
    if let Some(head) = &fitted.model.head {
        on_event(Event::Note(format!(
            "learned from {} defects, {} with masks: {} patches, weight {:.2}",
            head.shots, head.masked_shots, head.positives, head.weight
        )));
    }
    let defects = fitted.shots.iter().map(|judged| judged.score).collect();
    let finding = |judged: Judged| fitted.model.finding(judged);
    Ok(Scored {
        kind: ScorerKind::Residual { blocks },
        patches: PatchOptions::default(),
        good: fitted.good.into_iter().map(finding).collect(),
        good_at: job.support.iter().chain(&others_at).copied().collect(),
        defects,
        residual: Some(fitted.model),
        bank,
        parts: Vec::new(),
        cells: None,
        index: None,
        ensemble: None,
    })
}

/// The share of each patch that the masks of these shots cover; `None` for a shot without one.
fn covers(job: &Job<'_>, shots: &[usize]) -> Result<Vec<Option<Vec<f32>>>, WorkflowError> {
    let (category, engine) = (job.images.category, job.images.engine);
    let of = |&position: &usize| {
        let sample = &category.dataset.samples[position];
        let files = &sample.masks;
        if files.is_empty() {
            return Ok(None);
        }
        let cover = patch_cover(
            &sample.path,
            files,
            &engine.preprocess(),
            job.grid,
            engine.config().patch_size,
        )?;
        // a mask that marks nothing says no more than none
        Ok(cover.iter().any(|share| *share > 0.0).then_some(cover))
    };
    shots.iter().map(of).collect()
}

/// What a request names that only the patch bank has.
pub(super) fn of_patch_bank(request: &FitRequest) -> Vec<&'static str> {
    [
        (
            request.aggregate != Aggregate::default(),
            "a share of the oddest patches",
        ),
        (request.coreset.is_some(), "a coreset"),
        (request.mask != MaskChoice::Off, "a background mask"),
        (request.neighbourhood > 1, "a neighbourhood"),
        (request.rotations, "rotations"),
        (
            request.index == IndexChoice::Approximate,
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
