//! Scorers on tokens that went through trained tensors inside the transformer: the patch bank, and the ensemble fitted
//! to those tokens. They answer whether such training earns its cost, and whether heads on top of it do.

use serde::{Deserialize, Serialize};

use super::{Category, Engine, Event, OnEvent, WorkflowError, inside};
use crate::adapt::inside::Inserted;
use crate::adapt::rows_of;
use crate::adapt::{Adaptation, Tape};
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::score::Aggregate;
use flawtune::score::heads::{
    BANK_SHARE, Ensemble, EnsembleOptions, EnsembleScore, Evidence, PatchBank,
};

/// Scorers on adapted tokens against the same scorers on the frozen ones, block for block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaptedTokens {
    /// Patch bank, mean of the top 1 % of the patch distances.
    pub bank: Comparison,
    /// The ensemble fitted to the adapted tokens and the shots against the patch bank of the frozen tokens.
    pub ensemble: Comparison,
    /// The ensemble fitted to the frozen tokens of the same block against the same patch bank: what the shots are worth
    /// without any training through the backbone.
    pub frozen_ensemble: Comparison,
}

/// The images of an evaluation, as positions in the category, and their frozen tokens.
pub(super) struct Job<'a> {
    pub(super) category: &'a Category,
    pub(super) engine: &'a Engine,
    /// Good images and their tokens.
    pub(super) normals: (&'a [usize], &'a TokenSet),
    /// The shots that trained.
    pub(super) shots: &'a [usize],
    /// Tested images and their tokens, with those that are only counted apart.
    pub(super) tested: (&'a [usize], &'a TokenSet),
    /// Which of `tested` make up `test`.
    pub(super) main: &'a [usize],
    pub(super) test: &'a TestSet<'a>,
    pub(super) bootstrap: BootstrapOptions,
}

/// Adapted tokens of the good images and of the tested images.
pub(super) struct Tokens {
    pub(super) normals: TokenSet,
    pub(super) tested: TokenSet,
    shots: TokenSet,
}

/// The tokens of the job with what was trained: through the backbone with `inserted` in it, if there is, and through the
/// output modulation where that was trained.
///
/// # Errors
/// Tensors made for another backbone, images that cannot be read.
pub(super) fn tokens(
    job: &Job<'_>,
    inserted: Option<&Inserted>,
    adaptation: &Adaptation,
    on_event: OnEvent<'_>,
) -> Result<Tokens, WorkflowError> {
    let mut found = match inserted {
        Some(inserted) => {
            let lists = [job.normals.0, job.tested.0, job.shots];
            let found = inside::tokens(job.category, job.engine, inserted, &lists, on_event)?;
            let [normals, tested, shots] = found.try_into().map_err(|_| missing())?;
            Tokens {
                normals,
                tested,
                shots,
            }
        }
        None => Tokens {
            normals: job.normals.1.clone(),
            tested: job.tested.1.clone(),
            shots: job.category.tokens(job.engine, job.shots, on_event)?.1,
        },
    };
    if inserted.is_none_or(|i| i.options.modulate_output) {
        for set in [&mut found.normals, &mut found.tested, &mut found.shots] {
            modulate(set, adaptation);
        }
    }
    Ok(found)
}

/// The frozen tokens of two lists of images with what was trained, through the backbone or only behind it.
///
/// # Errors
/// As [`tokens`].
pub(super) fn of_lists(
    category: &Category,
    engine: &Engine,
    inserted: Option<&Inserted>,
    adaptation: &Adaptation,
    frozen: [(&[usize], TokenSet); 2],
    on_event: OnEvent<'_>,
) -> Result<[TokenSet; 2], WorkflowError> {
    let lists = [frozen[0].0, frozen[1].0];
    let mut found = frozen.map(|(_, tokens)| tokens);
    if let Some(inserted) = inserted {
        let through = inside::tokens(category, engine, inserted, &lists, on_event)?;
        found = through.try_into().map_err(|_| missing())?;
    }
    if inserted.is_none_or(|i| i.options.modulate_output) {
        for set in &mut found {
            modulate(set, adaptation);
        }
    }
    Ok(found)
}

fn missing() -> WorkflowError {
    WorkflowError::Input("a list of images is missing".into())
}

/// Applies the output modulation to the tokens it was trained for; the others stay.
pub(super) fn modulate(set: &mut TokenSet, adaptation: &Adaptation) {
    let use_cls = adaptation.options().use_cls;
    let (patches, dim) = (set.patches(), set.dim);
    let mut tape = Tape::default();
    for image in &mut set.images {
        let rows = rows_of(image, use_cls);
        let mut changed = vec![0.0; rows.len()];
        adaptation.apply(&[rows], &mut changed, &mut tape);
        let all = if use_cls {
            [&changed, image.patches()].concat()
        } else {
            [image.cls(), &changed].concat()
        };
        *image = ImageTokens::owned(all, patches, dim);
    }
}

/// Image scores of the scorers, in the order of the test set.
pub(super) struct Scores {
    pub(super) bank: Vec<f64>,
    pub(super) frozen_bank: Vec<f64>,
    pub(super) ensemble: Vec<f64>,
    pub(super) frozen_ensemble: Vec<f64>,
}

/// Fits and scores.
///
/// # Errors
/// Fewer than four good images; features that are not finite.
pub(super) fn evaluate(
    job: &Job<'_>,
    adapted: &Tokens,
    options: &EnsembleOptions,
    on_event: OnEvent<'_>,
) -> Result<(AdaptedTokens, Scores), WorkflowError> {
    on_event(Event::Scoring("adapted tokens"));
    let (bank, ensemble) = scores(
        &adapted.normals,
        &adapted.shots,
        &adapted.tested,
        job.main,
        options,
    )?;
    let frozen_shots = job.category.tokens(job.engine, job.shots, on_event)?.1;
    let (frozen_bank, frozen_ensemble) = scores(
        job.normals.1,
        &frozen_shots,
        job.tested.1,
        job.main,
        options,
    )?;
    let compare = |with: &[f64]| {
        let scored = |scores| Scored {
            scores,
            threshold: None,
        };
        Comparison::new(job.test, scored(with), scored(&frozen_bank), job.bootstrap)
    };
    let found = AdaptedTokens {
        bank: compare(&bank)?,
        ensemble: compare(&ensemble)?,
        frozen_ensemble: compare(&frozen_ensemble)?,
    };
    Ok((
        found,
        Scores {
            bank,
            frozen_bank,
            ensemble,
            frozen_ensemble,
        },
    ))
}

/// Scores of the patch bank and of the ensemble, both fitted to these tokens.
fn scores(
    normals: &TokenSet,
    shots: &TokenSet,
    tested: &TokenSet,
    main: &[usize],
    options: &EnsembleOptions,
) -> Result<(Vec<f64>, Vec<f64>), WorkflowError> {
    let bank = PatchBank::new(&normals.images, normals.dim);
    let images: Vec<ImageTokens> = main.iter().map(|&i| tested.images[i].clone()).collect();
    let distances = bank.distances(&images);
    let evidence =
        Evidence::with_distances(&normals.images, &bank.left_out_distances(), BANK_SHARE)?;
    let of_shots =
        Evidence::with_distances(&shots.images, &bank.distances(&shots.images), BANK_SHARE)?;
    let ensemble = Ensemble::fit(&evidence, &of_shots, options)?;
    let found: Vec<EnsembleScore> =
        ensemble.scores(&Evidence::with_distances(&images, &distances, BANK_SHARE)?)?;
    let top = Aggregate::TopFraction(BANK_SHARE);
    Ok((
        distances.iter().map(|d| top.score(d)).collect(),
        found.iter().map(|s| s.adapted).collect(),
    ))
}
