//! The ensemble beside the prompts: fitted when a category is trained, fitted again and scored when it is evaluated.

use serde::{Deserialize, Serialize};

use super::frozen::{FrozenScores, Wanted};
use super::supervised::{self, SupervisedEvaluation, SupervisedOptions};
use super::{
    BackboneOptions, Category, Engine, Event, HeldOutThresholds, OnEvent, WorkflowError,
    default_layers,
};
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::metrics::{auroc, average_precision};
use flawtune::evaluate::protocol::ImageRef;
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::features::TokenSet;
use flawtune::score::Aggregate;
use flawtune::score::heads::{
    BANK_SHARE, Ensemble, EnsembleOptions, EnsembleRecord, EnsembleScore, Evidence, Guard,
    NORMALS_NEEDED, PatchBank,
};

/// Names the distances of a bank's own images, each left out.
const LEFT_OUT: &str = "left-out distances";

/// How the ensemble is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleFit {
    /// Blocks it looks at; `None`: the one at three quarters of the depth.
    pub layers: Option<Vec<i32>>,
    /// Its options.
    pub options: EnsembleOptions,
}

/// An ensemble that can be fitted: its layers exist.
pub(super) struct Planned {
    engine: Engine,
    options: EnsembleOptions,
}

impl Planned {
    /// The backbone with the blocks it looks at.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Checks what is asked for, before any training.
///
/// # Errors
/// Layers the backbone does not have.
pub(super) fn plan(
    engine: &Engine,
    how: &EnsembleFit,
    on_event: OnEvent<'_>,
) -> Result<Planned, WorkflowError> {
    let layers = how
        .layers
        .clone()
        .unwrap_or_else(|| default_layers(&engine.config().name, engine.config().depth));
    let engine = at_layers(engine, &layers, on_event).map_err(|e| match e {
        WorkflowError::Input(text) => {
            WorkflowError::Input(text.replacen("`layers`", "`ensemble_layers`", 1))
        }
        e => e,
    })?;
    Ok(Planned {
        engine,
        options: how.options.clone(),
    })
}

/// Fits the ensemble to the category's normal images and shots. `None`, with a warning, if there are fewer than four
/// normal images.
///
/// # Errors
/// Unreadable images, features that are not finite.
pub(super) fn fit(
    category: &Category,
    planned: &Planned,
    normals: &[usize],
    shots: &[usize],
    frozen: &FrozenScores,
    on_event: OnEvent<'_>,
) -> Result<Option<EnsembleRecord>, WorkflowError> {
    if normals.len() < NORMALS_NEEDED {
        on_event(Event::Warning(format!(
            "no ensemble: it needs {NORMALS_NEEDED} good images, and there are {}",
            normals.len()
        )));
        return Ok(None);
    }
    let Planned { engine, options } = planned;
    let (normals, tokens) = category.tokens(engine, normals, on_event)?;
    let (_, shot_tokens) = category.tokens(engine, shots, on_event)?;
    on_event(Event::Scoring("ensemble"));
    let bank = PatchBank::new(&tokens.images, tokens.dim);
    let wanted = Wanted {
        what: LEFT_OUT.to_owned(),
        category,
        engine,
        support: &normals,
        scored: &[],
    };
    let left_out = frozen.distances(&wanted, || Ok(bank.left_out_distances()))?;
    let evidence = Evidence::with_distances(&tokens.images, &left_out, BANK_SHARE)?;
    let shots = Evidence::with_distances(
        &shot_tokens.images,
        &bank.distances(&shot_tokens.images),
        BANK_SHARE,
    )?;
    let ensemble = Ensemble::fit(&evidence, &shots, options)?;
    Ok(Some(EnsembleRecord {
        layers: engine.options().layers.clone(),
        options: options.clone(),
        shots,
        normal_banks: evidence.iter().filter_map(|e| e.bank).collect(),
        normals_hash: hash(category, &normals),
        guard: ensemble.guard,
        trainable: ensemble.trainable(),
    }))
}

/// The same backbone and preprocessing, other blocks.
fn at_layers(
    engine: &Engine,
    layers: &[i32],
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    Engine::open(
        BackboneOptions {
            layers: layers.to_vec(),
            ..engine.options().clone()
        },
        on_event,
    )
}

fn hash(category: &Category, positions: &[usize]) -> String {
    let infos = category.infos();
    ImageRef::digest(
        &positions
            .iter()
            .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
            .collect::<Vec<_>>(),
    )
}

/// One zero-shot scorer on the ensemble's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZeroShotScorer {
    /// Which scorer.
    pub scorer: String,
    /// Area under the ROC curve; `null` with one class only.
    pub auroc: Option<f64>,
    /// Average precision.
    pub average_precision: f64,
}

/// The ensemble on a test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnsembleEvaluation {
    /// Its scores with the shots (`prompt_tuned`) against its own scores without any (`zero_shot`).
    #[serde(flatten)]
    pub comparison: Comparison,
    /// How the thresholds were chosen: good images scored by models that have not seen them.
    pub thresholds: Option<HeldOutThresholds>,
    /// Blocks it looks at.
    pub layers: Vec<i32>,
    /// Numbers trained on the shots.
    pub trainable: usize,
    /// What cross-validation over the shots said, and whether scores fell back to zero-shot.
    pub guard: Guard,
    /// Other scorers that know no defect, on the same tokens.
    pub zero_shot_scorers: Vec<ZeroShotScorer>,
    /// Plain supervised heads on the same tokens, where asked for.
    pub supervised: Vec<SupervisedEvaluation>,
}

/// Everything an evaluation needs beside the record.
pub(super) struct Job<'a> {
    pub(super) category: &'a Category,
    /// The backbone the prompts were evaluated on.
    pub(super) engine: &'a Engine,
    /// Positions of the normal images, sorted.
    pub(super) normals: &'a [usize],
    /// Positions of the tested images, in the test set's order.
    pub(super) tested: &'a [usize],
    pub(super) test: &'a TestSet<'a>,
    /// Positions of the shots it was fitted to.
    pub(super) shots: &'a [usize],
    /// Heads to fit beside it.
    pub(super) supervised: &'a SupervisedOptions,
    /// Fall back where the record says so.
    pub(super) guard: bool,
    pub(super) max_false_alarm: f64,
    pub(super) bootstrap: BootstrapOptions,
    pub(super) frozen: &'a FrozenScores,
}

/// What the ensemble is fitted to: the recorded distances of the good images, where they are those that it was fitted to.
fn evidence_of(
    record: &EnsembleRecord,
    job: &Job<'_>,
    (normals, support): (&[usize], &TokenSet),
    bank: &PatchBank,
    on_event: OnEvent<'_>,
) -> Result<Vec<Evidence>, WorkflowError> {
    if hash(job.category, normals) == record.normals_hash
        && record.normal_banks.len() == normals.len()
    {
        let one = |(mut e, bank): (Evidence, &f64)| {
            e.bank = Some(*bank);
            e
        };
        Ok(Evidence::of_images(&support.images)
            .into_iter()
            .zip(&record.normal_banks)
            .map(one)
            .collect())
    } else {
        on_event(Event::Warning(
            "train/good is not what the ensemble was fitted to; it is fitted again to what is there now"
                .into(),
        ));
        Ok(Evidence::with_distances(
            &support.images,
            &bank.left_out_distances(),
            BANK_SHARE,
        )?)
    }
}

/// Image scores by name, in the order of the test set.
pub(super) type Columns = Vec<(&'static str, Vec<f64>)>;

/// Fits the recorded ensemble again and scores the test set with it and with the heads asked for.
///
/// # Errors
/// As [`fit`]; a test image that cannot be read any more.
pub(super) fn evaluate(
    record: &EnsembleRecord,
    job: &Job<'_>,
    on_event: OnEvent<'_>,
) -> Result<(EnsembleEvaluation, Columns), WorkflowError> {
    let engine = at_layers(job.engine, &record.layers, on_event)?;
    let (normals, support) = job.category.tokens(&engine, job.normals, on_event)?;
    let (tested, tokens) = job.category.tokens(&engine, job.tested, on_event)?;
    if tested != job.tested {
        return Err(WorkflowError::Input(
            "images became unreadable during the evaluation".into(),
        ));
    }
    on_event(Event::Scoring("ensemble"));
    let bank = PatchBank::new(&support.images, support.dim);
    let evidence = evidence_of(record, job, (&normals, &support), &bank, on_event)?;
    let ensemble = record.fit(&evidence, job.guard)?;
    if ensemble.guard.fallback {
        on_event(Event::Warning(ensemble.guard.fallback_text()));
    }
    let wanted = Wanted {
        what: "distances to the bank".to_owned(),
        category: job.category,
        engine: &engine,
        support: &normals,
        scored: &tested,
    };
    let distances = job
        .frozen
        .distances(&wanted, || Ok(bank.distances(&tokens.images)))?;
    let scores: Vec<EnsembleScore> = ensemble.scores(&Evidence::with_distances(
        &tokens.images,
        &distances,
        BANK_SHARE,
    )?)?;
    let of = |f: fn(&EnsembleScore) -> f64| scores.iter().map(f).collect::<Vec<_>>();
    let (adapted, zero_shot) = (of(|s| s.adapted), of(|s| s.zero_shot));
    let plain = plain_scorers(&distances);
    let thresholds = HeldOutThresholds::new(
        &ensemble.held_out_normals,
        &ensemble.held_out_zero_shot,
        job.max_false_alarm,
    )?;
    let supervised = if job.supervised.scorers.is_empty() {
        Vec::new()
    } else {
        on_event(Event::Scoring("supervised heads"));
        let (shots, shot_tokens) = job.category.tokens(&engine, job.shots, on_event)?;
        let tokens = supervised::Block {
            category: job.category,
            engine: &engine,
            support: &support,
            bank: &bank,
            shots: &shots,
            shot_tokens: &shot_tokens,
            tested: &tokens,
            distances: &distances,
        };
        supervised::evaluate(&tokens, job.supervised, job.test, job.bootstrap)?
    };
    let evaluation = EnsembleEvaluation {
        comparison: Comparison::new(
            job.test,
            Scored {
                scores: &adapted,
                threshold: Some(thresholds.prompt_tuned.value),
            },
            Scored {
                scores: &zero_shot,
                threshold: Some(thresholds.zero_shot.value),
            },
            job.bootstrap,
        )?,
        thresholds: Some(thresholds),
        layers: record.layers.clone(),
        trainable: ensemble.trainable(),
        guard: ensemble.guard,
        zero_shot_scorers: measured(job.test, &plain)?,
        supervised: supervised.iter().map(|(found, _)| found.clone()).collect(),
    };
    let mut columns: Columns = vec![("ensemble_zero_shot", zero_shot), ("ensemble", adapted)];
    columns.extend(
        plain
            .into_iter()
            .map(|(column, _, scores)| (column, scores)),
    );
    columns.extend(
        supervised
            .into_iter()
            .map(|(found, scores)| (found.scorer.name(), scores)),
    );
    Ok((evaluation, columns))
}

/// A scorer that knows no defect: its column, its name for people, its image scores.
type Plain = (&'static str, &'static str, Vec<f64>);

fn plain_scorers(distances: &[Vec<f32>]) -> Vec<Plain> {
    let scorers = [
        (
            "bank_top",
            "patch bank, top 1 %",
            Aggregate::TopFraction(BANK_SHARE),
        ),
        ("bank_mean", "patch bank, mean", Aggregate::Mean),
    ];
    let one = |(column, name, aggregate): (&'static str, &'static str, Aggregate)| {
        (
            column,
            name,
            distances.iter().map(|d| aggregate.score(d)).collect(),
        )
    };
    scorers.into_iter().map(one).collect()
}

fn measured(test: &TestSet<'_>, scorers: &[Plain]) -> Result<Vec<ZeroShotScorer>, WorkflowError> {
    let labels: Vec<bool> = test.defect_types.iter().map(Option::is_some).collect();
    let one = |(_, scorer, scores): &Plain| {
        Ok(ZeroShotScorer {
            scorer: (*scorer).to_owned(),
            auroc: auroc(&labels, scores)?,
            average_precision: average_precision(&labels, scores)?,
        })
    };
    scorers.iter().map(one).collect()
}
