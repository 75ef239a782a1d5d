//! The untouched model on a category: nearest neighbours among the good images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    BackboneOptions, Category, CategoryOptions, Engine, Event, OnEvent, WorkflowError, writable,
    write_json,
};
use flawtune::evaluate::comparison::{Scored, TestSet};
use flawtune::evaluate::protocol::{Protocol, SplitOptions};
use flawtune::evaluate::rows::{Column, Evaluation};
use flawtune::evaluate::statistics::{BootstrapOptions, Interval};
use flawtune::features::Forward as _;
use flawtune::score::{Aggregate, SupportSet, TokenKind};

/// What to measure.
#[derive(Debug, Clone)]
pub struct BaselineRequest {
    /// The images.
    pub data: CategoryOptions,
    /// The backbone.
    pub backbone: BackboneOptions,
    /// Who is tested; its shots are 0.
    pub split: SplitOptions,
    /// Support images whose similarities are averaged.
    pub k_neighbors: usize,
    /// Intervals.
    pub bootstrap: BootstrapOptions,
    /// Where `<category>_baseline.json` goes.
    pub output_dir: PathBuf,
}

/// One zero-shot scorer's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineResult {
    /// Which scorer.
    pub scorer: String,
    /// Area under the ROC curve; `null` with one class only.
    pub auroc: Option<f64>,
    /// Bootstrap interval of it.
    pub auroc_interval: Option<Interval>,
    /// Average precision.
    pub average_precision: f64,
}

/// Every zero-shot scorer on one test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Category.
    pub category: String,
    /// Protocol of the split.
    pub protocol: String,
    /// Seed of the split.
    pub seed: u64,
    /// Hash over the test images.
    pub test_set_hash: String,
    /// Normal images tested.
    pub test_normals: usize,
    /// Defective images tested.
    pub test_defects: usize,
    /// Support images.
    pub support_images: usize,
    /// Backbone.
    pub model_name: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// How intervals were made.
    pub bootstrap: BootstrapOptions,
    /// Results, the recipe's scorer first.
    pub scorers: Vec<BaselineResult>,
    /// Version of this program.
    pub flawtune_version: String,
}

/// Measures the zero-shot scorers and writes `<category>_baseline.json`; returns its path too.
///
/// # Errors
/// Anything wrong with the data or the backbone.
pub fn baseline(
    request: &BaselineRequest,
    on_event: OnEvent<'_>,
) -> Result<(Baseline, PathBuf), WorkflowError> {
    let category = Category::open(&request.data, on_event)?;
    let split = category.split(&request.split)?;
    on_event(Event::Split(&split.manifest));
    writable(&request.output_dir)?;
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let (_, support) = category.tokens(&engine, &split.normals(), on_event)?;
    let (tested, tokens) = category.tokens(&engine, &split.test, on_event)?;
    let infos = category.infos();

    on_event(Event::PartBegins("scoring"));
    let k = request.k_neighbors;
    let patches = SupportSet::new(&support, TokenKind::Patches, None)?;
    let class = SupportSet::new(&support, TokenKind::Class, None)?;
    on_event(Event::Scoring("image pairs"));
    let mut scorers = vec![
        (
            format!("image-pair, k = {k}"),
            patches.score_pairs(&tokens, k, false)?.scores,
        ),
        (
            format!("class token, k = {k}"),
            class.score_pairs(&tokens, k, false)?.scores,
        ),
    ];
    on_event(Event::Scoring("patch bank"));
    let distances = patches.patch_distances(&tokens)?;
    for (name, aggregate) in [
        ("patch bank, top 1 %", Aggregate::TopFraction(0.01)),
        ("patch bank, mean", Aggregate::Mean),
    ] {
        let scores = distances.iter().map(|d| aggregate.score(d)).collect();
        scorers.push((name.to_owned(), scores));
    }
    let ids: Vec<&str> = tested.iter().map(|&i| infos[i].id).collect();
    let types: Vec<Option<&str>> = tested.iter().map(|&i| infos[i].defect_type).collect();
    let test = TestSet {
        category: &category.dataset.category,
        protocol: &split.protocol.to_string(),
        seed: split.seed,
        shots: split.shots.len(),
        hash: &split.test_set_hash(&infos),
        ids: &ids,
        defect_types: &types,
    };
    let columns: Vec<Column<'_>> = scorers
        .iter()
        .map(|(scorer, scores)| Column {
            scorer,
            taught: false,
            scored: Scored {
                scores,
                threshold: None,
            },
            against: None,
        })
        .collect();
    let leaky = split.protocol == Protocol::Leaky;
    let evaluation = Evaluation::of(&test, leaky, &columns, request.bootstrap)?;
    let scorers = evaluation.rows.into_iter().map(|row| BaselineResult {
        scorer: row.scorer,
        auroc: row.metrics.auroc,
        auroc_interval: row.metrics.auroc_interval,
        average_precision: row.metrics.average_precision,
    });
    let result = Baseline {
        category: evaluation.category,
        protocol: evaluation.split.protocol,
        seed: evaluation.split.seed,
        test_set_hash: evaluation.split.test_set_hash,
        test_normals: evaluation.split.good,
        test_defects: evaluation.split.defects,
        support_images: support.images.len(),
        model_name: engine.config().name.clone(),
        weights_hash: engine.weights_hash().to_owned(),
        bootstrap: evaluation.bootstrap,
        scorers: scorers.collect(),
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let path = request
        .output_dir
        .join(format!("{}_baseline.json", result.category));
    write_json(&path, &result)?;
    on_event(Event::Wrote(&path));
    on_event(Event::PartEnds("scoring"));
    Ok((result, path))
}
