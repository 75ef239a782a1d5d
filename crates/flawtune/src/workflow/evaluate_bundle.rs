//! Score a category's test set with a bundle, by the function that `predict` calls.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file;
use flawtune_backbone::preprocess::Part;
use serde::{Deserialize, Serialize};

use super::source::TokenOpener;
use super::{
    Category, CategoryOptions, Detector, Event, Next, OnEvent, PredictOptions, Predicted,
    Prediction, WorkflowError, predict, writable, write_json,
};
use crate::bundle::{Header, IndexInfo, MapScale};
use crate::dataset::read_mask;
use crate::evaluate::comparison::{Scored, TestSet};
use crate::evaluate::metrics::{PixelHistogram, PixelImage};
use crate::evaluate::protocol::{
    ImageRef, Protocol, SampleInfo, Split, SplitManifest, SplitOptions, check_disjoint,
};
use crate::evaluate::rows::{Column, Evaluation, PixelMetrics, Row};
use crate::evaluate::statistics::BootstrapOptions;
use crate::features::{Progress, Stage};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct BundleEvaluateRequest {
    /// The images; features are not cached, as `predict` caches none.
    pub data: CategoryOptions,
    /// The bundle.
    pub bundle: PathBuf,
    /// Weight file to use.
    pub weights: Option<PathBuf>,
    /// Reads what was learned and changes the tokens, where the bundle holds it.
    pub opener: Option<TokenOpener>,
    /// False positive rate that bounds the per-region overlap.
    pub aupro_limit: f64,
    /// Intervals.
    pub bootstrap: BootstrapOptions,
    /// Where `<category>_detection.json` and `<category>_predictions.csv` go.
    pub output_dir: PathBuf,
    /// Overwrite the results of another detector there.
    pub overwrite: bool,
}

/// A detector on a test set: a row of what it ships, and where it learned from defects one of what it would be without them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorEvaluation {
    /// The rows; the first is the detector's own.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Tested images that as a whole do not look like the good images of the fit, good ones and defects.
    #[serde(default)]
    pub unlike: [usize; 2],
    /// For each type of the tested defects that were found, how often which type was named; empty where none can be named.
    #[serde(default)]
    pub kinds: BTreeMap<String, BTreeMap<String, usize>>,
    /// Good images in the bank.
    pub support_images: usize,
    /// Patches in the bank; where several blocks are looked at, in each.
    pub bank_patches: usize,
    /// The approximate index, and how well it finds; none: every patch is compared.
    pub index: Option<IndexInfo>,
    /// Backbone.
    pub model_name: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// The detector's file.
    pub detector: PathBuf,
    /// Version of this program.
    pub flawtune_version: String,
}

impl DetectorEvaluation {
    /// What the detector ships.
    ///
    /// # Panics
    /// If there is no row.
    pub fn shipped(&self) -> &Row {
        &self.evaluation.rows[0]
    }
}

/// An image that was tested.
#[derive(Debug)]
pub struct Tested<'a> {
    /// Its id in the data set, a path in it.
    pub id: &'a str,
    /// What was found, with its map.
    pub predicted: &'a Predicted,
    /// How its map is drawn.
    pub scale: &'a MapScale,
}

/// Receives every tested image with its map.
pub type OnTested<'a> = &'a mut dyn FnMut(Tested<'_>) -> Result<(), WorkflowError>;

/// Pixels counted so far.
#[derive(Debug)]
struct Pixels {
    span: (f32, f32),
    good: PixelHistogram,
    types: HashMap<String, (PixelHistogram, usize, usize)>,
}

/// Scores the test set and writes `<category>_detection.json` and `<category>_predictions.csv`; returns the path of the
/// first too. `on_tested`, where there is one, receives every image with its map.
///
/// # Errors
/// A bundle whose support, shots or other images of its fit are in the test set; anything wrong with the bundle or
/// the data; those of `on_tested`.
pub fn evaluate_bundle(
    request: &BundleEvaluateRequest,
    on_tested: Option<OnTested<'_>>,
    on_event: OnEvent<'_>,
) -> Result<(DetectorEvaluation, PathBuf), WorkflowError> {
    if !(request.aupro_limit > 0.0 && request.aupro_limit <= 1.0) {
        return Err(WorkflowError::Input(format!(
            "`aupro_limit` is {}; it is larger than 0 and at most 1, such as 0.3",
            request.aupro_limit
        )));
    }
    let detector = Detector::open_with(
        &request.bundle,
        request.weights.as_deref(),
        request.opener,
        on_event,
    )?;
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
    let mut split = category.split(&if same {
        manifest.options()
    } else {
        // nothing of this category was learned from, so nothing is kept back
        SplitOptions {
            pool: Some(0),
            ..SplitOptions::held_out(manifest.seed, 0)
        }
    })?;
    on_event(Event::Split(&split.manifest));
    let infos = category.infos();
    let tested = tested(manifest, &infos, &mut split, on_event);
    check_disjoint(manifest, &name, &tested, &protocol)?;
    writable(&request.output_dir)?;
    let path = request.output_dir.join(format!("{name}_detection.json"));
    if !request.overwrite {
        // 'bundle' in those of older versions
        check_owner(&path, &["detector", "bundle"], &request.bundle)?;
    }

    on_event(Event::PartBegins("scoring"));
    on_event(Event::Scoring(header.scorer.name()));
    let asked = (&split.test[..], on_tested);
    let scored = score(request, &detector, &category, asked, on_event)?;
    let ids: Vec<&str> = scored.found.iter().map(|(at, _)| infos[*at].id).collect();
    let types: Vec<Option<&str>> = scored
        .found
        .iter()
        .map(|(at, _)| infos[*at].defect_type)
        .collect();
    let test = TestSet {
        category: &name,
        protocol: &protocol.to_string(),
        seed: split.seed,
        shots: manifest.shots,
        hash: &split.test_set_hash(&infos),
        ids: &ids,
        defect_types: &types,
    };
    let leaky = protocol == Protocol::Leaky;
    let rows = rows_of(&test, leaky, header, &scored, request)?;
    let evaluation = DetectorEvaluation {
        evaluation: rows,
        unlike: [false, true].map(|defect| {
            let of = scored.found.iter().zip(&types);
            of.filter(|((_, p), t)| t.is_some() == defect && p.drift >= 1.0)
                .count()
        }),
        kinds: named(scored.found.iter().zip(types.iter().copied())),
        support_images: header.support.len(),
        bank_patches: header.bank.rows,
        index: header.bank.index.clone(),
        model_name: header.model_name.clone(),
        weights_hash: header.weights_hash.clone(),
        detector: request.bundle.clone(),
        flawtune_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    write_json(&path, &evaluation)?;
    on_event(Event::Wrote(&path));
    let table = request.output_dir.join(format!("{name}_predictions.csv"));
    let rows = scored
        .found
        .iter()
        .map(|(at, p)| (infos[*at].id, infos[*at].defect_type.unwrap_or_default(), p));
    write_predictions(&table, rows)?;
    on_event(Event::Wrote(&table));
    on_event(Event::PartEnds("scoring"));
    Ok((evaluation, path))
}

/// The detector's row, and where it learned from defects the row of what it would be without them.
fn rows_of(
    test: &TestSet<'_>,
    leaky: bool,
    header: &Header,
    scored: &ScoredImages,
    request: &BundleEvaluateRequest,
) -> Result<Evaluation, WorkflowError> {
    let own: Vec<f64> = scored.found.iter().map(|(_, p)| p.score).collect();
    let untaught = scored
        .found
        .iter()
        .map(|(_, p)| p.untaught.as_ref().map(|u| u.0));
    let untaught: Option<Vec<f64>> = untaught.collect();
    let untaught = untaught.filter(|scores| !scores.is_empty());
    let mut columns = vec![Column {
        scorer: header.scorer.name(),
        taught: untaught.is_some() || header.checkpoint.is_some(),
        scored: Scored {
            scores: &own,
            threshold: Some(header.threshold.value),
        },
        against: untaught.as_ref().map(|_| 1),
    }];
    columns.extend(untaught.as_ref().map(|scores| Column {
        scorer: UNTAUGHT,
        taught: false,
        scored: Scored {
            scores,
            threshold: header.untaught_threshold,
        },
        against: None,
    }));
    let mut rows = Evaluation::of(test, leaky, &columns, request.bootstrap)?;
    for (row, pixels) in rows.rows.iter_mut().zip(&scored.pixels) {
        row.pixels = pixels.of(None, request.aupro_limit);
        for (kind, metrics) in &mut row.by_type {
            metrics.pixels = pixels.of(Some(kind), request.aupro_limit);
        }
    }
    Ok(rows)
}

/// The test set without images that were learned later, which are not tested.
fn tested(
    manifest: &SplitManifest,
    infos: &[SampleInfo<'_>],
    split: &mut Split,
    on_event: OnEvent<'_>,
) -> Vec<ImageRef> {
    let reference = |i: usize| ImageRef::new(infos[i].id, infos[i].content);
    let later: HashSet<&str> = manifest.added.iter().map(|i| i.content.as_str()).collect();
    let before = split.test.len();
    split
        .test
        .retain(|i| !later.contains(&*reference(*i).content));
    if split.test.len() < before {
        on_event(Event::Note(format!(
            "{} images of the test set were learned from later, and are not tested",
            before - split.test.len()
        )));
    }
    split.test.iter().map(|&i| reference(i)).collect()
}

/// How often which type was named, for each type of the defects that were found.
fn named<'a>(
    found: impl Iterator<Item = (&'a (usize, Prediction), Option<&'a str>)>,
) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut kinds: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for ((_, prediction), is) in found {
        if let (Some(is), Some(named)) = (is, &prediction.kind) {
            let row = kinds.entry(is.to_owned()).or_default();
            *row.entry(named.clone()).or_default() += 1;
        }
    }
    kinds
}

/// Refuses results that are there and tell of another file than `owner`, in the first of the fields `named` that they have.
///
/// # Errors
/// [`WorkflowError::Input`], naming both files.
pub fn check_owner(results: &Path, named: &[&str], owner: &Path) -> Result<(), WorkflowError> {
    let of = || -> Option<PathBuf> {
        let text = std::fs::read_to_string(results).ok()?;
        let there: serde_json::Value = serde_json::from_str(&text).ok()?;
        let owner = named.iter().find_map(|field| there.get(field))?;
        Some(PathBuf::from(owner.as_str()?))
    };
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match of() {
        Some(other) if whole(&other) != whole(owner) => Err(WorkflowError::Input(format!(
            "{}: holds the results of another {}, {}\n\
             hint: choose another `output_dir`; `force` overwrites them",
            results.display(),
            named[0],
            other.display()
        ))),
        _ => Ok(()),
    }
}

/// What a detector without the defects it learned from is called: it knows good images only.
const UNTAUGHT: &str = "bank";

/// The test set as `predict` sees it.
struct ScoredImages {
    /// Positions and predictions, without maps.
    found: Vec<(usize, Prediction)>,
    /// Pixels by the detector's maps, and by those it would draw without the defects it learned from.
    pixels: [Pixels; 2],
}

/// Scores the samples at `samples` by the function that `predict` calls.
fn score(
    request: &BundleEvaluateRequest,
    detector: &Detector,
    category: &Category,
    (samples, mut on_tested): (&[usize], Option<OnTested<'_>>),
    on_event: OnEvent<'_>,
) -> Result<ScoredImages, WorkflowError> {
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
        maps: masked || on_tested.is_some(),
        max_map_pixels: None,
        untaught: true,
    };
    let by_path: HashMap<&Path, usize> = samples
        .iter()
        .map(|&i| (category.dataset.samples[i].path.as_path(), i))
        .collect();
    let mut pixels = [(); 2].map(|()| Pixels::new(detector.span()));
    let mut found: Vec<(usize, Prediction)> = Vec::new();
    let mut warnings = Vec::new();
    predict(
        detector,
        options,
        &mut next,
        &mut |predicted| {
            let at = by_path[predicted.path.as_path()];
            if let Some(on_tested) = &mut on_tested {
                on_tested(Tested {
                    id: &category.dataset.samples[at].id,
                    predicted: &predicted,
                    scale: &detector.header().map,
                })?;
            }
            let mut prediction = predicted.prediction;
            let untaught = prediction.untaught.as_mut().and_then(|u| u.1.take());
            let maps = [prediction.map.take(), untaught];
            for (pixels, map) in pixels.iter_mut().zip(maps) {
                if let Some(map) = map {
                    pixels.add(category, detector, at, &map)?;
                }
            }
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
    Ok(ScoredImages { found, pixels })
}

/// The pixels of a part of rows of `width` pixels.
fn inside<T: Copy>(values: &[T], width: usize, part: Part) -> Cow<'_, [T]> {
    if part.height * part.width == values.len() {
        return Cow::Borrowed(values);
    }
    let rows = values.chunks_exact(width).skip(part.top).take(part.height);
    let of_row = |row: &[T]| row[part.left..][..part.width].to_vec();
    Cow::Owned(rows.flat_map(of_row).collect())
}

impl Pixels {
    fn new(span: (f32, f32)) -> Self {
        Self {
            span,
            good: PixelHistogram::spanning(span),
            types: HashMap::new(),
        }
    }

    /// Counts the pixels of a sample's map.
    fn add(
        &mut self,
        category: &Category,
        detector: &Detector,
        at: usize,
        map: &crate::score::map::AnomalyMap,
    ) -> Result<(), WorkflowError> {
        let sample = &category.dataset.samples[at];
        let size = (map.height(), map.width());
        // nothing outside of a region of interest is judged
        let part = detector.preprocess().part(size.0, size.1);
        let (height, width) = (part.height, part.width);
        let mut values = inside(map.values(), size.1, part);
        let hidden = detector.preprocess().hidden(part, size);
        if !hidden.is_empty() {
            // nobody sees what a mask hides: it is as good as can be
            let values = values.to_mut();
            for &at in &hidden {
                values[at] = self.span.0;
            }
        }
        let Some(kind) = &sample.defect_type else {
            return Ok(self.good.add(&PixelImage {
                width,
                height,
                mask: None,
                map: &values,
            })?);
        };
        let none = || (PixelHistogram::spanning(self.span), 0, 0);
        let (histogram, masked, unmasked) = self.types.entry(kind.clone()).or_insert_with(none);
        if sample.masks.is_empty() {
            *unmasked += 1;
            return Ok(());
        }
        let mask = read_mask(
            &sample.path,
            &sample.masks,
            size,
            &detector.preprocess().decode_options(),
        )?;
        let mut mask = inside(&mask, size.1, part);
        if !hidden.is_empty() {
            let mask = mask.to_mut();
            for &at in &hidden {
                mask[at] = 0;
            }
        }
        *masked += 1;
        histogram.add(&PixelImage {
            width,
            height,
            mask: Some(&mask),
            map: &values,
        })?;
        Ok(())
    }

    /// Metrics of one type, or of all; `None` without any mask.
    fn of(&self, kind: Option<&str>, limit: f64) -> Option<PixelMetrics> {
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
        (masked_images > 0).then(|| PixelMetrics {
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
        hint: "choose another `output_dir` or make room",
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
