//! Score a category's test set with a bundle, by the function that `predict` calls.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use serde::{Deserialize, Serialize};

use super::{
    Category, CategoryOptions, Detector, Event, Next, OnEvent, PredictOptions, Prediction,
    WorkflowError, predict, writable, write_json,
};
use crate::bundle::IndexInfo;
use crate::dataset::read_mask;
use crate::evaluate::metrics::{
    HistogramMetrics, PixelHistogram, PixelImage, auroc, average_precision, f1_max,
};
use crate::evaluate::protocol::{ImageRef, Protocol, SplitOptions, check_disjoint};
use crate::evaluate::statistics::{
    BootstrapOptions, Interval, RankingMetric, Rate, bootstrap_interval,
};
use crate::features::{Progress, Stage};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct BundleEvaluateRequest {
    /// The pictures; features are not cached, as `predict` caches none.
    pub data: CategoryOptions,
    /// The bundle.
    pub bundle: PathBuf,
    /// Weight file to use.
    pub weights: Option<PathBuf>,
    /// False positive rate that bounds the per-region overlap.
    pub aupro_limit: f64,
    /// Intervals.
    pub bootstrap: BootstrapOptions,
    /// Where `<category>_detection.json` and `<category>_predictions.csv` go.
    pub output_dir: PathBuf,
}

/// Pixel metrics over the good images and the defects that have a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PixelResult {
    /// Defects with a mask.
    pub masked_images: usize,
    /// Defects without one, left out here.
    pub unmasked_images: usize,
    /// Bound of the false positive rate for the per-region overlap.
    pub aupro_limit: f64,
    /// The metrics.
    #[serde(flatten)]
    pub metrics: HistogramMetrics,
}

/// One defect type against all good test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeResult {
    /// Images of the type.
    pub images: usize,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// How many of them reach the threshold.
    pub found: Option<Rate>,
    /// Pixel metrics, where masks exist.
    pub pixels: Option<PixelResult>,
}

/// A bundle on a test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleEvaluation {
    /// Category.
    pub category: String,
    /// Protocol of the split.
    pub protocol: String,
    /// Whether images the bundle was fitted to are among the tested: such numbers are no result.
    pub leaky: bool,
    /// Seed of the split.
    pub seed: u64,
    /// Hash over the test images.
    pub test_set_hash: String,
    /// Good images tested.
    pub test_normals: usize,
    /// Defective images tested.
    pub test_defects: usize,
    /// The scorer.
    pub scorer: String,
    /// Good images in the bank.
    pub support_images: usize,
    /// Patches in the bank.
    pub bank_patches: usize,
    /// The approximate index, and how well it finds; none: every patch is compared.
    pub index: Option<IndexInfo>,
    /// Area under the ROC curve of the image scores.
    pub auroc: Option<f64>,
    /// Bootstrap interval of it.
    pub auroc_interval: Option<Interval>,
    /// Average precision.
    pub average_precision: f64,
    /// Largest F1 over all thresholds, chosen on these images.
    pub f1_max: Option<f64>,
    /// The bundle's threshold.
    pub threshold: f64,
    /// Good images at or above it.
    pub false_alarms: Option<Rate>,
    /// Defects at or above it.
    pub found: Option<Rate>,
    /// Pixel metrics, where masks exist.
    pub pixels: Option<PixelResult>,
    /// By defect type.
    pub per_defect_type: BTreeMap<String, TypeResult>,
    /// How intervals were made.
    pub bootstrap: BootstrapOptions,
    /// Backbone.
    pub model_name: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// The bundle.
    pub bundle: PathBuf,
    /// Version of this program.
    pub flawtune_version: String,
}

/// Pixels counted so far.
#[derive(Debug, Default)]
struct Pixels {
    good: PixelHistogram,
    types: HashMap<String, (PixelHistogram, usize, usize)>,
}

/// Scores the test set and writes `<category>_detection.json` and `<category>_predictions.csv`; returns the path of the
/// first too.
///
/// # Errors
/// A bundle whose support, shots or other images of its fit are in the test set; anything wrong with the bundle or
/// the data.
pub fn evaluate_bundle(
    request: &BundleEvaluateRequest,
    on_event: OnEvent<'_>,
) -> Result<(BundleEvaluation, PathBuf), WorkflowError> {
    if !(request.aupro_limit > 0.0 && request.aupro_limit <= 1.0) {
        return Err(WorkflowError::Input(format!(
            "--aupro-limit is {}; it is larger than 0 and at most 1, such as 0.3",
            request.aupro_limit
        )));
    }
    let detector = Detector::open(&request.bundle, request.weights.as_deref(), on_event)?;
    on_event(Event::Read(&request.bundle));
    let header = detector.header();
    let manifest = &header.manifest;
    let category = Category::open(&request.data, on_event)?;
    let name = category.dataset.category.clone();
    let same = name == manifest.category;
    if !same {
        on_event(Event::Warning(format!(
            "{} was fitted to {}, not to {name}",
            request.bundle.display(),
            manifest.category
        )));
    }
    let protocol = if same {
        manifest.protocol.clone()
    } else {
        Protocol::HeldOut
    };
    let split = category.split(&if same {
        SplitOptions {
            protocol: protocol.clone(),
            seed: manifest.seed,
            shots: manifest.shots,
            pool: (protocol != Protocol::Leaky).then_some(manifest.pool.len()),
            holdout_fraction: manifest.holdout_fraction,
        }
    } else {
        SplitOptions::held_out(manifest.seed, 0)
    })?;
    on_event(Event::Split(&split.manifest));
    let infos = category.infos();
    let tested: Vec<ImageRef> = split
        .test
        .iter()
        .map(|&i| ImageRef::new(infos[i].id, infos[i].content))
        .collect();
    check_disjoint(manifest, &name, &tested, &protocol)?;
    writable(&request.output_dir)?;

    on_event(Event::PartBegins("scoring"));
    on_event(Event::Scoring(header.scorer.name()));
    let samples: Vec<usize> = split.test.clone();
    let batch = request.data.batch_size.max(1);
    let mut given = 0;
    let mut next = |_: bool| {
        let paths = samples[given..]
            .iter()
            .take(batch)
            .map(|&i| category.dataset.samples[i].path.clone());
        let paths: Vec<PathBuf> = paths.collect();
        given += paths.len();
        Ok(if paths.is_empty() {
            Next::End
        } else {
            Next::Paths(paths)
        })
    };
    let masked = samples
        .iter()
        .any(|&i| !category.dataset.samples[i].masks.is_empty());
    let options = PredictOptions {
        skip_bad_images: request.data.skip_bad_images,
        maps: masked,
    };
    let by_path: HashMap<&Path, usize> = samples
        .iter()
        .map(|&i| (category.dataset.samples[i].path.as_path(), i))
        .collect();
    let mut pixels = Pixels::default();
    let mut found: Vec<(usize, Prediction)> = Vec::new();
    let mut warnings = Vec::new();
    predict(
        &detector,
        options,
        &mut next,
        &mut |mut prediction| {
            let at = by_path[prediction.path.as_path()];
            if let Some(map) = prediction.map.take() {
                pixels.add(&category, &detector, at, &map)?;
            }
            prediction.picture = None;
            found.push((at, prediction));
            let done = Progress {
                stage: Stage::Extracting,
                done: found.len(),
                total: samples.len(),
            };
            on_event(Event::Images(done));
            Ok(ControlFlow::Continue(()))
        },
        &mut |event| {
            if let Event::Warning(text) = event {
                warnings.push(text);
            }
        },
    )?;
    for text in warnings {
        on_event(Event::Warning(text));
    }

    let labels: Vec<bool> = found
        .iter()
        .map(|(at, _)| infos[*at].defect_type.is_some())
        .collect();
    let scores: Vec<f64> = found.iter().map(|(_, p)| p.score).collect();
    let both = labels.contains(&true) && labels.contains(&false);
    let flagged = |wanted: &dyn Fn(usize) -> bool| {
        let of: Vec<usize> = (0..found.len()).filter(|&i| wanted(found[i].0)).collect();
        Rate::new(of.iter().filter(|&&i| found[i].1.flaw).count(), of.len())
    };
    let mut per_defect_type = BTreeMap::new();
    for kind in labels_of(&found, &infos) {
        let of: Vec<usize> = (0..found.len())
            .filter(|&i| infos[found[i].0].defect_type.is_none_or(|t| t == kind))
            .collect();
        let labels: Vec<bool> = of.iter().map(|&i| labels[i]).collect();
        let scores: Vec<f64> = of.iter().map(|&i| scores[i]).collect();
        per_defect_type.insert(
            kind.clone(),
            TypeResult {
                images: labels.iter().filter(|l| **l).count(),
                auroc: auroc(&labels, &scores)?,
                found: flagged(&|at| infos[at].defect_type == Some(kind.as_str())),
                pixels: pixels.of(Some(&kind), request.aupro_limit),
            },
        );
    }
    let test_defects = labels.iter().filter(|l| **l).count();
    let evaluation = BundleEvaluation {
        protocol: protocol.to_string(),
        leaky: protocol == Protocol::Leaky,
        seed: split.seed,
        test_set_hash: split.test_set_hash(&infos),
        test_normals: labels.len() - test_defects,
        test_defects,
        scorer: header.scorer.name().to_owned(),
        support_images: header.support.len(),
        bank_patches: header.bank.rows,
        index: header.bank.index.clone(),
        auroc: auroc(&labels, &scores)?,
        auroc_interval: if both {
            Some(bootstrap_interval(
                &labels,
                &scores,
                RankingMetric::Auroc,
                &request.bootstrap,
            )?)
        } else {
            None
        },
        average_precision: average_precision(&labels, &scores)?,
        f1_max: if test_defects > 0 {
            Some(f1_max(&labels, &scores)?.f1)
        } else {
            None
        },
        threshold: header.threshold.value,
        false_alarms: flagged(&|at| infos[at].defect_type.is_none()),
        found: flagged(&|at| infos[at].defect_type.is_some()),
        pixels: pixels.of(None, request.aupro_limit),
        per_defect_type,
        bootstrap: request.bootstrap,
        model_name: header.model_name.clone(),
        weights_hash: header.weights_hash.clone(),
        bundle: request.bundle.clone(),
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
        category: name,
    };
    let path = request
        .output_dir
        .join(format!("{}_detection.json", evaluation.category));
    write_json(&path, &evaluation)?;
    on_event(Event::Wrote(&path));
    let table = request
        .output_dir
        .join(format!("{}_predictions.csv", evaluation.category));
    let rows = found
        .iter()
        .map(|(at, p)| (infos[*at].id, infos[*at].defect_type.unwrap_or_default(), p));
    write_predictions(&table, rows)?;
    on_event(Event::Wrote(&table));
    on_event(Event::PartEnds("scoring"));
    Ok((evaluation, path))
}

/// The defect types among what was tested.
fn labels_of(
    found: &[(usize, Prediction)],
    infos: &[crate::evaluate::protocol::SampleInfo<'_>],
) -> std::collections::BTreeSet<String> {
    found
        .iter()
        .filter_map(|(at, _)| infos[*at].defect_type.map(str::to_owned))
        .collect()
}

impl Pixels {
    /// Counts the pixels of a sample's map.
    fn add(
        &mut self,
        category: &Category,
        detector: &Detector,
        at: usize,
        map: &crate::score::map::AnomalyMap,
    ) -> Result<(), WorkflowError> {
        let sample = &category.dataset.samples[at];
        let (height, width) = (map.height(), map.width());
        let Some(kind) = &sample.defect_type else {
            return Ok(self.good.add(&PixelImage {
                width,
                height,
                mask: None,
                map: map.values(),
            })?);
        };
        let (histogram, masked, unmasked) = self.types.entry(kind.clone()).or_default();
        if sample.masks.is_empty() {
            *unmasked += 1;
            return Ok(());
        }
        let mask = read_mask(
            &sample.path,
            &sample.masks,
            (height, width),
            &detector.preprocess().decode_options(),
        )?;
        *masked += 1;
        histogram.add(&PixelImage {
            width,
            height,
            mask: Some(&mask),
            map: map.values(),
        })?;
        Ok(())
    }

    /// Metrics of one type, or of all; `None` without any mask.
    fn of(&self, kind: Option<&str>, limit: f64) -> Option<PixelResult> {
        let mut all = self.good.clone();
        let (mut masked_images, mut unmasked_images) = (0, 0);
        // in a fixed order: sums of shares depend on it in the last bit
        let mut kinds: Vec<&String> = self
            .types
            .keys()
            .filter(|k| kind.is_none_or(|kind| kind == *k))
            .collect();
        kinds.sort();
        for (histogram, masked, unmasked) in kinds.into_iter().map(|k| &self.types[k]) {
            all.merge(histogram);
            masked_images += masked;
            unmasked_images += unmasked;
        }
        (masked_images > 0).then(|| PixelResult {
            masked_images,
            unmasked_images,
            aupro_limit: limit,
            metrics: all.metrics(limit),
        })
    }
}

/// One row a test image, scores to the last bit.
fn write_predictions<'a>(
    path: &Path,
    rows: impl Iterator<Item = (&'a str, &'a str, &'a Prediction)>,
) -> Result<(), WorkflowError> {
    let failed = |source| WorkflowError::Io {
        path: path.to_owned(),
        source,
        hint: "choose another --output-dir or make room",
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(["image", "defect_type", "score", "probability", "verdict"])
        .map_err(|e| failed(e.into()))?;
    for (id, kind, p) in rows {
        let verdict = if p.flaw { "flaw" } else { "good" };
        writer
            .write_record([
                id,
                kind,
                &p.score.to_string(),
                &p.probability.to_string(),
                verdict,
            ])
            .map_err(|e| failed(e.into()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    atomic_file::write(path, &bytes).map_err(failed)
}
