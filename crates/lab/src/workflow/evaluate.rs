//! Evaluate a checkpoint: adapted and zero-shot scores of one test set, in one run.

use std::path::{Path, PathBuf};

use flawtune_backbone::torch_file::Value;
use serde::{Deserialize, Serialize};

use super::frozen::{FrozenScores, Wanted};
use super::manifests::{manifest, manifests};
use super::meta::init_lists;
use super::supervised::{Supervised, SupervisedOptions};
use super::universal::adaptation_for;
use super::{
    AdaptedTokens, BackboneOptions, BackboneOverrides, Category, CategoryOptions, Engine,
    EnsembleEvaluation, Event, HeldOutThresholds, HierarchyEvaluation, OnEvent, WorkflowError,
    adapted, ensemble, held_out::HeldOut, hierarchy, sorted, writable, write_json,
};
use crate::adapt::guard::PromptGuard;
use crate::adapt::{self, Checkpoint, Loss};
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::protocol::{Protocol, Split, SplitManifest, SplitOptions, check_disjoint};
use flawtune::evaluate::rows::{self, Row};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::features::{Forward as _, TokenSet};
use flawtune::score::heads::{EnsembleOptions, EnsembleRecord};
use flawtune::score::{SupportSet, TokenKind};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct EvaluateRequest {
    /// The images.
    pub data: CategoryOptions,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// What the user says about the backbone; it must agree with the checkpoint.
    pub backbone: BackboneOverrides,
    /// Who is tested; `None`: what the checkpoint was trained under.
    pub protocol: Option<Protocol>,
    /// Support images whose similarities are averaged.
    pub k_neighbors: usize,
    /// Share of good images that may be called defective, for the thresholds.
    pub max_false_alarm: f64,
    /// Intervals.
    pub bootstrap: BootstrapOptions,
    /// Fall back to zero-shot where cross-validation over the shots showed a loss.
    pub guard: bool,
    /// Supervised heads to fit and score beside the ensemble.
    pub supervised: SupervisedOptions,
    /// Scores of the untouched model that other evaluations of this process have computed, or may need.
    pub frozen: FrozenScores,
    /// Where `<category>_comparison.json` and `<category>_scores.csv` go.
    pub output_dir: PathBuf,
}

/// AUROC on the defect type that was learned (`--protocol hard` only), apart from the unseen types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenType {
    /// The type.
    pub defect_type: String,
    /// Its images outside the pool.
    pub images: usize,
    /// AUROC of the adapted scores.
    pub prompt_tuned_auroc: Option<f64>,
    /// AUROC of the zero-shot scores.
    pub zero_shot_auroc: Option<f64>,
}

/// What is written: the comparison and how it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The comparison.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Every scorer of the scores table, in its order, held against what knows no defect or less.
    #[serde(default)]
    pub rows: Vec<Row>,
    /// How the thresholds of both scorers were chosen; none where no good image was held out of training.
    pub thresholds: Option<HeldOutThresholds>,
    /// The ensemble of the checkpoint on the same test set, where it has one and the category is the one it was
    /// trained on.
    pub ensemble: Option<EnsembleEvaluation>,
    /// What images that did not train said about the prompts; with `fallback` (and the guard on) `prompt_tuned` is zero-shot.
    pub prompt_guard: Option<PromptGuard>,
    /// Other scorers on the adapted tokens: where tensors inside the transformer or a loss of image scores made them,
    /// and the guard did not fall back.
    pub adapted_tokens: Option<AdaptedTokens>,
    /// What the levels of known defect types made of the test set, where the checkpoint has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hierarchy: Option<HierarchyEvaluation>,
    /// Whether training images are among the tested: such numbers are not a result.
    pub leaky: bool,
    /// AUROC on the learned type, under the hard protocol.
    pub seen_type: Option<SeenType>,
    /// Support images whose similarities are averaged.
    pub k_neighbors: usize,
    /// Support images in all.
    pub support_images: usize,
    /// Backbone.
    pub model_name: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Version of this program.
    pub flawtune_version: String,
}

/// The evaluation and where it was written.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// What was found.
    pub evaluation: Evaluation,
    /// The file.
    pub path: PathBuf,
}

/// Scores the test set with and without the checkpoint's adaptation and writes `<category>_comparison.json`.
///
/// # Errors
/// A checkpoint for another backbone; one whose training images are in the test set, unless leaky; anything wrong
/// with the data.
pub fn evaluate(
    request: &EvaluateRequest,
    on_event: OnEvent<'_>,
) -> Result<Evaluated, WorkflowError> {
    let checkpoint = Checkpoint::read(&request.checkpoint)?;
    on_event(Event::Read(&request.checkpoint));
    let all = manifests(&request.checkpoint, &checkpoint)?;
    let category = Category::open(&request.data, on_event)?;
    let name = category.dataset.category.clone();
    let manifest = manifest(&request.checkpoint, &checkpoint, &name)?;
    let protocol = protocol(request, manifest.as_ref())?;
    if name != checkpoint.category && all.iter().all(|m| m.category != name) {
        let trained: Vec<&str> = all.iter().map(|m| m.category.as_str()).collect();
        on_event(Event::Warning(format!(
            "{} was trained on {}, not on {name}",
            request.checkpoint.display(),
            if trained.is_empty() {
                checkpoint.category.clone()
            } else {
                trained.join(", ")
            }
        )));
    }
    let split = category.split(&split_options(
        &checkpoint,
        manifest.as_ref(),
        &name,
        &protocol,
    ))?;
    on_event(Event::Split(&split.manifest));
    let infos = category.infos();
    if !all.is_empty() {
        let tested = split.tested(&infos);
        let started_from = init_lists(&request.checkpoint, &checkpoint)?;
        for manifest in all.iter().chain(&started_from) {
            check_disjoint(manifest, &name, &tested, &protocol)?;
        }
    }
    writable(&request.output_dir)?;
    let engine = open_backbone(
        &request.checkpoint,
        &request.backbone,
        &checkpoint,
        on_event,
    )?;
    let adaptation = adaptation_for(&checkpoint, &name)?;

    let normals: Vec<usize> = sorted(split.train_normals.iter().chain(&split.holdout_normals));
    let (supporting, support) = category.tokens(&engine, &normals, on_event)?;
    let wanted: Vec<usize> = sorted(split.test.iter().chain(&split.seen_type_test));
    let (tested, tokens) = category.tokens(&engine, &wanted, on_event)?;
    adaptation.check(&tokens)?;
    let kind = if adaptation.options().use_cls {
        TokenKind::Class
    } else {
        TokenKind::Patches
    };
    let k = request.k_neighbors;
    let held_out = HeldOut::new(&supporting, &split.holdout_normals, k, on_event);
    // scores of the tested and of the held-out good images
    let score = |normals: &TokenSet, tokens: &TokenSet, adaptation| -> Result<_, WorkflowError> {
        let support = SupportSet::new(normals, kind, adaptation)?;
        let held = held_out
            .as_ref()
            .map(|h| h.scores(&support, normals))
            .transpose()?;
        Ok((support.score_pairs(tokens, k, false)?.scores, held))
    };
    on_event(Event::PartBegins("scoring"));
    on_event(Event::Scoring("zero-shot"));
    // the held-out images' scores stand behind those of the tested
    let scored: Vec<usize> = tested
        .iter()
        .chain(held_out.iter().flat_map(|_| &split.holdout_normals))
        .copied()
        .collect();
    let untouched = Wanted {
        what: format!("image pairs, {kind:?}, k = {k}, {} tested", tested.len()),
        category: &category,
        engine: &engine,
        support: &supporting,
        scored: &scored,
    };
    let both = request.frozen.scores(&untouched, || {
        let (mut tested, held) = score(&support, &tokens, None)?;
        tested.extend(held.unwrap_or_default());
        Ok(tested)
    })?;
    let zero_shot = both[..tested.len()].to_vec();
    let held_zero_shot = held_out.as_ref().map(|_| both[tested.len()..].to_vec());
    let unseen: std::collections::HashSet<usize> = split.test.iter().copied().collect();
    let main: Vec<usize> = (0..tested.len())
        .filter(|&i| unseen.contains(&tested[i]))
        .collect();
    let pick = |scores: &[f64]| main.iter().map(|&i| scores[i]).collect::<Vec<_>>();
    let ids: Vec<&str> = main.iter().map(|&i| infos[tested[i]].id).collect();
    let types: Vec<Option<&str>> = main.iter().map(|&i| infos[tested[i]].defect_type).collect();
    let test = TestSet {
        category: &name,
        protocol: &protocol.to_string(),
        seed: split.seed,
        shots: manifest.as_ref().map_or(split.shots.len(), |m| m.shots),
        hash: &split.test_set_hash(&infos),
        ids: &ids,
        defect_types: &types,
    };
    let prompt_guard = guard_of(&request.checkpoint, &checkpoint)?;
    let falls_back = request.guard && prompt_guard.is_some_and(|g| g.fallback);
    if let Some(guard) = prompt_guard.filter(|_| falls_back) {
        on_event(Event::Warning(fallback_text(&guard)));
    }
    let score_loss = checkpoint.args.get("loss_type").and_then(Value::as_str);
    let by_bank = score_loss.is_some_and(|name| matches!(name.parse(), Ok(Loss::Scores(_))));
    let through = match &checkpoint.inserted {
        _ if falls_back => None,
        inserted if inserted.is_some() || by_bank => {
            let own = name == checkpoint.category || all.iter().any(|m| m.category == name);
            let shots: Vec<usize> = if own { split.shots.clone() } else { Vec::new() };
            let job = adapted::Job {
                category: &category,
                engine: &engine,
                normals: (&supporting, &support),
                shots: &shots,
                tested: (&tested, &tokens),
                main: &main,
                test: &test,
                bootstrap: request.bootstrap,
            };
            let tokens = adapted::tokens(&job, inserted.as_ref(), &adaptation, on_event)?;
            let options = EnsembleOptions {
                guard: request.guard,
                seed: split.seed,
                ..EnsembleOptions::default()
            };
            let scorers = adapted::evaluate(&job, &tokens, &options, on_event)?;
            Some((tokens, scorers))
        }
        _ => None,
    };
    on_event(Event::Scoring("adapted"));
    let (adapted, held_adapted) = match &through {
        _ if falls_back => (zero_shot.clone(), held_zero_shot.clone()),
        Some((adapted, _)) => score(&adapted.normals, &adapted.tested, None)?,
        None => score(&support, &tokens, Some(&adaptation))?,
    };
    let thresholds = held_adapted
        .zip(held_zero_shot)
        .map(|(a, b)| HeldOutThresholds::new(&a, &b, request.max_false_alarm))
        .transpose()?;
    let at = |of: fn(&HeldOutThresholds) -> f64| thresholds.as_ref().map(of);
    let mut columns = vec![
        ("zero_shot", pick(&zero_shot)),
        ("prompt_tuned", pick(&adapted)),
    ];
    let ensemble = match ensemble_of(&request.checkpoint, &checkpoint)? {
        Some(record) if name == checkpoint.category => {
            let job = ensemble::Job {
                category: &category,
                engine: &engine,
                normals: &normals,
                tested: &main.iter().map(|&i| tested[i]).collect::<Vec<_>>(),
                test: &test,
                shots: &split.shots,
                supervised: &request.supervised,
                guard: request.guard,
                max_false_alarm: request.max_false_alarm,
                bootstrap: request.bootstrap,
                frozen: &request.frozen,
            };
            let (found, scores) = ensemble::evaluate(&record, &job, on_event)?;
            columns.extend(scores);
            Some(found)
        }
        _ if !request.supervised.scorers.is_empty() => {
            return Err(WorkflowError::Input(format!(
                "{}: holds no ensemble for {name}, whose block and shots `scorers` would use\nhint: train without \
                 `no_ensemble` on this category, or omit `scorers`",
                request.checkpoint.display()
            )));
        }
        _ => None,
    };
    let adapted_tokens = through.map(|(_, (found, scores))| {
        columns.extend([
            ("zero_shot_bank", scores.frozen_bank),
            ("adapted_bank", scores.bank),
            ("frozen_ensemble", scores.frozen_ensemble),
            ("adapted_ensemble", scores.ensemble),
        ]);
        found
    });
    let levels = match hierarchy::of(&request.checkpoint, &checkpoint)? {
        Some(levels) => {
            let images = main.iter().map(|&i| tokens.images[i].clone()).collect();
            let tokens = TokenSet {
                images,
                grid: tokens.grid,
                dim: tokens.dim,
            };
            let job = hierarchy::Job {
                category: &category,
                engine: &engine,
                normals: &support,
                tested: (
                    &main.iter().map(|&i| tested[i]).collect::<Vec<_>>(),
                    &tokens,
                ),
                test: &test,
                bootstrap: request.bootstrap,
                output_dir: &request.output_dir,
            };
            let (found, [untouched, flat, own]) =
                hierarchy::evaluate(&levels, &adaptation, &job, on_event)?;
            let named = columns.iter().any(|(name, _)| *name == "zero_shot_bank");
            columns.extend((!named).then_some(("zero_shot_bank", untouched)));
            columns.extend([("flat_bank", flat), ("hierarchical_bank", own)]);
            Some(found)
        }
        None => None,
    };
    let leaky = protocol == Protocol::Leaky;
    let at = [at(|t| t.zero_shot.value), at(|t| t.prompt_tuned.value)];
    let rows = rows_of(&test, leaky, &columns, at, request.bootstrap)?;
    let comparison = Comparison::of_rows(&rows, [1, 0], &test, &columns[1].1);
    let evaluation = Evaluation {
        rows: rows.rows,
        hierarchy: levels,
        ensemble,
        prompt_guard,
        adapted_tokens,
        seen_type: seen_type(
            &protocol, &split, &tested, &tokens, &infos, &adapted, &zero_shot,
        )?,
        comparison,
        thresholds,
        leaky,
        k_neighbors: k,
        support_images: support.images.len(),
        model_name: engine.config().name.clone(),
        weights_hash: engine.weights_hash().to_owned(),
        checkpoint: request.checkpoint.clone(),
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let path = request.output_dir.join(format!("{name}_comparison.json"));
    write_json(&path, &evaluation)?;
    on_event(Event::Wrote(&path));
    let scores = request.output_dir.join(format!("{name}_scores.csv"));
    ScoreTable::new(&test, &columns).write(&scores)?;
    on_event(Event::Wrote(&scores));
    on_event(Event::PartEnds("scoring"));
    Ok(Evaluated { evaluation, path })
}

/// The scorer that another is held against, by their columns; none for those that know no defect.
fn base_of(column: &str) -> Option<&'static str> {
    match column {
        "prompt_tuned" => Some("zero_shot"),
        "ensemble" => Some("ensemble_zero_shot"),
        "adapted_bank" | "frozen_ensemble" | "adapted_ensemble" | "flat_bank" => {
            Some("zero_shot_bank")
        }
        "hierarchical_bank" => Some("flat_bank"),
        head if Supervised::ALL.iter().any(|s| s.name() == head) => Some("bank_top"),
        _ => None,
    }
}

/// A row for each column; `thresholds` are those of the first ones.
fn rows_of(
    test: &TestSet<'_>,
    leaky: bool,
    columns: &[(&'static str, Vec<f64>)],
    thresholds: [Option<f64>; 2],
    bootstrap: BootstrapOptions,
) -> Result<rows::Evaluation, WorkflowError> {
    let place = |name: &str| columns.iter().position(|(column, _)| *column == name);
    let of = |(i, (scorer, scores)): (usize, &(&'static str, Vec<f64>))| {
        let base = base_of(scorer);
        rows::Column {
            scorer,
            taught: base.is_some(),
            scored: Scored {
                scores,
                threshold: thresholds.get(i).copied().flatten(),
            },
            against: base.and_then(place),
        }
    };
    let columns: Vec<_> = columns.iter().enumerate().map(of).collect();
    Ok(rows::Evaluation::of(test, leaky, &columns, bootstrap)?)
}

pub(super) fn ensemble_of(
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<Option<EnsembleRecord>, WorkflowError> {
    let Some(value) = checkpoint.other(EnsembleRecord::KEY) else {
        return Ok(None);
    };
    EnsembleRecord::from_value(value).map(Some).map_err(|key| {
        WorkflowError::Input(format!(
            "{}: '{}.{key}' is missing or wrong\nhint: train it again",
            path.display(),
            EnsembleRecord::KEY
        ))
    })
}

pub(super) fn guard_of(
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<Option<PromptGuard>, WorkflowError> {
    checkpoint
        .other(PromptGuard::KEY)
        .map(PromptGuard::from_value)
        .transpose()
        .map_err(|key| {
            WorkflowError::Input(format!(
                "{}: '{}.{key}' is missing or wrong\nhint: train it again",
                path.display(),
                PromptGuard::KEY
            ))
        })
}

/// What a fallback of the prompts means, for people.
pub(super) fn fallback_text(guard: &PromptGuard) -> String {
    let found = match (guard.zero_shot, guard.adapted) {
        (Some(before), Some(after)) => {
            let error = guard
                .standard_error
                .map_or_else(String::new, |e| format!(" ± {e:.3}"));
            format!(
                "left-out images are ranked no better with the prompts ({after:.3}{error}) than without ({before:.3})"
            )
        }
        _ => "no shot was left out of training, so nothing says that the prompts help".to_owned(),
    };
    format!("guard: {found}; their scores are the zero-shot ones; `no_guard` switches this off")
}

fn protocol(
    request: &EvaluateRequest,
    manifest: Option<&SplitManifest>,
) -> Result<Protocol, WorkflowError> {
    match (&request.protocol, manifest) {
        (Some(asked), _) if *asked == Protocol::Leaky => Ok(Protocol::Leaky),
        (_, None) => Err(WorkflowError::Input(format!(
            "{} does not say which images it was trained on, so that no test set can be shown to be free of them; \
             `protocol` leaky evaluates it all the same, and says so beside every number",
            request.checkpoint.display()
        ))),
        // a type that was learned stays the type that was learned
        (Some(Protocol::Hard { .. }) | None, Some(m)) => Ok(m.protocol.clone()),
        (Some(asked), Some(_)) => Ok(asked.clone()),
    }
}

pub(super) fn split_options(
    checkpoint: &Checkpoint,
    manifest: Option<&SplitManifest>,
    category: &str,
    protocol: &Protocol,
) -> SplitOptions {
    match manifest {
        Some(m) if m.category == category => SplitOptions {
            protocol: protocol.clone(),
            pool: m.options().pool.filter(|_| m.protocol == *protocol),
            ..m.options()
        },
        // another category: none of its images trained; the usual pool leaves the test set all the same
        Some(m) => SplitOptions {
            shots: 0,
            ..SplitOptions::held_out(m.seed, 0)
        },
        None => SplitOptions {
            protocol: protocol.clone(),
            shots: 0,
            ..SplitOptions::held_out(checkpoint.options.seed, 0)
        },
    }
}

/// The backbone the checkpoint was trained on, with what the user says over it.
pub(super) fn open_backbone(
    path: &Path,
    overrides: &BackboneOverrides,
    checkpoint: &Checkpoint,
    on_event: OnEvent<'_>,
) -> Result<Engine, WorkflowError> {
    let mut saved: BackboneOptions = checkpoint
        .args
        .get("backbone")
        .and_then(|v| serde_json::from_value(adapt::json(v)).ok())
        .unwrap_or_default();
    if saved.model_name.is_none() {
        saved.model_name = Some(checkpoint.model_name.clone());
    }
    // a path of the machine it was trained on may not exist here: then the weights are found by name
    if overrides.weights.is_none() && saved.weights.as_ref().is_some_and(|p| !p.exists()) {
        saved.weights = None;
    }
    let options = overrides.over(saved);
    let engine = Engine::open(options, on_event)?;
    let dim = flawtune::features::Forward::dim(&engine);
    checkpoint.check_backbone(path, &engine.config().name, dim)?;
    let differs = |what: &str, then: &str, now: &str, todo: &str| {
        Err(WorkflowError::Input(format!(
            "{}: trained with {what} {then}, but this is {now}; {todo}",
            path.display()
        )))
    };
    let now = engine.weights_hash().to_owned();
    if let Some(then) = checkpoint
        .weights_hash
        .as_ref()
        .filter(|then| **then != now)
    {
        return differs(
            "the weights",
            then,
            &now,
            "give the same file with `weights`",
        );
    }
    let now = engine.preprocess().id();
    if let Some(then) = checkpoint
        .preprocessing
        .as_ref()
        .filter(|then| **then != now)
    {
        return differs(
            "the preprocessing",
            then,
            &now,
            "omit the preprocessing options",
        );
    }
    let now = engine.layers_text();
    if let Some(then) = checkpoint.layers.as_ref().filter(|then| **then != now) {
        return differs("the layers", then, &now, "omit `layers`");
    }
    Ok(engine)
}

fn seen_type(
    protocol: &Protocol,
    split: &Split,
    tested: &[usize],
    tokens: &TokenSet,
    infos: &[flawtune::evaluate::protocol::SampleInfo<'_>],
    adapted: &[f64],
    zero_shot: &[f64],
) -> Result<Option<SeenType>, WorkflowError> {
    let Protocol::Hard { defect_type } = protocol else {
        return Ok(None);
    };
    let seen: std::collections::HashSet<usize> = split.seen_type_test.iter().copied().collect();
    let of: Vec<usize> = (0..tokens.images.len())
        .filter(|&i| infos[tested[i]].defect_type.is_none() || seen.contains(&tested[i]))
        .collect();
    let labels: Vec<bool> = of
        .iter()
        .map(|&i| infos[tested[i]].defect_type.is_some())
        .collect();
    let pick = |scores: &[f64]| of.iter().map(|&i| scores[i]).collect::<Vec<_>>();
    Ok(Some(SeenType {
        defect_type: defect_type.clone(),
        images: labels.iter().filter(|l| **l).count(),
        prompt_tuned_auroc: auroc(&labels, &pick(adapted))?,
        zero_shot_auroc: auroc(&labels, &pick(zero_shot))?,
    }))
}
