//! Scorers of one block's tokens: the patch bank, image pairs and the ensemble of a checkpoint.

use super::residual::shown;
use super::{Job, Scored, ScorerChoice, bank, index};
use crate::bundle::{Finding, PatchOptions, ScorerKind, TokenScorer};
use crate::features::TokenSet;
use crate::score::Scorer as _;
use crate::score::heads::{
    BANK_SHARE, Ensemble, EnsembleOptions, EnsembleRecord, Evidence, NORMALS_NEEDED,
};
use crate::workflow::{Event, OnEvent, WorkflowError};

/// Fits such a scorer, and scores good images and unseen defects with it.
#[expect(clippy::too_many_lines, reason = "the order of a fit")]
pub(super) fn fit(job: &Job<'_>, on_event: OnEvent<'_>) -> Result<Scored, WorkflowError> {
    let Job {
        request,
        choice,
        given,
        images: ref source,
        grid,
        ..
    } = *job;
    let (support, others) = (&job.support, &job.others);
    let tokens = &job.tokens;
    on_event(Event::Scoring("support"));
    let patches = PatchOptions {
        mask: bank::mask(request.options.mask, tokens)?,
        neighbourhood: request.options.neighbourhood,
    };
    let views = if request.options.rotations {
        source.turned(support, on_event)?
    } else {
        Vec::new()
    };
    let (bank, parts) = bank::bank(request, tokens, &views, patches)?;
    drop(views);
    let indexed = index::wanted(request, choice, bank.rows());
    let index::Sorted {
        bank,
        cells,
        owners,
    } = index::sorted(indexed, bank, &parts, request.options.seed);
    let scorer = match choice {
        ScorerChoice::ImagePair if request.options.k_neighbors >= support.len() => {
            return Err(WorkflowError::Input(format!(
                "`k_neighbors` {} with {} support images: an image is compared with the others when the threshold is \
                 chosen, so at most {} can be asked for",
                request.options.k_neighbors,
                support.len(),
                support.len() - 1
            )));
        }
        ScorerChoice::ImagePair => ScorerKind::ImagePair {
            k: request.options.k_neighbors,
        },
        ScorerChoice::PatchBank => ScorerKind::PatchBank {
            aggregate: request.options.aggregate,
        },
        ScorerChoice::Ensemble => ScorerKind::Ensemble,
        // refused below: it looks at several blocks
        ScorerChoice::Residual => ScorerKind::Residual { blocks: 1 },
    };
    let mut token_scorer =
        TokenScorer::new(&request.output, scorer, patches, grid, &bank, &parts, None)?;
    let mut index = None;
    if let Some(cells) = &cells {
        let probes = request.options.index_probes.min(cells.len());
        token_scorer = token_scorer.with_cells(cells.clone(), probes, owners);
        if support.len() > 1 {
            index = index::info(&token_scorer, cells, probes, tokens, true, on_event)?;
        }
    }
    let whole = request.options.coreset.is_none() && !request.options.rotations;
    let left_out = |scorer: &TokenScorer, on_event: OnEvent<'_>| {
        scorer.score_left_out(tokens, whole, &mut shown(tokens.images.len(), on_event))
    };
    let mut own: Option<Vec<Finding>> = None;
    let mut ensemble = None;
    if choice == ScorerChoice::Ensemble {
        let mut findings = left_out(&token_scorer, on_event)?;
        let shots = source.tokens(job.shots(), on_event)?.1;
        let record = given.and_then(|g| g.ensemble.as_ref());
        let fitted = fit_ensemble(
            &token_scorer,
            tokens,
            &findings,
            &shots,
            record,
            request.options.guard,
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
        let (kept, tokens) = source.tokens(others, on_event)?;
        good = token_scorer.score(&tokens)?;
        good_at = kept;
        if let (None, Some(cells)) = (&index, &cells) {
            let probes = request.options.index_probes.min(cells.len());
            index = index::info(&token_scorer, cells, probes, &tokens, false, on_event)?;
        }
    }
    if good.len() < support.len() {
        if support.len() < 2 {
            return Err(WorkflowError::Input(format!(
                "{}: one good image cannot be scored without itself; a threshold needs two in train/good",
                source.category.dataset.category
            )));
        }
        good.extend(match own {
            Some(findings) => findings,
            None => left_out(&token_scorer, on_event)?,
        });
        good_at.extend(support);
    }
    let defects = unseen_defects(job, ensemble.as_ref(), &token_scorer, on_event)?;
    Ok(Scored {
        kind: scorer,
        patches,
        bank,
        parts: if choice == ScorerChoice::ImagePair {
            parts
        } else {
            Vec::new()
        },
        cells,
        index,
        ensemble,
        residual: None,
        kept: None,
        more: Vec::new(),
        good_at,
        good,
        defects,
    })
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
            "the ensemble needs {NORMALS_NEEDED} good images in the support, and there are {}\nhint: raise `support_shots`, or \
             use `scorer` patch-bank",
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
    job: &Job<'_>,
    ensemble: Option<&Ensemble>,
    scorer: &TokenScorer,
    on_event: OnEvent<'_>,
) -> Result<Vec<f64>, WorkflowError> {
    // without a checkpoint the pool is no one's to look at
    let Some(given) = job.given else {
        return Ok(Vec::new());
    };
    let learned = job.choice == ScorerChoice::Ensemble || !given.falls_back;
    let pool = &job.split.pool;
    let unseen = if learned {
        &pool[job.split.shots.len()..]
    } else {
        pool
    };
    let tokens = job.images.tokens(unseen, on_event)?.1;
    let mut scores: Vec<f64> = scorer.score(&tokens)?.iter().map(|f| f.score).collect();
    scores.extend(ensemble.iter().flat_map(|e| &e.held_out_shots));
    Ok(scores)
}
