//! Evaluate a checkpoint: adapted and zero-shot scores of one test set, in one run.

mod scoring;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::scoring::{Scoring, Tokens};
use super::frozen::FrozenScores;
use super::manifests::{manifest, manifests};
use super::meta::init_lists;
use super::supervised::{Supervised, SupervisedOptions};
use super::universal::adaptation_for;
use super::{
    AdaptedTokens, BackboneOptions, BackboneOverrides, Category, CategoryOptions, Engine,
    EnsembleEvaluation, Event, HeldOutThresholds, HierarchyEvaluation, OnEvent, WorkflowError,
    check_owner, held_out::HeldOut, writable, write_json,
};
use crate::adapt::guard::PromptGuard;
use crate::adapt::{self, Adaptation, Checkpoint};
use flawtune::evaluate::comparison::{Comparison, Scored, TestSet};
use flawtune::evaluate::metrics::auroc;
use flawtune::evaluate::protocol::{Protocol, Split, SplitManifest, SplitOptions, check_disjoint};
use flawtune::evaluate::rows::{self, Row};
use flawtune::evaluate::score_table::ScoreTable;
use flawtune::evaluate::statistics::BootstrapOptions;
use flawtune::features::Forward as _;
use flawtune::score::heads::EnsembleRecord;

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
    /// Overwrite what another checkpoint's evaluation left there.
    pub overwrite: bool,
}

impl EvaluateRequest {
    /// Where the comparison goes; refused where it would overwrite another checkpoint's.
    fn path_of(&self, category: &str) -> Result<PathBuf, WorkflowError> {
        let path = self.output_dir.join(format!("{category}_comparison.json"));
        if !self.overwrite {
            check_owner(&path, &["checkpoint"], &self.checkpoint)?;
        }
        Ok(path)
    }
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

/// A checkpoint, what it learned, and the category that it is tested on.
struct Opened {
    checkpoint: Checkpoint,
    category: Category,
    name: String,
    /// The split of its training in this category, or else in the first.
    manifest: Option<SplitManifest>,
    /// Whether it was trained on this category.
    own: bool,
    protocol: Protocol,
    split: Split,
    engine: Engine,
    adaptation: Adaptation,
}

fn open(request: &EvaluateRequest, on_event: OnEvent<'_>) -> Result<Opened, WorkflowError> {
    let path = &request.checkpoint;
    let checkpoint = Checkpoint::read(path)?;
    on_event(Event::Read(path));
    let all = manifests(path, &checkpoint)?;
    let category = Category::open(&request.data, on_event)?;
    let name = category.dataset.category.clone();
    let manifest = manifest(path, &checkpoint, &name)?;
    let protocol = protocol(request, manifest.as_ref())?;
    let own = name == checkpoint.category || all.iter().any(|m| m.category == name);
    if !own {
        let trained: Vec<&str> = all.iter().map(|m| m.category.as_str()).collect();
        on_event(Event::Warning(format!(
            "{} was trained on {}, not on {name}",
            path.display(),
            if trained.is_empty() {
                checkpoint.category.clone()
            } else {
                trained.join(", ")
            }
        )));
    }
    let options = split_options(&checkpoint, manifest.as_ref(), &name, &protocol);
    let split = category.split(&options)?;
    on_event(Event::Split(&split.manifest));
    if !all.is_empty() {
        let tested = split.tested(&category.infos());
        let started_from = init_lists(path, &checkpoint)?;
        for manifest in all.iter().chain(&started_from) {
            check_disjoint(manifest, &name, &tested, &protocol)?;
        }
    }
    writable(&request.output_dir)?;
    let engine = open_backbone(path, &request.backbone, &checkpoint, on_event)?;
    let adaptation = adaptation_for(&checkpoint, &name)?;
    Ok(Opened {
        checkpoint,
        category,
        name,
        manifest,
        own,
        protocol,
        split,
        engine,
        adaptation,
    })
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
    let opened = open(request, on_event)?;
    let path = request.path_of(&opened.name)?;
    let tokens = Tokens::of(&opened, on_event)?;
    let (split, k) = (&opened.split, request.k_neighbors);
    let infos = opened.category.infos();
    let positions = tokens.positions();
    let ids: Vec<&str> = positions.iter().map(|&i| infos[i].id).collect();
    let types: Vec<Option<&str>> = positions.iter().map(|&i| infos[i].defect_type).collect();
    let shots = opened.manifest.as_ref().map(|m| m.shots);
    let test = TestSet {
        category: &opened.name,
        protocol: &opened.protocol.to_string(),
        seed: split.seed,
        shots: shots.unwrap_or(split.shots.len()),
        hash: &split.test_set_hash(&infos),
        ids: &ids,
        defect_types: &types,
    };
    let scoring = Scoring {
        request,
        opened: &opened,
        tokens: &tokens,
        test: &test,
        held_out: HeldOut::new(&tokens.supporting, &split.holdout_normals, k, on_event),
    };
    on_event(Event::PartBegins("scoring"));
    on_event(Event::Scoring("zero-shot"));
    let (zero_shot, held_zero_shot) = scoring.zero_shot()?;
    let prompt_guard = guard_of(&request.checkpoint, &opened.checkpoint)?;
    let falls_back = request.guard && prompt_guard.is_some_and(|g| g.fallback);
    if let Some(guard) = prompt_guard.filter(|_| falls_back) {
        on_event(Event::Warning(fallback_text(&guard)));
    }
    let through = (!falls_back).then(|| scoring.through(on_event));
    let through = through.transpose()?.flatten();
    on_event(Event::Scoring("adapted"));
    let (adapted, held_adapted) = match &through {
        _ if falls_back => (zero_shot.clone(), held_zero_shot.clone()),
        Some((adapted, _)) => scoring.pairs(&adapted.normals, &adapted.tested, None)?,
        None => scoring.pairs(&tokens.support, &tokens.looked_at, Some(&opened.adaptation))?,
    };
    let thresholds = held_adapted
        .zip(held_zero_shot)
        .map(|(a, b)| HeldOutThresholds::new(&a, &b, request.max_false_alarm))
        .transpose()?;
    let mut columns = vec![
        ("zero_shot", tokens.pick(&zero_shot)),
        ("prompt_tuned", tokens.pick(&adapted)),
    ];
    let ensemble = scoring.ensemble(on_event)?.map(|(found, scores)| {
        columns.extend(scores);
        found
    });
    let adapted_tokens = through.map(|(_, (found, scores))| {
        columns.extend([
            ("zero_shot_bank", scores.frozen_bank),
            ("adapted_bank", scores.bank),
            ("frozen_ensemble", scores.frozen_ensemble),
            ("adapted_ensemble", scores.ensemble),
        ]);
        found
    });
    let levels = scoring.levels(on_event)?;
    let levels = levels.map(|(found, [untouched, flat, own])| {
        let named = columns.iter().any(|(name, _)| *name == "zero_shot_bank");
        columns.extend((!named).then_some(("zero_shot_bank", untouched)));
        columns.extend([("flat_bank", flat), ("hierarchical_bank", own)]);
        found
    });
    let leaky = opened.protocol == Protocol::Leaky;
    let at = |of: fn(&HeldOutThresholds) -> f64| thresholds.as_ref().map(of);
    let at = [at(|t| t.zero_shot.value), at(|t| t.prompt_tuned.value)];
    let rows = rows_of(&test, leaky, &columns, at, request.bootstrap)?;
    let evaluation = Evaluation {
        comparison: Comparison::of_rows(&rows, [1, 0], &test, &columns[1].1),
        rows: rows.rows,
        hierarchy: levels,
        ensemble,
        prompt_guard,
        adapted_tokens,
        seen_type: seen_type(&opened, &tokens, &adapted, &zero_shot)?,
        thresholds,
        leaky,
        k_neighbors: k,
        support_images: tokens.support.images.len(),
        model_name: opened.engine.config().name.clone(),
        weights_hash: opened.engine.weights_hash().to_owned(),
        checkpoint: request.checkpoint.clone(),
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let name = &opened.name;
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
    let columns: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(i, (scorer, scores))| {
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
        })
        .collect();
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
    opened: &Opened,
    tokens: &Tokens,
    adapted: &[f64],
    zero_shot: &[f64],
) -> Result<Option<SeenType>, WorkflowError> {
    let Protocol::Hard { defect_type } = &opened.protocol else {
        return Ok(None);
    };
    let infos = opened.category.infos();
    let type_of = |i: usize| infos[tokens.tested[i]].defect_type;
    let seen: HashSet<usize> = opened.split.seen_type_test.iter().copied().collect();
    let of: Vec<usize> = (0..tokens.tested.len())
        .filter(|&i| type_of(i).is_none() || seen.contains(&tokens.tested[i]))
        .collect();
    let labels: Vec<bool> = of.iter().map(|&i| type_of(i).is_some()).collect();
    let pick = |scores: &[f64]| of.iter().map(|&i| scores[i]).collect::<Vec<_>>();
    Ok(Some(SeenType {
        defect_type: defect_type.clone(),
        images: labels.iter().filter(|l| **l).count(),
        prompt_tuned_auroc: auroc(&labels, &pick(adapted))?,
        zero_shot_auroc: auroc(&labels, &pick(zero_shot))?,
    }))
}
